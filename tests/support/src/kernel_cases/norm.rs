//! Norms, and what they scale rows by.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Body, NormKind, Rowwise, View};
use skipc_plan::pointwise::Real;

use super::Case;
use super::draft::{Draft, Set, Values, dense, listed};
use crate::tolerance::Exactness;

/// Widths of rows that fit vectors and that do not.
const COLS: [u32; 11] = [1, 2, 3, 7, 16, 30, 64, 96, 97, 128, 515];

pub(super) fn add(cases: &mut Vec<Case>) {
    for dtype in [DType::F32, DType::Bf16] {
        for cols in COLS {
            for layer in [false, true] {
                cases.push(norm((dtype, dtype), cols, (9, 12), layer));
            }
            cases.push(row_scale(dtype, cols, (9, 12)));
        }
        for rows in [0, 1, 63, 64, 65, 128] {
            cases.push(norm((dtype, dtype), 24, (rows, 130), false));
            cases.push(norm((dtype, dtype), 24, (rows, 130), true));
            cases.push(row_scale(dtype, 24, (rows, 130)));
        }
        for set in Set::ALL {
            cases.push(gathered_norm(dtype, set));
            cases.push(gathered_row_scale(dtype, set));
        }
        for (groups, cols) in [(4, 64), (2, 16), (3, 21), (5, 640), (1, 8)] {
            for layer in [false, true] {
                cases.push(norm_of_groups(dtype, (groups, cols), (9, 12), layer));
            }
        }
        for rows in [0, 1, 63, 64, 65] {
            cases.push(norm_of_groups(dtype, (2, 24), (rows, 130), false));
        }
        cases.push(extreme_rows(dtype, false));
        cases.push(extreme_rows(dtype, true));
        for cols in [32, 97, 256] {
            cases.push(rows_far_from_zero(dtype, cols, false));
            cases.push(rows_far_from_zero(dtype, cols, true));
        }
    }
    cases.push(norm((DType::Bf16, DType::F32), 64, (5, 8), false));
    cases.push(norm((DType::F32, DType::Bf16), 64, (5, 8), true));
}

fn kind(draft: &mut Draft, cols: u32, layer: bool) -> NormKind {
    match layer {
        false => NormKind::Rms,
        true => NormKind::Layer { bias: draft.reals("bias", (DType::F32, 1, cols), 1, Values::Within(1.0)) },
    }
}

fn norm((dtype, out): (DType, DType), cols: u32, (rows, bound): (u32, u32), layer: bool) -> Case {
    let name = if layer { "layer_norm" } else { "rms_norm" };
    let mut draft = Draft::new(format!("{name}_{dtype}_{out}_{cols}_rows_{rows}_of_{bound}"));
    let x = draft.reals("x", (dtype, bound, cols), rows, Values::Within(3.0));
    let gain = draft.reals("gain", (DType::F32, 1, cols), 1, Values::Within(2.0));
    let kind = kind(&mut draft, cols, layer);
    let out = draft.output("out", (out, bound, cols));
    let extent = draft.counted(rows, bound);
    let norm = Rowwise::Norm { kind, eps: Real::from(1e-6), cols, groups: 1, x: dense(x), gain, out };
    draft.finish(extent, Body::Rowwise(norm), Exactness::Chain)
}

/// A norm for each group of `cols / groups` columns, with one gain.
fn norm_of_groups(dtype: DType, (groups, cols): (u32, u32), (rows, bound): (u32, u32), layer: bool) -> Case {
    let name = if layer { "layer_norm" } else { "rms_norm" };
    let mut draft = Draft::new(format!("{name}_{dtype}_{groups}_groups_of_{cols}_rows_{rows}_of_{bound}"));
    let x = draft.reals("x", (dtype, bound, cols), rows, Values::Within(3.0));
    let gain = draft.reals("gain", (DType::F32, 1, cols / groups), 1, Values::Within(2.0));
    let kind = kind(&mut draft, cols / groups, layer);
    let out = draft.output("out", (dtype, bound, cols));
    let extent = draft.counted(rows, bound);
    let norm = Rowwise::Norm { kind, eps: Real::from(1e-6), cols, groups, x: dense(x), gain, out };
    draft.finish(extent, Body::Rowwise(norm), Exactness::Chain)
}

