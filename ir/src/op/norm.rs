//! Norms over the columns of a row.

use super::args::{Args, TypeError};
use crate::attr::F64;
use crate::interp::{Datum, EvalError, Number, functions};
use crate::ty::{Dim, Elem, Type};

/// A norm with so many vectors: a gain, a bias. They are for a group if there are groups.
pub(super) fn infer(
    args: Args<'_>,
    eps: F64,
    (n_vectors, groups): (usize, Option<u32>),
) -> Result<Type, TypeError> {
    let (elem, rows, cols) = args.token_matrix(0)?;
    if let Some(groups) = groups
        && !(groups > 0 && cols.is_multiple_of(groups))
    {
        return Err(args.bad_attr("groups", format!("should divide the {cols} columns")));
    }
    for idx in 1..=n_vectors {
        args.vector(idx, cols / groups.unwrap_or(1))?;
    }
    check_eps(args, eps)?;
    Ok(Type::tensor(elem, &[rows, Dim::Fixed(cols)]))
}

/// What a norm scales each row by.
pub(super) fn infer_scale(args: Args<'_>, eps: F64) -> Result<Type, TypeError> {
    let (_, rows, _) = args.token_matrix(0)?;
    check_eps(args, eps)?;
    Ok(Type::tensor(Elem::F32, &[rows, Dim::Fixed(1)]))
}

fn check_eps(args: Args<'_>, eps: F64) -> Result<(), TypeError> {
    match eps.0 >= 0.0 && eps.0.is_finite() {
        true => Ok(()),
        false => Err(args.bad_attr("eps", "should be finite and not negative")),
    }
}

pub(super) fn rms<N: Number>(
    operands: &[&Datum<N>],
    groups: Option<u32>,
    eps: f64,
) -> Result<Datum<N>, EvalError> {
    let (_, gain) = operands[1].real()?;
    each_group(operands[0], groups, |row| functions::rms_norm(row, eps, gain))
}

pub(super) fn layer<N: Number>(
    operands: &[&Datum<N>],
    groups: Option<u32>,
    eps: f64,
) -> Result<Datum<N>, EvalError> {
    let ((_, gain), (_, bias)) = (operands[1].real()?, operands[2].real()?);
    each_group(operands[0], groups, |row| functions::layer_norm(row, eps, gain, bias))
}

/// A function of each row, or of each group of its columns.
fn each_group<N: Number>(
    x: &Datum<N>,
    groups: Option<u32>,
    function: impl Fn(&mut [N]),
) -> Result<Datum<N>, EvalError> {
    let (cols, x) = x.real()?;
    let mut data = x.to_vec();
    data.chunks_exact_mut(cols / groups.unwrap_or(1) as usize).for_each(function);
    Ok(Datum::Real { cols, data })
}

/// One number for each row.
pub(super) fn scales<N: Number>(x: &Datum<N>, scale: impl Fn(&[N]) -> N) -> Result<Datum<N>, EvalError> {
    let (cols, x) = x.real()?;
    Ok(Datum::Real { cols: 1, data: x.chunks_exact(cols).map(scale).collect() })
}
