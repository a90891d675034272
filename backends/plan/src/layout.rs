//! Where buffers lie: liveness over the steps, and places that buffers of different times share.
//!
//! States lie by themselves, one after the other, those of fixed rows before the caches. Buffers of token rows and buffers of fixed rows lie in two regions, fixed ones first. In each, the largest buffer
//! chooses its place first, and each takes the tightest gap between those that live when it does. That is the
//! greedy-by-size order of Pisarchyk and Lee (2020), which for chains like ours comes within a few percent of the
//! largest sum of living buffers.

use skipc_artifact::interface::Interface;
use skipc_artifact::program::{
    ArenaPlace, Arg, BOUND_UNIT, Buffer, Function, MEMORY_LIMIT, RowBound, STATE_ROW_LIMIT, State, Step,
    Storage,
};

use crate::error::PlanError;
use crate::plan::Options;

/// Bytes of which a fixed offset is a multiple: the widest access of any target.
pub(crate) const FIXED_ALIGN: u64 = 256;

/// Bytes of which an offset per row is a multiple: with a bound that is a multiple of 64 it makes 256.
pub(crate) const ROW_ALIGN: u64 = 4;

/// What a function is made of.
pub(crate) struct Parts<'a> {
    /// The user's sizes.
    pub(crate) options: &'a Options,
    /// All buffers, without places.
    pub(crate) buffers: Vec<Buffer>,
    /// The steps in order.
    pub(crate) steps: Vec<Step>,
    /// The buffers that the caller gives or gets: they never share memory with others.
    pub(crate) interface: Interface,
    /// As [`Function::ranks_batch`].
    pub(crate) ranks_batch: bool,
}

/// Places all buffers.
///
/// # Errors
/// If sizes overflow, or a step would take more memory than a function may.
pub(crate) fn lay_out(parts: Parts<'_>) -> Result<Function, PlanError> {
    let Parts { options, mut buffers, steps, interface, ranks_batch } = parts;
    let touched = lifetimes(buffers.len(), &steps);
    for (buffer, touched) in buffers.iter_mut().zip(touched) {
        buffer.live = touched;
    }
    for idx in interface.all_buffers() {
        buffers[idx as usize].live = None;
    }
    let is_fixed = |buffer: &Buffer| matches!(buffer.rows, RowBound::Fixed(_));
    let in_arena = |buffer: &Buffer| buffer.place().is_some();
    let (fixed, fixed_bytes) = place(&buffers, |buffer| in_arena(buffer) && is_fixed(buffer), FIXED_ALIGN)?;
    let (rows, row_bytes) = place(&buffers, |buffer| in_arena(buffer) && !is_fixed(buffer), ROW_ALIGN)?;
    for (idx, fixed_offset) in fixed {
        buffers[idx].storage = Storage::Step(ArenaPlace { fixed_offset, row_offset: 0 });
    }
    for (idx, row_offset) in rows {
        buffers[idx].storage = Storage::Step(ArenaPlace { fixed_offset: fixed_bytes, row_offset });
    }
    let Options { max_tokens, max_positions, vocab_size, head, class_token, logits, .. } = *options;
    let most = MEMORY_LIMIT.saturating_sub(fixed_bytes) / row_bytes.max(1) / u64::from(BOUND_UNIT)
        * u64::from(BOUND_UNIT);
    if u64::from(max_tokens) > most {
        let wanted =
            format!("at most {most}: a token takes {row_bytes} bytes of the 2^40 that a step may have");
        return Err(PlanError::Option { option: "max_tokens", got: max_tokens.to_string(), wanted });
    }
    Ok(Function {
        max_tokens,
        max_positions,
        vocab_size,
        head,
        class_token,
        ranks_batch,
        logits,
        fixed_bytes,
        row_bytes,
        buffers,
        steps,
        interface,
    })
}

/// Gives each state its place, one after the other in its region: those of fixed rows, and behind them the caches.
///
/// # Errors
/// If sizes overflow, or are more than a program may keep.
pub(crate) fn place_states(states: &mut [State]) -> Result<(), PlanError> {
    let too_large = || PlanError::TooLarge { what: "states" };
    let (mut fixed_end, mut row_end) = (0u64, 0u64);
    for state in states.iter_mut() {
        let (end, align, rows) = match state.rows {
            RowBound::Cached => (&mut row_end, ROW_ALIGN, 1),
            RowBound::Fixed(rows) => (&mut fixed_end, FIXED_ALIGN, rows),
            RowBound::Tokens => return Err(PlanError::TooLarge { what: "states" }),
        };
        let begin = *end;
        let bytes = (u64::from(rows) * u64::from(state.cols)).checked_mul(state.dtype.size().into());
        let new_end = bytes.and_then(|bytes| begin.checked_add(bytes)?.checked_next_multiple_of(align));
        *end = new_end.ok_or_else(too_large)?;
        state.place = match state.rows {
            RowBound::Cached => ArenaPlace { fixed_offset: 0, row_offset: begin },
            RowBound::Fixed(_) | RowBound::Tokens => ArenaPlace { fixed_offset: begin, row_offset: 0 },
        };
    }
    if fixed_end > MEMORY_LIMIT || row_end > STATE_ROW_LIMIT {
        return Err(too_large());
    }
    let caches = states.iter_mut().filter(|state| state.rows == RowBound::Cached);
    caches.for_each(|state| state.place.fixed_offset = fixed_end);
    Ok(())
}

