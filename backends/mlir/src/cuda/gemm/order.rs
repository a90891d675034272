//! In which order blocks take the tiles of a matmul.

use crate::code::{Int, Operand};

/// Blocks of neighbouring row tiles that take the column tiles in turn, so that the operands of
/// the blocks that run at one time fit into the second-level cache.
const ROW_GROUP: u32 = 8;

/// How many tiles that lie one below the other hold rows.
pub(super) fn row_tiles(rows: Int<'_>, tile_rows: u32) -> Int<'_> {
    (rows + (tile_rows - 1)) / tile_rows
}

/// Which tile has this number, below `row_tiles · col_tiles`: its row tile and its column tile.
///
/// Tiles are numbered along the rows first, in groups of [`ROW_GROUP`] row tiles, so that the first blocks to start make all of
/// them.
pub(super) fn pick_tile<'c>(number: Int<'c>, row_tiles: Int<'c>, col_tiles: u32) -> (Int<'c>, Int<'c>) {
    let group_tiles = (ROW_GROUP * col_tiles).val(number.code());
    let first = number / group_tiles * ROW_GROUP;
    let in_group = number % group_tiles;
    let group_rows = (row_tiles - first).min(ROW_GROUP);
    (first + in_group % group_rows, in_group / group_rows)
}
