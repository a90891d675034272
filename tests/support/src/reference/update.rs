//! What updates leave in a state.

use skipc_plan::kernel::Update;

use super::{Approx, Eval};

impl Eval<'_> {
    pub(super) fn update(&mut self, update: &Update, n_rows: usize) {
        match *update {
            Update::StoreRows { cols, rows, places, cache } => {
                for row in 0..n_rows {
                    let place = self.load(places, row, 0) as usize;
                    for col in 0..cols as usize {
                        self.store_dense(cache, place, col, Approx::exact(self.load(rows, row, col)));
                    }
                }
            }
            Update::AddRows { cols, x, sum } => {
                // Without rows the sum stays as it is.
                for col in 0..if n_rows == 0 { 0 } else { cols as usize } {
                    let before = std::iter::once(self.at(sum, 0, col));
                    let terms: Vec<f64> =
                        before.chain((0..n_rows).map(|row| self.load(x, row, col))).collect();
                    let ones = vec![1.0; terms.len()];
                    self.store_dense(sum, 0, col, Approx::dot(terms.into_iter(), ones.into_iter()));
                }
            }
            Update::CountGroups { wanted, positions, sequences, size, counts, n_counts } => {
                for sequence in 0..n_counts as usize {
                    let own = |row: &usize| self.load(sequences, *row, 0) as usize == sequence;
                    let rows: Vec<usize> = (0..n_rows).filter(own).collect();
                    // Without rows a count stays as it is.
                    let Some(last) = rows.last() else { continue };
                    let group = |row: usize| self.load(positions, row, 0) as u32 / size;
                    let of_last: Vec<usize> =
                        rows.iter().copied().filter(|row| group(*row) == group(*last)).collect();
                    let n_wanted =
                        of_last.iter().filter(|row| self.at(wanted, **row, 0) != 0.0).count() as f64;
                    let goes_on = !(self.load(positions, of_last[0], 0) as u32).is_multiple_of(size);
                    let before = if goes_on { self.at(counts, sequence, 0) } else { 0.0 };
                    let after = n_wanted + before;
                    if after != self.at(counts, sequence, 0) {
                        self.store_dense(counts, sequence, 0, Approx::exact(after));
                    }
                }
            }
        }
    }
}
