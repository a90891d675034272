//! Values that come from outside: inputs, weights, constant decisions.

use super::{Args, TypeError};
use crate::attr::Source;
use crate::interp::{Datum, Env, EvalError, Number};
use crate::ops::Op;
use crate::ty::{Dim, Elem, Type};

pub(super) fn infer(op: &Op, args: Args<'_>) -> Result<Type, TypeError> {
    match op {
        Op::Input { .. } => Ok(Type::tensor(Elem::Int, &[Dim::Tokens])),
        Op::Weight { shape, .. } => match shape.0.as_slice() {
            sizes @ ([_] | [_, _]) if sizes.iter().all(|size| *size > 0) => {
                let dims: Vec<Dim> = sizes.iter().map(|size| Dim::Fixed(*size)).collect();
                Ok(Type::tensor(Elem::Real, &dims))
            }
            _ => Err(args.bad_attr("shape", "should be [rows] or [rows, columns], none of them 0")),
        },
        _ => Ok(Type::tensor(Elem::Mask, &[args.ty(0).rows()])),
    }
}

pub(super) fn eval<N: Number>(
    op: &Op,
    operands: &[&Datum<N>],
    env: &Env<'_, N>,
) -> Result<Datum<N>, EvalError> {
    match op {
        Op::Input { source } => Ok(Datum::Ints(match source {
            Source::Tokens => env.batch.tokens.clone(),
            Source::Positions => env.batch.positions.clone(),
            Source::Sequences => env.batch.sequences.clone(),
        })),
        Op::Weight { name, shape } => {
            let rows = shape.0.first().map_or(1, |size| *size as usize);
            let cols = shape.0.get(1).map_or(1, |size| *size as usize);
            let data = env.weights.weight(&name.0).ok_or_else(|| EvalError::NoWeight(name.0.to_string()))?;
            if data.len() != rows * cols {
                return Err(EvalError::NoWeight(name.0.to_string()));
            }
            Ok(Datum::Real { cols, data })
        }
        Op::FillMask { value } => Ok(Datum::Mask(vec![*value; operands[0].n_rows()])),
        _ => Err(EvalError::NotHere(op.name())),
    }
}
