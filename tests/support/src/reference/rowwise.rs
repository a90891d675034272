//! Row-wise kernels.

use skipc_plan::kernel::{NormKind, Rowwise, Slot};

use super::{Approx, Eval, UNIT, gamma};

impl Eval<'_> {
    pub(super) fn rowwise(&mut self, rowwise: &Rowwise, n_rows: usize) {
        for row in 0..n_rows {
            match rowwise {
                Rowwise::Map { cols, program } => {
                    (0..*cols as usize).for_each(|col| self.pointwise(program, (row, col), &[]));
                }
                Rowwise::Norm { .. } => self.norm(rowwise, row),
                Rowwise::RowScale { eps, cols, x, out } => {
                    let x = (0..*cols as usize).map(|col| Approx::exact(self.load(*x, row, col)));
                    let x: Vec<Approx> = x.collect();
                    let scale = inv_root(&x, eps.0);
                    self.store_dense(*out, row, 0, scale);
                }
                Rowwise::Choose { .. } => self.choose(rowwise, row),
                Rowwise::Limit(limit) => self.limit(limit, row),
                Rowwise::Embed { cols, ids, n_ids, table, out } => {
                    let id = self.load(*ids, row, 0);
                    for col in 0..*cols as usize {
                        let known = id < f64::from(*n_ids);
                        let value = if known { self.at(*table, id as usize, col) } else { 0.0 };
                        self.store_dense(*out, row, col, Approx::exact(value));
                    }
                }
                Rowwise::Rope { .. } => self.rope(rowwise, row),
            }
        }
    }

    fn norm(&mut self, rowwise: &Rowwise, row: usize) {
        let Rowwise::Norm { groups, cols, .. } = *rowwise else { return };
        let width = (cols / groups) as usize;
        (0..groups as usize).for_each(|group| self.norm_of_group(rowwise, row, (group * width, width)));
    }

    fn norm_of_group(&mut self, rowwise: &Rowwise, row: usize, (first, width): (usize, usize)) {
        let Rowwise::Norm { kind, eps, x, gain, out, .. } = *rowwise else { return };
        let mut x: Vec<Approx> =
            (0..width).map(|col| Approx::exact(self.load(x, row, first + col))).collect();
        if let NormKind::Layer { .. } = kind {
            centre(&mut x);
        }
        let scale = inv_root(&x, eps.0);
        for (col, x) in x.into_iter().enumerate() {
            let mut y = x.mul(scale).mul(Approx::exact(self.at(gain, 0, col)));
            if let NormKind::Layer { bias } = kind {
                y = y.add(Approx::exact(self.at(bias, 0, col)));
            }
            self.store_dense(out, row, first + col, y);
        }
    }

    fn rope(&mut self, rowwise: &Rowwise, row: usize) {
        let Rowwise::Rope { heads, width, turned, x, positions, cos, sin, out } = *rowwise else { return };
        let (width, half) = (width as usize, turned.unwrap_or(width) as usize / 2);
        let position = self.load(positions, row, 0) as usize;
        for head in 0..heads as usize {
            for pair in 0..half {
                let (first, second) = (head * width + pair, head * width + half + pair);
                let turn = |table: Slot| Approx::exact(self.at(table, position, pair));
                let (cos, sin) = (turn(cos), turn(sin));
                let a = Approx::exact(self.load(x, row, first));
                let b = Approx::exact(self.load(x, row, second));
                self.store_dense(out, row, first, a.mul(cos).sub(b.mul(sin)));
                self.store_dense(out, row, second, b.mul(cos).add(a.mul(sin)));
            }
            for col in head * width + 2 * half..(head + 1) * width {
                self.store_dense(out, row, col, Approx::exact(self.load(x, row, col)));
            }
        }
    }
}

/// Takes away the mean of a row of stored numbers, and the mean of what its rounding left. The error of the first mean
/// cancels: what stays is that of the second, of numbers as small as the row's spread.
fn centre(x: &mut [Approx]) {
    let n = x.len();
    let mean_of = |of: &dyn Fn(f64) -> f64| x.iter().map(|x| of(x.value)).sum::<f64>() / n as f64;
    let mean = mean_of(&|x| x);
    let lost = gamma(n) * mean_of(&f64::abs);
    let spread = mean_of(&|x| (x - mean).abs()) + lost;
    for x in x.iter_mut() {
        let value = x.value - mean;
        let error = gamma(n + 2) * spread + 2.0 * UNIT * (value.abs() + lost);
        *x = Approx { value, error };
    }
}

/// `rsqrt(mean(x²) + eps)`.
fn inv_root(x: &[Approx], eps: f64) -> Approx {
    let square = Approx::sum(x.iter().map(|x| x.mul(*x))).div(Approx::exact(x.len() as f64));
    let eps = Approx { value: eps, error: super::UNIT * eps };
    square.add(eps).rsqrt()
}