fn gathered_norm(dtype: DType, set: Set) -> Case {
    let mut draft = Draft::new(format!("rms_norm_{dtype}_gathered_{}", set.name()));
    let (n_tokens, bound, cols) = (70, 72, 40);
    let rows = set.rows(n_tokens, &mut draft);
    let x = draft.reals("x", (dtype, bound, 56), n_tokens, Values::Within(1.0));
    let list = draft.column("rows", bound, &rows);
    let gain = draft.reals("gain", (DType::F32, 1, cols), 1, Values::Within(2.0));
    let out = draft.output("out", (dtype, bound, cols));
    let extent = draft.counted(rows.len() as u32, bound);
    let x = View { col: 16, ..listed(x, list) };
    let norm = Rowwise::Norm { kind: NormKind::Rms, eps: Real::from(1e-5), cols, groups: 1, x, gain, out };
    draft.finish(extent, Body::Rowwise(norm), Exactness::Chain)
}

fn row_scale(dtype: DType, cols: u32, (rows, bound): (u32, u32)) -> Case {
    let mut draft = Draft::new(format!("inv_rms_{dtype}_{cols}_rows_{rows}_of_{bound}"));
    let x = draft.reals("x", (dtype, bound, cols), rows, Values::Within(3.0));
    let out = draft.output("out", (DType::F32, bound, 1));
    let extent = draft.counted(rows, bound);
    let scale = Rowwise::RowScale { eps: Real::from(1e-6), cols, x: dense(x), out };
    draft.finish(extent, Body::Rowwise(scale), Exactness::Chain)
}

fn gathered_row_scale(dtype: DType, set: Set) -> Case {
    let mut draft = Draft::new(format!("inv_rms_{dtype}_gathered_{}", set.name()));
    let (n_tokens, bound, cols) = (70, 72, 40);
    let rows = set.rows(n_tokens, &mut draft);
    let x = draft.reals("x", (dtype, bound, 56), n_tokens, Values::Within(1.0));
    let list = draft.column("rows", bound, &rows);
    let out = draft.output("out", (DType::F32, bound, 1));
    let extent = draft.counted(rows.len() as u32, bound);
    let x = View { col: 16, ..listed(x, list) };
    let scale = Rowwise::RowScale { eps: Real::from(1e-5), cols, x, out };
    draft.finish(extent, Body::Rowwise(scale), Exactness::Chain)
}

/// Rows of zeros, of one value, tiny, huge, and far from zero with little spread.
fn extreme_rows(dtype: DType, layer: bool) -> Case {
    let name = if layer { "layer_norm" } else { "rms_norm" };
    let mut draft = Draft::new(format!("{name}_{dtype}_extreme_rows"));
    let cols = 48;
    let noise = draft.random(cols, Values::Within(1.0));
    let mut values = vec![0.0; cols];
    values.extend(vec![3.0; cols]);
    values.extend(noise.iter().map(|x| x * 1e-4));
    values.extend(noise.iter().map(|x| x * 1e6));
    values.extend(noise.iter().map(|x| x + 20.0));
    finish(draft, dtype, &values, cols, layer)
}

/// Rows whose mean is many times what they spread by: of one value, and with a spread of a thousandth and less.
fn rows_far_from_zero(dtype: DType, cols: usize, layer: bool) -> Case {
    let name = if layer { "layer_norm" } else { "rms_norm" };
    let mut draft = Draft::new(format!("{name}_{dtype}_{cols}_far_from_zero"));
    // Of a standard deviation of 1.
    let noise = draft.random(cols, Values::Within(3f64.sqrt()));
    let mut values: Vec<f64> =
        [7.1, 1234.0, 1234.1, -0.3].iter().flat_map(|value| vec![*value; cols]).collect();
    values.extend(noise.iter().map(|x| x + 1000.0));
    values.extend(noise.iter().map(|x| 1e-3 * x - 1.0));
    values.extend(noise.iter().map(|x| 0.1 * x + 3e4));
    finish(draft, dtype, &values, cols, layer)
}

/// The norm of these rows of `cols` elements.
fn finish(mut draft: Draft, dtype: DType, values: &[f64], cols: usize, layer: bool) -> Case {
    let (rows, cols) = ((values.len() / cols) as u32, cols as u32);
    let x = draft.matrix("x", (dtype, rows, cols), values);
    let gain = draft.reals("gain", (DType::F32, 1, cols), 1, Values::Within(2.0));
    let kind = kind(&mut draft, cols, layer);
    let out = draft.output("out", (dtype, rows, cols));
    let extent = draft.counted(rows, rows);
    let norm = Rowwise::Norm { kind, eps: Real::from(1e-5), cols, groups: 1, x: dense(x), gain, out };
    draft.finish(extent, Body::Rowwise(norm), Exactness::Chain)
}
