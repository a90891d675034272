//! What ops mean: for each family one file with the type rule (`infer`) beside the reference semantics (`eval`).

pub(crate) mod attention;
mod constant;
mod leaf;
mod linear;
mod norm;
mod pointwise;
pub(crate) mod token_set;

use crate::interp::{Datum, Env, EvalError, Number};
use crate::ops::Op;
use crate::ty::{Dim, Elem, Type};

/// Why an op does not take its operands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TypeError {
    /// Wrong number of operands.
    #[error("`{op}` takes {wanted} operands, not {got}")]
    Arity {
        /// The op's name.
        op: &'static str,
        /// How many it takes.
        wanted: usize,
        /// How many were given.
        got: usize,
    },
    /// An operand is of the wrong kind or size.
    #[error("`{op}`: operand `{operand}` should be {wanted}, not {got}")]
    Operand {
        /// The op's name.
        op: &'static str,
        /// The operand's name.
        operand: &'static str,
        /// What it should be.
        wanted: String,
        /// What it is.
        got: Type,
    },
    /// Two operands have rows of different sets (or of a set and of all tokens).
    #[error("`{op}` mixes rows: operand `{operand}` has rows {got}, where the others have {wanted}")]
    Scope {
        /// The op's name.
        op: &'static str,
        /// The operand that does not fit.
        operand: &'static str,
        /// Rows of the operands before it.
        wanted: Dim,
        /// Its own rows.
        got: Dim,
    },
    /// An attribute has a value that the op does not take.
    #[error("`{op}`: attribute `{attr}` {problem}")]
    Attr {
        /// The op's name.
        op: &'static str,
        /// The attribute's name.
        attr: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl TypeError {
    /// The word in `error[…]`.
    pub fn code(&self) -> &'static str {
        match self {
            TypeError::Arity { .. } => "graph::arity",
            TypeError::Operand { .. } => "graph::operand",
            TypeError::Scope { .. } => "graph::scope",
            TypeError::Attr { .. } => "graph::attribute",
        }
    }
}

/// The type of the result of `op` over operands of these types.
///
/// # Errors
/// If the operands do not fit the op.
pub fn infer(op: &Op, operands: &[&Type]) -> Result<Type, TypeError> {
    let info = op.info();
    if operands.len() != info.operands.len() {
        return Err(TypeError::Arity { op: info.name, wanted: info.operands.len(), got: operands.len() });
    }
    let args = Args { op, types: operands };
    match op {
        Op::Input { .. } | Op::Weight { .. } | Op::FillMask { .. } => leaf::infer(op, args),
        Op::WeightRows { .. } | Op::FoldGain {} | Op::FoldBias {} | Op::CentreRows {} => {
            constant::infer(op, args)
        }
        Op::Embed {} | Op::Matmul {} | Op::RouterLogits {} | Op::AddBias {} => linear::infer(op, args),
        Op::RmsNorm { .. } | Op::LayerNorm { .. } | Op::InvRms { .. } | Op::InvStd { .. } => {
            norm::infer(op, args)
        }
        Op::Rope { .. } | Op::Attention { .. } => attention::infer(op, args),
        Op::Unary(function) => pointwise::infer_unary(*function, args),
        Op::Binary(_) => pointwise::infer_binary(args),
        Op::ScaleRows {} | Op::Slice { .. } => pointwise::infer_columns(op, args),
        Op::Route { .. } | Op::RouteRandom { .. } | Op::RouteTopK { .. } => token_set::infer_route(op, args),
        Op::LimitFirst { .. } | Op::LimitBest { .. } => token_set::infer_limit(op, args),
        Op::Gather {} | Op::Scatter {} | Op::Executed {} => token_set::infer_rows(op, args),
    }
}

