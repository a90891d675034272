//! Matmuls with epilogue.

use std::ops::Range;

use skipc_ir::interp::Number;
use skipc_ir::interp::functions::dot;

use super::element::Element;
use super::fault::Fault;
use super::memory::Frame;
use super::pointwise;
use crate::kernel::{Gemm, Slot};

pub(super) fn run<N: Element>(
    frame: &mut Frame<'_, '_, '_, N>,
    gemm: &Gemm,
    tiles: &[Range<u32>],
) -> Result<(), Fault> {
    if tiles.is_empty() {
        return Ok(());
    }
    let weights: Vec<Vec<N>> =
        gemm.weights.iter().map(|weight| load_weight(frame, gemm, *weight)).collect::<Result<_, _>>()?;
    let n = gemm.n as usize;
    for tile in tiles {
        // The whole tile's operand is read before any of its results is written.
        let a: Vec<Vec<N>> =
            tile.clone().map(|row| frame.load(gemm.a, row, gemm.k)).collect::<Result<_, _>>()?;
        let sums: Vec<Vec<N>> = weights.iter().map(|weight| product(&a, weight, gemm.k as usize)).collect();
        for (within, row) in tile.clone().enumerate() {
            let sums: Vec<&[N]> = sums.iter().map(|sum| &sum[within * n..(within + 1) * n]).collect();
            pointwise::run_row(frame, &gemm.epilogue, row, gemm.n, &sums)?;
        }
    }
    Ok(())
}

fn load_weight<N: Element>(frame: &Frame<'_, '_, '_, N>, gemm: &Gemm, slot: Slot) -> Result<Vec<N>, Fault> {
    let (param, a) = (frame.param(slot)?, frame.param(gemm.a.slot)?);
    if param.cols != gemm.k || frame.n_rows(slot)? != u64::from(gemm.n) || param.dtype != a.dtype {
        return Err(Fault::Malformed(format!(
            "weight `{}` should be {} [{}, {}], but is {} [{}, {}]",
            param.name,
            a.dtype,
            gemm.n,
            gemm.k,
            param.dtype,
            frame.n_rows(slot)?,
            param.cols
        )));
    }
    let mut weight = Vec::with_capacity(gemm.n as usize * gemm.k as usize);
    for row in 0..gemm.n {
        weight.extend(frame.load_reals(slot, u64::from(row), 0, gemm.k)?);
    }
    Ok(weight)
}

fn product<N: Number>(a: &[Vec<N>], weight: &[N], k: usize) -> Vec<N> {
    let mut sums = Vec::new();
    for row in a {
        sums.extend(weight.chunks_exact(k.max(1)).map(|weight| dot(row, weight)));
    }
    sums
}
