//! Attention: heads, widths, several sequences, all and active keys, prefill and decode.

use skipc_artifact::target::DType;
use skipc_ir::{F64, MOST_AHEAD};
use skipc_plan::kernel::{Attention, Body, Scoring, Slot, View};

use super::Case;
use super::draft::{Draft, Set, Values, dense, listed};
use crate::reference::expected;
use crate::tolerance::Exactness;

/// Lengths of the sequences of a batch: one token, tails of tiles, and tiles.
const BATCH: [u32; 5] = [17, 1, 32, 5, 15];

pub(super) fn add(cases: &mut Vec<Case>) {
    for dtype in [DType::F32, DType::Bf16] {
        for heads in [(4, 2), (4, 4), (4, 1), (1, 1), (6, 3)] {
            cases.push(dense_queries(dtype, heads, 16, &BATCH, 1.0));
        }
        for width in [32, 64, 128, 8, 24, 2, 7] {
            cases.push(dense_queries(dtype, (2, 1), width, &[19, 33], 1.0));
        }
        for length in [0, 1, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129] {
            cases.push(dense_queries(dtype, (2, 1), 8, &[length], 1.0));
        }
        // Scores of up to ±200: without the maximum subtracted they are infinite.
        cases.push(dense_queries(dtype, (2, 2), 16, &[40], 12.0));
        for set in Set::ALL {
            for active in [false, true] {
                cases.push(routed(dtype, (4, 2), 16, set, active));
            }
            cases.push(routed(dtype, (2, 2), 24, set, false));
        }
        for (scoring, name) in scorings() {
            cases.push(scored(dense_queries(dtype, (4, 2), 16, &BATCH, 1.0), scoring, name));
            cases.push(scored(dense_queries(dtype, (2, 1), 64, &[129, 3], 3.0), scoring, name));
            cases.push(scored(decode(dtype, (4, 2), 64), scoring, name));
            for set in Set::ALL {
                cases.push(scored(routed(dtype, (2, 2), 24, set, true), scoring, name));
            }
        }
        for window in [2, 15, 16, 17, 63, 64, 65, 128, 500] {
            let scoring = Scoring { window: Some(window), ..Scoring::default() };
            let case = dense_queries(dtype, (2, 1), 8, &[300, 70], 1.0);
            cases.push(scored(case, scoring, &format!("window_{window}")));
        }
        for (window, ahead) in
            [(None, MOST_AHEAD), (None, 1), (None, 63), (None, 64), (Some(65), 64), (Some(3), 2)]
        {
            let scoring = Scoring { window, ahead: Some(ahead), ..Scoring::default() };
            let name = format!("{ahead}_ahead_window_{}", window.unwrap_or(0));
            let case = dense_queries(dtype, (2, 1), 8, &[150, 1, 70], 1.0);
            cases.push(scored(case, scoring, &name));
            for set in Set::ALL {
                cases.push(scored(routed(dtype, (2, 2), 24, set, true), scoring, &name));
            }
        }
        cases.push(blind(dtype));
        cases.push(decode(dtype, (4, 2), 64));
        cases.push(decode(dtype, (4, 1), 24));
        cases.push(slices(dtype));
    }
}

