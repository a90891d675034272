//! Maps, embeddings and rotary embeddings.

use skipc_artifact::program::RowTile;
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Kernel, Slot, View};
use skipc_plan::pointwise::Pointwise;

use super::super::generated::Generated;
use super::super::place;
use super::super::pointwise::{GroupPosition, OfRow, Program};
use super::THREADS;
use crate::code::{Bool, Code, Float, I32, Int, Steps};
use crate::error::Error;

/// Groups that a thread works on at once, so that their loads are under way together.
const AT_ONCE: u32 = 4;

/// Rows of a block at most: more would leave the device without work at small extents.
const MAX_ROWS: u32 = 32;

/// Rows of an embedding table, by id.
pub(super) struct Embed {
    pub(super) cols: u32,
    pub(super) ids: View,
    pub(super) n_ids: u32,
    pub(super) table: Slot,
    pub(super) out: Slot,
}

/// A rotary embedding.
pub(super) struct Rope {
    pub(super) heads: u32,
    /// Half of the columns of a head that turn.
    pub(super) half: u32,
    /// Columns of a head that pass, behind those that turn.
    pub(super) passed: u32,
    pub(super) x: View,
    pub(super) positions: View,
    /// Cosines and sines.
    pub(super) tables: [Slot; 2],
    pub(super) out: Slot,
}

pub(super) fn map(kernel: &Kernel, cols: u32, program: &Pointwise) -> Result<Generated, Error> {
    if cols == 0 {
        return Err(Error::Malformed { what: "a map without columns".to_owned() });
    }
    let program = Program::new(kernel, program, cols, 0)?;
    let width = program.width;
    over_groups(kernel, cols / width, |code, groups| {
        let results: Vec<_> = groups
            .iter()
            .map(|group| {
                let of_row = program.of_row(code, group.row);
                let values = program.evaluate(code, &place_of(&of_row, group, width), |_| Vec::new());
                (of_row, group, values)
            })
            .collect();
        for (of_row, group, values) in results {
            code.when(group.inside, || program.store(&place_of(&of_row, group, width), &values));
        }
    })
}

fn place_of<'r, 'c>(of_row: &'r OfRow<'c>, group: &Group<'c>, width: u32) -> GroupPosition<'r, 'c> {
    GroupPosition { of_row, col: group.index * width, inside: group.inside }
}

pub(super) fn embed(kernel: &Kernel, embed: Embed) -> Result<Generated, Error> {
    let Embed { cols, ids, n_ids, table, out } = embed;
    place::require_u32(kernel, ids.slot)?;
    place::require_view(kernel, ids, 1)?;
    let table = dense_columns(kernel, table, cols)?;
    let out = dense_columns(kernel, out, cols)?;
    if n_ids == 0 || cols == 0 {
        return Err(Error::Malformed { what: "an empty embedding table".to_owned() });
    }
    let width = place::group_width([cols, table.0.cols, out.0.cols]);
    over_groups(kernel, cols / width, |code, groups| {
        let results: Vec<_> = groups
            .iter()
            .map(|group| {
                let id = place::element(code, kernel.param(ids.slot), ids, group.row, 0u32).load::<I32>();
                let known = id.to_long().below(u64::from(n_ids));
                let row = known.select(id, 0u32);
                let start = place::row_start(code, table.0, table.1, row);
                let at = place::along(start, table.0.dtype, group.index * width);
                let values = place::load_group(at, table.0.dtype, width);
                let values: Vec<Float<'_>> =
                    values.into_iter().map(|value| known.select(value, 0.0f32)).collect();
                (group, values)
            })
            .collect();
        for (group, values) in results {
            code.when(group.inside, || {
                let at = place::element(code, out.0, out.1, group.row, group.index * width);
                place::store_group(at, out.0.dtype, &values);
            });
        }
    })
}

