//! Experts: choices, partitions, and matmuls over segments.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{
    Body, Choice, Gemm, Grouped, KeepChoices, Limit, Part, Partition, Ranking, Replay, Rowwise, Shift, Sum,
    View, WeightLayout,
};
use skipc_plan::pointwise::{Binary, Inst, Pointwise, Reg, Store, Unary};

use super::Case;
use super::cached::Pages;
use super::draft::{Draft, Set, Values, dense, listed};
use crate::tolerance::Exactness;

pub(super) fn add(cases: &mut Vec<Case>) {
    for (n, k) in [(1, 1), (5, 2), (8, 8), (33, 4)] {
        for rows in [0, 1, 3, 4, 5, 40] {
            cases.push(choose("reals", (n, k), rows, (false, true), Values::Within(3.0)));
        }
        for (sigmoid, normalise) in [(true, false), (true, true), (false, false)] {
            cases.push(choose("reals", (n, k), 9, (sigmoid, normalise), Values::Within(3.0)));
        }
        // Logits of few values, so that many are equal.
        cases.push(choose("ties", (n, k), 17, (false, false), Values::Integers));
    }
    cases.push(choose("reals", (131, 6), 5, (false, true), Values::Within(3.0)));
    cases.push(choose("biased", (9, 3), 40, (true, true), Values::Within(2.0)));
    for ranks in [Ranking::Score, Ranking::Turn] {
        cases.push(ranked_choose((6, 3), 40, ranks));
        cases.push(ranked_choose((40, 5), 9, ranks));
    }
    for (n, k) in [(1, 1), (5, 2), (8, 8), (40, 5)] {
        for rows in [0, 1, 5, 40] {
            cases.push(replayed_choose((n, k), rows, (true, None), true));
        }
        cases.push(replayed_choose((n, k), 9, (false, Some(Ranking::Score)), true));
        cases.push(replayed_choose((n, k), 9, (true, Some(Ranking::Turn)), true));
        cases.push(replayed_choose((n, k), 9, (true, Some(Ranking::Turn)), false));
    }
    for rows in [0, 1, 2, 31, 33, 130] {
        for size in [1, 4, 7, 64] {
            cases.push(limit((5, 2), rows, Some(size), Order::Position, false));
            cases.push(limit((5, 2), rows, Some(size), Order::Rank, false));
            cases.push(limit((4, 4), rows, Some(size), Order::Rank, true));
        }
        cases.push(limit((3, 3), rows, None, Order::Rank, true));
        cases.push(limit((9, 1), rows, Some(16), Order::Ties, false));
    }
    let sequences = [(17, 1), (1, 1), (32, 3), (15, 15), (16, 2), (5, 0), (130, 1)];
    for size in [1, 4, 16, 17, 1000] {
        cases.push(limit_after(2, size, &sequences, None));
    }
    for present in Set::ALL {
        cases.push(limit_after(1, 8, &sequences, Some(present)));
        cases.push(limit_after(3, 40, &sequences, Some(present)));
    }
    cases.push(limit_after(2, 8, &[(33, 0)], None));
    for rows in [0, 1, 2, 31, 33, 100, 1030] {
        cases.push(partition("some", (5, 0), rows, |draft| (draft.next() % 7) as f64));
    }
    cases.push(partition("one", (4, 0), 50, |_| 2.0));
    cases.push(partition("none", (4, 0), 50, |_| 4.0));
    cases.push(partition("outside", (2, 3), 60, |draft| (draft.next() % 8) as f64 - 1.0));
    cases.push(partition("many", (40, 0), 90, |draft| (draft.next() % 45) as f64));
    for dtype in [DType::F32, DType::Bf16] {
        for (k, n) in [(16, 8), (21, 31), (64, 72)] {
            for lengths in [&[0, 0, 0][..], &[1, 0, 0], &[0, 0, 1], &[17, 1, 40], &[0, 70, 0]] {
                cases.push(plain(dtype, (k, n), lengths));
            }
        }
        for set in Set::ALL {
            cases.push(routed(dtype, set));
        }
        cases.push(plain(dtype, (24, 40), &[1; 60]));
    }
}

fn choose(
    kind: &str,
    (n, k): (u32, u32),
    rows: u32,
    (sigmoid, normalise): (bool, bool),
    values: Values,
) -> Case {
    let score = if sigmoid { "sigmoid" } else { "softmax" };
    let share = if normalise { "_shares" } else { "" };
    let mut draft = Draft::new(format!("choose_{k}_of_{n}_{score}{share}_rows_{rows}_{kind}"));
    let bound = 72;
    let logits = draft.reals("logits", (DType::F32, bound, n + 3), rows, values);
    let bias = (kind == "biased").then(|| draft.reals("bias", (DType::F32, 1, n), 1, Values::Within(1.0)));
    let out = draft.output("out", (DType::F32, bound, 2 * k));
    let extent = draft.counted(rows, bound);
    let choice = Choice { k, sigmoid, normalise, scale: 2.5.into(), ranks: None };
    let logits = View { col: 3, ..dense(logits) };
    let body = Rowwise::Choose { n, choice, logits, bias, replay: None, out };
    draft.finish(extent, Body::Rowwise(body), Exactness::Chain)
}

