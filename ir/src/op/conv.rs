//! Causal convolutions with a filter for each column.

use std::collections::BTreeMap;

use super::args::{Args, TypeError};
use super::state;
use crate::interp::{Datum, EvalError, Number, functions};
use crate::ty::{Dim, Elem, Type};

pub(super) fn infer(args: Args<'_>) -> Result<Type, TypeError> {
    let (_, rows, cols) = args.token_matrix(0)?;
    args.ints(4, rows)?;
    args.ints(5, rows)?;
    infer_queries(args, cols)
}

pub(super) fn infer_cached(args: Args<'_>) -> Result<Type, TypeError> {
    let Some((Elem::Real, &[Dim::Cached, Dim::Fixed(cols)])) = args.ty(0).as_state() else {
        return Err(args.wrong(0, "a cache of numbers, state<real[m, columns]>"));
    };
    state::infer_pages(args, 4)?;
    if args.len() > 5 && args.ty(5).as_state() != Some((Elem::Mask, &[Dim::Cached])) {
        return Err(args.wrong(5, "a cache of decisions, state<mask[m]>"));
    }
    infer_queries(args, cols)
}

/// A row of so many columns for each of the places 2 and 3, made with the filters, operand 1.
fn infer_queries(args: Args<'_>, cols: u32) -> Result<Type, TypeError> {
    match args.weight(1)? {
        (filters, taps) if filters == cols && taps > 0 => {}
        _ => return Err(args.wrong(1, format!("a filter for each column, real[{cols}, taps]"))),
    }
    let rows = args.ty(2).rows();
    args.ints(2, rows)?;
    args.ints(3, rows)?;
    if !rows.is_token_rows() {
        return Err(args.wrong(2, "positions of tokens"));
    }
    Ok(Type::tensor(Elem::Real, &[rows, Dim::Fixed(cols)]))
}

pub(super) fn conv<N: Number>(operands: &[&Datum<N>]) -> Result<Datum<N>, EvalError> {
    let (k_pos, k_seq) = (operands[4].ints()?, operands[5].ints()?);
    let rows: BTreeMap<(i64, i64), usize> =
        k_seq.iter().copied().zip(k_pos.iter().copied()).zip(0..).collect();
    over_places(operands, |_, place| Ok(rows.get(&place).copied()))
}

/// As [`conv`], over the inputs in a cache. `pages` has a row for each of the `n_tokens` rows of the step.
pub(super) fn cached<N: Number>(operands: &[&Datum<N>], n_tokens: usize) -> Result<Datum<N>, EvalError> {
    let present = operands.get(5).map(|present| present.mask()).transpose()?;
    let pages = state::Pages::new(operands[4], n_tokens, operands[0].n_rows())?;
    over_places(operands, |row, (sequence, position)| {
        let found = pages.key(row, sequence, position)?;
        Ok(Some(found).filter(|found| present.is_none_or(|present| present[*found])))
    })
}

/// The result, where `find` has for a row of it the row of the input at a place (sequence and position), if there is one.
fn over_places<N: Number>(
    operands: &[&Datum<N>],
    find: impl Fn(usize, (i64, i64)) -> Result<Option<usize>, EvalError>,
) -> Result<Datum<N>, EvalError> {
    let ((cols, x), (taps, weight)) = (operands[0].real()?, operands[1].real()?);
    let (q_pos, q_seq) = (operands[2].ints()?, operands[3].ints()?);
    let mut data = Vec::with_capacity(q_pos.len() * cols);
    for (row, (position, sequence)) in q_pos.iter().zip(q_seq).enumerate() {
        let mut inputs = Vec::with_capacity(taps);
        let first = position - (taps as i64 - 1);
        for (tap, position) in (first..=*position).enumerate().filter(|(_, position)| *position >= 0) {
            if let Some(found) = find(row, (*sequence, position))? {
                inputs.push((tap, &x[found * cols..][..cols]));
            }
        }
        data.extend(functions::convolved(cols, |tap, col| weight[col * taps + tap], &inputs));
    }
    Ok(Datum::Real { cols, data })
}
