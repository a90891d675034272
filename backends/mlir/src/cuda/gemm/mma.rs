//! Tensor-core arithmetic on bf16 slices.
//!
//! Slices have rows of 64 elements (128 bytes), swizzled. Warps stand in a grid of 2 rows over the
//! tile, or side by side if it has 16 rows; a warp makes 16×8 blocks of sums with `mma.m16n8k16`, whose operands `ldmatrix` brings.

use skipc_llvm::Feature;
use skipc_plan::kernel::SWIZZLE_TERMS;

use super::Tile;
use super::tile::{Core, Layout, Sums};
use crate::code::{Code, F32, I8, Int, SPtr, V2, Val};

/// Warps along the rows of the tile, at most.
const WARP_ROWS: u32 = 2;

/// Elements of a row of a slice.
const INNER: u32 = 64;
const _: () = assert!(INNER == SWIZZLE_TERMS, "a row of swizzled weights is a slice");

/// Bytes of a row of a slice.
const PITCH: u32 = 128;

/// Tensor-core arithmetic for a tile.
pub(super) fn core(tile: Tile) -> Box<dyn Core> {
    let warp_rows = WARP_ROWS.min(tile.rows / 16);
    let warp_cols = tile.threads / 32 / warp_rows;
    let core = MmaCore { rows: tile.rows / warp_rows, cols: tile.cols / warp_cols, warp_cols };
    debug_assert!(core.rows.is_multiple_of(16) && core.cols.is_multiple_of(16));
    Box::new(core)
}

struct MmaCore {
    /// Rows of a warp.
    rows: u32,
    /// Columns of a warp.
    cols: u32,
    /// Warps along the columns.
    warp_cols: u32,
}

impl MmaCore {
    /// Blocks of 16 rows.
    fn row_blocks(&self) -> u32 {
        self.rows / 16
    }

    /// Blocks of 8 columns.
    fn col_blocks(&self) -> u32 {
        self.cols / 8
    }

    /// First row and first column of this thread's warp.
    fn corner<'c>(&self, code: &'c Code) -> (Int<'c>, Int<'c>) {
        let warp = code.thread() / 32;
        (warp / self.warp_cols * self.rows, warp % self.warp_cols * self.cols)
    }

    /// Index of the first of four sums.
    fn sum(&self, row_block: u32, col_block: u32) -> usize {
        ((row_block * self.col_blocks() + col_block) * 4) as usize
    }
}

impl Core for MmaCore {
    fn name(&self) -> &'static str {
        "mma.sync"
    }

    fn layout(&self) -> Layout {
        Layout { element: 2, inner: INNER, pitch: PITCH, swizzled: true }
    }

    fn zeros<'c>(&self, code: &'c Code) -> Sums<'c> {
        let n = self.sum(self.row_blocks(), 0);
        let zero = code.float(0.0);
        vec![zero; n]
    }

    fn add<'c>(&self, code: &'c Code, a: SPtr<'c>, b: SPtr<'c>, sums: Sums<'c>) -> Sums<'c> {
        let mut sums = sums;
        let lane = code.thread() % 32;
        let (warp_row, warp_col) = self.corner(code);
        // Rows of blocks begin at multiples of 8, so a lane's row has the lane's own place in its
        // group of eight, and the swizzle does not depend on the block.
        // Left operand: matrices (rows 0-7, k 0-7), (8-15, 0-7), (0-7, 8-15), (8-15, 8-15).
        let a_row = warp_row + lane % 16;
        let a_piece = lane / 16;
        // Weights: matrices (columns 0-7, k 0-7), (0-7, 8-15), (8-15, 0-7), (8-15, 8-15).
        let b_row = warp_col + (lane % 8 + lane / 16 * 8);
        let b_piece = lane / 8 % 2;
        for step in 0..INNER / 16 {
            let a_at = self.layout().place(a_row, (a_piece + step * 2) * 16);
            let b_at = self.layout().place(b_row, (b_piece + step * 2) * 16);
            let a_words: Vec<[Int<'c>; 4]> = (0..self.row_blocks())
                .map(|block| code.load_matrices(a.at::<I8>(a_at + block * 16 * PITCH)))
                .collect();
            for pair in 0..self.col_blocks() / 2 {
                let [b0, b1, b2, b3] = code.load_matrices(b.at::<I8>(b_at + pair * 16 * PITCH));
                for (row_block, a_words) in (0u32..).zip(&a_words) {
                    for (col_block, b_words) in [(pair * 2, [b0, b1]), (pair * 2 + 1, [b2, b3])] {
                        let at = self.sum(row_block, col_block);
                        let old = [sums[at], sums[at + 1], sums[at + 2], sums[at + 3]];
                        let new = code.mma(*a_words, b_words, old);
                        sums[at..at + 4].copy_from_slice(&new);
                    }
                }
            }
        }
        sums
    }

    fn spill<'c>(&self, code: &'c Code, to: SPtr<'c>, pitch: u32, sums: &Sums<'c>) {
        let lane = code.thread() % 32;
        let (warp_row, warp_col) = self.corner(code);
        let row = warp_row + lane / 4;
        let col = warp_col + lane % 4 * 2;
        let start = to.at::<F32>(row * pitch + col);
        for row_block in 0..self.row_blocks() {
            for col_block in 0..self.col_blocks() {
                let at = self.sum(row_block, col_block);
                let offset = row_block * 16 * pitch + col_block * 8;
                start.at::<F32>(offset).store(Val::<V2<F32>>::pair([sums[at], sums[at + 1]]));
                let lower = start.at::<F32>(offset + 8 * pitch);
                lower.store(Val::<V2<F32>>::pair([sums[at + 2], sums[at + 3]]));
            }
        }
    }

    fn min_blocks(&self) -> u32 {
        // Two blocks of the large tile fill the registers of a multiprocessor at 128 each.
        2
    }

    fn features(&self) -> Vec<Feature> {
        vec![Feature::MmaBf16, Feature::CpAsync, Feature::LdMatrix, Feature::CvtBf16x2]
    }
}
