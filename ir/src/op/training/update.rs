//! States of training: parameters, their gradients and the moments of optimisers. Each is a matrix of f32; that of a vector
//! has one row.

use super::super::args::{Args, TypeError};
use super::loss::is_scalar;
use super::number;
use crate::attr::F64;
use crate::interp::functions::dot;
use crate::interp::{Datum, EvalError, Number};
use crate::ty::{Dim, Elem, Type};

/// Sizes of operand `idx`, a state.
pub(super) fn state(args: Args<'_>, idx: usize) -> Result<(u32, u32), TypeError> {
    match args.ty(idx).as_state() {
        Some((Elem::F32, [Dim::Fixed(rows), Dim::Fixed(cols)])) => Ok((*rows, *cols)),
        _ => Err(args.wrong(idx, "a state of fixed size, state<f32[rows, columns]>")),
    }
}

/// Sizes of operand `idx`, a matrix of f32 whose rows are no tokens.
fn fixed(args: Args<'_>, idx: usize) -> Result<(u32, u32), TypeError> {
    match args.matrix(idx)? {
        (Elem::F32, Dim::Fixed(rows), cols) => Ok((rows, cols)),
        _ => Err(args.wrong(idx, "a matrix of fixed size, f32[rows, columns]")),
    }
}

fn of_size(args: Args<'_>, idx: usize, wanted: (u32, u32), got: (u32, u32)) -> Result<(), TypeError> {
    match wanted == got {
        true => Ok(()),
        false => Err(args.wrong(idx, format!("{} rows of {} columns", wanted.0, wanted.1))),
    }
}

fn positive(args: Args<'_>, attr: &'static str, value: F64) -> Result<(), TypeError> {
    match value.0 > 0.0 && value.0.is_finite() {
        true => Ok(()),
        false => Err(args.bad_attr(attr, "should be finite and positive")),
    }
}

fn matrix((rows, cols): (u32, u32)) -> Type {
    Type::tensor(Elem::F32, &[Dim::Fixed(rows), Dim::Fixed(cols)])
}

pub(super) fn infer_parameter(args: Args<'_>, rank: u32) -> Result<Type, TypeError> {
    match (rank, state(args, 0)?) {
        (1, (1, cols)) => Ok(Type::tensor(Elem::Real, &[Dim::Fixed(cols)])),
        (2, (rows, cols)) => Ok(Type::tensor(Elem::Real, &[Dim::Fixed(rows), Dim::Fixed(cols)])),
        _ => Err(args.bad_attr("rank", "should be 2, or 1 for a state of one row")),
    }
}

pub(super) fn infer_accumulate(args: Args<'_>) -> Result<Type, TypeError> {
    let (rows, cols) = state(args, 0)?;
    match args.ty(1).as_tensor() {
        Some((Elem::F32, [Dim::Fixed(size)])) if (1, *size) == (rows, cols) => {}
        Some((Elem::F32, [Dim::Fixed(got_rows), Dim::Fixed(got)])) if (*got_rows, *got) == (rows, cols) => {}
        _ => return Err(args.wrong(1, format!("a gradient f32[{rows}, {cols}]"))),
    }
    Ok(args.ty(0).clone())
}

pub(super) fn infer_read(args: Args<'_>) -> Result<Type, TypeError> {
    is_scalar(args, 1)?;
    state(args, 0).map(matrix)
}

pub(super) fn infer_squares(args: Args<'_>, plus: F64) -> Result<Type, TypeError> {
    if !(plus.0 >= 0.0 && plus.0.is_finite()) {
        return Err(args.bad_attr("plus", "should be finite and not negative"));
    }
    fixed(args, 0).map(matrix)
}

pub(super) fn infer_means(args: Args<'_>, of_rows: bool) -> Result<Type, TypeError> {
    let (rows, cols) = fixed(args, 0)?;
    Ok(matrix(if of_rows { (rows, 1) } else { (1, cols) }))
}

pub(super) fn infer_average(args: Args<'_>) -> Result<Type, TypeError> {
    of_size(args, 1, state(args, 0)?, fixed(args, 1)?)?;
    of_size(args, 2, (1, 2), fixed(args, 2)?)?;
    Ok(args.ty(0).clone())
}

pub(super) fn infer_adamw(args: Args<'_>, eps: F64) -> Result<Type, TypeError> {
    positive(args, "eps", eps)?;
    let size = state(args, 0)?;
    of_size(args, 1, size, state(args, 1)?)?;
    of_size(args, 2, size, state(args, 2)?)?;
    of_size(args, 3, (1, 3), fixed(args, 3)?)?;
    Ok(args.ty(0).clone())
}

pub(super) fn infer_adafactor(args: Args<'_>, clip: F64, least: Option<F64>) -> Result<Type, TypeError> {
    positive(args, "clip", clip)?;
    least.map_or(Ok(()), |least| positive(args, "least", least))?;
    let (rows, cols) = state(args, 0)?;
    of_size(args, 1, (rows, cols), fixed(args, 1)?)?;
    of_size(args, 2, (1, 2), fixed(args, 2)?)?;
    if args.len() == 4 {
        of_size(args, 3, (rows, cols), state(args, 3)?)?;
    } else {
        of_size(args, 3, (rows, 1), state(args, 3)?)?;
        of_size(args, 4, (1, cols), state(args, 4)?)?;
    }
    Ok(args.ty(0).clone())
}

