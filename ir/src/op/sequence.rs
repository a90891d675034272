//! Ops along sequences: a row of the result depends on several rows of its sequence.

use super::args::{Args, TypeError};
use crate::interp::{Datum, EvalError, Number, functions};
use crate::ty::{Dim, Type};

pub(super) fn infer_mean(args: Args<'_>) -> Result<Type, TypeError> {
    let (elem, rows, cols) = args.token_matrix(0)?;
    args.ints(1, rows)?;
    Ok(Type::tensor(elem, &[rows, Dim::Fixed(cols)]))
}

/// The mean of each column over the rows of a sequence, for each of these rows.
pub(super) fn mean<N: Number>(x: &Datum<N>, sequences: &[i64]) -> Result<Datum<N>, EvalError> {
    let (cols, x) = x.real()?;
    let (mut data, mut rest) = (Vec::with_capacity(x.len()), x);
    for of_sequence in sequences.chunk_by(|a, b| a == b) {
        let (rows, others) = rest.split_at(of_sequence.len() * cols);
        let means = functions::column_means(rows, cols);
        of_sequence.iter().for_each(|_| data.extend_from_slice(&means));
        rest = others;
    }
    Ok(Datum::Real { cols, data })
}
