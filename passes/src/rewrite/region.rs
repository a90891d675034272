//! Regions of a graph, each in a form that does not depend on names: equal layers are rewritten once.
//!
//! A graph is cut where all that follows depends on one value alone (and on inputs and constants): between blocks. No
//! rule looks across such a cut, but those that a larger region would pay for with a search that never ends.

use std::collections::BTreeSet;

use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;
use skipc_ir::{Dim, F64, Graph, Name, Op, Port, SetSym, Trait, Type, Value};
use smallvec::SmallVec;

use super::language::Head;

/// Nodes of a region, at least, but for the last of a graph: smaller ones have nothing to rewrite.
const MIN_NODES: usize = 3;

/// Nodes of a region, at most; what belongs to a larger one stays as it is. A block of the models in `models/` has 40.
const MAX_NODES: usize = 400;

/// A region without the names of its weights and sets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Region {
    /// Ops and operands, operands before users.
    pub(crate) nodes: Vec<(Head, SmallVec<[usize; 4]>)>,
    /// What is used outside.
    pub(crate) roots: Vec<usize>,
    /// Share of the tokens in each set.
    pub(crate) densities: Vec<F64>,
}

/// What stands in a graph for the nodes and names of a [`Region`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Occurrence {
    /// The value of each node.
    pub(crate) values: Vec<Value>,
    names: IndexSet<Name, FxBuildHasher>,
    sets: IndexSet<SetSym, FxBuildHasher>,
}

impl Occurrence {
    /// The op with the names of the graph.
    pub(crate) fn named(&self, op: &Op) -> Op {
        if let Op::Weight { name, shape } = op {
            let name = number(&name.0).and_then(|number| self.names.get_index(number)).unwrap_or(name);
            return Op::Weight { name: name.clone(), shape: shape.clone() };
        }
        if let Op::WeightStack { name, count, shape } = op {
            let unnamed = number(name.0.trim_end_matches(".*"));
            let name = unnamed.and_then(|number| self.names.get_index(number)).unwrap_or(name);
            return Op::WeightStack { name: name.clone(), count: *count, shape: shape.clone() };
        }
        if let Op::Input { port } = op {
            let mut port = port.clone();
            let names = self.sets.iter().enumerate().map(|(idx, set)| (SetSym(idx as u32), *set));
            port.ty.rename_sets(&names.collect());
            return Op::Input { port };
        }
        match op.opens().and_then(|set| self.sets.get_index(set.0 as usize)) {
            Some(set) => op.with_set(*set),
            None => op.clone(),
        }
    }
}

fn number(name: &str) -> Option<usize> {
    name.strip_prefix('w')?.parse().ok()
}

/// Whether every region may have the value in it: inputs and what is known at compile time.
fn is_everywhere(op: &Op) -> bool {
    op.has(Trait::Leaf) || op.has(Trait::Constant)
}

/// The regions of a graph, each as its values, operands before users. What no result depends on is in none.
pub(crate) fn regions(graph: &Graph) -> Vec<Vec<Value>> {
    let order = order(graph);
    let mut place = vec![None; graph.bound()];
    for (idx, value) in order.iter().enumerate() {
        place[value.index()] = Some(idx);
    }
    let last_use = |value: Value| {
        let users = graph.users(value);
        users.iter().filter_map(|user| place[user.index()]).max()
    };
    let (mut regions, mut region) = (Vec::new(), Vec::new());
    let mut live: BTreeSet<Value> = BTreeSet::new();
    let mut dying: Vec<Vec<Value>> = vec![Vec::new(); order.len()];
    for (idx, value) in order.iter().enumerate() {
        region.push(*value);
        if let Some(last) = last_use(*value) {
            live.insert(*value);
            dying[last].push(*value);
        }
        for dead in dying[idx].drain(..) {
            live.remove(&dead);
        }
        // What lives on is what was just computed, and several things are done with it.
        let is_cut = live.first() == Some(value) && live.len() == 1 && is_stream(graph, *value);
        if is_cut && region.len() >= MIN_NODES {
            regions.push(std::mem::take(&mut region));
        }
    }
    regions.push(region);
    regions.retain(|region| region.len() <= MAX_NODES && !region.is_empty());
    regions
}

