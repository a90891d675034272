//! Which choices of a row find a place at their expert.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, Value};

use skipc_artifact::target::DType;
use skipc_plan::kernel::{KeepChoices, Limit, NO_CHOICE, Slot, View};

use crate::attention::cached::Pages;
use crate::emit::{Emitter, Lanes};
use crate::error::Fault;
use crate::memory::Row;

/// Counts for each choice of the row those before it of the same expert and group, and leaves it out if they are too many.
pub(crate) fn emit(e: &mut Emitter<'_>, limit: &Limit, row: Value) -> Result<(), Fault> {
    if limit.group_size == Some(0) {
        return Err(Fault::Malformed("a group of no rows".to_owned()));
    }
    let own = group(e, limit, (limit.positions, limit.sequences), row)?;
    if let KeepChoices::Left { before, pages, present, .. } = limit.keep {
        let earlier = Earlier::of(e, limit, (before, pages, present), row)?;
        return kept(e, limit, (row, own), |e, (_, choice, _)| earlier.of_expert(e, limit, choice));
    }
    let range = range(e, limit, row)?;
    kept(e, limit, (row, own), |e, (place, choice, rank)| {
        let zero = e.int(0);
        let before = e.fold(range.0, range.1, 1, &[zero], |e, other, before| {
            let is_same = same_group(e, limit, other, own)?;
            let is_before = beats(e, limit, (other, row), (place, choice, rank))?;
            let counts = e.ins().band(is_same, is_before);
            let counts = e.ins().uextend(I64, counts);
            Ok(vec![e.ins().iadd(before[0], counts)])
        })?;
        Ok(before[0])
    })
}

