//! The first rows of each segment by their rank, without sorting.
//!
//! A score becomes a whole number with the same order. Where a segment begins, the largest number that at least as
//! many candidates reach as there are places is found bit by bit: 32 times over the segment, whatever its size. A row is
//! kept if it lies above, or on it while places are left. Ranked by position, all rows lie on it.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F64, I32, I64};
use cranelift_codegen::ir::{BlockArg, InstBuilder, Value};
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Candidates, Keep, RankOrder, Ranked, Rounding, Segment, Slot};

use crate::attention::cached::Pages;
use crate::emit::{Emitter, Lanes};
use crate::error::Fault;

/// What is known of the segment that a row is in; all are `i64`.
#[derive(Clone, Copy)]
pub(crate) struct State {
    sequence: Value,
    group: Value,
    /// Rows above it are kept.
    threshold: Value,
    /// How many more rows on the threshold are kept.
    places: Value,
}

impl State {
    /// A segment that no row is in.
    pub(crate) fn before_first(e: &mut Emitter<'_>) -> State {
        let (none, zero) = (e.int(-1), e.int(0));
        State { sequence: none, group: none, threshold: zero, places: zero }
    }

    pub(crate) fn of(values: &[Value]) -> Result<State, Fault> {
        match *values {
            [sequence, group, threshold, places] => Ok(State { sequence, group, threshold, places }),
            _ => Err(Fault::Malformed("a ranking lacks its state".to_owned())),
        }
    }

    pub(crate) fn values(self) -> [Value; 4] {
        [self.sequence, self.group, self.threshold, self.places]
    }
}

/// 1 if the row is kept, else 0, and the state behind it.
pub(crate) fn decide(
    e: &mut Emitter<'_>,
    ranked: &Ranked,
    (row, n_rows): (Value, Value),
    state: State,
) -> Result<(Value, State), Fault> {
    let (sequence, group) = segment_of(e, ranked, row)?;
    let same_sequence = e.ins().icmp(IntCC::Equal, sequence, state.sequence);
    let same_group = e.ins().icmp(IntCC::Equal, group, state.group);
    let is_same = e.ins().band(same_sequence, same_group);
    let [open, within] = [(); 2].map(|()| e.builder.create_block());
    let [threshold, places] = [(); 2].map(|()| e.builder.append_block_param(within, I64));
    e.ins().brif(is_same, within, &args([state.threshold, state.places]), open, &[]);
    e.builder.seal_block(open);

    e.builder.switch_to_block(open);
    let end = end_of_segment(e, ranked, (row, n_rows), (sequence, group))?;
    let limits = limits(e, ranked, (row, end), sequence)?;
    e.ins().jump(within, &args(limits));
    e.builder.seal_block(within);

    e.builder.switch_to_block(within);
    let key = key(e, ranked.order, row)?;
    let is_above = e.ins().icmp(IntCC::UnsignedGreaterThan, key, threshold);
    let is_on = e.ins().icmp(IntCC::Equal, key, threshold);
    let has_place = e.ins().icmp_imm_u(IntCC::NotEqual, places, 0);
    let takes_place = e.ins().band(is_on, has_place);
    let mut is_kept = e.ins().bor(is_above, takes_place);
    if let Candidates::Masked(_) = ranked.among {
        let is_candidate = is_candidate(e, ranked.among, row)?;
        is_kept = e.ins().band(is_kept, is_candidate);
    }
    let takes_place = e.ins().band(is_kept, takes_place);
    let taken = e.ins().uextend(I64, takes_place);
    let places = e.ins().isub(places, taken);
    Ok((is_kept, State { sequence, group, threshold, places }))
}

fn args<const N: usize>(values: [Value; N]) -> [BlockArg; N] {
    values.map(BlockArg::Value)
}

