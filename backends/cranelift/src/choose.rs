//! Experts: which of them a row takes, and rows in segments by that.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F32, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use skipc_artifact::abi::Function;
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Choice, NO_CHOICE, Partition, Ranking, Replay, Slot, View};

use crate::emit::{Emitter, Lanes};
use crate::error::Fault;
use crate::memory::{PLAIN, Row};

/// The choice of a row without its kernel.
pub(crate) struct Choose {
    pub(crate) n: u32,
    pub(crate) choice: Choice,
    pub(crate) logits: View,
    pub(crate) bias: Option<Slot>,
    pub(crate) replay: Option<Replay>,
    pub(crate) out: Slot,
}

/// Bytes of scratch memory: scores, what they rank by within the row, and what those taken rank by among other rows.
pub(crate) fn scratch_bytes(n: u32) -> u64 {
    3 * row_bytes(n)
}

fn row_bytes(n: u32) -> u64 {
    u64::from(n).next_multiple_of(16) * 4
}

impl Choose {
    /// Those that are replayed are marked by a rank that is not a number, and the highest, one after the other, until `k` are: scores
    /// are divided by the sum of these. Then those that are replayed, or all that are marked, are taken in order.
    pub(crate) fn emit(&self, e: &mut Emitter<'_>, row: Value) -> Result<(), Fault> {
        let scores = Row { address: e.scratch, dtype: DType::F32 };
        let [ranks, among_rows] = [1, 2].map(|idx| {
            let address = e.ins().iadd_imm_s(scores.address, idx * row_bytes(self.n) as i64);
            Row { address, dtype: DType::F32 }
        });
        let total = self.scores(e, row, scores)?;
        self.rank(e, scores, total, ranks)?;
        let (zero, n) = (e.int(0), e.int(i64::from(self.n)));
        let (mut n_listed, mut replayed) = (zero, None);
        if let Some(Replay { use_forced, choices }) = self.replay {
            let flag = e.pointer(use_forced, DType::U32)?;
            let flag = e.load_flag(flag, DType::U32);
            let replays = e.ins().icmp_imm_u(IntCC::NotEqual, flag, 0);
            let choices = e.row(choices, row)?;
            e.when(replays, |e| self.mark_listed(e, choices, ranks))?;
            let marked = e.fold(zero, n, 1, &[zero], |e, col, count| {
                let rank = e.load(ranks, col, Lanes::One);
                let is_marked = e.ins().fcmp(FloatCC::Unordered, rank, rank);
                let more = e.ins().iadd_imm_s(count[0], 1);
                Ok(vec![e.ins().select(is_marked, more, count[0])])
            })?;
            (n_listed, replayed) = (marked[0], Some((replays, choices)));
        }
        self.mark_highest(e, n_listed, [ranks, among_rows])?;
        let sum = self.sum(e, scores, ranks)?;
        if let Some((replays, choices)) = replayed {
            e.when(replays, |e| {
                // All rank alike among those of other rows.
                let alike = e.real(0.0, Lanes::One);
                e.for_each(zero, n, 1, |e, col| {
                    e.store(ranks, col, alike, Lanes::One);
                    e.store(among_rows, col, alike, Lanes::One);
                    Ok(())
                })?;
                self.mark_listed(e, choices, ranks)
            })?;
        }
        self.take(e, row, (scores, sum), [ranks, among_rows])
    }

    /// Marks the choices of a row that are replayed.
    fn mark_listed(&self, e: &mut Emitter<'_>, choices: Row, ranks: Row) -> Result<(), Fault> {
        let (zero, k) = (e.int(0), e.int(i64::from(self.choice.k)));
        let first = e.real(0.0, Lanes::One);
        e.for_each(zero, k, 1, |e, place| {
            let choice = e.load(choices, place, Lanes::One);
            let end = e.real(self.n as f32, Lanes::One);
            let is_some = e.ins().fcmp(FloatCC::GreaterThanOrEqual, choice, first);
            let is_below = e.ins().fcmp(FloatCC::LessThan, choice, end);
            let is_one = e.ins().band(is_some, is_below);
            e.when(is_one, |e| {
                let choice = e.ins().fcvt_to_uint_sat(I64, choice);
                let taken = e.real(f32::NAN, Lanes::One);
                e.store(ranks, choice, taken, Lanes::One);
                Ok(())
            })
        })
    }

    /// Marks the highest of which none is marked, until `k` are, of which there are `marked`.
    fn mark_highest(
        &self,
        e: &mut Emitter<'_>,
        marked: Value,
        [ranks, among_rows]: [Row; 2],
    ) -> Result<(), Fault> {
        let (n, k) = (e.int(i64::from(self.n)), e.int(i64::from(self.choice.k)));
        e.for_each(marked, k, 1, |e, turn| {
            let best = highest(e, ranks, n)?;
            if let Some(by) = self.choice.ranks {
                let rank = match by {
                    Ranking::Score => e.load(ranks, best, Lanes::One),
                    Ranking::Turn => {
                        let turn = e.ins().fcvt_from_uint(F32, turn);
                        e.ins().fneg(turn)
                    }
                };
                e.store(among_rows, best, rank, Lanes::One);
            }
            let taken = e.real(f32::NAN, Lanes::One);
            e.store(ranks, best, taken, Lanes::One);
            Ok(())
        })
    }

