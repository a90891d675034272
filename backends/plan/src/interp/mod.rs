//! Executes kernels and plans on the host, row tile by row tile: the oracle of what a plan means.
//!
//! # Numbers
//!
//! In f32, elements are loaded from their type, `exp` and `tanh` are those of the `libm` crate, and a store rounds to
//! nearest, ties to even. Sums (matmuls, attention scores and mixes, statistics of norms) are accumulated in f64 and
//! rounded to f32 once, so that the interpreter has no order of summation of its own to defend and results do not
//! depend on the size of a tile. In the other domains ([`Element`]) nothing rounds but the arithmetic itself, and
//! constants are made from their recipe ([`Constants`]): there a plan computes what its graph does.
//!
//! # What it checks
//!
//! Every access: the element exists, the parameter declares the access, its type fits, and (in a function) the value was
//! written by the buffer that is read, not left over from another one in the same place or never written at all. Row
//! lists that are written by have no row twice, keys are ordered, counts keep their bounds. It does not look for accesses that depend on the order
//! of tiles; run with [`Tiling::reversed`] and compare.

mod along;
mod attention;
mod compact;
mod element;
mod fault;
mod function;
mod gemm;
mod grouped;
mod limit;
mod loops;
mod memory;
mod pending;
mod pointwise;
mod rowwise;
#[cfg(test)]
mod tests;
mod update;

use std::ops::Range;

use memory::{Allocation, Frame, Memory, decode};
use skipc_artifact::program::Extent;
use skipc_artifact::target::DType;

use crate::kernel::{Body, Kernel};

pub use element::Element;
pub use fault::Fault;
pub use function::{
    Cached, ChoiceOutcome, Constants, GateOutcome, Mode, Outcome, POISON_BYTE, POISON_F32, States, StepInput,
    Tensor, poison, run_function, run_plan_in,
};

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
    let mut end = 0_usize;
    for (operand, owner) in operands.iter().zip(1..) {
        let begin = end.next_multiple_of(memory::ALIGN);
        end = begin + operand.len();
        places.push((begin..end, owner));
    }
    let mut memory = Memory::<f32>::new(end, &[]);
    for ((range, owner), (operand, param)) in places.iter().zip(operands.iter().zip(&kernel.params)) {
        memory.arena[range.clone()].copy_from_slice(operand);
        memory.owners[range.clone()].fill(*owner);
        memory.set_reals(range.start, param.dtype, decode::<f32>(param.dtype, operand));
    }
    let arena = |(range, owner): &(Range<usize>, memory::Owner)| Allocation::Arena(range.clone(), *owner);
    run(kernel, &mut memory, places.iter().map(arena).collect(), tiling)?;
    for (operand, ((range, _), param)) in operands.iter_mut().zip(places.iter().zip(&kernel.params)) {
        let n = operand.len() / param.dtype.size() as usize;
        let reals = memory.reals(range.start, param.dtype, n);
        match param.dtype {
            DType::F32 => operand.as_chunks_mut().0.iter_mut().zip(reals).for_each(|(word, real)| {
                *word = real.to_le_bytes();
            }),
            DType::Bf16 => operand.as_chunks_mut().0.iter_mut().zip(reals).for_each(|(word, real)| {
                *word = half::bf16::from_f32(real).to_le_bytes();
            }),
            DType::U32 | DType::U8 | DType::I8 => operand.copy_from_slice(&memory.arena[range.clone()]),
        }
    }
    Ok(())
}

fn run<N: Element>(
    kernel: &Kernel,
    memory: &mut Memory<'_, N>,
    places: Vec<Allocation>,
    tiling: Tiling,
) -> Result<(), Fault> {
    let mut frame = Frame::new(kernel, memory, places)?;
    check_params(kernel)?;
    let n_rows = frame.extent(kernel.extent)?;
    let tiles = tiling.tiles(n_rows)?;
    match &kernel.body {
        Body::Gemm(gemm) => gemm::run(&mut frame, gemm, &tiles),
        Body::Grouped(grouped) => grouped::run(&mut frame, grouped, &tiles),
        Body::Partition(partition) => grouped::run_partition(&mut frame, partition, n_rows),
        Body::Attention(attention) => attention::run(&mut frame, attention, &tiles),
        Body::CachedAttention(attention) => attention::run_cached(&mut frame, attention, &tiles),
        Body::Along(along) => along::run(&mut frame, along, n_rows, &tiles),
        Body::Rowwise(rowwise) => rowwise::run(&mut frame, rowwise, &tiles),
        Body::Compact(compact) => compact::run(&mut frame, compact, n_rows),
        Body::Pending(pending) => pending::run(&mut frame, pending, n_rows),
        Body::Update(update) => update::run(&mut frame, update, n_rows),
        Body::Loops(of) => loops::run(&mut frame, of, &tiles),
        Body::WeightGradient(of) => loops::weight_gradient(&mut frame, of, &tiles),
    }
}

fn check_params(kernel: &Kernel) -> Result<(), Fault> {
    match kernel.extent {
        Extent::Counted { count, .. } if count as usize >= kernel.params.len() => Err(Fault::NoParam(count)),
        Extent::Counted { .. } | Extent::Fixed(_) => Ok(()),
    }
}
