//! Rows of a cache that wait and may not wait longer.

use super::element::Element;
use super::fault::Fault;
use super::memory::Frame;
use crate::kernel::Pending;

pub(super) fn run<N: Element>(
    frame: &mut Frame<'_, '_, '_, N>,
    pending: &Pending,
    n_rows: u32,
) -> Result<(), Fault> {
    let Pending { executed, positions, sequences, pages, pending, router, rows, count } = *pending;
    let last_column = frame.param(pending)?.cols.saturating_sub(1);
    let (mut n_found, mut executes) = (0, false);
    for row in 0..n_rows {
        let sequence = frame.load_index(sequences, row)?;
        executes |= frame.load_u8(executed, row.into())? != 0;
        if row + 1 < n_rows && frame.load_index(sequences, row + 1)? == sequence {
            continue;
        }
        let end = frame.load_index(positions, row)? + 1;
        let first = frame.load_u32(pending, sequence.into(), router)?;
        let most = frame.load_u32(pending, sequence.into(), last_column)?;
        if executes || end.saturating_sub(first) > most {
            for position in first..end {
                let place = frame.cached(pages, sequence, position)?;
                frame.store_u32(rows, n_found, place as u32)?;
                n_found += 1;
            }
        }
        executes = false;
    }
    frame.store_u32(count, 0, n_found as u32)
}