/// Choices with what they rank by among other rows behind them.
fn ranked_choose((n, k): (u32, u32), rows: u32, ranks: Ranking) -> Case {
    let mut draft = Draft::new(format!("choose_{k}_of_{n}_by_{ranks:?}_rows_{rows}").to_lowercase());
    let bound = 48;
    let logits = draft.reals("logits", (DType::F32, bound, n), rows, Values::Within(3.0));
    let bias = draft.reals("bias", (DType::F32, 1, n), 1, Values::Within(1.0));
    let out = draft.output("out", (DType::F32, bound, 3 * k));
    let extent = draft.counted(rows, bound);
    let choice = Choice { k, sigmoid: false, normalise: false, scale: 1.0.into(), ranks: Some(ranks) };
    let body = Rowwise::Choose { n, choice, logits: dense(logits), bias: Some(bias), replay: None, out };
    draft.finish(extent, Body::Rowwise(body), Exactness::Chain)
}

/// Choices that may be replayed, of a row of the list: some rows have few or none, in any order.
fn replayed_choose(
    (n, k): (u32, u32),
    rows: u32,
    (normalise, ranks): (bool, Option<Ranking>),
    replays: bool,
) -> Case {
    let kind = if replays { "replayed" } else { "free" };
    let by = ranks.map_or_else(String::new, |ranks| format!("_by_{ranks:?}"));
    let share = if normalise { "_shares" } else { "" };
    let name = format!("choose_{kind}_{k}_of_{n}{share}{by}_rows_{rows}").to_lowercase();
    let mut draft = Draft::new(name);
    let bound = 48;
    let logits = draft.reals("logits", (DType::F32, bound, n), rows, Values::Within(3.0));
    let mut lists: Vec<f64> = Vec::new();
    for row in 0..2 * rows {
        let first = draft.next() as u32 % n;
        // Every third row has no choice, and others have gaps.
        let has = |place: u32| !row.is_multiple_of(3) && !(row + place).is_multiple_of(4);
        let choice = |place: u32| if has(place) { f64::from((first + 3 * place) % n) } else { -1.0 };
        lists.extend((0..k).map(choice));
    }
    let choices = draft.matrix("choices", (DType::F32, 2 * bound, k), &lists);
    let list: Vec<u32> = (0..rows).map(|row| 2 * row).collect();
    let list = draft.column("rows", bound, &list);
    let use_forced = draft.column("use_forced", 1, &[u32::from(replays)]);
    let out = draft.output("out", (DType::F32, bound, (2 + u32::from(ranks.is_some())) * k));
    let extent = draft.counted(rows, bound);
    let choice = Choice { k, sigmoid: false, normalise, scale: 1.5.into(), ranks };
    let replay = Some(Replay { use_forced, choices: listed(choices, list) });
    let body = Rowwise::Choose { n, choice, logits: dense(logits), bias: None, replay, out };
    draft.finish(extent, Body::Rowwise(body), Exactness::Chain)
}

/// What comes first where an expert has too few places.
#[derive(Clone, Copy, Debug)]
enum Order {
    Position,
    Rank,
    /// Ranks of few values.
    Ties,
}

