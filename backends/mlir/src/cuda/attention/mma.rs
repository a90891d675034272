//! Tensor-core attention on bf16.
//!
//! Four warps take 16 query rows each against tiles of 64 keys. Rows in shared memory are an odd
//! number of 16-byte pieces apart, so `ldmatrix` reads eight neighbouring rows without conflict.
//! Keys and values have one tile each: values are copied while the scores are made, the next keys
//! while the values are used.

use skipc_artifact::program::RowTile;
use skipc_llvm::Feature;
use skipc_plan::kernel::{Attention, Kernel, View};

use super::super::generated::Generated;
use super::super::place;
use super::LOWEST;
use super::ranges::{self, Ranges};
use super::tiles::{Head, Tile};
use crate::code::math::Precision;
use crate::code::{BF16, Code, Float, I8, Int, SPtr, Steps, pack_bf16, unpack_bf16};
use crate::error::Error;

/// Query rows of a block, and keys of a tile.
const ROWS: u32 = 64;

/// Threads of a block.
const THREADS: u32 = 128;

/// Blocks of 8 keys in a tile.
const KEY_BLOCKS: u32 = ROWS / 8;

/// What the parts of the kernel share.
struct Parts<'c> {
    code: &'c Code,
    /// Columns of a head, filled up to whole steps of 16.
    padded: u32,
    tile: Tile,
    /// Tiles in shared memory.
    q: SPtr<'c>,
    k: SPtr<'c>,
    v: SPtr<'c>,
    /// This thread's lane, and the first row of its warp in the tile.
    lane: Int<'c>,
    warp_row: Int<'c>,
}

/// What a thread knows of its two rows: `lane / 4` of the warp's 16, and the one 8 below.
///
/// Weighted sums of the values, in blocks of 8 columns as `mma` lays them out; largest scores; sums
/// of this thread's exponentials.
type State<'c> = (Vec<[Float<'c>; 4]>, [Float<'c>; 2], [Float<'c>; 2]);

pub(super) fn generate(kernel: &Kernel, attention: &Attention) -> Result<Generated, Error> {
    let width = attention.width;
    let padded = width.next_multiple_of(16);
    let tile = Tile { rows: ROWS, pitch: padded * 2 + 16, filled: padded * 2, threads: THREADS };
    let code = Code::new(place::n_params(kernel)?);
    write(&code, kernel, attention, tile);
    Ok(Generated {
        code,
        tiles: vec![RowTile { from: 0, rows: ROWS, across: attention.heads }],
        threads: THREADS,
        shared_bytes: 3 * tile.bytes() + ranges::shared_bytes(ROWS),
        min_blocks: if padded <= 64 { 3 } else { 2 },
        cluster: 1,
        pool: 0,
        features: vec![Feature::MmaBf16, Feature::CpAsync, Feature::LdMatrix, Feature::CvtBf16x2],
        form: String::new(),
        persistent: false,
        segments: 0,
    })
}

