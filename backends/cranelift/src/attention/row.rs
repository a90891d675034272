//! One query row and head after the other: scores of all keys in sight, their softmax, the mix of values.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};
use skipc_artifact::abi::Function;
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Attention, Scoring};

use super::{HeadRows, head_rows, keys_in_sight};
use crate::emit::{Emitter, Lanes};
use crate::error::Fault;
use crate::matmul::dot_products;
use crate::memory::Row;

/// Keys whose scores are taken at once, so that a query element is loaded once for all of them.
const KEYS_AT_ONCE: i64 = 4;

/// Vectors of a value row that are mixed at once: half of the 16 vector registers hold their sums.
const VECTORS_AT_ONCE: u32 = 8;

/// Emits the work on one query row.
pub(super) fn emit(e: &mut Emitter<'_>, attention: &Attention, row: Value) -> Result<(), Fault> {
    let (first, end) = keys_in_sight(e, attention, row)?;
    let Attention { heads, kv_heads, width, scoring, k, v, .. } = *attention;
    let (q, out) = (e.row(attention.q, row)?, e.dense_row(attention.out, row)?);
    let count = e.ins().isub(end, first);
    let rows = QueryRow { heads, kv_heads, width, scoring, q, out, count };
    rows.emit(e, |e, kv_col| Ok((head_rows(e, k, kv_col, first)?, head_rows(e, v, kv_col, first)?)))
}

/// All heads of a query row, which sees so many keys.
pub(super) struct QueryRow {
    pub(super) heads: u32,
    pub(super) kv_heads: u32,
    pub(super) width: u32,
    pub(super) scoring: Scoring,
    pub(super) q: Row,
    pub(super) out: Row,
    pub(super) count: Value,
}

impl QueryRow {
    /// Emits the work on it; `rows` gives the keys and values in sight from a column on.
    pub(super) fn emit(
        self,
        e: &mut Emitter<'_>,
        rows: impl FnOnce(&mut Emitter<'_>, Value) -> Result<(HeadRows, HeadRows), Fault>,
    ) -> Result<(), Fault> {
        let QueryRow { q, out, count, .. } = self;
        let (group, width) = (self.heads.checked_div(self.kv_heads).unwrap_or(0), i64::from(self.width));
        let (zero, kv_heads, group_end) =
            (e.int(0), e.int(i64::from(self.kv_heads)), e.int(i64::from(group)));
        e.for_each(zero, kv_heads, 1, |e, kv_head| {
            let kv_col = e.ins().imul_imm_s(kv_head, width);
            let (keys, values) = rows(e, kv_col)?;
            e.for_each(zero, group_end, 1, |e, member| {
                let head = e.ins().imul_imm_s(kv_head, i64::from(group));
                let head = e.ins().iadd(head, member);
                let col = e.ins().imul_imm_s(head, width);
                let head = Head {
                    width: self.width,
                    scoring: self.scoring,
                    q: q.at_column(e, col),
                    keys,
                    values,
                    count,
                    out: out.at_column(e, col),
                };
                let largest = head.scores(e)?;
                let total = head.softmax(e, largest)?;
                head.mix(e, total)
            })
        })
    }
}

/// One head of one query row, and the keys and values that it sees.
struct Head {
    width: u32,
    scoring: Scoring,
    q: Row,
    keys: HeadRows,
    values: HeadRows,
    count: Value,
    out: Row,
}

impl Head {
    /// Writes the score of each key, over the cap if there is one; gives the largest.
    fn scores(&self, e: &mut Emitter<'_>) -> Result<Value, Fault> {
        let lowest = e.real(f32::NEG_INFINITY, Lanes::One);
        let (zero, split) = (e.int(0), e.ins().band_imm_s(self.count, -KEYS_AT_ONCE));
        let largest = e.fold(zero, split, KEYS_AT_ONCE, &[lowest], |e, first, largest| {
            self.scores_of(e, first, KEYS_AT_ONCE, largest[0])
        })?;
        let largest =
            e.fold(split, self.count, 1, &largest, |e, key, largest| self.scores_of(e, key, 1, largest[0]))?;
        if self.scoring.cap.is_none() {
            return Ok(largest[0]);
        }
        let scores = scores_row(e);
        e.map(Function::Tanh, scores.address, self.count);
        let largest = e.fold(zero, self.count, 1, &[lowest], |e, key, largest| {
            let score = e.load(scores, key, Lanes::One);
            Ok(vec![e.at_least(score, largest[0], Lanes::One)])
        })?;
        Ok(largest[0])
    }

