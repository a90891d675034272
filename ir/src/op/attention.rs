//! Rotary positions and attention.

use super::{Args, TypeError};
use crate::interp::{Datum, EvalError, Number};
use crate::ops::Op;
use crate::ty::{Dim, Elem, Type};

pub(super) fn infer(op: &Op, args: Args<'_>) -> Result<Type, TypeError> {
    match op {
        Op::Rope { heads, theta } => {
            let (elem, rows, cols) = args.token_matrix(0)?;
            args.ints(1, rows)?;
            if *heads == 0 || !cols.is_multiple_of(heads.saturating_mul(2)) {
                return Err(
                    args.bad_attr("heads", format!("should split {cols} columns into heads of even width"))
                );
            }
            if !(theta.0 > 0.0 && theta.0.is_finite()) {
                return Err(args.bad_attr("theta", "should be finite and positive"));
            }
            Ok(Type::tensor(elem, &[rows, Dim::Fixed(cols)]))
        }
        Op::Attention { heads, kv_heads } => {
            let (_, q_rows, q_cols) = args.token_matrix(0)?;
            let (_, k_rows, kv_cols) = args.token_matrix(1)?;
            let (_, v_rows, v_cols) = args.token_matrix(2)?;
            args.same_rows(2, k_rows, v_rows)?;
            args.ints(3, q_rows)?;
            args.ints(4, q_rows)?;
            args.ints(5, k_rows)?;
            args.ints(6, k_rows)?;
            if *kv_heads == 0 || *heads == 0 || !heads.is_multiple_of(*kv_heads) {
                return Err(args.bad_attr("kv_heads", format!("should divide the {heads} heads")));
            }
            let width = q_cols / heads;
            if width == 0 || width * heads != q_cols {
                return Err(args.bad_attr("heads", format!("should divide the {q_cols} columns of `q`")));
            }
            for (idx, cols) in [(1, kv_cols), (2, v_cols)] {
                if Some(cols) != width.checked_mul(*kv_heads) {
                    return Err(args.wrong(idx, format!("a matrix of {kv_heads} heads of width {width}")));
                }
            }
            Ok(Type::tensor(Elem::Real, &[q_rows, Dim::Fixed(q_cols)]))
        }
        _ => Err(args.bad_attr("op", "is of another family")),
    }
}

pub(super) fn eval<N: Number>(op: &Op, operands: &[&Datum<N>]) -> Result<Datum<N>, EvalError> {
    match op {
        Op::Rope { heads, theta } => rope(operands[0], operands[1].ints()?, *heads as usize, theta.0),
        Op::Attention { heads, kv_heads } => attention(operands, *heads as usize, *kv_heads as usize),
        _ => Err(EvalError::NotHere(op.name())),
    }
}

/// The angle by which the pair `(pair, pair + half)` of a head turns at `position`, in radians.
///
/// Frequency and angle are rounded to f32, as in the reference: at position 1000 the rounding of the angle is a
/// visible part of the model (6e-5), so every form of a model has to round alike.
pub fn rope_angle(position: i64, pair: usize, half: usize, theta: f64) -> f32 {
    let frequency = libm::pow(theta, -(pair as f64) / half as f64) as f32;
    position as f32 * frequency
}

fn rope<N: Number>(x: &Datum<N>, positions: &[i64], heads: usize, theta: f64) -> Result<Datum<N>, EvalError> {
    let (cols, x) = x.real()?;
    let (width, half) = (cols / heads, cols / heads / 2);
    let mut data = x.to_vec();
    for (row, position) in data.chunks_exact_mut(cols).zip(positions) {
        for pair in 0..half {
            let angle = f64::from(rope_angle(*position, pair, half, theta));
            let (cos, sin) = (N::from_f64(libm::cos(angle)), N::from_f64(libm::sin(angle)));
            for head in row.chunks_exact_mut(width) {
                let (a, b) = (head[pair], head[pair + half]);
                head[pair] = a.mul(cos).sub(b.mul(sin));
                head[pair + half] = b.mul(cos).add(a.mul(sin));
            }
        }
    }
    Ok(Datum::Real { cols, data })
}

fn attention<N: Number>(
    operands: &[&Datum<N>],
    heads: usize,
    kv_heads: usize,
) -> Result<Datum<N>, EvalError> {
    let (q_cols, q) = operands[0].real()?;
    let (kv_cols, k) = operands[1].real()?;
    let (_, v) = operands[2].real()?;
    let (q_pos, q_seq) = (operands[3].ints()?, operands[4].ints()?);
    let (k_pos, k_seq) = (operands[5].ints()?, operands[6].ints()?);
    let width = q_cols / heads;
    let scale = N::from_f64(1.0 / (width as f64).sqrt());
    let mut data = Vec::with_capacity(q.len());
    for (row, query) in q.chunks_exact(q_cols).enumerate() {
        let seen: Vec<usize> =
            (0..k_pos.len()).filter(|key| k_seq[*key] == q_seq[row] && k_pos[*key] <= q_pos[row]).collect();
        for head in 0..heads {
            let kv_start = head / (heads / kv_heads) * width;
            let query = &query[head * width..][..width];
            let head_rows = |cache: &'_ [N], key: usize| cache[key * kv_cols + kv_start..][..width].to_vec();
            let scores: Vec<N> = seen.iter().map(|key| dot(query, &head_rows(k, *key)).mul(scale)).collect();
            let weights = softmax(&scores);
            let mut out = vec![N::ZERO; width];
            for (key, weight) in seen.iter().zip(weights) {
                for (out, value) in out.iter_mut().zip(head_rows(v, *key)) {
                    *out = out.add(weight.mul(value));
                }
            }
            data.extend(out);
        }
    }
    Ok(Datum::Real { cols: q_cols, data })
}

fn dot<N: Number>(a: &[N], b: &[N]) -> N {
    a.iter().zip(b).fold(N::ZERO, |sum, (a, b)| sum.add(a.mul(*b)))
}

fn softmax<N: Number>(scores: &[N]) -> Vec<N> {
    let Some(max) = scores.iter().copied().reduce(N::max) else { return Vec::new() };
    let exps: Vec<N> = scores.iter().map(|score| score.sub(max).exp()).collect();
    let sum = exps.iter().copied().fold(N::ZERO, N::add);
    exps.into_iter().map(|exp| exp.div(sum)).collect()
}
