//! Values that come from outside: inputs, weights, constant decisions.

use super::args::{Args, TypeError};
use crate::attr::{F64, Shape};
use crate::interp::functions::NOT_REPLAYED;
use crate::interp::{Datum, Env, EvalError, Number};
use crate::port::{Direction, Port, Role, RoleText};
use crate::ty::{Dim, Elem, Type};

/// The type of a tensor of the weights file.
pub(super) fn infer_weight(shape: &Shape, args: Args<'_>) -> Result<Type, TypeError> {
    match shape.0.as_slice() {
        sizes @ ([_] | [_, _]) if sizes.iter().all(|size| *size > 0) => {
            let dims: Vec<Dim> = sizes.iter().map(|size| Dim::Fixed(*size)).collect();
            Ok(Type::tensor(Elem::Real, &dims))
        }
        _ => Err(args.bad_attr("shape", "should be [rows] or [rows, columns], none of them 0")),
    }
}

/// The type of a tensor of one number.
pub(super) fn infer_fill(value: F64, shape: &Shape, args: Args<'_>) -> Result<Type, TypeError> {
    if !value.0.is_finite() {
        return Err(args.bad_attr("value", "should be finite"));
    }
    infer_weight(shape, args)
}

/// The type of tensors one below the other.
pub(super) fn infer_stack(count: u32, shape: &Shape, args: Args<'_>) -> Result<Type, TypeError> {
    let (rows, cols) = match *shape.0.as_slice() {
        [cols] => (1, cols),
        [rows, cols] => (rows, cols),
        _ => (0, 0),
    };
    match count.checked_mul(rows) {
        Some(rows @ 1..) if cols > 0 => Ok(Type::tensor(Elem::Real, &[Dim::Fixed(rows), Dim::Fixed(cols)])),
        _ => Err(args.bad_attr("shape", "should be [columns] or [rows, columns], `count` times; none is 0")),
    }
}

pub(super) fn infer_mask(args: Args<'_>) -> Type {
    Type::tensor(Elem::Mask, &[args.ty(0).rows()])
}

/// The type of an input: its role's, or the one that its author gave it.
pub(super) fn infer_input(port: &Port, args: Args<'_>) -> Result<Type, TypeError> {
    let fits = match (&port.role, &port.ty) {
        (Role::Tokens | Role::Positions | Role::Sequences | Role::Requests | Role::Places, ty) => {
            *ty == Type::tensor(Elem::Int, &[Dim::Tokens])
        }
        (Role::Margins, _) => *port == Port::margins(),
        (Role::Pages, ty) => {
            matches!(ty.as_tensor(), Some((Elem::Int, [Dim::Tokens, Dim::Fixed(1..)])))
        }
        (Role::Pending, ty) => {
            matches!(ty.as_tensor(), Some((Elem::Int, [Dim::Tokens, Dim::Fixed(2..)])))
        }
        (Role::LogitRows, Type::Set { of, .. }) => *of == Dim::Tokens,
        (Role::Rows, ty) => {
            matches!(ty.as_tensor(), Some((Elem::Real | Elem::F32, [Dim::Tokens, Dim::Fixed(1..)])))
        }
        (Role::ForcedChoices { .. }, ty) => {
            matches!(ty.as_tensor(), Some((Elem::F32, [Dim::Tokens, Dim::Fixed(1..)])))
        }
        (Role::Input { .. }, Type::Tensor { elem, dims }) => match dims.as_slice() {
            [rows] => *rows != Dim::Fixed(0),
            // A vector of bits is a decision for each row, and there is one.
            [rows, Dim::Fixed(cols)] => *rows != Dim::Fixed(0) && *cols > 0 && *elem != Elem::Mask,
            _ => false,
        },
        (Role::PromptState { .. }, Type::State { dims, .. }) if dims.first() != Some(&Dim::Cached) => false,
        (Role::State { .. } | Role::PromptState { .. }, Type::State { elem, dims }) => {
            let sized = |dim: &Dim| matches!(dim, Dim::Fixed(1..));
            match (elem, dims.as_slice()) {
                (Elem::Real | Elem::F32, [rows, cols]) => {
                    (sized(rows) || *rows == Dim::Cached) && sized(cols)
                }
                (Elem::Int, [rows]) => sized(rows) || *rows == Dim::Cached,
                (Elem::Mask, [rows]) => *rows == Dim::Cached,
                _ => false,
            }
        }
        (Role::Input { .. }, Type::Set { sym, of }) => of.is_token_rows() && *of != Dim::Count(*sym),
        _ => false,
    };
    if fits {
        return Ok(port.ty.clone());
    }
    let role = RoleText(&port.role);
    Err(args.bad_attr(
        "port",
        match (port.role.direction(), &port.role) {
            (Direction::In, Role::Input { .. }) => {
                format!(
                    "`{role}` should have a type: behind the line stands `: real[n, 8]`, `: int[n, 2]`, `: mask[n]`, \
                     `: tokens<c0 <= n>` or the like; a mask has no columns, and no size is 0"
                )
            }
            (Direction::In, Role::Pages) => {
                format!("`{role}` is int[n, p] with the pages that a sequence can have: behind the line stands its type")
            }
            (Direction::In, Role::Rows) => {
                format!("`{role}` is numbers with a row for each token: behind the line stands `: real[n, 8]` or the like")
            }
            (Direction::In, Role::LogitRows) => {
                format!("`{role}` is a set of all tokens: behind the line stands `: tokens<c0 <= n>` or the like")
            }
            (Direction::In, Role::ForcedChoices { .. }) => {
                format!("`{role}` is f32[n, k] with a place for each choice of a token: behind the line stands its type")
            }
            (Direction::In, Role::Margins) => format!("`{role}` is f32[n, 1]"),
            (Direction::In, _) => format!("`{role}` is int[n]"),
            (Direction::Kept, Role::PromptState { .. }) => format!(
                "`{role}` has the rows of a cache: behind the line stands `: state<real[m, 8]>`, `: state<mask[m]>` or the \
                 like"
            ),
            (Direction::Kept, _) => format!(
                "`{role}` should have a type: behind the line stands `: state<f32[1, 8]>`, `: state<real[m, 8]>`, \
                 `: state<int[4]>` or the like"
            ),
            _ => format!("`{role}` is not an input"),
        },
    ))
}

