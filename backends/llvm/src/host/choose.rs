//! Experts: which of them a row takes, and rows in segments by that.

use inkwell::FloatPredicate::{OGE, OGT, OLT, ORD, UNO};
use inkwell::IntPredicate::NE;
use inkwell::values::{BasicValue, BasicValueEnum};
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Choice, NO_CHOICE, Partition, Ranking, Replay, Slot, View};
use skipc_plan::pointwise::Unary;

use super::code::{Code, Int, Lanes, Made, Ptr, carried};
use super::frame::{Frame, Row};

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
    pub(crate) fn emit<'c>(&self, f: &Frame<'_, 'c>, row: Int<'c>) -> Made<()> {
        let at = |byte| Ok(Row { address: f.scratch_at(byte)?, dtype: DType::F32 });
        let bytes = row_bytes(self.n);
        let [scores, ranks, among_rows]: [Made<_>; 3] = [at(0), at(bytes), at(2 * bytes)];
        let (scores, ranks, among_rows) = (scores?, ranks?, among_rows?);
        self.scores(f, row, scores)?;
        self.rank(f, scores, ranks)?;
        let (mut n_listed, mut replayed) = (f.int(0), None);
        if let Some(Replay { use_forced, choices }) = self.replay {
            let flag = f.load_word(f.pointer(use_forced, DType::U32)?)?;
            let (replays, choices) = (f.is(NE, flag, f.int(0))?, f.row(choices, row)?);
            f.when(replays, || self.mark_listed(f, choices, ranks))?;
            let marked = f.fold(f.int(0), f.int(i64::from(self.n)), 1, &[f.int(0)], |col, count| {
                let rank = f.load(ranks, col, 1)?;
                let is_marked = f.only_lane(f.fis(UNO, rank, rank)?)?;
                Ok(vec![f.select(is_marked, f.plus(count[0], 1)?, count[0])?])
            })?;
            (n_listed, replayed) = (marked[0], Some((replays, choices)));
        }
        self.mark_highest(f, n_listed, [ranks, among_rows])?;
        let sum = self.sum(f, scores, ranks)?;
        if let Some((replays, choices)) = replayed {
            f.when(replays, || {
                // All rank alike among those of other rows.
                f.for_columns(f.columns(self.n), f.level.lanes, |col, lanes| {
                    f.store(ranks, col, f.real(0.0, lanes))?;
                    f.store(among_rows, col, f.real(0.0, lanes))
                })?;
                self.mark_listed(f, choices, ranks)
            })?;
        }
        self.take(f, row, (scores, sum), [ranks, among_rows])
    }

    /// Marks the choices of a row that are replayed.
    fn mark_listed<'c>(&self, f: &Frame<'_, 'c>, choices: Row<'c>, ranks: Row<'c>) -> Made<()> {
        f.for_each(f.int(0), f.int(i64::from(self.choice.k)), 1, |place| {
            let choice = f.load(choices, place, 1)?;
            let is_some = f.only_lane(f.fis(OGE, choice, f.real(0.0, 1))?)?;
            let is_below = f.only_lane(f.fis(OLT, choice, f.real(self.n as f32, 1))?)?;
            f.when(f.and(is_some, is_below)?, || f.store(ranks, f.index_of(choice)?, f.real(f32::NAN, 1)))
        })
    }

    /// Marks the highest of which none is marked, until `k` are, of which there are `marked`.
    fn mark_highest<'c>(
        &self,
        f: &Frame<'_, 'c>,
        marked: Int<'c>,
        [ranks, among_rows]: [Row<'c>; 2],
    ) -> Made<()> {
        f.for_each(marked, f.int(i64::from(self.choice.k)), 1, |turn| {
            let best = highest(f, ranks, f.int(i64::from(self.n)))?;
            let rank = match self.choice.ranks {
                None => None,
                Some(Ranking::Score) => Some(f.load(ranks, best, 1)?),
                Some(Ranking::Turn) => Some(f.fsub(f.real(0.0, 1), f.real_of(turn)?)?),
            };
            if let Some(rank) = rank {
                f.store(among_rows, best, rank)?;
            }
            f.store(ranks, best, f.real(f32::NAN, 1))
        })
    }

    /// The sum of the scores of those that are marked; none where scores are not divided by it.
    fn sum<'c>(&self, f: &Frame<'_, 'c>, scores: Row<'c>, ranks: Row<'c>) -> Made<Option<Lanes<'c>>> {
        if !self.choice.normalise {
            return Ok(None);
        }
        let nothing = f.real(0.0, 1);
        let sum = f.fold(f.int(0), f.int(i64::from(self.n)), 1, &[nothing], |col, sum| {
            let rank = f.load(ranks, col, 1)?;
            let is_marked = f.only_lane(f.fis(UNO, rank, rank)?)?;
            Ok(vec![f.select(is_marked, f.fadd(sum[0], f.load(scores, col, 1)?)?, sum[0])?])
        })?;
        Ok(Some(sum[0]))
    }

    /// Scores into scratch memory.
    fn scores<'c>(&self, f: &Frame<'_, 'c>, row: Int<'c>, scores: Row<'c>) -> Made<()> {
        let (logits, columns) = (f.row(self.logits, row)?, f.columns(self.n));
        if self.choice.sigmoid {
            return f.for_columns(columns, f.level.lanes, |col, lanes| {
                f.store(scores, col, f.unary(Unary::Sigmoid, f.load(logits, col, lanes)?)?)
            });
        }
        let first = f.load(logits, f.int(0), 1)?;
        let largest = f.fold(f.int(0), columns.count, 1, &[first], |col, largest| {
            let z = f.load(logits, col, 1)?;
            Ok(vec![f.fselect(f.fis(OGT, z, largest[0])?, z, largest[0])?])
        })?;
        f.for_columns(columns, f.level.lanes, |col, lanes| {
            let below = f.fsub(f.load(logits, col, lanes)?, f.splat(largest[0], lanes)?)?;
            f.store(scores, col, f.exp_below_zero(below)?)
        })?;
        let total = f.sum_columns(columns, 1, |col, lanes| Ok(vec![f.load(scores, col, lanes)?]))?;
        f.for_columns(columns, f.level.lanes, |col, lanes| {
            f.store(scores, col, f.fdiv(f.load(scores, col, lanes)?, f.splat(total[0], lanes)?)?)
        })
    }

    /// What scores rank by; what is not a number ranks last.
    fn rank<'c>(&self, f: &Frame<'_, 'c>, scores: Row<'c>, ranks: Row<'c>) -> Made<()> {
        let bias = self.bias.map(|bias| f.only_row(bias)).transpose()?;
        f.for_columns(f.columns(self.n), f.level.lanes, |col, lanes| {
            let mut rank = f.load(scores, col, lanes)?;
            if let Some(bias) = bias {
                rank = f.fadd(rank, f.load(bias, col, lanes)?)?;
            }
            let last = f.real(f32::NEG_INFINITY, lanes);
            f.store(ranks, col, f.fselect(f.fis(UNO, rank, rank)?, last, rank)?)
        })
    }

    /// Writes the scores of those that are marked, as they count, and which they are.
    fn take<'c>(
        &self,
        f: &Frame<'_, 'c>,
        row: Int<'c>,
        (scores, sum): (Row<'c>, Option<Lanes<'c>>),
        [ranks, among_rows]: [Row<'c>; 2],
    ) -> Made<()> {
        let Choice { k, scale, ranks: by, .. } = self.choice;
        let out = f.dense_row(self.out, row)?;
        if self.replay.is_some() {
            // Places without a choice.
            f.for_each(f.int(0), f.int(i64::from(k)), 1, |place| {
                f.store(out, place, f.real(0.0, 1))?;
                f.store(out, f.plus(place, i64::from(k))?, f.real(NO_CHOICE as f32, 1))?;
                match by {
                    None => Ok(()),
                    Some(_) => f.store(out, f.plus(place, 2 * i64::from(k))?, f.real(0.0, 1)),
                }
            })?;
        }
        f.fold(f.int(0), f.int(i64::from(self.n)), 1, &[f.int(0)], |col, before| {
            // Where all choices have places, each has its own.
            let place = if self.n == k { col } else { before[0] };
            let rank = f.load(ranks, col, 1)?;
            let is_taken = f.only_lane(f.fis(UNO, rank, rank)?)?;
            f.when(is_taken, || {
                let mut score = f.load(scores, col, 1)?;
                if let Some(sum) = sum {
                    score = f.fdiv(score, sum)?;
                }
                f.store(out, place, f.fmul(score, f.real(scale.0 as f32, 1))?)?;
                f.store(out, f.plus(place, i64::from(k))?, f.real_of(col)?)?;
                match by {
                    None => Ok(()),
                    Some(_) => f.store(out, f.plus(place, 2 * i64::from(k))?, f.load(among_rows, col, 1)?),
                }
            })?;
            Ok(vec![f.select(is_taken, f.plus(before[0], 1)?, before[0])?])
        })
        .map(drop)
    }
}

