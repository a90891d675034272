//! What a value is while the interpreter runs.

use super::{EvalError, Number};
use crate::ty::{Dim, Elem, Type};

/// The value of a node in the number domain `N`.
#[derive(Clone, Debug, PartialEq)]
pub enum Datum<N> {
    /// Numbers, row by row; a vector has one column.
    Real {
        /// Columns of a row, at least 1.
        cols: usize,
        /// `rows · cols` numbers.
        data: Vec<N>,
    },
    /// Token ids, positions or sequence indices.
    Ints(Vec<i64>),
    /// Decisions.
    Mask(Vec<bool>),
    /// Selected rows in segments, and how many rows they were selected from.
    Partition {
        /// Indices of the rows, segment by segment.
        rows: Vec<usize>,
        /// For each segment how many rows it and those before it have.
        ends: Vec<usize>,
        /// Rows selected from.
        of: usize,
    },
    /// The selected rows in ascending order, and how many rows they were selected from.
    Set {
        /// Indices of the selected rows.
        rows: Vec<usize>,
        /// Rows selected from.
        of: usize,
    },
}

impl<N: Number> Datum<N> {
    /// What a state of this type is before the first step, with caches of `n_cached` rows; `None` if the type is no
    /// state's.
    pub fn zeros(ty: &Type, n_cached: usize) -> Option<Datum<N>> {
        let (elem, _) = ty.as_state()?;
        let rows = match ty.rows() {
            Dim::Fixed(rows) => rows as usize,
            Dim::Cached => n_cached,
            Dim::Tokens | Dim::Count(_) => return None,
        };
        let cols = ty.cols() as usize;
        Some(match elem {
            Elem::Real | Elem::F32 => Datum::Real { cols, data: vec![N::ZERO; rows * cols] },
            Elem::Int => Datum::Ints(vec![0; rows]),
            Elem::Mask => Datum::Mask(vec![false; rows]),
        })
    }
}

impl<N: Copy> Datum<N> {
    /// How many rows it has; for a set or partition, how many it selects from.
    pub fn n_rows(&self) -> usize {
        match self {
            Datum::Real { cols, data } => data.len() / cols,
            Datum::Ints(ints) => ints.len(),
            Datum::Mask(mask) => mask.len(),
            Datum::Set { of, .. } | Datum::Partition { of, .. } => *of,
        }
    }

    /// Columns and elements of a tensor of numbers.
    ///
    /// # Errors
    /// If it is something else.
    pub fn real(&self) -> Result<(usize, &[N]), EvalError> {
        match self {
            Datum::Real { cols, data } => Ok((*cols, data)),
            _ => Err(EvalError::Kind("a tensor of numbers")),
        }
    }

    /// The elements of a tensor of integers.
    ///
    /// # Errors
    /// If it is something else.
    pub fn ints(&self) -> Result<&[i64], EvalError> {
        match self {
            Datum::Ints(ints) => Ok(ints),
            _ => Err(EvalError::Kind("a tensor of integers")),
        }
    }

    /// The decisions of a mask.
    ///
    /// # Errors
    /// If it is something else.
    pub fn mask(&self) -> Result<&[bool], EvalError> {
        match self {
            Datum::Mask(mask) => Ok(mask),
            _ => Err(EvalError::Kind("a mask")),
        }
    }

    /// The selected rows of a set, and how many rows they were selected from.
    ///
    /// # Errors
    /// If it is something else.
    pub fn set(&self) -> Result<(&[usize], usize), EvalError> {
        match self {
            Datum::Set { rows, of } => Ok((rows, *of)),
            _ => Err(EvalError::Kind("a token set")),
        }
    }

    /// A partition of these rows, which does not look at what they are: one segment after the other has as many.
    pub fn partition_of(mask: &[bool], parts: usize) -> Datum<N> {
        let rows: Vec<usize> = (0..mask.len()).filter(|row| mask[*row]).collect();
        let ends = (1..=parts).map(|part| rows.len() * part / parts.max(1)).collect();
        Datum::Partition { rows, ends, of: mask.len() }
    }

    /// The selected rows of a partition, and where its segments end.
    ///
    /// # Errors
    /// If it is something else.
    pub fn partition(&self) -> Result<(&[usize], &[usize]), EvalError> {
        match self {
            Datum::Partition { rows, ends, .. } => Ok((rows, ends)),
            _ => Err(EvalError::Kind("a partition")),
        }
    }

    /// The selected rows of a set or partition, in its order.
    ///
    /// # Errors
    /// If it is something else.
    pub fn listed(&self) -> Result<&[usize], EvalError> {
        match self {
            Datum::Set { rows, .. } | Datum::Partition { rows, .. } => Ok(rows),
            _ => Err(EvalError::Kind("a token set or a partition")),
        }
    }

    /// These rows of a tensor, in this order.
    pub(crate) fn select_rows(&self, rows: &[usize]) -> Datum<N> {
        match self {
            Datum::Real { cols, data } => Datum::Real {
                cols: *cols,
                data: rows.iter().flat_map(|row| data[row * cols..][..*cols].iter().copied()).collect(),
            },
            Datum::Ints(ints) => Datum::Ints(rows.iter().map(|row| ints[*row]).collect()),
            Datum::Mask(mask) => Datum::Mask(rows.iter().map(|row| mask[*row]).collect()),
            Datum::Set { .. } | Datum::Partition { .. } => self.clone(),
        }
    }
}