/// Choices of rows of sequences that are 20 tokens long; with a share of an expert's tokens, of which some take no part.
fn limit((n, k): (u32, u32), rows: u32, size: Option<u32>, order: Order, share: bool) -> Case {
    let kind = if share { "share" } else { "slots" };
    let group = size.map_or("all".to_owned(), |size| size.to_string());
    let mut draft =
        Draft::new(format!("limit_{kind}_{k}_of_{n}_rows_{rows}_{group}_{order:?}").to_lowercase());
    let (bound, length, skipped) = (rows + 3, 20, if share { 3 } else { 0 });
    let mut index: Vec<f64> = Vec::new();
    for row in 0..rows {
        // An ascending list of different choices; some rows have fewer.
        let first = draft.next() as u32 % (n - k + 1);
        let has = |place: u32| !share || !(row + place).is_multiple_of(4);
        index.push(9.0);
        index.extend((0..k).map(|place| if has(place) { f64::from(first + place) } else { -1.0 }));
    }
    let ranks: Vec<f64> = (0..rows * k)
        .map(|_| match order {
            Order::Ties => f64::from(draft.next() as u32 % 3),
            Order::Position | Order::Rank => f64::from(draft.next() as u32 % 1009) / 256.0,
        })
        .collect();
    let index = draft.matrix("index", (DType::F32, bound, k + 1), &index);
    let ranks =
        (!matches!(order, Order::Position)).then(|| draft.matrix("ranks", (DType::F32, bound, k), &ranks));
    // Every so many tokens one takes no part.
    let tokens: Vec<u32> = (0..rows + rows / 2 * u32::from(skipped > 0)).collect();
    let own: Vec<u32> = (0..rows).map(|row| if share { row + row / 2 } else { row }).collect();
    let of = |tokens: &[u32], part: fn(u32, u32) -> u32| -> Vec<u32> {
        tokens.iter().map(|token| part(*token, length)).collect()
    };
    let [position, sequence] = [|token, length| token % length, |token, length| token / length];
    let positions = draft.column("positions", bound, &of(&own, position));
    let sequences = draft.column("sequences", bound, &of(&own, sequence));
    let keep = match share {
        false => KeepChoices::Slots { slots: 2, experts: n - 1 },
        true => {
            let all = tokens.len() as u32;
            let positions = draft.column("all_positions", all + 2, &of(&tokens, position));
            let sequences = draft.column("all_sequences", all + 2, &of(&tokens, sequence));
            let extent = draft.counted(all, all + 2);
            KeepChoices::Share { top_k: 1, extent, positions: dense(positions), sequences: dense(sequences) }
        }
    };
    let out = draft.output("out", (DType::F32, bound, k));
    let extent = draft.counted(rows, bound);
    let index = View { col: 1, ..dense(index) };
    let (positions, sequences) = (dense(positions), dense(sequences));
    let ranks = ranks.map(dense);
    let body = Limit { k, index, ranks, positions, sequences, group_size: size, keep, out };
    draft.finish(extent, Body::Rowwise(Rowwise::Limit(body)), Exactness::Bitwise)
}

/// New tokens of sequences, of which so many are new, behind the choices of the others in a cache; some tokens, at least the new
/// ones, have choices.
fn limit_after(k: u32, size: u32, sequences: &[(u32, u32)], present: Option<Set>) -> Case {
    let of = present.map_or("all", Set::name);
    let lengths: Vec<String> = sequences.iter().map(|(length, new)| format!("{length}_new_{new}")).collect();
    let mut draft =
        Draft::new(format!("limit_after_{k}_group_{size}_tokens_{}_present_{of}", lengths.join("_")));
    let pages = Pages::new(&mut draft, sequences);
    let n_cached = pages.n_rows() as usize;
    let (mut choices, mut is_there) = (vec![f64::NAN; n_cached * k as usize], vec![0; n_cached]);
    let (mut index, mut positions, mut of_rows) = (Vec::new(), Vec::new(), Vec::new());
    for (sequence, (length, new)) in sequences.iter().enumerate() {
        let members = present.map_or_else(|| (0..*length).collect(), |set| set.rows(*length, &mut draft));
        for position in 0..*length {
            let is_new = position >= length - new;
            if !is_new && !members.contains(&position) {
                continue;
            }
            let (place, first) = (pages.place(sequence, position), draft.next() as u32 % 3);
            // Some choices are none.
            let own: Vec<f64> = (first..first + k)
                .map(|choice| if draft.next().is_multiple_of(5) { -1.0 } else { f64::from(choice) })
                .collect();
            choices[place * k as usize..][..k as usize].copy_from_slice(&own);
            is_there[place] = 1;
            if is_new {
                index.extend(own);
                positions.push(position);
                of_rows.push(sequence as u32);
            }
        }
    }
    let (n, bound) = (positions.len() as u32, positions.len() as u32 + 2);
    let index = dense(draft.matrix("index", (DType::F32, bound, k), &index));
    let positions = dense(draft.column("positions", bound, &positions));
    let sequences = dense(draft.column("sequences", bound, &of_rows));
    let before = draft.matrix("before", (DType::F32, n_cached as u32, k), &choices);
    let pages = pages.table(&mut draft);
    let present = present.map(|_| draft.decisions("present", n_cached as u32, &is_there));
    let keep = KeepChoices::Left { slots: 2, experts: k + 1, before, pages, present };
    let out = draft.output("out", (DType::F32, bound, k));
    let extent = draft.counted(n, bound);
    let group_size = Some(size);
    let body = Limit { k, index, ranks: None, positions, sequences, group_size, keep, out };
    draft.finish(extent, Body::Rowwise(Rowwise::Limit(body)), Exactness::Bitwise)
}

