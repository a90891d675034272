//! Ops of training: kernels as loops, a draft each, and weight gradients.

mod attention;
mod layers;
mod loss;
mod update;

use skipc_artifact::program::{Buffer, Extent, RowBound};
use skipc_artifact::target::DType;
use skipc_ir::{Dim, F64, Scoring, Training, Type, Value};

use super::Ctx;
use super::bind::Bind;
use crate::error::PlanError;
use crate::fuse::{Group, Work};
use crate::kernel::{Access, Body, Rows, Slot, View};
use crate::loops::{
    Expr, Index, Local, Loops, Operand, Operator, Over, Place, Reduction, Stmt, Usage, WeightGradient,
};

/// A kernel of loops while it is made.
struct Draft {
    bind: Bind,
    operands: Vec<Operand>,
    n_locals: u32,
}

/// A matrix of a kernel.
#[derive(Clone, Copy)]
struct Matrix {
    view: View,
    over: Over,
    cols: u32,
}

impl Matrix {
    fn place(self, row: &Index, col: Index) -> Place {
        Place { view: self.view, row: row.clone(), col }
    }

    fn at(self, row: &Index, col: Index) -> Expr {
        Expr::Load(Box::new(self.place(row, col)))
    }

    /// The element in the first column.
    fn first(self, row: &Index) -> Expr {
        self.at(row, Index::Is(0))
    }

    fn word(self, row: &Index) -> Index {
        Index::Word(self.view, Box::new(row.clone()))
    }

    /// How many rows it has.
    fn rows(self) -> Index {
        let extent = match self.over {
            Over::First(rows) => return Index::Is(rows),
            Over::Rows(extent, _) => extent,
        };
        match extent {
            Extent::Fixed(rows) => Index::Is(rows),
            Extent::Counted { count, .. } => {
                let view = View::dense(Slot(count));
                Index::Word(view, Box::new(Index::Is(0)))
            }
        }
    }
}

impl Draft {
    fn local(&mut self) -> Local {
        self.n_locals += 1;
        Local(self.n_locals - 1)
    }

    fn uses(&mut self, slot: Slot, usage: Usage, over: Over) {
        // Queries and keys may be rows of one buffer, each by a list of its own.
        let is_same = |operand: &&mut Operand| operand.slot == slot && operand.over == over;
        match self.operands.iter_mut().find(is_same) {
            Some(operand) if operand.usage != usage => operand.usage = Usage::Change,
            Some(_) => {}
            None => self.operands.push(Operand { slot, usage, over }),
        }
    }

    /// For each column.
    fn each(&mut self, cols: u32, body: impl FnOnce(&Index, &mut Draft) -> Vec<Stmt>) -> Stmt {
        let col = self.local();
        let body = body(&Index::Of(col), self);
        Stmt::Columns { col, cols, body }
    }

    /// The sum over columns, and its variable.
    fn sum(&mut self, cols: u32, term: impl FnOnce(&Index) -> Expr) -> (Stmt, Expr) {
        self.reduce(Reduction::Sum, cols, term)
    }

    fn reduce(&mut self, how: Reduction, cols: u32, term: impl FnOnce(&Index) -> Expr) -> (Stmt, Expr) {
        let (to, col) = (self.local(), self.local());
        let term = term(&Index::Of(col));
        (Stmt::Reduce { to, how, col, cols, term }, Expr::Of(to))
    }

    /// Names a number, so that it is computed once.
    fn named(&mut self, value: Expr) -> (Stmt, Expr) {
        let local = self.local();
        (Stmt::Let(local, value), Expr::Of(local))
    }

    /// For each number below another.
    fn each_below(&mut self, to: Index, body: impl FnOnce(&Index, &mut Draft) -> Vec<Stmt>) -> Stmt {
        self.each_from((Index::Is(0), to), body)
    }

    fn each_from(
        &mut self,
        (from, to): (Index, Index),
        body: impl FnOnce(&Index, &mut Draft) -> Vec<Stmt>,
    ) -> Stmt {
        let idx = self.local();
        let body = body(&Index::Of(idx), self);
        Stmt::For { idx, from, to, carried: Vec::new(), body }
    }

    /// What `next` makes of a number for each in a range, and its variable.
    fn fold(
        &mut self,
        (from, to): (Index, Index),
        first: Expr,
        next: impl FnOnce(&Index, Expr, &mut Draft) -> (Vec<Stmt>, Expr),
    ) -> (Stmt, Expr) {
        let (idx, carried) = (self.local(), self.local());
        let (body, next) = next(&Index::Of(idx), Expr::Of(carried), self);
        (Stmt::For { idx, from, to, carried: vec![(carried, first, next)], body }, Expr::Of(carried))
    }
}

