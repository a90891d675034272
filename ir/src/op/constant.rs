//! Weights made of weights, when the model is compiled.

use super::args::{Args, TypeError};
use crate::attr::F64;
use crate::interp::{Datum, EvalError, Number, functions};
use crate::ty::{Dim, Elem, Type};

pub(super) fn infer_rows(args: Args<'_>, start: u32, len: u32) -> Result<Type, TypeError> {
    let (rows, cols) = args.weight(0)?;
    if len == 0 || start.checked_add(len).is_none_or(|end| end > rows) {
        return Err(args.bad_attr("len", "should be rows of the weight, at least one"));
    }
    Ok(weight(len, cols))
}

pub(super) fn infer_gain(args: Args<'_>) -> Result<Type, TypeError> {
    let (rows, cols) = args.weight(0)?;
    args.vector(1, cols)?;
    Ok(weight(rows, cols))
}

pub(super) fn infer_linear(args: Args<'_>) -> Result<Type, TypeError> {
    let (rows, inner) = args.weight(0)?;
    match args.weight(1)? {
        (before, cols) if before == inner => Ok(weight(rows, cols)),
        _ => Err(args.wrong(1, format!("a weight real[{inner}, in]"))),
    }
}

pub(super) fn infer_fold_bias(args: Args<'_>) -> Result<Type, TypeError> {
    let (rows, inner) = args.weight(0)?;
    args.vector(1, inner)?;
    if args.len() > 2 {
        args.vector(2, rows)?;
    }
    Ok(Type::tensor(Elem::Real, &[Dim::Fixed(rows)]))
}

pub(super) fn infer_offset(args: Args<'_>, by: F64) -> Result<Type, TypeError> {
    if !by.0.is_finite() {
        return Err(args.bad_attr("by", "should be finite"));
    }
    match args.ty(0).as_tensor() {
        Some((Elem::Real, &[Dim::Fixed(_)])) => Ok(args.ty(0).clone()),
        _ => Err(args.wrong(0, "a vector of the weights")),
    }
}

fn weight(rows: u32, cols: u32) -> Type {
    Type::tensor(Elem::Real, &[Dim::Fixed(rows), Dim::Fixed(cols)])
}

pub(super) fn rows<N: Number>(weight: &Datum<N>, start: u32, len: u32) -> Result<Datum<N>, EvalError> {
    let (cols, weight) = weight.real()?;
    let first = start as usize * cols;
    Ok(Datum::Real { cols, data: weight[first..first + len as usize * cols].to_vec() })
}

pub(super) fn fold_gain<N: Number>(weight: &Datum<N>, gain: &Datum<N>) -> Result<Datum<N>, EvalError> {
    let (cols, weight) = weight.real()?;
    let mut data = weight.to_vec();
    functions::fold_gain(&mut data, gain.real()?.1);
    Ok(Datum::Real { cols, data })
}

pub(super) fn fold_linear<N: Number>(weight: &Datum<N>, before: &Datum<N>) -> Result<Datum<N>, EvalError> {
    let ((inner, weight), (cols, before)) = (weight.real()?, before.real()?);
    Ok(Datum::Real { cols, data: functions::fold_linear(weight, before, (inner, cols)) })
}

pub(super) fn fold_bias<N: Number>(operands: &[&Datum<N>]) -> Result<Datum<N>, EvalError> {
    let ((_, weight), (_, bias)) = (operands[0].real()?, operands[1].real()?);
    let on = operands.get(2).map(|on| on.real()).transpose()?.map(|(_, on)| on);
    Ok(Datum::Real { cols: 1, data: functions::fold_bias(weight, bias, on) })
}

pub(super) fn offset_gain<N: Number>(gain: &Datum<N>, by: f64) -> Result<Datum<N>, EvalError> {
    let (cols, gain) = gain.real()?;
    let by = N::from_f64(by);
    Ok(Datum::Real { cols, data: gain.iter().map(|gain| gain.add(by)).collect() })
}