/// Each part of a scoring, and all of them.
pub(super) fn scorings() -> [(Scoring, &'static str); 5] {
    let (plain, scale, cap) = (Scoring::default(), Some(F64::from(0.11)), Some(F64::from(2.5)));
    [
        (Scoring { scale, ..plain }, "scale"),
        (Scoring { cap, ..plain }, "cap"),
        (Scoring { window: Some(1), ..plain }, "window_1"),
        (Scoring { window: Some(7), ..plain }, "window_7"),
        (Scoring { scale, cap, window: Some(20), ahead: None }, "scale_cap_window_20"),
    ]
}

/// A case with other scores.
pub(super) fn scored(case: Case, of: Scoring, name: &str) -> Case {
    let mut kernel = case.kernel;
    match &mut kernel.body {
        Body::Attention(attention) => attention.scoring = of,
        Body::CachedAttention(attention) => attention.scoring = of,
        _ => panic!("`{}` has no scores", case.name),
    }
    let expected = expected(&kernel, &case.operands, Exactness::Chain);
    Case { name: format!("{}_{name}", case.name), kernel, expected, ..case }
}

/// Position and sequence of each token of a batch.
fn tokens(lengths: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let of = |(seq, length): (u32, &u32)| (0..*length).map(move |pos| (pos, seq));
    (0..).zip(lengths).flat_map(of).unzip()
}

/// Sizes that all parts of a case share.
struct Shape {
    dtype: DType,
    heads: u32,
    kv_heads: u32,
    width: u32,
    bound: u32,
}

impl Shape {
    /// Queries or keys; `n` rows are live.
    fn side(&self, draft: &mut Draft, name: &str, n: u32, size: f64) -> Slot {
        let heads = if name == "q" { self.heads } else { self.kv_heads };
        draft.reals(name, (self.dtype, self.bound, heads * self.width), n, Values::Within(size))
    }

    fn out(&self, draft: &mut Draft) -> Slot {
        draft.output("out", (self.dtype, self.bound, self.heads * self.width))
    }
}

fn dense_queries(
    dtype: DType,
    (heads, kv_heads): (u32, u32),
    width: u32,
    lengths: &[u32],
    size: f64,
) -> Case {
    let lengths_text = lengths.iter().map(u32::to_string).collect::<Vec<String>>().join("_");
    let sharp = if size > 1.0 { "_sharp" } else { "" };
    let name = format!("attention_{dtype}_{heads}x{kv_heads}x{width}_tokens_{lengths_text}{sharp}");
    let mut draft = Draft::new(name);
    let (positions, sequences) = tokens(lengths);
    let n = positions.len() as u32;
    let shape = Shape { dtype, heads, kv_heads, width, bound: n + 2 };
    let q = shape.side(&mut draft, "q", n, 2.0 * size);
    let k = shape.side(&mut draft, "k", n, 2.0 * size);
    let v = shape.side(&mut draft, "v", n, 1.0);
    let pos = dense(draft.column("positions", shape.bound, &positions));
    let seq = dense(draft.column("sequences", shape.bound, &sequences));
    let out = shape.out(&mut draft);
    let extent = draft.counted(n, shape.bound);
    let attention = Attention {
        heads,
        kv_heads,
        width,
        scoring: Scoring::default(),
        q: dense(q),
        q_pos: pos,
        q_seq: seq,
        kv_extent: extent,
        k: dense(k),
        v: dense(v),
        k_pos: pos,
        k_seq: seq,
        out,
    };
    draft.finish(extent, Body::Attention(attention), Exactness::Chain)
}

/// Compact queries; keys of all tokens, or of those alone that execute.
fn routed(dtype: DType, (heads, kv_heads): (u32, u32), width: u32, set: Set, active: bool) -> Case {
    let kv = if active { "active" } else { "all" };
    let mut draft =
        Draft::new(format!("attention_{dtype}_{heads}x{kv_heads}x{width}_kv_{kv}_{}", set.name()));
    let (positions, sequences) = tokens(&BATCH);
    let n = positions.len() as u32;
    let shape = Shape { dtype, heads, kv_heads, width, bound: n + 2 };
    let rows = set.rows(n, &mut draft);
    let n_rows = rows.len() as u32;
    let n_keys = if active { n_rows } else { n };
    let q = shape.side(&mut draft, "q", n_rows, 2.0);
    let k = shape.side(&mut draft, "k", n_keys, 2.0);
    let v = shape.side(&mut draft, "v", n_keys, 1.0);
    let pos = draft.column("positions", shape.bound, &positions);
    let seq = draft.column("sequences", shape.bound, &sequences);
    let list = draft.column("rows", shape.bound, &rows);
    let out = shape.out(&mut draft);
    let extent = draft.counted(n_rows, shape.bound);
    let n_tokens = draft.counted(n, shape.bound);
    let key = |slot: Slot| if active { listed(slot, list) } else { dense(slot) };
    let attention = Attention {
        heads,
        kv_heads,
        width,
        scoring: Scoring::default(),
        q: dense(q),
        q_pos: listed(pos, list),
        q_seq: listed(seq, list),
        kv_extent: if active { extent } else { n_tokens },
        k: dense(k),
        v: dense(v),
        k_pos: key(pos),
        k_seq: key(seq),
        out,
    };
    draft.finish(extent, Body::Attention(attention), Exactness::Chain)
}

/// Queries of all tokens, keys of few: whole sequences and the beginnings of others see no key.
fn blind(dtype: DType) -> Case {
    let mut draft = Draft::new(format!("attention_{dtype}_no_key_to_see"));
    let (positions, sequences) = tokens(&[6, 20, 1, 9]);
    let n = positions.len() as u32;
    let shape = Shape { dtype, heads: 2, kv_heads: 1, width: 16, bound: n + 2 };
    // Keys in the second sequence from its eighth token on, and at the end of the last.
    let rows = [13, 17, 18, 35];
    let n_keys = rows.len() as u32;
    let q = shape.side(&mut draft, "q", n, 2.0);
    let k = shape.side(&mut draft, "k", n_keys, 2.0);
    let v = shape.side(&mut draft, "v", n_keys, 1.0);
    let pos = draft.column("positions", shape.bound, &positions);
    let seq = draft.column("sequences", shape.bound, &sequences);
    let list = draft.column("rows", shape.bound, &rows);
    let out = shape.out(&mut draft);
    let extent = draft.counted(n, shape.bound);
    let kv_extent = draft.counted(n_keys, shape.bound);
    let attention = Attention {
        heads: 2,
        kv_heads: 1,
        width: 16,
        scoring: Scoring::default(),
        q: dense(q),
        q_pos: dense(pos),
        q_seq: dense(seq),
        kv_extent,
        k: dense(k),
        v: dense(v),
        k_pos: listed(pos, list),
        k_seq: listed(seq, list),
        out,
    };
    draft.finish(extent, Body::Attention(attention), Exactness::Chain)
}

/// One query a sequence at its last position, keys of all positions before.
fn decode(dtype: DType, (heads, kv_heads): (u32, u32), width: u32) -> Case {
    let mut draft = Draft::new(format!("attention_{dtype}_{heads}x{kv_heads}x{width}_decode"));
    let lengths = [70, 1, 33, 130];
    let (positions, sequences) = tokens(&lengths);
    let n = positions.len() as u32;
    let shape = Shape { dtype, heads, kv_heads, width, bound: n + 2 };
    let q = shape.side(&mut draft, "q", 4, 2.0);
    let k = shape.side(&mut draft, "k", n, 2.0);
    let v = shape.side(&mut draft, "v", n, 1.0);
    let q_pos = draft.column("q_positions", 4, &lengths.map(|length| length - 1));
    let q_seq = draft.column("q_sequences", 4, &[0, 1, 2, 3]);
    let k_pos = draft.column("k_positions", shape.bound, &positions);
    let k_seq = draft.column("k_sequences", shape.bound, &sequences);
    let out = shape.out(&mut draft);
    let extent = draft.counted(4, 4);
    let kv_extent = draft.counted(n, shape.bound);
    let attention = Attention {
        heads,
        kv_heads,
        width,
        scoring: Scoring::default(),
        q: dense(q),
        q_pos: dense(q_pos),
        q_seq: dense(q_seq),
        kv_extent,
        k: dense(k),
        v: dense(v),
        k_pos: dense(k_pos),
        k_seq: dense(k_seq),
        out,
    };
    draft.finish(extent, Body::Attention(attention), Exactness::Chain)
}

/// Queries, keys and values are columns of one matrix, as where one matmul makes all three.
fn slices(dtype: DType) -> Case {
    let mut draft = Draft::new(format!("attention_{dtype}_slices_of_one_matrix"));
    let (heads, kv_heads, width) = (4, 2, 16);
    let (positions, sequences) = tokens(&[21, 12]);
    let n = positions.len() as u32;
    let bound = n + 2;
    let qkv = draft.reals("qkv", (dtype, bound, 128), n, Values::Within(1.5));
    let pos = dense(draft.column("positions", bound, &positions));
    let seq = dense(draft.column("sequences", bound, &sequences));
    let out = draft.output("out", (dtype, bound, 64));
    let extent = draft.counted(n, bound);
    let part = |col: u32| View { col, ..dense(qkv) };
    let attention = Attention {
        heads,
        kv_heads,
        width,
        scoring: Scoring::default(),
        q: part(0),
        q_pos: pos,
        q_seq: seq,
        kv_extent: extent,
        k: part(64),
        v: part(96),
        k_pos: pos,
        k_seq: seq,
        out,
    };
    draft.finish(extent, Body::Attention(attention), Exactness::Chain)
}
