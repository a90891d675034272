//! Matmuls with weights: embedding, matmul, router logits, bias.

use super::args::{Args, TypeError};
use crate::interp::{Datum, EvalError, Number};
use crate::ty::{Dim, Elem, Type};

pub(super) fn infer_embed(args: Args<'_>) -> Result<Type, TypeError> {
    let (_, cols) = args.weight(0)?;
    let rows = args.ty(1).rows();
    args.ints(1, rows)?;
    Ok(Type::tensor(Elem::Real, &[rows, Dim::Fixed(cols)]))
}

pub(super) fn infer_bias(args: Args<'_>) -> Result<Type, TypeError> {
    let (elem, rows, cols) = args.token_matrix(0)?;
    args.vector(1, cols)?;
    Ok(Type::tensor(elem, &[rows, Dim::Fixed(cols)]))
}

pub(super) fn infer_matmul(args: Args<'_>, result: Elem) -> Result<Type, TypeError> {
    let (_, rows, k) = args.token_matrix(0)?;
    let (out, inner) = args.weight(1)?;
    if inner != k {
        return Err(args.wrong(1, format!("a weight real[out, {k}]")));
    }
    Ok(Type::tensor(result, &[rows, Dim::Fixed(out)]))
}

pub(super) fn add_bias<N: Number>(x: &Datum<N>, bias: &Datum<N>) -> Result<Datum<N>, EvalError> {
    let (cols, x) = x.real()?;
    let (_, bias) = bias.real()?;
    let data = x.iter().enumerate().map(|(idx, x)| x.add(bias[idx % cols])).collect();
    Ok(Datum::Real { cols, data })
}

pub(super) fn infer_class(args: Args<'_>) -> Result<Type, TypeError> {
    let (_, rows, cols) = args.token_matrix(0)?;
    if args.weight(1)? != (1, cols) {
        return Err(args.wrong(1, format!("one row, real[1, {cols}]")));
    }
    args.ints(2, rows)?;
    Ok(args.ty(0).clone())
}

pub(super) fn infer_repeat(args: Args<'_>) -> Result<Type, TypeError> {
    let Some((Elem::Real, &[Dim::Fixed(cols)])) = args.ty(0).as_tensor() else {
        return Err(args.wrong(0, "one row, real[columns]"));
    };
    if args.ty(1).as_tensor().is_none() {
        return Err(args.wrong(1, "a tensor"));
    }
    Ok(Type::tensor(Elem::F32, &[args.ty(1).rows(), Dim::Fixed(cols)]))
}

/// The same row as often as `like` has rows.
pub(super) fn repeat_row<N: Number>(row: &Datum<N>, like: &Datum<N>) -> Result<Datum<N>, EvalError> {
    let (_, row) = row.real()?;
    Ok(Datum::Real { cols: row.len(), data: row.repeat(like.n_rows()) })
}

/// The rows of `x`, those at position 0 replaced.
pub(super) fn class_token<N: Number>(
    x: &Datum<N>,
    class: &Datum<N>,
    positions: &[i64],
) -> Result<Datum<N>, EvalError> {
    let ((cols, x), (_, class)) = (x.real()?, class.real()?);
    let rows = x.chunks_exact(cols).zip(positions);
    let data = rows.flat_map(|(row, position)| if *position == 0 { class } else { row }).copied().collect();
    Ok(Datum::Real { cols, data })
}

pub(super) fn embed<N: Number>(table: &Datum<N>, ids: &[i64]) -> Result<Datum<N>, EvalError> {
    let (cols, table) = table.real()?;
    let mut data = Vec::with_capacity(ids.len() * cols);
    for (row, id) in ids.iter().enumerate() {
        let start = usize::try_from(*id).ok().and_then(|id| id.checked_mul(cols));
        let found = start.and_then(|start| table.get(start..start.checked_add(cols)?));
        data.extend_from_slice(found.ok_or(EvalError::IdOutOfRange {
            row,
            id: *id,
            n_ids: table.len() / cols,
        })?);
    }
    Ok(Datum::Real { cols, data })
}

/// Outputs of a matmul that are summed side by side: enough to fill vector registers, few enough that their weights stay in a
/// cache.
const SIDE_BY_SIDE: usize = 32;

/// Rows up to which their weights are not laid out side by side first: that takes as long as a row or two.
const FEW_ROWS: usize = 2;

/// One row of a matmul. Outputs are summed one beside the other as far as they do not depend on each other.
fn matmul_row<N: Number>(row: &[N], weight: &[N], sums: &mut [N]) {
    const TOGETHER: usize = 4;
    let k = row.len();
    for (sums, weights) in sums.chunks_mut(TOGETHER).zip(weight.chunks(TOGETHER * k)) {
        match sums.as_chunks_mut::<TOGETHER>().0 {
            [sums] => {
                let [a, b, c, d] = std::array::from_fn(|out| &weights[out * k..][..k]);
                for ((((x, a), b), c), d) in row.iter().zip(a).zip(b).zip(c).zip(d) {
                    for (sum, weight) in sums.iter_mut().zip([a, b, c, d]) {
                        *sum = sum.add(x.mul(*weight));
                    }
                }
            }
            _ => {
                for (sum, weights) in sums.iter_mut().zip(weights.chunks_exact(k)) {
                    *sum = row.iter().zip(weights).fold(N::ZERO, |sum, (x, weight)| sum.add(x.mul(*weight)));
                }
            }
        }
    }
}

/// `x [r, k] · weight [o, k]ᵀ`. Sums over `k` in order, for several columns of a row at once, so that the loop vectorises.
pub(super) fn matmul<N: Number>(x: &Datum<N>, weight: &Datum<N>) -> Result<Datum<N>, EvalError> {
    let (k, x) = x.real()?;
    let (_, weight) = weight.real()?;
    let n_out = weight.len() / k;
    let mut data = vec![N::ZERO; x.len() / k * n_out];
    if x.is_empty() {
        return Ok(Datum::Real { cols: n_out, data });
    }
    if x.len() <= FEW_ROWS * k {
        for (row, sums) in x.chunks_exact(k).zip(data.chunks_exact_mut(n_out)) {
            matmul_row(row, weight, sums);
        }
        return Ok(Datum::Real { cols: n_out, data });
    }
    let mut by_input = vec![N::ZERO; SIDE_BY_SIDE * k];
    for (block, rows) in weight.chunks(SIDE_BY_SIDE * k).enumerate() {
        let n_rows = rows.len() / k;
        for (out, row) in rows.chunks_exact(k).enumerate() {
            for (value, at) in row.iter().zip(by_input[out..].iter_mut().step_by(n_rows)) {
                *at = *value;
            }
        }
        for (row, sums) in x.chunks_exact(k).zip(data.chunks_exact_mut(n_out)) {
            let sums = &mut sums[block * SIDE_BY_SIDE..][..n_rows];
            for (value, weights) in row.iter().zip(by_input.chunks_exact(n_rows)) {
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum = sum.add(value.mul(*weight));
                }
            }
        }
    }
    Ok(Datum::Real { cols: n_out, data })
}
