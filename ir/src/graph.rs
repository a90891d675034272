//! The graph: typed nodes over petgraph, operands as edges.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use indexmap::IndexMap;
use petgraph::Direction;
use petgraph::graph::NodeIndex;
use petgraph::stable_graph::StableDiGraph;
use petgraph::visit::EdgeRef;
use skipc_artifact::interface::Role;
use smallvec::SmallVec;

use crate::op::{self, TypeError};
use crate::ops::Op;
use crate::ty::{SetSym, Type};

/// The result of a node. Valid for the graph that gave it, and for as long as no pass removes the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(NodeIndex);

impl Value {
    /// A number below [`Graph::bound`], for side tables.
    pub fn index(self) -> usize {
        self.0.index()
    }

    /// The node in petgraph's terms.
    pub(crate) fn node(self) -> NodeIndex {
        self.0
    }
}

/// Where a node comes from in the model, such as `blocks.3.layers.0`; empty if nowhere.
pub type Origin = Arc<str>;

#[derive(Clone, Debug)]
struct Node {
    op: Op,
    ty: Type,
    origin: Origin,
    /// In how many roles it is a result of the graph.
    n_roles: u32,
}

/// A dataflow graph: a function of its inputs and parameters, see [`Graph::signature`]. Every node in it has a type that follows from its op and operands.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    name: String,
    nodes: StableDiGraph<Node, u32>,
    results: IndexMap<Role, Value>,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Graph {
        Graph { name: name.into(), ..Graph::default() }
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds a node.
    ///
    /// # Errors
    /// If the operands do not fit the op; the graph is unchanged then.
    pub fn add(&mut self, op: Op, operands: &[Value], origin: &Origin) -> Result<Value, TypeError> {
        let ty = {
            let types: SmallVec<[&Type; 8]> = operands.iter().map(|operand| self.ty(*operand)).collect();
            op::infer(&op, &types)?
        };
        let node = self.nodes.add_node(Node { op, ty, origin: origin.clone(), n_roles: 0 });
        for (idx, operand) in operands.iter().enumerate() {
            self.nodes.add_edge(operand.0, node, idx as u32);
        }
        Ok(Value(node))
    }

    /// Makes a value the graph's result of this role. A role given twice keeps the later value.
    pub fn set_result(&mut self, role: Role, value: Value) {
        if let Some(before) = self.results.insert(role, value) {
            self.nodes[before.0].n_roles -= 1;
        }
        self.nodes[value.0].n_roles += 1;
    }

    /// The results by role, in the order in which they were made results.
    pub fn results(&self) -> impl Iterator<Item = (&Role, Value)> {
        self.results.iter().map(|(role, value)| (role, *value))
    }

    /// How many results there are.
    pub fn n_results(&self) -> usize {
        self.results.len()
    }

    /// The result of this role.
    pub fn result(&self, role: &Role) -> Option<Value> {
        self.results.get(role).copied()
    }

    /// The decisions of the routers, in model order: masks that hold where a token executes.
    pub fn decisions(&self) -> impl Iterator<Item = (u32, Value)> {
        self.results().filter_map(|(role, value)| match role {
            Role::Decision { router } => Some((*router, value)),
            _ => None,
        })
    }

    /// What the node does.
    pub fn op(&self, value: Value) -> &Op {
        &self.nodes[value.0].op
    }

    /// The type of the value.
    pub fn ty(&self, value: Value) -> &Type {
        &self.nodes[value.0].ty
    }

    /// Where the node comes from in the model.
    pub fn origin(&self, value: Value) -> &Origin {
        &self.nodes[value.0].origin
    }

    /// The operands, in the order of the op's row in the table.
    pub fn operands(&self, value: Value) -> SmallVec<[Value; 4]> {
        let mut found: SmallVec<[(u32, Value); 8]> = self
            .nodes
            .edges_directed(value.0, Direction::Incoming)
            .map(|edge| (*edge.weight(), Value(edge.source())))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, operand)| operand).collect()
    }

    /// The nodes that use the value, each once, in order of their indices. Results of the graph do not count.
    pub fn users(&self, value: Value) -> Vec<Value> {
        let mut users: Vec<Value> =
            self.nodes.neighbors_directed(value.0, Direction::Outgoing).map(Value).collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    /// The roles in which the value is a result of the graph.
    pub fn roles(&self, value: Value) -> impl Iterator<Item = &Role> {
        self.results.iter().filter(move |(_, result)| **result == value).map(|(role, _)| role)
    }

    /// Whether the value is a result of the graph.
    pub fn is_result(&self, value: Value) -> bool {
        self.nodes[value.0].n_roles > 0
    }

    /// All values in order of their indices.
    pub fn values(&self) -> impl Iterator<Item = Value> {
        self.nodes.node_indices().map(Value)
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.node_count()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Greater than every [`Value::index`] in use.
    pub fn bound(&self) -> usize {
        self.nodes.node_indices().next_back().map_or(0, |node| node.index() + 1)
    }

    /// All values so that operands come before users; among those that could come next, the oldest first.
    /// Values on a cycle are missing (the verifier reports them).
    pub fn order(&self) -> Vec<Value> {
        let mut waiting: Vec<usize> = vec![0; self.bound()];
        let mut ready = BinaryHeap::new();
        for node in self.nodes.node_indices() {
            waiting[node.index()] = self.nodes.edges_directed(node, Direction::Incoming).count();
            if waiting[node.index()] == 0 {
                ready.push(Reverse(node));
            }
        }
        let mut order = Vec::with_capacity(self.len());
        while let Some(Reverse(node)) = ready.pop() {
            order.push(Value(node));
            for user in self.nodes.neighbors_directed(node, Direction::Outgoing) {
                waiting[user.index()] -= 1;
                if waiting[user.index()] == 0 {
                    ready.push(Reverse(user));
                }
            }
        }
        order
    }

    /// Lets every user and result of `old` use `new` instead. The node of `old` stays, unused.
    ///
    /// # Errors
    /// If the types differ (the rest of the graph was typed with `old`), as a wrong operand named after the op of
    /// `new`.
    pub fn replace(&mut self, old: Value, new: Value) -> Result<(), TypeError> {
        if self.ty(old) != self.ty(new) {
            return Err(TypeError::Operand {
                op: self.op(new).name(),
                operand: "replacement",
                wanted: self.ty(old).to_string(),
                got: self.ty(new).clone(),
            });
        }
        let uses: Vec<_> = self
            .nodes
            .edges_directed(old.0, Direction::Outgoing)
            .map(|edge| (edge.id(), edge.target(), *edge.weight()))
            .collect();
        for (edge, user, idx) in uses {
            self.nodes.remove_edge(edge);
            self.nodes.add_edge(new.0, user, idx);
        }
        let n_roles = std::mem::take(&mut self.nodes[old.0].n_roles);
        if n_roles > 0 {
            for result in self.results.values_mut().filter(|result| **result == old) {
                *result = new;
            }
            self.nodes[new.0].n_roles += n_roles;
        }
        Ok(())
    }

    /// Removes a node that nothing uses; returns whether it did.
    pub fn remove_unused(&mut self, value: Value) -> bool {
        let unused = !self.is_used(value);
        if unused {
            self.nodes.remove_node(value.0);
        }
        unused
    }

    /// Whether a node uses the value or it is a result.
    pub fn is_used(&self, value: Value) -> bool {
        self.nodes[value.0].n_roles > 0
            || self.nodes.edges_directed(value.0, Direction::Outgoing).next().is_some()
    }

    /// Whether the value is (still) in the graph.
    pub fn contains(&self, value: Value) -> bool {
        self.nodes.contains_node(value.0)
    }

    /// Gives token sets other symbols, in all ops and types at once. Type rules do not look at the number of a
    /// symbol, so every type still follows from its operands; but two sets of one symbol are a fault until the caller
    /// has replaced one of their routes by the other.
    pub fn rename_sets(&mut self, renames: &BTreeMap<SetSym, SetSym>) {
        for node in self.nodes.node_weights_mut() {
            node.op.rename_sets(renames);
            node.ty.rename_sets(renames);
        }
    }

    /// Ops and types that no edit of a right graph can bring about.
    #[cfg(test)]
    pub(crate) fn damage(&mut self, value: Value) -> (&mut Op, &mut Type) {
        let node = &mut self.nodes[value.0];
        (&mut node.op, &mut node.ty)
    }

    /// A set symbol that no node of the graph opens: the smallest.
    pub fn fresh_set(&self) -> SetSym {
        let taken: BTreeSet<u32> =
            self.nodes.node_weights().filter_map(|node| node.op.opens()).map(|sym| sym.0).collect();
        let free = (0..).zip(&taken).find(|(number, sym)| number != *sym).map(|(number, _)| number);
        SetSym(free.unwrap_or(taken.len() as u32))
    }
}
