//! The backward pass of attention: for each query and head `p = softmax(s)` again, and with `g_j = ⟨dy, v_j⟩` the gradient
//! `p_j (g_j − Σ p g)` of its scores.

use super::super::{Args, TypeError};
use crate::interp::functions::{Heads, dot};
use crate::interp::{Datum, EvalError, Number};
use crate::scoring::Scoring;
use crate::ty::{Elem, Type};

/// The type of operand `of`, whose gradient it is.
pub(super) fn infer(
    args: Args<'_>,
    heads: (u32, u32),
    scoring: Scoring,
    of: usize,
) -> Result<Type, TypeError> {
    let result = super::super::attention::infer(args, heads, scoring)?;
    if *args.ty(7) != result {
        return Err(args.wrong(7, result.to_string()));
    }
    match args.ty(of).as_tensor() {
        Some((Elem::Real, _)) => Ok(args.ty(of).clone()),
        _ => Err(args.wrong(of, "a matrix of real numbers")),
    }
}

/// One head of one query.
struct OfHead<'a, N> {
    /// Row of the query.
    row: usize,
    /// First column of the head in queries and in results.
    q_at: usize,
    /// First column of the head in keys and values.
    kv_at: usize,
    /// Rows of the keys that it sees.
    seen: &'a [usize],
    /// Weight of each of them.
    weights: &'a [N],
    /// Gradient of each product of query and key.
    products: &'a [N],
}

/// Calls `each` for every query and head, in order.
fn each_head<N: Number>(
    operands: &[&Datum<N>],
    (heads, kv_heads): (u32, u32),
    scoring: Scoring,
    mut each: impl FnMut(OfHead<'_, N>),
) -> Result<(), EvalError> {
    let ((q_cols, q), (_, k), (_, v)) = (operands[0].real()?, operands[1].real()?, operands[2].real()?);
    let (q_pos, q_seq) = (operands[3].ints()?, operands[4].ints()?);
    let (k_pos, k_seq) = (operands[5].ints()?, operands[6].ints()?);
    let (_, dy) = operands[7].real()?;
    let shape = Heads::of(heads, kv_heads, q_cols);
    let (width, kv_cols) = (shape.width, shape.kv_cols());
    let scale = N::from_f64(scoring.scale(width as u32));
    let cap = scoring.cap.map(|cap| [1.0 / cap.0, cap.0].map(N::from_f64));
    let (mut seen, mut weights, mut slopes, mut products) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in 0..q_pos.len() {
        let positions = scoring.positions(q_pos[row]);
        seen.clear();
        seen.extend(
            (0..k_pos.len()).filter(|key| k_seq[*key] == q_seq[row] && positions.contains(&k_pos[*key])),
        );
        for head in 0..shape.heads {
            let (q_at, kv_at) = (head * width, head / (shape.heads / shape.kv_heads) * width);
            let query = &q[row * q_cols + q_at..][..width];
            weights.clear();
            slopes.clear();
            products.clear();
            for key in &seen {
                let score = dot(query, &k[key * kv_cols + kv_at..][..width]).mul(scale);
                let Some([inverse, cap]) = cap else {
                    weights.push(score);
                    slopes.push(scale);
                    continue;
                };
                let bent = score.mul(inverse).tanh();
                weights.push(bent.mul(cap));
                slopes.push(N::ONE.sub(bent.mul(bent)).mul(scale));
            }
            softmax(&mut weights);
            let dy = &dy[row * q_cols + q_at..][..width];
            products.extend(seen.iter().map(|key| dot(dy, &v[key * kv_cols + kv_at..][..width])));
            let mean = dot(&products, &weights);
            for ((product, weight), slope) in products.iter_mut().zip(&weights).zip(&slopes) {
                *product = product.sub(mean).mul(*weight).mul(*slope);
            }
            let (seen, weights, products) = (&seen, &weights, &products);
            each(OfHead { row, q_at, kv_at, seen, weights, products });
        }
    }
    Ok(())
}

/// As attention itself computes it; nothing for a query without keys.
fn softmax<N: Number>(scores: &mut [N]) {
    let Some(max) = scores.iter().copied().reduce(N::max) else { return };
    let max = if N::EXACT { N::ZERO } else { max };
    scores.iter_mut().for_each(|score| *score = score.sub(max).exp());
    let total = N::narrow(scores.iter().fold(N::Wide::ZERO, |sum, weight| sum.add(weight.widen())));
    N::div_all(scores, total);
}

/// Adds `factor · row` to a row.
fn add_to<N: Number>(sum: &mut [N], factor: N, row: &[N]) {
    sum.iter_mut().zip(row).for_each(|(sum, x)| *sum = sum.add(factor.mul(*x)));
}

pub(super) fn query_gradient<N: Number>(
    operands: &[&Datum<N>],
    heads: (u32, u32),
    scoring: Scoring,
) -> Result<Datum<N>, EvalError> {
    let ((cols, q), (kv_cols, k)) = (operands[0].real()?, operands[1].real()?);
    let width = cols / heads.0 as usize;
    let mut data = vec![N::ZERO; q.len()];
    each_head(operands, heads, scoring, |head| {
        let sum = &mut data[head.row * cols + head.q_at..][..width];
        for (key, product) in head.seen.iter().zip(head.products) {
            add_to(sum, *product, &k[key * kv_cols + head.kv_at..][..width]);
        }
    })?;
    Ok(Datum::Real { cols, data })
}

pub(super) fn key_gradient<N: Number>(
    operands: &[&Datum<N>],
    heads: (u32, u32),
    scoring: Scoring,
) -> Result<Datum<N>, EvalError> {
    let ((q_cols, q), (cols, k)) = (operands[0].real()?, operands[1].real()?);
    let width = q_cols / heads.0 as usize;
    let mut data = vec![N::ZERO; k.len()];
    each_head(operands, heads, scoring, |head| {
        let query = &q[head.row * q_cols + head.q_at..][..width];
        for (key, product) in head.seen.iter().zip(head.products) {
            add_to(&mut data[key * cols + head.kv_at..][..width], *product, query);
        }
    })?;
    Ok(Datum::Real { cols, data })
}

pub(super) fn value_gradient<N: Number>(
    operands: &[&Datum<N>],
    heads: (u32, u32),
    scoring: Scoring,
) -> Result<Datum<N>, EvalError> {
    let ((cols, v), (q_cols, dy)) = (operands[2].real()?, operands[7].real()?);
    let width = q_cols / heads.0 as usize;
    let mut data = vec![N::ZERO; v.len()];
    each_head(operands, heads, scoring, |head| {
        let dy = &dy[head.row * q_cols + head.q_at..][..width];
        for (key, weight) in head.seen.iter().zip(head.weights) {
            add_to(&mut data[key * cols + head.kv_at..][..width], *weight, dy);
        }
    })?;
    Ok(Datum::Real { cols, data })
}
