//! States: values that one step leaves for the next.
//!
//! An op that has [`Trait::UpdatesState`](crate::Trait::UpdatesState) uses its first operand up and makes the next
//! value of the state; every other op with a state among its operands looks at it only.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::token_set::Group;
use super::{Args, TypeError};
use crate::interp::{Datum, EvalError, Number};
use crate::ty::{Dim, Elem, Type};

pub(super) fn infer_counts(args: Args<'_>, group_size: u32) -> Result<Type, TypeError> {
    counts(args, 0)?;
    let Type::Set { of, .. } = *args.ty(1) else { return Err(args.wrong(1, "a token set")) };
    args.ints(2, of)?;
    args.ints(3, of)?;
    if group_size == 0 {
        return Err(args.bad_attr("group_size", "should be at least 1"));
    }
    Ok(args.ty(0).clone())
}

pub(super) fn infer_sum(args: Args<'_>) -> Result<Type, TypeError> {
    let (_, _, cols) = args.token_matrix(1)?;
    match args.ty(0).as_state() {
        Some((Elem::F32, [Dim::Fixed(1), Dim::Fixed(width)])) if *width == cols => Ok(args.ty(0).clone()),
        _ => Err(args.wrong(0, format!("a state of sums, state<f32[1, {cols}]>"))),
    }
}

pub(super) fn infer_store(args: Args<'_>) -> Result<Type, TypeError> {
    let Some((elem, dims @ [Dim::Cached, ..])) = args.ty(0).as_state() else {
        return Err(args.wrong(0, "a cache, state<real[m, columns]> or state<mask[m]>"));
    };
    let Some((row_elem, [rows, row_cols @ ..])) = args.ty(1).as_tensor() else {
        return Err(args.wrong(1, "rows of the cache"));
    };
    if (elem, &dims[1..]) != (row_elem, row_cols) || !rows.is_token_rows() {
        return Err(
            args.wrong(1, format!("rows of tokens as the cache has them, {elem}[…, {}]", args.ty(0).cols()))
        );
    }
    args.ints(2, *rows)?;
    Ok(args.ty(0).clone())
}

/// Operand `idx` is a count for each sequence.
pub(super) fn counts(args: Args<'_>, idx: usize) -> Result<(), TypeError> {
    match args.ty(idx).as_state() {
        Some((Elem::Int, [Dim::Fixed(_)])) => Ok(()),
        _ => Err(args.wrong(idx, "a state of one count for each sequence, state<int[s]>")),
    }
}

/// How many rows earlier steps wanted of each group that this step goes on with.
pub(super) fn taken<N: Number>(
    counts: &Datum<N>,
    (positions, sequences): (&Datum<N>, &Datum<N>),
    group_size: u32,
) -> Result<BTreeMap<Group, i64>, EvalError> {
    let (counts, size) = (counts.ints()?, i64::from(group_size));
    let mut taken = BTreeMap::new();
    for (row, (position, sequence)) in positions.ints()?.iter().zip(sequences.ints()?).enumerate() {
        let group = (*sequence, position.div_euclid(size));
        // Rows of a group follow each other: the first tells whether the group begins here.
        if let Entry::Vacant(first) = taken.entry(group) {
            let begins = position.rem_euclid(size) == 0;
            first.insert(if begins { 0 } else { count(counts, row, *sequence)? });
        }
    }
    Ok(taken)
}

fn count(counts: &[i64], row: usize, sequence: i64) -> Result<i64, EvalError> {
    let count = usize::try_from(sequence).ok().and_then(|idx| counts.get(idx));
    count.copied().ok_or(EvalError::NoSlot { row, sequence, n_slots: counts.len() })
}

pub(super) fn count_groups<N: Number>(
    counts: &Datum<N>,
    wanted: &Datum<N>,
    places: &[&Datum<N>],
    group_size: u32,
) -> Result<Datum<N>, EvalError> {
    let mut counts = counts.ints()?.to_vec();
    let (wanted, of) = wanted.set()?;
    let (positions, sequences) = (places[0].ints()?, places[1].ints()?);
    let mut is_wanted = vec![false; of];
    wanted.iter().for_each(|row| is_wanted[*row] = true);
    for (row, is_wanted) in is_wanted.into_iter().enumerate() {
        let before = count(&counts, row, sequences[row])?;
        let begins = positions[row].rem_euclid(i64::from(group_size)) == 0;
        let before = if begins { 0 } else { before };
        counts[sequences[row] as usize] = before + i64::from(is_wanted);
    }
    Ok(Datum::Ints(counts))
}

pub(super) fn add_rows<N: Number>(sum: &Datum<N>, x: &Datum<N>) -> Result<Datum<N>, EvalError> {
    let ((cols, sum), (_, x)) = (sum.real()?, x.real()?);
    let mut data = sum.to_vec();
    for row in x.chunks_exact(cols) {
        data.iter_mut().zip(row).for_each(|(sum, x)| *sum = sum.add(*x));
    }
    Ok(Datum::Real { cols, data })
}

pub(super) fn store_rows<N: Number>(
    cache: &Datum<N>,
    rows: &Datum<N>,
    places: &[i64],
) -> Result<Datum<N>, EvalError> {
    let n_rows = cache.n_rows();
    let mut cache = cache.clone();
    for (row, place) in places.iter().enumerate() {
        let at = row_of_cache((row, *place), n_rows)?;
        match (&mut cache, rows) {
            (Datum::Real { cols, data }, Datum::Real { data: rows, .. }) => {
                data[at * *cols..][..*cols].copy_from_slice(&rows[row * *cols..][..*cols]);
            }
            (Datum::Mask(cache), Datum::Mask(rows)) => cache[at] = rows[row],
            _ => return Err(EvalError::Kind("rows as the cache has them")),
        }
    }
    Ok(cache)
}

/// The row of a cache of `n_rows` rows that `row` of a step names.
pub(super) fn row_of_cache((row, place): (usize, i64), n_rows: usize) -> Result<usize, EvalError> {
    let within = usize::try_from(place).ok().filter(|place| *place < n_rows);
    within.ok_or(EvalError::NoPlace { row, place, n_rows })
}
