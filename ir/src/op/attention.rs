//! Rotary positions and attention.

use super::{Args, TypeError, state};
use crate::attr::F64;
use crate::interp::functions::{self, Heads};
use crate::interp::{Datum, EvalError, Number};
use crate::ty::{Dim, Elem, Type};

pub(super) fn infer_rope(args: Args<'_>, heads: u32, theta: F64) -> Result<Type, TypeError> {
    let (elem, rows, cols) = args.token_matrix(0)?;
    args.ints(1, rows)?;
    if heads == 0 || !cols.is_multiple_of(heads.saturating_mul(2)) {
        return Err(args.bad_attr("heads", format!("should split {cols} columns into heads of even width")));
    }
    if !(theta.0 > 0.0 && theta.0.is_finite()) {
        return Err(args.bad_attr("theta", "should be finite and positive"));
    }
    Ok(Type::tensor(elem, &[rows, Dim::Fixed(cols)]))
}

pub(super) fn infer(args: Args<'_>, heads: u32, kv_heads: u32) -> Result<Type, TypeError> {
    let (_, k_rows, kv_cols) = args.token_matrix(1)?;
    let (_, v_rows, v_cols) = args.token_matrix(2)?;
    args.same_rows(2, k_rows, v_rows)?;
    args.ints(5, k_rows)?;
    args.ints(6, k_rows)?;
    infer_heads(args, (heads, kv_heads), (kv_cols, v_cols))
}

pub(super) fn infer_cached(args: Args<'_>, heads: u32, kv_heads: u32) -> Result<Type, TypeError> {
    let cached = |idx: usize| match args.ty(idx).as_state() {
        Some((Elem::Real, [Dim::Cached, Dim::Fixed(cols)])) => Ok(*cols),
        _ => Err(args.wrong(idx, "a cache of numbers, state<real[m, columns]>")),
    };
    let cols = (cached(1)?, cached(2)?);
    state::infer_pages(args, 5)?;
    if args.len() > 6 && args.ty(6).as_state() != Some((Elem::Mask, &[Dim::Cached])) {
        return Err(args.wrong(6, "a cache of decisions, state<mask[m]>"));
    }
    infer_heads(args, (heads, kv_heads), cols)
}

/// Attention of the queries, operand 0 at the places 3 and 4, over keys and values (operands 1 and 2) of these columns.
fn infer_heads(
    args: Args<'_>,
    (heads, kv_heads): (u32, u32),
    (k_cols, v_cols): (u32, u32),
) -> Result<Type, TypeError> {
    let (_, q_rows, q_cols) = args.token_matrix(0)?;
    args.ints(3, q_rows)?;
    args.ints(4, q_rows)?;
    if kv_heads == 0 || heads == 0 || !heads.is_multiple_of(kv_heads) {
        return Err(args.bad_attr("kv_heads", format!("should divide the {heads} heads")));
    }
    let width = q_cols / heads;
    if width == 0 || width * heads != q_cols {
        return Err(args.bad_attr("heads", format!("should divide the {q_cols} columns of `q`")));
    }
    for (idx, cols) in [(1, k_cols), (2, v_cols)] {
        if Some(cols) != width.checked_mul(kv_heads) {
            return Err(args.wrong(idx, format!("a matrix of {kv_heads} heads of width {width}")));
        }
    }
    Ok(Type::tensor(Elem::Real, &[q_rows, Dim::Fixed(q_cols)]))
}

/// The angle by which the pair `(pair, pair + half)` of a head turns at `position`, in radians.
///
/// Frequency and angle are rounded to f32, as in the reference: at position 1000 the rounding of the angle is a
/// visible part of the model (6e-5), so every form of a model has to round alike.
pub fn rope_angle(position: i64, pair: usize, half: usize, theta: f64) -> f32 {
    position as f32 * rope_frequency(pair, half, theta)
}

fn rope_frequency(pair: usize, half: usize, theta: f64) -> f32 {
    libm::pow(theta, -(pair as f64) / half as f64) as f32
}

pub(super) fn rope<N: Number>(
    x: &Datum<N>,
    positions: &[i64],
    heads: usize,
    theta: f64,
) -> Result<Datum<N>, EvalError> {
    let (cols, x) = x.real()?;
    let (width, half) = (cols / heads, cols / heads / 2);
    let frequencies: Vec<f32> = (0..half).map(|pair| rope_frequency(pair, half, theta)).collect();
    let (mut cos, mut sin) = (Vec::with_capacity(half), Vec::with_capacity(half));
    let mut data = x.to_vec();
    for (row, position) in data.chunks_exact_mut(cols).zip(positions) {
        let angles = frequencies.iter().map(|frequency| f64::from(*position as f32 * frequency));
        cos.clear();
        cos.extend(angles.clone().map(|angle| N::from_f64(libm::cos(angle))));
        sin.clear();
        sin.extend(angles.map(|angle| N::from_f64(libm::sin(angle))));
        row.chunks_exact_mut(width).for_each(|head| functions::turn(head, &cos, &sin));
    }
    Ok(Datum::Real { cols, data })
}

pub(super) fn attention<N: Number>(
    operands: &[&Datum<N>],
    heads: usize,
    kv_heads: usize,
) -> Result<Datum<N>, EvalError> {
    let (q_cols, q) = operands[0].real()?;
    let (_, k) = operands[1].real()?;
    let (_, v) = operands[2].real()?;
    let (q_pos, q_seq) = (operands[3].ints()?, operands[4].ints()?);
    let (k_pos, k_seq) = (operands[5].ints()?, operands[6].ints()?);
    let shape = Heads { heads, kv_heads, width: q_cols / heads };
    let (mut seen, mut scores) = (Vec::new(), Vec::new());
    let mut data = Vec::with_capacity(q.len());
    for (row, query) in q.chunks_exact(q_cols).enumerate() {
        seen.clear();
        seen.extend((0..k_pos.len()).filter(|key| k_seq[*key] == q_seq[row] && k_pos[*key] <= q_pos[row]));
        functions::attend(shape, query, (k, v), seen.iter().copied(), (&mut scores, &mut data));
    }
    Ok(Datum::Real { cols: q_cols, data })
}

/// As [`attention`], over the keys and values of a cache. `pages` has a row for each of the `n_tokens` rows of the step.
pub(super) fn cached_attention<N: Number>(
    operands: &[&Datum<N>],
    n_tokens: usize,
    heads: usize,
    kv_heads: usize,
) -> Result<Datum<N>, EvalError> {
    let (q_cols, q) = operands[0].real()?;
    let ((kv_cols, k), (_, v)) = (operands[1].real()?, operands[2].real()?);
    let (q_pos, q_seq) = (operands[3].ints()?, operands[4].ints()?);
    let present = operands.get(6).map(|present| present.mask()).transpose()?;
    let pages = state::Pages::new(operands[5], n_tokens, k.len() / kv_cols)?;
    let shape = Heads { heads, kv_heads, width: q_cols / heads };
    let (mut seen, mut scores) = (Vec::new(), Vec::new());
    let mut data = Vec::with_capacity(q.len());
    for (row, query) in q.chunks_exact(q_cols).enumerate() {
        seen.clear();
        for position in 0..=q_pos[row] {
            let key = pages.key(row, q_seq[row], position)?;
            if present.is_none_or(|present| present[key]) {
                seen.push(key);
            }
        }
        functions::attend(shape, query, (k, v), seen.iter().copied(), (&mut scores, &mut data));
    }
    Ok(Datum::Real { cols: q_cols, data })
}
