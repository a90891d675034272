//! Token sets: routing, and moving rows into and out of a set.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::{Args, TypeError};
use crate::interp::{Datum, Env, EvalError, Number, functions};
use crate::ops::Op;
use crate::ty::{Dim, Elem, Type};

pub(super) fn infer_route(op: &Op, args: Args<'_>) -> Result<Type, TypeError> {
    match op {
        Op::Route { set, at_least } => {
            if at_least.0.is_nan() {
                return Err(args.bad_attr("at_least", "should be a number"));
            }
            Ok(Type::Set { sym: *set, of: scored_rows(args, 0)? })
        }
        Op::RouteRandom { set, limit, .. } => {
            if *limit > 1 << 32 {
                return Err(args.bad_attr("limit", "should be at most 2^32"));
            }
            let rows = args.ty(0).rows();
            args.ints(0, rows)?;
            args.ints(1, rows)?;
            Ok(Type::Set { sym: *set, of: rows })
        }
        Op::RouteTopK { set, share } => {
            if !(0.0..=1.0).contains(&share.0) {
                return Err(args.bad_attr("share", "should be from 0.0 to 1.0"));
            }
            let of = scored_rows(args, 0)?;
            args.ints(1, of)?;
            Ok(Type::Set { sym: *set, of })
        }
        _ => Err(args.bad_attr("op", "is of another family")),
    }
}

pub(super) fn infer_limit(op: &Op, args: Args<'_>) -> Result<Type, TypeError> {
    let Type::Set { of, .. } = *args.ty(0) else { return Err(args.wrong(0, "a token set")) };
    let (set, group_size, places) = match op {
        Op::LimitFirst { set, group_size, .. } => (*set, *group_size, 1),
        Op::LimitBest { set, group_size, .. } => {
            let rows = scored_rows(args, 1)?;
            args.same_rows(1, of, rows)?;
            (*set, *group_size, 2)
        }
        _ => return Err(args.bad_attr("op", "is of another family")),
    };
    if group_size == 0 {
        return Err(args.bad_attr("group_size", "should be at least 1"));
    }
    args.ints(places, of)?;
    args.ints(places + 1, of)?;
    Ok(Type::Set { sym: set, of })
}

/// The rows of operand `idx`, which is one f32 score for each.
fn scored_rows(args: Args<'_>, idx: usize) -> Result<Dim, TypeError> {
    match args.ty(idx).as_tensor() {
        Some((Elem::F32, &[rows, Dim::Fixed(1)])) if rows.is_token_rows() => Ok(rows),
        _ => Err(args.wrong(idx, "one f32 score a token: f32[rows, 1]")),
    }
}

pub(super) fn infer_rows(op: &Op, args: Args<'_>) -> Result<Type, TypeError> {
    let set_idx = op.info().operands.len() - 1;
    let Type::Set { sym, of } = *args.ty(set_idx) else {
        return Err(args.wrong(set_idx, "a token set"));
    };
    match op {
        Op::Gather {} => match args.ty(0).as_tensor() {
            Some((elem, dims)) => {
                args.same_rows(0, of, args.ty(0).rows())?;
                let mut dims = dims.to_vec();
                dims[0] = Dim::Count(sym);
                Ok(Type::tensor(elem, &dims))
            }
            None => Err(args.wrong(0, "a tensor")),
        },
        Op::Scatter {} => {
            let (elem, base_rows, cols) = args.token_matrix(0)?;
            let (row_elem, rows, row_cols) = args.token_matrix(1)?;
            args.same_rows(0, of, base_rows)?;
            args.same_rows(1, Dim::Count(sym), rows)?;
            if (elem, cols) != (row_elem, row_cols) {
                return Err(args.wrong(1, format!("{elem}[{sym}, {cols}]")));
            }
            Ok(args.ty(0).clone())
        }
        _ => Ok(Type::tensor(Elem::Mask, &[of])),
    }
}

