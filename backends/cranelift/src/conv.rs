//! Causal convolutions: for each vector of columns the sum over the inputs in the window of a row.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Conv, Inputs, View};

use crate::attention::cached::Pages;
use crate::attention::{first_in_window, first_key};
use crate::emit::{Emitter, Lanes};
use crate::error::Fault;

/// Emits the work on one row.
pub(crate) fn emit_row(e: &mut Emitter<'_>, conv: &Conv, row: Value) -> Result<(), Fault> {
    if conv.taps == 0 {
        return Err(Fault::Malformed("a convolution without taps".to_owned()));
    }
    let (position, sequence) = (e.load_index(conv.positions, row)?, e.load_index(conv.sequences, row)?);
    let from = first_in_window(e, position, conv.taps);
    // The tap of the input at a position is this much more than it.
    let all_but_one = e.int(i64::from(conv.taps) - 1);
    let tap = e.ins().isub(all_but_one, position);
    match conv.inputs {
        Inputs::Rows { extent, x, positions, sequences } => {
            let n_rows = e.extent(extent)?;
            let of_sequence = e.ins().ishl_imm_u(sequence, 32);
            let places = [from, position].map(|position| e.ins().bor(of_sequence, position));
            let first = first_key(e, (positions, sequences), n_rows, IntCC::UnsignedLessThan, places[0])?;
            let end =
                first_key(e, (positions, sequences), n_rows, IntCC::UnsignedLessThanOrEqual, places[1])?;
            sum(e, conv, row, (first, end), |e, input, (col, lanes)| {
                let position = e.load_index(positions, input)?;
                let x = e.row(x, input)?;
                Ok((e.ins().iadd(tap, position), e.load(x, col, lanes)))
            })
        }
        Inputs::Cached { cache, pages, present } => {
            let pages = Pages::of(e, pages, sequence)?;
            let present = present.map(|present| e.pointer(present, DType::U8)).transpose()?;
            let end = e.ins().iadd_imm_s(position, 1);
            sum(e, conv, row, (from, end), |e, position, (col, lanes)| {
                let input = pages.key(e, position);
                let x = e.row(View::dense(cache), input)?;
                let mut x = e.load(x, col, lanes);
                if let Some(present) = present {
                    // What lies where no input is may be anything.
                    let flag = e.element(present, input, 1);
                    let is_there = e.load_flag(flag, DType::U8);
                    let nothing = e.real(0.0, lanes);
                    x = e.ins().select(is_there, x, nothing);
                }
                Ok((e.ins().iadd(tap, position), x))
            })
        }
    }
}

/// Sums what `input` gives for each of a range: the tap, and the columns of the input.
fn sum(
    e: &mut Emitter<'_>,
    conv: &Conv,
    row: Value,
    (first, end): (Value, Value),
    input: impl Fn(&mut Emitter<'_>, Value, (Value, Lanes)) -> Result<(Value, Value), Fault>,
) -> Result<(), Fault> {
    let out = e.dense_row(conv.out, row)?;
    let columns = e.columns(conv.cols);
    e.for_columns(columns, |e, col, lanes| {
        let nothing = e.real(0.0, lanes);
        let sum = e.fold(first, end, 1, &[nothing], |e, idx, sum| {
            let (tap, x) = input(e, idx, (col, lanes))?;
            let factors = e.dense_row(conv.filters, tap)?;
            let factors = e.load(factors, col, lanes);
            let term = e.ins().fmul(factors, x);
            Ok(vec![e.ins().fadd(sum[0], term)])
        })?[0];
        e.store(out, col, sum, lanes);
        Ok(())
    })
}