/// `x²`, of an expression that costs little.
fn square(x: Expr) -> Expr {
    Expr::Both(Operator::Mul, Box::new(x.clone()), Box::new(x))
}

/// The largest number, negative: what every other is above.
const LEAST: f64 = f32::MIN as f64;

fn real(value: F64) -> Expr {
    Expr::Is(value)
}

fn store(matrix: Matrix, row: &Index, col: Index, value: Expr) -> Stmt {
    Stmt::Store(matrix.place(row, col), value)
}

impl Ctx<'_> {
    fn draft(&mut self, rows: Dim, of: Value) -> Result<Draft, PlanError> {
        Ok(Draft { bind: self.bind(rows, of)?, operands: Vec::new(), n_locals: 0 })
    }

    /// A draft of so many rows that are no tokens.
    fn fixed(&mut self, rows: u32, of: Value) -> Result<Draft, PlanError> {
        self.draft(Dim::Fixed(rows), of)
    }

    /// Rows and columns of a value, of which a vector has one row; `None` if its rows are tokens.
    fn fixed_size(&self, value: Value) -> Option<(u32, u32)> {
        let (Type::Tensor { dims, .. } | Type::State { dims, .. }) = self.graph.ty(value) else {
            return None;
        };
        match dims.as_slice() {
            [Dim::Fixed(len)] => Some((1, *len)),
            [Dim::Fixed(rows), Dim::Fixed(cols)] => Some((*rows, *cols)),
            _ => None,
        }
    }

    /// An operand that is read: a tensor, a view of one, a weight or a state.
    fn reads(&mut self, draft: &mut Draft, name: &str, value: Value) -> Result<Matrix, PlanError> {
        let is_constant = self.graph.op(value).has(skipc_ir::Trait::Constant);
        if let (true, Some((rows, cols))) = (is_constant, self.fixed_size(value)) {
            let slot = self.weight(&mut draft.bind, name, value, DType::F32)?;
            draft.uses(slot, Usage::Read, Over::First(rows));
            let view = View::dense(slot);
            return Ok(Matrix { view, over: Over::First(rows), cols });
        }
        let view = self.operand(&mut draft.bind, name, value)?;
        let (over, cols) = match self.fixed_size(value) {
            Some((rows, cols)) => (Over::First(rows), cols),
            None => {
                let ty = self.graph.ty(value);
                (Over::Rows(self.extent(&mut draft.bind, ty.rows(), value)?, view.rows), ty.cols())
            }
        };
        draft.uses(view.slot, Usage::Read, over);
        Ok(Matrix { view, over, cols })
    }

    /// The result: written, or filled if the kernel looks at what it wrote; then it has to be f32.
    fn makes(&mut self, draft: &mut Draft, value: Value, usage: Usage) -> Result<Matrix, PlanError> {
        let buffer = self.result(value)?;
        self.buffer_like(draft, ("out", buffer), value, usage)
    }

    /// A result that adds up in memory: in f32, and what rounds it at the end where it has fewer digits.
    fn sums_up(&mut self, draft: &mut Draft, value: Value) -> Result<(Matrix, Option<Stmt>), PlanError> {
        let result = self.result(value)?;
        let Buffer { name, dtype, rows, cols, .. } = self.buffers[result as usize].clone();
        if dtype == DType::F32 {
            return Ok((self.buffer_like(draft, ("out", result), value, Usage::Fill)?, None));
        }
        let sums = self.buffer(format!("{name} sums"), DType::F32, rows, cols);
        let sums = self.buffer_like(draft, ("sums", sums), value, Usage::Fill)?;
        let out = self.buffer_like(draft, ("out", result), value, Usage::Write)?;
        let row = Index::Row;
        let round =
            draft.each(cols, |col, _| vec![store(out, &row, col.clone(), sums.at(&row, col.clone()))]);
        Ok((sums, Some(round)))
    }

    /// A buffer with the rows and columns of a value.
    fn buffer_like(
        &mut self,
        draft: &mut Draft,
        (name, buffer): (&str, u32),
        like: Value,
        usage: Usage,
    ) -> Result<Matrix, PlanError> {
        let slot = draft.bind.slot(name, self.arg(buffer), usage.access());
        let over = match self.fixed_size(like) {
            Some((rows, _)) => Over::First(rows),
            None => Over::Rows(self.extent(&mut draft.bind, self.graph.ty(like).rows(), like)?, Rows::Dense),
        };
        draft.uses(slot, usage, over);
        let cols = self.buffers[buffer as usize].cols;
        Ok(Matrix { view: View::dense(slot), over, cols })
    }

    fn finish_draft(&mut self, group: &Group, name: String, draft: Draft, code: Vec<Stmt>) {
        let Draft { bind, operands, .. } = draft;
        self.step(group, bind, Body::Loops(Loops { name, operands, code }));
    }

    /// A kernel that computes each element of its result from those at its place.
    fn elements(
        &mut self,
        group: &Group,
        value: Value,
        operands: &[Value],
        of: impl FnOnce(&[Expr], &mut Draft) -> (Vec<Stmt>, Expr),
    ) -> Result<(), PlanError> {
        let rows = match self.fixed_size(value) {
            Some((rows, _)) => Dim::Fixed(rows),
            None => self.graph.ty(value).rows(),
        };
        let mut draft = self.draft(rows, value)?;
        let mut matrices = Vec::new();
        for operand in operands {
            matrices.push(self.reads(&mut draft, "x", *operand)?);
        }
        let out = self.makes(&mut draft, value, Usage::Write)?;
        let code = draft.each(out.cols, |col, draft| {
            // A single number stands for all elements.
            let load = |matrix: &Matrix| match (matrix.over, matrix.cols) {
                (Over::First(1), 1) if rows != Dim::Fixed(1) || out.cols != 1 => matrix.first(&Index::Is(0)),
                _ => matrix.at(&Index::Row, col.clone()),
            };
            let loaded: Vec<Expr> = matrices.iter().map(load).collect();
            let (mut body, value) = of(&loaded, draft);
            body.push(store(out, &Index::Row, col.clone(), value));
            body
        });
        let name = format!("{}_{}", self.graph.op(value).name(), out.cols);
        self.finish_draft(group, name, draft, vec![code]);
        Ok(())
    }

    /// The buffer of a parameter's elements in a type with fewer digits: the first that asks for it makes a kernel that rounds
    /// them.
    pub(super) fn rounded(&mut self, parameter: Value, dtype: DType) -> Result<u32, PlanError> {
        self.derived((parameter, "rounded"), parameter, dtype, |x| x)
    }

    /// The same of a gain that a number is added to.
    pub(super) fn offset(&mut self, gain: Value, parameter: Value, by: F64) -> Result<u32, PlanError> {
        self.derived((gain, "offset"), parameter, DType::F32, |x| x + real(by))
    }

    /// The buffer of a value whose elements are made of those of a parameter.
    fn derived(
        &mut self,
        (value, how): (Value, &str),
        parameter: Value,
        dtype: DType,
        of: impl FnOnce(Expr) -> Expr,
    ) -> Result<u32, PlanError> {
        if let Some(buffer) = self.place[value.index()] {
            return Ok(buffer);
        }
        let Some((rows, cols)) = self.fixed_size(parameter) else {
            return Err(self.internal("a parameter has a fixed size", parameter));
        };
        let mut draft = self.fixed(rows, parameter)?;
        let from = self.reads(&mut draft, "from", parameter)?;
        let name = format!("%{} {how}", self.numbering.number(value));
        let buffer = self.buffer(name, dtype, RowBound::Fixed(rows), cols);
        let to = self.buffer_like(&mut draft, ("to", buffer), parameter, Usage::Write)?;
        let row = Index::Row;
        let code =
            draft.each(cols, |col, _| vec![store(to, &row, col.clone(), of(from.at(&row, col.clone())))]);
        let group = Group { work: Work::Copy, results: Vec::new(), values: vec![value] };
        self.finish_draft(&group, format!("{how}_{cols}"), draft, vec![code]);
        self.place[value.index()] = Some(buffer);
        Ok(buffer)
    }

    /// Plans an op of training that is no update.
    pub(super) fn training(&mut self, group: &Group, value: Value, op: Training) -> Result<(), PlanError> {
        let operands = self.graph.operands(value);
        match op {
            Training::Constant { value: number } => {
                self.elements(group, value, &[], |_, _| (Vec::new(), real(number)))
            }
            Training::Times {} | Training::ReadScaled {} => {
                self.elements(group, value, &operands, |x, _| (Vec::new(), x[0].clone() * x[1].clone()))
            }
            Training::Combine { by_a, by_b } => self.elements(group, value, &operands, |x, _| {
                (Vec::new(), x[0].clone() * real(by_a) + x[1].clone() * real(by_b))
            }),
            Training::Squares { plus } => {
                self.elements(group, value, &operands, |x, _| (Vec::new(), square(x[0].clone()) + real(plus)))
            }
            Training::Derivative { of } => {
                if crate::loops::slope(of, &Expr::Of(Local(0))).is_none() {
                    return Err(self.unsupported("differentiate this function", value));
                }
                self.elements(group, value, &operands, |x, draft| {
                    let at = draft.local();
                    (vec![Stmt::Let(at, x[0].clone())], Expr::Slope(of, at) * x[1].clone())
                })
            }
            Training::ZerosLike {} => {
                self.elements(group, value, &[], |_, _| (Vec::new(), crate::loops::number(0.0)))
            }
            Training::WeightGradient {} => self.weight_gradient(group, value, None),
            Training::SetSize {} => self.set_size(group, value),
            Training::RateLoss { target } => self.rate_loss(group, value, target),
            Training::RateLossGradient { target } => self.rate_loss_gradient(group, value, target),
            Training::CrossEntropy {} => self.cross_entropy(group, value),
            Training::CrossEntropyGradient {} => self.cross_entropy_gradient(group, value),
            Training::Divergence { temperature } => self.divergence(group, value, temperature),
            Training::DivergenceGradient { temperature } => {
                self.divergence_gradient(group, value, temperature)
            }
            Training::ColumnSums { groups } => self.column_sums(group, value, groups),
            Training::EmbedGradient { rows } => self.embed_gradient(group, value, rows),
            Training::RmsNormGradient { eps, groups } => {
                self.norm_gradient(group, value, (eps, groups), false)
            }
            Training::LayerNormGradient { eps, groups } => {
                self.norm_gradient(group, value, (eps, groups), true)
            }
            Training::RmsGainGradient { eps, groups } => {
                self.gain_gradient(group, value, (eps, groups), false)
            }
            Training::LayerGainGradient { eps, groups } => {
                self.gain_gradient(group, value, (eps, groups), true)
            }
            Training::RopeGradient { heads, theta, turned, scaling } => {
                self.rope_gradient(group, value, (heads, turned), (theta, scaling))
            }
            Training::AttentionSums { heads, kv_heads, scale, cap, window, ahead } => {
                self.attention_sums(group, value, (heads, kv_heads), Scoring { scale, cap, window, ahead })
            }
            Training::QueryGradient { heads, kv_heads, scale, cap, window, ahead } => {
                self.query_gradient(group, value, (heads, kv_heads), Scoring { scale, cap, window, ahead })
            }
            Training::KeyValueGradient { heads, kv_heads, scale, cap, window, ahead } => self
                .key_value_gradient(group, value, (heads, kv_heads), Scoring { scale, cap, window, ahead }),
            Training::RowDot {} => self.row_dot(group, value),
            Training::PlaceColumns { start, .. } => self.place_columns(group, value, start),
            Training::SumSquares {} => self.sum_squares(group, value),
            Training::RowMeans {} => self.row_means(group, value),
            Training::ColumnMeans {} => self.column_means(group, value),
            Training::Parameter { .. }
            | Training::StraightThrough {}
            | Training::InputGradient {}
            | Training::Accumulate {}
            | Training::Clear {}
            | Training::MovingAverage {}
            | Training::AdamW { .. }
            | Training::Adafactor { .. } => Err(self.internal("it is not a kernel of its own", value)),
        }
    }

    /// The gradient of a weight, as a value of its own or added to a state.
    fn weight_gradient(&mut self, group: &Group, value: Value, state: Option<u32>) -> Result<(), PlanError> {
        let [x, dy] = self.operands(value)?;
        let Some((outputs, cols)) = self.fixed_size(value) else {
            return Err(self.internal("a weight has a fixed size", value));
        };
        let mut bind = self.bind(Dim::Fixed(outputs), value)?;
        let rows = self.extent(&mut bind, self.graph.ty(x).rows(), value)?;
        let (x, dy) = (self.operand(&mut bind, "x", x)?, self.operand(&mut bind, "dy", dy)?);
        let (out, adds) = match state {
            Some(state) => (bind.slot("out", self.arg(state), Access::ReadWrite), true),
            None => {
                let result = self.result(value)?;
                (self.written(&mut bind, "out", result), false)
            }
        };
        self.step(group, bind, Body::WeightGradient(WeightGradient { rows, x, cols, dy, out, adds }));
        Ok(())
    }
}
