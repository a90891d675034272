//! Which ops share a kernel.
//!
//! Every needed value is one of: a constant or input; a view (`gather` or `slice` of what lies in memory); a result
//! of a group, which lies in memory; or a value inside a group, which never does. A group is one step (two for a
//! scatter that has to copy its base first).
//!
//! A value joins the group of its users only if all of them are in it. So a group is left only by its results, and
//! contracting groups makes no cycle: with one result because a cycle of groups would be one of values, with several
//! because groups join only if neither needs the other, whatever joined before.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use skipc_ir::text::Numbering;
use skipc_ir::{Elem, Graph, Op, Training, Trait, Value, port};

use crate::error::PlanError;
use crate::op_kind;
use crate::op_kind::{Elementwise, OpKind, Route, Single, Update, View};
use crate::uses::Uses;

/// Pointwise ops that one kernel does, at most: what keeps the values of an epilogue in registers. Not measured; an
/// epilogue of real models has at most six.
const MAX_FUSED: usize = 32;

/// Matmuls of one operand in a kernel, at most: queries, keys, values and scores are four. It bounds the parameters of
/// a kernel.
const MAX_MATMULS: usize = 6;

/// Columns of which a head has to be a divisor for a rotary embedding to be part of a matmul: what the tiles of every
/// backend hold.
const TURNED_COLS: u32 = 128;

/// What a group is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Matmuls of one operand, each with all that is done to its sums.
    Gemm(Vec<MatmulPart>),
    /// Pointwise ops.
    Map,
    /// A view that has to be dense: its rows and columns are copied.
    Copy,
    /// The logits, if they lie elsewhere or in another type: copied to where the host reads them.
    Logits,
    /// One op that is a kernel of its own.
    Single(Single),
    /// A token set.
    Route(Route),
    /// The next value of a state.
    Update(Update),
    /// A rotary embedding that is a kernel of its own.
    Rope(op_kind::Rope),
}

