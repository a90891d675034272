//! A mismatch on as little input as still shows it.

use std::path::Path;

use serde::Serialize;
use skipc_ir::interp::{FlatBatch, Number};
use skipc_runtime::batch::Grid;
use skipc_runtime::npy;

use super::LadderError;
use super::cases::select_masks;
use super::compare;
use super::forms::{Runner, lengths};
use super::oracle::{Oracle, Verdict};
use super::reference::Outcome;

/// Candidates that are tried: each runs the oracle and the form once.
const MAX_TRIES: usize = 200;

/// A reduced input.
#[derive(Clone, Debug, Serialize)]
pub struct Reduced {
    /// The form that differs.
    pub form: String,
    /// In which numbers.
    pub numbers: &'static str,
    /// Length of each sequence.
    pub lengths: Vec<u32>,
    /// Token ids, all sequences one after the other; none of a model that takes rows.
    pub tokens: Vec<i64>,
    /// Its rows, `[n, columns]`.
    pub rows: Vec<f32>,
    /// Whether lengths and rows are without those of the class token.
    pub class_rows: bool,
    /// Forced decisions, one mask `[n]` a router; none if the routers were free.
    pub routing: Option<Vec<Vec<bool>>>,
}

type RunOracle<'a, N> = dyn Fn(&FlatBatch, &Outcome<N>) -> Result<Verdict<N>, LadderError> + 'a;

/// Leaves out sequences, then tails, then single tokens' execution, as long as the form still differs from the oracle.
pub(super) fn reduce<N: Number>(
    oracle: &Oracle,
    run_oracle: &RunOracle<'_, N>,
    runner: &mut Runner<'_, N>,
    batch: &FlatBatch,
    forced: Option<&[Vec<bool>]>,
) -> Option<Reduced> {
    let mut tries = 0;
    let mut differs = |batch: &FlatBatch, forced: Option<&[Vec<bool>]>| {
        tries += 1;
        if tries > MAX_TRIES {
            return false;
        }
        let Ok(got) = runner.run(batch, forced) else { return true };
        let Ok(wanted) = run_oracle(batch, &got) else { return false };
        !compare::compare(oracle, &wanted, &got, forced, batch, runner.bound).ok
    };
    let mut now = (batch.clone(), forced.map(<[Vec<bool>]>::to_vec));
    let mut keep = |now: &mut (FlatBatch, Option<Vec<Vec<bool>>>), kept: &dyn Fn(usize) -> bool| {
        let next = (now.0.select(kept), now.1.as_ref().map(|masks| select_masks(masks, kept)));
        // Of nothing there is nothing to see.
        let smaller = (1..now.0.len()).contains(&next.0.len());
        let differs = smaller && differs(&next.0, next.1.as_deref());
        if differs {
            *now = next;
        }
        differs
    };
    let last = batch.sequences.last().copied().unwrap_or(0);
    for sequence in 0..=last {
        let sequences = now.0.sequences.clone();
        keep(&mut now, &|row| sequences[row] != sequence);
    }
    for sequence in 0..=last {
        let mut cut = now.0.sequences.iter().filter(|other| **other == sequence).count() as i64 / 2;
        while cut > 0 {
            let FlatBatch { sequences, positions, .. } = now.0.clone();
            let length = sequences.iter().filter(|other| **other == sequence).count() as i64;
            if !keep(&mut now, &|row| sequences[row] != sequence || positions[row] < length - cut) {
                cut /= 2;
            }
        }
    }
    let (batch, routing) = now;
    Some(Reduced {
        form: runner.form.clone(),
        numbers: runner.numbers,
        lengths: lengths(&batch),
        tokens: batch.tokens,
        rows: batch.rows,
        class_rows: false,
        routing,
    })
}

impl Reduced {
    /// How many tokens there are.
    pub fn n_tokens(&self) -> usize {
        self.lengths.iter().map(|length| *length as usize).sum()
    }

    /// As files hold it: without the row of the class token, which the reader puts in front of each sequence, and with decisions
    /// that are about it.
    #[must_use]
    pub fn without_class_rows(mut self) -> Reduced {
        let cols = self.rows.len().checked_div(self.n_tokens()).unwrap_or(0);
        self.lengths.retain(|length| *length > 0);
        let mut begin = 0;
        let mut rows = Vec::new();
        for length in &self.lengths {
            let end = begin + *length as usize;
            rows.extend_from_slice(&self.rows[(begin + 1) * cols..end * cols]);
            begin = end;
        }
        self.rows = rows;
        self.class_rows = true;
        self.lengths.iter_mut().for_each(|length| *length -= 1);
        self
    }

    /// Writes `tokens.npy` `[sequences, longest]` or `rows.npy` `[sequences, longest, columns]`, `lengths.npy` and, for forced decisions, `routing.npy` into a folder,
    /// in the form that `skipc verify` and `skipc run` take.
    ///
    /// # Errors
    /// If the folder or a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), skipc_runtime::Error> {
        std::fs::create_dir_all(folder).map_err(|source| skipc_runtime::Error::Io {
            action: "make",
            path: folder.into(),
            source,
        })?;
        let (rows, width) = (self.lengths.len() as u64, self.lengths.iter().copied().max().unwrap_or(0));
        let cols = self.rows.len().checked_div(self.n_tokens()).unwrap_or(0);
        let grid = Grid { lengths: self.lengths.clone(), width: width as usize };
        match cols {
            0 => {
                npy::write(&folder.join("tokens.npy"), &[rows, width.into()], &grid.unpack(&self.tokens, 1))?
            }
            _ => {
                let shape = [rows, width.into(), cols as u64];
                npy::write(&folder.join("rows.npy"), &shape, &grid.unpack(&self.rows, cols))?;
            }
        }
        let lengths: Vec<i64> = self.lengths.iter().map(|length| i64::from(*length)).collect();
        npy::write(&folder.join("lengths.npy"), &[rows], &lengths)?;
        let Some(routing) = &self.routing else { return Ok(()) };
        let more = u32::from(self.class_rows);
        let lengths = self.lengths.iter().map(|length| length + more).collect();
        let (grid, width) = (Grid { lengths, width: (width + more) as usize }, width + more);
        let masks = routing.iter().map(|mask| mask.iter().map(|bit| u8::from(*bit)).collect::<Vec<u8>>());
        let masks: Vec<u8> = masks.flat_map(|mask| grid.unpack(&mask, 1)).collect();
        npy::write(&folder.join("routing.npy"), &[routing.len() as u64, rows, width.into()], &masks)
    }
}