    /// The sum of the scores of those that are marked; none where scores are not divided by it.
    fn sum(&self, e: &mut Emitter<'_>, scores: Row, ranks: Row) -> Result<Option<Value>, Fault> {
        if !self.choice.normalise {
            return Ok(None);
        }
        let (zero, n, nothing) = (e.int(0), e.int(i64::from(self.n)), e.real(0.0, Lanes::One));
        let sum = e.fold(zero, n, 1, &[nothing], |e, col, sum| {
            let rank = e.load(ranks, col, Lanes::One);
            let is_marked = e.ins().fcmp(FloatCC::Unordered, rank, rank);
            let score = e.load(scores, col, Lanes::One);
            let larger = e.ins().fadd(sum[0], score);
            Ok(vec![e.ins().select(is_marked, larger, sum[0])])
        })?;
        Ok(Some(sum[0]))
    }

    /// Scores into scratch memory. Those of a softmax are not yet divided by their sum, which this gives.
    fn scores(&self, e: &mut Emitter<'_>, row: Value, scores: Row) -> Result<Option<Value>, Fault> {
        let logits = e.row(self.logits, row)?;
        e.copy_row(logits, scores, self.n)?;
        let (zero, n) = (e.int(0), e.int(i64::from(self.n)));
        if self.choice.sigmoid {
            e.map(Function::Sigmoid, scores.address, n);
            return Ok(None);
        }
        let first = e.load(scores, zero, Lanes::One);
        let largest = e.fold(zero, n, 1, &[first], |e, col, largest| {
            let z = e.load(scores, col, Lanes::One);
            let is_larger = e.ins().fcmp(FloatCC::GreaterThan, z, largest[0]);
            Ok(vec![e.ins().select(is_larger, z, largest[0])])
        })?;
        let one = e.real(1.0, Lanes::One);
        Ok(Some(e.softmax(scores.address, n, one, largest[0])))
    }

    /// What scores rank by; what is not a number ranks last.
    fn rank(&self, e: &mut Emitter<'_>, scores: Row, total: Option<Value>, ranks: Row) -> Result<(), Fault> {
        let (zero, n) = (e.int(0), e.int(i64::from(self.n)));
        let bias = self.bias.map(|bias| e.only_row(bias)).transpose()?;
        e.for_each(zero, n, 1, |e, col| {
            let mut rank = e.load(scores, col, Lanes::One);
            if let Some(total) = total {
                rank = e.ins().fdiv(rank, total);
                e.store(scores, col, rank, Lanes::One);
            }
            if let Some(bias) = bias {
                let bias = e.load(bias, col, Lanes::One);
                rank = e.ins().fadd(rank, bias);
            }
            let is_nan = e.ins().fcmp(FloatCC::Unordered, rank, rank);
            let last = e.real(f32::NEG_INFINITY, Lanes::One);
            let rank = e.ins().select(is_nan, last, rank);
            e.store(ranks, col, rank, Lanes::One);
            Ok(())
        })
    }

    /// Writes the scores of those that are marked, as they count, and which they are.
    fn take(
        &self,
        e: &mut Emitter<'_>,
        row: Value,
        (scores, sum): (Row, Option<Value>),
        [ranks, among_rows]: [Row; 2],
    ) -> Result<(), Fault> {
        let Choice { k, scale, ranks: by, .. } = self.choice;
        let out = e.dense_row(self.out, row)?;
        let (zero, n) = (e.int(0), e.int(i64::from(self.n)));
        if self.replay.is_some() {
            // Places without a choice.
            let (places, nothing) = (e.int(i64::from(k)), e.real(0.0, Lanes::One));
            e.for_each(zero, places, 1, |e, place| {
                let none = e.real(NO_CHOICE as f32, Lanes::One);
                e.store(out, place, nothing, Lanes::One);
                let behind = e.ins().iadd_imm_s(place, i64::from(k));
                e.store(out, behind, none, Lanes::One);
                if by.is_some() {
                    let last = e.ins().iadd_imm_s(behind, i64::from(k));
                    e.store(out, last, nothing, Lanes::One);
                }
                Ok(())
            })?;
        }
        let scale = e.real(scale.0 as f32, Lanes::One);
        e.fold(zero, n, 1, &[zero], |e, col, before| {
            // Where all choices have places, each has its own.
            let place = if self.n == k { col } else { before[0] };
            let rank = e.load(ranks, col, Lanes::One);
            let is_taken = e.ins().fcmp(FloatCC::Unordered, rank, rank);
            e.when(is_taken, |e| {
                let mut score = e.load(scores, col, Lanes::One);
                if let Some(sum) = sum {
                    score = e.ins().fdiv(score, sum);
                }
                let counted = e.ins().fmul(score, scale);
                e.store(out, place, counted, Lanes::One);
                let index = e.ins().fcvt_from_uint(F32, col);
                let behind = e.ins().iadd_imm_s(place, i64::from(k));
                e.store(out, behind, index, Lanes::One);
                if by.is_some() {
                    let last = e.ins().iadd_imm_s(behind, i64::from(k));
                    let rank = e.load(among_rows, col, Lanes::One);
                    e.store(out, last, rank, Lanes::One);
                }
                Ok(())
            })?;
            let more = e.ins().iadd_imm_s(before[0], 1);
            Ok(vec![e.ins().select(is_taken, more, before[0])])
        })?;
        Ok(())
    }
}

