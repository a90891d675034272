//! What the pieces of a product's code agree on: where the tile lies, how slices lie in shared memory,
//! and what makes sums from them.

use skipc_llvm::Feature;

use crate::code::{Code, Float, Int, SPtr};

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
    /// What the arithmetic is made of, for people.
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
