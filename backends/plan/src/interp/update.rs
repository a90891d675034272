//! What a step adds to a state.

use skipc_artifact::target::DType;
use skipc_ir::interp::functions;

use super::element::Element;
use super::fault::Fault;
use super::memory::Frame;
use crate::kernel::{Rows, Slot, Update, View};

/// All rows in order: the sums in f64 (see the module's remark on numbers), rounded once.
pub(super) fn run<N: Element>(
    frame: &mut Frame<'_, '_, '_, N>,
    update: &Update,
    n_rows: u32,
) -> Result<(), Fault> {
    match *update {
        Update::StoreRows { cols, rows, places, cache } => {
            for row in 0..n_rows {
                let place = frame.load_index(places, row)?;
                if frame.param(cache)?.dtype == DType::U8 {
                    let decision = frame.load_u8(rows.slot, frame.physical(rows.rows, row)?)?;
                    frame.store_u8(cache, place.into(), decision)?;
                } else {
                    let numbers = frame.load(rows, row, cols)?;
                    frame.store_dense(cache, place, &numbers)?;
                }
            }
            Ok(())
        }
        Update::AddRows { cols, x, sum } => {
            let before = frame.load_reals(sum, 0, 0, cols)?;
            let mut columns: Vec<Vec<N>> = before.into_iter().map(|before| vec![before]).collect();
            for row in 0..n_rows {
                for (column, x) in columns.iter_mut().zip(frame.load(x, row, cols)?) {
                    column.push(x);
                }
            }
            let ones = vec![N::ONE; n_rows as usize + 1];
            let sums: Vec<N> = columns.iter().map(|column| functions::dot(column, &ones)).collect();
            frame.store_dense(sum, 0, &sums)
        }
        Update::CountGroups { wanted, positions, sequences, size, counts, n_counts } => {
            for row in 0..n_rows {
                let sequence = frame.load_index(sequences, row)?;
                let position = frame.load_index(positions, row)?;
                if sequence >= n_counts {
                    continue;
                }
                let before = count_before(frame, (counts, n_counts), sequence, (position, size))?;
                let is_wanted = frame.load_u8(wanted, u64::from(row))? != 0;
                frame.store_u32(counts, u64::from(sequence), before + u32::from(is_wanted))?;
            }
            Ok(())
        }
    }
}

/// What earlier rows of the group at this position wanted: none where the group begins, or if the sequence has no count.
pub(super) fn count_before<N: Element>(
    frame: &Frame<'_, '_, '_, N>,
    (counts, n_counts): (Slot, u32),
    sequence: u32,
    (position, size): (u32, u32),
) -> Result<u32, Fault> {
    match position.checked_rem(size) {
        None => Err(Fault::Malformed("a group of no rows".to_owned())),
        Some(place) if place == 0 || sequence >= n_counts => Ok(0),
        Some(_) => frame.load_index(View { slot: counts, rows: Rows::Dense, col: 0 }, sequence),
    }
}
