//! Rows of a cache that wait and may not wait longer. One task: rows are taken in order.

use inkwell::IntPredicate;
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Pending, Rows, View};

use super::cached::Pages;
use super::code::{Int, Made};
use super::frame::Frame;

/// Emits the whole kernel.
pub(crate) fn emit<'c>(f: &Frame<'_, 'c>, pending: &Pending, n_rows: Int<'c>) -> Made<()> {
    let executed = f.pointer(pending.executed, DType::U8)?;
    let last_row = f.plus(n_rows, -1)?;
    let begin = [f.int(0), f.int(0)];
    let found = f.fold(f.int(0), n_rows, 1, &begin, |row, carried| {
        let (count, before) = (carried[0], carried[1]);
        let executes = f.as_index(f.load_flag(f.offset(executed, row)?)?)?;
        let executes = f.or(before, executes)?;
        let sequence = f.load_index(pending.sequences, row)?;
        // Past the last row there may be no memory.
        let next = f.load_index(pending.sequences, f.min(f.plus(row, 1)?, last_row)?)?;
        let goes_on = f.and(f.equal(next, sequence)?, f.below(row, last_row)?)?;
        f.branch(
            goes_on,
            || Ok(vec![count, executes]),
            || Ok(vec![list(f, pending, (row, sequence), (count, executes))?, f.int(0)]),
        )
    })?;
    f.store_word(f.pointer(pending.count, DType::U32)?, found[0])
}

/// Lists the rows of a sequence whose last row in this step is `row`; gives how many there are then.
fn list<'c>(
    f: &Frame<'_, 'c>,
    pending: &Pending,
    (row, sequence): (Int<'c>, Int<'c>),
    (count, executes): (Int<'c>, Int<'c>),
) -> Made<Int<'c>> {
    let column = |col: u32| f.load_index(View { slot: pending.pending, rows: Rows::Dense, col }, sequence);
    let first = column(pending.router)?;
    let most = column(f.param(pending.pending)?.cols.saturating_sub(1))?;
    let end = f.plus(f.load_index(pending.positions, row)?, 1)?;
    let are_too_many = f.is(IntPredicate::SGT, f.sub(end, first)?, most)?;
    let are_due = f.or(f.is(IntPredicate::NE, executes, f.int(0))?, are_too_many)?;
    let rows = f.pointer(pending.rows, DType::U32)?;
    let pages = Pages::of(f, pending.pages, sequence)?;
    let listed = f.fold(first, f.select(are_due, end, first)?, 1, &[count], |position, count| {
        f.store_word(f.element(rows, count[0], 4)?, pages.key(f, position)?)?;
        Ok(vec![f.plus(count[0], 1)?])
    })?;
    Ok(listed[0])
}
