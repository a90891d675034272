//! Norms over the columns of a row.

use super::{Args, TypeError};
use crate::interp::{Datum, EvalError, Number};
use crate::ops::Op;
use crate::ty::{Dim, Elem, Type};

pub(super) fn infer(op: &Op, args: Args<'_>) -> Result<Type, TypeError> {
    let (_, rows, cols) = args.token_matrix(0)?;
    args.vector(1, cols)?;
    if let Op::LayerNorm { .. } = op {
        args.vector(2, cols)?;
    }
    if let Op::RmsNorm { eps } | Op::LayerNorm { eps } = op
        && !(eps.0 >= 0.0 && eps.0.is_finite())
    {
        return Err(args.bad_attr("eps", "should be finite and not negative"));
    }
    Ok(Type::tensor(Elem::Real, &[rows, Dim::Fixed(cols)]))
}

pub(super) fn eval<N: Number>(op: &Op, operands: &[&Datum<N>]) -> Result<Datum<N>, EvalError> {
    let (cols, x) = operands[0].real()?;
    let (_, gain) = operands[1].real()?;
    let mut data = Vec::with_capacity(x.len());
    let inv_cols = N::from_f64(1.0 / cols as f64);
    for row in x.chunks_exact(cols) {
        match op {
            Op::LayerNorm { eps } => {
                let (_, bias) = operands[2].real()?;
                let mean = sum(row.iter().copied()).mul(inv_cols);
                let square = sum(row.iter().map(|x| x.sub(mean).mul(x.sub(mean)))).mul(inv_cols);
                let scale = square.add(N::from_f64(eps.0)).rsqrt();
                for (col, x) in row.iter().enumerate() {
                    data.push(x.sub(mean).mul(scale).mul(gain[col]).add(bias[col]));
                }
            }
            Op::RmsNorm { eps } => {
                let square = sum(row.iter().map(|x| x.mul(*x))).mul(inv_cols);
                let scale = square.add(N::from_f64(eps.0)).rsqrt();
                data.extend(row.iter().zip(gain).map(|(x, gain)| x.mul(scale).mul(*gain)));
            }
            _ => return Err(EvalError::NotHere(op.name())),
        }
    }
    Ok(Datum::Real { cols, data })
}

fn sum<N: Number>(values: impl Iterator<Item = N>) -> N {
    values.fold(N::ZERO, N::add)
}
