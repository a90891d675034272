//! Which ops share a kernel.
//!
//! Every needed value is one of: a constant or input; a view (`gather` or `slice` of what lies in memory); a result
//! of a group, which lies in memory; or a value inside a group, which never does. A group is one step (two for a
//! scatter that has to copy its base first).
//!
//! A value joins the group of its users only if all of them are in it. So a group is left only by its results, and
//! contracting groups makes no cycle: with one result because a cycle of groups would be one of values, with the two
//! results of a pair because both depend on the same values from outside: what depends on one result and is an operand
//! of the other would be an operand of the first, too.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use skipc_ir::text::Numbering;
use skipc_ir::{Elem, Graph, Op, Trait, Value};

use crate::error::PlanError;
use crate::uses::Uses;

/// Pointwise ops that one kernel does, at most: what keeps the values of an epilogue in registers. Not measured; an
/// epilogue of real models has at most six.
const MAX_FUSED: usize = 32;

/// What a group is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// A matmul, or two of one operand, with all that is done to the sums.
    Gemm {
        /// The first matmul.
        first: Value,
        /// The second, if there is one.
        second: Option<Value>,
    },
    /// Pointwise ops.
    Map,
    /// A view that has to be dense: its rows and columns are copied.
    Copy,
    /// The logits, if they lie elsewhere or in another type: copied to where the host reads them.
    Logits,
    /// One op that is a kernel of its own.
    Single,
}

/// Ops that share a kernel.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// What it is.
    pub(crate) work: Work,
    /// The values that leave it, operands before users.
    pub(crate) results: Vec<Value>,
    /// The values that it computes, operands before users.
    pub(crate) values: Vec<Value>,
}

/// Where the elements of a value lie: rows and columns of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// What lies in memory.
    pub(crate) base: Value,
    /// The set whose rows of it are meant; `None` for all.
    pub(crate) set: Option<Value>,
    /// The first column that is meant.
    pub(crate) col: u32,
}

/// All groups.
pub(crate) struct Groups {
    /// In order of their last values in the graph, last first; see `order` for the order of steps.
    pub(crate) list: Vec<Group>,
    /// The group that a value leaves, by [`Value::index`].
    maker: Vec<Option<usize>>,
    /// Views that are copied, by [`Value::index`].
    copied: Vec<bool>,
}

impl Groups {
    /// Forms the groups of all needed values.
    ///
    /// # Errors
    /// If a view of integers would have to be copied.
    pub(crate) fn new(
        graph: &Graph,
        uses: &Uses,
        numbering: &Numbering,
        fuse: bool,
    ) -> Result<Groups, PlanError> {
        let mut ctx = Ctx {
            graph,
            uses,
            fuse,
            wanted: vec![false; graph.bound()],
            groups: Groups {
                list: Vec::new(),
                maker: vec![None; graph.bound()],
                copied: vec![false; graph.bound()],
            },
        };
        for value in uses.order.iter().rev() {
            if graph.output("logits") == Some(*value) {
                ctx.logits(*value);
            }
            if let (Op::Executed {}, [set]) = (graph.op(*value), graph.operands(*value).as_slice()) {
                ctx.want(*set);
            }
            if !ctx.wanted[value.index()] {
                continue;
            }
            if ctx.groups.copied[value.index()] && graph.ty(*value).as_tensor().is_some_and(is_int) {
                let place = numbering.place(graph, *value);
                return Err(PlanError::Unsupported { what: "copy integers of a set of a set", place });
            }
            ctx.group(*value);
        }
        if fuse {
            ctx.pair_siblings();
        }
        let Groups { list, maker, .. } = &mut ctx.groups;
        for (idx, group) in list.iter().enumerate() {
            group.results.iter().for_each(|result| maker[result.index()] = Some(idx));
        }
        Ok(ctx.groups)
    }

    /// The group that the value leaves.
    pub(crate) fn maker(&self, value: Value) -> Option<usize> {
        self.maker[value.index()]
    }

    /// Where the elements of an operand lie.
    pub(crate) fn source(&self, graph: &Graph, value: Value) -> Source {
        walk(graph, Source { base: value, set: None, col: 0 }, |at| self.copied[at.index()])
    }

    /// What is copied to make a view dense.
    pub(crate) fn copied_source(&self, graph: &Graph, value: Value) -> Source {
        walk(graph, Source { base: value, set: None, col: 0 }, |at| at != value && self.copied[at.index()])
    }
}

impl Group {
    /// The values from outside that it uses, but the weights.
    pub(crate) fn leaves(&self, graph: &Graph) -> Vec<Value> {
        let mut leaves: Vec<Value> = if self.work == Work::Logits {
            self.values.clone()
        } else {
            self.values.iter().flat_map(|value| graph.operands(*value)).collect()
        };
        if self.work != Work::Logits {
            leaves.retain(|leaf| !self.values.contains(leaf));
        }
        leaves.retain(|leaf| !graph.op(*leaf).has(Trait::Constant));
        leaves.sort_unstable();
        leaves.dedup();
        leaves
    }

