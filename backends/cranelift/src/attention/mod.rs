//! Attention: a tile of query rows at a time where they are many of one sequence, else row by row.

pub(crate) mod cached;
mod row;
mod tile;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};
use skipc_artifact::program::{Extent, RowTile};
use skipc_artifact::target::DType;
use skipc_plan::buckets;
use skipc_plan::kernel::{Attention, Kernel, Rows, Scoring, View};

use crate::emit::Emitter;
use crate::error::Fault;
use crate::memory::{PLAIN, Row};

/// Rows of a tile: enough for the matmul to pay, few enough for a short batch to have work for all threads.
pub(crate) const TILE_ROWS: u32 = 32;

/// The forms: row by row, where a row's own loops do less work, and tiles, whose matmuls have to pay for
/// transposing the keys. None if there is no choice.
pub(crate) fn menu(kernel: &Kernel, attention: &Attention) -> Vec<buckets::Tile> {
    let form = |rows| buckets::Tile { rows, cols: attention.width, across: attention.heads };
    if takes_tiles(kernel, attention) { vec![form(1), form(TILE_ROWS)] } else { Vec::new() }
}

/// Bytes of scratch memory that a call needs.
pub(crate) fn scratch_bytes(kernel: &Kernel, attention: &Attention) -> u64 {
    let keys = match attention.kv_extent {
        Extent::Fixed(rows) => rows,
        Extent::Counted { at_most, .. } => at_most,
    };
    let for_row = (u64::from(keys) * 4).next_multiple_of(64);
    if takes_tiles(kernel, attention) { for_row.max(tile::scratch_bytes(attention)) } else { for_row }
}

/// Whether the matmul can read the operands, and scores are what it makes.
fn takes_tiles(kernel: &Kernel, attention: &Attention) -> bool {
    // Tiles see all keys of their sequence up to a place.
    let Scoring { scale: _, cap, window, ahead: _ } = attention.scoring;
    (cap, window) == (None, None)
        && [attention.q, attention.k, attention.v].iter().all(|view| {
            kernel.params.get(view.slot.0 as usize).is_some_and(|param| param.dtype == DType::F32)
                && view.rows == Rows::Dense
        })
}

/// Emits the work on a range of query rows, which begins with a tile. `forms` says which form is for how many rows of one
/// sequence.
pub(crate) fn emit(
    e: &mut Emitter<'_>,
    attention: &Attention,
    rows: (Value, Value),
    forms: &[RowTile],
) -> Result<(), Fault> {
    if !takes_tiles(e.kernel, attention) {
        return e.for_each(rows.0, rows.1, 1, |e, row| row::emit(e, attention, row));
    }
    e.for_each(rows.0, rows.1, i64::from(TILE_ROWS), |e, first| {
        let end = e.ins().iadd_imm_s(first, i64::from(TILE_ROWS));
        let end = e.ins().umin(end, rows.1);
        e.repeat_while(
            &[first],
            |e, next| Ok(e.ins().icmp(IntCC::UnsignedLessThan, next[0], end)),
            |e, next| {
                let first = next[0];
                let after = end_of_sequence(e, attention.q_seq, first, end)?;
                let count = e.ins().isub(after, first);
                take(e, attention, (first, after, count), forms)?;
                Ok(vec![after])
            },
        )?;
        Ok(())
    })
}

/// The form for the number of rows, over the rows `first .. after` of one sequence.
fn take(
    e: &mut Emitter<'_>,
    attention: &Attention,
    (first, after, count): (Value, Value, Value),
    forms: &[RowTile],
) -> Result<(), Fault> {
    let run = |e: &mut Emitter<'_>, form: &RowTile| match form.rows {
        1 => e.for_each(first, after, 1, |e, row| row::emit(e, attention, row)),
        _ => tile::emit(e, attention, first, count),
    };
    match forms {
        [] => Ok(()),
        [form] => run(e, form),
        [form, others @ ..] => {
            let are_more =
                e.ins().icmp_imm_u(IntCC::UnsignedGreaterThanOrEqual, count, i64::from(others[0].from));
            e.branch(are_more, |e| take(e, attention, (first, after, count), others), |e| run(e, form))
        }
    }
}

