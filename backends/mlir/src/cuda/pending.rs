//! Rows of a cache that wait and may not wait longer. One block: all its threads walk over the rows of the step together, and
//! share out the rows that each sequence lists.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Kernel, Pending, Rows, Slot, View};

use super::compact::{THREADS, require_column};
use super::generated::Generated;
use super::pages::Pages;
use super::{place, update};
use crate::code::{Code, I8, I32, Int, Steps};
use crate::error::Error;

/// Generates a list of rows that wait.
///
/// # Errors
/// [`Error::Malformed`].
pub(super) fn generate(kernel: &Kernel, pending: &Pending) -> Result<Generated, Error> {
    place::require_extent(kernel, &kernel.extent)?;
    place::require(kernel, pending.executed, DType::U8)?;
    for view in [pending.positions, pending.sequences] {
        place::require_u32(kernel, view.slot)?;
        place::require_view(kernel, view, 1)?;
    }
    for slot in [pending.pages, pending.pending, pending.rows, pending.count] {
        place::require_u32(kernel, slot)?;
    }
    [pending.executed, pending.rows, pending.count]
        .iter()
        .try_for_each(|slot| require_column(kernel, *slot))?;
    let most = last_column(kernel, pending.pending)?;
    update::one_block(kernel, |code, rows| write(code, (kernel, pending), rows, most))
}

fn last_column(kernel: &Kernel, table: Slot) -> Result<u32, Error> {
    let too_few = || Error::Malformed { what: "what waits has no column of how much may".to_owned() };
    place::param(kernel, table)?.cols.checked_sub(1).ok_or_else(too_few)
}

fn write(code: &Code, (kernel, pending): (&Kernel, &Pending), rows: Int<'_>, most_col: u32) {
    let number =
        |view: View, row| place::element(code, kernel.param(view.slot), view, row, 0u32).load::<I32>();
    let (count, _) = code.repeat(
        Steps { from: 0, to: rows, step: 1 },
        (code.int(0), code.int(0)),
        |row, (count, before)| {
            let flag = code.param(pending.executed.0).at::<I8>(row).load::<I8>().to_int();
            let executes = before | flag.ne(0).to_int();
            let sequence = number(pending.sequences, row);
            let is_last_row = (row + 1).ge(rows);
            let next = number(pending.sequences, is_last_row.select(row, row + 1));
            let ends = is_last_row | next.ne(sequence);
            let of_sequence = |col| number(View { slot: pending.pending, rows: Rows::Dense, col }, sequence);
            let first = of_sequence(pending.router);
            let n_waiting = number(pending.positions, row) + 1 - first;
            let is_due = ends & (executes.ne(0) | n_waiting.gt(of_sequence(most_col)));
            let n_listed = is_due.select(n_waiting, 0u32);
            let pages = Pages::of(code, kernel, pending.pages, sequence);
            code.each(Steps { from: code.thread(), to: n_listed, step: THREADS }, |idx| {
                code.param(pending.rows.0).at::<I32>(count + idx).store(pages.key(first + idx));
            });
            (count + n_listed, ends.select(code.int(0), executes))
        },
    );
    code.when(code.thread().eq(0), || code.param(pending.count.0).store(count));
}