/// The first of the highest ranks of which none is marked.
fn highest<'c>(f: &Frame<'_, 'c>, ranks: Row<'c>, n: Int<'c>) -> Made<Int<'c>> {
    let none = f.int(-1);
    let begin = [none.as_basic_value_enum(), f.real(f32::NEG_INFINITY, 1).as_basic_value_enum()];
    let best = f.fold(f.int(0), n, 1, &begin, |col, best| {
        let (place, highest): (Int<'c>, Lanes<'c>) = (carried(best[0])?, carried(best[1])?);
        let rank = f.load(ranks, col, 1)?;
        let is_number = f.only_lane(f.fis(ORD, rank, rank)?)?;
        let is_first = f.and(f.equal(place, none)?, is_number)?;
        let is_better = f.or(is_first, f.only_lane(f.fis(OGT, rank, highest)?)?)?;
        let values: [BasicValueEnum<'c>; 2] = [
            f.select(is_better, col, place)?.as_basic_value_enum(),
            f.select(is_better, rank, highest)?.as_basic_value_enum(),
        ];
        Ok(values.to_vec())
    })?;
    carried(best[0])
}

/// Emits the whole kernel: rows are counted by segment, then each is put behind those before it.
pub(crate) fn partition<'c>(f: &Frame<'_, 'c>, partition: &Partition, n_rows: Int<'c>) -> Made<()> {
    let pointer = |slot| f.pointer(slot, DType::U32);
    let (rows, ends, count) = (pointer(partition.rows)?, pointer(partition.ends)?, pointer(partition.count)?);
    let parts = f.int(i64::from(partition.parts));
    f.for_each(f.int(0), parts, 1, |segment| f.store_word(f.element(ends, segment, 4)?, f.int(0)))?;
    of_segments(f, partition, n_rows, |_, at| f.store_word(at, f.plus(f.load_word(at)?, 1)?))?;
    // Where each segment begins, until its rows are listed.
    let all = f.fold(f.int(0), parts, 1, &[f.int(0)], |segment, begin| {
        let at = f.element(ends, segment, 4)?;
        let rows = f.load_word(at)?;
        f.store_word(at, begin[0])?;
        Ok(vec![f.add(begin[0], rows)?])
    })?;
    f.store_word(count, all[0])?;
    of_segments(f, partition, n_rows, |row, at| {
        let place = f.load_word(at)?;
        f.store_word(f.element(rows, place, 4)?, row)?;
        f.store_word(at, f.plus(place, 1)?)
    })
}

