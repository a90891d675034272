//! Losses and their gradients, and the counts of routers.

use skipc_artifact::program::RowBound;
use skipc_artifact::target::DType;
use skipc_ir::{F64, Value};

use super::super::Ctx;
use super::{Draft, Matrix, real, square, store};
use crate::error::PlanError;
use crate::fuse::Group;
use crate::kernel::View;
use crate::loops::{Expr, Function, Index, Over, Reduction, Stmt, Usage, number};

/// What a softmax of a row is: its statements, the largest element over the temperature, and the sum of the exponentials.
struct Softmax {
    code: Vec<Stmt>,
    largest: Expr,
    total: Expr,
}

/// Elements over the temperature.
fn cooled(x: Expr, temperature: Option<F64>) -> Expr {
    match temperature {
        Some(temperature) => x / real(temperature),
        None => x,
    }
}

impl Softmax {
    fn of(draft: &mut Draft, x: Matrix, temperature: Option<F64>) -> Softmax {
        let at = |col: &Index| cooled(x.at(&Index::Row, col.clone()), temperature);
        let (reduced, largest) = draft.reduce(Reduction::Max, x.cols, at);
        let (named, largest) = draft.named(largest.call(Function::Largest));
        let (sum, total) = draft.sum(x.cols, |col| (at(col) - largest.clone()).call(Function::Exp));
        Softmax { code: vec![reduced, named, sum], largest, total }
    }

    /// What an element becomes before it is divided by the total.
    fn weight(&self, x: Expr) -> Expr {
        (x - self.largest.clone()).call(Function::Exp)
    }

    /// The logarithm of what elements are divided by.
    fn log(&self) -> Expr {
        self.total.clone().call(Function::Ln) + self.largest.clone()
    }
}

fn only() -> Index {
    Index::Is(0)
}

