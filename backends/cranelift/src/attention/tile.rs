//! Many query rows of one sequence: for blocks of keys, scores by a matmul with the transposed keys, a running
//! softmax, and a second matmul with the values. Both are fastest with what makes neighbouring columns of
//! their results side by side, which values are and keys are not.
//!
//! A row gives the weight 0 to keys of the block that it does not see, so values must be finite; the layers that make
//! them see to that.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Value};
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Attention, Rows, View};

use super::{HeadRows, TILE_ROWS, first_key, head_rows, keys_in_sight};
use crate::emit::{Columns, Emitter, Lanes};
use crate::error::Fault;
use crate::matmul::{Matmul, Matrix, Right};
use crate::memory::Row;

/// Keys of a block: scores of a tile and transposed keys of the usual widths stay in the first two caches.
const BLOCK_KEYS: u32 = 256;

/// Matrices in scratch memory, as offsets in bytes.
struct Scratch {
    /// `[TILE_ROWS, BLOCK_KEYS]`: scores, then weights.
    scores: i64,
    /// `[width, BLOCK_KEYS]`.
    keys: i64,
    /// `[TILE_ROWS, width]`: the mix of one block.
    mix: i64,
    /// `[group, TILE_ROWS, width]`: the mix so far.
    sums: i64,
    /// `[group, TILE_ROWS]`: the largest score so far.
    largest: i64,
    /// `[group, TILE_ROWS]`: the sum of weights so far.
    totals: i64,
    /// `[TILE_ROWS]`: what the block made of earlier weights.
    shrink: i64,
    /// `u32 [TILE_ROWS]`: how many keys each row sees.
    seen: i64,
    bytes: u64,
}

impl Scratch {
    fn new(attention: &Attention) -> Scratch {
        let (tile, block, width) = (u64::from(TILE_ROWS), u64::from(BLOCK_KEYS), u64::from(attention.width));
        let group = u64::from(attention.heads.checked_div(attention.kv_heads).unwrap_or(0));
        let mut bytes = 0;
        let mut take = |elements: u64| {
            let at = bytes as i64;
            bytes += (elements * 4).next_multiple_of(64);
            at
        };
        let scores = take(tile * block);
        let keys = take(width * block);
        let mix = take(tile * width);
        let sums = take(group * tile * width);
        let largest = take(group * tile);
        let totals = take(group * tile);
        let shrink = take(tile);
        let seen = take(tile);
        Scratch { scores, keys, mix, sums, largest, totals, shrink, seen, bytes }
    }
}

/// Bytes of scratch memory that a call needs.
pub(super) fn scratch_bytes(attention: &Attention) -> u64 {
    Scratch::new(attention).bytes
}

/// Emits the work on `m` rows of one sequence, at most a tile.
pub(super) fn emit(
    e: &mut Emitter<'_>,
    attention: &Attention,
    first_row: Value,
    m: Value,
) -> Result<(), Fault> {
    let scratch = Scratch::new(attention);
    let sequence = e.load_index(attention.q_seq, first_row)?;
    let start = e.ins().ishl_imm_u(sequence, 32);
    let n_keys = e.extent(attention.kv_extent)?;
    let first_key = first_key(e, (attention.k_pos, attention.k_seq), n_keys, IntCC::UnsignedLessThan, start)?;
    let (zero, kv_heads) = (e.int(0), e.int(i64::from(attention.kv_heads)));
    let seen = offset(e, scratch.seen);
    let span = e.fold(zero, m, 1, &[zero], |e, idx, span| {
        let row = e.ins().iadd(first_row, idx);
        let (first, end) = keys_in_sight(e, attention, row)?;
        let count = e.ins().isub(end, first);
        e.store_index(seen, idx, count);
        Ok(vec![e.ins().umax(span[0], count)])
    })?[0];
    e.for_each(zero, kv_heads, 1, |e, kv_head| {
        let tile = Tile { attention, scratch: &scratch, first_row, m, first_key, kv_head };
        tile.emit(e, span)
    })
}

/// The rows, and one head of keys and values.
struct Tile<'a> {
    attention: &'a Attention,
    scratch: &'a Scratch,
    first_row: Value,
    m: Value,
    first_key: Value,
    kv_head: Value,
}

/// Some of the keys, from `first` of those in sight on.
#[derive(Clone, Copy)]
struct KeyBlock {
    first: Value,
    count: Value,
}