/// What the caller gives for an input.
pub(super) fn input<N: Number>(port: &Port, env: &Env<'_, N>) -> Result<Datum<N>, EvalError> {
    let n = env.batch.len();
    let rows = |wanted: Dim, got: usize| match wanted {
        Dim::Tokens => got == n,
        Dim::Fixed(size) => got == size as usize,
        // How many rows a set or a cache has is for its maker to say.
        Dim::Count(_) | Dim::Cached => true,
    };
    let given = match &port.role {
        Role::Tokens => Some(Datum::Ints(env.batch.tokens.clone())),
        Role::Positions => Some(Datum::Ints(env.batch.positions.clone())),
        Role::Sequences => Some(Datum::Ints(env.batch.sequences.clone())),
        Role::Rows => Some(Datum::Real {
            cols: port.ty.cols() as usize,
            data: env.batch.rows.iter().map(|number| N::from_f64(f64::from(*number))).collect(),
        }),
        role @ Role::ForcedChoices { .. } => Some(env.tensors.get(role).cloned().unwrap_or_else(|| {
            let cols = port.ty.cols() as usize;
            Datum::Real { cols, data: vec![N::from_f64(NOT_REPLAYED); n * cols] }
        })),
        role => env.tensors.get(role).cloned(),
    };
    let fits = |datum: &Datum<N>| match (&port.ty, datum) {
        (
            Type::Tensor { elem: Elem::Real | Elem::F32, .. }
            | Type::State { elem: Elem::Real | Elem::F32, .. },
            Datum::Real { cols, data },
        ) => *cols == port.ty.cols() as usize && rows(port.ty.rows(), data.len() / cols),
        (Type::Tensor { elem: Elem::Int, .. } | Type::State { elem: Elem::Int, .. }, Datum::Ints(ints)) => {
            let cols = port.ty.cols() as usize;
            ints.len().is_multiple_of(cols) && rows(port.ty.rows(), ints.len() / cols)
        }
        (Type::Tensor { elem: Elem::Mask, .. } | Type::State { elem: Elem::Mask, .. }, Datum::Mask(mask)) => {
            rows(port.ty.rows(), mask.len())
        }
        (Type::Set { of: wanted, .. }, Datum::Set { rows: listed, of }) => {
            let ascends = listed.windows(2).all(|pair| pair[0] < pair[1]);
            rows(*wanted, *of) && ascends && listed.last().is_none_or(|last| last < of)
        }
        _ => false,
    };
    given.filter(fits).ok_or_else(|| EvalError::Input { role: port.role.clone(), ty: port.ty.clone() })
}

pub(super) fn weight<N: Number>(name: &str, shape: &Shape, env: &Env<'_, N>) -> Result<Datum<N>, EvalError> {
    let rows = shape.0.first().map_or(1, |size| *size as usize);
    let cols = shape.0.get(1).map_or(1, |size| *size as usize);
    let data = env.weights.weight(name).filter(|data| data.len() == rows * cols);
    Ok(Datum::Real { cols, data: data.ok_or_else(|| EvalError::NoWeight(name.to_owned()))? })
}

pub(super) fn stack<N: Number>(
    name: &str,
    (count, shape): (u32, &Shape),
    env: &Env<'_, N>,
) -> Result<Datum<N>, EvalError> {
    let cols = shape.0.last().map_or(1, |size| *size as usize);
    let mut data = Vec::new();
    for number in 0..count {
        let Datum::Real { data: one, .. } = weight(&stacked_name(name, number), shape, env)? else {
            return Err(EvalError::Kind("a weight"));
        };
        data.extend(one);
    }
    Ok(Datum::Real { cols, data })
}

/// The name of a tensor of a stack: its number stands for the `*`.
pub fn stacked_name(name: &str, number: u32) -> String {
    name.replacen('*', &number.to_string(), 1)
}

pub(super) fn fill<N: Number>(value: F64, shape: &Shape) -> Datum<N> {
    let cols = shape.0.get(1).map_or(1, |size| *size as usize);
    let size = shape.0.iter().map(|size| *size as usize).product();
    Datum::Real { cols, data: vec![N::from_f64(value.0); size] }
}

pub(super) fn mask<N: Number>(value: bool, like: &Datum<N>) -> Datum<N> {
    Datum::Mask(vec![value; like.n_rows()])
}