/// Keeps the choices of a row, in its own group, before which fewer are than there are slots; `count` says how many, for
/// the choice at a place, with what it ranks by.
fn kept(
    e: &mut Emitter<'_>,
    limit: &Limit,
    (row, own): (Value, (Value, Value)),
    count: impl Fn(&mut Emitter<'_>, (Value, Value, Option<Value>)) -> Result<Value, Fault>,
) -> Result<(), Fault> {
    let slots = slots(e, limit, own)?;
    let index = e.row(limit.index, row)?;
    let ranks = limit.ranks.map(|ranks| e.row(ranks, row)).transpose()?;
    let out = e.dense_row(limit.out, row)?;
    let (zero, k) = (e.int(0), e.int(i64::from(limit.k)));
    e.for_each(zero, k, 1, |e, place| {
        let choice = e.load(index, place, Lanes::One);
        let rank = ranks.map(|ranks| e.load(ranks, place, Lanes::One));
        let before = count(e, (place, choice, rank))?;
        let mut is_kept = e.ins().icmp(IntCC::UnsignedLessThan, before, slots);
        if let KeepChoices::Slots { experts, .. } | KeepChoices::Left { experts, .. } = limit.keep {
            let experts = e.real(experts as f32, Lanes::One);
            let is_unlimited = e.ins().fcmp(FloatCC::GreaterThanOrEqual, choice, experts);
            is_kept = e.ins().bor(is_kept, is_unlimited);
        }
        let none = e.real(NO_CHOICE as f32, Lanes::One);
        let kept = e.ins().select(is_kept, choice, none);
        e.store(out, place, kept, Lanes::One);
        Ok(())
    })
}

/// The tokens of a row's group before it, in a cache.
struct Earlier {
    cache: Slot,
    pages: Pages,
    present: Option<Value>,
    /// Their positions.
    from: Value,
    to: Value,
}

impl Earlier {
    fn of(
        e: &mut Emitter<'_>,
        limit: &Limit,
        (cache, pages, present): (Slot, Slot, Option<Slot>),
        row: Value,
    ) -> Result<Earlier, Fault> {
        let (sequence, to) = (e.load_index(limit.sequences, row)?, e.load_index(limit.positions, row)?);
        let size = e.int(i64::from(limit.group_size.unwrap_or(1)));
        let within = e.ins().urem(to, size);
        let from = e.ins().isub(to, within);
        let pages = Pages::of(e, pages, sequence)?;
        let present = present.map(|present| e.pointer(present, DType::U8)).transpose()?;
        Ok(Earlier { cache, pages, present, from, to })
    }

    /// How many of them have a choice.
    fn of_expert(&self, e: &mut Emitter<'_>, limit: &Limit, choice: Value) -> Result<Value, Fault> {
        let (zero, k) = (e.int(0), e.int(i64::from(limit.k)));
        let found = e.fold(self.from, self.to, 1, &[zero], |e, position, count| {
            let key = self.pages.key(e, position);
            let choices = e.dense_row(self.cache, key)?;
            let has = e.fold(zero, k, 1, &[zero], |e, place, has| {
                let other = e.load(choices, place, Lanes::One);
                let is_same = e.ins().fcmp(FloatCC::Equal, other, choice);
                let is_same = e.ins().uextend(I64, is_same);
                Ok(vec![e.ins().bor(has[0], is_same)])
            })?;
            let counts = match self.present {
                None => has[0],
                Some(present) => {
                    let flag = e.element(present, key, 1);
                    let flag = e.load_flag(flag, DType::U8);
                    let is_there = e.ins().icmp_imm_u(IntCC::NotEqual, flag, 0);
                    let is_there = e.ins().uextend(I64, is_there);
                    e.ins().band(has[0], is_there)
                }
            };
            Ok(vec![e.ins().iadd(count[0], counts)])
        })?;
        Ok(found[0])
    }
}

/// Sequence and group of a row.
fn group(
    e: &mut Emitter<'_>,
    limit: &Limit,
    (positions, sequences): (View, View),
    row: Value,
) -> Result<(Value, Value), Fault> {
    let sequence = e.load_index(sequences, row)?;
    let group = match limit.group_size {
        None => e.int(0),
        Some(size) => {
            let position = e.load_index(positions, row)?;
            let size = e.int(i64::from(size));
            e.ins().udiv(position, size)
        }
    };
    Ok((sequence, group))
}

fn same_group(e: &mut Emitter<'_>, limit: &Limit, row: Value, own: (Value, Value)) -> Result<Value, Fault> {
    let (sequence, group) = group(e, limit, (limit.positions, limit.sequences), row)?;
    let same_sequence = e.ins().icmp(IntCC::Equal, sequence, own.0);
    let same_group = e.ins().icmp(IntCC::Equal, group, own.1);
    Ok(e.ins().band(same_sequence, same_group))
}

/// How many choices an expert keeps of a group.
fn slots(e: &mut Emitter<'_>, limit: &Limit, own: (Value, Value)) -> Result<Value, Fault> {
    let (top_k, extent, places) = match limit.keep {
        KeepChoices::Slots { slots, .. } | KeepChoices::Left { slots, .. } => {
            return Ok(e.int(i64::from(slots)));
        }
        KeepChoices::Share { top_k, extent, positions, sequences } => (top_k, extent, (positions, sequences)),
    };
    let (zero, n_tokens) = (e.int(0), e.extent(extent)?);
    let tokens = e.fold(zero, n_tokens, 1, &[zero], |e, token, count| {
        let (sequence, group) = group(e, limit, places, token)?;
        let same_sequence = e.ins().icmp(IntCC::Equal, sequence, own.0);
        let same_group = e.ins().icmp(IntCC::Equal, group, own.1);
        let counts = e.ins().band(same_sequence, same_group);
        let counts = e.ins().uextend(I64, counts);
        Ok(vec![e.ins().iadd(count[0], counts)])
    })?;
    let all = e.ins().imul_imm_s(tokens[0], i64::from(top_k));
    let up = e.ins().iadd_imm_s(all, i64::from(limit.k) - 1);
    let experts = e.int(i64::from(limit.k));
    let share = e.ins().udiv(up, experts);
    let one = e.int(1);
    Ok(e.ins().umax(share, one))
}

/// The rows that may be in the row's group: no two of a group are farther apart than it has positions. Those behind count
/// only where choices rank by more than their place.
fn range(e: &mut Emitter<'_>, limit: &Limit, row: Value) -> Result<(Value, Value), Fault> {
    let n_rows = e.extent(e.kernel.extent)?;
    let zero = e.int(0);
    let Some(size) = limit.group_size.map(i64::from) else { return Ok((zero, n_rows)) };
    let first = e.ins().iadd_imm_s(row, 1 - size);
    let first = e.ins().smax(first, zero);
    let end = match limit.ranks {
        None => row,
        Some(_) => {
            let end = e.ins().iadd_imm_s(row, size);
            e.ins().smin(end, n_rows)
        }
    };
    Ok((first, end))
}

/// Whether the other row has the same choice, and comes first.
fn beats(
    e: &mut Emitter<'_>,
    limit: &Limit,
    (other, row): (Value, Value),
    (place, choice, rank): (Value, Value, Option<Value>),
) -> Result<Value, Fault> {
    let index = e.row(limit.index, other)?;
    let ranks = limit.ranks.map(|ranks| e.row(ranks, other)).transpose()?;
    let is_earlier = e.ins().icmp(IntCC::UnsignedLessThan, other, row);
    let at = |e: &mut Emitter<'_>, place: Value| -> Value {
        let found = e.load(index, place, Lanes::One);
        let is_same = e.ins().fcmp(FloatCC::Equal, found, choice);
        let is_first = match (ranks, rank) {
            (Some(ranks), Some(rank)) => first_by_rank(e, (ranks, place), rank, is_earlier),
            _ => is_earlier,
        };
        e.ins().band(is_same, is_first)
    };
    if let KeepChoices::Share { .. } = limit.keep {
        return Ok(at(e, place));
    }
    let (zero, k) = (e.int(0), e.int(i64::from(limit.k)));
    let found = e.fold(zero, k, 1, &[zero], |e, place, found| {
        let beats = at(e, place);
        let beats = e.ins().uextend(I64, beats);
        Ok(vec![e.ins().bor(found[0], beats)])
    })?;
    Ok(e.ins().icmp_imm_u(IntCC::NotEqual, found[0], 0))
}

fn first_by_rank(e: &mut Emitter<'_>, (ranks, place): (Row, Value), rank: Value, is_earlier: Value) -> Value {
    let other = e.load(ranks, place, Lanes::One);
    let is_higher = e.ins().fcmp(FloatCC::GreaterThan, other, rank);
    let is_equal = e.ins().fcmp(FloatCC::Equal, other, rank);
    let goes_first = e.ins().band(is_equal, is_earlier);
    e.ins().bor(is_higher, goes_first)
}
