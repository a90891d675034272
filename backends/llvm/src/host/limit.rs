//! Which choices of a row find a place at their expert.

use inkwell::FloatPredicate::{OEQ, OGE, OGT};
use inkwell::IntPredicate;

use skipc_artifact::target::DType;
use skipc_plan::kernel::{KeepChoices, Limit, NO_CHOICE, Slot, View};

use super::cached::Pages;
use super::code::{Int, Lanes, Made, Ptr};
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
    if let KeepChoices::Left { before, pages, present, .. } = limit.keep {
        let earlier = Earlier::of(f, limit, (before, pages, present), row)?;
        return kept(f, limit, (row, own), |_, choice, _| earlier.of_expert(f, limit, choice));
    }
    let range = range(f, limit, row)?;
    kept(f, limit, (row, own), |place, choice, rank| {
        let before = f.fold(range.0, range.1, 1, &[f.int(0)], |other, before| {
            let of_other = group(f, limit, (limit.positions, limit.sequences), other)?;
            let is_before = beats(f, limit, (other, row), (place, choice, rank))?;
            let counts = f.and(is_same(f, of_other, own)?, is_before)?;
            Ok(vec![f.add(before[0], f.as_index(counts)?)?])
        })?;
        Ok(before[0])
    })
}

/// Keeps the choices of a row, in its own group, before which fewer are than there are slots; `count` says how many, for
/// the choice at a place, with what it ranks by.
fn kept<'c>(
    f: &Frame<'_, 'c>,
    limit: &Limit,
    (row, own): (Int<'c>, Group<'c>),
    count: impl Fn(Int<'c>, Lanes<'c>, Option<Lanes<'c>>) -> Made<Int<'c>>,
) -> Made<()> {
    let slots = slots(f, limit, own)?;
    let (index, out) = (f.row(limit.index, row)?, f.dense_row(limit.out, row)?);
    let ranks = limit.ranks.map(|ranks| f.row(ranks, row)).transpose()?;
    f.for_each(f.int(0), f.int(i64::from(limit.k)), 1, |place| {
        let choice = f.load(index, place, 1)?;
        let rank = ranks.map(|ranks| f.load(ranks, place, 1)).transpose()?;
        let mut is_kept = f.is(IntPredicate::ULT, count(place, choice, rank)?, slots)?;
        if let KeepChoices::Slots { experts, .. } | KeepChoices::Left { experts, .. } = limit.keep {
            let is_unlimited = f.fis(OGE, choice, f.real(experts as f32, 1))?;
            is_kept = f.or(is_kept, f.only_lane(is_unlimited)?)?;
        }
        f.store(out, place, f.select(is_kept, choice, f.real(NO_CHOICE as f32, 1))?)
    })
}

/// The tokens of a row's group before it, in a cache.
struct Earlier<'c> {
    cache: Slot,
    pages: Pages<'c>,
    present: Option<Ptr<'c>>,
    /// Their positions.
    from: Int<'c>,
    to: Int<'c>,
}

impl<'c> Earlier<'c> {
    fn of(
        f: &Frame<'_, 'c>,
        limit: &Limit,
        (cache, pages, present): (Slot, Slot, Option<Slot>),
        row: Int<'c>,
    ) -> Made<Earlier<'c>> {
        let (sequence, to) = (f.load_index(limit.sequences, row)?, f.load_index(limit.positions, row)?);
        let from = f.sub(to, f.modulo(to, limit.group_size.unwrap_or(1))?)?;
        let present = present.map(|present| f.pointer(present, DType::U8)).transpose()?;
        Ok(Earlier { cache, pages: Pages::of(f, pages, sequence)?, present, from, to })
    }

    /// How many of them have a choice.
    fn of_expert(&self, f: &Frame<'_, 'c>, limit: &Limit, choice: Lanes<'c>) -> Made<Int<'c>> {
        let found = f.fold(self.from, self.to, 1, &[f.int(0)], |position, count| {
            let key = self.pages.key(f, position)?;
            let choices = f.dense_row(self.cache, key)?;
            let has = f.fold(f.int(0), f.int(i64::from(limit.k)), 1, &[f.bit(false)], |place, has| {
                let is_same = f.only_lane(f.fis(OEQ, f.load(choices, place, 1)?, choice)?)?;
                Ok(vec![f.or(has[0], is_same)?])
            })?;
            let counts = match self.present {
                None => has[0],
                Some(present) => f.and(has[0], f.load_flag(f.offset(present, key)?)?)?,
            };
            Ok(vec![f.add(count[0], f.as_index(counts)?)?])
        })?;
        Ok(found[0])
    }
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
        KeepChoices::Slots { slots, .. } | KeepChoices::Left { slots, .. } => {
            return Ok(f.int(i64::from(slots)));
        }
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