    /// The value that stands for the group: its last.
    pub(crate) fn last(&self) -> Option<Value> {
        self.values.last().copied()
    }

    /// The scatter at its end.
    pub(crate) fn scatter(&self, graph: &Graph) -> Option<Value> {
        self.last().filter(|value| matches!(graph.op(*value), Op::Scatter {}))
    }
}

/// Whether the op is a function of elements, so that it can be an instruction of a pointwise program.
pub(crate) fn is_elementwise(op: &Op) -> bool {
    op.has(Trait::Pointwise)
}

fn is_int((elem, _): (Elem, &[skipc_ir::Dim])) -> bool {
    elem == Elem::Int
}

/// Follows slices and at most one gather to what lies in memory.
fn walk(graph: &Graph, mut source: Source, is_dense: impl Fn(Value) -> bool) -> Source {
    while !is_dense(source.base) {
        let operands = graph.operands(source.base);
        match (graph.op(source.base), operands.as_slice()) {
            (Op::Slice { start, .. }, [x]) => {
                source.col += start;
                source.base = *x;
            }
            (Op::Gather {}, [x, set]) if source.set.is_none() => {
                source.set = Some(*set);
                source.base = *x;
            }
            _ => break,
        }
    }
    source
}

struct Ctx<'a> {
    graph: &'a Graph,
    uses: &'a Uses,
    fuse: bool,
    /// Values that have to lie in memory.
    wanted: Vec<bool>,
    groups: Groups,
}

