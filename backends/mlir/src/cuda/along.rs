//! Work along sequences. A mean is one block: each thread owns columns, and takes rows in order, so that no thread waits for
//! another. Convolutions have a file of their own.

use skipc_plan::kernel::{Along, Kernel, Slot, View};

use super::compact::THREADS;
use super::{Generated, conv, place, update};
use crate::code::{Code, I32, Int, Steps};
use crate::error::Error;

/// Generates work along sequences.
///
/// # Errors
/// [`Error::Malformed`].
pub(super) fn generate(kernel: &Kernel, along: &Along) -> Result<Generated, Error> {
    place::require_extent(kernel, &kernel.extent)?;
    match *along {
        Along::Conv(ref of) => conv::generate(kernel, of),
        Along::Mean { cols, x, sequences, out } => {
            place::require_real(place::require_view(kernel, x, cols)?)?;
            place::require_u32(kernel, sequences.slot)?;
            place::require_view(kernel, sequences, 1)?;
            place::require_real(place::require_view(kernel, View::dense(out), cols)?)?;
            update::one_block(kernel, |code, rows| mean(code, kernel, (cols, x, sequences, out), rows))
        }
    }
}

fn mean(code: &Code, kernel: &Kernel, (cols, x, sequences, out): (u32, View, View, Slot), rows: Int<'_>) {
    let [x_param, out_param] = [x.slot, out].map(|slot| kernel.param(slot));
    let sequence =
        |row| place::element(code, kernel.param(sequences.slot), sequences, row, 0u32).load::<I32>();
    code.each(Steps { from: code.thread(), to: cols, step: THREADS }, |col| {
        let start = (code.int(0), code.float(0.0));
        code.repeat(Steps { from: 0, to: rows, step: 1 }, start, |row, (first, sum)| {
            let at = place::element(code, x_param, x, row, col);
            let sum = sum + place::load_group(at, x_param.dtype, 1)[0];
            let is_last = (row + 1).ge(rows);
            let next = sequence(is_last.select(row, row + 1));
            let ends = is_last | next.ne(sequence(row));
            code.when(ends, || {
                let mean = sum / (row + 1 - first).to_float();
                code.each(Steps { from: first, to: row + 1, step: 1 }, |row| {
                    let at = place::element(code, out_param, View::dense(out), row, col);
                    place::store_group(at, out_param.dtype, &[mean]);
                });
            });
            (ends.select(row + 1, first), ends.select(0.0f32, sum))
        });
    });
}
