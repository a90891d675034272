//! Losses, and what stands for decisions in the backward pass.

use super::super::args::{Args, TypeError};
use super::{number, scalar, the_number};
use crate::attr::F64;
use crate::interp::{Datum, EvalError, Number};
use crate::ty::{Dim, Elem, Type};

/// Operand `idx` is one number.
pub(super) fn is_scalar(args: Args<'_>, idx: usize) -> Result<(), TypeError> {
    match *args.ty(idx) == scalar() {
        true => Ok(()),
        false => Err(args.wrong(idx, "one number, f32[1, 1]")),
    }
}

/// Operand `idx` is one number for each of these rows.
fn column(args: Args<'_>, idx: usize, rows: Dim) -> Result<(), TypeError> {
    match args.token_matrix(idx)? {
        (Elem::F32, got, 1) => args.same_rows(idx, rows, got),
        _ => Err(args.wrong(idx, format!("one number a row, f32[{rows}, 1]"))),
    }
}

pub(super) fn infer_constant(args: Args<'_>, value: F64) -> Result<Type, TypeError> {
    match value.0.is_finite() {
        true => Ok(scalar()),
        false => Err(args.bad_attr("value", "should be finite")),
    }
}

pub(super) fn infer_times(args: Args<'_>) -> Result<Type, TypeError> {
    args.matrix(0)?;
    is_scalar(args, 1)?;
    Ok(args.ty(0).clone())
}

pub(super) fn infer_combine(args: Args<'_>) -> Result<Type, TypeError> {
    let is_fixed = |dims: &[Dim]| !dims.is_empty() && dims.iter().all(|dim| matches!(dim, Dim::Fixed(_)));
    match args.ty(0).as_tensor() {
        Some((Elem::Real | Elem::F32, dims)) if is_fixed(dims) => {}
        _ => return Err(args.wrong(0, "a tensor of numbers whose rows are not tokens")),
    }
    match args.ty(0) == args.ty(1) {
        true => Ok(args.ty(0).clone()),
        false => Err(args.wrong(1, args.ty(0).to_string())),
    }
}

pub(super) fn infer_straight_through(args: Args<'_>) -> Result<Type, TypeError> {
    let (elem, rows, cols) = args.token_matrix(0)?;
    column(args, 1, rows)?;
    let (value_elem, value_rows, value_cols) = args.token_matrix(2)?;
    args.same_rows(2, rows, value_rows)?;
    match (elem, cols) == (value_elem, value_cols) {
        true => Ok(args.ty(0).clone()),
        false => Err(args.wrong(2, args.ty(0).to_string())),
    }
}

pub(super) fn infer_set_size(args: Args<'_>) -> Result<Type, TypeError> {
    match args.ty(0) {
        Type::Set { .. } => Ok(scalar()),
        Type::Tensor { .. } | Type::State { .. } | Type::Partition { .. } => {
            Err(args.wrong(0, "a token set"))
        }
    }
}

pub(super) fn infer_rate(args: Args<'_>, is_gradient: bool) -> Result<Type, TypeError> {
    is_scalar(args, 0)?;
    let rows = args.ty(1).rows();
    column(args, 1, rows)?;
    is_scalar(args, 2)?;
    if !is_gradient {
        return Ok(scalar());
    }
    is_scalar(args, 3)?;
    Ok(args.ty(1).clone())
}

pub(super) fn infer_cross_entropy(args: Args<'_>, is_gradient: bool) -> Result<Type, TypeError> {
    let (_, rows, _) = args.token_matrix(0)?;
    args.ints(1, rows)?;
    infer_sum(args, is_gradient)
}

pub(super) fn infer_divergence(
    args: Args<'_>,
    temperature: F64,
    is_gradient: bool,
) -> Result<Type, TypeError> {
    if !(temperature.0 > 0.0 && temperature.0.is_finite()) {
        return Err(args.bad_attr("temperature", "should be finite and positive"));
    }
    let (_, rows, cols) = args.token_matrix(0)?;
    let (_, goal_rows, goal_cols) = args.token_matrix(1)?;
    args.same_rows(1, rows, goal_rows)?;
    if cols != goal_cols {
        return Err(args.wrong(1, format!("{cols} columns, as `logits` has them")));
    }
    infer_sum(args, is_gradient)
}

/// Of a mean over rows, operand 2 is their number, and in the gradient operand 3 that of the mean.
fn infer_sum(args: Args<'_>, is_gradient: bool) -> Result<Type, TypeError> {
    is_scalar(args, 2)?;
    if !is_gradient {
        return Ok(scalar());
    }
    is_scalar(args, 3)?;
    Ok(args.ty(0).clone())
}

pub(super) fn times<N: Number>(x: &Datum<N>, factor: &Datum<N>) -> Result<Datum<N>, EvalError> {
    let ((cols, x), factor) = (x.real()?, the_number(factor)?);
    Ok(Datum::Real { cols, data: x.iter().map(|x| x.mul(factor)).collect() })
}

pub(super) fn combine<N: Number>(
    operands: &[&Datum<N>],
    by_a: f64,
    by_b: f64,
) -> Result<Datum<N>, EvalError> {
    let ((cols, a), (_, b)) = (operands[0].real()?, operands[1].real()?);
    let [by_a, by_b] = [by_a, by_b].map(N::from_f64);
    let data = a.iter().zip(b).map(|(a, b)| a.mul(by_a).add(b.mul(by_b))).collect();
    Ok(Datum::Real { cols, data })
}

