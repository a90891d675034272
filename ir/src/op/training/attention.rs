//! The backward pass of attention: for each query and head the sums of its softmax, then with `p = softmax(s)` again and
//! `g_j = ⟨dy, v_j⟩` the gradient `p_j (g_j − Σ p g)` of its scores.

use super::super::args::{Args, TypeError};
use crate::interp::functions::{Heads, dot};
use crate::interp::{Datum, EvalError, Number};
use crate::scoring::Scoring;
use crate::ty::{Dim, Elem, Type};

/// What an op of the backward pass gives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// Three numbers for each query and head.
    Sums,
    /// The gradient of queries.
    Query,
    /// The gradients of keys and of values, side by side.
    KeysAndValues,
}

pub(super) fn infer(args: Args<'_>, heads: (u32, u32), scoring: Scoring, of: Of) -> Result<Type, TypeError> {
    let result = super::super::attention::infer(args, heads, scoring)?;
    if *args.ty(7) != result {
        return Err(args.wrong(7, result.to_string()));
    }
    let sums = Type::tensor(Elem::F32, &[result.rows(), Dim::Fixed(heads.0.saturating_mul(3))]);
    if of == Of::Sums {
        return Ok(sums);
    }
    if *args.ty(8) != sums {
        return Err(args.wrong(8, sums.to_string()));
    }
    match of {
        Of::Sums | Of::Query => Ok(args.ty(0).clone()),
        Of::KeysAndValues => {
            let (elem, rows, cols) = args.token_matrix(1)?;
            Ok(Type::tensor(elem, &[rows, Dim::Fixed(cols.saturating_mul(2))]))
        }
    }
}

/// One head of one query, with the keys that it sees.
struct OfHead<'a, N> {
    /// Row of the query.
    row: usize,
    /// Which head.
    head: usize,
    /// First column of the head in queries and in results.
    q_at: usize,
    /// First column of the head in keys and values.
    kv_at: usize,
    /// Rows of the keys that it sees.
    seen: &'a [usize],
    /// Score of each of them.
    scores: &'a [N],
    /// What the gradient of each score is multiplied by for that of its product.
    slopes: &'a [N],
    /// `⟨dy, v⟩` of each of them.
    gains: &'a [N],
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
    let (mut seen, mut scores, mut slopes, mut gains) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in 0..q_pos.len() {
        let positions = scoring.positions(q_pos[row]);
        seen.clear();
        seen.extend(
            (0..k_pos.len()).filter(|key| k_seq[*key] == q_seq[row] && positions.contains(&k_pos[*key])),
        );
        for head in 0..shape.heads {
            let (q_at, kv_at) = (head * width, head / (shape.heads / shape.kv_heads) * width);
            let query = &q[row * q_cols + q_at..][..width];
            let dy = &dy[row * q_cols + q_at..][..width];
            scores.clear();
            slopes.clear();
            gains.clear();
            for key in &seen {
                let score = dot(query, &k[key * kv_cols + kv_at..][..width]).mul(scale);
                gains.push(dot(dy, &v[key * kv_cols + kv_at..][..width]));
                let Some([inverse, cap]) = cap else {
                    scores.push(score);
                    slopes.push(scale);
                    continue;
                };
                let bent = score.mul(inverse).tanh();
                scores.push(bent.mul(cap));
                slopes.push(N::ONE.sub(bent.mul(bent)).mul(scale));
            }
            let (seen, scores, slopes, gains) = (&seen, &scores, &slopes, &gains);
            each(OfHead { row, head, q_at, kv_at, seen, scores, slopes, gains });
        }
    }
    Ok(())
}

pub(super) fn sums<N: Number>(
    operands: &[&Datum<N>],
    heads: (u32, u32),
    scoring: Scoring,
) -> Result<Datum<N>, EvalError> {
    let cols = 3 * heads.0 as usize;
    let mut data = vec![N::ZERO; operands[3].n_rows() * cols];
    each_head(operands, heads, scoring, |head| {
        let Some(largest) = head.scores.iter().copied().reduce(N::max) else { return };
        let largest = if N::EXACT { N::ZERO } else { largest };
        let weights: Vec<N> = head.scores.iter().map(|score| score.sub(largest).exp()).collect();
        let total = N::narrow(weights.iter().fold(N::Wide::ZERO, |sum, weight| sum.add(weight.widen())));
        let of_head = [largest, total, dot(&weights, head.gains)];
        data[head.row * cols + 3 * head.head..][..3].copy_from_slice(&of_head);
    })?;
    Ok(Datum::Real { cols, data })
}

/// As [`each_head`], with the weight of each key and the gradient of its product with the query.
fn each_weighed<N: Number>(
    operands: &[&Datum<N>],
    heads: (u32, u32),
    scoring: Scoring,
    mut each: impl FnMut(OfHead<'_, N>, &[N], &[N]),
) -> Result<(), EvalError> {
    let (cols, sums) = operands[8].real()?;
    let (mut weights, mut products) = (Vec::new(), Vec::new());
    each_head(operands, heads, scoring, |head| {
        if head.seen.is_empty() {
            return;
        }
        let of_head = &sums[head.row * cols + 3 * head.head..][..3];
        weights.clear();
        weights.extend(head.scores.iter().map(|score| score.sub(of_head[0]).exp()));
        N::div_all(&mut weights, of_head[1]);
        let mean = of_head[2].div(of_head[1]);
        products.clear();
        let all = head.gains.iter().zip(&weights).zip(head.slopes);
        products.extend(all.map(|((gain, weight), slope)| gain.sub(mean).mul(*weight).mul(*slope)));
        each(head, &weights, &products);
    })
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
    each_weighed(operands, heads, scoring, |head, _, products| {
        let sum = &mut data[head.row * cols + head.q_at..][..width];
        for (key, product) in head.seen.iter().zip(products) {
            add_to(sum, *product, &k[key * kv_cols + head.kv_at..][..width]);
        }
    })?;
    Ok(Datum::Real { cols, data })
}

pub(super) fn key_value_gradient<N: Number>(
    operands: &[&Datum<N>],
    heads: (u32, u32),
    scoring: Scoring,
) -> Result<Datum<N>, EvalError> {
    let ((q_cols, q), (kv_cols, k)) = (operands[0].real()?, operands[1].real()?);
    let (_, dy) = operands[7].real()?;
    let (width, cols) = (q_cols / heads.0 as usize, 2 * kv_cols);
    let mut data = vec![N::ZERO; 2 * k.len()];
    each_weighed(operands, heads, scoring, |head, weights, products| {
        let of_query = head.row * q_cols + head.q_at;
        for (key, (weight, product)) in head.seen.iter().zip(weights.iter().zip(products)) {
            let at = key * cols + head.kv_at;
            add_to(&mut data[at..][..width], *product, &q[of_query..][..width]);
            add_to(&mut data[at + kv_cols..][..width], *weight, &dy[of_query..][..width]);
        }
    })?;
    Ok(Datum::Real { cols, data })
}
