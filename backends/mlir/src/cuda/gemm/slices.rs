//! The loop over slices: copies to shared memory some stages ahead of the arithmetic.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Gemm, Kernel, Param, Rows, View};

use super::super::place;
use super::epilogue::Epilogue;
use super::tile::{Core, Corner, Layout};
use super::{STAGES, Tile};
use crate::code::{Bool, Code, GPtr, I8, Int, SPtr, Steps};
use crate::error::Error;

/// How the slices of a product are copied.
pub(super) struct Slices<'p> {
    kernel: &'p Kernel,
    gemm: &'p Gemm,
    tile: Tile,
    layout: Layout,
    /// Bytes that one copy moves.
    piece: u32,
}

/// An operand: a run of rows of a stage.
struct Operand<'k, 'c> {
    param: &'k Param,
    view: View,
    /// Its first row in a stage, and how many.
    first: u32,
    rows: u32,
    /// The row of the operand that the first one is, and how many it has.
    from: Int<'c>,
    total: Int<'c>,
}

/// A piece of a row that a thread copies of each slice.
struct Piece<'c> {
    /// Where it begins in the first slice.
    from: GPtr<'c>,
    dtype: DType,
    /// Does the row exist?
    present: Bool<'c>,
    /// Byte of a stage.
    to: Int<'c>,
}

impl<'p> Slices<'p> {
    /// # Errors
    /// [`Error::Malformed`] if the operand does not exist.
    pub(super) fn new(kernel: &'p Kernel, gemm: &'p Gemm, tile: Tile, layout: Layout) -> Result<Self, Error> {
        let a = place::param(kernel, gemm.a.slot)?;
        let mut piece = 16;
        // The rows of a weight are `k` elements.
        for elements in [gemm.k, gemm.a.col, a.cols] {
            while !(u64::from(elements) * u64::from(layout.element)).is_multiple_of(piece) {
                piece /= 2;
            }
        }
        Ok(Self { kernel, gemm, tile, layout, piece: piece as u32 })
    }

    /// Bytes of one stage: the slice of the left operand, then that of the weights.
    fn stage_bytes(&self) -> u32 {
        (self.tile.rows + self.tile.all_cols()) * self.layout.pitch
    }

    pub(super) fn shared_bytes(&self) -> u32 {
        STAGES * self.stage_bytes()
    }

