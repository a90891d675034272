//! Token sets from scores, from the random router, and from decisions to replay.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Body, Compact, Select, View};
use skipc_plan::pointwise::Real;

use super::Case;
use super::draft::{Draft, Set, Values, dense, listed};
use crate::tolerance::Exactness;

/// Rows around the widths at which a scan over rows may be cut (warps, blocks, vectors).
const EXTENTS: [u32; 15] = [0, 1, 2, 31, 32, 33, 63, 64, 65, 255, 256, 257, 1023, 1025, 2100];

pub(super) fn add(cases: &mut Vec<Case>) {
    for rows in EXTENTS {
        cases.push(at_least("spread", rows, 0.5, |draft, n| draft.random(n, Values::Within(2.0))));
        cases.push(random(rows, 1 << 30, false));
    }
    for (name, threshold) in
        [("zero", 0.0), ("not_in_f32", 0.7), ("infinite", f64::INFINITY), ("lowest", f64::NEG_INFINITY)]
    {
        cases.push(at_least(name, 100, threshold, edges));
    }
    cases.push(at_least("all_equal", 100, 0.25, |_, n| vec![0.25; n]));
    cases.push(at_least("all_below", 100, 0.25, |_, n| vec![0.125; n]));
    cases.push(scores_in_matrix());
    cases.push(scores_of_listed_rows());
    for limit in [0, 1 << 20, 1 << 32] {
        cases.push(random(100, limit, false));
    }
    for rows in [0, 1, 33, 100, 1030] {
        cases.push(random(rows, 1 << 30, true));
        cases.push(forced_over_scores(rows));
    }
    for rows in EXTENTS {
        cases.push(random_by_id(rows, 1 << 30));
        cases.push(not_in(rows, |row| row % 3 == 1));
        cases.push(with_first(rows, 2));
    }
    for rows in [1, 33, 1025] {
        cases.push(not_in(rows, |_| true));
    }
    for rows in [33, 1025] {
        cases.push(not_in(rows, |_| false));
    }
    for limit in [0, 1 << 32] {
        cases.push(random_by_id(100, limit));
    }
}

