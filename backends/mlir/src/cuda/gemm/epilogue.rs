//! From the sums of a tile to the stores of the epilogue program.

use super::super::pointwise::{GroupPosition, Sum};
use super::Tile;
use super::parts::PartTiles;
use super::tile::Corner;
use crate::code::{Code, F32, Float, Int, SPtr, Steps, V2, V4};

/// Elements between rows of the sums beyond their columns. With this the rows that eight lanes of a
/// fragment write lie 8 words apart, which spreads them over the banks.
const PAD: u32 = 8;

/// Groups that a thread works on at once, so that their loads are under way together.
const AT_ONCE: u32 = 4;

/// Elements from row to row of the sums.
pub(super) fn pitch(tile: Tile) -> u32 {
    tile.cols + PAD
}

/// Bytes of shared memory for the sums.
pub(super) fn shared_bytes(tile: Tile) -> u32 {
    tile.rows * pitch(tile) * 4
}

/// The epilogue of a part over a tile.
pub(super) struct Epilogue<'t, 'p, 'c> {
    pub(super) part: &'t PartTiles<'p>,
    pub(super) tile: Tile,
    pub(super) corner: Corner<'c>,
    /// First column of the tile in the part.
    pub(super) col: Int<'c>,
    /// The sums of the tile.
    pub(super) sums: SPtr<'c>,
}

impl<'c> Epilogue<'_, '_, 'c> {
    /// Writes the program over the tile: threads take the groups of a row side by side, so that a
    /// row's loads and stores are one run of memory.
    pub(super) fn run(&self, code: &'c Code) {
        let Self { part, tile, corner, .. } = self;
        let program = &part.program;
        let width = program.width;
        // Powers of two, so that threads make whole rows at once; some may be left without a group.
        let lanes = (part.cols / width).next_power_of_two().max(tile.threads / tile.rows);
        let rows_at_once = tile.threads / lanes;
        let lane = code.thread() % lanes;
        let col = lane.min(part.cols / width - 1) * width;
        let first = code.thread() / lanes;
        let last_row = corner.rows - 1;
        let col_inside = lane.lt(part.cols / width) & (self.col + col).lt(part.n());
        // Loads of what is outside go to the last group or row that exists, except where that is written; stores are
        // left out.
        let safe_col = (self.col + col).min(part.n() - width);
        let step = rows_at_once * AT_ONCE.min(tile.rows / rows_at_once);
        code.each(Steps { from: 0, to: tile.rows, step }, |base| {
            let mut results = Vec::new();
            for turn in 0..step / rows_at_once {
                let in_tile = base + first + turn * rows_at_once;
                let row = corner.row + in_tile;
                let inside = row.lt(corner.rows) & col_inside;
                let of_row = program.of_row(code, row.min(last_row));
                let at = GroupPosition { of_row: &of_row, col: safe_col, inside };
                let values = program.evaluate(code, &at, |sum| self.load(code, sum, in_tile, col));
                results.push((of_row, inside, values));
            }
            for (of_row, inside, values) in results {
                let at = GroupPosition { of_row: &of_row, col: safe_col, inside };
                code.when(inside, || program.store(&at, &values));
            }
        });
    }

    /// The group of a sum at a row and a column of the tile.
    fn load(
        &self,
        code: &'c Code,
        Sum { number, turned }: Sum,
        row: Int<'c>,
        col: Int<'c>,
    ) -> Vec<Float<'c>> {
        let width = self.part.program.width;
        let start = self.sums.at::<F32>(row * pitch(self.tile) + number * self.part.cols);
        let Some(head) = turned else { return load_sums(start.at::<F32>(col), width) };
        // Groups lie in one half of a head, and heads in one tile.
        let half = head / 2;
        let in_first = (col % head).lt(half);
        let partner = in_first.select(col + half, col - half);
        let zero = code.float(0.0);
        let values = load_sums(start.at::<F32>(partner), width);
        values.into_iter().map(|value| in_first.select(zero - value, value)).collect()
    }
}

fn load_sums<'c>(at: SPtr<'c>, width: u32) -> Vec<Float<'c>> {
    match width {
        4 => at.load::<V4<F32>>().items().to_vec(),
        2 => at.load::<V2<F32>>().items().to_vec(),
        _ => vec![at.load::<F32>()],
    }
}
