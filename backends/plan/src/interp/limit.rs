//! Which choices find a place at their expert.

use std::cmp::Ordering;

use skipc_ir::interp::functions::{self, NO_CHOICE};

use super::element::Element;
use super::fault::Fault;
use super::memory::Frame;
use crate::kernel::{KeepChoices, Limit, Slot, View};

/// Keeps the choices of a row before which fewer of the same expert and group are than there are slots.
pub(super) fn run_row<N: Element>(
    frame: &mut Frame<'_, '_, '_, N>,
    limit: &Limit,
    row: u32,
) -> Result<(), Fault> {
    let mut kept = frame.load(limit.index, row, limit.k)?;
    let (slots, experts, before) = match limit.keep {
        KeepChoices::Slots { slots, experts } => {
            (slots as usize, experts, before_in_rows(frame, limit, row, &kept)?)
        }
        KeepChoices::Share { top_k, extent, positions, sequences } => {
            let own = group(frame, limit, (limit.positions, limit.sequences), row)?;
            let mut tokens = 0;
            for token in 0..frame.extent(extent)? {
                tokens += usize::from(group(frame, limit, (positions, sequences), token)? == own);
            }
            let slots = functions::share_of(tokens, top_k as usize, limit.k as usize);
            (slots, limit.k, before_in_rows(frame, limit, row, &kept)?)
        }
        KeepChoices::Left { slots, experts, before, pages, present } => {
            let before = before_in_cache(frame, limit, row, (&kept, before, pages, present))?;
            (slots as usize, experts, before)
        }
    };
    for (choice, before) in kept.iter_mut().zip(before) {
        if before >= slots && functions::segment(*choice, (0, experts)).is_some() {
            *choice = N::from_f64(NO_CHOICE);
        }
    }
    frame.store_dense(limit.out, row, &kept)
}

/// How many rows of the group have each of these choices, and come first.
fn before_in_rows<N: Element>(
    frame: &mut Frame<'_, '_, '_, N>,
    limit: &Limit,
    row: u32,
    own_choices: &[N],
) -> Result<Vec<usize>, Fault> {
    let Limit { k, index, ranks, positions, sequences, .. } = *limit;
    let own = group(frame, limit, (positions, sequences), row)?;
    let own_ranks = ranks.map(|ranks| frame.load(ranks, row, k)).transpose()?;
    let mut before = vec![0; k as usize];
    for other in 0..frame.extent(frame.kernel.extent)? {
        if group(frame, limit, (positions, sequences), other)? != own {
            continue;
        }
        let choices = frame.load(index, other, k)?;
        let other_ranks = ranks.map(|ranks| frame.load(ranks, other, k)).transpose()?;
        for (place, before) in before.iter_mut().enumerate() {
            let Some(found) = choices.iter().position(|choice| *choice == own_choices[place]) else {
                continue;
            };
            let by_rank = match (&other_ranks, &own_ranks) {
                (Some(others), Some(own)) => others[found].to_f64().partial_cmp(&own[place].to_f64()),
                _ => Some(Ordering::Equal),
            };
            let is_before = match by_rank {
                Some(Ordering::Greater) => true,
                Some(Ordering::Equal) | None => other < row,
                Some(Ordering::Less) => false,
            };
            *before += usize::from(is_before);
        }
    }
    Ok(before)
}

/// How many earlier tokens of the group have each of these choices, by what lies in a cache.
fn before_in_cache<N: Element>(
    frame: &Frame<'_, '_, '_, N>,
    limit: &Limit,
    row: u32,
    (own_choices, cache, pages, present): (&[N], Slot, Slot, Option<Slot>),
) -> Result<Vec<usize>, Fault> {
    let (position, sequence) =
        (frame.load_index(limit.positions, row)?, frame.load_index(limit.sequences, row)?);
    let size = limit.group_size.filter(|size| *size > 0);
    let size = size.ok_or_else(|| Fault::Malformed("a group of no rows".into()))?;
    let mut before = vec![0; limit.k as usize];
    for earlier in position - position % size..position {
        let place = frame.cached(pages, sequence, earlier)?;
        if present.map_or(Ok(1), |present| frame.load_u8(present, place))? == 0 {
            continue;
        }
        let choices = frame.load_reals(cache, place, 0, limit.k)?;
        for (before, choice) in before.iter_mut().zip(own_choices) {
            *before += usize::from(choices.contains(choice));
        }
    }
    Ok(before)
}

/// Sequence and group of a row.
fn group<N: Element>(
    frame: &mut Frame<'_, '_, '_, N>,
    limit: &Limit,
    (positions, sequences): (View, View),
    row: u32,
) -> Result<(u32, u32), Fault> {
    let position = frame.load_index(positions, row)?;
    let group = match limit.group_size {
        None => 0,
        Some(size) => {
            position.checked_div(size).ok_or_else(|| Fault::Malformed("a group of no rows".into()))?
        }
    };
    Ok((frame.load_index(sequences, row)?, group))
}
