//! Rows of a segment by their rank: top-k routers, and capacities over a set.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Candidates, Keep, RankOrder, Ranked, Segment, Select, View};
use skipc_plan::pointwise::Real;

use super::Case;
use super::cached::Pages;
use super::compact::finish;
use super::draft::{Draft, Values, dense, listed};

pub(super) fn add(cases: &mut Vec<Case>) {
    // Rows around the widths at which segments may be walked (lanes, blocks).
    for rows in [0, 1, 2, 31, 32, 33, 63, 64, 65, 257, 1025] {
        cases.push(top_k("spread", &[rows], Keep::Share(0.25.into()), |draft, n| {
            draft.random(n, Values::Within(2.0))
        }));
        cases.push(capacity("spread", Scored::Best, &[rows], (16, 3)));
        cases.push(capacity("spread", Scored::First, &[rows], (16, 3)));
        cases.push(of_batch(&[rows, 0, 1, rows], 0.25));
    }
    cases.push(of_batch(&[2, 3, 40], 0.0));
    cases.push(of_batch(&[2, 3, 40], 1.0));
    add_scores(cases);
    add_shares(cases);
    add_capacities(cases);
    for rows in [0, 1, 15, 16, 17, 33] {
        for before in [0, 1, 15, 16, 47] {
            cases.push(going_on(before, &[rows, 3, rows, 2, 1], (16, 3)));
            cases.push(going_on(before, &[rows, 1], (64, 20)));
        }
    }
    cases.push(going_on(100, &[40, 7], (1, 1)));
    cases.push(going_on(70, &[40, 7], (u32::MAX, 50)));
    cases.push(one_column_of_listed_rows());
    cases.push(share_of_masked_rows());
    for rows in [0, 1, 33, 100] {
        cases.push(forced(rows));
    }
}

fn add_scores(cases: &mut Vec<Case>) {
    type Scores = fn(&mut Draft, usize) -> Vec<f64>;
    let kinds: [(&str, Scores); 6] = [
        ("all_equal", |_, n| vec![0.25; n]),
        ("few_levels", |draft, n| (0..n).map(|_| (draft.next() % 3) as f64).collect()),
        ("not_numbers", |_, n| vec![f64::NAN; n]),
        ("both_zeros", |_, n| [-0.0, 0.0, 0.0, -0.0].into_iter().cycle().take(n).collect()),
        ("edges", edges),
        ("ascending", |_, n| (0..n).map(|row| row as f64 - 20.0).collect()),
    ];
    for (name, scores) in kinds {
        for lengths in [&[40][..], &[1, 7, 33, 2, 32, 64]] {
            cases.push(top_k(name, lengths, Keep::Share(0.3.into()), scores));
        }
    }
}

/// NaN of both signs among infinities, the largest and smallest numbers, and zeros.
fn edges(draft: &mut Draft, n: usize) -> Vec<f64> {
    let (largest, smallest) = (f64::from(f32::MAX), f64::from(f32::from_bits(1)));
    let mut edges = vec![f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0];
    edges.extend([largest, -largest, smallest, -smallest, 1.0, -1.0]);
    (0..n).map(|_| edges[draft.next() as usize % edges.len()]).collect()
}

/// Shares whose product with the rows lies on or beside a whole number, and the ends.
fn add_shares(cases: &mut Vec<Case>) {
    for (share, rows) in [(0.0, 9), (1.0, 33), (0.1, 10), (0.3, 10), (0.7, 10), (0.29, 100), (0.55, 100)] {
        let name = format!("share_{}", (share * 100.0_f64).round());
        for (way, keep) in [("", Keep::Share as fn(Real) -> Keep), ("_down", Keep::ShareDown)] {
            let draw = |draft: &mut Draft, n: usize| draft.random(n, Values::Within(2.0));
            cases.push(top_k(&format!("{name}{way}"), &[rows], keep(share.into()), draw));
        }
    }
    for rows in [0, 1, 2, 32, 33, 63, 64, 65] {
        let draw = |draft: &mut Draft, n: usize| draft.random(n, Values::Within(2.0));
        cases.push(top_k("third_down", &[rows, 4, rows], Keep::ShareDown((1.0 / 3.0).into()), draw));
    }
    // Just above a quarter: one row more than the fourth part.
    let above = 0.25_f64.next_up();
    cases.push(top_k("share_above", &[64, 3, 32], Keep::Share(above.into()), |draft, n| {
        draft.random(n, Values::Within(2.0))
    }));
}

