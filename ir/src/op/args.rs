//! The operands of an op to its type rule, and why it does not take them.

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

/// The operands' types with the op, for errors that name both.
#[derive(Clone, Copy)]
pub(crate) struct Args<'a> {
    pub(super) op: &'a Op,
    pub(super) types: &'a [&'a Type],
}

impl<'a> Args<'a> {
    /// How many operands there are.
    pub(super) fn len(self) -> usize {
        self.types.len()
    }

    /// Operand `idx`, which the arity check has shown to exist.
    pub(super) fn ty(self, idx: usize) -> &'a Type {
        self.types[idx]
    }

    /// Element kind, rows and columns of operand `idx`, a matrix of real or f32 numbers.
    pub(super) fn matrix(self, idx: usize) -> Result<(Elem, Dim, u32), TypeError> {
        match self.ty(idx).as_tensor() {
            Some((elem @ (Elem::Real | Elem::F32), &[rows, Dim::Fixed(cols)])) => Ok((elem, rows, cols)),
            _ => Err(self.wrong(idx, "a matrix of numbers [rows, columns]")),
        }
    }

    /// As [`Args::matrix`], with rows that are tokens.
    pub(super) fn token_matrix(self, idx: usize) -> Result<(Elem, Dim, u32), TypeError> {
        match self.matrix(idx)? {
            (elem, rows, cols) if rows.is_token_rows() => Ok((elem, rows, cols)),
            _ => Err(self.wrong(idx, "a matrix whose rows are tokens")),
        }
    }

    /// As [`Args::matrix`], with fixed rows: a weight `[rows, columns]`.
    pub(super) fn weight(self, idx: usize) -> Result<(u32, u32), TypeError> {
        match self.ty(idx).as_tensor() {
            Some((Elem::Real, &[Dim::Fixed(rows), Dim::Fixed(cols)])) => Ok((rows, cols)),
            _ => Err(self.wrong(idx, "a weight real[out, in]")),
        }
    }

    /// Operand `idx` is a vector weight of this length.
    pub(super) fn vector(self, idx: usize, len: u32) -> Result<(), TypeError> {
        match self.ty(idx).as_tensor() {
            Some((Elem::Real, &[Dim::Fixed(size)])) if size == len => Ok(()),
            _ => Err(self.wrong(idx, format!("a vector real[{len}]"))),
        }
    }

    /// Operand `idx` is one integer for each of these rows.
    pub(super) fn ints(self, idx: usize, rows: Dim) -> Result<(), TypeError> {
        match self.ty(idx).as_tensor() {
            Some((Elem::Int, &[got])) => self.same_rows(idx, rows, got),
            _ => Err(self.wrong(idx, format!("int[{rows}]"))),
        }
    }

    pub(super) fn same_rows(self, idx: usize, wanted: Dim, got: Dim) -> Result<(), TypeError> {
        if wanted == got {
            return Ok(());
        }
        let info = self.op.info();
        Err(TypeError::Scope { op: info.name, operand: info.operands[idx], wanted, got })
    }

    pub(super) fn wrong(self, idx: usize, wanted: impl Into<String>) -> TypeError {
        let info = self.op.info();
        let got = self.ty(idx).clone();
        TypeError::Operand { op: info.name, operand: info.operands[idx], wanted: wanted.into(), got }
    }

    pub(super) fn bad_attr(self, attr: &'static str, problem: impl Into<String>) -> TypeError {
        TypeError::Attr { op: self.op.name(), attr, problem: problem.into() }
    }
}
