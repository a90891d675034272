//! What a step adds to a state. Rows of a cache are stored as any row-wise work is done, in any order. All else is one
//! block; each thread owns the elements of the state that it changes, so that rows are taken in order and no thread waits
//! for another.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Kernel, Update, View};

use super::compact::{THREADS, require_column};
use super::{Generated, place, rowwise};
use crate::code::{Code, F32, I8, I32, Int, Steps};
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
        Update::CountGroups { size: 0, .. } => {
            Err(Error::Malformed { what: "a group of no rows".to_owned() })
        }
        Update::CountGroups { wanted, positions, sequences, counts, .. } => {
            for view in [positions, sequences] {
                place::require_u32(kernel, view.slot)?;
                place::require_view(kernel, view, 1)?;
            }
            place::require(kernel, wanted, DType::U8)?;
            place::require_u32(kernel, counts)?;
            require_column(kernel, wanted)?;
            require_column(kernel, counts)?;
            one_block(kernel, |code, rows| count_groups(code, kernel, update, rows))
        }
    }
}

/// A kernel of one block, written by `body`, which gets the number of rows.
fn one_block(kernel: &Kernel, body: impl for<'c> FnOnce(&'c Code, Int<'c>)) -> Result<Generated, Error> {
    let code = Code::new(place::n_params(kernel)?);
    body(&code, place::extent(&code, &kernel.extent));
    Ok(Generated {
        code,
        tiles: Vec::new(),
        threads: THREADS,
        shared_bytes: 0,
        min_blocks: 1,
        features: Vec::new(),
        form: String::new(),
        persistent: false,
    })
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

/// A thread for each sequence that has a count: it looks at all rows and takes those of its own.
fn count_groups(code: &Code, kernel: &Kernel, update: &Update, rows: Int<'_>) {
    let Update::CountGroups { wanted, positions, sequences, size, counts, n_counts } = *update else {
        return;
    };
    let number =
        |view: View, row| place::element(code, kernel.param(view.slot), view, row, 0u32).load::<I32>();
    code.each(Steps { from: code.thread(), to: n_counts, step: THREADS }, |sequence| {
        let at = code.param(counts.0).at::<I32>(sequence);
        let before = at.load::<I32>();
        let after = code.repeat(Steps { from: 0, to: rows, step: 1 }, before, |row, count| {
            let is_own = number(sequences, row).eq(sequence);
            let begins = (number(positions, row) % size).eq(0);
            let is_wanted = code.param(wanted.0).at::<I8>(row).load::<I8>().to_int().ne(0);
            let after = begins.select(0u32, count) + is_wanted.to_int();
            is_own.select(after, count)
        });
        at.store(after);
    });
}
