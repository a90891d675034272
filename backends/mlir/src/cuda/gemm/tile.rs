//! What the pieces of a matmul's code agree on: where the tile lies, how slices lie in shared memory,
//! and what makes sums from them.

use skipc_llvm::Feature;

use crate::code::{Bool, Carry, Code, Float, GPtr, Int, SPtr};

/// Where a block's tile lies in the result.
#[derive(Clone, Copy)]
pub(super) struct Corner<'c> {
    /// First row; below `rows`.
    pub(super) row: Int<'c>,
    /// Number of the column tile.
    pub(super) col_tile: Int<'c>,
    /// Rows of the result.
    pub(super) rows: Int<'c>,
}

/// Where what becomes a row of slices lies in memory.
#[derive(Clone, Copy)]
pub(super) struct Row<'c> {
    /// Its first element.
    pub(super) start: GPtr<'c>,
    /// Whether it exists. Otherwise it is not read, but its address has to be one.
    pub(super) present: Bool<'c>,
    /// Elements from slice to slice.
    pub(super) stride: Int<'c>,
    /// Pieces of eight elements stand at their place xor this.
    pub(super) turn: Int<'c>,
    /// Whether whole slices are there, zeros behind the last element.
    pub(super) padded: Bool<'c>,
}

impl<'c> Carry<'c> for Row<'c> {
    fn visit(&self, visit: &mut dyn FnMut(u32, &'static str)) {
        ((self.start, self.present), (self.stride, self.turn, self.padded)).visit(visit);
    }

    fn fresh(&self, fresh: &mut dyn FnMut() -> u32) -> Self {
        let ((start, present), (stride, turn, padded)) =
            ((self.start, self.present), (self.stride, self.turn, self.padded)).fresh(fresh);
        Self { start, present, stride, turn, padded }
    }
}

/// How a slice of an operand lies in shared memory: rows of `inner` elements, `pitch` bytes apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Bytes of an element.
    pub(super) element: u32,
    /// Elements of a row of a slice.
    pub(super) inner: u32,
    /// Bytes from row to row.
    pub(super) pitch: u32,
    /// Pieces of 16 bytes stand at their place xor the row's place in its group of eight, so that
    /// the same piece of eight neighbouring rows lies in eight different banks.
    pub(super) swizzled: bool,
}

impl Layout {
    /// The byte of a slice at which the piece of a row begins that is `byte` bytes along it.
    pub(super) fn place<'c>(self, row: Int<'c>, byte: Int<'c>) -> Int<'c> {
        let start = row * self.pitch;
        if self.swizzled {
            let piece = (byte >> 4) ^ (row & 7);
            start + ((piece << 4) | (byte & 15))
        } else {
            start + byte
        }
    }
}

/// Sums of one thread, in an order that only the core knows.
pub(super) type Sums<'c> = Vec<Float<'c>>;

/// Arithmetic on slices.
pub(super) trait Core {
    /// What the arithmetic is made of, human-readable.
    fn name(&self) -> &'static str;

    /// How it wants slices to lie.
    fn layout(&self) -> Layout;

    /// Zeros, as many as a thread has sums.
    fn zeros<'c>(&self, code: &'c Code) -> Sums<'c>;

    /// Adds the products of a slice: `a` has the tile's rows, `b` its columns.
    fn add<'c>(&self, code: &'c Code, a: SPtr<'c>, b: SPtr<'c>, sums: Sums<'c>) -> Sums<'c>;

    /// Writes the sums to `to`, an f32 matrix of the tile's rows, `pitch` elements apart.
    fn spill<'c>(&self, code: &'c Code, to: SPtr<'c>, pitch: u32, sums: &Sums<'c>);

    /// Blocks that a multiprocessor should hold.
    fn min_blocks(&self) -> u32;

    /// What it needs of the target.
    fn features(&self) -> Vec<Feature>;
}