/// Scores at the threshold and beside it, both zeros, infinities and NaN.
fn edges(_: &mut Draft, n: usize) -> Vec<f64> {
    let beside = |x: f32| [x, x.next_up(), x.next_down()].map(f64::from);
    let mut edges = vec![0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
    edges.extend(beside(0.0));
    edges.extend(beside(0.7));
    edges.extend(beside(f32::MAX));
    edges.into_iter().cycle().take(n).collect()
}

/// The outputs of every case, and the operands of a replay.
pub(super) fn finish(
    mut draft: Draft,
    select: Select,
    (rows, bound): (u32, u32),
    forced: Option<&[u8]>,
) -> Case {
    let use_forced = draft.column("use_forced", 1, &[u32::from(forced.is_some())]);
    let forced = draft.decisions("forced", bound, forced.unwrap_or_default());
    let compact = Compact {
        select,
        use_forced,
        forced,
        rows: draft.output("rows", (DType::U32, bound, 1)),
        count: draft.output("set_count", (DType::U32, 1, 1)),
        mask: draft.output("mask", (DType::U8, bound, 1)),
    };
    let extent = draft.counted(rows, bound);
    draft.finish(extent, Body::Compact(compact), Exactness::Bitwise)
}

fn at_least(
    name: &str,
    rows: u32,
    threshold: f64,
    scores: impl FnOnce(&mut Draft, usize) -> Vec<f64>,
) -> Case {
    let mut draft = Draft::new(format!("compact_at_least_{name}_rows_{rows}"));
    let bound = rows + 3;
    let scores = scores(&mut draft, rows as usize);
    let scores = draft.matrix("scores", (DType::F32, bound, 1), &scores);
    let select = Select::AtLeast { scores: dense(scores), threshold: Real::from(threshold) };
    finish(draft, select, (rows, bound), None)
}

/// One column of several, as where logits of several routers stand side by side.
fn scores_in_matrix() -> Case {
    let mut draft = Draft::new("compact_at_least_column_of_three".to_owned());
    let (rows, bound) = (77, 80);
    let scores = draft.reals("scores", (DType::F32, bound, 3), rows, Values::Within(1.0));
    let select = Select::AtLeast { scores: View { col: 2, ..dense(scores) }, threshold: Real::from(0.0) };
    finish(draft, select, (rows, bound), None)
}

/// A set of a set: the scores are those of the rows of the outer one.
fn scores_of_listed_rows() -> Case {
    let mut draft = Draft::new("compact_at_least_of_listed_rows".to_owned());
    let (n_tokens, bound) = (130, 133);
    let outer = Set::Quarter.rows(n_tokens, &mut draft);
    let list = draft.column("list", bound, &outer);
    let scores = draft.reals("scores", (DType::F32, bound, 2), n_tokens, Values::Within(1.0));
    let select =
        Select::AtLeast { scores: View { col: 1, ..listed(scores, list) }, threshold: Real::from(0.0) };
    finish(draft, select, (outer.len() as u32, bound), None)
}

fn every_third(draft: &mut Draft, rows: u32) -> Vec<u8> {
    (0..rows).map(|_| u8::from(draft.next().is_multiple_of(3))).collect()
}

fn forced_over_scores(rows: u32) -> Case {
    let mut draft = Draft::new(format!("compact_at_least_forced_rows_{rows}"));
    let bound = rows + 3;
    let forced = every_third(&mut draft, rows);
    let scores = draft.reals("scores", (DType::F32, bound, 1), rows, Values::Within(1.0));
    let select = Select::AtLeast { scores: dense(scores), threshold: Real::from(0.0) };
    finish(draft, select, (rows, bound), Some(&forced))
}

fn random(rows: u32, limit: u64, forced: bool) -> Case {
    let replay = if forced { "_forced" } else { "" };
    let mut draft = Draft::new(format!("compact_random_{limit}{replay}_rows_{rows}"));
    let bound = rows + 3;
    let decisions = every_third(&mut draft, rows);
    let positions: Vec<u32> = (0..rows).map(|row| row % 300).collect();
    let sequences: Vec<u32> = (0..rows).map(|row| row / 300).collect();
    let positions = dense(draft.column("positions", bound, &positions));
    let sequences = dense(draft.column("sequences", bound, &sequences));
    // A seed that needs all of its bits.
    let (seed, sequences) = (0x9E37_79B9_7F4A_7C15, Some(sequences));
    let select = Select::Random { ids: positions, sequences, seed, block: 5, limit };
    finish(draft, select, (rows, bound), forced.then_some(decisions.as_slice()))
}

/// The rows that another set leaves out.
fn not_in(rows: u32, executed: impl Fn(u32) -> bool) -> Case {
    let name = (0..rows).filter(|row| executed(*row)).count();
    let mut draft = Draft::new(format!("compact_not_in_{name}_rows_{rows}"));
    let bound = rows + 3;
    let executed: Vec<u8> = (0..rows).map(|row| u8::from(executed(row))).collect();
    let mask = draft.decisions("executed", bound, &executed);
    finish(draft, Select::NotIn(mask), (rows, bound), None)
}

/// The rows of another set, and the first of sequences that are each as long as five rows.
fn with_first(rows: u32, first: u32) -> Case {
    let mut draft = Draft::new(format!("compact_with_first_{first}_rows_{rows}"));
    let bound = rows + 3;
    let chosen: Vec<u8> = (0..rows).map(|row| u8::from(row % 3 == 1)).collect();
    let chosen = draft.decisions("chosen", bound, &chosen);
    let positions: Vec<u32> = (0..rows).map(|row| row % 5).collect();
    let positions = dense(draft.column("positions", bound, &positions));
    finish(draft, Select::WithFirst { chosen, positions, first }, (rows, bound), None)
}

/// Drawn for ids alone. Some come again, and some are as large as ids get.
fn random_by_id(rows: u32, limit: u64) -> Case {
    let mut draft = Draft::new(format!("compact_random_by_id_{limit}_rows_{rows}"));
    let bound = rows + 3;
    let ids: Vec<u32> = (0..rows).map(|row| if row % 7 == 6 { (1 << 20) - row } else { row % 40 }).collect();
    let ids = dense(draft.column("ids", bound, &ids));
    let select = Select::Random { ids, sequences: None, seed: 0x9E37_79B9_7F4A_7C15, block: 5, limit };
    finish(draft, select, (rows, bound), None)
}
