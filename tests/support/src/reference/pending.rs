//! Rows of a cache that wait: each sequence by itself, from all its rows.

use std::collections::BTreeMap;

use skipc_artifact::program::PAGE_ROWS;
use skipc_plan::kernel::Pending;

use super::Eval;
use crate::approx::Approx;

impl Eval<'_> {
    pub(super) fn pending(&mut self, pending: &Pending, n_rows: usize) {
        // By sequence: the last position, and whether a row executes.
        let mut sequences: BTreeMap<usize, (usize, bool)> = BTreeMap::new();
        for row in 0..n_rows {
            let sequence = self.load(pending.sequences, row, 0) as usize;
            let position = self.load(pending.positions, row, 0) as usize;
            let (last, executes) = sequences.entry(sequence).or_default();
            *last = position.max(*last);
            *executes |= self.at(pending.executed, row, 0) != 0.0;
        }
        let most_col = self.kernel.param(pending.pending).cols as usize - 1;
        let mut count = 0;
        for (sequence, (last, executes)) in sequences {
            let first = self.at(pending.pending, sequence, pending.router as usize) as usize;
            let most = self.at(pending.pending, sequence, most_col) as usize;
            if !executes && (first..=last).count() <= most {
                continue;
            }
            for position in first..=last {
                let page = self.at(pending.pages, sequence, position / PAGE_ROWS as usize) as usize;
                let place = page * PAGE_ROWS as usize + position % PAGE_ROWS as usize;
                self.store_dense(pending.rows, count, 0, Approx::exact(place as f64));
                count += 1;
            }
        }
        self.store_dense(pending.count, 0, 0, Approx::exact(count as f64));
    }
}