/// Columns of a matmul kernel, with all that is done to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MatmulPart {
    /// Matmuls or router logits of one operand, operands before users.
    pub(crate) sums: Vec<Value>,
    /// The values that it computes, operands before users.
    pub(crate) values: Vec<Value>,
    /// The value that leaves it.
    pub(crate) result: Value,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Backing {
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
            if graph.result(&port::Role::Logits) == Some(*value) {
                ctx.logits(*value);
            }
            let is_shown = graph
                .roles(*value)
                .any(|role| matches!(role, port::Role::Result { .. } | port::Role::Choices { .. }));
            if graph.ty(*value).is_state() || is_shown {
                // What a step leaves is made whether another value is made of it or not.
                ctx.wanted[value.index()] = true;
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
            ctx.join_matmuls();
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
    pub(crate) fn backing(&self, graph: &Graph, value: Value) -> Backing {
        walk(graph, Backing { base: value, set: None, col: 0 }, |at| self.copied[at.index()])
    }

    /// What is copied to make a view dense.
    pub(crate) fn copied_backing(&self, graph: &Graph, value: Value) -> Backing {
        walk(graph, Backing { base: value, set: None, col: 0 }, |at| at != value && self.copied[at.index()])
    }
}

impl MatmulPart {
    /// Whether each segment of a partition has weights of its own.
    pub(crate) fn is_grouped(&self, graph: &Graph) -> bool {
        self.sums.iter().any(|sum| matches!(graph.op(*sum), Op::GroupedMatmul {}))
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
        let last = self.last().filter(|_| self.work != Work::Logits);
        last.filter(|value| matches!(graph.op(*value), Op::Scatter {}))
    }
}

fn is_int((elem, _): (Elem, &[skipc_ir::Dim])) -> bool {
    elem == Elem::Int
}

/// Follows slices and at most one gather to what lies in memory.
fn walk(graph: &Graph, mut backing: Backing, is_dense: impl Fn(Value) -> bool) -> Backing {
    while !is_dense(backing.base) {
        let OpKind::View(view) = OpKind::of(graph.op(backing.base)) else { break };
        let operands = graph.operands(backing.base);
        match view {
            View::Columns { start } => backing.col += start,
            View::Rows if backing.set.is_some() => break,
            View::Rows => backing.set = operands.get(1).copied(),
        }
        let Some(x) = operands.first() else { break };
        backing.base = *x;
    }
    backing
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
        let backing = self.groups.backing(self.graph, value);
        self.want_backing(backing);
    }

    fn want_backing(&mut self, backing: Backing) {
        if OpKind::of(self.graph.op(backing.base)) == OpKind::View(View::Rows) {
            // Rows of a set of rows of a set: the inner rows are copied.
            self.groups.copied[backing.base.index()] = true;
        }
        self.wanted[backing.base.index()] = true;
        backing.set.into_iter().for_each(|set| self.wanted[set.index()] = true);
    }

    /// The value is read densely, from its first column on.
    fn want_dense(&mut self, value: Value) {
        if matches!(OpKind::of(self.graph.op(value)), OpKind::View(_)) {
            self.groups.copied[value.index()] = true;
        }
        self.wanted[value.index()] = true;
    }

    fn logits(&mut self, value: Value) {
        let op = self.graph.op(value);
        if matches!(OpKind::of(op), OpKind::Elementwise(_) | OpKind::Matmul(op_kind::Matmul::Plain)) {
            self.wanted[value.index()] = true;
        } else {
            self.want(value);
            self.groups.list.push(Group { work: Work::Logits, results: Vec::new(), values: vec![value] });
        }
    }

    fn group(&mut self, value: Value) {
        let operands = self.graph.operands(value);
        match OpKind::of(self.graph.op(value)) {
            OpKind::Input | OpKind::Constant(_) | OpKind::Parameter | OpKind::Decision(_) => {}
            OpKind::View(_) => {
                let backing = self.groups.copied_backing(self.graph, value);
                self.want_backing(backing);
                self.single(Work::Copy, value);
            }
            OpKind::Rope(rope) => match self.turned_matmul(value) {
                Some(group) => self.groups.list.push(group),
                None => {
                    operands.iter().for_each(|operand| self.want(*operand));
                    self.single(Work::Rope(rope), value);
                }
            },
            OpKind::Matmul(_) | OpKind::Elementwise(_) | OpKind::Scatter => self.expression(value),
            OpKind::Single(single @ Single::Attention { .. }) => {
                operands.iter().take(3).for_each(|operand| self.want_dense(*operand));
                operands.iter().skip(3).for_each(|operand| self.want(*operand));
                self.single(Work::Single(single), value);
            }
            OpKind::Single(single @ Single::CachedAttention { .. }) => {
                operands.iter().take(1).for_each(|operand| self.want_dense(*operand));
                operands.iter().skip(1).for_each(|operand| self.want(*operand));
                self.single(Work::Single(single), value);
            }
            // Of these only the rows are counted.
            OpKind::Single(single @ Single::Training(Training::ZerosLike {} | Training::SetSize {})) => {
                self.single(Work::Single(single), value);
            }
            OpKind::Single(single) => {
                operands.iter().for_each(|operand| self.want(*operand));
                self.single(Work::Single(single), value);
            }
            OpKind::Route(route) => {
                operands.iter().for_each(|operand| self.want(*operand));
                self.single(Work::Route(route), value);
            }
            OpKind::Update(update) => match self.own_gradient(value) {
                Some(gradient) => {
                    let read = operands.first().copied().into_iter().chain(self.graph.operands(gradient));
                    read.for_each(|operand| self.want(operand));
                    let values = vec![gradient, value];
                    self.groups.list.push(Group { work: Work::Update(update), results: vec![value], values });
                }
                None => {
                    let mut values = vec![value];
                    self.averaged(value, &mut values);
                    let computed = values.clone();
                    for value in &computed {
                        let read = self.graph.operands(*value);
                        let read = read.into_iter().filter(|operand| !computed.contains(operand));
                        read.for_each(|operand| self.want(operand));
                    }
                    values.reverse();
                    self.groups.list.push(Group { work: Work::Update(update), results: vec![value], values });
                }
            },
        }
    }

    /// What the kernel of a moving average computes of the gradient itself: it costs less than to write and read it. Users
    /// first.
    fn averaged(&self, average: Value, values: &mut Vec<Value>) {
        let Op::Training(Training::MovingAverage {}) = self.graph.op(average) else { return };
        let mut x = self.graph.operands(average).get(1).copied();
        while let Some(value) = x.filter(|value| self.fuse && !self.wanted[value.index()]) {
            let Op::Training(Training::Squares { .. } | Training::ReadScaled {}) = self.graph.op(value)
            else {
                return;
            };
            values.push(value);
            x = self.graph.operands(value).first().copied();
        }
    }

    /// The gradient of a weight that is added to a state and nothing else: the kernel that sums it adds it there.
    fn own_gradient(&self, value: Value) -> Option<Value> {
        let Op::Training(Training::Accumulate {}) = self.graph.op(value) else { return None };
        let gradient = self.graph.operands(value).get(1).copied()?;
        let is_gradient = matches!(self.graph.op(gradient), Op::Training(Training::WeightGradient {}));
        let is_own = self.uses.users(self.graph, gradient).len() == 1
            && !self.uses.is_result(gradient)
            && !self.wanted[gradient.index()];
        (self.fuse && is_gradient && is_own).then_some(gradient)
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
        group.sums.reverse();
        let values: Vec<Value> = group.members.into_iter().map(|(_, value)| value).collect();
        let work = match group.sums.is_empty() {
            false => Work::Gemm(vec![MatmulPart { sums: group.sums, values: values.clone(), result: root }]),
            true => Work::Map,
        };
        self.groups.list.push(Group { work, results: vec![root], values });
    }

    /// Puts a value into the group; returns the operands that may follow it.
    fn expand(&mut self, value: Value, group: &mut Expression) -> Vec<Value> {
        let operands = self.graph.operands(value);
        let nth = |idx: usize| operands.get(idx).copied().into_iter();
        match OpKind::of(self.graph.op(value)) {
            OpKind::Matmul(_) => {
                group.sums.push(value);
                nth(0).for_each(|x| self.want(x));
                if OpKind::of(self.graph.op(value)) == OpKind::Matmul(op_kind::Matmul::Grouped) {
                    nth(2).for_each(|partition| self.want(partition));
                }
                Vec::new()
            }
            OpKind::Scatter => {
                nth(0).for_each(|base| self.want_dense(base));
                nth(2).for_each(|set| self.want(set));
                nth(1).collect()
            }
            OpKind::Elementwise(Elementwise::Bias) => nth(0).collect(),
            OpKind::Elementwise(Elementwise::ForceFirst { .. }) => {
                nth(1).for_each(|positions| self.want(positions));
                nth(0).collect()
            }
            OpKind::Elementwise(Elementwise::ClassToken) => {
                nth(2).for_each(|positions| self.want(positions));
                nth(0).collect()
            }
            // How many rows there are is all that is taken of the other.
            OpKind::Elementwise(Elementwise::RepeatRow) => Vec::new(),
            OpKind::Elementwise(_) => operands.to_vec(),
            // Never in a group of several.
            OpKind::Input | OpKind::Constant(_) | OpKind::Parameter => Vec::new(),
            OpKind::View(_) | OpKind::Rope(_) => Vec::new(),
            OpKind::Single(_) | OpKind::Route(_) | OpKind::Update(_) | OpKind::Decision(_) => Vec::new(),
        }
    }

    fn joins(&self, value: Value, group: &Expression) -> bool {
        let role = OpKind::of(self.graph.op(value));
        let number = |user: &Value| (self.uses.number(*user), *user);
        if !self.fuse
            || group.members.len() >= MAX_FUSED
            || self.uses.is_result(value)
            // Such as the left operand of a matmul in the group.
            || self.wanted[value.index()]
            || !self.uses.users(self.graph, value).iter().all(|user| group.members.contains(&number(user)))
        {
            return false;
        }
        if self.graph.ty(value).cols() != group.width {
            // One number for a whole row, computed anew for every column: only where that costs next to nothing.
            return matches!(role, OpKind::Elementwise(function) if function.is_cheap());
        }
        match (role, group.sums.as_slice()) {
            (OpKind::Matmul(_), []) | (OpKind::Elementwise(_), _) => true,
            (OpKind::Matmul(_), [other]) => self.are_siblings(value, *other),
            (
                OpKind::Matmul(_)
                | OpKind::Input
                | OpKind::Constant(_)
                | OpKind::Parameter
                | OpKind::View(_)
                | OpKind::Rope(_),
                _,
            )
            | (
                OpKind::Scatter
                | OpKind::Single(_)
                | OpKind::Route(_)
                | OpKind::Update(_)
                | OpKind::Decision(_),
                _,
            ) => false,
        }
    }

    /// Whether two matmuls of one kind and width have the same left operand.
    fn are_siblings(&self, a: Value, b: Value) -> bool {
        // Router logits may be one part with others, but the weights of a part lie alike.
        let differs = |value| {
            let OpKind::Matmul(kind) = OpKind::of(self.graph.op(value)) else { return None };
            Some(match kind {
                op_kind::Matmul::Plain | op_kind::Matmul::RouterLogits => 0,
                op_kind::Matmul::Grouped => 1,
                op_kind::Matmul::Transposed => 2,
            })
        };
        self.graph.ty(a) == self.graph.ty(b)
            && differs(a) == differs(b)
            && self.graph.operands(a).first() == self.graph.operands(b).first()
    }

    /// A rotary embedding of all columns of a matmul whose rows may have been scaled: the epilogue finds both columns of a pair among
    /// the sums of one tile.
    fn turned_matmul(&mut self, rope: Value) -> Option<Group> {
        let graph = self.graph;
        let (Op::Rope { heads, turned: None, .. }, &[x, positions]) =
            (graph.op(rope), graph.operands(rope).as_slice())
        else {
            return None;
        };
        let width = graph.ty(rope).cols() / (*heads).max(1);
        if !self.fuse || width == 0 || !TURNED_COLS.is_multiple_of(width) {
            return None;
        }
        let (mut values, mut scales, mut next) = (vec![rope], Vec::new(), x);
        loop {
            let is_own = !self.uses.is_result(next)
                && !self.wanted[next.index()]
                && self.uses.users(graph, next).len() == 1;
            if !is_own {
                return None;
            }
            values.push(next);
            if let (Op::ScaleRows {}, &[scaled, scale]) = (graph.op(next), graph.operands(next).as_slice()) {
                scales.push(scale);
                next = scaled;
                continue;
            }
            let (Op::Matmul {}, &[operand, _]) = (graph.op(next), graph.operands(next).as_slice()) else {
                return None;
            };
            [positions, operand].into_iter().chain(scales).for_each(|value| self.want(value));
            values.reverse();
            let matmul = MatmulPart { sums: vec![next], values: values.clone(), result: rope };
            return Some(Group { work: Work::Gemm(vec![matmul]), results: vec![rope], values });
        }
    }

    /// Lets matmuls of one operand be one kernel: keys, values and the scores of a router. The rows are loaded once.
    fn join_matmuls(&mut self) {
        let mut in_turn: Vec<usize> =
            (0..self.groups.list.len()).filter(|idx| self.can_join(&self.groups.list[*idx])).collect();
        in_turn.sort_by_key(|idx| self.place(&self.groups.list[*idx]));
        let mut needs = Needs::new(self.graph, &self.groups);
        // The group that others may still join, by left operand.
        let mut open: BTreeMap<(Backing, u32), usize> = BTreeMap::new();
        for idx in in_turn {
            let Some(operand) = self.left_operand(&self.groups.list[idx]) else { continue };
            let known = open.get(&operand).copied();
            let Some(first) = known.filter(|first| self.has_room(*first) && needs.are_apart(*first, idx))
            else {
                open.insert(operand, idx);
                continue;
            };
            needs.join(first, idx);
            let group = self.groups.list[idx].clone();
            let joined = &mut self.groups.list[first];
            if let (Work::Gemm(matmuls), Work::Gemm(more)) = (&mut joined.work, group.work) {
                matmuls.extend(more);
            }
            joined.results.extend(group.results);
            joined.values.extend(group.values);
            joined.values.sort_unstable_by_key(|value| self.uses.number(*value));
        }
        let mut idx = 0;
        self.groups.list.retain(|_| {
            idx += 1;
            needs.stands_for_itself(idx - 1)
        });
    }

    /// Whether the group is a matmul with one weight for all rows whose result goes to a buffer of its own.
    fn can_join(&self, group: &Group) -> bool {
        matches!(&group.work, Work::Gemm(matmuls) if !matmuls.iter().any(|matmul| matmul.is_grouped(self.graph)))
            && group.scatter(self.graph).is_none()
            && !group.results.iter().any(|result| self.uses.is_result(*result))
    }

    /// Place in the graph of a group's first result.
    fn place(&self, group: &Group) -> usize {
        group.results.first().map_or(0, |result| self.uses.number(*result))
    }

    /// Where the left operand of a group of matmuls lies, and its columns.
    fn left_operand(&self, group: &Group) -> Option<(Backing, u32)> {
        let Work::Gemm(matmuls) = &group.work else { return None };
        let sum = matmuls.first()?.sums.first()?;
        let x = self.graph.operands(*sum).first().copied()?;
        Some((self.groups.backing(self.graph, x), self.graph.ty(x).cols()))
    }

    fn has_room(&self, group: usize) -> bool {
        matches!(&self.groups.list[group].work, Work::Gemm(matmuls) if matmuls.len() < MAX_MATMULS)
    }
}

