//! Token sets: routing, and moving rows into and out of a set.

use super::{Args, TypeError};
use crate::interp::{Datum, Env, EvalError, Number};
use crate::ops::Op;
use crate::ty::{Dim, Elem, Type};

pub(super) fn infer_route(op: &Op, args: Args<'_>) -> Result<Type, TypeError> {
    match op {
        Op::Route { set, at_least } => {
            if at_least.0.is_nan() {
                return Err(args.bad_attr("at_least", "should be a number"));
            }
            match args.ty(0).as_tensor() {
                Some((Elem::F32, &[rows, Dim::Fixed(1)])) if rows.is_token_rows() => {
                    Ok(Type::Set { sym: *set, of: rows })
                }
                _ => Err(args.wrong(0, "one f32 score a token: f32[rows, 1]")),
            }
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
        _ => Err(args.bad_attr("op", "is of another family")),
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
    let mask: Vec<bool> = match (op.opens().and_then(|set| env.routing.forced(set)), op) {
        (Some(forced), _) if forced.len() != of => {
            return Err(EvalError::ForcedRows { got: forced.len(), wanted: of });
        }
        (Some(forced), _) => forced,
        (None, Op::Route { at_least, .. }) => {
            let (_, scores) = operands[0].real()?;
            scores.iter().map(|score| score.to_f64() >= at_least.0).collect()
        }
        (None, Op::RouteRandom { seed, block, limit, .. }) => {
            let (positions, sequences) = (operands[0].ints()?, operands[1].ints()?);
            let rows = positions.iter().zip(sequences);
            rows.map(|(pos, seq)| random_score(*seed, *block, *seq as u64, *pos as u64) < *limit).collect()
        }
        _ => return Err(EvalError::NotHere(op.name())),
    };
    let rows = mask.iter().enumerate().filter(|(_, executes)| **executes).map(|(row, _)| row).collect();
    Ok(Datum::Set { rows, of })
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
