//! Multiply-add attention on f32.
//!
//! Threads stand in a 16×16 grid over the tile of scores; a thread's rows and keys are 16 apart, so
//! that neighbouring lanes read neighbouring rows, which lie an odd number of 16-byte pieces apart
//! in shared memory. Keys and values take turns in one tile; exponentials go through another.

use skipc_artifact::program::RowTile;
use skipc_llvm::Feature;
use skipc_plan::kernel::{Attention, Kernel, View};

use super::super::generated::Generated;
use super::super::place;
use super::LOWEST;
use super::ranges::{self, Ranges};
use super::tiles::{Head, Tile};
use crate::code::{Arith, Code, F32, Float, I8, Int, SPtr, Steps, V4, math::Precision};
use crate::error::Error;

/// Threads of a block, along each side.
const SIDE: u32 = 16;

/// Threads of a block.
const THREADS: u32 = SIDE * SIDE;

/// Elements from row to row of the exponentials beyond their columns.
const PAD: u32 = 4;

/// What the parts of the kernel share.
struct Parts<'c> {
    code: &'c Code,
    /// Columns of a head.
    width: u32,
    tile: Tile,
    /// Tiles in shared memory: queries, keys or values, exponentials.
    q: SPtr<'c>,
    kv: SPtr<'c>,
    p: SPtr<'c>,
    /// This thread's place in the grid: along the keys, along the rows.
    across: Int<'c>,
    down: Int<'c>,
}

/// For each of a thread's rows: weighted sums of the values, 16 columns apart; the largest score; the
/// sum of the exponentials of this thread's keys.
type State<'c> = (Vec<Vec<Float<'c>>>, Vec<Float<'c>>, Vec<Float<'c>>);

pub(super) fn generate(kernel: &Kernel, attention: &Attention) -> Result<Generated, Error> {
    let filled = attention.width.next_multiple_of(8) * 4;
    // Wide heads take small tiles: the sums of a thread's rows and two tiles have to fit.
    let rows = if attention.width <= 128 { 64 } else { 32 };
    let tile = Tile { rows, pitch: filled + 16, filled, threads: THREADS };
    let code = Code::new(place::n_params(kernel)?);
    write(&code, kernel, attention, tile);
    Ok(Generated {
        shared_bytes: 2 * tile.bytes() + exponential_bytes(tile) + ranges::shared_bytes(rows),
        features: vec![Feature::CpAsync],
        ..Generated::new(code, vec![RowTile { from: 0, rows, across: attention.heads }], THREADS)
    })
}

fn exponential_bytes(tile: Tile) -> u32 {
    tile.rows * (tile.rows + PAD) * 4
}

fn write(code: &Code, kernel: &Kernel, attention: &Attention, tile: Tile) {
    let rows = place::extent(code, &kernel.extent);
    let from = code.block_x() * tile.rows;
    code.return_if(from.ge(rows));
    let shared = code.shared();
    let parts = Parts {
        code,
        width: attention.width,
        tile,
        q: shared,
        kv: shared.at::<I8>(tile.bytes()),
        p: shared.at::<I8>(2 * tile.bytes()),
        across: code.thread() % SIDE,
        down: code.thread() / SIDE,
    };
    let ranges_at = parts.p.at::<I8>(exponential_bytes(tile));
    let ranges = Ranges::find(code, (kernel, attention), ranges_at, tile.rows, (from, rows));
    let head = code.block_y();
    let kv_head = head / (attention.heads / attention.kv_heads);
    let of = |view: View, index| Head { param: kernel.param(view.slot), view, width: attention.width, index };
    let (q, k, v) = (of(attention.q, head), of(attention.k, kv_head), of(attention.v, kv_head));
    let seen: Vec<_> = (0..parts.per_thread()).map(|idx| ranges.of(parts.down + idx * SIDE)).collect();

    tile.copy(code, q, parts.q, (from, rows));
    let steps = Steps { from: ranges.first, to: ranges.end, step: tile.rows };
    let (sums, _, totals) = code.repeat(steps, parts.start(), |base, state| {
        tile.copy(code, k, parts.kv, (base, ranges.end));
        code.copy_wait_all();
        code.barrier();
        let mut scores = parts.scores();
        for (row, seen) in scores.iter_mut().zip(&seen) {
            for (idx, score) in (0u32..).zip(row) {
                let sees = ranges.sees(base + parts.across + idx * SIDE, *seen);
                let seen = score.score(attention.scoring, attention.width, Precision::Full);
                *score = sees.select(seen, f32::NEG_INFINITY);
            }
        }
        let state = parts.exponentials(scores, state);
        // All threads are done with the keys, and the exponentials are there.
        code.barrier();
        tile.copy(code, v, parts.kv, (base, ranges.end));
        code.copy_wait_all();
        code.barrier();
        let state = parts.add_values(state);
        // All threads are done with the values and the exponentials.
        code.barrier();
        state
    });
    parts.store(kernel, attention, (from, rows), &sums, &totals);
}

impl<'c> Parts<'c> {
    /// Rows, and keys of a tile, of a thread.
    fn per_thread(&self) -> u32 {
        self.tile.rows / SIDE
    }

    /// Elements from row to row of queries, keys and values.
    fn pitch(&self) -> u32 {
        self.tile.pitch / 4
    }