/// Whether several things are done with the value, so that a cut behind it separates layers and not the steps of one.
fn is_stream(graph: &Graph, value: Value) -> bool {
    matches!(graph.op(value), Op::Scatter {}) || graph.users(value).len() > 1
}

/// Whether the value is a state, or made by looking at one: that is no matter of equations, and in no region.
fn touches_state(graph: &Graph, value: Value) -> bool {
    graph.ty(value).is_state() || graph.operands(value).iter().any(|operand| graph.ty(*operand).is_state())
}

/// Which values are a result and nothing else: a decision, or choices of experts and what copies them.
fn only_shown(graph: &Graph) -> Vec<bool> {
    let mut shown = vec![false; graph.bound()];
    for value in graph.order().into_iter().rev() {
        let (op, users) = (graph.op(value), graph.users(value));
        let ends = matches!(op, Op::Executed {}) || (op.has(Trait::Copies) && users.is_empty());
        let is_copied = op.has(Trait::Copies) && !users.is_empty();
        shown[value.index()] =
            ends && graph.is_result(value) || is_copied && users.iter().all(|user| shown[user.index()]);
    }
    shown
}

/// All values that results depend on, but for those that are everywhere or have to do with states: operands before users, each as late as it can
/// be. The order does not depend on the numbers of values, which passes change.
fn order(graph: &Graph) -> Vec<Value> {
    let (mut seen, only_shown) = (vec![false; graph.bound()], only_shown(graph));
    let mut order = Vec::new();
    let results: Vec<Value> = graph.results().map(|(_, value)| value).collect();
    for result in results {
        let mut waiting: Vec<(Value, bool)> = vec![(result, false)];
        while let Some((value, is_done)) = waiting.pop() {
            if is_done {
                if !touches_state(graph, value) {
                    order.push(value);
                }
                // What is only shown would keep alive to the end what it is made of.
                let shown = graph.users(value).into_iter().filter(|user| only_shown[user.index()]);
                waiting.extend(shown.map(|user| (user, false)));
                continue;
            }
            if is_everywhere(graph.op(value)) || std::mem::replace(&mut seen[value.index()], true) {
                continue;
            }
            waiting.push((value, true));
            waiting.extend(graph.operands(value).into_iter().rev().map(|operand| (operand, false)));
        }
    }
    order
}

/// Writes a region down without names. `density` is the share of the tokens in a set.
#[cfg(test)]
pub(crate) fn region(
    graph: &Graph,
    region: &[Value],
    density: impl Fn(SetSym) -> f64,
) -> (Region, Occurrence) {
    Occurrences::new(graph).region(region, density)
}

/// Writes regions of a graph down, one after the other: tables as long as the graph are made once.
pub(crate) struct Occurrences<'a> {
    graph: &'a Graph,
    inside: Vec<bool>,
    number: Vec<Option<usize>>,
}

impl<'a> Occurrences<'a> {
    pub(crate) fn new(graph: &'a Graph) -> Occurrences<'a> {
        let bound = graph.bound();
        Occurrences { graph, inside: vec![false; bound], number: vec![None; bound] }
    }

    /// Writes a region down without names. `density` is the share of the tokens in a set.
    pub(crate) fn region(
        &mut self,
        region: &[Value],
        density: impl Fn(SetSym) -> f64,
    ) -> (Region, Occurrence) {
        let graph = self.graph;
        region.iter().for_each(|value| self.inside[value.index()] = true);
        let mut ctx = Ctx {
            graph,
            inside: &self.inside,
            number: &mut self.number,
            source: Region { nodes: Vec::new(), roots: Vec::new(), densities: Vec::new() },
            place: Occurrence { values: Vec::new(), names: IndexSet::default(), sets: IndexSet::default() },
            n_outside: 0,
        };
        for value in region {
            ctx.add(*value);
        }
        let Ctx { mut source, place, .. } = ctx;
        let is_root = |value: Value| {
            graph.is_result(value) || graph.users(value).iter().any(|user| !self.inside[user.index()])
        };
        let roots = region.iter().filter(|value| is_root(**value));
        source.roots = roots.filter_map(|value| self.number[value.index()]).collect();
        source.densities = place.sets.iter().map(|set| F64::from(density(*set))).collect();
        region.iter().for_each(|value| self.inside[value.index()] = false);
        place.values.iter().for_each(|value| self.number[value.index()] = None);
        (source, place)
    }
}

struct Ctx<'a> {
    graph: &'a Graph,
    inside: &'a [bool],
    /// Number of a value in the source, by [`Value::index`].
    number: &'a mut [Option<usize>],
    source: Region,
    place: Occurrence,
    n_outside: u32,
}

