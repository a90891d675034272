//! Matmuls with epilogue.

use std::ops::Range;

use skipc_artifact::target::DType;
use skipc_ir::interp::Number;
use skipc_ir::interp::functions::dot;

use super::element::Element;
use super::fault::Fault;
use super::memory::Frame;
use super::pointwise;
use crate::kernel::{BLOCK_TERMS, Gemm, Part, SWIZZLE_TERMS, Slot, Sum, WeightLayout};

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
            part.sums.iter().map(|sum| load_weight(frame, gemm, part, *sum)).collect::<Result<_, _>>()?,
        );
    }
    for tile in tiles {
        // The whole tile's operand is read before any of its results is written.
        let a: Vec<Vec<N>> =
            tile.clone().map(|row| frame.load(gemm.a, row, gemm.k)).collect::<Result<_, _>>()?;
        for (part, weights) in gemm.parts.iter().zip(&weights) {
            let n = part.n as usize;
            let sums: Vec<Vec<N>> =
                weights.iter().map(|weight| matmul(&a, weight, gemm.k as usize)).collect();
            for (within, row) in tile.clone().enumerate() {
                let sums: Vec<&[N]> = sums.iter().map(|sum| &sum[within * n..(within + 1) * n]).collect();
                pointwise::run_row(frame, &part.epilogue, row, part.n, &sums)?;
            }
        }
    }
    Ok(())
}

/// What makes each column of a sum, column by column.
fn load_weight<N: Element>(
    frame: &Frame<'_, '_, '_, N>,
    gemm: &Gemm,
    part: &Part,
    sum: Sum,
) -> Result<Vec<N>, Fault> {
    let dtype = match part.layout {
        WeightLayout::Levels => DType::I8,
        layout if layout.is_plain() => frame.param(sum.weight)?.dtype,
        _ => frame.param(gemm.a.slot)?.dtype,
    };
    let outputs = (sum.row, part.n);
    let mut weight = load_matrix(frame, (sum.weight, dtype), part.layout, (outputs, gemm.k))?;
    if let Some(scales) = sum.scales {
        let k = gemm.k.div_ceil(BLOCK_TERMS);
        let scales = load_matrix(frame, (scales, DType::Bf16), WeightLayout::Panels, (outputs, k))?;
        let rows = weight.chunks_exact_mut(gemm.k as usize).zip(scales.chunks_exact(k as usize));
        for (levels, scale) in rows.flat_map(|(row, scales)| row.chunks_mut(BLOCK_TERMS as usize).zip(scales))
        {
            levels.iter_mut().for_each(|level| *level = level.mul(*scale));
        }
    }
    Ok(weight)
}

/// The factors of some outputs of a matrix of this type, output by output.
fn load_matrix<N: Element>(
    frame: &Frame<'_, '_, '_, N>,
    (slot, wanted): (Slot, DType),
    layout: WeightLayout,
    ((row, n), k): ((u32, u32), u32),
) -> Result<Vec<N>, Fault> {
    let param = frame.param(slot)?;
    let end = u64::from(row) + u64::from(n);
    let (rows, cols) = (frame.n_rows(slot)?, u64::from(param.cols));
    let dtype = param.dtype;
    // Where outputs lie side by side, there may be more of them than the sum takes.
    let (outputs, is_across) = match layout {
        WeightLayout::Rows | WeightLayout::Panels | WeightLayout::Levels => (end, false),
        WeightLayout::Columns => (cols.max(end), true),
        WeightLayout::Swizzled => ((cols / u64::from(SWIZZLE_TERMS)).max(end), true),
    };
    let shape = u32::try_from(outputs).ok().and_then(|outputs| layout.shape((outputs, k), dtype));
    let fits = shape.is_some_and(|(least, wanted)| {
        let (least, wanted) = (u64::from(least), u64::from(wanted));
        wanted == cols && if is_across { least == rows } else { least <= rows }
    });
    if !fits || dtype != wanted {
        return Err(Fault::Malformed(format!(
            "weight `{}` should be {wanted} and make {end} columns of {k} {layout:?}, but is {dtype} [{rows}, {cols}]",
            param.name,
        )));
    }
    let mut weight = Vec::with_capacity(n as usize * k as usize);
    if layout == WeightLayout::Rows {
        for row in u64::from(row)..end {
            weight.extend(frame.load_reals(slot, row, 0, k)?);
        }
        return Ok(weight);
    }
    let cols = param.cols;
    let all: Vec<Vec<N>> =
        (0..rows).map(|row| frame.load_reals(slot, row, 0, cols)).collect::<Result<_, _>>()?;
    for output in u64::from(row)..end {
        weight.extend((0..u64::from(k)).map(|inner| {
            let (row, col) = layout.place((output, inner), k, dtype);
            all[row as usize][col as usize]
        }));
    }
    Ok(weight)
}

fn matmul<N: Number>(a: &[Vec<N>], weight: &[N], k: usize) -> Vec<N> {
    let mut sums = Vec::new();
    for row in a {
        sums.extend(weight.chunks_exact(k.max(1)).map(|weight| dot(row, weight)));
    }
    sums
}
