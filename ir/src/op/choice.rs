//! Experts: which of them each row takes, the rows in segments, and matmuls with the weight of each segment.

use super::token_set::scored_rows;
use super::{Args, TypeError};
use crate::attr::F64;
use crate::interp::functions::{self, Choice};
use crate::interp::{Datum, EvalError, Number};
use crate::ty::{Dim, Elem, SetSym, Type};

/// Indices of experts stay below: f32 counts by ones up to here.
const MAX_INDEX: u32 = 1 << 24;

pub(super) fn infer_choose(args: Args<'_>, k: u32, scale: F64) -> Result<Type, TypeError> {
    let (elem, rows, n) = args.token_matrix(0)?;
    if elem != Elem::F32 {
        return Err(args.wrong(0, "f32 logits: f32[rows, experts]"));
    }
    if !(1..=n).contains(&k) {
        return Err(args.bad_attr("k", format!("should be from 1 to {n}, the number of choices")));
    }
    if !scale.0.is_finite() {
        return Err(args.bad_attr("scale", "should be finite"));
    }
    if args.len() > 1 {
        args.vector(1, n)?;
    }
    Ok(Type::tensor(Elem::F32, &[rows, Dim::Fixed(2 * k)]))
}

pub(super) fn infer_partition(
    args: Args<'_>,
    set: SetSym,
    (first, parts): (u32, u32),
) -> Result<Type, TypeError> {
    if parts == 0 || first.saturating_add(parts) > MAX_INDEX {
        return Err(args.bad_attr("parts", format!("should be at least 1, and end at {MAX_INDEX} at most")));
    }
    Ok(Type::Partition { sym: set, of: scored_rows(args, 0)?, parts })
}

pub(super) fn infer_grouped(args: Args<'_>) -> Result<Type, TypeError> {
    let (_, rows, k) = args.token_matrix(0)?;
    let (all_out, inner) = args.weight(1)?;
    let Type::Partition { sym, parts, .. } = *args.ty(2) else {
        return Err(args.wrong(2, "a partition"));
    };
    args.same_rows(0, Dim::Count(sym), rows)?;
    if inner != k || !all_out.is_multiple_of(parts) {
        return Err(args.wrong(1, format!("a weight real[{parts} · out, {k}]")));
    }
    let out = all_out / parts;
    if args.len() > 3 && args.weight(3)? != (parts, out) {
        return Err(args.wrong(3, format!("biases real[{parts}, {out}]")));
    }
    Ok(Type::tensor(Elem::Real, &[rows, Dim::Fixed(out)]))
}

pub(super) fn choose<N: Number>(operands: &[&Datum<N>], rule: Choice) -> Result<Datum<N>, EvalError> {
    let (n, logits) = operands[0].real()?;
    let bias = operands.get(1).map(|bias| bias.real()).transpose()?.map(|(_, bias)| bias);
    let data = logits.chunks_exact(n).flat_map(|row| functions::choose(row, bias, rule)).collect();
    Ok(Datum::Real { cols: 2 * rule.k, data })
}

pub(super) fn partition<N: Number>(index: &Datum<N>, which: (u32, u32)) -> Result<Datum<N>, EvalError> {
    let (_, index) = index.real()?;
    let mut segments = vec![Vec::new(); which.1 as usize];
    for (row, index) in index.iter().enumerate() {
        if let Some(segment) = functions::segment(*index, which) {
            segments[segment].push(row);
        }
    }
    let ends = segments.iter().scan(0, |end, segment| {
        *end += segment.len();
        Some(*end)
    });
    Ok(Datum::Partition { ends: ends.collect(), rows: segments.concat(), of: index.len() })
}

pub(super) fn grouped_matmul<N: Number>(operands: &[&Datum<N>]) -> Result<Datum<N>, EvalError> {
    let (k, x) = operands[0].real()?;
    let (_, weight) = operands[1].real()?;
    let (_, ends) = operands[2].partition()?;
    let n_out = weight.len() / k / ends.len();
    let mut data = Vec::with_capacity(x.len() / k * n_out);
    let begins = std::iter::once(0).chain(ends.iter().copied());
    for (segment, (begin, end)) in begins.zip(ends).enumerate() {
        let rows = Datum::Real { cols: k, data: x[begin * k..end * k].to_vec() };
        let weight = Datum::Real { cols: k, data: weight[segment * n_out * k..][..n_out * k].to_vec() };
        let mut sums = super::linear::matmul(&rows, &weight)?;
        if let Some(bias) = operands.get(3) {
            let bias = bias.real()?.1[segment * n_out..][..n_out].to_vec();
            sums = super::linear::add_bias(&sums, &Datum::Real { cols: 1, data: bias })?;
        }
        data.extend_from_slice(sums.real()?.1);
    }
    Ok(Datum::Real { cols: n_out, data })
}
