//! Token sets: routing, and moving rows into and out of a set.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::args::{Args, TypeError};
use crate::attr::F64;
use crate::interp::{Datum, Env, EvalError, Number, functions};
use crate::rounding::Rounding;
use crate::ty::{Dim, Elem, SetSym, Type};

pub(super) fn infer_route(args: Args<'_>, set: SetSym, at_least: F64) -> Result<Type, TypeError> {
    if at_least.0.is_nan() {
        return Err(args.bad_attr("at_least", "should be a number"));
    }
    Ok(Type::Set { sym: set, of: scored_rows(args, 0)? })
}

pub(super) fn infer_random(args: Args<'_>, set: SetSym, limit: u64) -> Result<Type, TypeError> {
    if limit > 1 << 32 {
        return Err(args.bad_attr("limit", "should be at most 2^32"));
    }
    let rows = args.ty(0).rows();
    (0..args.len()).try_for_each(|idx| args.ints(idx, rows))?;
    Ok(Type::Set { sym: set, of: rows })
}

/// Top-k, among the rows of the set that is operand `among` if there is one.
pub(super) fn infer_top_k(
    args: Args<'_>,
    (set, share): (SetSym, F64),
    among: Option<usize>,
) -> Result<Type, TypeError> {
    if !(0.0..=1.0).contains(&share.0) {
        return Err(args.bad_attr("share", "should be from 0.0 to 1.0"));
    }
    let of = scored_rows(args, 0)?;
    if let Some(among) = among {
        let (_, rows) = token_set(args, among)?;
        args.same_rows(among, of, rows)?;
    }
    (among.unwrap_or(0) + 1..args.len()).try_for_each(|idx| args.ints(idx, of))?;
    Ok(Type::Set { sym: set, of })
}

/// A capacity of the set that is operand 0, whose scores are operand `scores`, if it ranks by any.
pub(super) fn infer_limit(
    args: Args<'_>,
    (set, group_size): (SetSym, u32),
    scores: Option<usize>,
) -> Result<Type, TypeError> {
    let Type::Set { of, .. } = *args.ty(0) else { return Err(args.wrong(0, "a token set")) };
    if let Some(scores) = scores {
        let rows = scored_rows(args, scores)?;
        args.same_rows(scores, of, rows)?;
    }
    if group_size == 0 {
        return Err(args.bad_attr("group_size", "should be at least 1"));
    }
    let places = scores.unwrap_or(0) + 1;
    args.ints(places, of)?;
    args.ints(places + 1, of)?;
    Ok(Type::Set { sym: set, of })
}

pub(super) fn infer_complement(args: Args<'_>, set: SetSym) -> Result<Type, TypeError> {
    match token_set(args, 0)? {
        (_, of) if of.is_token_rows() => Ok(Type::Set { sym: set, of }),
        _ => Err(args.wrong(0, "a set of tokens")),
    }
}

pub(super) fn infer_with_first(args: Args<'_>, set: SetSym) -> Result<Type, TypeError> {
    let ty = infer_complement(args, set)?;
    let (_, of) = token_set(args, 0)?;
    args.ints(1, of)?;
    Ok(ty)
}

/// A set of the rows that two sets of the same tokens have in common.
pub(super) fn infer_within(args: Args<'_>, set: SetSym) -> Result<Type, TypeError> {
    let ((_, of), (_, outer)) = (token_set(args, 0)?, token_set(args, 1)?);
    if !of.is_token_rows() {
        return Err(args.wrong(0, "a set of tokens"));
    }
    args.same_rows(1, of, outer)?;
    Ok(Type::Set { sym: set, of })
}

pub(super) fn infer_force(args: Args<'_>) -> Result<Type, TypeError> {
    let rows = scored_rows(args, 0)?;
    args.ints(1, rows)?;
    Ok(args.ty(0).clone())
}

/// The rows of operand `idx`, which is one f32 score for each.
pub(super) fn scored_rows(args: Args<'_>, idx: usize) -> Result<Dim, TypeError> {
    match args.ty(idx).as_tensor() {
        Some((Elem::F32, &[rows, Dim::Fixed(1)])) if rows.is_token_rows() => Ok(rows),
        _ => Err(args.wrong(idx, "one f32 score a token: f32[rows, 1]")),
    }
}

