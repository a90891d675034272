//! Which choices find a place at their expert.

use std::cmp::Ordering;

use skipc_ir::interp::functions::{self, NO_CHOICE};

use super::element::Element;
use super::fault::Fault;
use super::memory::Frame;
use crate::kernel::{KeepChoices, Limit, View};

/// Counts for each choice of a row those before it of the same expert and group.
pub(super) fn run_row<N: Element>(
    frame: &mut Frame<'_, '_, '_, N>,
    limit: &Limit,
    row: u32,
) -> Result<(), Fault> {
    let Limit { k, index, ranks, positions, sequences, keep, out, .. } = *limit;
    if let KeepChoices::Left { .. } = keep {
        return run_row_after(frame, limit, row);
    }
    let n_rows = frame.extent(frame.kernel.extent)?;
    let own = group(frame, limit, (positions, sequences), row)?;
    let (slots, experts) = match keep {
        KeepChoices::Slots { slots, experts } | KeepChoices::Left { slots, experts, .. } => {
            (slots as usize, experts)
        }
        KeepChoices::Share { top_k, extent, positions, sequences } => {
            let mut tokens = 0;
            for token in 0..frame.extent(extent)? {
                tokens += usize::from(group(frame, limit, (positions, sequences), token)? == own);
            }
            (functions::share_of(tokens, top_k as usize, k as usize), k)
        }
    };
    let mut kept = frame.load(index, row, k)?;
    let own_ranks = ranks.map(|ranks| frame.load(ranks, row, k)).transpose()?;
    let mut before = vec![0; k as usize];
    for other in 0..n_rows {
        if group(frame, limit, (positions, sequences), other)? != own {
            continue;
        }
        let choices = frame.load(index, other, k)?;
        let other_ranks = ranks.map(|ranks| frame.load(ranks, other, k)).transpose()?;
        for (place, before) in before.iter_mut().enumerate() {
            let Some(found) = choices.iter().position(|choice| *choice == kept[place]) else { continue };
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
    for (choice, before) in kept.iter_mut().zip(before) {
        if before >= slots && functions::segment(*choice, (0, experts)).is_some() {
            *choice = N::from_f64(NO_CHOICE);
        }
    }
    frame.store_dense(out, row, &kept)
}

/// As [`run_row`], with the choices before those of the row found in a cache.
fn run_row_after<N: Element>(frame: &mut Frame<'_, '_, '_, N>, limit: &Limit, row: u32) -> Result<(), Fault> {
    let KeepChoices::Left { slots, experts, before, pages, present } = limit.keep else { return Ok(()) };
    let (position, sequence) =
        (frame.load_index(limit.positions, row)?, frame.load_index(limit.sequences, row)?);
    let size = limit.group_size.filter(|size| *size > 0);
    let size = size.ok_or_else(|| Fault::Malformed("a group of no rows".into()))?;
    let mut kept = frame.load(limit.index, row, limit.k)?;
    let mut taken = vec![0; limit.k as usize];
    for earlier in position - position % size..position {
        let place = frame.cached(pages, sequence, earlier)?;
        if present.map_or(Ok(1), |present| frame.load_u8(present, place))? == 0 {
            continue;
        }
        let choices = frame.load_reals(before, place, 0, limit.k)?;
        for (taken, choice) in taken.iter_mut().zip(&kept) {
            *taken += u32::from(choices.contains(choice));
        }
    }
    for (choice, taken) in kept.iter_mut().zip(taken) {
        if taken >= slots && functions::segment(*choice, (0, experts)).is_some() {
            *choice = N::from_f64(NO_CHOICE);
        }
    }
    frame.store_dense(limit.out, row, &kept)
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
