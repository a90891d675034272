//! Kernels as loops, statement by statement and column by column.

use std::ops::Range;

use skipc_ir::interp::Number;

use super::element::Element;
use super::fault::Fault;
use super::memory::Frame;
use crate::kernel::{Rows, View};
use crate::loops::{Expr, Function, Index, Local, Loops, Operator, Place, Reduction, Stmt, WeightGradient};

/// What a variable holds.
#[derive(Clone, Copy)]
enum Held<N> {
    Nothing,
    Index(u32),
    Number(N),
}

/// A kernel while it runs.
struct Machine<'r, 'k, 'm, 'c, N> {
    frame: &'r mut Frame<'k, 'm, 'c, N>,
    row: u32,
    locals: Vec<Held<N>>,
}

pub(super) fn run<N: Element>(
    frame: &mut Frame<'_, '_, '_, N>,
    loops: &Loops,
    tiles: &[Range<u32>],
) -> Result<(), Fault> {
    for row in tiles.iter().cloned().flatten() {
        let mut machine = Machine { frame: &mut *frame, row, locals: Vec::new() };
        machine.all(&loops.code)?;
    }
    Ok(())
}

fn malformed(local: Local) -> Fault {
    Fault::Malformed(format!("variable {} holds nothing of its kind", local.0))
}

fn function<N: Element>(function: Function, x: N) -> N {
    match function {
        Function::Exp => x.exp(),
        Function::Ln => N::from_f64(libm::log(x.to_f64())),
        Function::Root if x == N::ZERO => x,
        Function::Root => x.mul(x.rsqrt()),
        Function::InvRoot => x.rsqrt(),
        Function::Tanh => x.tanh(),
        Function::Step => x.step(),
        Function::Largest if N::EXACT => N::ZERO,
        Function::Largest => x,
    }
}

fn operator<N: Element>(operator: Operator, a: N, b: N) -> N {
    match operator {
        Operator::Add => a.add(b),
        Operator::Sub => a.sub(b),
        Operator::Mul => a.mul(b),
        Operator::Div => a.div(b),
        Operator::Max => a.max(b),
    }
}

impl<N: Element> Machine<'_, '_, '_, '_, N> {
    fn set(&mut self, local: Local, held: Held<N>) {
        let at = local.0 as usize;
        if at >= self.locals.len() {
            self.locals.resize(at + 1, Held::Nothing);
        }
        self.locals[at] = held;
    }

    fn held(&self, local: Local) -> Held<N> {
        self.locals.get(local.0 as usize).copied().unwrap_or(Held::Nothing)
    }

    fn index(&self, index: &Index) -> Result<u32, Fault> {
        let overflow = || Fault::Malformed("an index overflows".to_owned());
        match index {
            Index::Row => Ok(self.row),
            Index::Is(number) => Ok(*number),
            Index::Of(local) => match self.held(*local) {
                Held::Index(number) => Ok(number),
                Held::Nothing | Held::Number(_) => Err(malformed(*local)),
            },
            Index::Word(view, row) => self.frame.load_index(*view, self.index(row)?),
            Index::Plus(a, b) => self.index(a)?.checked_add(self.index(b)?).ok_or_else(overflow),
            Index::Times(a, by) => self.index(a)?.checked_mul(*by).ok_or_else(overflow),
            Index::Less(a, by) => Ok(self.index(a)?.saturating_sub(*by)),
        }
    }

    /// The view of one element, and its logical row.
    fn place(&self, place: &Place) -> Result<(View, u32), Fault> {
        let col = place.view.col + self.index(&place.col)?;
        Ok((View { col, ..place.view }, self.index(&place.row)?))
    }

    fn number(&self, expr: &Expr) -> Result<N, Fault> {
        Ok(match expr {
            Expr::Is(value) => N::from_f64(value.0),
            Expr::Of(local) => match self.held(*local) {
                Held::Number(number) => number,
                Held::Nothing | Held::Index(_) => return Err(malformed(*local)),
            },
            Expr::Load(place) => {
                let (view, row) = self.place(place)?;
                self.frame.load(view, row, 1)?[0]
            }
            Expr::Count(index) => N::from_f64(f64::from(self.index(index)?)),
            Expr::Call(of, x) => function(*of, self.number(x)?),
            Expr::Both(of, a, b) => operator(*of, self.number(a)?, self.number(b)?),
            Expr::Slope(of, local) => match self.held(*local) {
                Held::Number(number) => of.derivative(number),
                Held::Nothing | Held::Index(_) => return Err(malformed(*local)),
            },
        })
    }

    fn all(&mut self, code: &[Stmt]) -> Result<(), Fault> {
        code.iter().try_for_each(|stmt| self.one(stmt))
    }

