//! The loop over slices: copies to shared memory some stages ahead of the arithmetic.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Gemm, Kernel, Param, Rows, View};

use super::super::place;
use super::epilogue::Epilogue;
use super::tile::{Core, Corner, Layout};
use super::{STAGES, Tile};
use crate::code::{Bool, Code, GPtr, Int, Operand, SPtr, Steps};
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

/// Rows that a thread copies: where each begins in memory, whether it exists, and where it goes.
struct Copies<'c> {
    rows: Vec<CopyRow<'c>>,
    dtype: DType,
}

struct CopyRow<'c> {
    from: GPtr<'c>,
    present: Bool<'c>,
    /// Byte of a stage.
    to: Int<'c>,
}

impl<'p> Slices<'p> {
    /// # Errors
    /// [`Error::Unsupported`] if rows are not aligned to 4 bytes, the least that can be copied
    /// asynchronously.
    pub(super) fn new(kernel: &'p Kernel, gemm: &'p Gemm, tile: Tile, layout: Layout) -> Result<Self, Error> {
        let a = place::param(kernel, gemm.a.slot)?;
        let mut piece = 16;
        // The rows of a weight are `k` elements.
        for elements in [gemm.k, gemm.a.col, a.cols] {
            while !(u64::from(elements) * u64::from(layout.element)).is_multiple_of(piece) {
                piece /= 2;
            }
        }
        if piece < 4 {
            let what = format!("a product of {} elements of {} by row; make it even", gemm.k, a.dtype);
            return Err(Error::Unsupported { what });
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
    pub(super) fn run<'c>(&self, code: &'c Code, corner: Corner<'c>, core: &dyn Core, epilogue: &Epilogue<'_>) {
        let shared = code.shared();
        let copies = self.plan_copies(code, corner);
        let turns = self.gemm.k.div_ceil(self.layout.inner);
        for slice in 0..STAGES - 1 {
            if slice < turns {
                let number = code.int(slice);
                self.copy(code, &copies, shared, number, slice * self.stage_bytes());
            }
            code.copy_commit();
        }
        let start = (core.zeros(code), code.int(0), code.int((STAGES - 1) * self.stage_bytes()));
        let (sums, _, _) =
            code.repeat(Steps { from: 0, to: turns, step: 1 }, start, |turn, (sums, read, write)| {
                code.copy_wait(STAGES - 2);
                code.barrier();
                let ahead = turn + (STAGES - 1);
                code.when(ahead.lt(turns), || self.copy(code, &copies, shared, ahead, write));
                code.copy_commit();
                let a = shared.at::<crate::code::I8>(read);
                let b = a.at::<crate::code::I8>(self.tile.rows * self.layout.pitch);
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

    /// Finds what this thread copies. Threads take the pieces of a row side by side; one pass of all
    /// threads is `threads / pieces` rows.
    fn plan_copies<'c>(&self, code: &'c Code, corner: Corner<'c>) -> Copies<'c> {
        let a = self.kernel.param(self.gemm.a.slot);
        let mut copies = Copies { rows: Vec::new(), dtype: a.dtype };
        self.each_pass(code, self.tile.rows, |row| {
            let wanted = corner.row + row;
            let present = wanted.lt(corner.rows);
            // A row that does not exist is not read, but its address has to be one.
            let row_in_list = present.select(wanted, corner.row);
            let physical = place::physical(code, self.gemm.a.rows, row_in_list);
            self.plan_row(code, &mut copies, (a, self.gemm.a), physical, present, row);
        });
        for (number, slot) in (0u32..).zip(&self.gemm.weights) {
            let weight = self.kernel.param(*slot);
            let view = View { slot: *slot, rows: Rows::Dense, col: 0 };
            self.each_pass(code, self.tile.cols, |row| {
                let wanted = corner.col + row;
                let present = wanted.lt(self.gemm.n);
                let physical = present.select(wanted, 0u32);
                let in_stage = row + (self.tile.rows + number * self.tile.cols);
                self.plan_row(code, &mut copies, (weight, view), physical, present, in_stage);
            });
        }
        copies
    }

    fn plan_row<'c>(
        &self,
        code: &'c Code,
        copies: &mut Copies<'c>,
        (param, view): (&Param, View),
        physical: Int<'c>,
        present: Bool<'c>,
        row_in_stage: Int<'c>,
    ) {
        let start = place::row_start(code, param, view, physical);
        let from = place::along(start, param.dtype, self.column(code));
        let to = self.layout.place(row_in_stage, self.piece_number(code) * self.piece);
        copies.rows.push(CopyRow { from, present, to });
    }

    /// Calls `plan` with the row of each pass over `rows` rows.
    fn each_pass<'c>(&self, code: &'c Code, rows: u32, mut plan: impl FnMut(Int<'c>)) {
        let at_once = self.tile.threads / self.pieces();
        debug_assert!(at_once > 0 && rows.is_multiple_of(at_once));
        let first = code.thread() / self.pieces();
        for pass in 0..rows / at_once {
            plan(first + pass * at_once);
        }
    }

    /// Pieces of a row of a slice.
    fn pieces(&self) -> u32 {
        self.layout.inner * self.layout.element / self.piece
    }

    fn piece_number<'c>(&self, code: &'c Code) -> Int<'c> {
        code.thread() % self.pieces()
    }

    /// First element of this thread's piece, from the start of the slice.
    fn column<'c>(&self, code: &'c Code) -> Int<'c> {
        self.piece_number(code) * (self.piece / self.layout.element)
    }

    /// Begins to copy a slice to a stage.
    fn copy<'c>(
        &self,
        code: &'c Code,
        copies: &Copies<'c>,
        shared: SPtr<'c>,
        slice: Int<'c>,
        stage: impl Operand<'c, crate::code::I32>,
    ) {
        let stage = stage.val(code);
        let skipped = slice * self.layout.inner;
        let whole = self.gemm.k.is_multiple_of(self.layout.inner);
        let inside = (!whole).then(|| (skipped + self.column(code)).lt(self.gemm.k));
        for row in &copies.rows {
            let present = inside.map_or(row.present, |inside| row.present & inside);
            // A piece beyond the last column is not read, but its address has to be one.
            let along = inside.map_or(skipped, |inside| inside.select(skipped, 0u32));
            let from = place::along(row.from, copies.dtype, along);
            shared.at::<crate::code::I8>(stage + row.to).copy_async(from, self.piece, present);
        }
    }
}
