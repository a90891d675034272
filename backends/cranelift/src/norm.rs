//! Norms over the columns of a row.

use cranelift_codegen::ir::{InstBuilder, Value};
use skipc_plan::kernel::{NormKind, Slot, View};
use skipc_plan::pointwise::Real;

use crate::emit::{Columns, Emitter, Lanes};
use crate::error::Fault;
use crate::memory::Row;

/// A norm without its kernel.
pub(crate) struct Norm {
    pub(crate) kind: NormKind,
    pub(crate) eps: Real,
    /// Columns of a group.
    pub(crate) cols: u32,
    pub(crate) groups: u32,
    pub(crate) x: View,
    pub(crate) gain: Slot,
    pub(crate) out: Slot,
}

impl Norm {
    pub(crate) fn emit(&self, e: &mut Emitter<'_>, row: Value) -> Result<(), Fault> {
        let (x, out) = (e.row(self.x, row)?, e.dense_row(self.out, row)?);
        let (zero, groups) = (e.int(0), e.int(i64::from(self.groups)));
        e.for_each(zero, groups, 1, |e, group| {
            let col = e.ins().imul_imm_s(group, i64::from(self.cols));
            let [x, out] = [x, out].map(|row| row.at_column(e, col));
            self.group(e, x, out)
        })
    }

    fn group(&self, e: &mut Emitter<'_>, x: Row, out: Row) -> Result<(), Fault> {
        let gain = e.only_row(self.gain)?;
        let columns = e.columns(self.cols);
        let (mean, bias) = match self.kind {
            NormKind::Rms => (None, None),
            NormKind::Layer { bias } => (Some(row_mean(e, columns, x, self.cols)?), Some(e.only_row(bias)?)),
        };
        let squares = squares(e, columns, x, mean)?;
        let scale = inv_root(e, squares, self.cols, self.eps);
        e.for_columns(columns, |e, col, lanes| {
            let value = e.load(x, col, lanes);
            let value = centre(e, value, mean, lanes);
            let scale = e.splat(scale, lanes);
            let value = e.ins().fmul(value, scale);
            let gain = e.load(gain, col, lanes);
            let mut value = e.ins().fmul(value, gain);
            if let Some(bias) = bias {
                let bias = e.load(bias, col, lanes);
                value = e.ins().fadd(value, bias);
            }
            e.store(out, col, value, lanes);
            Ok(())
        })
    }
}

/// What a norm scales a row by, without its kernel.
pub(crate) struct RowScale {
    pub(crate) eps: Real,
    pub(crate) cols: u32,
    pub(crate) x: View,
    pub(crate) out: Slot,
}

impl RowScale {
    pub(crate) fn emit(&self, e: &mut Emitter<'_>, row: Value) -> Result<(), Fault> {
        let (x, out) = (e.row(self.x, row)?, e.dense_row(self.out, row)?);
        let columns = e.columns(self.cols);
        let squares = squares(e, columns, x, None)?;
        let scale = inv_root(e, squares, self.cols, self.eps);
        let first = e.int(0);
        e.store(out, first, scale, Lanes::One);
        Ok(())
    }
}

/// The mean of a row in two parts: as it rounds, and the mean of what that leaves, which for a row far from zero may be
/// more than the row spreads.
#[derive(Clone, Copy)]
struct Mean {
    rounded: Value,
    rest: Value,
}

fn row_mean(e: &mut Emitter<'_>, columns: Columns, x: Row, cols: u32) -> Result<Mean, Fault> {
    let sum = e.sum_columns(columns, 1, |e, col, lanes| Ok(vec![e.load(x, col, lanes)]))?;
    let rounded = mean(e, sum[0], cols);
    let left = e.sum_columns(columns, 1, |e, col, lanes| {
        let (value, rounded) = (e.load(x, col, lanes), e.splat(rounded, lanes));
        Ok(vec![e.ins().fsub(value, rounded)])
    })?;
    Ok(Mean { rounded, rest: mean(e, left[0], cols) })
}

/// The sum of the squares, of differences from the centre if there is one.
fn squares(e: &mut Emitter<'_>, columns: Columns, x: Row, centred: Option<Mean>) -> Result<Value, Fault> {
    let squares = e.sum_columns(columns, 1, |e, col, lanes| {
        let value = e.load(x, col, lanes);
        let value = centre(e, value, centred, lanes);
        Ok(vec![e.ins().fmul(value, value)])
    })?;
    Ok(squares[0])
}

fn mean(e: &mut Emitter<'_>, sum: Value, cols: u32) -> Value {
    let cols = e.real(cols as f32, Lanes::One);
    e.ins().fdiv(sum, cols)
}

/// `1 / √(mean + eps)`.
fn inv_root(e: &mut Emitter<'_>, squares: Value, cols: u32, eps: Real) -> Value {
    let mean = mean(e, squares, cols);
    let eps = e.real(eps.0 as f32, Lanes::One);
    let sum = e.ins().fadd(mean, eps);
    let root = e.ins().sqrt(sum);
    let one = e.real(1.0, Lanes::One);
    e.ins().fdiv(one, root)
}

fn centre(e: &mut Emitter<'_>, value: Value, mean: Option<Mean>, lanes: Lanes) -> Value {
    match mean {
        None => value,
        Some(Mean { rounded, rest }) => {
            let (rounded, rest) = (e.splat(rounded, lanes), e.splat(rest, lanes));
            let value = e.ins().fsub(value, rounded);
            e.ins().fsub(value, rest)
        }
    }
}
