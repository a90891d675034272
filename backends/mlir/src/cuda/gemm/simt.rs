//! Multiply-add arithmetic on f32 slices.
//!
//! Threads stand in a grid 16 wide over the tile. A thread's rows and columns are a grid width or
//! height apart, so that the lanes of a warp read neighbouring rows of a slice: those are 80 bytes
//! apart, and a read of 16 bytes in each of eight rows touches every bank once.

use skipc_llvm::Feature;

use super::Tile;
use super::tile::{Core, Layout, Sums};
use crate::code::{Arith, Code, F32, Float, I8, Int, SPtr, V4};

/// Threads along the columns.
const ACROSS: u32 = 16;

/// Elements of a row of a slice.
const INNER: u32 = 16;

/// Bytes from row to row of a slice: 16 elements and 16 bytes.
const PITCH: u32 = 80;

/// Multiply-add arithmetic for a tile.
pub(super) fn core(tile: Tile) -> Box<dyn Core> {
    Box::new(SimtCore { tile })
}

struct SimtCore {
    tile: Tile,
}

impl SimtCore {
    /// Threads along the rows.
    fn down(&self) -> u32 {
        self.tile.threads / ACROSS
    }

    /// Rows of a thread.
    fn rows(&self) -> u32 {
        self.tile.rows / self.down()
    }

    /// Columns of a thread.
    fn cols(&self) -> u32 {
        self.tile.cols / ACROSS
    }

    /// This thread's place in the grid: along the columns, along the rows.
    fn at<'c>(&self, code: &'c Code) -> (Int<'c>, Int<'c>) {
        (code.thread() % ACROSS, code.thread() / ACROSS)
    }

    fn sum(&self, row: u32, col: u32) -> usize {
        (row * self.cols() + col) as usize
    }
}

impl Core for SimtCore {
    fn name(&self) -> &'static str {
        "multiply-add"
    }

    fn layout(&self) -> Layout {
        Layout { element: 4, inner: INNER, pitch: PITCH, swizzled: false }
    }

    fn zeros<'c>(&self, code: &'c Code) -> Sums<'c> {
        let zero = code.float(0.0);
        vec![zero; self.sum(self.rows(), 0)]
    }

    fn add<'c>(&self, code: &'c Code, a: SPtr<'c>, b: SPtr<'c>, sums: Sums<'c>) -> Sums<'c> {
        let mut sums = sums;
        let (across, down) = self.at(code);
        let a = a.at::<I8>(down * PITCH);
        let b = b.at::<I8>(across * PITCH);
        for step in 0..INNER / 4 {
            let a_values: Vec<[Float<'c>; 4]> = (0..self.rows())
                .map(|row| a.at::<F32>((row * self.down() * PITCH) / 4 + step * 4).load::<V4<F32>>().items())
                .collect();
            for col in 0..self.cols() {
                let b_values = b.at::<F32>((col * ACROSS * PITCH) / 4 + step * 4).load::<V4<F32>>().items();
                for (row, a_values) in (0u32..).zip(&a_values) {
                    let at = self.sum(row, col);
                    for (a, b) in a_values.iter().zip(b_values) {
                        sums[at] = a.fma(b, sums[at]);
                    }
                }
            }
        }
        sums
    }

    fn spill<'c>(&self, code: &'c Code, to: SPtr<'c>, pitch: u32, sums: &Sums<'c>) {
        let (across, down) = self.at(code);
        let start = to.at::<F32>(down * pitch + across);
        for row in 0..self.rows() {
            for col in 0..self.cols() {
                let offset = row * self.down() * pitch + col * ACROSS;
                start.at::<F32>(offset).store(sums[self.sum(row, col)]);
            }
        }
    }

    fn min_blocks(&self) -> u32 {
        // Sums and one slice's operands of the large tile take more than half of the registers that
        // two blocks would leave to a thread.
        if self.tile.threads == 256 { 1 } else { 2 }
    }

    fn features(&self) -> Vec<Feature> {
        vec![Feature::CpAsync]
    }
}