/// Sequence and group of a row.
fn segment_of(e: &mut Emitter<'_>, ranked: &Ranked, row: Value) -> Result<(Value, Value), Fault> {
    let sequence = match ranked.sequences {
        Some(sequences) => e.load_index(sequences, row)?,
        None => e.int(0),
    };
    let group = match ranked.segment {
        Segment::Sequence => e.int(0),
        Segment::Group { size: 0, .. } => return Err(Fault::Malformed("a group of no rows".to_owned())),
        Segment::Group { positions, size } => {
            let position = e.load_index(positions, row)?;
            let size = e.int(i64::from(size));
            e.ins().udiv(position, size)
        }
    };
    Ok((sequence, group))
}

/// The first row behind the segment that begins at `row`.
fn end_of_segment(
    e: &mut Emitter<'_>,
    ranked: &Ranked,
    (row, n_rows): (Value, Value),
    (sequence, group): (Value, Value),
) -> Result<Value, Fault> {
    let next = e.ins().iadd_imm_s(row, 1);
    let last = e.ins().iadd_imm_s(n_rows, -1);
    let end = e.repeat_while(
        &[next],
        |e, end| {
            let is_row = e.ins().icmp(IntCC::UnsignedLessThan, end[0], n_rows);
            // Past the last row there may be no memory.
            let read = e.ins().umin(end[0], last);
            let (of_sequence, of_group) = segment_of(e, ranked, read)?;
            let same_sequence = e.ins().icmp(IntCC::Equal, of_sequence, sequence);
            let same_group = e.ins().icmp(IntCC::Equal, of_group, group);
            let is_same = e.ins().band(same_sequence, same_group);
            Ok(e.ins().band(is_row, is_same))
        },
        |e, end| Ok(vec![e.ins().iadd_imm_s(end[0], 1)]),
    )?;
    Ok(end[0])
}

/// Threshold and places on it of the segment `first..end`.
fn limits(
    e: &mut Emitter<'_>,
    ranked: &Ranked,
    (first, end): (Value, Value),
    sequence: Value,
) -> Result<[Value; 2], Fault> {
    let n_rows = e.ins().isub(end, first);
    let n_kept = match ranked.keep {
        Keep::Slots(slots) => e.int(i64::from(slots)),
        Keep::Left { slots, before, pages } => left(e, ranked, (first, sequence), (slots, before, pages))?,
        Keep::Share(share) => top_k(e, (share.0, Rounding::Up), n_rows),
        Keep::ShareDown(share) => top_k(e, (share.0, Rounding::Down), n_rows),
    };
    let zero = e.int(0);
    if ranked.order == RankOrder::Position {
        return Ok([zero, n_kept]);
    }
    let (highest, n_bits) = (e.int(1 << 31), e.int(32));
    let found = e.fold(zero, n_bits, 1, &[zero, highest], |e, _, carried| {
        let (threshold, bit) = (carried[0], carried[1]);
        let higher = e.ins().bor(threshold, bit);
        let count = count_at_least(e, ranked, (first, end), higher)?;
        let reached = e.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, count, n_kept);
        let threshold = e.ins().select(reached, higher, threshold);
        Ok(vec![threshold, e.ins().ushr_imm_u(bit, 1)])
    })?;
    let threshold = found[0];
    let above = e.ins().iadd_imm_s(threshold, 1);
    let n_above = count_at_least(e, ranked, (first, end), above)?;
    // With fewer candidates than places the threshold is 0, on which no score lies.
    Ok([threshold, e.ins().isub(n_kept, n_above)])
}

/// The slots that earlier steps have left of the group whose first row this is.
fn left(
    e: &mut Emitter<'_>,
    ranked: &Ranked,
    (first, sequence): (Value, Value),
    (slots, before, pages): (u32, Slot, Slot),
) -> Result<Value, Fault> {
    let Segment::Group { positions, size: size @ 1.. } = ranked.segment else {
        return Err(Fault::Malformed("what is left of no group".to_owned()));
    };
    let (before, pages) = (e.pointer(before, DType::U8)?, Pages::of(e, pages, sequence)?);
    let end = e.load_index(positions, first)?;
    let (zero, size) = (e.int(0), e.int(i64::from(size)));
    let within = e.ins().urem(end, size);
    let begin = e.ins().isub(end, within);
    let taken = e.fold(begin, end, 1, &[zero], |e, position, taken| {
        let key = pages.key(e, position);
        let flag = e.element(before, key, 1);
        let flag = e.load_flag(flag, DType::U8);
        let was_wanted = e.ins().icmp_imm_u(IntCC::NotEqual, flag, 0);
        let one = e.ins().uextend(I64, was_wanted);
        Ok(vec![e.ins().iadd(taken[0], one)])
    })?;
    let slots = e.int(i64::from(slots));
    let taken = e.ins().umin(taken[0], slots);
    Ok(e.ins().isub(slots, taken))
}

