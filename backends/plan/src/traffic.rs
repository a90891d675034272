//! How many bytes the steps of a plan move, for given numbers of rows.
//!
//! For each step and each of its parameters: rows × columns × bytes of an element, once for what is read and once for
//! what is written.
//!
//! - Rows are those of the kernel's extent at the given counts, whether they are found by a row list or not; of keys
//!   and values they are those of the key extent; of a row list that a kernel makes, as many as the set has.
//! - Columns are those that the kernel looks at, so that a slice of a wide matrix counts as the slice. What a kernel
//!   reads twice from the same place counts once.
//! - The rows of a constant that a kernel uses count once for each run of a kernel. Tables that are looked up by row (embedding, rotary
//!   positions) count as many rows as the extent has, and no more than they have.
//!
//! Not counted: that a processor reads in lines and sectors, that caches keep what was just written, that the tiles of a
//! matmul or of attention read their operands more than once, that causal queries need no later keys, and what the
//! host writes before the steps and reads after them. So it compares forms of one model; it does not predict a time.

use std::collections::BTreeMap;

use skipc_artifact::program::{Arg, Buffer, Extent, RowBound, Step, Storage};

use crate::kernel::{
    Along, Attention, BLOCK_TERMS, Body, CachedAttention, Candidates, Compact, Conv, Gemm, Inputs, Keep,
    KeepChoices, Kernel, Limit, NormKind, Part, Pending, RankOrder, Ranked, Replay, Rows, Rowwise, Segment,
    Select, Slot, Sum, Update, View, WeightLayout,
};
use crate::loops::{Loops, Operand, Over, Usage, WeightGradient};
use crate::plan::Plan;
use crate::pointwise::{Inst, Pointwise};

/// Numbers of rows of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Tokens of the step.
    pub tokens: u32,
    /// Rows of the sets, by the index of the buffer that says how many there are. A set that is not here counts as all
    /// tokens.
    pub sets: BTreeMap<u32, u32>,
    /// Rows of a cache that each query looks at, its own included; 1 by default.
    pub cached: u32,
    /// How many of them have keys and values where only tokens that executed leave any; 1 by default.
    pub kept: u32,
}

impl Default for Counts {
    fn default() -> Self {
        Self { tokens: 0, sets: BTreeMap::new(), cached: 1, kept: 1 }
    }
}

/// Bytes that one step moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
}

impl Traffic {
    /// Both together.
    pub fn bytes(self) -> u64 {
        self.read + self.written
    }
}

/// What each step moves, in the order of the steps. See the [module](self) for what counts.
pub fn traffic(plan: &Plan, counts: &Counts) -> Vec<Traffic> {
    let step = |step: &Step| {
        let kernel = &plan.kernels.get(step.kernel as usize)?.1;
        Some(StepTraffic { plan, counts, step, kernel }.sum(&uses(kernel)))
    };
    plan.function.steps.iter().map(|it| step(it).unwrap_or_default()).collect()
}

/// Bytes that a run reads and writes, by the memory that they lie in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByMemory {
    /// Of constants: weights and tables.
    pub constants: u64,
    /// Of states: caches of earlier tokens.
    pub states: u64,
    /// Of what lives for one run only.
    pub arena: u64,
}

/// What all steps together move, as [`traffic`] counts it.
pub fn by_memory(plan: &Plan, counts: &Counts) -> ByMemory {
    let mut sum = ByMemory::default();
    for step in &plan.function.steps {
        let Some((_, kernel)) = plan.kernels.get(step.kernel as usize) else { continue };
        let of = StepTraffic { plan, counts, step, kernel };
        for it in of.touched(&uses(kernel)) {
            let memory = match step.args.get(it.slot.0 as usize) {
                Some(Arg::Constant(_)) => &mut sum.constants,
                Some(Arg::Buffer(idx)) if is_state(plan, *idx) => &mut sum.states,
                _ => &mut sum.arena,
            };
            *memory += of.bytes(it);
        }
    }
    sum
}

fn is_state(plan: &Plan, buffer: u32) -> bool {
    let buffer = plan.function.buffers.get(buffer as usize);
    buffer.is_some_and(|buffer| matches!(buffer.storage, Storage::State(_)))
}

/// How many rows something has: a number, or what a buffer says when the step begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowsOf {
    /// This many.
    Fixed(u32),
    /// As many as the buffer of this index says.
    Count(u32),
}

