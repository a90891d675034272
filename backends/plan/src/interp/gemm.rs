//! Matmuls with epilogue.

use std::ops::Range;

use super::fault::Fault;
use super::memory::Frame;
use super::pointwise;
use crate::kernel::{Gemm, Slot};

pub(super) fn run(frame: &mut Frame<'_, '_, '_>, gemm: &Gemm, tiles: &[Range<u32>]) -> Result<(), Fault> {
    if tiles.is_empty() {
        return Ok(());
    }
    let weights: Vec<Vec<f32>> =
        gemm.weights.iter().map(|weight| load_weight(frame, gemm, *weight)).collect::<Result<_, _>>()?;
    let n = gemm.n as usize;
    for tile in tiles {
        // The whole tile's operand is read before any of its results is written.
        let a: Vec<Vec<f32>> =
            tile.clone().map(|row| frame.load(gemm.a, row, gemm.k)).collect::<Result<_, _>>()?;
        let sums: Vec<Vec<f32>> = weights.iter().map(|weight| product(&a, weight, gemm.k as usize)).collect();
        for (within, row) in tile.clone().enumerate() {
            let sums: Vec<&[f32]> = sums.iter().map(|sum| &sum[within * n..(within + 1) * n]).collect();
            pointwise::run_row(frame, &gemm.epilogue, row, gemm.n, &sums)?;
        }
    }
    Ok(())
}

fn load_weight(frame: &Frame<'_, '_, '_>, gemm: &Gemm, slot: Slot) -> Result<Vec<f32>, Fault> {
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

fn product(a: &[Vec<f32>], weight: &[f32], k: usize) -> Vec<f32> {
    let mut sums = Vec::new();
    for row in a {
        sums.extend(weight.chunks_exact(k.max(1)).map(|weight| dot(row, weight)));
    }
    sums
}

/// `Σ a · b` in f64, rounded once. Eight partial sums, so that the processor can work on several at once.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f64; 8];
    let (a_chunks, a_rest) = a.as_chunks::<8>();
    let (b_chunks, b_rest) = b.as_chunks::<8>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..8 {
            sums[lane] += f64::from(a[lane]) * f64::from(b[lane]);
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    (sums.iter().sum::<f64>() + rest) as f32
}