impl Tile<'_> {
    fn emit(&self, e: &mut Emitter<'_>, span: Value) -> Result<(), Fault> {
        let zero = e.int(0);
        self.for_members(e, |tile, e, member| tile.reset(e, member))?;
        e.for_each(zero, span, i64::from(BLOCK_KEYS), |e, first| {
            let left = e.ins().isub(span, first);
            let limit = e.int(i64::from(BLOCK_KEYS));
            let block = KeyBlock { first, count: e.ins().umin(left, limit) };
            self.transpose_keys(e, block)?;
            self.for_members(e, |tile, e, member| {
                tile.scores(e, member, block)?;
                tile.for_rows(e, |tile, e, idx| tile.weigh(e, member, block, idx))?;
                tile.mix(e, member, block)
            })
        })?;
        self.for_members(e, |tile, e, member| tile.for_rows(e, |tile, e, idx| tile.finish(e, member, idx)))
    }

    /// Runs `body` for each query head of the key head.
    fn for_members(
        &self,
        e: &mut Emitter<'_>,
        body: impl FnOnce(&Self, &mut Emitter<'_>, Value) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let group = self.attention.heads / self.attention.kv_heads;
        let (zero, group) = (e.int(0), e.int(i64::from(group)));
        e.for_each(zero, group, 1, |e, member| body(self, e, member))
    }

    fn for_rows(
        &self,
        e: &mut Emitter<'_>,
        body: impl FnOnce(&Self, &mut Emitter<'_>, Value) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let zero = e.int(0);
        e.for_each(zero, self.m, 1, |e, idx| body(self, e, idx))
    }

    fn reset(&self, e: &mut Emitter<'_>, member: Value) -> Result<(), Fault> {
        let (lowest, zero) = (e.real(f32::NEG_INFINITY, Lanes::One), e.real(0.0, Lanes::One));
        self.for_rows(e, |tile, e, idx| {
            let (largest, totals) = tile.statistics(e, member);
            e.store(largest, idx, lowest, Lanes::One);
            e.store(totals, idx, zero, Lanes::One);
            let sums = tile.sums(e, member, idx);
            let columns = e.columns(tile.attention.width);
            e.for_columns(columns, |e, col, lanes| {
                let zero = e.real(0.0, lanes);
                e.store(sums, col, zero, lanes);
                Ok(())
            })
        })
    }

    /// Writes the block's keys, a row for each column of the head.
    fn transpose_keys(&self, e: &mut Emitter<'_>, block: KeyBlock) -> Result<(), Fault> {
        let key = e.ins().iadd(self.first_key, block.first);
        let keys = self.head_rows(e, self.attention.k, key)?;
        let target = offset(e, self.scratch.keys);
        let columns = e.columns(self.attention.width);
        let (zero, split) = (e.int(0), e.ins().band_imm_s(block.count, -4));
        e.for_each(zero, split, 4, |e, key| {
            let rows = [0, 1, 2, 3].map(|idx| {
                let key = e.ins().iadd_imm_s(key, idx);
                keys.row(e, key)
            });
            e.for_columns(columns, |e, col, lanes| {
                let elements = rows.map(|row| e.load(row, col, lanes));
                match lanes {
                    Lanes::Four => {
                        for (idx, column) in e.transpose(elements).into_iter().enumerate() {
                            let col = e.ins().iadd_imm_s(col, idx as i64);
                            let row = block_row(e, target, col);
                            e.store(row, key, column, Lanes::Four);
                        }
                    }
                    Lanes::One => {
                        let row = block_row(e, target, col);
                        for (idx, element) in elements.into_iter().enumerate() {
                            let key = e.ins().iadd_imm_s(key, idx as i64);
                            e.store(row, key, element, Lanes::One);
                        }
                    }
                }
                Ok(())
            })
        })?;
        e.for_each(split, block.count, 1, |e, key| {
            let source = keys.row(e, key);
            e.for_each(zero, columns.count, 1, |e, col| {
                let element = e.load(source, col, Lanes::One);
                let row = block_row(e, target, col);
                e.store(row, key, element, Lanes::One);
                Ok(())
            })
        })
    }

    /// `q · k` of all rows and all keys of the block.
    fn scores(&self, e: &mut Emitter<'_>, member: Value, block: KeyBlock) -> Result<(), Fault> {
        let Attention { q, width, .. } = *self.attention;
        let col = self.query_column(e, member);
        let queries = e.row(q, self.first_row)?;
        let a = Matrix { address: queries.at_column(e, col).address, stride: stride(e, q)? };
        let address = offset(e, self.scratch.keys);
        let b = Right { address, outer: e.int(1), inner: e.int(i64::from(BLOCK_KEYS)) };
        let c = self.score_matrix(e);
        let k = e.int(i64::from(width));
        Matmul { m: self.m, n: block.count, k, a, b, c }.call(e);
        Ok(())
    }

    /// Turns a row's scores into weights, 0 where the row does not see the key.
    fn weigh(&self, e: &mut Emitter<'_>, member: Value, block: KeyBlock, idx: Value) -> Result<(), Fault> {
        let scores = offset(e, self.scratch.scores);
        let scores = block_row(e, scores, idx);
        let visible = self.visible(e, block, idx);
        let scale = self.attention.scoring.scale(self.attention.width) as f32;
        let (largest, totals) = self.statistics(e, member);
        let before = e.load(largest, idx, Lanes::One);
        let raw = largest_of(e, scores, visible)?;
        let factor = e.real(scale, Lanes::One);
        let scaled = e.ins().fmul(raw, factor);
        let now = e.at_least(scaled, before, Lanes::One);
        e.store(largest, idx, now, Lanes::One);

        let sum = e.softmax(scores.address, visible.count, factor, now);
        e.for_each(visible.count, block.count, 1, |e, key| {
            let zero = e.real(0.0, Lanes::One);
            e.store(scores, key, zero, Lanes::One);
            Ok(())
        })?;

        // Not by the exponential alone: before the first key in sight, both are infinite.
        let row = f32_row(e, self.scratch.shrink);
        e.store(row, idx, before, Lanes::One);
        let (one, single) = (e.real(1.0, Lanes::One), e.int(1));
        let place = e.element(row.address, idx, 4);
        let shrink = e.softmax(place, single, one, now);
        let is_same = e.ins().fcmp(FloatCC::Equal, before, now);
        let shrink = e.ins().select(is_same, one, shrink);
        e.store(row, idx, shrink, Lanes::One);
        let total = e.load(totals, idx, Lanes::One);
        let total = e.ins().fmul(total, shrink);
        let total = e.ins().fadd(total, sum);
        e.store(totals, idx, total, Lanes::One);
        Ok(())
    }

    /// Adds the block's values by weight to what earlier blocks made.
    fn mix(&self, e: &mut Emitter<'_>, member: Value, block: KeyBlock) -> Result<(), Fault> {
        let width = e.int(i64::from(self.attention.width));
        let a = self.score_matrix(e);
        let v = self.attention.v;
        let key = e.ins().iadd(self.first_key, block.first);
        let address = self.head_rows(e, v, key)?.first.address;
        let b = Right { address, outer: e.int(1), inner: stride(e, v)? };
        let c = Matrix { address: offset(e, self.scratch.mix), stride: width };
        Matmul { m: self.m, n: width, k: block.count, a, b, c }.call(e);
        self.for_rows(e, |tile, e, idx| {
            let shrink = f32_row(e, tile.scratch.shrink);
            let shrink = e.load(shrink, idx, Lanes::One);
            let sums = tile.sums(e, member, idx);
            let mix = wide_row(e, tile.scratch.mix, idx, tile.attention.width);
            let columns = e.columns(tile.attention.width);
            e.for_columns(columns, |e, col, lanes| {
                let (sum, more) = (e.load(sums, col, lanes), e.load(mix, col, lanes));
                let shrink = e.splat(shrink, lanes);
                let sum = e.ins().fmul(sum, shrink);
                let sum = e.ins().fadd(sum, more);
                e.store(sums, col, sum, lanes);
                Ok(())
            })
        })
    }

    /// Writes a row's result: the sums over the total, or zeros if there was no key.
    fn finish(&self, e: &mut Emitter<'_>, member: Value, idx: Value) -> Result<(), Fault> {
        let (_, totals) = self.statistics(e, member);
        let total = e.load(totals, idx, Lanes::One);
        let seen = offset(e, self.scratch.seen);
        let seen = load_count(e, seen, idx);
        let is_blind = e.ins().icmp_imm_u(IntCC::Equal, seen, 0);
        let one = e.real(1.0, Lanes::One);
        let total = e.ins().select(is_blind, one, total);
        let sums = self.sums(e, member, idx);
        let row = e.ins().iadd(self.first_row, idx);
        let (out, col) = (e.dense_row(self.attention.out, row)?, self.query_column(e, member));
        let out = out.at_column(e, col);
        let columns = e.columns(self.attention.width);
        e.for_columns(columns, |e, col, lanes| {
            let (sum, total) = (e.load(sums, col, lanes), e.splat(total, lanes));
            let mean = e.ins().fdiv(sum, total);
            e.store(out, col, mean, lanes);
            Ok(())
        })
    }

    fn head_rows(&self, e: &mut Emitter<'_>, view: View, key: Value) -> Result<HeadRows, Fault> {
        let col = e.ins().imul_imm_s(self.kv_head, i64::from(self.attention.width));
        head_rows(e, view, col, key)
    }

    /// First column of a member of the group among the queries.
    fn query_column(&self, e: &mut Emitter<'_>, member: Value) -> Value {
        let group = i64::from(self.attention.heads / self.attention.kv_heads);
        let head = e.ins().imul_imm_s(self.kv_head, group);
        let head = e.ins().iadd(head, member);
        e.ins().imul_imm_s(head, i64::from(self.attention.width))
    }

    fn score_matrix(&self, e: &mut Emitter<'_>) -> Matrix {
        Matrix { address: offset(e, self.scratch.scores), stride: e.int(i64::from(BLOCK_KEYS)) }
    }

    /// How many keys of the block a row sees.
    fn visible(&self, e: &mut Emitter<'_>, block: KeyBlock, idx: Value) -> Columns {
        let seen = offset(e, self.scratch.seen);
        let seen = load_count(e, seen, idx);
        let seen = e.ins().umax(seen, block.first);
        let seen = e.ins().isub(seen, block.first);
        let seen = e.ins().umin(seen, block.count);
        e.some_columns(seen)
    }

    /// The largest scores and the totals of a member, indexed by row.
    fn statistics(&self, e: &mut Emitter<'_>, member: Value) -> (Row, Row) {
        let first = e.ins().imul_imm_s(member, i64::from(TILE_ROWS));
        let [largest, totals] = [self.scratch.largest, self.scratch.totals].map(|at| {
            let row = f32_row(e, at);
            row.at_column(e, first)
        });
        (largest, totals)
    }

    fn sums(&self, e: &mut Emitter<'_>, member: Value, idx: Value) -> Row {
        let row = e.ins().imul_imm_s(member, i64::from(TILE_ROWS));
        let row = e.ins().iadd(row, idx);
        wide_row(e, self.scratch.sums, row, self.attention.width)
    }
}

/// The largest of a row's first elements, −∞ if there is none.
fn largest_of(e: &mut Emitter<'_>, row: Row, columns: Columns) -> Result<Value, Fault> {
    let lowest = e.real(f32::NEG_INFINITY, Lanes::Four);
    let (zero, split) = (e.int(0), e.ins().band_imm_s(columns.count, -4));
    let larger = |e: &mut Emitter<'_>, col: Value, so_far: &[Value], lanes: Lanes| {
        let element = e.load(row, col, lanes);
        Ok(vec![e.at_least(element, so_far[0], lanes)])
    };
    let vector = e.fold(zero, split, 4, &[lowest], |e, col, so_far| larger(e, col, so_far, Lanes::Four))?[0];
    let swapped = e.shuffle(vector, vector, [2, 3, 0, 1]);
    let pairs = e.at_least(vector, swapped, Lanes::Four);
    let crossed = e.shuffle(pairs, pairs, [1, 0, 3, 2]);
    let largest = e.at_least(pairs, crossed, Lanes::Four);
    let largest = e.ins().extractlane(largest, 0);
    Ok(e.fold(split, columns.count, 1, &[largest], |e, col, so_far| larger(e, col, so_far, Lanes::One))?[0])
}