impl Ctx<'_> {
    /// Adds a value, and before it what it needs from everywhere and from outside.
    fn add(&mut self, value: Value) {
        let mut waiting = vec![value];
        while let Some(value) = waiting.last().copied() {
            if self.number[value.index()].is_some() {
                waiting.pop();
                continue;
            }
            let is_own = self.inside[value.index()] || is_everywhere(self.graph.op(value));
            let operands = if is_own { self.graph.operands(value) } else { SmallVec::new() };
            let missing: Vec<Value> =
                operands.iter().copied().filter(|operand| self.number[operand.index()].is_none()).collect();
            if missing.is_empty() {
                waiting.pop();
                self.push(value, is_own, &operands);
            } else {
                waiting.extend(missing);
            }
        }
    }

    fn push(&mut self, value: Value, is_own: bool, operands: &[Value]) {
        let head = match is_own {
            true => Head::Op(self.unnamed(value)),
            false => {
                let idx = self.n_outside;
                self.n_outside += 1;
                Head::Outside { idx, ty: self.unnamed_ty(value) }
            }
        };
        let operands = operands.iter().filter_map(|operand| self.number[operand.index()]).collect();
        self.number[value.index()] = Some(self.source.nodes.len());
        self.source.nodes.push((head, operands));
        self.place.values.push(value);
    }

    fn unnamed(&mut self, value: Value) -> Op {
        let graph = self.graph;
        let op = graph.op(value);
        if let Op::Weight { name, shape } = op {
            let (number, _) = self.place.names.insert_full(name.clone());
            return Op::Weight { name: format!("w{number:04}").as_str().into(), shape: shape.clone() };
        }
        if let Op::WeightStack { name, count, shape } = op {
            let (number, _) = self.place.names.insert_full(name.clone());
            let name = format!("w{number:04}.*").as_str().into();
            return Op::WeightStack { name, count: *count, shape: shape.clone() };
        }
        if let Op::Input { port } = op {
            return Op::Input { port: Port { role: port.role.clone(), ty: self.unnamed_ty(value) } };
        }
        match op.opens() {
            Some(set) => op.with_set(self.set(set)),
            None => op.clone(),
        }
    }

    fn unnamed_ty(&mut self, value: Value) -> Type {
        let dim = |ctx: &mut Self, dim: Dim| match dim {
            Dim::Count(set) => Dim::Count(ctx.set(set)),
            _ => dim,
        };
        match self.graph.ty(value).clone() {
            Type::Tensor { elem, dims } => {
                Type::Tensor { elem, dims: dims.into_iter().map(|size| dim(self, size)).collect() }
            }
            Type::Set { sym, of } => Type::Set { sym: self.set(sym), of: dim(self, of) },
            Type::Partition { sym, of, parts } => {
                Type::Partition { sym: self.set(sym), of: dim(self, of), parts }
            }
            // No size of a state depends on a set.
            ty @ Type::State { .. } => ty,
        }
    }

    fn set(&mut self, set: SetSym) -> SetSym {
        SetSym(self.place.sets.insert_full(set).0 as u32)
    }
}