/// `skipc_ir::top_k`; a share is at most 1, so that the product fits.
fn top_k(e: &mut Emitter<'_>, (share, round): (f64, Rounding), n_rows: Value) -> Value {
    let n_rows = e.ins().fcvt_from_sint(F64, n_rows);
    let share = e.ins().f64const(share);
    let product = e.ins().fmul(share, n_rows);
    let (whole, one) = (e.ins().fcvt_to_sint_sat(I64, product), e.int(1));
    if round == Rounding::Down {
        return e.ins().umax(whole, one);
    }
    let back = e.ins().fcvt_from_sint(F64, whole);
    let has_rest = e.ins().fcmp(FloatCC::LessThan, back, product);
    let rest = e.ins().uextend(I64, has_rest);
    let ceiling = e.ins().iadd(whole, rest);
    e.ins().umax(ceiling, one)
}

/// How many candidates of `first..end` have at least this key.
fn count_at_least(
    e: &mut Emitter<'_>,
    ranked: &Ranked,
    (first, end): (Value, Value),
    least: Value,
) -> Result<Value, Fault> {
    let zero = e.int(0);
    let count = e.fold(first, end, 1, &[zero], |e, row, count| {
        let key = key(e, ranked.order, row)?;
        let mut counts = e.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, key, least);
        if let Candidates::Masked(_) = ranked.among {
            let is_candidate = is_candidate(e, ranked.among, row)?;
            counts = e.ins().band(counts, is_candidate);
        }
        let one_more = e.ins().uextend(I64, counts);
        Ok(vec![e.ins().iadd(count[0], one_more)])
    })?;
    Ok(count[0])
}

fn is_candidate(e: &mut Emitter<'_>, among: Candidates, row: Value) -> Result<Value, Fault> {
    match among {
        Candidates::All => Ok(e.ins().iconst(cranelift_codegen::ir::types::I8, 1)),
        Candidates::Masked(mask) => {
            let mask = e.pointer(mask, DType::U8)?;
            let address = e.element(mask, row, 1);
            let flag = e.load_flag(address, DType::U8);
            Ok(e.ins().icmp_imm_u(IntCC::NotEqual, flag, 0))
        }
    }
}

/// A number below 2³² that orders rows as their scores do; above 0 for every score, 0 if rows rank by position.
fn key(e: &mut Emitter<'_>, order: RankOrder, row: Value) -> Result<Value, Fault> {
    let RankOrder::Score(scores) = order else { return Ok(e.int(0)) };
    let (scores, zero) = (e.row(scores, row)?, e.int(0));
    let score = e.load(scores, zero, Lanes::One);
    let (nothing, lowest) = (e.real(0.0, Lanes::One), e.real(f32::NEG_INFINITY, Lanes::One));
    // Both zeros become one.
    let sum = e.ins().fadd(score, nothing);
    let is_nan = e.ins().fcmp(FloatCC::Unordered, score, score);
    let score = e.ins().select(is_nan, lowest, sum);
    let bits = e.recast(score, I32);
    // Negative numbers grow downwards: all their bits are turned round, of others the sign alone.
    let sign = e.ins().sshr_imm_u(bits, 31);
    let turned = e.ins().bor_imm_u(sign, 1 << 31);
    let key = e.ins().bxor(bits, turned);
    Ok(e.ins().uextend(I64, key))
}
