//! Weight gradients: blocks of rows through the helper's matmul. Its left operand, the gradient, is turned in scratch memory;
//! rows that are listed are copied.

use cranelift_codegen::ir::{InstBuilder, Value};
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Kernel, Rows};
use skipc_plan::loops::{GRADIENT_ROWS, WeightGradient};

use crate::emit::{Emitter, Lanes};
use crate::error::Fault;
use crate::matmul::{Matmul, Matrix, Right};
use crate::memory::Row;

/// Rows of the result that a matmul makes.
pub(crate) const TILE_ROWS: u32 = 64;

/// Bytes of the turned gradient, of copied rows, and of the sums of a block.
fn sizes(gradient: &WeightGradient) -> [u64; 3] {
    let cols = u64::from(gradient.cols) * 4;
    let rows = u64::from(GRADIENT_ROWS);
    let copied = if gradient.x.rows == Rows::Dense { 0 } else { rows * cols };
    [u64::from(TILE_ROWS) * rows * 4, copied, u64::from(TILE_ROWS) * cols]
        .map(|bytes| bytes.next_multiple_of(64))
}

/// Bytes of scratch memory that a call needs.
pub(crate) fn scratch_bytes(gradient: &WeightGradient) -> u64 {
    sizes(gradient).iter().sum()
}

/// Emits the work on a range of rows of the result.
pub(crate) fn emit(
    e: &mut Emitter<'_>,
    (kernel, gradient): (&Kernel, &WeightGradient),
    (begin, end): (Value, Value),
) -> Result<(), Fault> {
    let out_type = kernel.params.get(gradient.out.0 as usize).map(|param| param.dtype);
    if out_type != Some(DType::F32) {
        return Err(Fault::Unsupported("a weight gradient that is not f32".to_owned()));
    }
    if !gradient.adds {
        e.for_each(begin, end, 1, |e, output| {
            let out = e.dense_row(gradient.out, output)?;
            let columns = e.columns(gradient.cols);
            e.for_columns(columns, |e, col, lanes| {
                let zero = e.real(0.0, lanes);
                e.store(out, col, zero, lanes);
                Ok(())
            })
        })?;
    }
    let (zero, rows) = (e.int(0), e.extent(gradient.rows)?);
    e.for_each(begin, end, i64::from(TILE_ROWS), |e, output| {
        e.for_each(zero, rows, i64::from(GRADIENT_ROWS), |e, first| {
            let (left_rows, left_outputs) = (e.ins().isub(rows, first), e.ins().isub(end, output));
            let (most_rows, most_outputs) = (e.int(i64::from(GRADIENT_ROWS)), e.int(i64::from(TILE_ROWS)));
            let n_rows = e.ins().umin(left_rows, most_rows);
            let n_outputs = e.ins().umin(left_outputs, most_outputs);
            block(e, gradient, (first, n_rows), (output, n_outputs))
        })
    })
}

/// Adds the gradient of some rows to some rows of the result.
fn block(
    e: &mut Emitter<'_>,
    gradient: &WeightGradient,
    (first, n_rows): (Value, Value),
    (output, n_outputs): (Value, Value),
) -> Result<(), Fault> {
    let [turned_bytes, copied_bytes, _] = sizes(gradient);
    let (zero, scratch) = (e.int(0), e.scratch);
    let f32_row = |address| Row { address, dtype: DType::F32 };
    e.for_each(zero, n_rows, 1, |e, row| {
        let logical = e.ins().iadd(first, row);
        let dy = e.row(gradient.dy, logical)?;
        let dy = dy.at_column(e, output);
        e.for_each(zero, n_outputs, 1, |e, idx| {
            let value = e.load(dy, idx, Lanes::One);
            let place = e.ins().imul_imm_s(idx, i64::from(GRADIENT_ROWS));
            let place = e.ins().iadd(place, row);
            e.store(f32_row(scratch), place, value, Lanes::One);
            Ok(())
        })
    })?;
    let copied = e.ins().iadd_imm_s(scratch, turned_bytes as i64);
    let (x, x_stride) = match gradient.x.rows {
        Rows::Dense => {
            let cols = e.param(gradient.x.slot)?.cols;
            (e.row_address(gradient.x, first)?, cols)
        }
        Rows::Listed(_) => {
            e.for_each(zero, n_rows, 1, |e, row| {
                let logical = e.ins().iadd(first, row);
                let from = e.row(gradient.x, logical)?;
                let offset = e.ins().imul_imm_s(row, i64::from(gradient.cols) * 4);
                let to = f32_row(e.ins().iadd(copied, offset));
                e.copy_row(from, to, gradient.cols)
            })?;
            (copied, gradient.cols)
        }
    };
    let sums = e.ins().iadd_imm_s(copied, copied_bytes as i64);
    let (one, turned_stride) = (e.int(1), e.int(i64::from(GRADIENT_ROWS)));
    let (x_stride, cols) = (e.int(i64::from(x_stride)), e.int(i64::from(gradient.cols)));
    let matmul = Matmul {
        m: n_outputs,
        n: cols,
        k: n_rows,
        a: Matrix { address: scratch, stride: turned_stride },
        b: Right { address: x, outer: one, inner: x_stride },
        c: Matrix { address: sums, stride: cols },
    };
    matmul.call(e);
    e.for_each(zero, n_outputs, 1, |e, idx| {
        let place = e.ins().iadd(output, idx);
        let out = e.dense_row(gradient.out, place)?;
        let offset = e.ins().imul_imm_s(idx, i64::from(gradient.cols) * 4);
        let sums = f32_row(e.ins().iadd(sums, offset));
        let columns = e.columns(gradient.cols);
        e.for_columns(columns, |e, col, lanes| {
            let (before, more) = (e.load(out, col, lanes), e.load(sums, col, lanes));
            let sum = e.ins().fadd(before, more);
            e.store(out, col, sum, lanes);
            Ok(())
        })
    })
}
