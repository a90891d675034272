//! Weights made of weights, when the model is compiled.

use super::{Args, TypeError};
use crate::interp::{Datum, EvalError, Number, functions};
use crate::ops::Op;
use crate::ty::{Dim, Elem, Type};

pub(super) fn infer(op: &Op, args: Args<'_>) -> Result<Type, TypeError> {
    let (rows, cols) = args.weight(0)?;
    let dims = match op {
        Op::WeightRows { start, len } => {
            if *len == 0 || start.checked_add(*len).is_none_or(|end| end > rows) {
                return Err(args.bad_attr("len", "should be rows of the weight, at least one"));
            }
            vec![Dim::Fixed(*len), Dim::Fixed(cols)]
        }
        Op::FoldGain {} => {
            args.vector(1, cols)?;
            vec![Dim::Fixed(rows), Dim::Fixed(cols)]
        }
        Op::FoldBias {} => {
            args.vector(1, cols)?;
            vec![Dim::Fixed(rows)]
        }
        _ => vec![Dim::Fixed(rows), Dim::Fixed(cols)],
    };
    Ok(Type::tensor(Elem::Real, &dims))
}

pub(super) fn eval<N: Number>(op: &Op, operands: &[&Datum<N>]) -> Result<Datum<N>, EvalError> {
    let (cols, weight) = operands[0].real()?;
    let data = match op {
        Op::WeightRows { start, len } => {
            let first = *start as usize * cols;
            weight[first..first + *len as usize * cols].to_vec()
        }
        Op::FoldGain {} => {
            let mut rows = weight.to_vec();
            functions::fold_gain(&mut rows, operands[1].real()?.1);
            rows
        }
        Op::FoldBias {} => {
            let (_, bias) = operands[1].real()?;
            let data = weight.chunks_exact(cols).map(|row| functions::dot(row, bias)).collect();
            return Ok(Datum::Real { cols: 1, data });
        }
        Op::CentreRows {} => {
            let mut rows = weight.to_vec();
            rows.chunks_exact_mut(cols).for_each(functions::centre);
            rows
        }
        _ => return Err(EvalError::NotHere(op.name())),
    };
    Ok(Datum::Real { cols, data })
}