/// Runs `body` with each row that is in a segment, and the address of that segment's number.
fn of_segments<'c>(
    f: &Frame<'_, 'c>,
    partition: &Partition,
    n_rows: Int<'c>,
    body: impl FnOnce(Int<'c>, Ptr<'c>) -> Made<()>,
) -> Made<()> {
    let ends = f.pointer(partition.ends, DType::U32)?;
    f.for_each(f.int(0), n_rows, 1, |row| {
        let index = f.load(f.row(partition.index, row)?, f.int(0), 1)?;
        let end = partition.first + partition.parts;
        let is_least = f.only_lane(f.fis(OGE, index, f.real(partition.first as f32, 1))?)?;
        let is_below = f.only_lane(f.fis(OLT, index, f.real(end as f32, 1))?)?;
        f.when(f.and(is_least, is_below)?, || {
            let segment = f.plus(f.index_of(index)?, -i64::from(partition.first))?;
            body(row, f.element(ends, segment, 4)?)
        })
    })
}

impl<'c> Code<'c> {
    /// An index as f32.
    fn real_of(&self, index: Int<'c>) -> Made<Lanes<'c>> {
        let real = self.builder.build_unsigned_int_to_float(index, self.ctx.f32_type(), "")?;
        let first = self.ctx.i64_type().const_zero();
        Ok(self.builder.build_insert_element(self.real(0.0, 1), real, first, "")?)
    }

    /// The index that an f32 is: a whole number that is not negative.
    fn index_of(&self, real: Lanes<'c>) -> Made<Int<'c>> {
        let first = self.ctx.i64_type().const_zero();
        let lane = self.builder.build_extract_element(real, first, "")?.into_float_value();
        Ok(self.builder.build_float_to_unsigned_int(lane, self.ctx.i64_type(), "")?)
    }
}
