//! States of training: sums over them, and what becomes of them.

use skipc_artifact::program::RowBound;
use skipc_artifact::target::DType;
use skipc_ir::{F64, Op, Training, Value};

use super::super::Ctx;
use super::{Draft, Matrix, real, square, store};
use crate::error::PlanError;
use crate::fuse::Group;
use crate::kernel::Access;
use crate::loops::{Expr, Function, Index, Over, Stmt, Usage, number};
use crate::op_kind::TrainingUpdate;

fn only() -> Index {
    Index::Is(0)
}

/// The sum of a term of each element, rows in order.
fn total(
    draft: &mut Draft,
    (rows, cols): (Index, u32),
    term: impl FnOnce(&Index, &Index) -> Expr,
) -> (Stmt, Expr) {
    draft.fold((only(), rows), number(0.0), |row, before, draft| {
        let (sum, of_row) = draft.sum(cols, |col| term(row, col));
        (vec![sum], before + of_row)
    })
}

impl Ctx<'_> {
    pub(super) fn sum_squares(&mut self, group: &Group, value: Value) -> Result<(), PlanError> {
        let [state] = self.operands(value)?;
        let mut draft = self.fixed(1, value)?;
        let state = self.reads(&mut draft, "state", state)?;
        let out = self.makes(&mut draft, value, Usage::Write)?;
        let (sum, squares) =
            total(&mut draft, (state.rows(), state.cols), |row, col| square(state.at(row, col.clone())));
        let code = vec![sum, store(out, &only(), only(), squares)];
        self.finish_draft(group, format!("sum_squares_{}", state.cols), draft, code);
        Ok(())
    }

    pub(super) fn row_means(&mut self, group: &Group, value: Value) -> Result<(), PlanError> {
        let [x] = self.operands(value)?;
        let Some((rows, _)) = self.fixed_size(x) else {
            return Err(self.internal("a matrix of fixed size", value));
        };
        let mut draft = self.fixed(rows, value)?;
        let x = self.reads(&mut draft, "x", x)?;
        let out = self.makes(&mut draft, value, Usage::Write)?;
        let (sum, of_row) = draft.sum(x.cols, |col| x.at(&Index::Row, col.clone()));
        let mean = of_row / number(f64::from(x.cols));
        let code = vec![sum, store(out, &Index::Row, only(), mean)];
        self.finish_draft(group, format!("row_means_{}", x.cols), draft, code);
        Ok(())
    }

    pub(super) fn column_means(&mut self, group: &Group, value: Value) -> Result<(), PlanError> {
        let [x] = self.operands(value)?;
        let Some((rows, cols)) = self.fixed_size(x) else {
            return Err(self.internal("a matrix of fixed size", value));
        };
        let mut draft = self.fixed(1, value)?;
        let x = self.reads(&mut draft, "x", x)?;
        let out = self.makes(&mut draft, value, Usage::Fill)?;
        let at = |col: &Index| out.at(&only(), col.clone());
        let clear = draft.each(cols, |col, _| vec![store(out, &only(), col.clone(), number(0.0))]);
        let sum = draft.each_below(Index::Is(rows), |row, draft| {
            vec![draft.each(cols, |col, _| {
                vec![store(out, &only(), col.clone(), at(col) + x.at(row, col.clone()))]
            })]
        });
        let divide = draft
            .each(cols, |col, _| vec![store(out, &only(), col.clone(), at(col) / number(f64::from(rows)))]);
        self.finish_draft(group, format!("column_means_{cols}"), draft, vec![clear, sum, divide]);
        Ok(())
    }

    /// Plans what becomes of a state: it lies where the one before did.
    pub(in crate::lower) fn training_update(
        &mut self,
        group: &Group,
        value: Value,
        update: TrainingUpdate,
    ) -> Result<(), PlanError> {
        let operands = self.graph.operands(value);
        let state = self.buffer_of(operands[0])?;
        match update {
            TrainingUpdate::Accumulate if group.values.len() > 1 => {
                self.weight_gradient(group, group.values[0], Some(state))
            }
            TrainingUpdate::Accumulate => {
                self.update_elements(group, value, &operands, |x, state| state + x[0].clone())
            }
            TrainingUpdate::Clear => self.update_elements(group, value, &operands, |_, _| number(0.0)),
            TrainingUpdate::MovingAverage => self.moving_average(group, value),
            TrainingUpdate::AdamW { eps } => self.adamw(group, value, eps),
            TrainingUpdate::Adafactor { clip, least } => self.adafactor(group, value, (clip, least)),
        }?;
        self.place[value.index()] = Some(state);
        Ok(())
    }

    /// A draft for each row of a state, with the state as its result.
    fn changes(&mut self, value: Value, usage: Usage) -> Result<(Draft, Matrix), PlanError> {
        let [state, ..] = self.graph.operands(value)[..] else {
            return Err(self.internal("an update has a state", value));
        };
        let Some((rows, cols)) = self.fixed_size(state) else {
            return Err(self.internal("a state of fixed size", value));
        };
        let buffer = self.buffer_of(state)?;
        let mut draft = self.fixed(rows, value)?;
        let slot = draft.bind.slot("state", self.arg(buffer), usage.access());
        draft.uses(slot, usage, Over::First(rows));
        let view = crate::kernel::View { slot, rows: crate::kernel::Rows::Dense, col: 0 };
        Ok((draft, Matrix { view, over: Over::First(rows), cols }))
    }

    /// An update whose elements depend on those at their place.
    fn update_elements(
        &mut self,
        group: &Group,
        value: Value,
        operands: &[Value],
        of: impl FnOnce(&[Expr], Expr) -> Expr,
    ) -> Result<(), PlanError> {
        let usage = if operands.len() > 1 { Usage::Change } else { Usage::Write };
        let (mut draft, state) = self.changes(value, usage)?;
        let mut matrices = Vec::new();
        for operand in &operands[1..] {
            matrices.push(self.reads(&mut draft, "x", *operand)?);
        }
        let row = Index::Row;
        let code = draft.each(state.cols, |col, _| {
            let loaded: Vec<Expr> = matrices.iter().map(|matrix| matrix.at(&row, col.clone())).collect();
            vec![store(state, &row, col.clone(), of(&loaded, state.at(&row, col.clone())))]
        });
        let name = format!("{}_{}", self.graph.op(value).name(), state.cols);
        self.finish_draft(group, name, draft, vec![code]);
        Ok(())
    }

    /// What an update computes of a value itself, or reads. `code` gets what is known before any element.
    fn element(
        &mut self,
        draft: &mut Draft,
        group: &Group,
        value: Value,
        code: &mut Vec<Stmt>,
    ) -> Result<Element, PlanError> {
        let operands = self.graph.operands(value);
        match (self.graph.op(value), operands.as_slice()) {
            _ if !group.values.contains(&value) => Ok(Element::Read(self.reads(draft, "x", value)?)),
            (Op::Training(Training::ReadScaled {}), &[x, factor]) => {
                let (x, factor) = (self.reads(draft, "x", x)?, self.reads(draft, "factor", factor)?);
                let (named, factor) = draft.named(factor.first(&only()));
                code.push(named);
                Ok(Element::Scaled(x, factor))
            }
            (Op::Training(Training::Squares { plus }), &[x]) => {
                Ok(Element::Squared(Box::new(self.element(draft, group, x, code)?), *plus))
            }
            _ => Err(self.internal("an update computes numbers and squares", value)),
        }
    }

    fn moving_average(&mut self, group: &Group, value: Value) -> Result<(), PlanError> {
        let [_, x, weights] = self.operands(value)?;
        let (mut draft, state) = self.changes(value, Usage::Change)?;
        let mut code = Vec::new();
        let x = self.element(&mut draft, group, x, &mut code)?;
        let weights = self.reads(&mut draft, "weights", weights)?;
        let row = Index::Row;
        let (kept_named, kept) = draft.named(weights.at(&only(), Index::Is(0)));
        let (new_named, new) = draft.named(weights.at(&only(), Index::Is(1)));
        let mix = draft.each(state.cols, |col, draft| {
            let (mut body, x) = x.at(draft, &row, col);
            let before = state.at(&row, col.clone());
            body.push(store(state, &row, col.clone(), before * kept.clone() + x * new.clone()));
            body
        });
        code.extend([kept_named, new_named, mix]);
        self.finish_draft(group, format!("moving_average_{}", state.cols), draft, code);
        Ok(())
    }

    fn adamw(&mut self, group: &Group, value: Value, eps: F64) -> Result<(), PlanError> {
        let [_, mean, squares, rates] = self.operands(value)?;
        let (mut draft, state) = self.changes(value, Usage::Change)?;
        let mean = self.reads(&mut draft, "mean", mean)?;
        let squares = self.reads(&mut draft, "square", squares)?;
        let rates = self.reads(&mut draft, "rates", rates)?;
        let row = Index::Row;
        let (mut code, mut rate) = (Vec::new(), Vec::new());
        for idx in 0..3 {
            let (named, value) = draft.named(rates.at(&only(), Index::Is(idx)));
            code.push(named);
            rate.push(value);
        }
        code.push(draft.each(state.cols, |col, _| {
            let at = |of: Matrix| of.at(&row, col.clone());
            let below = at(squares).call(Function::Root) / rate[2].clone() + real(eps);
            let step = rate[1].clone() * at(mean) / below;
            vec![store(state, &row, col.clone(), at(state) * rate[0].clone() - step)]
        }));
        self.finish_draft(group, format!("adamw_{}", state.cols), draft, code);
        Ok(())
    }

    /// Two kernels: what depends on all elements, then each of them.
    fn adafactor(
        &mut self,
        group: &Group,
        value: Value,
        (clip, least): (F64, Option<F64>),
    ) -> Result<(), PlanError> {
        let operands = self.graph.operands(value);
        let size = self.fixed_size(operands[0]);
        let Some((rows, cols)) = size else {
            return Err(self.internal("a state of fixed size", value));
        };
        let sizes = self.buffer("adafactor sizes".to_owned(), DType::F32, RowBound::Fixed(1), 3);
        let mut draft = self.fixed(1, value)?;
        let weight = self.reads(&mut draft, "weight", operands[0])?;
        let update = self.unclipped(&mut draft, &operands)?;
        let slot = draft.bind.slot("sizes", self.arg(sizes), Access::ReadWrite);
        draft.uses(slot, Usage::Fill, Over::First(1));
        let view = crate::kernel::View { slot, rows: crate::kernel::Rows::Dense, col: 0 };
        let of_sizes = Matrix { view, over: Over::First(1), cols: 3 };
        let n = number(f64::from(rows) * f64::from(cols));
        let mut code = Vec::new();
        // The mean of what is there for each row, where a row and a column stand for a matrix.
        if operands.len() > 4 {
            let (sum, of_rows) = draft.fold((only(), Index::Is(rows)), number(0.0), |row, before, _| {
                (Vec::new(), before + update.square.first(row))
            });
            code.extend([sum, store(of_sizes, &only(), Index::Is(2), of_rows / number(f64::from(rows)))]);
        }
        let (named, of_rows) = draft.named(match operands.len() > 4 {
            true => of_sizes.at(&only(), Index::Is(2)),
            false => number(1.0),
        });
        code.push(named);
        let (sum, squares) =
            total(&mut draft, (Index::Is(rows), cols), |row, col| square(update.at(row, col, &of_rows)));
        let excess = (squares / n.clone()).call(Function::Root) / real(clip);
        code.extend([sum, store(of_sizes, &only(), Index::Is(0), excess.max(number(1.0)))]);
        let (sum, squares) =
            total(&mut draft, (Index::Is(rows), cols), |row, col| square(weight.at(row, col.clone())));
        let of_weight = match least {
            Some(least) => (squares / n).call(Function::Root).max(real(least)),
            None => number(1.0),
        };
        code.extend([sum, store(of_sizes, &only(), Index::Is(1), of_weight)]);
        if operands.len() <= 4 {
            code.push(store(of_sizes, &only(), Index::Is(2), number(1.0)));
        }
        self.finish_draft(group, format!("adafactor_sizes_{cols}"), draft, code);
        self.adafactor_step(group, value, sizes)
    }

    fn adafactor_step(&mut self, group: &Group, value: Value, sizes: u32) -> Result<(), PlanError> {
        let operands = self.graph.operands(value);
        let (mut draft, state) = self.changes(value, Usage::Change)?;
        let update = self.unclipped(&mut draft, &operands)?;
        let rates = self.reads(&mut draft, "rates", operands[2])?;
        let slot = draft.bind.slot("sizes", self.arg(sizes), Access::Read);
        draft.uses(slot, Usage::Read, Over::First(1));
        let view = crate::kernel::View { slot, rows: crate::kernel::Rows::Dense, col: 0 };
        let sizes = Matrix { view, over: Over::First(1), cols: 3 };
        let (mut code, mut known) = (Vec::new(), Vec::new());
        for (of, idx) in [(sizes, 0), (sizes, 1), (sizes, 2), (rates, 0), (rates, 1)] {
            let (named, value) = draft.named(of.at(&only(), Index::Is(idx)));
            code.push(named);
            known.push(value);
        }
        let (named, rate) = draft.named(known[4].clone() * known[1].clone());
        code.push(named);
        let row = Index::Row;
        code.push(draft.each(state.cols, |col, _| {
            let change = update.at(&row, col, &known[2]) / known[0].clone();
            let before = state.at(&row, col.clone()) * known[3].clone();
            vec![store(state, &row, col.clone(), before - rate.clone() * change)]
        }));
        self.finish_draft(group, format!("adafactor_{}", state.cols), draft, code);
        Ok(())
    }

    /// The operands of an update before it is clipped.
    fn unclipped(&mut self, draft: &mut Draft, operands: &[Value]) -> Result<Unclipped, PlanError> {
        let gradient = self.reads(draft, "gradient", operands[1])?;
        let square = self.reads(draft, "square", operands[3])?;
        let columns = operands.get(4).map(|columns| self.reads(draft, "columns", *columns)).transpose()?;
        Ok(Unclipped { gradient, square, columns })
    }
}

