//! Where constants and buffers lie.

use skipc_artifact::program::{BOUND_UNIT, Buffer, Function, RowBound, State, Storage};

use super::Errors;
use crate::error::{At, Fault};
use crate::layout::{FIXED_ALIGN, ROW_ALIGN, lifetimes, live_together, state_bytes};
use crate::plan::Plan;

/// Buffers of a plan, at most: 4096 layers, the most that a spec may have, need fewer than 50 000. It bounds the time
/// that a hostile plan can take.
const MAX_BUFFERS: usize = 1 << 16;

/// First byte and end under the smallest and under the largest bound.
type Ends = [(u64, u64); 2];

/// Constants are aligned and disjoint.
pub(super) fn constants(plan: &Plan, errors: &mut Errors) {
    let mut last_end = 0u64;
    for (idx, constant) in plan.constants.iter().enumerate() {
        let constant = &constant.constant;
        let at = At::Constant { idx, name: constant.name.clone() };
        if !constant.offset.is_multiple_of(FIXED_ALIGN) {
            errors.push(at.clone(), Fault::Align { got: constant.offset, wanted: FIXED_ALIGN });
        }
        let bytes = bytes(constant.rows, constant.cols, constant.dtype.size());
        let end = bytes.and_then(|bytes| constant.offset.checked_add(bytes));
        match end {
            Some(end) if constant.offset >= last_end => last_end = end,
            _ => errors.push(at, Fault::Bounds),
        }
    }
}

/// States are aligned and disjoint, those of fixed rows before the caches.
pub(super) fn states(plan: &Plan, errors: &mut Errors) {
    let (all_fixed, _) = state_bytes(&plan.states);
    let (mut fixed_end, mut row_end) = (0u64, 0u64);
    for (idx, State { name, dtype, rows, cols, place }) in plan.states.iter().enumerate() {
        let at = At::State { idx, name: name.clone() };
        let (end, is_in_region, (begin, align), n_rows) = match rows {
            RowBound::Fixed(rows) => {
                (&mut fixed_end, place.row_offset == 0, (place.fixed_offset, FIXED_ALIGN), *rows)
            }
            RowBound::Cached => {
                (&mut row_end, place.fixed_offset == all_fixed, (place.row_offset, ROW_ALIGN), 1)
            }
            RowBound::Tokens => {
                errors.push(at, Fault::Bounds);
                continue;
            }
        };
        if !begin.is_multiple_of(align) {
            errors.push(at.clone(), Fault::Align { got: begin, wanted: align });
        }
        match bytes(n_rows, *cols, dtype.size()).and_then(|bytes| begin.checked_add(bytes)) {
            Some(own_end) if is_in_region && begin >= *end => *end = own_end,
            _ => errors.push(at, Fault::Bounds),
        }
    }
}

/// Buffers are aligned, within the arena, live as long as the steps that touch them, and do not overlap while they do.
pub(super) fn buffers(plan: &Plan, errors: &mut Errors) {
    let function = &plan.function;
    if function.buffers.len() > MAX_BUFFERS {
        let got = function.buffers.len() as u64;
        return errors.push(At::Plan, Fault::Size { what: "the number of buffers", got });
    }
    let mut touched = lifetimes(function.buffers.len(), &function.steps);
    for idx in function.interface.all_buffers() {
        if let Some(touched) = touched.get_mut(idx as usize) {
            *touched = None;
        }
    }
    for ((idx, buffer), wanted) in function.buffers.iter().enumerate().zip(touched) {
        let at = || At::Buffer { idx, name: buffer.name.clone() };
        let offsets =
            buffer.place().map(|place| [(place.fixed_offset, FIXED_ALIGN), (place.row_offset, ROW_ALIGN)]);
        for (got, wanted) in offsets.into_iter().flatten() {
            if !got.is_multiple_of(wanted) {
                errors.push(at(), Fault::Align { got, wanted });
            }
        }
        if buffer.live != wanted {
            errors.push(at(), Fault::Lifetime { got: buffer.live, wanted });
        }
        if buffer.place().is_some() && ends(function, buffer).is_none() {
            errors.push(at(), Fault::Bounds);
        }
    }
    overlaps(function, errors);
}

/// In order of their first steps, each buffer is compared with those that are still alive.
fn overlaps(function: &Function, errors: &mut Errors) {
    let buffers = &function.buffers;
    let places: Vec<Option<Ends>> = buffers.iter().map(|buffer| ends(function, buffer)).collect();
    let mut by_birth: Vec<usize> = (0..buffers.len()).collect();
    by_birth.sort_by_key(|idx| (buffers[*idx].live.map(|(first, _)| first), *idx));
    let mut alive: Vec<usize> = Vec::new();
    for idx in by_birth {
        alive.retain(|other| live_together(&buffers[idx], &buffers[*other]));
        for other in &alive {
            if overlap(places[idx], places[*other]) {
                let at = At::Buffer { idx, name: buffers[idx].name.clone() };
                errors.push(at, Fault::Overlap { other: *other });
            }
        }
        alive.push(idx);
    }
}

/// Whether two buffers share memory under some bound.
pub(super) fn share_memory(function: &Function, a: u32, b: u32) -> bool {
    let buffers = [a, b].map(|idx| function.buffers.get(idx as usize));
    if let [
        Some(Buffer { storage: Storage::State(a), .. }),
        Some(Buffer { storage: Storage::State(b), .. }),
    ] = buffers
    {
        return a == b;
    }
    let [a, b] = buffers.map(|buffer| buffer.and_then(|buffer| ends(function, buffer)));
    overlap(a, b)
}

/// First and last byte under the smallest and the largest bound; `None` if that is not within the arena, as of a state. All of it is
/// linear in the bound, so that what holds for these two holds between.
fn ends(function: &Function, buffer: &Buffer) -> Option<Ends> {
    let place = buffer.place()?;
    let largest = function.max_tokens.checked_next_multiple_of(BOUND_UNIT)?.max(BOUND_UNIT);
    let under = |bound: u32| {
        let rows = match buffer.rows {
            RowBound::Tokens => bound,
            RowBound::Fixed(rows) => rows,
            RowBound::Cached => return None,
        };
        let begin = place.row_offset.checked_mul(bound.into())?.checked_add(place.fixed_offset)?;
        let end = begin.checked_add(bytes(rows, buffer.cols, buffer.dtype.size())?)?;
        let arena = function.row_bytes.checked_mul(bound.into())?.checked_add(function.fixed_bytes)?;
        (end <= arena).then_some((begin, end))
    };
    Some([under(BOUND_UNIT)?, under(largest)?])
}

/// Two buffers are apart if the same one comes first under both bounds. Places out of bounds have their own fault.
fn overlap(a: Option<Ends>, b: Option<Ends>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return false };
    let before =
        |first: &Ends, then: &Ends| first.iter().zip(then).all(|((_, end), (begin, _))| end <= begin);
    !before(&a, &b) && !before(&b, &a)
}

fn bytes(rows: u32, cols: u32, size: u32) -> Option<u64> {
    (u64::from(rows) * u64::from(cols)).checked_mul(size.into())
}
