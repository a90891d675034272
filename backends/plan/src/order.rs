//! In which order the groups run, and which scatters write over their base.
//!
//! A scatter shares the buffer of its base if every other reader of the base can run before it. That such a reader
//! does is an edge of its own beside the edges of data, and one that would close a cycle is not made: then the base
//! is copied, but where the one user of the scatter replaces all other rows: a scatter over the complement of its set. What looks at a state runs before what updates it in its place. Among the groups that could run next, the one that comes first in the graph does.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use skipc_ir::{Graph, Op, Trait, Value};

use crate::fuse::{Group, Groups, Work};
use crate::op_kind::OpKind;
use crate::uses::Uses;

/// The steps' order.
pub(crate) struct Order {
    /// Indices of groups.
    pub(crate) groups: Vec<usize>,
    /// Scatters that write over their base.
    pub(crate) in_place: BTreeSet<Value>,
    /// Scatters of whose base nothing is left: what uses them writes all rows that they do not.
    pub(crate) covered: BTreeSet<Value>,
}

impl Order {
    /// Orders the groups.
    pub(crate) fn new(graph: &Graph, uses: &Uses, groups: &Groups) -> Order {
        let mut edges = Edges::new(graph, uses, groups);
        edges.read_states_first(graph, groups);
        let mut in_turn: Vec<usize> = (0..groups.list.len()).collect();
        in_turn.sort_by_key(|idx| (edges.place[*idx], *idx));
        let mut in_place = BTreeSet::new();
        for idx in in_turn {
            let Some(scatter) = groups.list[idx].scatter(graph) else { continue };
            let Some(base) = base_of(graph, groups, scatter) else { continue };
            let others: Vec<usize> = edges.readers(base).filter(|reader| *reader != idx).collect();
            if uses.is_result(base)
                || groups.maker(base).is_none()
                || !reads_only_what_it_writes(graph, groups, idx, base)
                || edges.reaches_any(idx, &others)
            {
                continue;
            }
            others.into_iter().for_each(|reader| edges.add(reader, idx));
            in_place.insert(scatter);
        }
        let scatters = groups.list.iter().filter_map(|group| group.scatter(graph));
        let covered = scatters.filter(|scatter| is_covered(graph, uses, &in_place, *scatter)).collect();
        Order { groups: edges.sort(), in_place, covered }
    }
}

/// Whether the one user of a scatter is one over the complement of its set, in its place.
fn is_covered(graph: &Graph, uses: &Uses, in_place: &BTreeSet<Value>, scatter: Value) -> bool {
    if in_place.contains(&scatter) || uses.is_result(scatter) {
        return false;
    }
    let [user] = uses.users(graph, scatter)[..] else { return false };
    let (own, of_user) = (graph.operands(scatter), graph.operands(user));
    match (graph.op(user), own.as_slice(), of_user.as_slice()) {
        (Op::Scatter {}, [_, _, set], [base, rows, other]) => {
            *base == scatter && *rows != scatter && in_place.contains(&user) && are_all(graph, *set, *other)
        }
        _ => false,
    }
}

/// Whether one of two sets is the complement of the other: they are disjoint, and together all rows.
fn are_all(graph: &Graph, a: Value, b: Value) -> bool {
    let is_rest =
        |rest: Value, of| matches!(graph.op(rest), Op::Complement { .. }) && graph.operands(rest)[..] == [of];
    is_rest(a, b) || is_rest(b, a)
}

/// What a scatter writes over or copies.
fn base_of(graph: &Graph, groups: &Groups, scatter: Value) -> Option<Value> {
    let base = *graph.operands(scatter).first()?;
    Some(groups.backing(graph, base).base)
}

/// Whether the group of a scatter reads its base only element by element where it writes, so that one tile does both.
fn reads_only_what_it_writes(graph: &Graph, groups: &Groups, idx: usize, base: Value) -> bool {
    let group = &groups.list[idx];
    let Some(scatter) = group.scatter(graph) else { return false };
    let set = graph.operands(scatter).last().copied();
    let width = graph.ty(scatter).cols();
    for value in &group.values {
        let op = graph.op(*value);
        for (operand_idx, operand) in graph.operands(*value).into_iter().enumerate() {
            let source = groups.backing(graph, operand);
            let is_base_operand = matches!(op, Op::Scatter {}) && operand_idx == 0;
            if group.values.contains(&operand) || source.base != base || is_base_operand {
                continue;
            }
            let is_same = source.set == set && source.col == 0 && graph.ty(operand).cols() == width;
            if !is_same || !OpKind::of(op).reads_by_element() {
                return false;
            }
        }
    }
    true
}

