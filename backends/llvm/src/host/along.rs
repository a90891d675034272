//! Work along sequences. A mean is one task: sequence by sequence, a vector of columns after the other. Convolutions are row by
//! row.

use skipc_plan::kernel::{Along, Slot, View};

use super::attention::end_of_sequence;
use super::code::{Int, Made};
use super::conv;
use super::frame::Frame;

/// Emits the work on these rows: of a mean all of them.
pub(crate) fn emit<'c>(f: &Frame<'_, 'c>, along: &Along, rows: (Int<'c>, Int<'c>)) -> Made<()> {
    match *along {
        Along::Conv(ref of) => f.for_each(rows.0, rows.1, 1, |row| conv::emit_row(f, of, row)),
        Along::Mean { cols, x, sequences, out } => f
            .repeat_while(
                &[f.int(0)],
                |next| f.below(next[0], rows.1),
                |next| {
                    let end = end_of_sequence(f, sequences, next[0], rows.1)?;
                    mean(f, cols, (x, out), (next[0], end))?;
                    Ok(vec![end])
                },
            )
            .map(drop),
    }
}

/// The mean of the rows `first .. end`, in each of them.
fn mean<'c>(
    f: &Frame<'_, 'c>,
    cols: u32,
    (x, out): (View, Slot),
    (first, end): (Int<'c>, Int<'c>),
) -> Made<()> {
    let count = f.signed(f.splat_word(f.sub(end, first)?)?)?;
    f.for_columns(f.columns(cols), f.level.lanes, |col, lanes| {
        let sum = f.fold(first, end, 1, &[f.real(0.0, lanes)], |row, sum| {
            Ok(vec![f.fadd(sum[0], f.load(f.row(x, row)?, col, lanes)?)?])
        })?[0];
        let mean = f.fdiv(sum, f.splat(count, lanes)?)?;
        f.for_each(first, end, 1, |row| f.store(f.dense_row(out, row)?, col, mean))
    })
}