/// The first of the highest ranks of which none is marked.
fn highest(e: &mut Emitter<'_>, ranks: Row, n: Value) -> Result<Value, Fault> {
    let (zero, none) = (e.int(0), e.int(-1));
    let last = e.real(f32::NEG_INFINITY, Lanes::One);
    let best = e.fold(zero, n, 1, &[none, last], |e, col, best| {
        let rank = e.load(ranks, col, Lanes::One);
        let is_first = e.ins().icmp(IntCC::Equal, best[0], none);
        let is_number = e.ins().fcmp(FloatCC::Ordered, rank, rank);
        let is_first = e.ins().band(is_first, is_number);
        let is_higher = e.ins().fcmp(FloatCC::GreaterThan, rank, best[1]);
        let is_better = e.ins().bor(is_first, is_higher);
        Ok(vec![e.ins().select(is_better, col, best[0]), e.ins().select(is_better, rank, best[1])])
    })?;
    Ok(best[0])
}

/// Emits the whole kernel: rows are counted by segment, then each is put behind those before it.
pub(crate) fn partition(e: &mut Emitter<'_>, partition: &Partition, n_rows: Value) -> Result<(), Fault> {
    let [rows, ends, count] =
        [partition.rows, partition.ends, partition.count].map(|slot| e.pointer(slot, DType::U32));
    let (rows, ends, count) = (rows?, ends?, count?);
    let (zero, parts) = (e.int(0), e.int(i64::from(partition.parts)));
    e.for_each(zero, parts, 1, |e, segment| {
        e.store_index(ends, segment, zero);
        Ok(())
    })?;
    of_segments(e, partition, n_rows, |e, _, at| {
        let rows = e.ins().uload32(PLAIN, at, 0);
        let rows = e.ins().iadd_imm_s(rows, 1);
        e.ins().istore32(PLAIN, rows, at, 0);
        Ok(())
    })?;
    // Where each segment begins, until its rows are listed.
    let all = e.fold(zero, parts, 1, &[zero], |e, segment, begin| {
        let at = e.element(ends, segment, 4);
        let rows = e.ins().uload32(PLAIN, at, 0);
        e.store_index(ends, segment, begin[0]);
        Ok(vec![e.ins().iadd(begin[0], rows)])
    })?;
    e.store_index(count, zero, all[0]);
    of_segments(e, partition, n_rows, |e, row, at| {
        let place = e.ins().uload32(PLAIN, at, 0);
        e.store_index(rows, place, row);
        let next = e.ins().iadd_imm_s(place, 1);
        e.ins().istore32(PLAIN, next, at, 0);
        Ok(())
    })
}

/// Runs `body` with each row that is in a segment, and the address of that segment's number.
fn of_segments(
    e: &mut Emitter<'_>,
    partition: &Partition,
    n_rows: Value,
    body: impl FnOnce(&mut Emitter<'_>, Value, Value) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let ends = e.pointer(partition.ends, DType::U32)?;
    let zero = e.int(0);
    e.for_each(zero, n_rows, 1, |e, row| {
        let index = e.row(partition.index, row)?;
        let index = e.load(index, zero, Lanes::One);
        let bounds = [partition.first, partition.first + partition.parts];
        let [least, end] = bounds.map(|bound| e.real(bound as f32, Lanes::One));
        let is_least = e.ins().fcmp(FloatCC::GreaterThanOrEqual, index, least);
        let is_below = e.ins().fcmp(FloatCC::LessThan, index, end);
        let is_one = e.ins().band(is_least, is_below);
        e.when(is_one, |e| {
            let segment = e.ins().fcvt_to_uint_sat(I64, index);
            let segment = e.ins().iadd_imm_s(segment, -i64::from(partition.first));
            let at = e.element(ends, segment, 4);
            body(e, row, at)
        })
    })
}
