//! The first rows of each segment by their rank, without sorting.
//!
//! A score becomes a whole number with the same order. Where a segment begins, the largest number that at least as
//! many candidates reach as there are places is found bit by bit: 32 times over the segment, whatever its size. A row is
//! kept if it lies above, or on it while places are left. Ranked by position, all rows lie on it.

use inkwell::IntPredicate;
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Candidates, Keep, RankOrder, Ranked, Rounding, Segment, Slot};

use super::cached::Pages;
use super::code::{Code, Int, Made};
use super::fault::Fault;
use super::frame::Frame;

/// What is known of the segment that a row is in.
#[derive(Clone, Copy)]
pub(crate) struct State<'c> {
    sequence: Int<'c>,
    group: Int<'c>,
    /// Rows above it are kept.
    threshold: Int<'c>,
    /// How many more rows on the threshold are kept.
    places: Int<'c>,
}

impl<'c> State<'c> {
    /// A segment that no row is in.
    pub(crate) fn before_first(code: &Code<'c>) -> State<'c> {
        let (none, zero) = (code.int(-1), code.int(0));
        State { sequence: none, group: none, threshold: zero, places: zero }
    }

    pub(crate) fn of(values: &[Int<'c>]) -> Made<State<'c>> {
        match *values {
            [sequence, group, threshold, places] => Ok(State { sequence, group, threshold, places }),
            _ => Err(Fault::Malformed("a ranking lacks its state".to_owned())),
        }
    }

    pub(crate) fn values(self) -> [Int<'c>; 4] {
        [self.sequence, self.group, self.threshold, self.places]
    }
}

/// Whether the row is kept, and the state behind it.
pub(crate) fn decide<'c>(
    f: &Frame<'_, 'c>,
    ranked: &Ranked,
    (row, n_rows): (Int<'c>, Int<'c>),
    state: State<'c>,
) -> Made<(Int<'c>, State<'c>)> {
    let segment = segment_of(f, ranked, row)?;
    let is_same = is_same(f, segment, (state.sequence, state.group))?;
    let limits = f.branch(
        is_same,
        || Ok(vec![state.threshold, state.places]),
        || limits(f, ranked, (row, end_of_segment(f, ranked, (row, n_rows), segment)?), segment.0),
    )?;
    let (threshold, places) = (limits[0], limits[1]);
    let key = key(f, ranked.order, row)?;
    let is_above = f.is(IntPredicate::UGT, key, threshold)?;
    let has_place = f.is(IntPredicate::NE, places, f.int(0))?;
    let takes_place = f.and(f.equal(key, threshold)?, has_place)?;
    let is_kept = f.and(f.or(is_above, takes_place)?, is_candidate(f, ranked.among, row)?)?;
    let taken = f.as_index(f.and(is_kept, takes_place)?)?;
    let (sequence, group) = segment;
    Ok((is_kept, State { sequence, group, threshold, places: f.sub(places, taken)? }))
}

/// Sequence and group of a row.
fn segment_of<'c>(f: &Frame<'_, 'c>, ranked: &Ranked, row: Int<'c>) -> Made<(Int<'c>, Int<'c>)> {
    let sequence = match ranked.sequences {
        Some(sequences) => f.load_index(sequences, row)?,
        None => f.int(0),
    };
    let group = match ranked.segment {
        Segment::Sequence => f.int(0),
        Segment::Group { size: 0, .. } => return Err(Fault::Malformed("a group of no rows".to_owned())),
        Segment::Group { positions, size } => f.div(f.load_index(positions, row)?, size)?,
    };
    Ok((sequence, group))
}

fn is_same<'c>(code: &Code<'c>, a: (Int<'c>, Int<'c>), b: (Int<'c>, Int<'c>)) -> Made<Int<'c>> {
    code.and(code.equal(a.0, b.0)?, code.equal(a.1, b.1)?)
}

/// The first row behind the segment that begins at `row`.
fn end_of_segment<'c>(
    f: &Frame<'_, 'c>,
    ranked: &Ranked,
    (row, n_rows): (Int<'c>, Int<'c>),
    segment: (Int<'c>, Int<'c>),
) -> Made<Int<'c>> {
    let last = f.plus(n_rows, -1)?;
    let end = f.repeat_while(
        &[f.plus(row, 1)?],
        |end| {
            // Past the last row there may be no memory.
            let found = segment_of(f, ranked, f.min(end[0], last)?)?;
            f.and(f.below(end[0], n_rows)?, is_same(f, found, segment)?)
        },
        |end| Ok(vec![f.plus(end[0], 1)?]),
    )?;
    Ok(end[0])
}

