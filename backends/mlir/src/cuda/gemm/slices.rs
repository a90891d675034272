//! The loop over slices: copies to shared memory some stages ahead of the arithmetic.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Gemm, Kernel};

use super::super::place;
use super::epilogue::{self, Epilogue};
use super::parts::Parts;
use super::tile::{Core, Corner, Layout, Row};
use super::{STAGES, Tile};
use crate::code::{Bool, Code, GPtr, I8, Int, SPtr, Steps};

/// How the slices of a matmul are copied.
pub(super) struct Slices<'p> {
    kernel: &'p Kernel,
    gemm: &'p Gemm,
    parts: &'p Parts<'p>,
    tile: Tile,
    layout: Layout,
    /// Type of both operands.
    dtype: DType,
    /// Bytes that one copy moves.
    piece: u32,
}

/// Which operand a slice is of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// The left operand: a row for each row of the tile.
    Left,
    /// The weights: a row for each column of the tile.
    Right,
}

/// A piece of a row that a thread copies of each slice.
struct Piece<'c> {
    /// Whether it is this thread's, where there are more threads than pieces.
    own: Option<Bool<'c>>,
    /// Where the row is.
    row: Row<'c>,
    /// Where it begins in the first slice.
    from: GPtr<'c>,
    /// Byte of a stage.
    to: Int<'c>,
}

impl<'p> Slices<'p> {
    pub(super) fn new(
        kernel: &'p Kernel,
        gemm: &'p Gemm,
        parts: &'p Parts<'p>,
        tile: Tile,
        layout: Layout,
    ) -> Self {
        let a = kernel.param(gemm.a.slot);
        let mut piece = 16;
        // The rows of a weight are `k` elements; swizzled ones are whole slices.
        for elements in [gemm.k, gemm.a.col, a.cols] {
            while !(u64::from(elements) * u64::from(layout.element)).is_multiple_of(piece) {
                piece /= 2;
            }
        }
        Self { kernel, gemm, parts, tile, layout, dtype: a.dtype, piece: piece as u32 }
    }

    /// Bytes of one stage: the slice of the left operand, then that of the weights.
    fn stage_bytes(&self) -> u32 {
        (self.tile.rows + self.tile.cols) * self.layout.pitch
    }

    pub(super) fn shared_bytes(&self) -> u32 {
        STAGES * self.stage_bytes()
    }

