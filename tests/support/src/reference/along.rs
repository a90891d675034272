//! What work along sequences makes of a row.

use skipc_plan::kernel::Along;

use super::{Approx, Eval};

impl Eval<'_> {
    pub(super) fn along(&mut self, along: &Along, n_rows: usize) {
        match *along {
            Along::Mean { cols, x, sequences, out } => {
                for row in 0..n_rows {
                    let of = |row: usize| self.load(sequences, row, 0);
                    let rows: Vec<usize> = (0..n_rows).filter(|other| of(*other) == of(row)).collect();
                    for col in 0..cols as usize {
                        let terms: Vec<f64> = rows.iter().map(|row| self.load(x, *row, col)).collect();
                        let ones = vec![1.0; terms.len()];
                        let sum = Approx::dot(terms.into_iter(), ones.into_iter());
                        self.store_dense(out, row, col, sum.div(Approx::exact(rows.len() as f64)));
                    }
                }
            }
        }
    }
}