    fn one(&mut self, stmt: &Stmt) -> Result<(), Fault> {
        match stmt {
            Stmt::Let(local, expr) => {
                let number = self.number(expr)?;
                self.set(*local, Held::Number(number));
            }
            Stmt::LetIndex(local, index) => {
                let number = self.index(index)?;
                self.set(*local, Held::Index(number));
            }
            Stmt::Store(place, expr) => {
                let ((view, row), number) = (self.place(place)?, self.number(expr)?);
                let row = self.frame.physical(view.rows, row)? as u32;
                // Rows may be written again: what is kept is the last.
                self.frame.store(View { rows: Rows::Dense, ..view }, row, &[number])?;
            }
            Stmt::Columns { col, cols, body } => {
                for number in 0..*cols {
                    self.set(*col, Held::Index(number));
                    self.all(body)?;
                }
            }
            Stmt::Reduce { to, how, col, cols, term } => {
                let number = self.reduce(*how, (*col, *cols), term)?;
                self.set(*to, Held::Number(number));
            }
            Stmt::For { idx, from, to, carried, body } => {
                for (local, first, _) in carried {
                    let number = self.number(first)?;
                    self.set(*local, Held::Number(number));
                }
                for number in self.index(from)?..self.index(to)? {
                    self.set(*idx, Held::Index(number));
                    self.all(body)?;
                    let next: Vec<N> =
                        carried.iter().map(|(_, _, next)| self.number(next)).collect::<Result<_, _>>()?;
                    for ((local, ..), number) in carried.iter().zip(next) {
                        self.set(*local, Held::Number(number));
                    }
                }
            }
            Stmt::Search { to, sequences, positions, rows, place } => {
                let wanted = (self.index(&place.0)?, self.index(&place.1)?);
                let mut before = 0;
                for row in 0..self.index(rows)? {
                    let of_row =
                        (self.frame.load_index(*sequences, row)?, self.frame.load_index(*positions, row)?);
                    before += u32::from(of_row < wanted);
                }
                self.set(*to, Held::Index(before));
            }
        }
        Ok(())
    }

    fn reduce(&mut self, how: Reduction, (col, cols): (Local, u32), term: &Expr) -> Result<N, Fault> {
        let mut terms = Vec::with_capacity(cols as usize);
        for number in 0..cols {
            self.set(col, Held::Index(number));
            terms.push(self.number(term)?);
        }
        let largest = || terms.iter().copied().reduce(N::max);
        match how {
            Reduction::Sum => {
                Ok(N::narrow(terms.iter().fold(N::Wide::ZERO, |sum, term| sum.add(term.widen()))))
            }
            Reduction::Max => largest().ok_or_else(|| Fault::Malformed("the largest of nothing".to_owned())),
        }
    }
}

/// Sums over all rows at once, rounded at the end.
pub(super) fn weight_gradient<N: Element>(
    frame: &mut Frame<'_, '_, '_, N>,
    gradient: &WeightGradient,
    tiles: &[Range<u32>],
) -> Result<(), Fault> {
    let WeightGradient { rows, x, cols, dy, out, adds } = *gradient;
    let n_rows = frame.extent(rows)?;
    for output in tiles.iter().cloned().flatten() {
        let mut sums = vec![N::Wide::ZERO; cols as usize];
        if adds {
            for (sum, before) in sums.iter_mut().zip(frame.load_reals(out, output.into(), 0, cols)?) {
                *sum = before.widen();
            }
        }
        for row in 0..n_rows {
            let factor = frame.load(View { col: dy.col + output, ..dy }, row, 1)?[0].widen();
            for (sum, x) in sums.iter_mut().zip(frame.load(x, row, cols)?) {
                *sum = sum.add(factor.mul(x.widen()));
            }
        }
        let sums: Vec<N> = sums.into_iter().map(N::narrow).collect();
        frame.store_dense(out, output, &sums)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use skipc_ir::Unary;

    use super::*;
    use crate::loops::slope;

    /// What is computed from the variable, which holds `x`, and from numbers.
    fn value(expr: &Expr, x: f64) -> f64 {
        match expr {
            Expr::Is(number) => number.0,
            Expr::Of(_) => x,
            Expr::Call(of, operand) => function(*of, value(operand, x)),
            Expr::Both(of, a, b) => operator(*of, value(a, x), value(b, x)),
            Expr::Load(_) | Expr::Count(_) | Expr::Slope(..) => panic!("{expr:?} in a derivative"),
        }
    }

    #[test]
    fn kernels_compute_the_derivatives_of_the_table() {
        let mut without = Vec::new();
        for of in Unary::SAMPLES.iter().copied() {
            let Some(expr) = slope(of, &Expr::Of(Local(0))) else {
                without.push(of);
                continue;
            };
            for x in (-400..=400).map(|step| f64::from(step) / 32.0).chain([-1e4, -90.0, 90.0, 1e4]) {
                let (found, wanted) = (value(&expr, x), of.derivative(x));
                assert!(
                    (found - wanted).abs() <= 1e-14 * wanted.abs().max(1.0),
                    "{of:?}'({x}): {found}, not {wanted}"
                );
            }
        }
        assert_eq!(without, [Unary::GeluErf]);
    }
}
