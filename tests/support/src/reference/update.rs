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
        }
    }
}
