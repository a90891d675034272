//! What one step of a plan costs.

use skipc_artifact::program::{RowTile, Step};
use skipc_ir::{Dim, elementwise};
use skipc_passes::rewrite::cost::{Poly, Target, Work};
use skipc_plan::Plan;
use skipc_plan::kernel::{
    Along, Attention, Body, CachedAttention, Conv, Gemm, Grouped, Kernel, Limit, NormKind, Rows, Rowwise,
    Update, View,
};
use skipc_plan::pointwise::{Inst, Pointwise};
use skipc_plan::traffic::{RowsOf, moved, rows_of};

use super::Sets;

/// What a step costs, each as a function of how many rows execute.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepCost {
    /// Multiply-adds, but for those of a step that a row that is not seen would take.
    pub macs: Poly,
    /// Bytes read and written, see [`skipc_plan::traffic()`].
    pub bytes: Poly,
    /// Nanoseconds of the work, without what starting the kernel takes.
    pub work: Poly,
    /// Nanoseconds that it takes to read the weights once: the work is no shorter, however few the rows.
    pub floor: f64,
    /// The rows of the kernel: without any it does nothing.
    pub rows: Poly,
    /// On a GPU: the kernel and the tiles that it takes.
    pub launched: Option<(Kernel, Vec<RowTile>)>,
}

/// A step that is being priced.
struct Priced<'a> {
    step: &'a Step,
    sets: &'a Sets,
    target: &'a Target,
    cost: StepCost,
}

impl StepCost {
    /// The cost of a step on a target.
    pub(super) fn of(plan: &Plan, step: &Step, sets: &Sets, target: &Target) -> StepCost {
        let Some((_, kernel)) = plan.kernels.get(step.kernel as usize) else { return StepCost::default() };
        let mut priced = Priced { step, sets, target, cost: StepCost::default() };
        priced.cost.rows = priced.count(rows_of(step, kernel.extent));
        for it in moved(plan, step) {
            let bytes = priced.count(it.rows).scale(it.bytes as f64);
            priced.cost.bytes = std::mem::take(&mut priced.cost.bytes) + bytes;
        }
        match &kernel.body {
            Body::Gemm(gemm) | Body::Grouped(Grouped { gemm, .. }) => priced.gemm(gemm),
            Body::Attention(attention) => priced.attention(attention),
            Body::CachedAttention(attention) => priced.cached_attention(attention),
            Body::Along(Along::Mean { cols, .. }) => priced.each(Work::Move, 2.0 * f64::from(*cols)),
            Body::Along(Along::Conv(Conv { cols, taps, .. })) => {
                let macs = f64::from(*cols) * f64::from(*taps);
                priced.cost.macs = priced.cost.rows.scale(macs);
                priced.each(Work::Move, macs);
                priced.each(Work::Function(elementwise::Cost::Arithmetic), macs);
            }
            Body::Rowwise(rowwise) => priced.rowwise(rowwise),
            Body::Partition(_) | Body::Compact(_) | Body::Pending(_) => priced.each(Work::Route, 1.0),
            Body::Update(Update::StoreRows { cols, .. } | Update::AddRows { cols, .. }) => {
                priced.each(Work::Move, f64::from(*cols))
            }
            // Only training has them, and nobody asks for its price.
            Body::Loops(_) | Body::WeightGradient(_) => {}
        }
        priced.cost
    }
}

impl Priced<'_> {
    fn count(&self, rows: RowsOf) -> Poly {
        match rows {
            RowsOf::Fixed(rows) => Poly::constant(f64::from(rows)),
            RowsOf::Count(buffer) => self.sets.rows(buffer),
        }
    }

    fn work(&mut self, nanoseconds: Poly) {
        self.cost.work = std::mem::take(&mut self.cost.work) + nanoseconds;
    }

    fn macs(&mut self, macs: Poly, each: f64) {
        self.work(macs.scale(each));
        self.cost.macs = std::mem::take(&mut self.cost.macs) + macs;
    }

    /// So much work for each row.
    fn each(&mut self, work: Work, per_row: f64) {
        self.work(self.cost.rows.scale(per_row * self.target.price(work)));
    }

    /// What it takes beyond that to find rows by a list.
    fn listed(&mut self, view: View, cols: f64) {
        if view.rows != Rows::Dense {
            self.each(Work::Find, cols);
        }
    }

    fn gemm(&mut self, gemm: &Gemm) {
        let k = f64::from(gemm.k);
        self.each(Work::Move, k);
        self.listed(gemm.a, k);
        for part in &gemm.parts {
            let cols = f64::from(part.n) * part.sums.len() as f64;
            let work = if part.is_narrow() { Work::NarrowMatmul } else { Work::Matmul };
            self.macs(self.cost.rows.scale(k * cols), self.target.price(work));
            self.cost.floor += k * cols * self.target.weight;
            self.program(&part.epilogue, f64::from(part.n));
        }
    }

    fn attention(&mut self, attention: &Attention) {
        let keys = self.count(rows_of(self.step, attention.kv_extent));
        let cols = f64::from(attention.heads * attention.width);
        let pairs = self.cost.rows.clone() * keys;
        // A matmul with the key and one with its value; of all keys half are seen.
        self.cost.macs = pairs.scale(cols);
        self.work(pairs.scale(cols * self.target.price(Work::Attention)));
    }

    /// Over as many keys as a cache is taken to hold for each query.
    fn cached_attention(&mut self, attention: &CachedAttention) {
        let cols = f64::from(attention.heads * attention.width);
        let pairs = self.cost.rows.clone() * Poly::variable(Dim::Cached);
        self.cost.macs = pairs.scale(cols);
        self.work(pairs.scale(cols * self.target.price(Work::Attention)));
    }

    fn rowwise(&mut self, rowwise: &Rowwise) {
        match *rowwise {
            Rowwise::Map { cols, ref program } => self.program(program, f64::from(cols)),
            Rowwise::Norm { kind, cols, x, .. } => {
                let work = match kind {
                    NormKind::Rms => Work::RmsNorm,
                    NormKind::Layer { .. } => Work::LayerNorm,
                };
                self.each(work, f64::from(cols));
                self.listed(x, f64::from(cols));
            }
            Rowwise::RowScale { cols, x, .. } => {
                self.each(Work::InvRms, f64::from(cols));
                self.listed(x, f64::from(cols));
            }
            Rowwise::Choose { n, .. } => self.each(Work::Choose, f64::from(n)),
            Rowwise::Limit(Limit { k, .. }) => self.each(Work::Route, f64::from(k)),
            Rowwise::Embed { cols, .. } => self.each(Work::Embed, f64::from(cols)),
            Rowwise::Rope { heads, width, .. } => self.each(Work::Rope, f64::from(heads * width)),
        }
    }

    fn program(&mut self, program: &Pointwise, cols: f64) {
        for inst in &program.code {
            match *inst {
                Inst::Load(view) => {
                    self.each(Work::Move, cols);
                    self.listed(view, cols);
                }
                Inst::LoadAt { .. } | Inst::AccRotated { .. } => self.each(Work::Lookup, cols),
                Inst::Unary(function, _) => self.each(Work::Function(function.cost()), cols),
                Inst::Acc(_) | Inst::LoadRow(_) | Inst::LoadCol(_) | Inst::Binary(..) => {
                    self.each(Work::Function(elementwise::Cost::Arithmetic), cols);
                }
            }
        }
        for store in &program.stores {
            self.each(Work::Move, cols);
            self.listed(store.to, cols);
        }
    }
}