/// Operand `idx`, a token set or a partition: its symbol and the rows that it selects from.
fn listed(args: Args<'_>, idx: usize) -> Result<(SetSym, Dim), TypeError> {
    args.ty(idx).as_rows().ok_or_else(|| args.wrong(idx, "a token set or a partition"))
}

/// Operand `idx`, a token set: its symbol and the rows that it selects from.
fn token_set(args: Args<'_>, idx: usize) -> Result<(SetSym, Dim), TypeError> {
    match *args.ty(idx) {
        Type::Set { sym, of } => Ok((sym, of)),
        Type::Tensor { .. } | Type::Partition { .. } | Type::State { .. } => {
            Err(args.wrong(idx, "a token set"))
        }
    }
}

pub(super) fn infer_gather(args: Args<'_>) -> Result<Type, TypeError> {
    let (sym, of) = listed(args, 1)?;
    let values = args.ty(0).as_tensor().or_else(|| args.ty(0).as_state());
    let Some((elem, dims)) = values else { return Err(args.wrong(0, "a tensor or a cache")) };
    if elem == Elem::Int && dims.len() > 1 {
        return Err(args.wrong(0, "numbers, or one integer or bit for each row"));
    }
    args.same_rows(0, of, args.ty(0).rows())?;
    let mut dims = dims.to_vec();
    dims[0] = Dim::Count(sym);
    Ok(Type::tensor(elem, &dims))
}

pub(super) fn infer_scatter(args: Args<'_>) -> Result<Type, TypeError> {
    let (sym, of) = listed(args, 2)?;
    let (elem, base_rows, cols) = args.token_matrix(0)?;
    let (row_elem, rows, row_cols) = args.token_matrix(1)?;
    args.same_rows(0, of, base_rows)?;
    args.same_rows(1, Dim::Count(sym), rows)?;
    if (elem, cols) != (row_elem, row_cols) {
        return Err(args.wrong(1, format!("{elem}[{sym}, {cols}]")));
    }
    Ok(args.ty(0).clone())
}

pub(super) fn infer_executed(args: Args<'_>) -> Result<Type, TypeError> {
    match token_set(args, 0)? {
        (_, of) if of.is_token_rows() => Ok(Type::tensor(Elem::Mask, &[of])),
        _ => Err(args.wrong(0, "a set of tokens")),
    }
}

/// The set that a route makes of the rows that an operand has: what is forced, or else what it decides.
pub(super) fn route<N: Number>(
    set: SetSym,
    rows: &Datum<N>,
    env: &Env<'_, N>,
    decide: impl FnOnce() -> Result<Vec<bool>, EvalError>,
) -> Result<Datum<N>, EvalError> {
    let of = rows.n_rows();
    let mask = match env.routing.forced(set, of) {
        Some(forced) if forced.len() != of => {
            return Err(EvalError::ForcedRows { got: forced.len(), wanted: of });
        }
        Some(forced) => forced,
        None => decide()?,
    };
    let rows = mask.iter().enumerate().filter(|(_, executes)| **executes).map(|(row, _)| row).collect();
    Ok(Datum::Set { rows, of })
}

/// The rows that are not in a set. Nobody forces them: they follow from the set.
pub(super) fn complement<N: Number>(executed: &Datum<N>) -> Result<Datum<N>, EvalError> {
    let (taken, of) = executed.set()?;
    let rows = (0..of).filter(|row| taken.binary_search(row).is_err()).collect();
    Ok(Datum::Set { rows, of })
}

/// Which rows are in both sets.
pub(super) fn within<N: Number>(operands: &[&Datum<N>]) -> Result<Vec<bool>, EvalError> {
    let ((wanted, of), (outer, _)) = (operands[0].set()?, operands[1].set()?);
    let mut mask = vec![false; of];
    wanted.iter().for_each(|row| mask[*row] = outer.binary_search(row).is_ok());
    Ok(mask)
}

pub(super) fn force_first<N: Number>(
    scores: &Datum<N>,
    positions: &Datum<N>,
    first: u32,
) -> Result<Datum<N>, EvalError> {
    let (cols, scores) = scores.real()?;
    let lift = |position: i64| if position < i64::from(first) { f64::INFINITY } else { 0.0 };
    let rows = scores.iter().zip(positions.ints()?);
    let data = rows.map(|(score, position)| score.add(N::from_f64(lift(*position)))).collect();
    Ok(Datum::Real { cols, data })
}