/// An element that an update takes.
enum Element {
    Read(Matrix),
    Scaled(Matrix, Expr),
    Squared(Box<Element>, F64),
}

impl Element {
    fn at(&self, draft: &mut Draft, row: &Index, col: &Index) -> (Vec<Stmt>, Expr) {
        match self {
            Element::Read(x) => (Vec::new(), x.at(row, col.clone())),
            Element::Scaled(x, factor) => (Vec::new(), x.at(row, col.clone()) * factor.clone()),
            Element::Squared(x, plus) => {
                let (mut code, x) = x.at(draft, row, col);
                let (named, x) = draft.named(x);
                code.push(named);
                (code, square(x) + real(*plus))
            }
        }
    }
}

/// What Adafactor makes an update of.
#[derive(Clone, Copy)]
struct Unclipped {
    gradient: Matrix,
    /// Of each element, or of rows.
    square: Matrix,
    columns: Option<Matrix>,
}

impl Unclipped {
    /// An element; `of_rows` is the mean of what there is for rows.
    fn at(&self, row: &Index, col: &Index, of_rows: &Expr) -> Expr {
        let gradient = self.gradient.at(row, col.clone());
        match self.columns {
            None => gradient * self.square.at(row, col.clone()).call(Function::InvRoot),
            Some(columns) => {
                let by_row = (self.square.first(row) / of_rows.clone()).call(Function::InvRoot);
                gradient * by_row * columns.at(&only(), col.clone()).call(Function::InvRoot)
            }
        }
    }
}