pub(super) fn accumulate<N: Number>(state: &Datum<N>, x: &Datum<N>) -> Result<Datum<N>, EvalError> {
    let ((cols, state), (_, x)) = (state.real()?, x.real()?);
    Ok(Datum::Real { cols, data: state.iter().zip(x).map(|(sum, x)| sum.add(*x)).collect() })
}

pub(super) fn sum_squares<N: Number>(state: &Datum<N>) -> Result<Datum<N>, EvalError> {
    let (_, state) = state.real()?;
    Ok(number(dot(state, state)))
}

pub(super) fn squares<N: Number>(x: &Datum<N>, plus: f64) -> Result<Datum<N>, EvalError> {
    let ((cols, x), plus) = (x.real()?, N::from_f64(plus));
    Ok(Datum::Real { cols, data: x.iter().map(|x| x.mul(*x).add(plus)).collect() })
}

/// The mean of numbers, summed wide and rounded once.
fn mean<N: Number>(values: impl ExactSizeIterator<Item = N>) -> N {
    let count = N::Wide::from_f64(values.len() as f64);
    N::narrow(values.fold(N::Wide::ZERO, |sum, value| sum.add(value.widen())).div(count))
}

pub(super) fn row_means<N: Number>(x: &Datum<N>) -> Result<Datum<N>, EvalError> {
    let (cols, x) = x.real()?;
    Ok(Datum::Real { cols: 1, data: x.chunks_exact(cols).map(|row| mean(row.iter().copied())).collect() })
}

pub(super) fn column_means<N: Number>(x: &Datum<N>) -> Result<Datum<N>, EvalError> {
    let (cols, x) = x.real()?;
    let column = |at: usize| mean(x.chunks_exact(cols).map(|row| row[at]));
    Ok(Datum::Real { cols, data: (0..cols).map(column).collect() })
}

pub(super) fn moving_average<N: Number>(operands: &[&Datum<N>]) -> Result<Datum<N>, EvalError> {
    let ((cols, state), (_, x), (_, weights)) =
        (operands[0].real()?, operands[1].real()?, operands[2].real()?);
    let mix = |(state, x): (&N, &N)| state.mul(weights[0]).add(x.mul(weights[1]));
    Ok(Datum::Real { cols, data: state.iter().zip(x).map(mix).collect() })
}

/// `√x`; 0 of 0.
fn root<N: Number>(x: N) -> N {
    if x == N::ZERO { x } else { x.mul(x.rsqrt()) }
}

pub(super) fn adamw<N: Number>(operands: &[&Datum<N>], eps: f64) -> Result<Datum<N>, EvalError> {
    let ((cols, weight), (_, mean), (_, square), (_, rates)) =
        (operands[0].real()?, operands[1].real()?, operands[2].real()?, operands[3].real()?);
    let eps = N::from_f64(eps);
    let data = weight.iter().zip(mean.iter().zip(square)).map(|(weight, (mean, square))| {
        let step = rates[1].mul(*mean).div(root(*square).div(rates[2]).add(eps));
        weight.mul(rates[0]).sub(step)
    });
    Ok(Datum::Real { cols, data: data.collect() })
}

/// The root of the mean of squares.
fn rms<N: Number>(x: &[N]) -> N {
    root(mean(x.iter().map(|x| x.mul(*x))))
}

pub(super) fn adafactor<N: Number>(
    operands: &[&Datum<N>],
    clip: f64,
    least: Option<f64>,
) -> Result<Datum<N>, EvalError> {
    let ((cols, weight), (_, gradient), (_, rates), (_, square)) =
        (operands[0].real()?, operands[1].real()?, operands[2].real()?, operands[3].real()?);
    let columns = operands.get(4).map(|columns| columns.real()).transpose()?;
    let mut update: Vec<N> = match columns {
        None => gradient.iter().zip(square).map(|(g, square)| g.mul(square.rsqrt())).collect(),
        Some((_, columns)) => {
            let of_rows = mean(square.iter().copied());
            let by_row = square.iter().map(|row| row.div(of_rows).rsqrt());
            let by_column: Vec<N> = columns.iter().map(|column| column.rsqrt()).collect();
            let rows = gradient.chunks_exact(cols).zip(by_row);
            rows.flat_map(|(row, by_row)| {
                row.iter().zip(&by_column).map(move |(g, by_column)| g.mul(by_row).mul(*by_column))
            })
            .collect()
        }
    };
    let excess = rms(&update).div(N::from_f64(clip)).max(N::ONE);
    N::div_all(&mut update, excess);
    let size = least.map_or(N::ONE, |least| rms(weight).max(N::from_f64(least)));
    let rate = rates[1].mul(size);
    let data = weight.iter().zip(&update).map(|(weight, update)| weight.mul(rates[0]).sub(rate.mul(*update)));
    Ok(Datum::Real { cols, data: data.collect() })
}