fn write(code: &Code, kernel: &Kernel, attention: &Attention, tile: Tile) {
    let rows = place::extent(code, &kernel.extent);
    let from = code.block_x() * ROWS;
    code.return_if(from.ge(rows));
    let shared = code.shared();
    let at = |number: u32| shared.at::<I8>(number * tile.bytes());
    let ranges = Ranges::find(code, (kernel, attention), at(3), ROWS, (from, rows));
    let parts = Parts {
        code,
        padded: tile.filled / 2,
        tile,
        q: at(0),
        k: at(1),
        v: at(2),
        lane: code.thread() % 32,
        warp_row: code.thread() / 32 * 16,
    };
    let head = code.block_y();
    let kv_head = head / (attention.heads / attention.kv_heads);
    let of = |view: View, index| Head { param: kernel.param(view.slot), view, width: attention.width, index };
    let (q, k, v) = (of(attention.q, head), of(attention.k, kv_head), of(attention.v, kv_head));
    let seen = [0, 8].map(|below| ranges.of(parts.warp_row + parts.lane / 4 + below));

    tile.copy(code, q, parts.q, (from, rows));
    code.when(ranges.first.lt(ranges.end), || tile.copy(code, k, parts.k, (ranges.first, ranges.end)));
    code.copy_commit();
    let zero = code.float(0.0);
    let lowest = code.float(LOWEST);
    let start: State<'_> = (vec![[zero; 4]; (parts.padded / 8) as usize], [lowest; 2], [zero; 2]);
    let steps = Steps { from: ranges.first, to: ranges.end, step: ROWS };
    let (sums, _, totals) = code.repeat(steps, start, |base, state| {
        // The keys are there (and the queries), and all threads are done with the values.
        code.copy_wait(0);
        code.barrier();
        tile.copy(code, v, parts.v, (base, ranges.end));
        code.copy_commit();
        let key = base + parts.lane % 4 * 2;
        let mut scores = parts.scores();
        for (block, scores) in (0u32..).zip(&mut scores) {
            for (item, score) in (0u32..).zip(scores) {
                let sees = ranges.sees(key + (block * 8 + item % 2), seen[(item / 2) as usize]);
                *score = sees.select(in_units_of_ln_2(attention, *score), f32::NEG_INFINITY);
            }
        }
        let (scores, state) = parts.exponentials(scores, state);
        // The values are there, and all threads are done with the keys.
        code.copy_wait(0);
        code.barrier();
        let next = base + ROWS;
        code.when(next.lt(ranges.end), || tile.copy(code, k, parts.k, (next, ranges.end)));
        code.copy_commit();
        parts.add_values(&scores, state)
    });
    parts.store(kernel, attention, (from, rows), &sums, totals);
}

/// A score in units of ln 2, so that the exponential is the device's own 2^x.
fn in_units_of_ln_2<'c>(attention: &Attention, product: Float<'c>) -> Float<'c> {
    let Attention { scoring, width, .. } = *attention;
    match scoring.cap {
        None => product * (std::f64::consts::LOG2_E * scoring.scale(width)) as f32,
        Some(_) => product.score(scoring, width, Precision::Bf16) * std::f32::consts::LOG2_E,
    }
}

impl<'c> Parts<'c> {
    /// The products of the warp's queries with the keys of the tile: blocks of 8 keys.
    fn scores(&self) -> Vec<[Float<'c>; 4]> {
        let Parts { code, lane, tile, .. } = *self;
        let zero = code.float(0.0);
        let mut scores = vec![[zero; 4]; KEY_BLOCKS as usize];
        // Matrices: (rows 0-7, columns 0-7), (8-15, 0-7), (0-7, 8-15), (8-15, 8-15).
        let q_at = self.q.at::<I8>((self.warp_row + lane % 16) * tile.pitch + lane / 16 * 16);
        // Matrices: (keys 0-7, columns 0-7), (0-7, 8-15), (8-15, 0-7), (8-15, 8-15).
        let k_at = self.k.at::<I8>((lane % 8 + lane / 16 * 8) * tile.pitch + lane / 8 % 2 * 16);
        for step in 0..self.padded / 16 {
            let q = code.load_matrices(q_at.at::<I8>(step * 32));
            for pair in 0..KEY_BLOCKS / 2 {
                let [a0, a1, b0, b1] = code.load_matrices(k_at.at::<I8>(pair * 16 * tile.pitch + step * 32));
                for (block, keys) in [(pair * 2, [a0, a1]), (pair * 2 + 1, [b0, b1])] {
                    let score = &mut scores[block as usize];
                    *score = code.mma(q, keys, *score);
                }
            }
        }
        scores
    }

