//! The warp groups that multiply.

use super::super::parts::PartTiles;
use super::super::tile::Corner;
use super::epilogue::Epilogue;
use super::{CONSUMERS, Matmul, Stage, WARP_GROUP};
use crate::code::{Code, Float, I8, Int, ROW_BYTES, Steps};

/// Arrivals by which a stage is empty: one for each warp. A warp's wait says that its own matmuls are done, and nothing
/// about those of the group's other warps.
pub(super) const ARRIVALS: u32 = CONSUMERS * WARP_GROUP / 32;

impl Matmul<'_> {
    /// Makes this warp group's rows of each tile of the block.
    pub(super) fn consume<'c>(&self, code: &'c Code, rows: Int<'c>, group: Int<'c>) {
        self.each_tile(code, rows, code.int(0), |corner, used| {
            self.parts.of_tile(code, corner.col_tile, &|part, col| {
                let sums = self.sums(code, part, group, used);
                let row = corner.row + group * 64;
                Epilogue { part, corner: Corner { row, ..corner }, col, sums: &sums }.run(code);
                code.stay_apart();
                used + self.turns()
            })
        });
    }

    /// The sums of a tile whose slices are numbered from `used` on.
    fn sums<'c>(
        &self,
        code: &'c Code,
        part: &PartTiles<'_>,
        group: Int<'c>,
        used: Int<'c>,
    ) -> Vec<Float<'c>> {
        let zeros = vec![code.float(0.0); part.width() as usize / 2];
        let sums = code.repeat(Steps { from: 0, to: self.turns(), step: 1 }, zeros, |slice, sums| {
            let stage = Stage { matmul: self, number: used + slice };
            stage.full(code).wait_phase(stage.round());
            let left = stage.left(code).at::<I8>(group * (64 * ROW_BYTES));
            let operands = [left.descriptor(), stage.right(code).descriptor()];
            let sums = code.wgmma(part.width(), operands, sums);
            // The matmul before is done.
            code.when(slice.gt(0), || self.give_back(code, used + slice - 1));
            sums
        });
        let sums = code.wgmma_wait(sums);
        self.give_back(code, used + (self.turns() - 1));
        sums
    }

    fn give_back<'c>(&self, code: &'c Code, number: Int<'c>) {
        let stage = Stage { matmul: self, number };
        code.when((code.thread() % 32).eq(0), || stage.empty(code).arrive());
    }
}
