//! Backward passes of the ops that layers are made of.

use super::super::args::{Args, TypeError};
use crate::attr::F64;
use crate::elementwise::Unary;
use crate::interp::functions::{self, dot};
use crate::interp::{Datum, EvalError, Number};
use crate::rope::Frequencies;
use crate::ty::{Dim, Elem, Type};

pub(super) fn infer_weight_gradient(args: Args<'_>) -> Result<Type, TypeError> {
    let (_, rows, k) = args.token_matrix(0)?;
    let (_, dy_rows, out) = args.token_matrix(1)?;
    args.same_rows(1, rows, dy_rows)?;
    Ok(Type::tensor(Elem::F32, &[Dim::Fixed(out), Dim::Fixed(k)]))
}

pub(super) fn infer_input_gradient(args: Args<'_>) -> Result<Type, TypeError> {
    let (_, rows, out) = args.token_matrix(0)?;
    let (weight_out, k) = args.weight(1)?;
    if out != weight_out {
        return Err(args.wrong(1, format!("a weight real[{out}, in]")));
    }
    Ok(Type::tensor(Elem::Real, &[rows, Dim::Fixed(k)]))
}

/// Sums over the rows, and groups, of operand `idx`.
pub(super) fn infer_sums(args: Args<'_>, idx: usize, groups: Option<u32>) -> Result<Type, TypeError> {
    let (_, _, cols) = args.token_matrix(idx)?;
    Ok(Type::tensor(Elem::F32, &[Dim::Fixed(width(args, cols, groups)?)]))
}

/// Columns of a group.
fn width(args: Args<'_>, cols: u32, groups: Option<u32>) -> Result<u32, TypeError> {
    match groups {
        Some(groups) if groups == 0 || !cols.is_multiple_of(groups) => {
            Err(args.bad_attr("groups", format!("should divide the {cols} columns")))
        }
        groups => Ok(cols / groups.unwrap_or(1)),
    }
}

pub(super) fn infer_embed_gradient(args: Args<'_>, n_ids: u32) -> Result<Type, TypeError> {
    let (_, rows, cols) = args.token_matrix(0)?;
    args.ints(1, rows)?;
    if n_ids == 0 {
        return Err(args.bad_attr("rows", "should be at least 1"));
    }
    Ok(Type::tensor(Elem::F32, &[Dim::Fixed(n_ids), Dim::Fixed(cols)]))
}

/// Two matrices of one shape: the type of the first.
pub(super) fn infer_pair(args: Args<'_>) -> Result<Type, TypeError> {
    let (_, rows, cols) = args.token_matrix(0)?;
    let (_, b_rows, b_cols) = args.token_matrix(1)?;
    args.same_rows(1, rows, b_rows)?;
    if cols != b_cols {
        return Err(args.wrong(1, format!("a matrix of {cols} columns")));
    }
    Ok(args.ty(0).clone())
}

/// Two matrices of one shape: one number a row.
pub(super) fn infer_row_dot(args: Args<'_>) -> Result<Type, TypeError> {
    let rows = infer_pair(args)?.rows();
    Ok(Type::tensor(Elem::F32, &[rows, Dim::Fixed(1)]))
}

pub(super) fn infer_norm_gradient(args: Args<'_>, eps: F64, groups: Option<u32>) -> Result<Type, TypeError> {
    let result = super::super::norm::infer(args, eps, (1, groups))?;
    match *args.ty(2) == result {
        true => Ok(args.ty(0).clone()),
        false => Err(args.wrong(2, result.to_string())),
    }
}

pub(super) fn infer_place(args: Args<'_>, start: u32, cols: u32) -> Result<Type, TypeError> {
    let (elem, rows, len) = args.token_matrix(0)?;
    if start.checked_add(len).is_none_or(|end| end > cols) {
        return Err(args.bad_attr("cols", format!("should hold {len} columns from {start} on")));
    }
    Ok(Type::tensor(elem, &[rows, Dim::Fixed(cols)]))
}

