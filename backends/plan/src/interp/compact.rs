//! Scores to token sets.

use super::fault::Fault;
use super::memory::Frame;
use crate::kernel::{Compact, Select};

pub(super) fn run(frame: &mut Frame<'_, '_, '_>, compact: &Compact, n_rows: u32) -> Result<(), Fault> {
    let forced = frame.load_u32(compact.use_forced, 0, 0)? != 0;
    let mut count = 0;
    for row in 0..n_rows {
        let executes = match forced {
            true => frame.load_u8(compact.forced, u64::from(row))? != 0,
            false => select(frame, &compact.select, row)?,
        };
        frame.store_u8(compact.mask, u64::from(row), executes.into())?;
        if executes {
            frame.store_u32(compact.rows, count, row)?;
            count += 1;
        }
    }
    frame.store_u32(compact.count, 0, count as u32)
}

fn select(frame: &Frame<'_, '_, '_>, select: &Select, row: u32) -> Result<bool, Fault> {
    match *select {
        Select::AtLeast { scores, threshold } => Ok(frame.load(scores, row, 1)?[0] >= threshold.0 as f32),
        Select::Random { positions, sequences, seed, block, limit } => {
            let sequence = u64::from(frame.load_index(sequences, row)?);
            let position = u64::from(frame.load_index(positions, row)?);
            Ok(skipc_ir::random_score(seed, block, sequence, position) < limit)
        }
    }
}
