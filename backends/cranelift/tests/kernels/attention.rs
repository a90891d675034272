use skipc_artifact::program::Extent;
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Attention, Body, Scoring};

use crate::case::{Bound, Case, dense, reals};

/// Rows of sequences of these lengths: (sequence, position) of each.
fn rows(lengths: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let all = lengths.iter().enumerate().flat_map(|(seq, len)| (0..*len).map(move |pos| (seq as u32, pos)));
    all.unzip()
}

struct Shape {
    heads: u32,
    kv_heads: u32,
    width: u32,
    dtype: DType,
}

/// Queries at every `stride`-th row of the sequences; keys at every row, or at every third (`kv = active`).
fn check(shape: &Shape, lengths: &[u32], stride: usize, all_keys: bool) -> Vec<f32> {
    let Shape { heads, kv_heads, width, dtype } = *shape;
    let (seqs, positions) = rows(lengths);
    let some = |indices: &[u32], stride: usize| -> Vec<u32> {
        indices.iter().skip(stride / 2).step_by(stride).copied().collect()
    };
    let key_stride = if all_keys { 1 } else { 3 };
    let (q_seqs, q_positions) = (some(&seqs, stride), some(&positions, stride));
    let (k_seqs, k_positions) = (some(&seqs, key_stride), some(&positions, key_stride));
    let (n_queries, n_keys) = (q_seqs.len() as u32, k_seqs.len() as u32);

    let mut case = Case::default();
    let q = case.reals(dtype, n_queries, heads * width);
    let (k, v) = (case.reals(dtype, n_keys, kv_heads * width), case.reals(dtype, n_keys, kv_heads * width));
    let (q_pos, q_seq) = (case.indices(&q_positions), case.indices(&q_seqs));
    let (k_pos, k_seq) = (case.indices(&k_positions), case.indices(&k_seqs));
    let out = case.output(dtype, n_queries, heads * width);
    let extent = case.counted(n_queries, 1000);
    let kv_extent = if all_keys { Extent::Fixed(n_keys) } else { case.counted(n_keys, 1000) };
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
    // Scores are exact sums up to 16 · √width, rounded once, of which the exponential makes as many ulps; the sums
    // of up to 200 weights and of values up to 4 add theirs.
    let n = 16.0 * f64::from(width).sqrt() + 2.0 * f64::from(n_keys).sqrt() + 8.0;
    let after = case.check(extent, Body::Attention(attention), Bound::Ulps { n, scale: 4.0 });
    reals(&after[out.0 as usize], dtype)
}

const SHAPES: [Shape; 7] = [
    Shape { heads: 1, kv_heads: 1, width: 1, dtype: DType::F32 },
    Shape { heads: 3, kv_heads: 1, width: 3, dtype: DType::F32 },
    Shape { heads: 4, kv_heads: 2, width: 5, dtype: DType::F32 },
    Shape { heads: 2, kv_heads: 2, width: 30, dtype: DType::F32 },
    Shape { heads: 4, kv_heads: 2, width: 32, dtype: DType::F32 },
    Shape { heads: 2, kv_heads: 1, width: 71, dtype: DType::F32 },
    Shape { heads: 2, kv_heads: 1, width: 12, dtype: DType::Bf16 },
];

#[test]
fn queries_see_their_sequence_up_to_their_position() {
    for shape in &SHAPES {
        for lengths in [&[][..], &[1], &[17], &[5, 1, 10, 130]] {
            check(shape, lengths, 1, true);
        }
    }
}

#[test]
fn some_queries_or_some_keys() {
    for shape in &SHAPES {
        check(shape, &[30, 2, 40], 4, true);
        check(shape, &[30, 2, 40], 1, false);
        check(shape, &[30, 2, 40], 3, false);
    }
}

#[test]
fn more_keys_than_a_block_has() {
    // Tiles in which some sequences have rows enough for matmuls and others have not.
    for shape in &SHAPES[..3] {
        check(shape, &[7, 8, 9, 600], 1, true);
        check(shape, &[3, 800, 1, 257], 2, false);
    }
}

#[test]
fn a_query_that_sees_no_key_gets_zeros() {
    // The first key of the third sequence is at position 1; its query at position 0 sees nothing.
    let out = check(&SHAPES[4], &[30, 2, 40], 1, false);
    let blind = &out[32 * 128..33 * 128];
    let key_rows: Vec<usize> = (0..72).skip(1).step_by(3).collect();
    assert!(!key_rows.contains(&32) && key_rows.contains(&34));
    assert!(blind.iter().all(|value| *value == 0.0), "{blind:?}");
}