    /// Writes the loop and hands the sums to the epilogue.
    ///
    /// Invariant at the top of turn `i`: slices `i .. i + STAGES - 1` are copied or under way, one
    /// group of copies each (the last ones may be empty). After the barrier every thread is done
    /// with slice `i - 1`, so its stage takes slice `i + STAGES - 1`.
    pub(super) fn run<'c>(&self, code: &'c Code, corner: Corner<'c>, core: &dyn Core) {
        let shared = code.shared();
        let sides = [Side::Left, Side::Right];
        // Whole pieces are few, and what is known of them is kept; small ones are found anew each time.
        let pieces: Vec<Piece<'c>> = if self.piece == 16 {
            sides.into_iter().flat_map(|side| self.pieces_of(code, corner, side)).collect()
        } else {
            Vec::new()
        };
        let copy = |slice: Int<'c>, stage: Int<'c>| {
            pieces.iter().for_each(|piece| self.copy(code, piece, slice, shared.at::<I8>(stage)));
            if self.piece < 16 {
                let stage = shared.at::<I8>(stage);
                sides.into_iter().for_each(|side| self.copy_small(code, corner, side, slice, stage));
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
        core.spill(code, shared, epilogue::pitch(self.tile), &sums);
        code.barrier();
        self.parts.of_tile(code, corner.col_tile, &|part, col| {
            Epilogue { part, tile: self.tile, corner, col, sums: shared }.run(code);
        });
    }

    fn next_stage<'c>(&self, offset: Int<'c>) -> Int<'c> {
        let next = offset + self.stage_bytes();
        next.ge(STAGES * self.stage_bytes()).select(0u32, next)
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

    /// Rows of a slice, and the first of them in a stage.
    fn rows(&self, side: Side) -> (u32, u32) {
        match side {
            Side::Left => (self.tile.rows, 0),
            Side::Right => (self.tile.cols, self.tile.rows),
        }
    }

    /// Where what becomes these rows of slices lies in memory.
    fn starts<'c>(&self, code: &'c Code, corner: Corner<'c>, side: Side, rows: &[Int<'c>]) -> Vec<Row<'c>> {
        if side == Side::Right {
            return self.parts.weights(code, corner.col_tile, rows, self.layout.inner);
        }
        let start = |row: &Int<'c>| {
            let wanted = corner.row + *row;
            let present = wanted.lt(corner.rows);
            let physical = place::physical(code, self.gemm.a.rows, present.select(wanted, corner.row));
            let start = place::row_start(code, self.kernel.param(self.gemm.a.slot), self.gemm.a, physical);
            let (stride, turn) = (code.int(self.layout.inner), code.int(0));
            Row { start, present, stride, turn, padded: code.truth(false) }
        };
        rows.iter().map(start).collect()
    }

    /// What this thread copies of rows of slices.
    fn pieces<'c>(&self, code: &'c Code, corner: Corner<'c>, side: Side, rows: &[Int<'c>]) -> Vec<Piece<'c>> {
        let starts = self.starts(code, corner, side, rows);
        let (_, first) = self.rows(side);
        let column = self.column(code);
        let (n_rows, _) = self.rows(side);
        let piece = |(in_slice, row): (&Int<'c>, Row<'c>)| Piece {
            own: (n_rows < self.at_once()).then(|| in_slice.lt(n_rows)),
            row,
            from: place::along(row.start, self.dtype, column ^ (row.turn << 3)),
            to: self.layout.place(*in_slice + first, column * self.layout.element),
        };
        rows.iter().zip(starts).map(piece).collect()
    }

    /// All that this thread copies of slices of an operand.
    fn pieces_of<'c>(&self, code: &'c Code, corner: Corner<'c>, side: Side) -> Vec<Piece<'c>> {
        let first = code.thread() / self.in_row();
        let (n_rows, _) = self.rows(side);
        let passes = n_rows.div_ceil(self.at_once());
        debug_assert!(passes == 1 || passes * self.at_once() == n_rows);
        let rows: Vec<Int<'c>> = (0..passes).map(|pass| first + pass * self.at_once()).collect();
        self.pieces(code, corner, side, &rows)
    }

    fn copy_small<'c>(
        &self,
        code: &'c Code,
        corner: Corner<'c>,
        side: Side,
        slice: Int<'c>,
        stage: SPtr<'c>,
    ) {
        let (n_rows, _) = self.rows(side);
        let steps = Steps { from: code.thread() / self.in_row(), to: n_rows, step: self.at_once() };
        code.each(steps, |row| {
            let pieces = self.pieces(code, corner, side, &[row]);
            pieces.iter().for_each(|piece| self.copy(code, piece, slice, stage));
        });
    }

    /// Begins to copy a piece of a slice to a stage.
    fn copy<'c>(&self, code: &'c Code, piece: &Piece<'c>, slice: Int<'c>, stage: SPtr<'c>) {
        let row = piece.row;
        let from = place::far_along(piece.from, self.dtype, slice.to_long() * row.stride.to_long());
        let (from, present) = if self.gemm.k.is_multiple_of(self.layout.inner) {
            (from, row.present)
        } else {
            // A piece beyond the last column is not read, but its address has to be one.
            let inside = (slice * self.layout.inner + self.column(code)).lt(self.gemm.k) | row.padded;
            (inside.select(from, row.start), row.present & inside)
        };
        let copy = || stage.at::<I8>(piece.to).copy_async(from, self.piece, present);
        match piece.own {
            Some(own) => code.when(own, copy),
            None => copy(),
        }
    }
}