    /// Writes the loop and hands the sums to the epilogue.
    ///
    /// Invariant at the top of turn `i`: slices `i .. i + STAGES - 1` are copied or under way, one
    /// group of copies each (the last ones may be empty). After the barrier every thread is done
    /// with slice `i - 1`, so its stage takes slice `i + STAGES - 1`.
    pub(super) fn run<'c>(
        &self,
        code: &'c Code,
        corner: Corner<'c>,
        core: &dyn Core,
        epilogue: &Epilogue<'_>,
    ) {
        let shared = code.shared();
        let operands = self.operands(code, corner);
        // Whole pieces are few, and what is known of them is kept; small ones are found anew each time.
        let pieces: Vec<Piece<'c>> = if self.piece == 16 {
            operands.iter().flat_map(|operand| self.pieces(code, operand)).collect()
        } else {
            Vec::new()
        };
        let copy = |slice: Int<'c>, stage: Int<'c>| {
            pieces.iter().for_each(|piece| self.copy(code, piece, slice, shared.at::<I8>(stage)));
            if self.piece < 16 {
                operands
                    .iter()
                    .for_each(|operand| self.copy_small(code, operand, slice, shared.at::<I8>(stage)));
            }
        };
        let turns = self.gemm.k.div_ceil(self.layout.inner);
        for slice in 0..STAGES - 1 {
            if slice < turns {
                copy(code.int(slice), code.int(slice * self.stage_bytes()));
            }
            code.copy_commit();
        }
        let start = (core.zeros(code), code.int(0), code.int((STAGES - 1) * self.stage_bytes()));
        let (sums, _, _) =
            code.repeat(Steps { from: 0, to: turns, step: 1 }, start, |turn, (sums, read, write)| {
                code.copy_wait(STAGES - 2);
                code.barrier();
                let ahead = turn + (STAGES - 1);
                code.when(ahead.lt(turns), || copy(ahead, write));
                code.copy_commit();
                let a = shared.at::<I8>(read);
                let b = a.at::<I8>(self.tile.rows * self.layout.pitch);
                let sums = core.add(code, a, b, sums);
                (sums, self.next_stage(read), self.next_stage(write))
            });
        // The epilogue uses the same memory; empty groups at the end write nothing.
        code.copy_wait(0);
        code.barrier();
        core.spill(code, shared, epilogue.pitch(), &sums);
        code.barrier();
        epilogue.run(code, corner, shared);
    }

    fn next_stage<'c>(&self, offset: Int<'c>) -> Int<'c> {
        let next = offset + self.stage_bytes();
        next.ge(STAGES * self.stage_bytes()).select(0u32, next)
    }

    fn operands<'c>(&self, code: &'c Code, corner: Corner<'c>) -> Vec<Operand<'p, 'c>> {
        let left = Operand {
            param: self.kernel.param(self.gemm.a.slot),
            view: self.gemm.a,
            first: 0,
            rows: self.tile.rows,
            from: corner.row,
            total: corner.rows,
        };
        let weights = (0u32..).zip(&self.gemm.weights).map(|(number, slot)| Operand {
            param: self.kernel.param(*slot),
            view: View { slot: *slot, rows: Rows::Dense, col: 0 },
            first: self.tile.rows + number * self.tile.cols,
            rows: self.tile.cols,
            from: corner.col,
            total: code.int(self.gemm.n),
        });
        [left].into_iter().chain(weights).collect()
    }

    /// Pieces of a row of a slice. Threads take them side by side.
    fn in_row(&self) -> u32 {
        self.layout.inner * self.layout.element / self.piece
    }

    /// Rows that all threads copy at once.
    fn at_once(&self) -> u32 {
        self.tile.threads / self.in_row()
    }

    /// First element of this thread's piece in a row of a slice.
    fn column<'c>(&self, code: &'c Code) -> Int<'c> {
        code.thread() % self.in_row() * (self.piece / self.layout.element)
    }

    /// What this thread copies of a row of an operand.
    fn piece<'c>(&self, code: &'c Code, operand: &Operand<'_, 'c>, row: Int<'c>) -> Piece<'c> {
        let wanted = operand.from + row;
        let present = wanted.lt(operand.total);
        // A row that does not exist is not read, but its address has to be one.
        let physical = place::physical(code, operand.view.rows, present.select(wanted, operand.from));
        let start = place::row_start(code, operand.param, operand.view, physical);
        Piece {
            from: place::along(start, operand.param.dtype, self.column(code)),
            dtype: operand.param.dtype,
            present,
            to: self.layout.place(row + operand.first, self.column(code) * self.layout.element),
        }
    }

    fn pieces<'c>(&self, code: &'c Code, operand: &Operand<'_, 'c>) -> Vec<Piece<'c>> {
        let first = code.thread() / self.in_row();
        let passes = operand.rows / self.at_once();
        debug_assert!(passes * self.at_once() == operand.rows);
        (0..passes).map(|pass| self.piece(code, operand, first + pass * self.at_once())).collect()
    }

    fn copy_small<'c>(&self, code: &'c Code, operand: &Operand<'_, 'c>, slice: Int<'c>, stage: SPtr<'c>) {
        let steps = Steps { from: code.thread() / self.in_row(), to: operand.rows, step: self.at_once() };
        code.each(steps, |row| {
            let piece = self.piece(code, operand, row);
            self.copy(code, &piece, slice, stage);
        });
    }

    /// Begins to copy a piece of a slice to a stage.
    fn copy<'c>(&self, code: &'c Code, piece: &Piece<'c>, slice: Int<'c>, stage: SPtr<'c>) {
        let skipped = slice * self.layout.inner;
        let (along, present) = if self.gemm.k.is_multiple_of(self.layout.inner) {
            (skipped, piece.present)
        } else {
            // A piece beyond the last column is not read, but its address has to be one.
            let inside = (skipped + self.column(code)).lt(self.gemm.k);
            let back = code.int(0) - self.column(code);
            (inside.select(skipped, back), piece.present & inside)
        };
        let from = place::along(piece.from, piece.dtype, along);
        stage.at::<I8>(piece.to).copy_async(from, self.piece, present);
    }
}