    /// Scores to exponentials, with the state rescaled to the new largest scores.
    fn exponentials(
        &self,
        scores: Vec<[Float<'c>; 4]>,
        state: State<'c>,
    ) -> (Vec<[Float<'c>; 4]>, State<'c>) {
        let code = self.code;
        let (mut sums, mut largest, mut totals) = state;
        let mut scores = scores;
        for row in 0..2 {
            let pair = [row * 2, row * 2 + 1];
            let in_tile = scores
                .iter()
                .map(|score| score[pair[0]].max(score[pair[1]]))
                .fold(largest[row], |a, b| a.max(b));
            // The four lanes of a row stand side by side.
            let new = code.reduce(in_tile, 4, |a, b| a.max(b));
            let shrink = (largest[row] - new).exp2_fast();
            largest[row] = new;
            totals[row] = totals[row] * shrink;
            for score in &mut scores {
                for item in pair {
                    score[item] = (score[item] - new).exp2_fast();
                    totals[row] = totals[row] + score[item];
                }
            }
            for sum in &mut sums {
                for item in pair {
                    sum[item] = sum[item] * shrink;
                }
            }
        }
        (scores, (sums, largest, totals))
    }

    /// Adds the values of the tile, weighted with the exponentials.
    ///
    /// Two neighbouring blocks of scores lie in registers as the left operand of a step of 16 keys
    /// wants them. A weight is taken as the sum of two bf16: one would round it by as much as the
    /// result itself is rounded.
    fn add_values(&self, weights: &[[Float<'c>; 4]], state: State<'c>) -> State<'c> {
        let Parts { code, lane, tile, .. } = *self;
        let (mut sums, largest, totals) = state;
        // Matrices, transposed: (keys 0-7, columns 0-7), (8-15, 0-7), (0-7, 8-15), (8-15, 8-15).
        let v_at = self.v.at::<I8>(lane % 16 * tile.pitch + lane / 16 * 16);
        for (step, blocks) in (0u32..).zip(weights.chunks_exact(2)) {
            let [[a0, a1, a2, a3], [b0, b1, b2, b3]] = [blocks[0], blocks[1]];
            let pairs = [[a0, a1], [a2, a3], [b0, b1], [b2, b3]];
            let coarse = pairs.map(|[first, second]| pack_bf16(first, second));
            let fine = [0, 1, 2, 3].map(|idx| {
                let ([first, second], [low, high]) = (pairs[idx], unpack_bf16(coarse[idx]));
                pack_bf16(first - low, second - high)
            });
            for pair in 0..self.padded / 16 {
                let at = v_at.at::<I8>(step * 16 * tile.pitch + pair * 32);
                let [v0, v1, w0, w1] = code.load_matrices_transposed(at);
                for (block, values) in [(pair * 2, [v0, v1]), (pair * 2 + 1, [w0, w1])] {
                    let sum = &mut sums[block as usize];
                    *sum = code.mma(coarse, values, *sum);
                    *sum = code.mma(fine, values, *sum);
                }
            }
        }
        (sums, largest, totals)
    }

    /// Divides by the sums of the exponentials and stores the rows that exist.
    fn store(
        &self,
        kernel: &Kernel,
        attention: &Attention,
        (from, rows): (Int<'c>, Int<'c>),
        sums: &[[Float<'c>; 4]],
        totals: [Float<'c>; 2],
    ) {
        let code = self.code;
        let out = kernel.param(attention.out);
        let view = View::dense(attention.out);
        let pairs = attention.width.is_multiple_of(2) && out.cols.is_multiple_of(2);
        let col_in_block = self.lane % 4 * 2;
        let first_col = code.block_y() * attention.width + col_in_block;
        for (part, total) in (0u32..).zip(totals) {
            let total = code.reduce(total, 4, |a, b| a + b);
            // A row without keys has zero sums and gives zeros.
            let total = total.gt(0.0).select(total, 1.0f32);
            let row = from + self.warp_row + self.lane / 4 + part * 8;
            code.when(row.lt(rows), || {
                let at = place::row_start(code, out, view, row).at::<BF16>(first_col);
                for (block, sum) in (0u32..).zip(sums) {
                    let col = col_in_block + block * 8;
                    let pair = (part * 2) as usize;
                    let (first, second) = (sum[pair] / total, sum[pair + 1] / total);
                    let at = at.at::<BF16>(block * 8);
                    if !pairs {
                        code.when(col.lt(attention.width), || at.store(first.to_bf16()));
                        code.when((col + 1).lt(attention.width), || at.at::<BF16>(1).store(second.to_bf16()));
                    } else if block * 8 + 8 <= attention.width {
                        at.store(pack_bf16(first, second));
                    } else {
                        code.when(col.lt(attention.width), || at.store(pack_bf16(first, second)));
                    }
                }
            });
        }
    }
}
