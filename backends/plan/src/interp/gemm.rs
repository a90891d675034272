//! Matmuls with epilogue.

use std::ops::Range;

use skipc_ir::interp::Number;
use skipc_ir::interp::functions::dot;

use super::element::Element;
use super::fault::Fault;
use super::memory::Frame;
use super::pointwise;
use crate::kernel::{Gemm, Sum};

pub(super) fn run<N: Element>(
    frame: &mut Frame<'_, '_, '_, N>,
    gemm: &Gemm,
    tiles: &[Range<u32>],
) -> Result<(), Fault> {
    if tiles.is_empty() {
        return Ok(());
    }
    let mut weights: Vec<Vec<Vec<N>>> = Vec::with_capacity(gemm.parts.len());
    for part in &gemm.parts {
        weights.push(
            part.sums.iter().map(|sum| load_weight(frame, gemm, *sum, part.n)).collect::<Result<_, _>>()?,
        );
    }
    for tile in tiles {
        // The whole tile's operand is read before any of its results is written.
        let a: Vec<Vec<N>> =
            tile.clone().map(|row| frame.load(gemm.a, row, gemm.k)).collect::<Result<_, _>>()?;
        for (part, weights) in gemm.parts.iter().zip(&weights) {
            let n = part.n as usize;
            let sums: Vec<Vec<N>> =
                weights.iter().map(|weight| product(&a, weight, gemm.k as usize)).collect();
            for (within, row) in tile.clone().enumerate() {
                let sums: Vec<&[N]> = sums.iter().map(|sum| &sum[within * n..(within + 1) * n]).collect();
                pointwise::run_row(frame, &part.epilogue, row, part.n, &sums)?;
            }
        }
    }
    Ok(())
}

/// The `n` rows of the weight of a sum.
fn load_weight<N: Element>(
    frame: &Frame<'_, '_, '_, N>,
    gemm: &Gemm,
    Sum { weight: slot, row }: Sum,
    n: u32,
) -> Result<Vec<N>, Fault> {
    let (param, a) = (frame.param(slot)?, frame.param(gemm.a.slot)?);
    let end = u64::from(row) + u64::from(n);
    if param.cols != gemm.k || frame.n_rows(slot)? < end || param.dtype != a.dtype {
        return Err(Fault::Malformed(format!(
            "weight `{}` should be {} [{end}, {}], but is {} [{}, {}]",
            param.name,
            a.dtype,
            gemm.k,
            param.dtype,
            frame.n_rows(slot)?,
            param.cols
        )));
    }
    let mut weight = Vec::with_capacity(n as usize * gemm.k as usize);
    for row in u64::from(row)..end {
        weight.extend(frame.load_reals(slot, row, 0, gemm.k)?);
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