pub(super) fn weight_gradient<N: Number>(x: &Datum<N>, dy: &Datum<N>) -> Result<Datum<N>, EvalError> {
    let ((k, x), (out, dy)) = (x.real()?, dy.real()?);
    let mut data = vec![N::ZERO; out * k];
    for (x, dy) in x.chunks_exact(k).zip(dy.chunks_exact(out)) {
        for (sums, dy) in data.chunks_exact_mut(k).zip(dy) {
            sums.iter_mut().zip(x).for_each(|(sum, x)| *sum = sum.add(dy.mul(*x)));
        }
    }
    Ok(Datum::Real { cols: k, data })
}

pub(super) fn input_gradient<N: Number>(dy: &Datum<N>, weight: &Datum<N>) -> Result<Datum<N>, EvalError> {
    let ((out, dy), (k, weight)) = (dy.real()?, weight.real()?);
    let mut data = vec![N::ZERO; dy.len() / out * k];
    for (sums, dy) in data.chunks_exact_mut(k).zip(dy.chunks_exact(out)) {
        for (weight, dy) in weight.chunks_exact(k).zip(dy) {
            sums.iter_mut().zip(weight).for_each(|(sum, weight)| *sum = sum.add(dy.mul(*weight)));
        }
    }
    Ok(Datum::Real { cols: k, data })
}

/// The sum of rows of so many columns; a vector has one column.
fn sums<N: Number>(rows: &[N], cols: usize) -> Datum<N> {
    let mut data = vec![N::ZERO; cols];
    for row in rows.chunks_exact(cols) {
        data.iter_mut().zip(row).for_each(|(sum, x)| *sum = sum.add(*x));
    }
    Datum::Real { cols: 1, data }
}

pub(super) fn column_sums<N: Number>(dy: &Datum<N>, groups: Option<u32>) -> Result<Datum<N>, EvalError> {
    let (cols, dy) = dy.real()?;
    Ok(sums(dy, cols / groups.unwrap_or(1) as usize))
}

pub(super) fn embed_gradient<N: Number>(
    dy: &Datum<N>,
    ids: &[i64],
    n_ids: usize,
) -> Result<Datum<N>, EvalError> {
    let (cols, dy) = dy.real()?;
    let mut data = vec![N::ZERO; n_ids * cols];
    for (row, (id, dy)) in ids.iter().zip(dy.chunks_exact(cols)).enumerate() {
        let within = usize::try_from(*id).ok().filter(|id| *id < n_ids);
        let at = within.ok_or(EvalError::IdOutOfRange { row, id: *id, n_ids })? * cols;
        data[at..][..cols].iter_mut().zip(dy).for_each(|(sum, dy)| *sum = sum.add(*dy));
    }
    Ok(Datum::Real { cols, data })
}

pub(super) fn derivative<N: Number>(of: Unary, x: &Datum<N>, dy: &Datum<N>) -> Result<Datum<N>, EvalError> {
    let ((cols, x), (_, dy)) = (x.real()?, dy.real()?);
    Ok(Datum::Real { cols, data: x.iter().zip(dy).map(|(x, dy)| of.derivative(*x).mul(*dy)).collect() })
}

pub(super) fn row_dot<N: Number>(a: &Datum<N>, b: &Datum<N>) -> Result<Datum<N>, EvalError> {
    let ((cols, a), (_, b)) = (a.real()?, b.real()?);
    let data = a.chunks_exact(cols).zip(b.chunks_exact(cols)).map(|(a, b)| dot(a, b)).collect();
    Ok(Datum::Real { cols: 1, data })
}

