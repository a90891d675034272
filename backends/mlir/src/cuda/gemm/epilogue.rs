//! From the sums of a tile to the stores of the epilogue program.

use super::super::pointwise::{Place, Program};
use super::Tile;
use super::tile::Corner;
use crate::code::{Code, F32, Float, SPtr, Steps, V2, V4};

/// Elements between rows of the sums beyond their columns. With this the rows that eight lanes of a
/// fragment write lie 8 words apart, which spreads them over the banks.
const PAD: u32 = 8;

/// Groups that a thread works on at once, so that their loads are under way together.
const AT_ONCE: u32 = 4;

/// The epilogue of a product.
pub(super) struct Epilogue<'p> {
    pub(super) program: &'p Program<'p>,
    pub(super) tile: Tile,
    /// Columns of the result.
    pub(super) n: u32,
}

/// Bytes of shared memory for the sums.
pub(super) fn shared_bytes(tile: Tile) -> u32 {
    tile.rows * (tile.all_cols() + PAD) * 4
}

impl Epilogue<'_> {
    /// Elements from row to row of the sums.
    pub(super) fn pitch(&self) -> u32 {
        self.tile.all_cols() + PAD
    }

    /// Writes the program over the tile: threads take the groups of a row side by side, so that a
    /// row's loads and stores are one run of memory.
    pub(super) fn run<'c>(&self, code: &'c Code, corner: Corner<'c>, sums: SPtr<'c>) {
        let width = self.program.width;
        let groups = self.tile.cols / width;
        let rows_at_once = self.tile.threads / groups;
        let col = code.thread() % groups * width;
        let first = code.thread() / groups;
        let last_row = corner.rows - 1;
        let col_inside = (corner.col + col).lt(self.n);
        // Loads of what is outside go to the last group or row that exists, except where that is written; stores are
        // left out.
        let safe_col = (corner.col + col).min(self.n - width);
        let step = rows_at_once * AT_ONCE.min(self.tile.rows / rows_at_once);
        code.each(Steps { from: 0, to: self.tile.rows, step }, |base| {
            let mut results = Vec::new();
            for part in 0..step / rows_at_once {
                let in_tile = base + first + part * rows_at_once;
                let row = corner.row + in_tile;
                let inside = row.lt(corner.rows) & col_inside;
                let at = Place { row: row.min(last_row), col: safe_col, inside };
                let values = self.program.evaluate(code, &at, |weight| {
                    let at = sums.at::<F32>(in_tile * self.pitch() + (col + weight * self.tile.cols));
                    load_sums(at, width)
                });
                results.push((at, values));
            }
            for (at, values) in results {
                code.when(at.inside, || self.program.store(code, &at, &values));
            }
        });
    }
}

fn load_sums<'c>(at: SPtr<'c>, width: u32) -> Vec<Float<'c>> {
    match width {
        4 => at.load::<V4<F32>>().items().to_vec(),
        2 => at.load::<V2<F32>>().items().to_vec(),
        _ => vec![at.load::<F32>()],
    }
}