/// `count / tokens − target`.
fn excess<N: Number>(operands: &[&Datum<N>], target: f64) -> Result<N, EvalError> {
    let (count, tokens) = (the_number(operands[0])?, the_number(operands[2])?);
    Ok(count.div(tokens).sub(N::from_f64(target)))
}

pub(super) fn rate_loss<N: Number>(operands: &[&Datum<N>], target: f64) -> Result<Datum<N>, EvalError> {
    let excess = excess(operands, target)?;
    Ok(number(excess.mul(excess)))
}

pub(super) fn rate_loss_gradient<N: Number>(
    operands: &[&Datum<N>],
    target: f64,
) -> Result<Datum<N>, EvalError> {
    let (tokens, dy) = (the_number(operands[2])?, the_number(operands[3])?);
    let each = N::from_f64(2.0).mul(excess(operands, target)?).div(tokens).mul(dy);
    Ok(Datum::Real { cols: 1, data: vec![each; operands[1].n_rows()] })
}

/// Replaces a row by its softmax and returns the logarithm of what it was divided by: for float domains `ln p` of an element
/// is itself less this.
fn softmax<N: Number>(row: &mut [N]) -> f64 {
    let largest = row.iter().map(|x| x.to_f64()).fold(f64::NEG_INFINITY, f64::max);
    let shift = if N::EXACT { N::ZERO } else { N::from_f64(largest) };
    row.iter_mut().for_each(|x| *x = x.sub(shift).exp());
    let sum = N::narrow(row.iter().fold(N::Wide::ZERO, |sum, x| sum.add(x.widen())));
    N::div_all(row, sum);
    shift.to_f64() + libm::log(sum.to_f64())
}

/// The target of a row among so many columns.
fn target(targets: &[i64], row: usize, cols: usize) -> Result<usize, EvalError> {
    let id = targets[row];
    let within = usize::try_from(id).ok().filter(|id| *id < cols);
    within.ok_or(EvalError::IdOutOfRange { row, id, n_ids: cols })
}

/// A sum of numbers of f64 over their count. The logarithm has no meaning in an exact domain: there the sum is a number drawn
/// from it, and gradients, which have none in them, are exact.
fn mean<N: Number>(sum: f64, tokens: &Datum<N>) -> Result<Datum<N>, EvalError> {
    Ok(number(N::from_f64(sum).div(the_number(tokens)?)))
}

pub(super) fn cross_entropy<N: Number>(operands: &[&Datum<N>]) -> Result<Datum<N>, EvalError> {
    let ((cols, logits), targets) = (operands[0].real()?, operands[1].ints()?);
    let mut sum = 0.0;
    for (row, logits) in logits.chunks_exact(cols).enumerate() {
        let target = target(targets, row, cols)?;
        sum += softmax(&mut logits.to_vec()) - logits[target].to_f64();
    }
    mean(sum, operands[2])
}

pub(super) fn cross_entropy_gradient<N: Number>(operands: &[&Datum<N>]) -> Result<Datum<N>, EvalError> {
    let ((cols, logits), targets) = (operands[0].real()?, operands[1].ints()?);
    let factor = the_number(operands[3])?.div(the_number(operands[2])?);
    let mut data = logits.to_vec();
    for (row, p) in data.chunks_exact_mut(cols).enumerate() {
        softmax(p);
        let target = target(targets, row, cols)?;
        p[target] = p[target].sub(N::ONE);
        p.iter_mut().for_each(|p| *p = p.mul(factor));
    }
    Ok(Datum::Real { cols, data })
}

/// For each row its logits and the goal over the temperature.
fn cooled<N: Number>(operands: &[&Datum<N>], temperature: f64) -> Result<(usize, Vec<N>, Vec<N>), EvalError> {
    let temperature = N::from_f64(temperature);
    let ((cols, logits), (_, goal)) = (operands[0].real()?, operands[1].real()?);
    let over = |x: &[N]| x.iter().map(|x| x.div(temperature)).collect();
    Ok((cols, over(logits), over(goal)))
}

pub(super) fn divergence<N: Number>(operands: &[&Datum<N>], temperature: f64) -> Result<Datum<N>, EvalError> {
    let (cols, logits, goal) = cooled(operands, temperature)?;
    let mut sum = 0.0;
    for (logits, goal) in logits.chunks_exact(cols).zip(goal.chunks_exact(cols)) {
        let mut q = goal.to_vec();
        let (p_log, q_log) = (softmax(&mut logits.to_vec()), softmax(&mut q));
        sum += q
            .iter()
            .zip(logits.iter().zip(goal))
            .map(|(q, (p, goal))| q.to_f64() * ((goal.to_f64() - q_log) - (p.to_f64() - p_log)))
            .sum::<f64>();
    }
    mean(sum, operands[2])
}

pub(super) fn divergence_gradient<N: Number>(
    operands: &[&Datum<N>],
    temperature: f64,
) -> Result<Datum<N>, EvalError> {
    let (cols, mut p, mut q) = cooled(operands, temperature)?;
    let over = the_number(operands[2])?.mul(N::from_f64(temperature));
    let factor = the_number(operands[3])?.div(over);
    for (p, q) in p.chunks_exact_mut(cols).zip(q.chunks_exact_mut(cols)) {
        softmax(p);
        softmax(q);
        p.iter_mut().zip(q).for_each(|(p, q)| *p = p.sub(*q).mul(factor));
    }
    Ok(Datum::Real { cols, data: p })
}
