//! Causal convolutions: for each vector of columns the sum over the inputs in the window of a row.

use inkwell::IntPredicate;
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Conv, Inputs, View};

use super::attention::{first_key, first_key_after};
use super::cached::Pages;
use super::code::{Int, Lanes, Made};
use super::fault::Fault;
use super::frame::Frame;

/// Emits the work on one row.
pub(crate) fn emit_row<'c>(f: &Frame<'_, 'c>, conv: &Conv, row: Int<'c>) -> Made<()> {
    if conv.taps == 0 {
        return Err(Fault::Malformed("a convolution without taps".to_owned()));
    }
    let (position, sequence) = (f.load_index(conv.positions, row)?, f.load_index(conv.sequences, row)?);
    let from = f.less(f.plus(position, 1)?, conv.taps)?;
    // The tap of the input at a position is this much more than it.
    let tap = f.sub(f.int(i64::from(conv.taps) - 1), position)?;
    match conv.inputs {
        Inputs::Rows { extent, x, positions, sequences } => {
            let (n_rows, of_sequence) = (f.extent(extent)?, f.shl(sequence, 32)?);
            let [from, last] = [from, position].map(|position| f.or(of_sequence, position));
            let places = (positions, sequences);
            let first = first_key(f, places, n_rows, IntPredicate::ULT, from?)?;
            let end = first_key_after(f, places, n_rows, last?)?;
            sum(f, conv, row, (first, end), |input, (col, lanes)| {
                let x = f.load(f.row(x, input)?, col, lanes)?;
                Ok((f.add(tap, f.load_index(positions, input)?)?, x))
            })
        }
        Inputs::Cached { cache, pages, present } => {
            let pages = Pages::of(f, pages, sequence)?;
            let present = present.map(|present| f.pointer(present, DType::U8)).transpose()?;
            let end = f.plus(position, 1)?;
            sum(f, conv, row, (from, end), |position, (col, lanes)| {
                let input = pages.key(f, position)?;
                let mut x = f.load(f.row(View::dense(cache), input)?, col, lanes)?;
                if let Some(present) = present {
                    // What lies where no input is may be anything.
                    let is_there = f.load_flag(f.offset(present, input)?)?;
                    x = f.select(is_there, x, f.real(0.0, lanes))?;
                }
                Ok((f.add(tap, position)?, x))
            })
        }
    }
}

/// Sums what `input` gives for each of a range: the tap, and the columns of the input.
fn sum<'c>(
    f: &Frame<'_, 'c>,
    conv: &Conv,
    row: Int<'c>,
    (first, end): (Int<'c>, Int<'c>),
    input: impl Fn(Int<'c>, (Int<'c>, u32)) -> Made<(Int<'c>, Lanes<'c>)>,
) -> Made<()> {
    let out = f.dense_row(conv.out, row)?;
    f.for_columns(f.columns(conv.cols), f.level.lanes, |col, lanes| {
        let sum = f.fold(first, end, 1, &[f.real(0.0, lanes)], |idx, sum| {
            let (tap, x) = input(idx, (col, lanes))?;
            let factors = f.load(f.dense_row(conv.filters, tap)?, col, lanes)?;
            Ok(vec![f.mul_add(factors, x, sum[0])?])
        })?[0];
        f.store(out, col, sum)
    })
}