/// Of a row that a norm scales by `s = rsqrt(mean(x²) + eps)`: `s · (g − x · s² · mean(g · x))` with `g` the gradient of the
/// scaled row.
fn unscale<N: Number>(x: &[N], g: &mut [N], eps: f64) {
    let scale = functions::inv_rms(x, eps);
    let mean = dot(g, x).div(N::from_f64(x.len() as f64));
    let along = scale.mul(scale).mul(mean);
    g.iter_mut().zip(x).for_each(|(g, x)| *g = g.sub(x.mul(along)).mul(scale));
}

fn each_group<N: Number>(
    operands: &[&Datum<N>],
    groups: Option<u32>,
    function: impl Fn(&[N], &mut [N]),
) -> Result<Datum<N>, EvalError> {
    let ((cols, x), (_, dy)) = (operands[0].real()?, operands[operands.len() - 1].real()?);
    let width = cols / groups.unwrap_or(1) as usize;
    let mut data = dy.to_vec();
    data.chunks_exact_mut(width).zip(x.chunks_exact(width)).for_each(|(dy, x)| function(x, dy));
    Ok(Datum::Real { cols, data })
}

pub(super) fn rms_norm_gradient<N: Number>(
    operands: &[&Datum<N>],
    eps: f64,
    groups: Option<u32>,
) -> Result<Datum<N>, EvalError> {
    let (_, gain) = operands[1].real()?;
    each_group(operands, groups, |x, g| {
        functions::fold_gain(g, gain);
        unscale(x, g, eps);
    })
}

pub(super) fn rms_gain_gradient<N: Number>(
    operands: &[&Datum<N>],
    eps: f64,
    groups: Option<u32>,
) -> Result<Datum<N>, EvalError> {
    let products = each_group(operands, groups, |x, dy| {
        let scale = functions::inv_rms(x, eps);
        dy.iter_mut().zip(x).for_each(|(dy, x)| *dy = dy.mul(x.mul(scale)));
    })?;
    column_sums(&products, groups)
}

/// A row less its mean.
fn centred<N: Number>(x: &[N]) -> Vec<N> {
    let mut row = x.to_vec();
    functions::centre(&mut row);
    row
}

pub(super) fn layer_norm_gradient<N: Number>(
    operands: &[&Datum<N>],
    eps: f64,
    groups: Option<u32>,
) -> Result<Datum<N>, EvalError> {
    let (_, gain) = operands[1].real()?;
    each_group(operands, groups, |x, g| {
        functions::fold_gain(g, gain);
        unscale(&centred(x), g, eps);
        functions::centre(g);
    })
}

pub(super) fn layer_gain_gradient<N: Number>(
    operands: &[&Datum<N>],
    eps: f64,
    groups: Option<u32>,
) -> Result<Datum<N>, EvalError> {
    let products = each_group(operands, groups, |x, dy| {
        let x = centred(x);
        let scale = functions::inv_rms(&x, eps);
        dy.iter_mut().zip(&x).for_each(|(dy, x)| *dy = dy.mul(x.mul(scale)));
    })?;
    column_sums(&products, groups)
}

pub(super) fn rope_gradient<N: Number>(
    dy: &Datum<N>,
    positions: &[i64],
    heads: (u32, Option<u32>),
    frequencies: Frequencies,
) -> Result<Datum<N>, EvalError> {
    super::super::attention::turned(dy, positions, heads, frequencies, |sin| -sin)
}

pub(super) fn place<N: Number>(dy: &Datum<N>, start: usize, cols: usize) -> Result<Datum<N>, EvalError> {
    let (len, dy) = dy.real()?;
    let mut data = vec![N::ZERO; dy.len() / len * cols];
    for (row, dy) in data.chunks_exact_mut(cols).zip(dy.chunks_exact(len)) {
        row[start..][..len].copy_from_slice(dy);
    }
    Ok(Datum::Real { cols, data })
}

pub(super) fn zeros_like<N: Number>(x: &Datum<N>) -> Result<Datum<N>, EvalError> {
    let (cols, x) = x.real()?;
    Ok(Datum::Real { cols, data: vec![N::ZERO; x.len()] })
}
