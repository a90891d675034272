//! Work in which a row of the result depends on one row of each operand.

use skipc_plan::kernel::{NormKind, Rowwise, Slot};
use skipc_plan::pointwise::{Pointwise, Real};

use super::choose;
use super::code::{Int, Lanes, Made};
use super::frame::{Frame, Row};
use super::limit;
use super::pointwise::RowSpan;

/// Emits the work on one row.
pub(crate) fn emit_row<'c>(f: &Frame<'_, 'c>, rowwise: &Rowwise, row: Int<'c>) -> Made<()> {
    match *rowwise {
        Rowwise::Map { cols, ref program } => map(f, cols, program, row),
        Rowwise::Norm { kind, eps, cols, groups, x, gain, out } => {
            let (x, out) = (f.row(x, row)?, f.dense_row(out, row)?);
            let (gain, width) = (f.only_row(gain)?, cols / groups.max(1));
            f.for_each(f.int(0), f.int(i64::from(groups)), 1, |group| {
                let col = f.times(group, u64::from(width))?;
                let [x, out] = [x, out].map(|row| f.at_column(row, col));
                norm(f, kind, (width, eps), (x?, gain), out?)
            })
        }
        Rowwise::RowScale { eps, cols, x, out } => {
            let (x, out) = (f.row(x, row)?, f.dense_row(out, row)?);
            let scale = inv_root(f, None, (cols, eps), x)?;
            f.store(out, f.int(0), scale)
        }
        Rowwise::Choose { n, choice, logits, bias, replay, out } => {
            choose::Choose { n, choice, logits, bias, replay, out }.emit(f, row)
        }
        Rowwise::Limit(ref of_choices) => limit::emit(f, of_choices, row),
        Rowwise::Embed { cols, ids, n_ids, table, out } => {
            let (id, out) = (f.load_index(ids, row)?, f.dense_row(out, row)?);
            embed(f, (table, n_ids), id, out, cols)
        }
        Rowwise::Rope { heads, width, turned, x, positions, cos, sin, out } => {
            let position = f.load_index(positions, row)?;
            let (x, out) = (f.row(x, row)?, f.dense_row(out, row)?);
            let turned = turned.unwrap_or(width);
            rope(f, (heads, width, turned), (position, cos, sin), x, out)
        }
    }
}

/// A program over whole rows, for kernels without sums.
fn map<'c>(f: &Frame<'_, 'c>, cols: u32, program: &Pointwise, row: Int<'c>) -> Made<()> {
    f.pointwise(program, &RowSpan { row, first: f.int(0), columns: f.columns(cols), sums: &[] })
}

fn norm<'c>(
    f: &Frame<'_, 'c>,
    kind: NormKind,
    (cols, eps): (u32, Real),
    (x, gain): (Row<'c>, Row<'c>),
    out: Row<'c>,
) -> Made<()> {
    let (mean, bias) = match kind {
        NormKind::Rms => (None, None),
        NormKind::Layer { bias } => (Some(row_mean(f, cols, x)?), Some(f.only_row(bias)?)),
    };
    let scale = inv_root(f, mean, (cols, eps), x)?;
    f.for_columns(f.columns(cols), f.level.lanes, |col, lanes| {
        let value = centred(f, f.load(x, col, lanes)?, mean)?;
        let value = f.fmul(value, f.splat(scale, lanes)?)?;
        let mut value = f.fmul(value, f.load(gain, col, lanes)?)?;
        if let Some(bias) = bias {
            value = f.fadd(value, f.load(bias, col, lanes)?)?;
        }
        f.store(out, col, value)
    })
}

/// The mean of a row in two parts: as it rounds, and the mean of what that leaves, which for a row far from zero may be
/// more than the row spreads.
#[derive(Clone, Copy)]
struct Mean<'c> {
    rounded: Lanes<'c>,
    rest: Lanes<'c>,
}

