//! Ops that work element by element, and slices of columns.

use super::args::{Args, TypeError};
use crate::elementwise::{Binary, Unary};
use crate::interp::{Datum, EvalError, Number};
use crate::ty::{Dim, Elem, Type};

pub(super) fn infer_unary(function: Unary, args: Args<'_>) -> Result<Type, TypeError> {
    args.token_matrix(0)?;
    if let Unary::Scale(by) = function
        && !by.0.is_finite()
    {
        return Err(args.bad_attr("by", "should be finite"));
    }
    Ok(args.ty(0).clone())
}

pub(super) fn infer_binary(args: Args<'_>) -> Result<Type, TypeError> {
    let (elem, rows, cols) = args.token_matrix(0)?;
    let (b_elem, b_rows, b_cols) = args.token_matrix(1)?;
    args.same_rows(1, rows, b_rows)?;
    if (elem, cols) != (b_elem, b_cols) {
        return Err(args.wrong(1, args.ty(0).to_string()));
    }
    Ok(args.ty(0).clone())
}

pub(super) fn infer_slice(args: Args<'_>, start: u32, len: u32) -> Result<Type, TypeError> {
    let (elem, rows, cols) = args.token_matrix(0)?;
    if len == 0 || start.checked_add(len).is_none_or(|end| end > cols) {
        return Err(args.bad_attr("len", format!("should leave a range within {cols} columns")));
    }
    Ok(Type::tensor(elem, &[rows, Dim::Fixed(len)]))
}

pub(super) fn infer_widen(args: Args<'_>) -> Result<Type, TypeError> {
    let (_, rows, cols) = args.token_matrix(0)?;
    Ok(Type::tensor(Elem::F32, &[rows, Dim::Fixed(cols)]))
}

pub(super) fn infer_scale(args: Args<'_>) -> Result<Type, TypeError> {
    let (elem, rows, cols) = args.token_matrix(0)?;
    let (_, scale_rows, scale_cols) = args.token_matrix(1)?;
    args.same_rows(1, rows, scale_rows)?;
    if scale_cols != 1 {
        return Err(args.wrong(1, format!("one number a row [{rows}, 1]")));
    }
    Ok(Type::tensor(elem, &[rows, Dim::Fixed(cols)]))
}

pub(super) fn infer_scale_elements(args: Args<'_>) -> Result<Type, TypeError> {
    let (_, rows, cols) = args.token_matrix(0)?;
    match args.token_matrix(1)? {
        (Elem::F32, scale_rows, scale_cols) if scale_cols == cols => args.same_rows(1, rows, scale_rows)?,
        _ => return Err(args.wrong(1, format!("f32[{rows}, {cols}]"))),
    }
    Ok(args.ty(0).clone())
}

pub(super) fn unary<N: Number>(function: Unary, x: &Datum<N>) -> Result<Datum<N>, EvalError> {
    let (cols, x) = x.real()?;
    Ok(Datum::Real { cols, data: x.iter().map(|x| function.eval(*x)).collect() })
}

pub(super) fn binary<N: Number>(function: Binary, a: &Datum<N>, b: &Datum<N>) -> Result<Datum<N>, EvalError> {
    let (cols, a) = a.real()?;
    let (_, b) = b.real()?;
    Ok(Datum::Real { cols, data: a.iter().zip(b).map(|(a, b)| function.eval(*a, *b)).collect() })
}

pub(super) fn slice<N: Number>(x: &Datum<N>, start: usize, len: usize) -> Result<Datum<N>, EvalError> {
    let (cols, x) = x.real()?;
    let data = x.chunks_exact(cols).flat_map(|row| row[start..][..len].iter().copied()).collect();
    Ok(Datum::Real { cols: len, data })
}

pub(super) fn scale_rows<N: Number>(x: &Datum<N>, scale: &Datum<N>) -> Result<Datum<N>, EvalError> {
    let (cols, x) = x.real()?;
    let (_, scale) = scale.real()?;
    let data = x.iter().enumerate().map(|(idx, x)| x.mul(scale[idx / cols])).collect();
    Ok(Datum::Real { cols, data })
}
