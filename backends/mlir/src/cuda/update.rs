//! What a step adds to a state. Rows of a cache are stored as any row-wise work is done, in any order. All else is one
//! block; each thread owns the elements of the state that it changes, so that rows are taken in order and no thread waits
//! for another.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Kernel, Update, View};

use super::compact::THREADS;
use super::generated::Generated;
use super::{place, rowwise};
use crate::code::{Code, F32, Int, Steps};
use crate::error::Error;

/// Generates an update.
///
/// # Errors
/// [`Error::Malformed`].
pub(super) fn generate(kernel: &Kernel, update: &Update) -> Result<Generated, Error> {
    place::require_extent(kernel, &kernel.extent)?;
    match *update {
        Update::StoreRows { cols, rows, places, cache } => {
            rowwise::store_rows(kernel, rowwise::StoreRows { cols, rows, places, cache })
        }
        Update::AddRows { cols, x, sum } => {
            place::require_real(place::require_view(kernel, x, cols)?)?;
            place::require(kernel, sum, DType::F32)?;
            one_block(kernel, |code, rows| add_rows(code, kernel, (x, cols, sum.0), rows))
        }
    }
}

/// A kernel of one block, written by `body`, which gets the number of rows.
pub(super) fn one_block(
    kernel: &Kernel,
    body: impl for<'c> FnOnce(&'c Code, Int<'c>),
) -> Result<Generated, Error> {
    let code = Code::new(place::n_params(kernel)?);
    body(&code, place::extent(&code, &kernel.extent));
    Ok(Generated::new(code, Vec::new(), THREADS))
}

/// A thread for each column.
fn add_rows(code: &Code, kernel: &Kernel, (x, cols, sum): (View, u32, u32), rows: Int<'_>) {
    let param = kernel.param(x.slot);
    code.each(Steps { from: code.thread(), to: cols, step: THREADS }, |col| {
        let at = code.param(sum).at::<F32>(col);
        let before = at.load::<F32>();
        let after = code.repeat(Steps { from: 0, to: rows, step: 1 }, before, |row, sum| {
            sum + place::load_group(place::element(code, param, x, row, col), param.dtype, 1)[0]
        });
        at.store(after);
    });
}