/// The rows of a set, and those of the first positions.
pub(super) fn with_first<N: Number>(
    chosen: &Datum<N>,
    positions: &Datum<N>,
    first: u32,
) -> Result<Vec<bool>, EvalError> {
    let mut mask: Vec<bool> = positions.ints()?.iter().map(|position| *position < i64::from(first)).collect();
    let (rows, _) = chosen.set()?;
    rows.iter().for_each(|row| mask[*row] = true);
    Ok(mask)
}

pub(super) fn at_least<N: Number>(scores: &Datum<N>, threshold: f64) -> Result<Vec<bool>, EvalError> {
    let (_, scores) = scores.real()?;
    Ok(scores.iter().map(|score| functions::reaches(*score, threshold)).collect())
}

pub(super) fn random<N: Number>(
    (seed, block, limit): (u64, u32, u64),
    ids: &Datum<N>,
    sequences: Option<&Datum<N>>,
) -> Result<Vec<bool>, EvalError> {
    let ids = ids.ints()?;
    let sequences = match sequences {
        Some(sequences) => sequences.ints()?,
        None => &vec![0; ids.len()],
    };
    let rows = ids.iter().zip(sequences);
    Ok(rows.map(|(id, seq)| random_score(seed, block, *seq as u64, *id as u64) < limit).collect())
}

/// Top-k.
pub(super) fn best<N: Number>(
    (set, share, round): (SetSym, F64, Rounding),
    operands: &[&Datum<N>],
    env: &Env<'_, N>,
) -> Result<Datum<N>, EvalError> {
    let sequences = operands.get(1).copied();
    route(set, operands[0], env, || best_of_sequence((share.0, round), operands[0], sequences, None))
}

/// Top-k among the rows of the set that is operand 1.
pub(super) fn best_in<N: Number>(
    (set, share, round): (SetSym, F64, Rounding),
    operands: &[&Datum<N>],
    env: &Env<'_, N>,
) -> Result<Datum<N>, EvalError> {
    let (among, sequences) = (Some(operands[1]), operands.get(2).copied());
    route(set, operands[0], env, || best_of_sequence((share.0, round), operands[0], sequences, among))
}

fn best_of_sequence<N: Number>(
    (share, round): (f64, Rounding),
    scores: &Datum<N>,
    sequences: Option<&Datum<N>>,
    among: Option<&Datum<N>>,
) -> Result<Vec<bool>, EvalError> {
    let of = scores.n_rows();
    let mut candidates: Vec<(i64, usize)> = match sequences {
        Some(sequences) => sequences.ints()?.iter().copied().zip(0..).collect(),
        None => (0..of).map(|row| (0, row)).collect(),
    };
    let mut lengths: BTreeMap<i64, usize> = BTreeMap::new();
    candidates.iter().for_each(|(sequence, _)| *lengths.entry(*sequence).or_default() += 1);
    if let Some(among) = among {
        let (rows, _) = among.set()?;
        candidates.retain(|(_, row)| rows.binary_search(row).is_ok());
    }
    let n_kept = |sequence: &i64| top_k(share, round, lengths.get(sequence).copied().unwrap_or(0));
    Ok(keep_best(of, candidates, Some(&ranks(scores)?), n_kept))
}

/// The first rows of each group of a set; the best if there are scores.
pub(super) fn limited<N: Number>(
    (group_size, slots): (u32, u32),
    wanted: &Datum<N>,
    scores: Option<&Datum<N>>,
    places: &[&Datum<N>],
) -> Result<Vec<bool>, EvalError> {
    let candidates = wanted_of_groups(wanted, group_size, places)?;
    let ranks = scores.map(ranks).transpose()?;
    Ok(keep_best(wanted.n_rows(), candidates, ranks.as_deref(), |_| slots as usize))
}