/// Bytes that a step moves for each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// How many rows.
    pub rows: RowsOf,
    /// Bytes of each.
    pub bytes: u64,
}

/// What one step moves whatever the counts are, as [`traffic`] counts it; that a table has no more rows than it has is
/// left out.
pub fn moved(plan: &Plan, step: &Step) -> Vec<Moved> {
    let Some((_, kernel)) = plan.kernels.get(step.kernel as usize) else { return Vec::new() };
    let counts = Counts::default();
    let of = StepTraffic { plan, counts: &counts, step, kernel };
    let uses = uses(kernel);
    let moved = uses.iter().map(|it| {
        let bytes = u64::from(it.cols) * u64::from(kernel.param(it.slot).dtype.size());
        Moved { rows: of.rows_of(it), bytes }
    });
    moved.collect()
}

/// How many rows an extent of a step's kernel has.
pub fn rows_of(step: &Step, extent: Extent) -> RowsOf {
    match extent {
        Extent::Fixed(rows) => RowsOf::Fixed(rows),
        Extent::Counted { count, at_most } => counted_by(step, Slot(count)).unwrap_or(RowsOf::Fixed(at_most)),
    }
}

fn counted_by(step: &Step, count: Slot) -> Option<RowsOf> {
    match step.args.get(count.0 as usize) {
        Some(Arg::Buffer(idx)) => Some(RowsOf::Count(*idx)),
        _ => None,
    }
}

/// Which rows of a parameter a kernel looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Touched {
    /// As many as an extent has.
    Over(Extents),
    /// As many as this parameter says when the kernel is done.
    Counted(Slot),
    /// All that a constant has.
    Whole,
    /// As many as an extent has, at places that other values name: of caches.
    Placed,
    /// All that the queries of the extent look at, of a cache.
    Seen,
    /// Of these, the ones that tokens which executed left.
    Kept,
    /// Some of a constant.
    Rows { first: u32, len: u32 },
}

/// The extents of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Extents {
    Rows,
    Keys,
}

/// One use of a parameter: rows, first column, columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Use {
    slot: Slot,
    is_write: bool,
    rows: Touched,
    col: u32,
    cols: u32,
}

/// The extent of a kernel that is not that of its rows.
fn other_extent(body: &Body) -> Option<Extent> {
    match body {
        Body::Attention(attention) => Some(attention.kv_extent),
        Body::Along(Along::Conv(Conv { inputs: Inputs::Rows { extent, .. }, .. })) => Some(*extent),
        Body::Rowwise(Rowwise::Limit(Limit { keep: KeepChoices::Share { extent, .. }, .. })) => Some(*extent),
        _ => None,
    }
}

struct StepTraffic<'a> {
    plan: &'a Plan,
    counts: &'a Counts,
    step: &'a Step,
    kernel: &'a Kernel,
}