fn partition(kind: &str, (parts, first): (u32, u32), rows: u32, index: impl Fn(&mut Draft) -> f64) -> Case {
    let mut draft = Draft::new(format!("partition_{parts}_from_{first}_rows_{rows}_{kind}"));
    let bound = rows + 3;
    let numbers: Vec<f64> = (0..rows).flat_map(|_| [0.5, index(&mut draft)]).collect();
    let index = draft.matrix("index", (DType::F32, bound, 2), &numbers);
    let [listing, ends, count] = [("rows", bound), ("ends", parts), ("count", 1)]
        .map(|(name, rows)| draft.output(name, (DType::U32, rows, 1)));
    let extent = draft.counted(rows, bound);
    let index = View { col: 1, ..dense(index) };
    let body = Partition { index, first, parts, rows: listing, ends, count };
    draft.finish(extent, Body::Partition(body), Exactness::Bitwise)
}

/// The ends of segments of these lengths.
fn ends(lengths: &[u32]) -> Vec<u32> {
    let sums = lengths.iter().scan(0, |end, length| {
        *end += length;
        Some(*end)
    });
    sums.collect()
}

/// Dense rows, and a bias for each segment.
fn plain(dtype: DType, (k, n): (u32, u32), lengths: &[u32]) -> Case {
    let (segments, rows) = (lengths.len() as u32, lengths.iter().sum());
    let name = lengths.iter().take(4).map(u32::to_string).collect::<Vec<_>>().join("_");
    let mut draft = Draft::new(format!("grouped_{dtype}_{k}x{n}_{segments}_segments_{name}"));
    let bound = rows + 5;
    let a = draft.reals("a", (dtype, bound, k), rows, Values::Integers);
    let weight = draft.reals("weight", (dtype, segments * n, k), segments * n, Values::Integers);
    let bias = draft.reals("bias", (DType::F32, segments, n), segments, Values::Integers);
    let ends = draft.words("ends", 1, &ends(lengths));
    let out = draft.output("out", (DType::F32, bound, n));
    let extent = draft.counted(rows, bound);
    let code = vec![Inst::Acc(0), Inst::LoadCol(bias), Inst::Binary(Binary::Add, Reg(0), Reg(1))];
    let epilogue = Pointwise { code, stores: vec![Store { to: dense(out), value: Reg(2) }] };
    let part = Part::of(n, &[weight], epilogue);
    let gemm = Gemm { a: dense(a), k, parts: vec![part] };
    let shifts = vec![Shift { slot: weight, rows: n }, Shift { slot: bias, rows: 1 }];
    let grouped = Grouped { gemm, segments, ends, shifts };
    draft.finish(extent, Body::Grouped(grouped), Exactness::Bitwise)
}

/// Rows of a wider matrix by a list that ascends within each of three segments, two weights, a number for each row, and a
/// residual that is scattered back in place.
fn routed(dtype: DType, set: Set) -> Case {
    let mut draft = Draft::new(format!("grouped_{dtype}_routed_{}", set.name()));
    let (n_tokens, bound, k, n, segments) = (90, 96, 21, 31, 3);
    let rows = set.rows(n_tokens, &mut draft);
    let of_segment = |segment: u32| rows.iter().copied().filter(move |row| row % segments == segment);
    let list: Vec<u32> = (0..segments).flat_map(of_segment).collect();
    let lengths: Vec<u32> = (0..segments).map(|segment| of_segment(segment).count() as u32).collect();
    let a = draft.reals("a", (dtype, bound, k + 6), n_tokens, Values::Integers);
    let weights = ["up", "gate"]
        .map(|name| draft.reals(name, (dtype, segments * n, k), segments * n, Values::Integers));
    let list = draft.column("rows", bound, &list);
    let share = draft.reals("share", (DType::F32, bound, 1), n_tokens, Values::Integers);
    let ends = draft.words("ends", 1, &ends(&lengths));
    let x = draft.updated("x", (DType::F32, bound, n), n_tokens, Values::Integers);
    let extent = draft.counted(rows.len() as u32, bound);
    let code = vec![
        Inst::Acc(0),
        Inst::Acc(1),
        Inst::Unary(Unary::OneMinus, Reg(1)),
        Inst::Binary(Binary::Sub, Reg(0), Reg(2)),
        Inst::LoadRow(listed(share, list)),
        Inst::Binary(Binary::Mul, Reg(3), Reg(4)),
        Inst::Load(listed(x, list)),
        Inst::Binary(Binary::Add, Reg(5), Reg(6)),
    ];
    let epilogue = Pointwise { code, stores: vec![Store { to: listed(x, list), value: Reg(7) }] };
    let sums = weights.map(|weight| Sum::of(weight, 0)).to_vec();
    let part = Part { n, layout: WeightLayout::Rows, sums, epilogue };
    let gemm = Gemm { a: View { col: 4, ..listed(a, list) }, k, parts: vec![part] };
    let shifts = weights.map(|slot| Shift { slot, rows: n }).to_vec();
    let grouped = Grouped { gemm, segments, ends, shifts };
    draft.finish(extent, Body::Grouped(grouped), Exactness::Bitwise)
}