fn row_mean<'c>(f: &Frame<'_, 'c>, cols: u32, x: Row<'c>) -> Made<Mean<'c>> {
    let n = f.real(cols as f32, 1);
    let sum = f.sum_columns(f.columns(cols), 1, |col, lanes| Ok(vec![f.load(x, col, lanes)?]))?;
    let rounded = f.fdiv(sum[0], n)?;
    let left = f.sum_columns(f.columns(cols), 1, |col, lanes| {
        Ok(vec![f.fsub(f.load(x, col, lanes)?, f.splat(rounded, lanes)?)?])
    })?;
    Ok(Mean { rounded, rest: f.fdiv(left[0], n)? })
}

/// `1 / √(mean(x²) + eps)`, of differences from the mean if there is one.
fn inv_root<'c>(
    f: &Frame<'_, 'c>,
    mean: Option<Mean<'c>>,
    (cols, eps): (u32, Real),
    x: Row<'c>,
) -> Made<Lanes<'c>> {
    let squares = f.sum_columns(f.columns(cols), 1, |col, lanes| {
        let value = centred(f, f.load(x, col, lanes)?, mean)?;
        Ok(vec![f.fmul(value, value)?])
    })?;
    let mean_square = f.fdiv(squares[0], f.real(cols as f32, 1))?;
    let root = f.sqrt(f.fadd(mean_square, f.real(eps.0 as f32, 1))?)?;
    f.fdiv(f.real(1.0, 1), root)
}

fn centred<'c>(f: &Frame<'_, 'c>, value: Lanes<'c>, mean: Option<Mean<'c>>) -> Made<Lanes<'c>> {
    let Some(Mean { rounded, rest }) = mean else { return Ok(value) };
    let lanes = value.get_type().get_size();
    f.fsub(f.fsub(value, f.splat(rounded, lanes)?)?, f.splat(rest, lanes)?)
}

fn embed<'c>(
    f: &Frame<'_, 'c>,
    (table, n_ids): (Slot, u32),
    id: Int<'c>,
    out: Row<'c>,
    cols: u32,
) -> Made<()> {
    let is_known = f.below(id, f.int(i64::from(n_ids)))?;
    f.when(is_known, || f.copy_row(f.dense_row(table, id)?, out, cols))?;
    let is_unknown = f.builder.build_not(is_known, "")?;
    f.when(is_unknown, || {
        f.for_columns(f.columns(cols), f.level.lanes, |col, lanes| f.store(out, col, f.real(0.0, lanes)))
    })
}

fn rope<'c>(
    f: &Frame<'_, 'c>,
    (heads, width, turned): (u32, u32, u32),
    (position, cos, sin): (Int<'c>, Slot, Slot),
    x: Row<'c>,
    out: Row<'c>,
) -> Made<()> {
    let (cos, sin) = (f.dense_row(cos, position)?, f.dense_row(sin, position)?);
    f.for_each(f.int(0), f.int(i64::from(heads)), 1, |head| {
        let first = f.times(head, u64::from(width))?;
        let second = f.plus(first, i64::from(turned / 2))?;
        f.for_columns(f.columns(turned / 2), f.level.lanes, |col, lanes| {
            let (left, right) = (f.add(first, col)?, f.add(second, col)?);
            let (a, b) = (f.load(x, left, lanes)?, f.load(x, right, lanes)?);
            let (cos, sin) = (f.load(cos, col, lanes)?, f.load(sin, col, lanes)?);
            f.store(out, left, f.fsub(f.fmul(a, cos)?, f.fmul(b, sin)?)?)?;
            f.store(out, right, f.fadd(f.fmul(b, cos)?, f.fmul(a, sin)?)?)
        })?;
        if turned == width {
            return Ok(());
        }
        let rest = f.plus(first, i64::from(turned))?;
        f.for_columns(f.columns(width - turned), f.level.lanes, |col, lanes| {
            let col = f.add(rest, col)?;
            f.store(out, col, f.load(x, col, lanes)?)
        })
    })
}