    fn start(&self) -> State<'c> {
        let rows = self.per_thread() as usize;
        let (zero, lowest) = (self.code.float(0.0), self.code.float(LOWEST));
        let cols = self.width.div_ceil(SIDE) as usize;
        (vec![vec![zero; cols]; rows], vec![lowest; rows], vec![zero; rows])
    }

    /// The products of the thread's queries with its keys.
    fn scores(&self) -> Vec<Vec<Float<'c>>> {
        let n = self.per_thread();
        let zero = self.code.float(0.0);
        let start = vec![vec![zero; n as usize]; n as usize];
        let q = self.q.at::<F32>(self.down * self.pitch());
        let k = self.kv.at::<F32>(self.across * self.pitch());
        // Columns beyond the head are zeros.
        let steps = Steps { from: 0, to: self.tile.filled / 4, step: 4 };
        self.code.repeat(steps, start, |col, mut scores| {
            let load = |start: SPtr<'c>, idx: u32| {
                start.at::<F32>(col + idx * SIDE * self.pitch()).load::<V4<F32>>().items()
            };
            let keys: Vec<_> = (0..n).map(|idx| load(k, idx)).collect();
            for (idx, row) in (0u32..).zip(&mut scores) {
                let query = load(q, idx);
                for (score, key) in row.iter_mut().zip(&keys) {
                    for (a, b) in query.iter().zip(key) {
                        *score = a.fma(*b, *score);
                    }
                }
            }
            scores
        })
    }

    /// Writes the exponentials of the scores, and rescales the state to the new largest scores.
    fn exponentials(&self, scores: Vec<Vec<Float<'c>>>, state: State<'c>) -> State<'c> {
        let (mut sums, mut largest, mut totals) = state;
        let p = self.p.at::<F32>(self.down * (self.tile.rows + PAD) + self.across);
        for (idx, scores) in (0u32..).zip(&scores) {
            let row = idx as usize;
            let in_tile = scores.iter().fold(largest[row], |a, b| a.max(*b));
            let new = self.code.reduce(in_tile, SIDE, |a, b| a.max(b));
            let shrink = (largest[row] - new).exp(Precision::Full);
            largest[row] = new;
            totals[row] = totals[row] * shrink;
            for (key, score) in (0u32..).zip(scores) {
                let value = (*score - new).exp(Precision::Full);
                totals[row] = totals[row] + value;
                p.at::<F32>(idx * SIDE * (self.tile.rows + PAD) + key * SIDE).store(value);
            }
            for sum in &mut sums[row] {
                *sum = *sum * shrink;
            }
        }
        (sums, largest, totals)
    }

    /// Adds the values of the tile, weighted with the exponentials.
    fn add_values(&self, state: State<'c>) -> State<'c> {
        let (sums, largest, totals) = state;
        let p = self.p.at::<F32>(self.down * (self.tile.rows + PAD));
        // A thread beyond the head's columns reads the last of them; its sums are not stored.
        let column = |col: u32| match self.across + col * SIDE {
            beyond if (col + 1) * SIDE > self.width => beyond.min(self.width - 1),
            inside => inside,
        };
        let columns: Vec<Int<'c>> = (0..self.width.div_ceil(SIDE)).map(column).collect();
        let steps = Steps { from: 0, to: self.tile.rows, step: 4 };
        let sums = self.code.repeat(steps, sums, |key, mut sums| {
            let weights: Vec<_> = (0..self.per_thread())
                .map(|idx| p.at::<F32>(key + idx * SIDE * (self.tile.rows + PAD)).load::<V4<F32>>().items())
                .collect();
            for part in 0..4u32 {
                let row = self.kv.at::<F32>((key + part) * self.pitch());
                for (col, column) in columns.iter().enumerate() {
                    let value = row.at::<F32>(*column).load::<F32>();
                    for (weights, sums) in weights.iter().zip(&mut sums) {
                        let sum = &mut sums[col];
                        *sum = weights[part as usize].fma(value, *sum);
                    }
                }
            }
            sums
        });
        (sums, largest, totals)
    }

    /// Divides by the sums of the exponentials and stores the rows that exist.
    fn store(
        &self,
        kernel: &Kernel,
        attention: &Attention,
        (from, rows): (Int<'c>, Int<'c>),
        sums: &[Vec<Float<'c>>],
        totals: &[Float<'c>],
    ) {
        let code = self.code;
        let out = kernel.param(attention.out);
        let view = View::dense(attention.out);
        for ((idx, sums), total) in (0u32..).zip(sums).zip(totals) {
            let total = code.reduce(*total, SIDE, |a, b| a + b);
            // A row without keys has zero sums and gives zeros.
            let total = total.gt(0.0).select(total, 1.0f32);
            let row = from + self.down + idx * SIDE;
            code.when(row.lt(rows), || {
                let start = place::row_start(code, out, view, row);
                let start = start.at::<F32>(code.block_y() * self.width + self.across);
                for (part, sum) in (0u32..).zip(sums) {
                    let store = || start.at::<F32>(part * SIDE).store(*sum / total);
                    if (part + 1) * SIDE <= self.width {
                        store();
                    } else {
                        code.when((self.across + part * SIDE).lt(self.width), store);
                    }
                }
            });
        }
    }
}