impl StepTraffic<'_> {
    fn sum(&self, uses: &[Use]) -> Traffic {
        let mut sum = Traffic::default();
        for it in self.touched(uses) {
            *(if it.is_write { &mut sum.written } else { &mut sum.read }) += self.bytes(it);
        }
        sum
    }

    /// The uses that a run has: without rows a kernel ends when it has read how many there are.
    fn touched<'u>(&self, uses: &'u [Use]) -> impl Iterator<Item = &'u Use> {
        let is_empty = self.extent(self.kernel.extent) == 0;
        let extent = self.kernel.extent;
        let count = move |it: &&Use| matches!(extent, Extent::Counted { count, .. } if count == it.slot.0);
        uses.iter().filter(move |it| !is_empty || count(it))
    }

    fn bytes(&self, it: &Use) -> u64 {
        self.rows(it) * u64::from(it.cols) * u64::from(self.kernel.param(it.slot).dtype.size())
    }

    fn rows_of(&self, it: &Use) -> RowsOf {
        match it.rows {
            Touched::Whole => RowsOf::Fixed(self.most(it)),
            Touched::Rows { len, .. } => RowsOf::Fixed(len),
            Touched::Counted(count) => counted_by(self.step, count).unwrap_or(RowsOf::Fixed(self.most(it))),
            Touched::Over(Extents::Rows) | Touched::Placed | Touched::Seen | Touched::Kept => {
                rows_of(self.step, self.kernel.extent)
            }
            Touched::Over(Extents::Keys) => {
                let extent = other_extent(&self.kernel.body);
                extent.map_or(RowsOf::Fixed(0), |extent| rows_of(self.step, extent))
            }
        }
    }

    /// Rows of the operand behind a parameter.
    fn most(&self, it: &Use) -> u32 {
        match self.step.args.get(it.slot.0 as usize) {
            Some(Arg::Constant(idx)) => {
                self.plan.constants.get(*idx as usize).map_or(0, |constant| constant.constant.rows)
            }
            Some(Arg::Buffer(idx)) => match self.plan.function.buffers.get(*idx as usize) {
                Some(Buffer { rows: RowBound::Fixed(rows), .. }) => *rows,
                Some(Buffer { rows: RowBound::Cached, .. }) => u32::MAX,
                _ => self.counts.tokens,
            },
            None => 0,
        }
    }

    fn rows(&self, it: &Use) -> u64 {
        let most = self.most(it);
        let rows = match it.rows {
            Touched::Whole => most,
            Touched::Rows { len, .. } => len,
            Touched::Counted(count) => self.counted(count),
            Touched::Over(Extents::Rows) | Touched::Placed => self.extent(self.kernel.extent),
            Touched::Seen => self.extent(self.kernel.extent).saturating_mul(self.counts.cached),
            Touched::Kept => self.extent(self.kernel.extent).saturating_mul(self.counts.kept),
            Touched::Over(Extents::Keys) => {
                other_extent(&self.kernel.body).map_or(0, |extent| self.extent(extent))
            }
        };
        u64::from(rows.min(most))
    }

    fn extent(&self, extent: Extent) -> u32 {
        match extent {
            Extent::Fixed(rows) => rows,
            Extent::Counted { count, at_most } => self.counted(Slot(count)).min(at_most),
        }
    }

    fn counted(&self, count: Slot) -> u32 {
        let known = match self.step.args.get(count.0 as usize) {
            Some(Arg::Buffer(idx)) => self.counts.sets.get(idx).copied(),
            _ => None,
        };
        known.unwrap_or(self.counts.tokens)
    }
}

/// What a kernel does to its parameters, each use once.
fn uses(kernel: &Kernel) -> Vec<Use> {
    let mut found = Found { kernel, uses: Vec::new() };
    if let Extent::Counted { count, .. } = kernel.extent {
        found.whole(Slot(count), 1);
    }
    match &kernel.body {
        Body::Gemm(gemm) => found.gemm(gemm),
        // How many segments have rows is not known here: the weights of one are counted.
        Body::Grouped(grouped) => {
            found.push(View::dense(grouped.ends), 1, Touched::Whole, false);
            found.gemm(&grouped.gemm);
        }
        Body::Partition(partition) => {
            found.read(partition.index, 1);
            found.push(View::dense(partition.rows), 1, Touched::Counted(partition.count), true);
            found.push(View::dense(partition.ends), 1, Touched::Whole, true);
            found.push(View::dense(partition.count), 1, Touched::Whole, true);
        }
        Body::Attention(attention) => found.attention(attention),
        Body::CachedAttention(attention) => found.cached_attention(attention),
        Body::Along(along) => found.along(along),
        Body::Rowwise(rowwise) => found.rowwise(rowwise),
        Body::Compact(compact) => found.compact(compact),
        Body::Pending(pending) => found.pending(pending),
        Body::Update(update) => found.update(update),
        Body::Loops(loops) => found.loops(loops),
        Body::WeightGradient(gradient) => found.weight_gradient(gradient),
    }
    found.uses.sort_unstable();
    found.uses.dedup();
    found.uses
}

struct Found<'k> {
    kernel: &'k Kernel,
    uses: Vec<Use>,
}

