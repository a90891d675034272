//! Executes kernels and plans on the host, row tile by row tile: the judge of what a plan means.
//!
//! # Numbers
//!
//! Elements are loaded from their type, arithmetic is f32 with `exp` and `tanh` of the `libm` crate, and a store
//! rounds to nearest, ties to even. Sums (matmuls, attention scores and mixes, statistics of norms) are accumulated in
//! f64 and rounded to f32 once, so that the interpreter has no order of summation of its own to defend and results do
//! not depend on the size of a tile.
//!
//! # What it checks
//!
//! Every access: the element exists, the parameter declares the access, its type fits, and (in a layout) the value was
//! written by the buffer that is read, not left over from another one in the same place or never written at all. Row
//! lists ascend, keys are ordered, counts keep their bounds. It does not look for accesses that depend on the order
//! of tiles; run with [`Tiling::reversed`] and compare.

mod attention;
mod compact;
mod fault;
mod gemm;
mod layout;
mod memory;
mod pointwise;
mod rowwise;
#[cfg(test)]
mod tests;

use std::ops::Range;

use memory::{Frame, Memory, Place};
use skipc_artifact::program::Extent;

use crate::kernel::{Body, Kernel};

pub use fault::Fault;
pub use layout::{Batch, GateOutcome, Mode, Outcome, POISON_BYTE, POISON_F32, poison, run_layout};

/// How a kernel's rows are cut into tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// Rows of a tile, at least 1.
    pub rows: u32,
    /// Whether the last tile runs first. Tiles are independent, so this changes nothing in a kernel that is right.
    pub reversed: bool,
}

impl Tiling {
    /// Tiles of this many rows, in order.
    pub fn of(rows: u32) -> Tiling {
        Tiling { rows, reversed: false }
    }

    fn tiles(self, n_rows: u32) -> Result<Vec<Range<u32>>, Fault> {
        if self.rows == 0 {
            return Err(Fault::BadOperand("a tile needs at least one row".to_owned()));
        }
        let begins = (0..n_rows).step_by(self.rows as usize);
        let mut tiles: Vec<Range<u32>> =
            begins.map(|begin| begin..begin.saturating_add(self.rows).min(n_rows)).collect();
        if self.reversed {
            tiles.reverse();
        }
        Ok(tiles)
    }
}

/// Runs a kernel over one byte buffer for each parameter, in order: little-endian elements, row by row without gaps.
/// Elements that the kernel does not write keep their bytes.
///
/// # Errors
/// The first [`Fault`]; the operands are then left as they were before.
pub fn run_kernel(kernel: &Kernel, operands: &mut [Vec<u8>], tiling: Tiling) -> Result<(), Fault> {
    let mut places = Vec::with_capacity(operands.len());
    let mut memory = Memory { arena: Vec::new(), owners: Vec::new(), constants: &[] };
    for (operand, owner) in operands.iter().zip(1..) {
        let begin = memory.arena.len();
        memory.arena.extend_from_slice(operand);
        memory.owners.resize(memory.arena.len(), owner);
        places.push(Place::Arena(begin..memory.arena.len(), owner));
    }
    run(kernel, &mut memory, places.clone(), tiling)?;
    for (operand, place) in operands.iter_mut().zip(&places) {
        operand.copy_from_slice(memory.bytes(place));
    }
    Ok(())
}

fn run(kernel: &Kernel, memory: &mut Memory<'_>, places: Vec<Place>, tiling: Tiling) -> Result<(), Fault> {
    let mut frame = Frame::new(kernel, memory, places)?;
    check_params(kernel)?;
    let n_rows = frame.extent(kernel.extent)?;
    let tiles = tiling.tiles(n_rows)?;
    match &kernel.body {
        Body::Gemm(gemm) => gemm::run(&mut frame, gemm, &tiles),
        Body::Attention(attention) => attention::run(&mut frame, attention, &tiles),
        Body::Rowwise(rowwise) => rowwise::run(&mut frame, rowwise, &tiles),
        Body::Compact(compact) => compact::run(&mut frame, compact, n_rows),
    }
}

fn check_params(kernel: &Kernel) -> Result<(), Fault> {
    match kernel.extent {
        Extent::Counted { count, .. } if count as usize >= kernel.params.len() => Err(Fault::NoParam(count)),
        Extent::Counted { .. } | Extent::Fixed(_) => Ok(()),
    }
}