/// Which group runs before which.
struct Edges {
    /// Place in the graph of each group's first result.
    place: Vec<usize>,
    after: Vec<BTreeSet<usize>>,
    n_before: Vec<usize>,
    readers: BTreeMap<Value, BTreeSet<usize>>,
    /// Whether an edge leads to an earlier place.
    leads_back: bool,
    /// How many walks there were, and the last in which each group was seen.
    n_walks: u32,
    seen_in: Vec<u32>,
}

impl Edges {
    fn new(graph: &Graph, uses: &Uses, groups: &Groups) -> Edges {
        let place = |group: &Group| {
            let first = group.results.first().or(group.values.last());
            first.map_or(0, |value| uses.number(*value))
        };
        let mut edges = Edges {
            place: groups.list.iter().map(place).collect(),
            leads_back: false,
            n_walks: 0,
            seen_in: vec![0; groups.list.len()],
            after: vec![BTreeSet::new(); groups.list.len()],
            n_before: vec![0; groups.list.len()],
            readers: BTreeMap::new(),
        };
        for (idx, group) in groups.list.iter().enumerate() {
            for leaf in group.leaves(graph) {
                let source = groups.backing(graph, leaf);
                edges.read(groups, idx, source.base);
                // The mask of a set is made together with it.
                if let (Op::Executed {}, [set]) =
                    (graph.op(source.base), graph.operands(source.base).as_slice())
                {
                    edges.read(groups, idx, *set);
                }
                source.set.into_iter().for_each(|set| edges.read(groups, idx, set));
            }
            debug_assert!(group.work == Work::Logits || !group.results.is_empty());
        }
        edges
    }

    fn read(&mut self, groups: &Groups, reader: usize, value: Value) {
        self.readers.entry(value).or_default().insert(reader);
        if let Some(maker) = groups.maker(value)
            && maker != reader
        {
            self.add(maker, reader);
        }
    }

    /// What looks at a value of a state runs before the group that puts the next one in its place. The verifier has seen
    /// that it can.
    fn read_states_first(&mut self, graph: &Graph, groups: &Groups) {
        for (idx, group) in groups.list.iter().enumerate() {
            let updates = |value: &&Value| graph.op(**value).has(Trait::UpdatesState);
            let Some(update) = group.values.iter().find(updates) else { continue };
            let Some(state) = graph.operands(*update).first().copied() else { continue };
            let readers: Vec<usize> = self.readers(state).filter(|reader| *reader != idx).collect();
            readers.into_iter().for_each(|reader| self.add(reader, idx));
        }
    }

    fn add(&mut self, before: usize, after: usize) {
        if self.after[before].insert(after) {
            self.n_before[after] += 1;
            self.leads_back |= self.place[before] > self.place[after];
        }
    }

    fn readers(&self, value: Value) -> impl Iterator<Item = usize> {
        self.readers.get(&value).into_iter().flatten().copied()
    }

    /// Whether one of the wanted groups has to run after this one.
    fn reaches_any(&mut self, from: usize, wanted: &[usize]) -> bool {
        let last = wanted.iter().map(|idx| self.place[*idx]).max().unwrap_or(0);
        self.n_walks += 1;
        let mut waiting = vec![from];
        while let Some(idx) = waiting.pop() {
            if wanted.contains(&idx) {
                return true;
            }
            // Data leads to later places only, so that most walks end where they begin.
            let is_passed = self.place[idx] > last && !self.leads_back;
            if !is_passed && std::mem::replace(&mut self.seen_in[idx], self.n_walks) != self.n_walks {
                waiting.extend(self.after[idx].iter().copied());
            }
        }
        false
    }

    fn sort(self) -> Vec<usize> {
        let Edges { place, after, mut n_before, .. } = self;
        let in_turn = |idx: usize| Reverse((place[idx], idx));
        let mut ready: BinaryHeap<Reverse<(usize, usize)>> =
            (0..after.len()).filter(|idx| n_before[*idx] == 0).map(in_turn).collect();
        let mut order = Vec::with_capacity(after.len());
        while let Some(Reverse((_, idx))) = ready.pop() {
            order.push(idx);
            for next in &after[idx] {
                n_before[*next] -= 1;
                if n_before[*next] == 0 {
                    ready.push(in_turn(*next));
                }
            }
        }
        order
    }
}