pub(super) fn rope(kernel: &Kernel, rope: Rope) -> Result<Generated, Error> {
    let Rope { heads, half, passed, x: x_view, positions, tables: [cos, sin], out } = rope;
    let head_cols = half.checked_mul(2).and_then(|turned| turned.checked_add(passed)).unwrap_or(0);
    let cols = heads
        .checked_mul(head_cols)
        .filter(|cols| *cols > 0 && half > 0)
        .ok_or_else(|| Error::Malformed { what: format!("{heads} heads of {half} pairs") })?;
    let x = place::require_view(kernel, x_view, cols)?;
    place::require_real(x)?;
    place::require_u32(kernel, positions.slot)?;
    place::require_view(kernel, positions, 1)?;
    let out = dense_columns(kernel, out, cols)?;
    for table in [cos, sin] {
        place::require(kernel, table, DType::F32)?;
        dense_columns(kernel, table, half)?;
    }
    let width = place::group_width([half, passed, x.cols, x_view.col, out.0.cols]);
    let per_head = half / width;
    over_groups(kernel, heads * per_head, |code, groups| {
        let results: Vec<_> = groups
            .iter()
            .map(|group| {
                let within = group.index % per_head * width;
                let col = group.index / per_head * head_cols + within;
                let pos = place::element(code, kernel.param(positions.slot), positions, group.row, 0u32);
                let pos = pos.load::<I32>();
                let load_table = |table: Slot| {
                    let param = kernel.param(table);
                    let view = View::dense(table);
                    let start = place::row_start(code, param, view, pos);
                    place::load_group(place::along(start, param.dtype, within), param.dtype, width)
                };
                let at = place::element(code, x, x_view, group.row, col);
                let a = place::load_group(at, x.dtype, width);
                let b = place::load_group(place::along(at, x.dtype, half), x.dtype, width);
                (group, col, rotate(&a, &b, &load_table(cos), &load_table(sin)))
            })
            .collect();
        for (group, col, (first, second)) in results {
            code.when(group.inside, || {
                let at = place::element(code, out.0, out.1, group.row, col);
                place::store_group(at, out.0.dtype, &first);
                place::store_group(place::along(at, out.0.dtype, half), out.0.dtype, &second);
            });
        }
        // Columns that pass are shared out among the groups of their head.
        for (group, part) in
            groups.iter().flat_map(|group| (0..passed.div_ceil(half)).map(move |part| (group, part)))
        {
            let passing = group.index % per_head * width + part * half;
            code.when(group.inside & passing.lt(passed), || {
                let col = group.index / per_head * head_cols + (passing + 2 * half);
                let from = place::element(code, x, x_view, group.row, col);
                let to = place::element(code, out.0, out.1, group.row, col);
                place::store_group(to, out.0.dtype, &place::load_group(from, x.dtype, width));
            });
        }
    })
}

fn rotate<'c>(
    a: &[Float<'c>],
    b: &[Float<'c>],
    cos: &[Float<'c>],
    sin: &[Float<'c>],
) -> (Vec<Float<'c>>, Vec<Float<'c>>) {
    let angles = cos.iter().zip(sin);
    a.iter()
        .zip(b)
        .zip(angles)
        .map(|((a, b), (cos, sin))| (*a * *cos - *b * *sin, *b * *cos + *a * *sin))
        .unzip()
}

/// The parameter of a slot as a dense view of at least `cols` columns of real numbers.
pub(in super::super) fn dense_columns(
    kernel: &Kernel,
    slot: Slot,
    cols: u32,
) -> Result<(&skipc_plan::kernel::Param, View), Error> {
    let view = View::dense(slot);
    let param = place::require_view(kernel, view, cols)?;
    place::require_real(param)?;
    Ok((param, view))
}

/// A group of neighbouring columns, or bytes of a row.
pub(in super::super) struct Group<'c> {
    /// A row that exists: the group's own, or the last one if it has none.
    pub(in super::super) row: Int<'c>,
    /// Number of the group in its row.
    pub(in super::super) index: Int<'c>,
    /// Is the row the group's own? Only then may anything be stored.
    pub(in super::super) inside: Bool<'c>,
}

/// Writes a kernel in which threads go over the groups of a few rows, `per_row` in each; `body` gets
/// the groups that a thread works on at once.
pub(in super::super) fn over_groups(
    kernel: &Kernel,
    per_row: u32,
    body: impl for<'c> Fn(&'c Code, &[Group<'c>]),
) -> Result<Generated, Error> {
    let tile_rows = (THREADS * AT_ONCE / per_row).clamp(1, MAX_ROWS);
    let total = tile_rows
        .checked_mul(per_row)
        .ok_or_else(|| Error::Malformed { what: format!("rows of {per_row} groups") })?;
    let at_once = total.div_ceil(THREADS).min(AT_ONCE);
    let code = Code::new(place::n_params(kernel)?);
    let rows = place::extent(&code, &kernel.extent);
    let first_row = code.block_x() * tile_rows;
    code.return_if(first_row.ge(rows));
    let last_row = rows - 1;
    code.each(Steps { from: code.thread(), to: total, step: THREADS * at_once }, |base| {
        let groups: Vec<Group<'_>> = (0..at_once)
            .map(|part| {
                let number = base + part * THREADS;
                let row = first_row + number / per_row;
                let inside = number.lt(total) & row.lt(rows);
                Group { row: row.min(last_row), index: number % per_row, inside }
            })
            .collect();
        body(&code, &groups);
    });
    Ok(Generated::new(code, vec![RowTile { from: 0, rows: tile_rows, across: 1 }], THREADS))
}
