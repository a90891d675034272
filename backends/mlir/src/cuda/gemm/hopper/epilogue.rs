//! From sums in registers to the stores of the epilogue program.

use super::super::super::pointwise::{GroupPosition, OfRow, Sum};
use super::super::parts::PartTiles;
use super::super::tile::Corner;
use super::BLOCK;
use crate::code::{Bool, Code, Float, Int};

/// Blocks of columns that a thread works on at once, so that their loads are under way together.
const AT_ONCE: u32 = 8;

/// The epilogue of a part over the 64 rows of a warp group.
pub(super) struct Epilogue<'t, 'p, 'c> {
    pub(super) part: &'t PartTiles<'p>,
    /// Its row is the warp group's first.
    pub(super) corner: Corner<'c>,
    /// First column of the tile in the part.
    pub(super) col: Int<'c>,
    /// As [`Code::wgmma`] gives them.
    pub(super) sums: &'t [Float<'c>],
}

impl<'c> Epilogue<'_, '_, 'c> {
    /// Writes the program over the rows. A thread has two of them, and of each the same two columns of every block.
    pub(super) fn run(&self, code: &'c Code) {
        let thread = code.thread() % 128;
        let upper = self.corner.row + thread / 32 * 16 + thread % 32 / 4;
        for half in 0..2 {
            let row = upper + half * 8;
            code.when(row.lt(self.corner.rows), || {
                let of_row = self.part.program.of_row(code, row);
                let blocks: Vec<u32> = (0..self.part.cols / BLOCK).collect();
                blocks
                    .chunks(AT_ONCE as usize)
                    .for_each(|blocks| self.run_blocks(code, &of_row, half, blocks));
            });
        }
    }

    /// Loads and computes for all these blocks, then stores.
    fn run_blocks(&self, code: &'c Code, of_row: &OfRow<'c>, half: u32, blocks: &[u32]) {
        let program = &self.part.program;
        let width = program.width;
        let first = self.col + code.thread() % 4 * 2;
        let last_col = self.part.n() - width;
        let mut results = Vec::new();
        for block in blocks {
            for item in (0..2).step_by(width as usize) {
                let col = first + (block * BLOCK + item);
                let inside = self.inside(code, col);
                // Loads of what is outside go to the last group that exists; stores are left out.
                let safe = if self.part.is_whole() { col } else { col.min(last_col) };
                let at = GroupPosition { of_row, col: safe, inside };
                let values = program.evaluate(code, &at, |sum| self.load(code, sum, *block, half, item));
                results.push((at, values));
            }
        }
        for (at, values) in results {
            code.when(at.inside, || program.store(&at, &values));
        }
    }

    fn inside(&self, code: &'c Code, col: Int<'c>) -> Bool<'c> {
        if self.part.is_whole() { code.truth(true) } else { col.lt(self.part.n()) }
    }

    /// A group of a sum: this thread's columns of a block from `item` on.
    fn load(
        &self,
        code: &'c Code,
        Sum { number, turned }: Sum,
        block: u32,
        half: u32,
        item: u32,
    ) -> Vec<Float<'c>> {
        let of = |block: u32| {
            let block = number * (self.part.cols / BLOCK) + block;
            let start = (block * 4 + half * 2 + item) as usize;
            self.sums[start..start + self.part.program.width as usize].to_vec()
        };
        // Heads lie in one tile, and their halves are whole blocks.
        let Some(head) = turned.map(|head| head / BLOCK) else { return of(block) };
        if block % head < head / 2 {
            let zero = code.float(0.0);
            of(block + head / 2).into_iter().map(|value| zero - value).collect()
        } else {
            of(block - head / 2)
        }
    }
}
