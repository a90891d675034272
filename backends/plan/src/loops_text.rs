//! Loops as text.

use std::fmt::{self, Display, Formatter};

use crate::kernel::Rows;
use crate::loops::{Expr, Function, Index, Loops, Operator, Place, Reduction, Stmt, WeightGradient};
use crate::print::InKernel;

impl Display for InKernel<'_, Loops> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.1.code.iter().try_for_each(|stmt| write(f, InKernel(self.0, stmt), 1))
    }
}

/// A statement, so many levels deep.
fn write(f: &mut Formatter<'_>, InKernel(kernel, stmt): InKernel<'_, Stmt>, depth: usize) -> fmt::Result {
    let indent = "  ".repeat(depth);
    let expr = |expr| InKernel(kernel, expr);
    match stmt {
        Stmt::Let(to, value) => writeln!(f, "{indent}v{} = {}", to.0, expr(value)),
        Stmt::LetIndex(to, value) => writeln!(f, "{indent}v{} = {}", to.0, InKernel(kernel, value)),
        Stmt::Store(place, value) => writeln!(f, "{indent}{} = {}", InKernel(kernel, place), expr(value)),
        Stmt::Columns { col, cols, body } => {
            writeln!(f, "{indent}each v{} < {cols}:", col.0)?;
            body.iter().try_for_each(|stmt| write(f, InKernel(kernel, stmt), depth + 1))
        }
        Stmt::Reduce { to, how, col, cols, term } => {
            let word = match how {
                Reduction::Sum => "sum",
                Reduction::Max => "max",
            };
            writeln!(f, "{indent}v{} = {word} of v{} < {cols}: {}", to.0, col.0, expr(term))
        }
        Stmt::For { idx, from, to, carried, body } => {
            let (from, to) = (InKernel(kernel, from), InKernel(kernel, to));
            for (local, first, _) in carried {
                writeln!(f, "{indent}v{} = {}", local.0, expr(first))?;
            }
            writeln!(f, "{indent}for v{} from {from} to {to}:", idx.0)?;
            body.iter().try_for_each(|stmt| write(f, InKernel(kernel, stmt), depth + 1))?;
            for (local, _, next) in carried {
                writeln!(f, "{indent}  next v{} = {}", local.0, expr(next))?;
            }
            Ok(())
        }
        Stmt::Search { to, sequences, positions, rows, place } => {
            let (sequences, positions) = (InKernel(kernel, sequences), InKernel(kernel, positions));
            let place = [&place.0, &place.1].map(|index| InKernel(kernel, index));
            let rows = InKernel(kernel, rows);
            write!(f, "{indent}v{} = rows of {rows} before {}, {}", to.0, place[0], place[1])?;
            writeln!(f, " by {sequences}, {positions}")
        }
    }
}

impl Display for InKernel<'_, Index> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let of = |index| InKernel(self.0, index);
        match self.1 {
            Index::Row => f.write_str("row"),
            Index::Is(number) => write!(f, "{number}"),
            Index::Of(local) => write!(f, "v{}", local.0),
            Index::Word(view, row) => write!(f, "{}[{}]", InKernel(self.0, view), of(row.as_ref())),
            Index::Plus(a, b) => write!(f, "{} + {}", of(a.as_ref()), of(b.as_ref())),
            Index::Times(a, by) => write!(f, "({}) * {by}", of(a.as_ref())),
            Index::Less(a, by) => write!(f, "({} less {by})", of(a.as_ref())),
        }
    }
}

impl Display for InKernel<'_, Place> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Place { view, row, col } = self.1;
        write!(f, "{}[{}, {}]", InKernel(self.0, view), InKernel(self.0, row), InKernel(self.0, col))
    }
}

impl Display for InKernel<'_, Expr> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let of = |expr| InKernel(self.0, expr);
        match self.1 {
            Expr::Is(value) => write!(f, "{value}"),
            Expr::Of(local) => write!(f, "v{}", local.0),
            Expr::Load(place) => write!(f, "{}", InKernel(self.0, place.as_ref())),
            Expr::Count(index) => write!(f, "({})", InKernel(self.0, index)),
            Expr::Call(function, x) => {
                let word = match function {
                    Function::Exp => "exp",
                    Function::Ln => "ln",
                    Function::Root => "sqrt",
                    Function::InvRoot => "rsqrt",
                    Function::Tanh => "tanh",
                    Function::Step => "step",
                    Function::Largest => "largest",
                };
                write!(f, "{word}({})", of(x.as_ref()))
            }
            Expr::Both(operator, a, b) => {
                let (a, b) = (of(a.as_ref()), of(b.as_ref()));
                match operator {
                    Operator::Add => write!(f, "({a} + {b})"),
                    Operator::Sub => write!(f, "({a} - {b})"),
                    Operator::Mul => write!(f, "({a} * {b})"),
                    Operator::Div => write!(f, "({a} / {b})"),
                    Operator::Max => write!(f, "max({a}, {b})"),
                }
            }
            Expr::Slope(of, local) => write!(f, "slope of {} at v{}", of.name(), local.0),
        }
    }
}

impl Display for InKernel<'_, WeightGradient> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let InKernel(kernel, WeightGradient { rows, x, cols, dy, out, adds }) = self;
        let sign = if *adds { "+=" } else { "=" };
        let list = |rows: Rows| if rows == Rows::Dense { "" } else { " listed" };
        let (out, rows) = (InKernel(kernel, out), InKernel(kernel, rows));
        let (left, right) = (InKernel(kernel, dy), InKernel(kernel, x));
        write!(f, "  {out} {sign} matmul of transposed {left}{}", list(dy.rows))?;
        writeln!(f, " and {right}{} [_, {cols}] over {rows} rows", list(x.rows))
    }
}
