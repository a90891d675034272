//! Which choices of a row find a place at their expert.

use inkwell::FloatPredicate::{OEQ, OGE, OGT};
use inkwell::IntPredicate;

use skipc_plan::kernel::{KeepChoices, Limit, NO_CHOICE, View};

use super::code::{Int, Lanes, Made};
use super::fault::Fault;
use super::frame::{Frame, Row};

/// Sequence and group.
type Group<'c> = (Int<'c>, Int<'c>);

/// Counts for each choice of the row those before it of the same expert and group, and leaves it out if they are too many.
pub(crate) fn emit<'c>(f: &Frame<'_, 'c>, limit: &Limit, row: Int<'c>) -> Made<()> {
    if limit.group_size == Some(0) {
        return Err(Fault::Malformed("a group of no rows".to_owned()));
    }
    let own = group(f, limit, (limit.positions, limit.sequences), row)?;
    let (slots, range) = (slots(f, limit, own)?, range(f, limit, row)?);
    let (index, out) = (f.row(limit.index, row)?, f.dense_row(limit.out, row)?);
    let ranks = limit.ranks.map(|ranks| f.row(ranks, row)).transpose()?;
    f.for_each(f.int(0), f.int(i64::from(limit.k)), 1, |place| {
        let choice = f.load(index, place, 1)?;
        let rank = ranks.map(|ranks| f.load(ranks, place, 1)).transpose()?;
        let before = f.fold(range.0, range.1, 1, &[f.int(0)], |other, before| {
            let of_other = group(f, limit, (limit.positions, limit.sequences), other)?;
            let is_before = beats(f, limit, (other, row), (place, choice, rank))?;
            let counts = f.and(is_same(f, of_other, own)?, is_before)?;
            Ok(vec![f.add(before[0], f.as_index(counts)?)?])
        })?;
        let mut is_kept = f.is(IntPredicate::ULT, before[0], slots)?;
        if let KeepChoices::Slots { experts, .. } = limit.keep {
            let is_unlimited = f.fis(OGE, choice, f.real(experts as f32, 1))?;
            is_kept = f.or(is_kept, f.only_lane(is_unlimited)?)?;
        }
        f.store(out, place, f.select(is_kept, choice, f.real(NO_CHOICE as f32, 1))?)
    })
}

fn group<'c>(
    f: &Frame<'_, 'c>,
    limit: &Limit,
    (positions, sequences): (View, View),
    row: Int<'c>,
) -> Made<Group<'c>> {
    let group = match limit.group_size {
        None => f.int(0),
        Some(size) => f.div(f.load_index(positions, row)?, size)?,
    };
    Ok((f.load_index(sequences, row)?, group))
}

fn is_same<'c>(f: &Frame<'_, 'c>, a: Group<'c>, b: Group<'c>) -> Made<Int<'c>> {
    f.and(f.equal(a.0, b.0)?, f.equal(a.1, b.1)?)
}

/// How many choices an expert keeps of a group.
fn slots<'c>(f: &Frame<'_, 'c>, limit: &Limit, own: Group<'c>) -> Made<Int<'c>> {
    let (top_k, extent, places) = match limit.keep {
        KeepChoices::Slots { slots, .. } => return Ok(f.int(i64::from(slots))),
        KeepChoices::Share { top_k, extent, positions, sequences } => (top_k, extent, (positions, sequences)),
    };
    let tokens = f.fold(f.int(0), f.extent(extent)?, 1, &[f.int(0)], |token, count| {
        let counts = is_same(f, group(f, limit, places, token)?, own)?;
        Ok(vec![f.add(count[0], f.as_index(counts)?)?])
    })?;
    let all = f.times(tokens[0], u64::from(top_k))?;
    let share = f.div(f.plus(all, i64::from(limit.k) - 1)?, limit.k)?;
    f.max(share, f.int(1))
}

/// The rows that may be in the row's group: no two of a group are farther apart than it has positions. Those behind count
/// only where choices rank by more than their place.
fn range<'c>(f: &Frame<'_, 'c>, limit: &Limit, row: Int<'c>) -> Made<(Int<'c>, Int<'c>)> {
    let n_rows = f.extent(f.kernel.extent)?;
    let Some(size) = limit.group_size else { return Ok((f.int(0), n_rows)) };
    let end = match limit.ranks {
        None => row,
        Some(_) => f.min(f.plus(row, i64::from(size))?, n_rows)?,
    };
    let before = f.min(row, f.int(i64::from(size) - 1))?;
    Ok((f.sub(row, before)?, end))
}

/// Whether the other row has the same choice, and comes first.
fn beats<'c>(
    f: &Frame<'_, 'c>,
    limit: &Limit,
    (other, row): (Int<'c>, Int<'c>),
    (place, choice, rank): (Int<'c>, Lanes<'c>, Option<Lanes<'c>>),
) -> Made<Int<'c>> {
    let index = f.row(limit.index, other)?;
    let ranks = limit.ranks.map(|ranks| f.row(ranks, other)).transpose()?;
    let is_earlier = f.below(other, row)?;
    let at = |place: Int<'c>| -> Made<Int<'c>> {
        let is_same = f.only_lane(f.fis(OEQ, f.load(index, place, 1)?, choice)?)?;
        let is_first = match (ranks, rank) {
            (Some(ranks), Some(rank)) => first_by_rank(f, (ranks, place), rank, is_earlier)?,
            _ => is_earlier,
        };
        f.and(is_same, is_first)
    };
    if let KeepChoices::Share { .. } = limit.keep {
        return at(place);
    }
    let found = f.fold(f.int(0), f.int(i64::from(limit.k)), 1, &[f.bit(false)], |place, found| {
        Ok(vec![f.or(found[0], at(place)?)?])
    })?;
    Ok(found[0])
}

fn first_by_rank<'c>(
    f: &Frame<'_, 'c>,
    (ranks, place): (Row<'c>, Int<'c>),
    rank: Lanes<'c>,
    is_earlier: Int<'c>,
) -> Made<Int<'c>> {
    let other = f.load(ranks, place, 1)?;
    let is_higher = f.only_lane(f.fis(OGT, other, rank)?)?;
    let is_equal = f.only_lane(f.fis(OEQ, other, rank)?)?;
    f.or(is_higher, f.and(is_equal, is_earlier)?)
}