/// Which group needs which, while groups join.
struct Needs {
    /// The group that each has become part of: itself, as long as it has not joined another.
    part_of: Vec<usize>,
    /// The groups whose results each reads.
    needs: Vec<Vec<usize>>,
}

impl Needs {
    fn new(graph: &Graph, groups: &Groups) -> Needs {
        let mut maker: BTreeMap<Value, usize> = BTreeMap::new();
        for (idx, group) in groups.list.iter().enumerate() {
            maker.extend(group.results.iter().map(|result| (*result, idx)));
        }
        let needs = |group: &Group| {
            let sources = group.leaves(graph).into_iter().map(|leaf| groups.backing(graph, leaf));
            let read = sources.flat_map(|backing| [Some(backing.base), backing.set]);
            read.flatten().filter_map(|value| maker.get(&value).copied()).collect()
        };
        Needs { part_of: (0..groups.list.len()).collect(), needs: groups.list.iter().map(needs).collect() }
    }

    /// Whether neither group needs the other, so that one kernel can do the work of both.
    fn are_apart(&self, a: usize, b: usize) -> bool {
        !self.reaches(a, b) && !self.reaches(b, a)
    }

    fn reaches(&self, from: usize, wanted: usize) -> bool {
        let mut seen = vec![false; self.needs.len()];
        let mut waiting = vec![from];
        while let Some(group) = waiting.pop() {
            for needed in self.needs[group].iter().map(|needed| self.part_of[*needed]) {
                if needed == wanted {
                    return true;
                }
                if !std::mem::replace(&mut seen[needed], true) {
                    waiting.push(needed);
                }
            }
        }
        false
    }

    fn join(&mut self, first: usize, second: usize) {
        let more = std::mem::take(&mut self.needs[second]);
        self.needs[first].extend(more);
        self.part_of[second] = first;
    }

    fn stands_for_itself(&self, group: usize) -> bool {
        self.part_of[group] == group
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