impl Ctx<'_> {
    /// The value is read through a view.
    fn want(&mut self, value: Value) {
        let source = self.groups.source(self.graph, value);
        self.want_source(source);
    }

    fn want_source(&mut self, source: Source) {
        if matches!(self.graph.op(source.base), Op::Gather {}) {
            // Rows of a set of rows of a set: the inner rows are copied.
            self.groups.copied[source.base.index()] = true;
        }
        self.wanted[source.base.index()] = true;
        source.set.into_iter().for_each(|set| self.wanted[set.index()] = true);
    }

    /// The value is read densely, from its first column on.
    fn want_dense(&mut self, value: Value) {
        if matches!(self.graph.op(value), Op::Gather {} | Op::Slice { .. }) {
            self.groups.copied[value.index()] = true;
        }
        self.wanted[value.index()] = true;
    }

    fn logits(&mut self, value: Value) {
        let op = self.graph.op(value);
        if is_elementwise(op) || matches!(op, Op::Matmul {}) {
            self.wanted[value.index()] = true;
        } else {
            self.want(value);
            self.groups.list.push(Group { work: Work::Logits, results: Vec::new(), values: vec![value] });
        }
    }

    fn group(&mut self, value: Value) {
        let operands = self.graph.operands(value);
        match self.graph.op(value) {
            Op::Input { .. }
            | Op::Weight { .. }
            | Op::Concat {}
            | Op::FoldGain {}
            | Op::Executed {}
            | Op::FillMask { .. } => {}
            Op::Gather {} | Op::Slice { .. } => {
                let source = self.groups.copied_source(self.graph, value);
                self.want_source(source);
                self.single(Work::Copy, value);
            }
            Op::Matmul {}
            | Op::AddBias {}
            | Op::Gelu {}
            | Op::Relu {}
            | Op::Silu {}
            | Op::Sigmoid {}
            | Op::OneMinus {}
            | Op::Scale { .. }
            | Op::Add {}
            | Op::Sub {}
            | Op::Mul {}
            | Op::ScaleRows {}
            | Op::Scatter {} => self.expression(value),
            Op::Attention { .. } => {
                operands.iter().take(3).for_each(|operand| self.want_dense(*operand));
                operands.iter().skip(3).for_each(|operand| self.want(*operand));
                self.single(Work::Single, value);
            }
            Op::Embed {}
            | Op::RouterLogits {}
            | Op::RmsNorm { .. }
            | Op::LayerNorm { .. }
            | Op::InvRms { .. }
            | Op::Rope { .. }
            | Op::Route { .. }
            | Op::RouteRandom { .. }
            | Op::RouteTopK { .. }
            | Op::LimitFirst { .. }
            | Op::LimitBest { .. } => {
                operands.iter().for_each(|operand| self.want(*operand));
                self.single(Work::Single, value);
            }
        }
    }

    fn single(&mut self, work: Work, value: Value) {
        self.groups.list.push(Group { work, results: vec![value], values: vec![value] });
    }

    /// The group of a pointwise op, matmul or scatter: from the result towards the operands, latest first, so that
    /// all users of a value are known to be in the group or not when its turn comes.
    fn expression(&mut self, root: Value) {
        let graph = self.graph;
        let mut group =
            Expression { width: graph.ty(root).cols(), members: BTreeSet::new(), sums: Vec::new() };
        let mut waiting = BinaryHeap::new();
        let mut seen = BTreeSet::from([root]);
        let mut next = Some(root);
        while let Some(value) = next {
            if value == root || self.joins(value, &group) {
                group.members.insert((self.uses.number(value), value));
                for operand in self.expand(value, &mut group) {
                    if seen.insert(operand) {
                        waiting.push((self.uses.number(operand), operand));
                    }
                }
            } else {
                self.want(value);
            }
            next = waiting.pop().map(|(_, value)| value);
        }
        // The sums were found from the last to the first.
        let work = match group.sums.pop() {
            Some(first) => Work::Gemm { first, second: group.sums.pop() },
            None => Work::Map,
        };
        let values = group.members.into_iter().map(|(_, value)| value).collect();
        self.groups.list.push(Group { work, results: vec![root], values });
    }

    /// Puts a value into the group; returns the operands that may follow it.
    fn expand(&mut self, value: Value, group: &mut Expression) -> Vec<Value> {
        let operands = self.graph.operands(value);
        match (self.graph.op(value), operands.as_slice()) {
            (Op::Matmul {}, [x, _]) => {
                group.sums.push(value);
                self.want(*x);
                Vec::new()
            }
            (Op::Scatter {}, [base, rows, set]) => {
                self.want_dense(*base);
                self.want(*set);
                vec![*rows]
            }
            (Op::AddBias {}, [x, _]) => vec![*x],
            _ => operands.to_vec(),
        }
    }

    fn joins(&self, value: Value, group: &Expression) -> bool {
        let op = self.graph.op(value);
        let number = |user: &Value| (self.uses.number(*user), *user);
        if !self.fuse
            || group.members.len() >= MAX_FUSED
            || self.uses.is_output(value)
            // Such as the left operand of a matmul in the group.
            || self.wanted[value.index()]
            || !self.uses.users(self.graph, value).iter().all(|user| group.members.contains(&number(user)))
        {
            return false;
        }
        if self.graph.ty(value).cols() != group.width {
            // One number for a whole row, computed anew for every column: only where that costs next to nothing.
            return matches!(
                op,
                Op::OneMinus {} | Op::Relu {} | Op::Scale { .. } | Op::Add {} | Op::Sub {} | Op::Mul {}
            );
        }
        match (op, group.sums.as_slice()) {
            (Op::Matmul {}, []) => true,
            (Op::Matmul {}, [other]) => self.are_siblings(value, *other),
            _ => is_elementwise(op),
        }
    }

    /// Whether two matmuls of one width have the same left operand.
    fn are_siblings(&self, a: Value, b: Value) -> bool {
        self.graph.ty(a).cols() == self.graph.ty(b).cols()
            && self.graph.operands(a).first() == self.graph.operands(b).first()
    }

    /// Lets two matmuls of one operand, each with nothing else from outside or with the same (the row scale of a norm),
    /// be one kernel with two results: keys and values. The rows are loaded once.
    fn pair_siblings(&mut self) {
        // The group that waits for a second one, by left operand, columns and all that it reads.
        let mut open: BTreeMap<(Option<Value>, u32, Vec<Value>), usize> = BTreeMap::new();
        let mut gone = BTreeSet::new();
        for idx in 0..self.groups.list.len() {
            let group = &self.groups.list[idx];
            let Some(sum) = self.lone_sum(group) else { continue };
            let leaves = group.leaves(self.graph);
            let key = (self.graph.operands(sum).first().copied(), self.graph.ty(sum).cols(), leaves);
            // The list runs from last to first, so the other group is the later one.
            let Some(later) = open.remove(&key) else {
                open.insert(key, idx);
                continue;
            };
            let mut pair = self.groups.list[idx].clone();
            let other = &self.groups.list[later];
            pair.results.extend_from_slice(&other.results);
            pair.values.extend_from_slice(&other.values);
            pair.values.sort_unstable_by_key(|value| self.uses.number(*value));
            if let (Work::Gemm { second, .. }, Work::Gemm { first, .. }) = (&mut pair.work, &other.work) {
                *second = Some(*first);
            }
            // The pair is needed where the earlier of the two was.
            self.groups.list[idx] = pair;
            gone.insert(later);
        }
        let mut idx = 0;
        self.groups.list.retain(|_| {
            idx += 1;
            !gone.contains(&(idx - 1))
        });
    }

    /// The matmul of a group that has one sum and one result, if the result is as wide as the sum.
    fn lone_sum(&self, group: &Group) -> Option<Value> {
        let Work::Gemm { first: sum, second } = &group.work else { return None };
        let is_lone = second.is_none()
            && group.results.len() == 1
            && group.scatter(self.graph).is_none()
            && !group.results.iter().any(|result| self.uses.is_output(*result));
        is_lone.then_some(*sum)
    }
}

/// A group while it grows.
struct Expression {
    /// Columns of its elements; values with one column instead are numbers for a whole row.
    width: u32,
    members: BTreeSet<(usize, Value)>,
    /// Matmuls, last first.
    sums: Vec<Value>,
}