pub(super) fn eval_route<N: Number>(
    op: &Op,
    operands: &[&Datum<N>],
    env: &Env<'_, N>,
) -> Result<Datum<N>, EvalError> {
    let of = operands[0].n_rows();
    let mask: Vec<bool> = match (op.opens().and_then(|set| env.routing.forced(set, of)), op) {
        (Some(forced), _) if forced.len() != of => {
            return Err(EvalError::ForcedRows { got: forced.len(), wanted: of });
        }
        (Some(forced), _) => forced,
        (None, Op::Route { at_least, .. }) => {
            let (_, scores) = operands[0].real()?;
            scores.iter().map(|score| functions::reaches(*score, at_least.0)).collect()
        }
        (None, Op::RouteRandom { seed, block, limit, .. }) => {
            let (positions, sequences) = (operands[0].ints()?, operands[1].ints()?);
            let rows = positions.iter().zip(sequences);
            rows.map(|(pos, seq)| random_score(*seed, *block, *seq as u64, *pos as u64) < *limit).collect()
        }
        (None, Op::RouteTopK { share, .. }) => {
            let segments = operands[1].ints()?;
            let candidates = (0..of).map(|row| (segments[row], row)).collect();
            keep_best(of, candidates, Some(&ranks(operands[0])?), |rows| top_k(share.0, rows))
        }
        (None, Op::LimitFirst { group_size, slots, .. }) => {
            let candidates = wanted_of_groups(operands[0], *group_size, &operands[1..])?;
            keep_best(of, candidates, None, |_| *slots as usize)
        }
        (None, Op::LimitBest { group_size, slots, .. }) => {
            let candidates = wanted_of_groups(operands[0], *group_size, &operands[2..])?;
            keep_best(of, candidates, Some(&ranks(operands[1])?), |_| *slots as usize)
        }
        _ => return Err(EvalError::NotHere(op.name())),
    };
    let rows = mask.iter().enumerate().filter(|(_, executes)| **executes).map(|(row, _)| row).collect();
    Ok(Datum::Set { rows, of })
}

/// How many of `rows` rows a top-k router takes: `max(1, ⌈share · rows⌉)`, the product in f64.
pub fn top_k(share: f64, rows: usize) -> usize {
    // `as` saturates, and a share is at most 1.
    ((share * rows as f64).ceil() as usize).max(1)
}

/// Scores in the order in which they rank: one that is not a number counts as −∞.
fn ranks<N: Number>(scores: &Datum<N>) -> Result<Vec<f64>, EvalError> {
    let (_, scores) = scores.real()?;
    let rank = |score: f64| if score.is_nan() { f64::NEG_INFINITY } else { score };
    Ok(scores.iter().map(|score| rank(score.to_f64())).collect())
}

/// Sequence, and number of the group in it.
type Group = (i64, i64);

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

/// Of the candidates `(segment, row)` of each segment the best `n_kept(candidates)`, by descending rank if there are
/// ranks, earlier rows before later ones: the mask over `of` rows.
fn keep_best<S: Ord>(
    of: usize,
    candidates: Vec<(S, usize)>,
    ranks: Option<&[f64]>,
    n_kept: impl Fn(usize) -> usize,
) -> Vec<bool> {
    let mut segments: BTreeMap<S, Vec<usize>> = BTreeMap::new();
    for (segment, row) in candidates {
        segments.entry(segment).or_default().push(row);
    }
    let mut mask = vec![false; of];
    for mut rows in segments.into_values() {
        if let Some(ranks) = ranks {
            rows.sort_by(|a, b| ranks[*b].partial_cmp(&ranks[*a]).unwrap_or(Ordering::Equal));
        }
        let n_kept = n_kept(rows.len());
        rows.into_iter().take(n_kept).for_each(|row| mask[row] = true);
    }
    mask
}

/// The upper 32 bits of SplitMix64 (Steele et al. 2014) over the place of a token: what the random router compares
/// with density · 2³².
pub fn random_score(seed: u64, block: u32, sequence: u64, position: u64) -> u64 {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut z = seed
        .wrapping_mul(GOLDEN)
        .wrapping_add(u64::from(block) << 48)
        .wrapping_add(sequence << 32)
        .wrapping_add(position)
        .wrapping_add(GOLDEN);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)) >> 32
}

pub(super) fn eval_rows<N: Number>(op: &Op, operands: &[&Datum<N>]) -> Result<Datum<N>, EvalError> {
    let (rows, of) = operands[operands.len() - 1].set()?;
    match op {
        Op::Gather {} => Ok(operands[0].select_rows(rows)),
        Op::Scatter {} => {
            let (cols, base) = operands[0].real()?;
            let (_, new) = operands[1].real()?;
            let mut data = base.to_vec();
            for (row, values) in rows.iter().zip(new.chunks_exact(cols)) {
                data[row * cols..][..cols].copy_from_slice(values);
            }
            Ok(Datum::Real { cols, data })
        }
        _ => {
            let mut mask = vec![false; of];
            for row in rows {
                mask[*row] = true;
            }
            Ok(Datum::Mask(mask))
        }
    }
}
