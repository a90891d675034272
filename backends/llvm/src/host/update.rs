//! What a step adds to a state. One task: rows are taken in order.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Rows, Slot, Update, View};

use super::code::{Int, Made};
use super::fault::Fault;
use super::frame::Frame;

/// Emits the whole kernel.
pub(crate) fn emit<'c>(f: &Frame<'_, 'c>, update: &Update, n_rows: Int<'c>) -> Made<()> {
    match *update {
        Update::StoreRows { cols, rows, places, cache } => f.for_each(f.int(0), n_rows, 1, |row| {
            let place = f.load_index(places, row)?;
            if f.param(cache)?.dtype == DType::U8 {
                let decision = f.load_flag(f.row_address(rows, row)?)?;
                return f.store_flag(f.offset(f.pointer(cache, DType::U8)?, place)?, decision);
            }
            f.copy_row(f.row(rows, row)?, f.dense_row(cache, place)?, cols)
        }),
        Update::AddRows { cols, x, sum } => {
            f.pointer(sum, DType::F32)?;
            f.for_each(f.int(0), n_rows, 1, |row| {
                let (x, sum) = (f.row(x, row)?, f.only_row(sum)?);
                f.for_columns(f.columns(cols), f.level.lanes, |col, lanes| {
                    let after = f.fadd(f.load(sum, col, lanes)?, f.load(x, col, lanes)?)?;
                    f.store(sum, col, after)
                })
            })
        }
        Update::CountGroups { wanted, positions, sequences, size, counts, n_counts } => {
            if size == 0 {
                return Err(Fault::Malformed("a group of no rows".to_owned()));
            }
            let wanted = f.pointer(wanted, DType::U8)?;
            let base = f.pointer(counts, DType::U32)?;
            f.for_each(f.int(0), n_rows, 1, |row| {
                let (sequence, position) = (f.load_index(sequences, row)?, f.load_index(positions, row)?);
                f.when(f.below(sequence, f.int(i64::from(n_counts)))?, || {
                    let before = count_before(f, counts, sequence, (position, size))?;
                    let is_wanted = f.load_flag(f.offset(wanted, row)?)?;
                    let after = f.add(before, f.as_index(is_wanted)?)?;
                    f.store_word(f.element(base, sequence, 4)?, after)
                })
            })
        }
    }
}

/// What earlier rows of the group at this position wanted, if the sequence has a count: none where the group begins.
pub(crate) fn count_before<'c>(
    f: &Frame<'_, 'c>,
    counts: Slot,
    sequence: Int<'c>,
    (position, size): (Int<'c>, u32),
) -> Made<Int<'c>> {
    let count = f.load_index(View { slot: counts, rows: Rows::Dense, col: 0 }, sequence)?;
    let begins = f.equal(f.modulo(position, size)?, f.int(0))?;
    f.select(begins, f.int(0), count)
}