/// Bytes of states that are in their places: of those of fixed rows, and for each row of the caches.
pub(crate) fn state_bytes(states: &[State]) -> (u64, u64) {
    let (mut fixed, mut by_row) = (0, 0);
    for State { dtype, rows, cols, place, .. } in states {
        let row_bytes = u64::from(*cols) * u64::from(dtype.size());
        match rows {
            RowBound::Fixed(rows) => {
                let end = place.fixed_offset.saturating_add(row_bytes.saturating_mul(u64::from(*rows)));
                fixed = fixed.max(end.next_multiple_of(FIXED_ALIGN));
            }
            RowBound::Cached | RowBound::Tokens => {
                by_row = by_row.max((place.row_offset + row_bytes).next_multiple_of(ROW_ALIGN));
            }
        }
    }
    (fixed, by_row)
}

/// The first and last step that touch each buffer.
pub(crate) fn lifetimes(n_buffers: usize, steps: &[Step]) -> Vec<Option<(u32, u32)>> {
    let mut touched: Vec<Option<(u32, u32)>> = vec![None; n_buffers];
    for (step_idx, step) in steps.iter().enumerate() {
        for arg in &step.args {
            if let Arg::Buffer(idx) = arg
                && let Some(touched) = touched.get_mut(*idx as usize)
            {
                let first = touched.map_or(step_idx as u32, |(first, _)| first);
                *touched = Some((first, step_idx as u32));
            }
        }
    }
    touched
}

/// Whether two buffers are in use at the same time. The host may use its own at any time.
pub(crate) fn live_together(a: &Buffer, b: &Buffer) -> bool {
    match (a.live, b.live) {
        (Some((a_first, a_last)), Some((b_first, b_last))) => a_first <= b_last && b_first <= a_last,
        _ => true,
    }
}

/// Offsets of the chosen buffers, with the bytes of all of them together.
fn place(
    buffers: &[Buffer],
    choose: impl Fn(&Buffer) -> bool,
    align: u64,
) -> Result<(Vec<(usize, u64)>, u64), PlanError> {
    let too_large = || PlanError::TooLarge { what: "buffers" };
    let mut in_turn = Vec::new();
    for (idx, buffer) in buffers.iter().enumerate().filter(|(_, buffer)| choose(buffer)) {
        in_turn.push((idx, region_bytes(buffer, align).ok_or_else(too_large)?));
    }
    // What the host may touch at any time lies by itself, before all that takes turns.
    in_turn.sort_by_key(|(idx, bytes)| (buffers[*idx].live.is_some(), std::cmp::Reverse(*bytes), *idx));
    let mut places = Vec::with_capacity(in_turn.len());
    let mut start = 0u64;
    let mut placed: Vec<(usize, u64, u64)> = Vec::new();
    let mut total = 0u64;
    for (idx, bytes) in in_turn {
        let offset = tightest_gap(buffers, &placed, idx, bytes, start);
        let end = offset.checked_add(bytes).ok_or_else(too_large)?;
        total = total.max(end);
        places.push((idx, offset));
        if buffers[idx].live.is_none() {
            start = end;
        } else {
            let at = placed.partition_point(|(_, other_offset, _)| *other_offset <= offset);
            placed.insert(at, (idx, offset, end));
        }
    }
    Ok((places, total))
}

/// Where a buffer fits best from `start` on among those that are placed and live when it does; `placed` has index,
/// offset and end of each, in order of the offsets.
fn tightest_gap(buffers: &[Buffer], placed: &[(usize, u64, u64)], idx: usize, bytes: u64, start: u64) -> u64 {
    let mut end = start;
    let mut best: Option<(u64, u64)> = None;
    for (other, other_offset, other_end) in placed {
        if !live_together(&buffers[idx], &buffers[*other]) {
            continue;
        }
        let gap = other_offset.saturating_sub(end);
        if gap >= bytes && best.is_none_or(|(tightest, _)| gap < tightest) {
            best = Some((gap, end));
        }
        end = end.max(*other_end);
    }
    best.map_or(end, |(_, offset)| offset)
}

/// Bytes of a buffer, for each row of the bound or in all, so that the next one is aligned.
fn region_bytes(buffer: &Buffer, align: u64) -> Option<u64> {
    let rows = match buffer.rows {
        RowBound::Tokens | RowBound::Cached => 1,
        RowBound::Fixed(rows) => rows,
    };
    let elements = u64::from(rows) * u64::from(buffer.cols);
    elements.checked_mul(u64::from(buffer.dtype.size()))?.checked_next_multiple_of(align)
}