fn add_capacities(cases: &mut Vec<Case>) {
    for scored in [Scored::First, Scored::Best] {
        // Groups that end before, with and behind the sequence; more slots than rows, and none.
        let lengths = [20, 16, 1, 33, 0, 15, 17];
        for (size, slots) in [(16, 4), (16, 0), (16, 17), (1, 1), (5, 2), (64, 9), (100, 1000), (33, 8)] {
            cases.push(capacity("lengths", scored, &lengths, (size, slots)));
        }
        cases.push(capacity("widest", scored, &[300, 40], (u32::MAX, u32::MAX)));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scored {
    First,
    Best,
}

/// Positions and sequences of a batch, and its bound.
fn places(draft: &mut Draft, lengths: &[u32]) -> (View, View, (u32, u32)) {
    places_from(draft, 0, lengths)
}

/// The same for sequences whose earlier steps had `before` rows each.
fn places_from(draft: &mut Draft, before: u32, lengths: &[u32]) -> (View, View, (u32, u32)) {
    let positions: Vec<u32> = lengths.iter().flat_map(|length| before..before + length).collect();
    let numbered = (0..).zip(lengths);
    let sequences: Vec<u32> =
        numbered.flat_map(|(sequence, length)| vec![sequence; *length as usize]).collect();
    let rows = positions.len() as u32;
    let bound = rows + 3;
    let positions = dense(draft.column("positions", bound, &positions));
    let sequences = dense(draft.column("sequences", bound, &sequences));
    (positions, sequences, (rows, bound))
}

fn top_k(
    name: &str,
    lengths: &[u32],
    keep: Keep,
    scores: impl FnOnce(&mut Draft, usize) -> Vec<f64>,
) -> Case {
    let rows: u32 = lengths.iter().sum();
    let n = lengths.len();
    let mut draft = Draft::new(format!("compact_top_k_{name}_sequences_{n}_rows_{rows}"));
    let (_, sequences, (rows, bound)) = places(&mut draft, lengths);
    let scores = scores(&mut draft, rows as usize);
    let scores = draft.matrix("scores", (DType::F32, bound, 1), &scores);
    let ranked = Ranked {
        among: Candidates::All,
        sequences: Some(sequences),
        segment: Segment::Sequence,
        order: RankOrder::Score(dense(scores)),
        keep,
    };
    finish(draft, Select::Ranked(ranked), (rows, bound), None)
}

/// The sequences of a batch compete for one share; scores are few, so that many are equal.
fn of_batch(lengths: &[u32], share: f64) -> Case {
    let rows: u32 = lengths.iter().sum();
    let mut draft = Draft::new(format!("compact_top_k_of_batch_{share}_rows_{rows}"));
    let bound = rows + 3;
    let scores: Vec<f64> = (0..rows).map(|_| (draft.next() % 9) as f64 - 4.0).collect();
    let ranked = Ranked {
        among: Candidates::All,
        sequences: None,
        segment: Segment::Sequence,
        order: RankOrder::Score(dense(draft.matrix("scores", (DType::F32, bound, 1), &scores))),
        keep: Keep::Share(Real::from(share)),
    };
    finish(draft, Select::Ranked(ranked), (rows, bound), None)
}

/// Of a set of about half of the rows; scores are few, so that many are equal.
fn capacity(name: &str, scored: Scored, lengths: &[u32], (size, slots): (u32, u32)) -> Case {
    let rows: u32 = lengths.iter().sum();
    let order = if scored == Scored::First { "first" } else { "best" };
    let mut draft = Draft::new(format!("compact_limit_{order}_{name}_{slots}_of_{size}_rows_{rows}"));
    let (positions, sequences, (rows, bound)) = places(&mut draft, lengths);
    let wanted: Vec<u8> = (0..rows).map(|_| (draft.next() % 2) as u8).collect();
    let wanted = draft.decisions("wanted", bound, &wanted);
    let order = match scored {
        Scored::First => RankOrder::Position,
        Scored::Best => {
            let scores: Vec<f64> = (0..rows).map(|_| (draft.next() % 7) as f64 - 3.0).collect();
            RankOrder::Score(dense(draft.matrix("scores", (DType::F32, bound, 1), &scores)))
        }
    };
    let ranked = Ranked {
        among: Candidates::Masked(wanted),
        sequences: Some(sequences),
        segment: Segment::Group { positions, size },
        order,
        keep: Keep::Slots(slots),
    };
    finish(draft, Select::Ranked(ranked), (rows, bound), None)
}

/// First come, first served behind `before` rows of earlier steps, of which about half were wanted.
fn going_on(before: u32, lengths: &[u32], (size, slots): (u32, u32)) -> Case {
    let rows: u32 = lengths.iter().sum();
    let mut draft = Draft::new(format!("compact_going_on_from_{before}_{slots}_of_{size}_rows_{rows}"));
    let (positions, sequences, (rows, bound)) = places_from(&mut draft, before, lengths);
    let wanted: Vec<u8> = (0..rows).map(|_| (draft.next() % 2) as u8).collect();
    let wanted = draft.decisions("wanted", bound, &wanted);
    // The rows of this step are not stored yet: what lies there means nothing.
    let sequences_of_cache: Vec<(u32, u32)> =
        lengths.iter().map(|length| (before + length, *length)).collect();
    let pages = Pages::new(&mut draft, &sequences_of_cache);
    let mut earlier = vec![1; pages.n_rows() as usize];
    for sequence in 0..lengths.len() {
        for position in 0..before {
            earlier[pages.place(sequence, position)] = (draft.next() % 2) as u8;
        }
    }
    let n_cached = earlier.len() as u32;
    let ranked = Ranked {
        among: Candidates::Masked(wanted),
        sequences: Some(sequences),
        segment: Segment::Group { positions, size },
        order: RankOrder::Position,
        keep: Keep::Left {
            slots,
            before: draft.decisions("before", n_cached, &earlier),
            pages: pages.table(&mut draft),
        },
    };
    finish(draft, Select::Ranked(ranked), (rows, bound), None)
}

/// A ranking within a set: every operand is found through the set's row list, and the score is one column of three.
fn one_column_of_listed_rows() -> Case {
    let mut draft = Draft::new("compact_top_k_column_of_listed_rows".to_owned());
    let (_, sequences, (n, bound)) = places(&mut draft, &[70, 1, 60]);
    let members: Vec<u32> = (0..n).filter(|row| row % 3 != 1).collect();
    let list = draft.column("list", bound, &members);
    let scores = draft.reals("scores", (DType::F32, bound, 3), n, Values::Within(1.0));
    let ranked = Ranked {
        among: Candidates::All,
        sequences: Some(listed(sequences.slot, list)),
        segment: Segment::Sequence,
        order: RankOrder::Score(View { col: 1, ..listed(scores, list) }),
        keep: Keep::Share(Real::from(0.4)),
    };
    finish(draft, Select::Ranked(ranked), (members.len() as u32, bound), None)
}

/// The share is of all rows of the segment, not of those that take part.
fn share_of_masked_rows() -> Case {
    let mut draft = Draft::new("compact_share_of_masked_rows".to_owned());
    let (_, sequences, (rows, bound)) = places(&mut draft, &[40, 35]);
    let wanted: Vec<u8> = (0..rows).map(|_| (draft.next() % 2) as u8).collect();
    let wanted = draft.decisions("wanted", bound, &wanted);
    let scores = draft.reals("scores", (DType::F32, bound, 1), rows, Values::Within(1.0));
    let ranked = Ranked {
        among: Candidates::Masked(wanted),
        sequences: Some(sequences),
        segment: Segment::Sequence,
        order: RankOrder::Score(dense(scores)),
        keep: Keep::Share(Real::from(0.3)),
    };
    finish(draft, Select::Ranked(ranked), (rows, bound), None)
}

/// A replay over a capacity: more rows of a group than it has slots, and rows that were not wanted.
fn forced(rows: u32) -> Case {
    let mut draft = Draft::new(format!("compact_limit_first_forced_rows_{rows}"));
    let (positions, sequences, (rows, bound)) = places(&mut draft, &[rows]);
    let decisions: Vec<u8> = (0..rows).map(|row| u8::from(row % 4 != 3)).collect();
    let wanted = draft.decisions("wanted", bound, &vec![0; rows as usize]);
    let ranked = Ranked {
        among: Candidates::Masked(wanted),
        sequences: Some(sequences),
        segment: Segment::Group { positions, size: 8 },
        order: RankOrder::Position,
        keep: Keep::Slots(1),
    };
    finish(draft, Select::Ranked(ranked), (rows, bound), Some(&decisions))
}