/// Threshold and places on it of the segment `first..end`.
fn limits<'c>(
    f: &Frame<'_, 'c>,
    ranked: &Ranked,
    (first, end): (Int<'c>, Int<'c>),
    sequence: Int<'c>,
) -> Made<Vec<Int<'c>>> {
    let n_kept = match ranked.keep {
        Keep::Slots(slots) => f.int(i64::from(slots)),
        Keep::Left { slots, before, pages } => left(f, ranked, (first, sequence), (slots, before, pages))?,
        Keep::Share(share) => top_k(f, (share.0, Rounding::Up), f.sub(end, first)?)?,
        Keep::ShareDown(share) => top_k(f, (share.0, Rounding::Down), f.sub(end, first)?)?,
    };
    if ranked.order == RankOrder::Position {
        return Ok(vec![f.int(0), n_kept]);
    }
    let found = f.fold(f.int(0), f.int(32), 1, &[f.int(0), f.int(1 << 31)], |_, carried| {
        let (threshold, bit) = (carried[0], carried[1]);
        let higher = f.or(threshold, bit)?;
        let count = count_at_least(f, ranked, (first, end), higher)?;
        let is_reached = f.is(IntPredicate::UGE, count, n_kept)?;
        Ok(vec![f.select(is_reached, higher, threshold)?, f.shr(bit, 1)?])
    })?;
    let n_above = count_at_least(f, ranked, (first, end), f.plus(found[0], 1)?)?;
    // With fewer candidates than places the threshold is 0, on which no score lies.
    Ok(vec![found[0], f.sub(n_kept, n_above)?])
}

/// The slots that earlier steps have left of the group whose first row this is.
fn left<'c>(
    f: &Frame<'_, 'c>,
    ranked: &Ranked,
    (first, sequence): (Int<'c>, Int<'c>),
    (slots, before, pages): (u32, Slot, Slot),
) -> Made<Int<'c>> {
    let Segment::Group { positions, size: size @ 1.. } = ranked.segment else {
        return Err(Fault::Malformed("what is left of no group".to_owned()));
    };
    let (before, pages) = (f.pointer(before, DType::U8)?, Pages::of(f, pages, sequence)?);
    let end = f.load_index(positions, first)?;
    let begin = f.sub(end, f.modulo(end, size)?)?;
    let taken = f.fold(begin, end, 1, &[f.int(0)], |position, taken| {
        let was_wanted = f.load_flag(f.offset(before, pages.key(f, position)?)?)?;
        Ok(vec![f.add(taken[0], f.as_index(was_wanted)?)?])
    })?;
    let slots = f.int(i64::from(slots));
    f.sub(slots, f.min(taken[0], slots)?)
}

/// `skipc_ir::top_k`; a share is at most 1, so that the product fits.
fn top_k<'c>(code: &Code<'c>, (share, round): (f64, Rounding), n_rows: Int<'c>) -> Made<Int<'c>> {
    let (b, f64_type) = (&code.builder, code.ctx.f64_type());
    let n_rows = b.build_signed_int_to_float(n_rows, f64_type, "")?;
    let product = b.build_float_mul(f64_type.const_float(share), n_rows, "")?;
    let whole = b.build_float_to_signed_int(product, code.ctx.i64_type(), "")?;
    if round == Rounding::Down {
        return code.max(whole, code.int(1));
    }
    let back = b.build_signed_int_to_float(whole, f64_type, "")?;
    let has_rest = b.build_float_compare(inkwell::FloatPredicate::OLT, back, product, "")?;
    code.max(code.add(whole, code.as_index(has_rest)?)?, code.int(1))
}

/// How many candidates of `first..end` have at least this key.
fn count_at_least<'c>(
    f: &Frame<'_, 'c>,
    ranked: &Ranked,
    (first, end): (Int<'c>, Int<'c>),
    least: Int<'c>,
) -> Made<Int<'c>> {
    let count = f.fold(first, end, 1, &[f.int(0)], |row, count| {
        let reaches = f.is(IntPredicate::UGE, key(f, ranked.order, row)?, least)?;
        let counts = f.and(reaches, is_candidate(f, ranked.among, row)?)?;
        Ok(vec![f.add(count[0], f.as_index(counts)?)?])
    })?;
    Ok(count[0])
}

fn is_candidate<'c>(f: &Frame<'_, 'c>, among: Candidates, row: Int<'c>) -> Made<Int<'c>> {
    match among {
        Candidates::All => Ok(f.bit(true)),
        Candidates::Masked(mask) => f.load_flag(f.offset(f.pointer(mask, DType::U8)?, row)?),
    }
}

/// A number below 2³² that orders rows as their scores do; above 0 for every score, 0 if rows rank by position.
fn key<'c>(f: &Frame<'_, 'c>, order: RankOrder, row: Int<'c>) -> Made<Int<'c>> {
    let RankOrder::Score(scores) = order else { return Ok(f.int(0)) };
    let score = f.load(f.row(scores, row)?, f.int(0), 1)?;
    // Both zeros become one.
    let sum = f.fadd(score, f.real(0.0, 1))?;
    let is_nan = f.fis(inkwell::FloatPredicate::UNO, score, score)?;
    let score = f.fselect(is_nan, f.real(f32::NEG_INFINITY, 1), sum)?;
    let bits = f.bits(score)?;
    // Negative numbers grow downwards: all their bits are turned round, of others the sign alone.
    let sign = f.builder.build_right_shift(bits, f.word(31, 1), true, "")?;
    let turned = f.builder.build_or(sign, f.word(1 << 31, 1), "")?;
    let key = f.only_lane(f.builder.build_xor(bits, turned, "")?)?;
    Ok(f.builder.build_int_z_extend(key, f.ctx.i64_type(), "")?)
}