impl Found<'_> {
    fn push(&mut self, view: View, cols: u32, rows: Touched, is_write: bool) {
        if let (Rows::Listed(list), Touched::Over(_)) = (view.rows, rows) {
            self.uses.push(Use { slot: list, is_write: false, rows, col: 0, cols: 1 });
        }
        self.uses.push(Use { slot: view.slot, is_write, rows, col: view.col, cols });
    }

    fn read(&mut self, view: View, cols: u32) {
        self.push(view, cols, Touched::Over(Extents::Rows), false);
    }

    fn write(&mut self, view: View, cols: u32) {
        self.push(view, cols, Touched::Over(Extents::Rows), true);
    }

    fn keys(&mut self, view: View, cols: u32) {
        self.push(view, cols, Touched::Over(Extents::Keys), false);
    }

    fn whole(&mut self, slot: Slot, cols: u32) {
        self.push(View::dense(slot), cols, Touched::Whole, false);
    }

    fn gemm(&mut self, Gemm { a, k, parts }: &Gemm) {
        self.read(*a, *k);
        for part in parts {
            part.sums.iter().for_each(|sum| self.weight(part, *sum, *k));
            self.program(&part.epilogue, part.n);
        }
    }

    /// The rows of a matrix in panels that hold so many outputs from one on.
    fn panels(&mut self, slot: Slot, (row, n): (u32, u32), k: u32) {
        let param = self.kernel.param(slot);
        // Whole panels are read, with what pads the last.
        let of = |outputs| WeightLayout::Panels.shape((outputs, k), param.dtype).map_or(0, |shape| shape.0);
        let first = of(row);
        let rows = Touched::Rows { first, len: of(row.saturating_add(n)) - first };
        self.push(View::dense(slot), param.cols, rows, false);
    }

    /// The rows of a weight that a sum takes.
    fn weight(&mut self, part: &Part, sum: Sum, k: u32) {
        match part.layout {
            WeightLayout::Rows => {
                let rows = Touched::Rows { first: sum.row, len: part.n };
                self.push(View::dense(sum.weight), k, rows, false);
            }
            WeightLayout::Columns => {
                self.push(View { col: sum.row, ..View::dense(sum.weight) }, part.n, Touched::Whole, false);
            }
            WeightLayout::Panels | WeightLayout::Levels => {
                self.panels(sum.weight, (sum.row, part.n), k);
                sum.scales.into_iter().for_each(|scales| {
                    self.panels(scales, (sum.row, part.n), k.div_ceil(BLOCK_TERMS));
                });
            }
            WeightLayout::Swizzled => {
                // Of each row the run of the sum's outputs, with what pads the last row.
                let dtype = self.kernel.param(sum.weight).dtype;
                let of = |outputs| part.layout.shape((outputs, k), dtype).map_or(0, |shape| shape.1);
                let view = View { col: of(sum.row), ..View::dense(sum.weight) };
                self.push(view, of(part.n), Touched::Whole, false);
            }
        }
    }

    fn program(&mut self, program: &Pointwise, cols: u32) {
        for inst in &program.code {
            match *inst {
                Inst::Load(view) => self.read(view, cols),
                Inst::LoadRow(view) => self.read(view, 1),
                Inst::LoadCol(slot) => self.whole(slot, cols),
                Inst::LoadAt { table, index } => {
                    self.read(index, 1);
                    self.read(View::dense(table), self.kernel.param(table).cols);
                }
                Inst::Acc(_) | Inst::AccRotated { .. } | Inst::Unary(..) | Inst::Binary(..) => {}
            }
        }
        program.stores.iter().for_each(|store| self.write(store.to, cols));
    }

    fn attention(&mut self, attention: &Attention) {
        let Attention { heads, kv_heads, width, q, q_pos, q_seq, k, v, k_pos, k_seq, out, .. } = *attention;
        if let Extent::Counted { count, .. } = attention.kv_extent {
            self.whole(Slot(count), 1);
        }
        self.read(q, heads * width);
        [q_pos, q_seq].into_iter().for_each(|view| self.read(view, 1));
        [k, v].into_iter().for_each(|view| self.keys(view, kv_heads * width));
        [k_pos, k_seq].into_iter().for_each(|view| self.keys(view, 1));
        self.write(View::dense(out), heads * width);
    }

    /// What loops use is taken to be used whole, once.
    fn loops(&mut self, loops: &Loops) {
        for Operand { slot, usage, over } in &loops.operands {
            let rows = match *over {
                Over::Rows(Extent::Counted { count, .. }, _) => Touched::Counted(Slot(count)),
                Over::Rows(Extent::Fixed(len), _) | Over::First(len) => Touched::Rows { first: 0, len },
            };
            let cols = self.kernel.param(*slot).cols;
            if let Over::Rows(Extent::Counted { count, .. }, list) = *over {
                self.whole(Slot(count), 1);
                if let Rows::Listed(list) = list {
                    self.push(View::dense(list), 1, rows, false);
                }
            }
            if matches!(usage, Usage::Read | Usage::Change) {
                self.push(View::dense(*slot), cols, rows, false);
            }
            if *usage != Usage::Read {
                self.push(View::dense(*slot), cols, rows, true);
            }
        }
    }

    fn weight_gradient(&mut self, gradient: &WeightGradient) {
        let WeightGradient { rows, x, cols, dy, out, adds } = *gradient;
        let outputs = match self.kernel.extent {
            Extent::Fixed(outputs) => outputs,
            Extent::Counted { at_most, .. } => at_most,
        };
        let read = match rows {
            Extent::Counted { count, .. } => {
                self.whole(Slot(count), 1);
                Touched::Counted(Slot(count))
            }
            Extent::Fixed(len) => Touched::Rows { first: 0, len },
        };
        for (view, cols) in [(x, cols), (dy, outputs)] {
            if let Rows::Listed(list) = view.rows {
                self.push(View::dense(list), 1, read, false);
            }
            self.push(View { rows: Rows::Dense, ..view }, cols, read, false);
        }
        if adds {
            self.push(View::dense(out), cols, Touched::Over(Extents::Rows), false);
        }
        self.write(View::dense(out), cols);
    }

    /// How many keys a query looks at depends on its position: the counts say it.
    fn cached_attention(&mut self, attention: &CachedAttention) {
        let CachedAttention { heads, kv_heads, width, q, q_pos, q_seq, k, v, present, out, .. } = *attention;
        self.read(q, heads * width);
        [q_pos, q_seq].into_iter().for_each(|view| self.read(view, 1));
        let rows = if present.is_some() { Touched::Kept } else { Touched::Seen };
        [k, v].into_iter().for_each(|slot| self.push(View::dense(slot), kv_heads * width, rows, false));
        present.into_iter().for_each(|slot| self.push(View::dense(slot), 1, Touched::Seen, false));
        self.write(View::dense(out), heads * width);
    }

    fn rowwise(&mut self, rowwise: &Rowwise) {
        match *rowwise {
            Rowwise::Map { cols, ref program } => self.program(program, cols),
            Rowwise::Norm { kind, cols, groups, x, gain, out, .. } => {
                let width = cols / groups.max(1);
                self.read(x, cols);
                self.whole(gain, width);
                if let NormKind::Layer { bias } = kind {
                    self.whole(bias, width);
                }
                self.write(View::dense(out), cols);
            }
            Rowwise::RowScale { cols, x, out, .. } => {
                self.read(x, cols);
                self.write(View::dense(out), 1);
            }
            Rowwise::Choose { n, choice, logits, bias, replay, out } => {
                self.read(logits, n);
                if let Some(Replay { use_forced, choices }) = replay {
                    self.whole(use_forced, 1);
                    self.read(choices, choice.k);
                }
                bias.into_iter().for_each(|bias| self.whole(bias, n));
                self.write(View::dense(out), 2 * choice.k);
            }
            Rowwise::Limit(limit) => self.limit_choices(&limit),
            Rowwise::Embed { cols, ids, table, out, .. } => {
                self.read(ids, 1);
                self.read(View::dense(table), cols);
                self.write(View::dense(out), cols);
            }
            Rowwise::Rope { heads, width, turned, x, positions, cos, sin, out } => {
                self.read(x, heads * width);
                self.read(positions, 1);
                [cos, sin]
                    .into_iter()
                    .for_each(|table| self.read(View::dense(table), turned.unwrap_or(width) / 2));
                self.write(View::dense(out), heads * width);
            }
        }
    }

    /// Each row once: those that others look at are at hand by then.
    fn limit_choices(&mut self, limit: &Limit) {
        let Limit { k, index, ranks, positions, sequences, keep, out, .. } = *limit;
        std::iter::once(index).chain(ranks).for_each(|view| self.read(view, k));
        [positions, sequences].into_iter().for_each(|view| self.read(view, 1));
        if let KeepChoices::Left { before, pages, present, .. } = keep {
            // How many tokens of a group came before is not known here: one is counted for each row.
            self.push(View::dense(before), k, Touched::Placed, false);
            let columns = std::iter::once(pages).chain(present);
            columns.for_each(|slot| self.push(View::dense(slot), 1, Touched::Placed, false));
        }
        if let KeepChoices::Share { extent, positions, sequences, .. } = keep {
            if let Extent::Counted { count, .. } = extent {
                self.whole(Slot(count), 1);
            }
            [positions, sequences].into_iter().for_each(|view| self.keys(view, 1));
        }
        self.write(View::dense(out), k);
    }

    fn compact(&mut self, compact: &Compact) {
        match compact.select {
            Select::AtLeast { scores, .. } => self.read(scores, 1),
            Select::Random { ids, sequences, .. } => {
                std::iter::once(ids).chain(sequences).for_each(|view| self.read(view, 1));
            }
            Select::NotIn(mask) => self.read(View::dense(mask), 1),
            Select::WithFirst { chosen, positions, .. } => {
                self.read(View::dense(chosen), 1);
                self.read(positions, 1);
            }
            Select::InBoth(masks) => masks.into_iter().for_each(|mask| self.read(View::dense(mask), 1)),
            Select::Ranked(ranked) => self.ranked(&ranked),
        }
        self.whole(compact.use_forced, 1);
        self.read(View::dense(compact.forced), 1);
        self.push(View::dense(compact.rows), 1, Touched::Counted(compact.count), true);
        self.write(View::dense(compact.mask), 1);
        self.push(View::dense(compact.count), 1, Touched::Whole, true);
    }

    /// How many tokens share a row of the tables is not known here: one is counted for each.
    fn pending(&mut self, pending: &Pending) {
        let Pending { executed, positions, sequences, pages, pending, router, rows, count } = *pending;
        self.read(View::dense(executed), 1);
        [positions, sequences].into_iter().for_each(|view| self.read(view, 1));
        self.push(View::dense(pages), 1, Touched::Placed, false);
        self.push(View { col: router, ..View::dense(pending) }, 1, Touched::Placed, false);
        self.push(View::dense(rows), 1, Touched::Counted(count), true);
        self.push(View::dense(count), 1, Touched::Whole, true);
    }

    fn along(&mut self, along: &Along) {
        match *along {
            Along::Mean { cols, x, sequences, out } => {
                self.read(x, cols);
                self.read(sequences, 1);
                self.write(View::dense(out), cols);
            }
            Along::Conv(ref conv) => self.conv(conv),
        }
    }

    /// Each input once: those that other rows look at are at hand by then.
    fn conv(&mut self, conv: &Conv) {
        let Conv { cols, filters, positions, sequences, inputs, out, .. } = *conv;
        self.whole(filters, cols);
        [positions, sequences].into_iter().for_each(|view| self.read(view, 1));
        match inputs {
            Inputs::Rows { extent, x, positions, sequences } => {
                if let Extent::Counted { count, .. } = extent {
                    self.whole(Slot(count), 1);
                }
                self.keys(x, cols);
                [positions, sequences].into_iter().for_each(|view| self.keys(view, 1));
            }
            // How many of the inputs are of earlier steps is not known here: as many are counted as the step has rows.
            Inputs::Cached { cache, pages, present } => {
                self.push(View::dense(cache), cols, Touched::Placed, false);
                let columns = std::iter::once(pages).chain(present);
                columns.for_each(|slot| self.push(View::dense(slot), 1, Touched::Placed, false));
            }
        }
        self.write(View::dense(out), cols);
    }

    fn update(&mut self, update: &Update) {
        match *update {
            Update::StoreRows { cols, rows, places, cache } => {
                self.read(rows, cols);
                self.read(places, 1);
                self.push(View::dense(cache), cols, Touched::Placed, true);
            }
            Update::AddRows { cols, x, sum } => {
                self.read(x, cols);
                self.whole(sum, cols);
                self.push(View::dense(sum), cols, Touched::Whole, true);
            }
        }
    }

    fn ranked(&mut self, ranked: &Ranked) {
        if let Candidates::Masked(mask) = ranked.among {
            self.read(View::dense(mask), 1);
        }
        ranked.sequences.into_iter().for_each(|sequences| self.read(sequences, 1));
        if let Segment::Group { positions, .. } = ranked.segment {
            self.read(positions, 1);
        }
        if let RankOrder::Score(scores) = ranked.order {
            self.read(scores, 1);
        }
        if let Keep::Left { before, pages, .. } = ranked.keep {
            // How many decisions of a group came before is not known here: one is counted for each row.
            [before, pages]
                .into_iter()
                .for_each(|slot| self.push(View::dense(slot), 1, Touched::Placed, false));
        }
    }
}

#[cfg(test)]
mod tests;
