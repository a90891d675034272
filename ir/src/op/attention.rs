//! Rotary positions and attention.

use super::args::{Args, TypeError};
use super::state;
use crate::attr::F64;
use crate::interp::functions::{self, Heads};
use crate::interp::{Datum, EvalError, Number};
use crate::rope::Frequencies;
use crate::scoring::{MOST_AHEAD, Scoring};
use crate::ty::{Dim, Elem, Type};

pub(super) fn infer_rope(
    args: Args<'_>,
    (heads, turned): (u32, Option<u32>),
    frequencies: Frequencies,
) -> Result<Type, TypeError> {
    let (elem, rows, cols) = args.token_matrix(0)?;
    args.ints(1, rows)?;
    let halves = if turned.is_none() { 2 } else { 1 };
    if heads == 0 || !cols.is_multiple_of(heads.saturating_mul(halves)) {
        return Err(args.bad_attr("heads", format!("should split {cols} columns into heads of even width")));
    }
    if let Some(turned) = turned
        && !(turned > 0 && turned.is_multiple_of(2) && turned <= cols / heads)
    {
        return Err(
            args.bad_attr("turned", format!("should be even and at most the {} of a head", cols / heads))
        );
    }
    if !(frequencies.theta.0 > 0.0 && frequencies.theta.0.is_finite()) {
        return Err(args.bad_attr("theta", "should be finite and positive"));
    }
    if let Some(fault) = frequencies.scaling.and_then(|scaling| scaling.fault()) {
        return Err(args.bad_attr("scaling", fault));
    }
    Ok(Type::tensor(elem, &[rows, Dim::Fixed(cols)]))
}

pub(super) fn infer(args: Args<'_>, heads: (u32, u32), scoring: Scoring) -> Result<Type, TypeError> {
    let (_, k_rows, kv_cols) = args.token_matrix(1)?;
    let (_, v_rows, v_cols) = args.token_matrix(2)?;
    args.same_rows(2, k_rows, v_rows)?;
    args.ints(5, k_rows)?;
    args.ints(6, k_rows)?;
    infer_heads(args, heads, scoring, (kv_cols, v_cols))
}

pub(super) fn infer_cached(args: Args<'_>, heads: (u32, u32), scoring: Scoring) -> Result<Type, TypeError> {
    let cached = |idx: usize| match args.ty(idx).as_state() {
        Some((Elem::Real, [Dim::Cached, Dim::Fixed(cols)])) => Ok(*cols),
        _ => Err(args.wrong(idx, "a cache of numbers, state<real[m, columns]>")),
    };
    let cols = (cached(1)?, cached(2)?);
    state::infer_pages(args, 5)?;
    if args.len() > 6 && args.ty(6).as_state() != Some((Elem::Mask, &[Dim::Cached])) {
        return Err(args.wrong(6, "a cache of decisions, state<mask[m]>"));
    }
    infer_heads(args, heads, scoring, cols)
}