    fn scores_of(
        &self,
        e: &mut Emitter<'_>,
        first: Value,
        n_keys: i64,
        mut largest: Value,
    ) -> Result<Vec<Value>, Fault> {
        let keys: Vec<(Value, Row)> = (0..n_keys)
            .map(|offset| {
                let key = e.ins().iadd_imm_s(first, offset);
                (key, self.keys.row(e, key))
            })
            .collect();
        let rows: Vec<Row> = keys.iter().map(|(_, row)| *row).collect();
        let columns = e.columns(self.width);
        let products = dot_products(e, columns, self.q, &rows)?;
        let (scale, cap) = (self.scoring.scale(self.width), self.scoring.cap.map_or(1.0, |cap| cap.0));
        let scale = e.real((scale / cap) as f32, Lanes::One);
        let scores = scores_row(e);
        for ((key, _), product) in keys.iter().zip(products) {
            let score = e.ins().fmul(product, scale);
            e.store(scores, *key, score, Lanes::One);
            largest = e.at_least(score, largest, Lanes::One);
        }
        Ok(vec![largest])
    }

    /// Turns scores into their exponentials over the largest; gives their sum, or 1 if there is no key.
    fn softmax(&self, e: &mut Emitter<'_>, largest: Value) -> Result<Value, Fault> {
        let (scores, one) = (scores_row(e), e.real(1.0, Lanes::One));
        let cap = e.real(self.scoring.cap.map_or(1.0, |cap| cap.0 as f32), Lanes::One);
        let largest = e.ins().fmul(largest, cap);
        let total = e.softmax(scores.address, self.count, cap, largest);
        let is_blind = e.ins().icmp_imm_u(IntCC::Equal, self.count, 0);
        Ok(e.ins().select(is_blind, one, total))
    }

    /// Writes the values' sum by weight over the weights' sum.
    fn mix(&self, e: &mut Emitter<'_>, total: Value) -> Result<(), Fault> {
        let group = VECTORS_AT_ONCE * 4;
        let grouped = self.width / group * group;
        let (zero, end) = (e.int(0), e.int(i64::from(grouped)));
        e.for_each(zero, end, i64::from(group), |e, col| {
            self.mix_columns(e, total, col, VECTORS_AT_ONCE, Lanes::Four)
        })?;
        let vectors = (self.width - grouped) / 4;
        self.mix_columns(e, total, end, vectors, Lanes::Four)?;
        let col = e.int(i64::from(grouped + vectors * 4));
        self.mix_columns(e, total, col, self.width % 4, Lanes::One)
    }

    fn mix_columns(
        &self,
        e: &mut Emitter<'_>,
        total: Value,
        first: Value,
        n: u32,
        lanes: Lanes,
    ) -> Result<(), Fault> {
        if n == 0 {
            return Ok(());
        }
        let cols: Vec<Value> =
            (0..i64::from(n)).map(|idx| e.ins().iadd_imm_s(first, idx * lanes.count())).collect();
        let (weights, zero) = (scores_row(e), e.int(0));
        let nothing = vec![e.real(0.0, lanes); cols.len()];
        let sums = e.fold(zero, self.count, 1, &nothing, |e, key, sums| {
            let weight = e.load(weights, key, Lanes::One);
            let weight = e.splat(weight, lanes);
            let row = self.values.row(e, key);
            let mut next = Vec::with_capacity(sums.len());
            for (sum, col) in sums.iter().zip(&cols) {
                let value = e.load(row, *col, lanes);
                let share = e.ins().fmul(weight, value);
                next.push(e.ins().fadd(*sum, share));
            }
            Ok(next)
        })?;
        let total = e.splat(total, lanes);
        for (sum, col) in sums.into_iter().zip(cols) {
            let mean = e.ins().fdiv(sum, total);
            e.store(self.out, col, mean, lanes);
        }
        Ok(())
    }
}

/// The scores, and later the weights, of the keys in sight.
fn scores_row(e: &Emitter<'_>) -> Row {
    Row { address: e.scratch, dtype: DType::F32 }
}
