//! Norms over the columns of a row.

use cranelift_codegen::ir::{InstBuilder, Value};
use skipc_plan::kernel::{NormKind, Slot, Spread, View};
use skipc_plan::pointwise::Real;

use crate::emit::{Columns, Emitter, Lanes};
use crate::error::Fault;
use crate::memory::Row;

/// A norm without its kernel.
pub(crate) struct Norm {
    pub(crate) kind: NormKind,
    pub(crate) eps: Real,
    pub(crate) cols: u32,
    pub(crate) x: View,
    pub(crate) gain: Slot,
    pub(crate) out: Slot,
}

impl Norm {
    pub(crate) fn emit(&self, e: &mut Emitter<'_>, row: Value) -> Result<(), Fault> {
        let (x, out) = (e.row(self.x, row)?, e.dense_row(self.out, row)?);
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
    pub(crate) spread: Spread,
    pub(crate) eps: Real,
    pub(crate) cols: u32,
    pub(crate) x: View,
    pub(crate) out: Slot,
}

impl RowScale {
    pub(crate) fn emit(&self, e: &mut Emitter<'_>, row: Value) -> Result<(), Fault> {
        let (x, out) = (e.row(self.x, row)?, e.dense_row(self.out, row)?);
        let columns = e.columns(self.cols);
        let centre = match self.spread {
            Spread::Rms => None,
            Spread::Std => Some(row_mean(e, columns, x, self.cols)?),
        };
        let squares = squares(e, columns, x, centre)?;
        let scale = inv_root(e, squares, self.cols, self.eps);
        let first = e.int(0);
        e.store(out, first, scale, Lanes::One);
        Ok(())
    }
}

fn row_mean(e: &mut Emitter<'_>, columns: Columns, x: Row, cols: u32) -> Result<Value, Fault> {
    let sum = e.sum_columns(columns, 1, |e, col, lanes| Ok(vec![e.load(x, col, lanes)]))?;
    Ok(mean(e, sum[0], cols))
}

/// The sum of the squares, of differences from the centre if there is one.
fn squares(e: &mut Emitter<'_>, columns: Columns, x: Row, centred: Option<Value>) -> Result<Value, Fault> {
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

fn centre(e: &mut Emitter<'_>, value: Value, mean: Option<Value>, lanes: Lanes) -> Value {
    match mean {
        None => value,
        Some(mean) => {
            let mean = e.splat(mean, lanes);
            e.ins().fsub(value, mean)
        }
    }
}