fn offset(e: &mut Emitter<'_>, bytes: i64) -> Value {
    let scratch = e.scratch;
    e.ins().iadd_imm_s(scratch, bytes)
}

fn f32_row(e: &mut Emitter<'_>, bytes: i64) -> Row {
    Row { address: offset(e, bytes), dtype: DType::F32 }
}

/// A row of a matrix in scratch memory.
fn wide_row(e: &mut Emitter<'_>, bytes: i64, idx: Value, width: u32) -> Row {
    let base = offset(e, bytes);
    let distance = e.ins().imul_imm_s(idx, i64::from(width) * 4);
    Row { address: e.ins().iadd(base, distance), dtype: DType::F32 }
}

/// A row of [`BLOCK_KEYS`] elements.
fn block_row(e: &mut Emitter<'_>, base: Value, idx: Value) -> Row {
    let distance = e.ins().imul_imm_s(idx, i64::from(BLOCK_KEYS) * 4);
    Row { address: e.ins().iadd(base, distance), dtype: DType::F32 }
}

fn load_count(e: &mut Emitter<'_>, base: Value, idx: Value) -> Value {
    let address = e.element(base, idx, 4);
    e.ins().uload32(crate::memory::PLAIN, address, 0)
}

/// Elements between rows of a parameter.
fn stride(e: &mut Emitter<'_>, view: View) -> Result<Value, Fault> {
    debug_assert!(view.rows == Rows::Dense);
    let cols = e.param(view.slot)?.cols;
    Ok(e.int(i64::from(cols)))
}