/// Attention of the queries, operand 0 at the places 3 and 4, over keys and values (operands 1 and 2) of these columns.
fn infer_heads(
    args: Args<'_>,
    (heads, kv_heads): (u32, u32),
    scoring: Scoring,
    (k_cols, v_cols): (u32, u32),
) -> Result<Type, TypeError> {
    let is_positive =
        |number: Option<F64>| number.is_none_or(|number| number.0.is_finite() && number.0 > 0.0);
    for (attr, number) in [("scale", scoring.scale), ("cap", scoring.cap)] {
        if !is_positive(number) {
            return Err(args.bad_attr(attr, "should be finite and positive"));
        }
    }
    if scoring.ahead.is_some_and(|ahead| ahead > MOST_AHEAD) {
        return Err(args.bad_attr("ahead", "should be at most 2^30"));
    }
    if scoring.window == Some(0) {
        return Err(args.bad_attr("window", "should be at least 1: the query's own position"));
    }
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

pub(super) fn rope<N: Number>(
    x: &Datum<N>,
    positions: &[i64],
    heads: (u32, Option<u32>),
    frequencies: Frequencies,
) -> Result<Datum<N>, EvalError> {
    turned(x, positions, heads, frequencies, |sin| sin)
}

/// Turns the pairs of each head; `of_sin` makes of the sine of an angle what a pair turns by: its negative turns back.
pub(super) fn turned<N: Number>(
    x: &Datum<N>,
    positions: &[i64],
    (heads, turned): (u32, Option<u32>),
    frequencies: Frequencies,
    of_sin: impl Fn(f64) -> f64,
) -> Result<Datum<N>, EvalError> {
    let (cols, x) = x.real()?;
    let width = cols / heads as usize;
    let turned = turned.map_or(width, |turned| turned as usize);
    let half = turned / 2;
    let frequencies: Vec<f32> = (0..half).map(|pair| frequencies.frequency(pair, half)).collect();
    let (mut cos, mut sin) = (Vec::with_capacity(half), Vec::with_capacity(half));
    let mut data = x.to_vec();
    for (row, position) in data.chunks_exact_mut(cols).zip(positions) {
        let angles = frequencies.iter().map(|frequency| f64::from(*position as f32 * frequency));
        cos.clear();
        cos.extend(angles.clone().map(|angle| N::from_f64(libm::cos(angle))));
        sin.clear();
        sin.extend(angles.map(|angle| N::from_f64(of_sin(libm::sin(angle)))));
        row.chunks_exact_mut(width).for_each(|head| functions::turn(&mut head[..turned], &cos, &sin));
    }
    Ok(Datum::Real { cols, data })
}

pub(super) fn attention<N: Number>(
    operands: &[&Datum<N>],
    (heads, kv_heads): (u32, u32),
    scoring: Scoring,
) -> Result<Datum<N>, EvalError> {
    let (q_cols, q) = operands[0].real()?;
    let (_, k) = operands[1].real()?;
    let (_, v) = operands[2].real()?;
    let (q_pos, q_seq) = (operands[3].ints()?, operands[4].ints()?);
    let (k_pos, k_seq) = (operands[5].ints()?, operands[6].ints()?);
    let shape = Heads::of(heads, kv_heads, q_cols);
    let (mut seen, mut scores) = (Vec::new(), Vec::new());
    let mut data = Vec::with_capacity(q.len());
    for (row, query) in q.chunks_exact(q_cols).enumerate() {
        seen.clear();
        let positions = scoring.positions(q_pos[row]);
        seen.extend(
            (0..k_pos.len()).filter(|key| k_seq[*key] == q_seq[row] && positions.contains(&k_pos[*key])),
        );
        functions::attend((shape, scoring), query, (k, v), seen.iter().copied(), (&mut scores, &mut data));
    }
    Ok(Datum::Real { cols: q_cols, data })
}

/// As [`attention`], over the keys and values of a cache. `pages` has a row for each of the `n_tokens` rows of the step.
pub(super) fn cached_attention<N: Number>(
    operands: &[&Datum<N>],
    n_tokens: usize,
    (heads, kv_heads): (u32, u32),
    scoring: Scoring,
) -> Result<Datum<N>, EvalError> {
    let (q_cols, q) = operands[0].real()?;
    let ((kv_cols, k), (_, v)) = (operands[1].real()?, operands[2].real()?);
    let (q_pos, q_seq) = (operands[3].ints()?, operands[4].ints()?);
    let present = operands.get(6).map(|present| present.mask()).transpose()?;
    let pages = state::Pages::new(operands[5], n_tokens, k.len() / kv_cols)?;
    let shape = Heads::of(heads, kv_heads, q_cols);
    let (mut seen, mut scores) = (Vec::new(), Vec::new());
    let mut data = Vec::with_capacity(q.len());
    for (row, query) in q.chunks_exact(q_cols).enumerate() {
        seen.clear();
        for position in scoring.positions(q_pos[row]) {
            let key = pages.key(row, q_seq[row], position)?;
            if present.is_none_or(|present| present[key]) {
                seen.push(key);
            }
        }
        functions::attend((shape, scoring), query, (k, v), seen.iter().copied(), (&mut scores, &mut data));
    }
    Ok(Datum::Real { cols: q_cols, data })
}