/// The first row after `first` that is of another sequence, or `end`.
pub(crate) fn end_of_sequence(
    e: &mut Emitter<'_>,
    sequences: View,
    first: Value,
    end: Value,
) -> Result<Value, Fault> {
    let sequence = e.load_index(sequences, first)?;
    let last = e.ins().iadd_imm_s(end, -1);
    let after = e.ins().iadd_imm_s(first, 1);
    let found = e.repeat_while(
        &[after],
        |e, next| {
            // The row at `end` need not exist.
            let row = e.ins().umin(next[0], last);
            let other = e.load_index(sequences, row)?;
            let is_same = e.ins().icmp(IntCC::Equal, other, sequence);
            let is_inside = e.ins().icmp(IntCC::UnsignedLessThan, next[0], end);
            Ok(e.ins().band(is_same, is_inside))
        },
        |e, next| Ok(vec![e.ins().iadd_imm_s(next[0], 1)]),
    )?;
    Ok(found[0])
}

/// Rows of one head of a key or value matrix.
#[derive(Clone, Copy)]
struct HeadRows {
    /// The first.
    first: Row,
    /// Bytes from row to row.
    stride: i64,
    /// Address of the numbers of the rows, a `u32` each, if they are not all that follow the first.
    list: Option<Value>,
}

impl HeadRows {
    fn row(self, e: &mut Emitter<'_>, idx: Value) -> Row {
        let idx = match self.list {
            Some(list) => {
                let number = e.element(list, idx, 4);
                e.ins().uload32(PLAIN, number, 0)
            }
            None => idx,
        };
        let offset = e.ins().imul_imm_s(idx, self.stride);
        Row { address: e.ins().iadd(self.first.address, offset), ..self.first }
    }
}

fn head_rows(e: &mut Emitter<'_>, view: View, col: Value, first: Value) -> Result<HeadRows, Fault> {
    if view.rows != Rows::Dense {
        return Err(Fault::Malformed("keys and values of attention are dense".to_owned()));
    }
    let param = e.param(view.slot)?;
    let stride = i64::from(param.cols) * i64::from(param.dtype.size());
    let row = e.row(view, first)?;
    Ok(HeadRows { first: row.at_column(e, col), stride, list: None })
}

/// The range of keys of the query's sequence at or before its position and what it sees ahead, and in the window.
fn keys_in_sight(e: &mut Emitter<'_>, attention: &Attention, row: Value) -> Result<(Value, Value), Fault> {
    let n_keys = e.extent(attention.kv_extent)?;
    let position = e.load_index(attention.q_pos, row)?;
    let sequence = e.load_index(attention.q_seq, row)?;
    let start = e.ins().ishl_imm_u(sequence, 32);
    let last = e.ins().iadd_imm_s(position, i64::from(attention.scoring.ahead.unwrap_or(0)));
    let last = e.ins().bor(start, last);
    let earliest = match attention.scoring.window {
        Some(window) => {
            let first = first_in_window(e, position, window);
            e.ins().bor(start, first)
        }
        None => start,
    };
    let places = (attention.k_pos, attention.k_seq);
    let first = first_key(e, places, n_keys, IntCC::UnsignedLessThan, earliest)?;
    let end = first_key(e, places, n_keys, IntCC::UnsignedLessThanOrEqual, last)?;
    Ok((first, end))
}

/// The first position that a query at this one sees.
pub(crate) fn first_in_window(e: &mut Emitter<'_>, position: Value, window: u32) -> Value {
    let (end, window) = (e.ins().iadd_imm_s(position, 1), e.int(i64::from(window)));
    let window = e.ins().umin(end, window);
    e.ins().isub(end, window)
}

/// The first key row whose (sequence, position) does not compare so with `place`; keys are in that order.
pub(crate) fn first_key(
    e: &mut Emitter<'_>,
    (positions, sequences): (View, View),
    n_keys: Value,
    comparison: IntCC,
    place: Value,
) -> Result<Value, Fault> {
    let zero = e.int(0);
    let found = e.repeat_while(
        &[zero, n_keys],
        |_, range| Ok(range[1]),
        |e, range| {
            let (first, count) = (range[0], range[1]);
            let half = e.ins().ushr_imm_u(count, 1);
            let middle = e.ins().iadd(first, half);
            let sequence = e.load_index(sequences, middle)?;
            let sequence = e.ins().ishl_imm_u(sequence, 32);
            let position = e.load_index(positions, middle)?;
            let key = e.ins().bor(sequence, position);
            let is_before = e.ins().icmp(comparison, key, place);
            let after = e.ins().iadd_imm_s(middle, 1);
            let rest = e.ins().isub(count, half);
            let rest = e.ins().iadd_imm_s(rest, -1);
            Ok(vec![e.ins().select(is_before, after, first), e.ins().select(is_before, rest, half)])
        },
    )?;
    Ok(found[0])
}