/// The value of `op` over these operands.
///
/// # Errors
/// If the environment has no value for a leaf, or an id or position is out of range.
pub(crate) fn eval<N: Number>(
    op: &Op,
    operands: &[&Datum<N>],
    env: &Env<'_, N>,
) -> Result<Datum<N>, EvalError> {
    match op {
        Op::Input { .. } | Op::Weight { .. } | Op::FillMask { .. } => leaf::eval(op, operands, env),
        Op::WeightRows { .. } | Op::FoldGain {} | Op::FoldBias {} | Op::CentreRows {} => {
            constant::eval(op, operands)
        }
        Op::Embed {} | Op::Matmul {} | Op::RouterLogits {} | Op::AddBias {} => linear::eval(op, operands),
        Op::RmsNorm { .. } | Op::LayerNorm { .. } | Op::InvRms { .. } | Op::InvStd { .. } => {
            norm::eval(op, operands)
        }
        Op::Rope { .. } | Op::Attention { .. } => attention::eval(op, operands),
        Op::Unary(function) => pointwise::eval_unary(*function, operands),
        Op::Binary(function) => pointwise::eval_binary(*function, operands),
        Op::ScaleRows {} | Op::Slice { .. } => pointwise::eval_columns(op, operands),
        Op::Route { .. }
        | Op::RouteRandom { .. }
        | Op::RouteTopK { .. }
        | Op::LimitFirst { .. }
        | Op::LimitBest { .. } => token_set::eval_route(op, operands, env),
        Op::Gather {} | Op::Scatter {} | Op::Executed {} => token_set::eval_rows(op, operands),
    }
}

/// The operands' types with the op, for errors that name both.
#[derive(Clone, Copy)]
pub(crate) struct Args<'a> {
    op: &'a Op,
    types: &'a [&'a Type],
}

impl<'a> Args<'a> {
    /// Operand `idx`, which the arity check has shown to exist.
    fn ty(self, idx: usize) -> &'a Type {
        self.types[idx]
    }

    /// Element kind, rows and columns of operand `idx`, a matrix of real or f32 numbers.
    fn matrix(self, idx: usize) -> Result<(Elem, Dim, u32), TypeError> {
        match self.ty(idx).as_tensor() {
            Some((elem @ (Elem::Real | Elem::F32), &[rows, Dim::Fixed(cols)])) => Ok((elem, rows, cols)),
            _ => Err(self.wrong(idx, "a matrix of numbers [rows, columns]")),
        }
    }

    /// As [`Args::matrix`], with rows that are tokens.
    fn token_matrix(self, idx: usize) -> Result<(Elem, Dim, u32), TypeError> {
        match self.matrix(idx)? {
            (elem, rows, cols) if rows.is_token_rows() => Ok((elem, rows, cols)),
            _ => Err(self.wrong(idx, "a matrix whose rows are tokens")),
        }
    }

    /// As [`Args::matrix`], with fixed rows: a weight `[rows, columns]`.
    fn weight(self, idx: usize) -> Result<(u32, u32), TypeError> {
        match self.ty(idx).as_tensor() {
            Some((Elem::Real, &[Dim::Fixed(rows), Dim::Fixed(cols)])) => Ok((rows, cols)),
            _ => Err(self.wrong(idx, "a weight real[out, in]")),
        }
    }

    /// Operand `idx` is a vector weight of this length.
    fn vector(self, idx: usize, len: u32) -> Result<(), TypeError> {
        match self.ty(idx).as_tensor() {
            Some((Elem::Real, &[Dim::Fixed(size)])) if size == len => Ok(()),
            _ => Err(self.wrong(idx, format!("a vector real[{len}]"))),
        }
    }

    /// Operand `idx` is one integer for each of these rows.
    fn ints(self, idx: usize, rows: Dim) -> Result<(), TypeError> {
        match self.ty(idx).as_tensor() {
            Some((Elem::Int, &[got])) => self.same_rows(idx, rows, got),
            _ => Err(self.wrong(idx, format!("int[{rows}]"))),
        }
    }

    fn same_rows(self, idx: usize, wanted: Dim, got: Dim) -> Result<(), TypeError> {
        if wanted == got {
            return Ok(());
        }
        let info = self.op.info();
        Err(TypeError::Scope { op: info.name, operand: info.operands[idx], wanted, got })
    }

    fn wrong(self, idx: usize, wanted: impl Into<String>) -> TypeError {
        let info = self.op.info();
        let got = self.ty(idx).clone();
        TypeError::Operand { op: info.name, operand: info.operands[idx], wanted: wanted.into(), got }
    }

    fn bad_attr(self, attr: &'static str, problem: impl Into<String>) -> TypeError {
        TypeError::Attr { op: self.op.name(), attr, problem: problem.into() }
    }
}