/// The first rows of each group of a set, as many as earlier steps have left of it.
pub(super) fn limited_after<N: Number>(
    taken: &BTreeMap<Group, i64>,
    (group_size, slots): (u32, u32),
    wanted: &Datum<N>,
    places: &[&Datum<N>],
) -> Result<Vec<bool>, EvalError> {
    let candidates = wanted_of_groups(wanted, group_size, places)?;
    Ok(keep_best(wanted.n_rows(), candidates, None, |group| {
        let taken = taken.get(group).copied().unwrap_or(0);
        (slots as usize).saturating_sub(usize::try_from(taken).unwrap_or(0))
    }))
}

/// How many of `rows` rows a top-k router takes: `share · rows`, a product in f64, rounded, and at least one.
pub fn top_k(share: f64, round: Rounding, rows: usize) -> usize {
    // `as` saturates, and a share is at most 1.
    (round.of(share * rows as f64) as usize).max(1)
}

/// Scores in the order in which they rank: one that is not a number counts as −∞.
fn ranks<N: Number>(scores: &Datum<N>) -> Result<Vec<f64>, EvalError> {
    let (_, scores) = scores.real()?;
    let rank = |score: f64| if score.is_nan() { f64::NEG_INFINITY } else { score };
    Ok(scores.iter().map(|score| rank(score.to_f64())).collect())
}

/// Sequence, and number of the group in it.
pub(super) type Group = (i64, i64);

/// The rows of a set with the group that each falls into.
fn wanted_of_groups<N: Number>(
    wanted: &Datum<N>,
    group_size: u32,
    places: &[&Datum<N>],
) -> Result<Vec<(Group, usize)>, EvalError> {
    let (rows, _) = wanted.set()?;
    let (positions, sequences) = (places[0].ints()?, places[1].ints()?);
    let group = |row: usize| (sequences[row], positions[row].div_euclid(i64::from(group_size)));
    Ok(rows.iter().map(|row| (group(*row), *row)).collect())
}

/// Of the candidates `(segment, row)` of each segment the best `n_kept(segment)`, by descending rank if there are
/// ranks, earlier rows before later ones: the mask over `of` rows.
fn keep_best<S: Ord>(
    of: usize,
    candidates: Vec<(S, usize)>,
    ranks: Option<&[f64]>,
    n_kept: impl Fn(&S) -> usize,
) -> Vec<bool> {
    let mut segments: BTreeMap<S, Vec<usize>> = BTreeMap::new();
    for (segment, row) in candidates {
        segments.entry(segment).or_default().push(row);
    }
    let mut mask = vec![false; of];
    for (segment, mut rows) in segments {
        if let Some(ranks) = ranks {
            rows.sort_by(|a, b| ranks[*b].partial_cmp(&ranks[*a]).unwrap_or(Ordering::Equal));
        }
        let n_kept = n_kept(&segment);
        rows.into_iter().take(n_kept).for_each(|row| mask[row] = true);
    }
    mask
}

/// The expert, of so many, of a token id: what [`random_score`] draws for it, so that no router is needed.
pub fn hash_expert(seed: u64, block: u32, id: u64, experts: u32) -> u64 {
    random_score(seed, block, 0, id) % u64::from(experts)
}

/// The upper 32 bits of SplitMix64 (Steele et al. 2014) over the place of a token, or over its id in sequence 0: what
/// routers that draw compare with density · 2³².
pub fn random_score(seed: u64, block: u32, sequence: u64, id: u64) -> u64 {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut z = seed
        .wrapping_mul(GOLDEN)
        .wrapping_add(u64::from(block) << 48)
        .wrapping_add(sequence << 32)
        .wrapping_add(id)
        .wrapping_add(GOLDEN);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)) >> 32
}

pub(super) fn scatter<N: Number>(
    base: &Datum<N>,
    rows: &Datum<N>,
    set: &Datum<N>,
) -> Result<Datum<N>, EvalError> {
    let (cols, base) = base.real()?;
    let (_, new) = rows.real()?;
    let mut data = base.to_vec();
    for (row, values) in set.listed()?.iter().zip(new.chunks_exact(cols)) {
        data[row * cols..][..cols].copy_from_slice(values);
    }
    Ok(Datum::Real { cols, data })
}

pub(super) fn executed<N: Number>(set: &Datum<N>) -> Result<Datum<N>, EvalError> {
    let (rows, of) = set.set()?;
    let mut mask = vec![false; of];
    rows.iter().for_each(|row| mask[*row] = true);
    Ok(Datum::Mask(mask))
}
