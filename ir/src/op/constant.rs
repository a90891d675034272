//! Weights made of weights, when the model is compiled.

use super::{Args, TypeError};
use crate::interp::{Datum, EvalError, Number, functions};
use crate::ops::Op;
use crate::ty::{Dim, Elem, Type};

pub(super) fn infer(op: &Op, args: Args<'_>) -> Result<Type, TypeError> {
    let (rows, cols) = args.weight(0)?;
    let rows = match op {
        Op::Concat {} => {
            let (more, inner) = args.weight(1)?;
            if inner != cols {
                return Err(args.wrong(1, format!("a weight real[rows, {cols}]")));
            }
            rows.checked_add(more).ok_or_else(|| args.wrong(1, "a weight of fewer rows"))?
        }
        _ => {
            args.vector(1, cols)?;
            rows
        }
    };
    Ok(Type::tensor(Elem::Real, &[Dim::Fixed(rows), Dim::Fixed(cols)]))
}

pub(super) fn eval<N: Number>(op: &Op, operands: &[&Datum<N>]) -> Result<Datum<N>, EvalError> {
    let (cols, first) = operands[0].real()?;
    let (_, second) = operands[1].real()?;
    let data = match op {
        Op::Concat {} => first.iter().chain(second).copied().collect(),
        Op::FoldGain {} => {
            let mut rows = first.to_vec();
            functions::fold_gain(&mut rows, second);
            rows
        }
        _ => return Err(EvalError::NotHere(op.name())),
    };
    Ok(Datum::Real { cols, data })
}
