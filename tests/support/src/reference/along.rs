//! What work along sequences makes of a row.

use skipc_artifact::program::PAGE_ROWS;
use skipc_plan::kernel::{Along, Conv, Inputs, Rows, View};

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
            Along::Conv(ref conv) => self.conv(conv, n_rows),
        }
    }

    fn conv(&mut self, conv: &Conv, n_rows: usize) {
        let Conv { cols, taps, filters, positions, sequences, inputs, out } = *conv;
        let (taps, page_rows) = (taps as usize, PAGE_ROWS as usize);
        for row in 0..n_rows {
            let (sequence, last) = (self.load(sequences, row, 0), self.load(positions, row, 0) as usize);
            let window = (last + 1).saturating_sub(taps)..=last;
            // Each input by its position: a view, and its row there.
            let found: Vec<(usize, View, usize)> = match inputs {
                Inputs::Rows { extent, x, positions, sequences } => (0..self.extent(extent))
                    .filter(|key| self.load(sequences, *key, 0) == sequence)
                    .map(|key| (self.load(positions, key, 0) as usize, x, key))
                    .filter(|(position, ..)| window.contains(position))
                    .collect(),
                Inputs::Cached { cache, pages, present } => window
                    .map(|position| {
                        let page = self.at(pages, sequence as usize, position / page_rows) as usize;
                        let view = View { slot: cache, rows: Rows::Dense, col: 0 };
                        (position, view, page * page_rows + position % page_rows)
                    })
                    .filter(|(.., key)| present.is_none_or(|present| self.at(present, *key, 0) != 0.0))
                    .collect(),
            };
            for col in 0..cols as usize {
                let x = found.iter().map(|(_, view, key)| self.load(*view, *key, col));
                let factors =
                    found.iter().map(|(position, ..)| self.at(filters, taps - 1 + position - last, col));
                let sum = Approx::dot(x, factors);
                self.store_dense(out, row, col, sum);
            }
        }
    }
}
