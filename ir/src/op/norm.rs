//! Norms over the columns of a row.

use super::{Args, TypeError};
use crate::interp::{Datum, EvalError, Number, functions};
use crate::ops::Op;
use crate::ty::{Dim, Elem, Type};

pub(super) fn infer(op: &Op, args: Args<'_>) -> Result<Type, TypeError> {
    let (_, rows, cols) = args.token_matrix(0)?;
    let vectors = match op {
        Op::InvRms { .. } | Op::InvStd { .. } => 0,
        Op::LayerNorm { .. } => 2,
        _ => 1,
    };
    for idx in 1..=vectors {
        args.vector(idx, cols)?;
    }
    if let Op::RmsNorm { eps } | Op::LayerNorm { eps } | Op::InvRms { eps } | Op::InvStd { eps } = op
        && !(eps.0 >= 0.0 && eps.0.is_finite())
    {
        return Err(args.bad_attr("eps", "should be finite and not negative"));
    }
    match op {
        Op::InvRms { .. } | Op::InvStd { .. } => Ok(Type::tensor(Elem::F32, &[rows, Dim::Fixed(1)])),
        _ => Ok(Type::tensor(Elem::Real, &[rows, Dim::Fixed(cols)])),
    }
}

pub(super) fn eval<N: Number>(op: &Op, operands: &[&Datum<N>]) -> Result<Datum<N>, EvalError> {
    let (cols, x) = operands[0].real()?;
    let scale: fn(&[N], f64) -> N = match op {
        Op::InvStd { .. } => functions::inv_std,
        _ => functions::inv_rms,
    };
    if let Op::InvRms { eps } | Op::InvStd { eps } = op {
        let data = x.chunks_exact(cols).map(|row| scale(row, eps.0)).collect();
        return Ok(Datum::Real { cols: 1, data });
    }
    let (_, gain) = operands[1].real()?;
    let mut data = x.to_vec();
    match op {
        Op::LayerNorm { eps } => {
            let (_, bias) = operands[2].real()?;
            data.chunks_exact_mut(cols).for_each(|row| functions::layer_norm(row, eps.0, gain, bias));
        }
        Op::RmsNorm { eps } => {
            data.chunks_exact_mut(cols).for_each(|row| functions::rms_norm(row, eps.0, gain));
        }
        _ => return Err(EvalError::NotHere(op.name())),
    }
    Ok(Datum::Real { cols, data })
}