impl Ctx<'_> {
    pub(super) fn set_size(&mut self, group: &Group, value: Value) -> Result<(), PlanError> {
        let [set] = self.operands(value)?;
        let count = self.set(set)?.count;
        let mut draft = self.fixed(1, value)?;
        let slot = draft.bind.slot("count", self.arg(count), crate::kernel::Access::Read);
        draft.uses(slot, Usage::Read, Over::First(1));
        let out = self.makes(&mut draft, value, Usage::Write)?;
        let word = Index::Word(View::dense(slot), Box::new(only()));
        let code = vec![store(out, &only(), only(), Expr::Count(word))];
        self.finish_draft(group, "set_size".to_owned(), draft, code);
        Ok(())
    }

    pub(super) fn rate_loss(&mut self, group: &Group, value: Value, target: F64) -> Result<(), PlanError> {
        let [count, _, tokens] = self.operands(value)?;
        let mut draft = self.fixed(1, value)?;
        let (count, tokens) =
            (self.reads(&mut draft, "count", count)?, self.reads(&mut draft, "tokens", tokens)?);
        let out = self.makes(&mut draft, value, Usage::Write)?;
        let (named, excess) = draft.named(count.first(&only()) / tokens.first(&only()) - real(target));
        let code = vec![named, store(out, &only(), only(), square(excess))];
        self.finish_draft(group, "rate_loss".to_owned(), draft, code);
        Ok(())
    }

    pub(super) fn rate_loss_gradient(
        &mut self,
        group: &Group,
        value: Value,
        target: F64,
    ) -> Result<(), PlanError> {
        let [count, _, tokens, dy] = self.operands(value)?;
        let mut draft = self.draft(self.graph.ty(value).rows(), value)?;
        let count = self.reads(&mut draft, "count", count)?;
        let tokens = self.reads(&mut draft, "tokens", tokens)?;
        let dy = self.reads(&mut draft, "dy", dy)?;
        let out = self.makes(&mut draft, value, Usage::Write)?;
        let tokens = || tokens.first(&only());
        let excess = count.first(&only()) / tokens() - real(target);
        let each = number(2.0) * excess / tokens() * dy.first(&only());
        let code = vec![store(out, &Index::Row, only(), each)];
        self.finish_draft(group, "rate_loss_gradient".to_owned(), draft, code);
        Ok(())
    }

    /// The sum of a number for each row, over the tokens: two kernels, the second of which adds in order.
    fn mean_of_rows(
        &mut self,
        group: &Group,
        value: Value,
        operands: &[Value],
        term: impl FnOnce(&mut Draft, &[Matrix]) -> (Vec<Stmt>, Expr),
    ) -> Result<(), PlanError> {
        let name = self.graph.op(value).name();
        let logits = operands[0];
        let rows = self.graph.ty(logits).rows();
        let mut draft = self.draft(rows, value)?;
        let mut matrices = Vec::new();
        for operand in &operands[..2] {
            matrices.push(self.reads(&mut draft, "x", *operand)?);
        }
        let terms = self.buffer(format!("{name} of rows"), DType::F32, RowBound::Tokens, 1);
        let column = self.buffer_like(&mut draft, ("out", terms), logits, Usage::Write)?;
        let (mut code, of_row) = term(&mut draft, &matrices);
        code.push(store(column, &Index::Row, only(), of_row));
        self.finish_draft(group, format!("{name}_of_rows_{}", matrices[0].cols), draft, code);
        let mut draft = self.fixed(1, value)?;
        let terms = self.buffer_like(&mut draft, ("terms", terms), logits, Usage::Read)?;
        let tokens = self.reads(&mut draft, "tokens", operands[2])?;
        let out = self.makes(&mut draft, value, Usage::Write)?;
        let range = (only(), terms.rows());
        let (sum, total) = draft.fold(range, number(0.0), |row, sum, _| (Vec::new(), sum + terms.first(row)));
        let code = vec![sum, store(out, &only(), only(), total / tokens.first(&only()))];
        self.finish_draft(group, name.to_owned(), draft, code);
        Ok(())
    }

    pub(super) fn cross_entropy(&mut self, group: &Group, value: Value) -> Result<(), PlanError> {
        let operands = self.graph.operands(value);
        self.mean_of_rows(group, value, &operands, |draft, of| {
            let (logits, targets) = (of[0], of[1]);
            let softmax = Softmax::of(draft, logits, None);
            let of_target = logits.at(&Index::Row, targets.word(&Index::Row));
            (softmax.code.clone(), softmax.log() - of_target)
        })
    }

    pub(super) fn cross_entropy_gradient(&mut self, group: &Group, value: Value) -> Result<(), PlanError> {
        let [logits, targets, tokens, dy] = self.operands(value)?;
        let mut draft = self.draft(self.graph.ty(value).rows(), value)?;
        let logits = self.reads(&mut draft, "logits", logits)?;
        let targets = self.reads(&mut draft, "targets", targets)?;
        let tokens = self.reads(&mut draft, "tokens", tokens)?;
        let dy = self.reads(&mut draft, "dy", dy)?;
        let (out, round) = self.sums_up(&mut draft, value)?;
        let row = Index::Row;
        let softmax = Softmax::of(&mut draft, logits, None);
        let (named, factor) = draft.named(dy.first(&only()) / tokens.first(&only()));
        let (shared, share) = draft.named(factor.clone() / softmax.total.clone());
        let mut code = softmax.code.clone();
        code.extend([named, shared]);
        code.push(draft.each(out.cols, |col, _| {
            let weight = softmax.weight(logits.at(&row, col.clone()));
            vec![store(out, &row, col.clone(), weight * share.clone())]
        }));
        let target = targets.word(&row);
        code.push(store(out, &row, target.clone(), out.at(&row, target) - factor));
        code.extend(round);
        self.finish_draft(group, format!("cross_entropy_gradient_{}", out.cols), draft, code);
        Ok(())
    }

    pub(super) fn divergence(
        &mut self,
        group: &Group,
        value: Value,
        temperature: F64,
    ) -> Result<(), PlanError> {
        let operands = self.graph.operands(value);
        self.mean_of_rows(group, value, &operands, |draft, of| {
            let (logits, goal) = (of[0], of[1]);
            let p = Softmax::of(draft, logits, Some(temperature));
            let q = Softmax::of(draft, goal, Some(temperature));
            let mut code = [p.code.clone(), q.code.clone()].concat();
            let (p_named, p_log) = draft.named(p.log());
            let (q_named, q_log) = draft.named(q.log());
            code.extend([p_named, q_named]);
            let (sum, total) = draft.sum(logits.cols, |col| {
                let x = |of: Matrix| cooled(of.at(&Index::Row, col.clone()), Some(temperature));
                let gap = (x(goal) - q_log.clone()) - (x(logits) - p_log.clone());
                q.weight(x(goal)) * gap
            });
            code.push(sum);
            (code, total / q.total)
        })
    }

    pub(super) fn divergence_gradient(
        &mut self,
        group: &Group,
        value: Value,
        temperature: F64,
    ) -> Result<(), PlanError> {
        let [logits, goal, tokens, dy] = self.operands(value)?;
        let mut draft = self.draft(self.graph.ty(value).rows(), value)?;
        let logits = self.reads(&mut draft, "logits", logits)?;
        let goal = self.reads(&mut draft, "goal", goal)?;
        let tokens = self.reads(&mut draft, "tokens", tokens)?;
        let dy = self.reads(&mut draft, "dy", dy)?;
        let out = self.makes(&mut draft, value, Usage::Write)?;
        let row = Index::Row;
        let p = Softmax::of(&mut draft, logits, Some(temperature));
        let q = Softmax::of(&mut draft, goal, Some(temperature));
        let over = tokens.first(&only()) * real(temperature);
        let (named, factor) = draft.named(dy.first(&only()) / over);
        let mut code = [p.code.clone(), q.code.clone(), vec![named]].concat();
        code.push(draft.each(out.cols, |col, _| {
            let x = |of: Matrix| cooled(of.at(&row, col.clone()), Some(temperature));
            let (p_of, q_of) = (p.weight(x(logits)) / p.total.clone(), q.weight(x(goal)) / q.total.clone());
            vec![store(out, &row, col.clone(), (p_of - q_of) * factor.clone())]
        }));
        self.finish_draft(group, format!("divergence_gradient_{}", out.cols), draft, code);
        Ok(())
    }
}
