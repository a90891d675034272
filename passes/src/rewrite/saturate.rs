//! The loop that applies rules until they have nothing new to say.
//!
//! All rules search the same e-graph, then all that they found is added: what one rule finds does not depend on what
//! another found in the same round. Limits are numbers of nodes and rounds, never time, and are looked at before each
//! addition, so that a limit is passed by the size of one right side at most.

use egg::{Id, Language};
use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;
use skipc_ir::{Op, Type};
use smallvec::SmallVec;

use super::RewriteError;
use super::language::{EGraph, Head, Node, Typing, typed};
use super::rules::{Rule, Term};
use super::source::Source;

/// When saturation stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// E-nodes.
    pub(crate) nodes: usize,
    /// Rounds.
    pub(crate) rounds: usize,
}

impl Default for Limits {
    /// Four times the e-nodes, and twice the rounds, of the largest block of the models in `models/`; a test prints
    /// what they need.
    fn default() -> Limits {
        Limits { nodes: 4_000, rounds: 24 }
    }
}

/// What saturation made of a region.
pub(crate) struct Saturated {
    pub(crate) egraph: EGraph,
    /// The class of each node of the source.
    pub(crate) classes: Vec<Id>,
    /// Whether no rule had anything new to say; else a limit was reached.
    pub(crate) is_complete: bool,
    /// The rule that added a node first, by its index, for nodes that the source does not have.
    pub(crate) made_by: IndexMap<Node, usize, FxBuildHasher>,
}

/// The e-graph as rules see it while they search.
pub(crate) struct View<'a> {
    pub(crate) egraph: &'a EGraph,
}

impl View<'_> {
    /// The nodes of a class.
    pub(crate) fn nodes(&self, class: Id) -> impl Iterator<Item = (&Op, &[Id])> {
        self.egraph[class].nodes.iter().filter_map(Node::view)
    }

    /// The type of a class. Every class has one: nodes are typed before they are added.
    pub(crate) fn ty(&self, class: Id) -> Option<&Type> {
        self.egraph[class].data.as_ref()
    }
}

/// Saturates the source with these rules.
///
/// # Errors
/// If a rule makes something that has no type, or another type than what it stands for.
pub(crate) fn saturate(source: &Source, rules: &[&Rule], limits: Limits) -> Result<Saturated, RewriteError> {
    let mut egraph = EGraph::new(Typing::default());
    let mut classes: Vec<Id> = Vec::with_capacity(source.nodes.len());
    for (head, operands) in &source.nodes {
        let operands = operands.iter().map(|operand| classes[*operand]).collect();
        classes.push(egraph.add(Node { head: head.clone(), operands }));
    }
    egraph.rebuild();
    let n_source = egraph.total_number_of_nodes();
    let mut ctx = Ctx { egraph, rules, made: Vec::new() };
    let (mut rounds, mut is_complete) = (0, false);
    while rounds < limits.rounds && !is_complete {
        rounds += 1;
        match ctx.round(n_source.max(limits.nodes))? {
            Round::Changed => {}
            Round::Nothing => is_complete = true,
            Round::Full => break,
        }
    }
    let Ctx { egraph, made, .. } = ctx;
    let mut made_by: IndexMap<Node, usize, FxBuildHasher> = IndexMap::default();
    for (node, rule) in made {
        made_by.entry(node.map_children(|child| egraph.find(child))).or_insert(rule);
    }
    Ok(Saturated { egraph, classes, is_complete, made_by })
}

enum Round {
    Changed,
    Nothing,
    Full,
}

struct Ctx<'a> {
    egraph: EGraph,
    rules: &'a [&'a Rule],
    /// Nodes that rules added, each with the index of the rule.
    made: Vec<(Node, usize)>,
}

impl Ctx<'_> {
    fn round(&mut self, node_limit: usize) -> Result<Round, RewriteError> {
        let found = self.search();
        let (mut n_unions, n_before) = (0, self.egraph.total_size());
        let mut is_full = false;
        for (rule, class, term) in found {
            if self.egraph.total_size() >= node_limit {
                is_full = true;
                break;
            }
            let new = self.build(rule, &term)?;
            let (old_ty, new_ty) = (&self.egraph[class].data, &self.egraph[new].data);
            if old_ty != new_ty {
                let show = |ty: &Option<Type>| ty.as_ref().map_or("none".to_owned(), Type::to_string);
                return Err(RewriteError::OtherType {
                    rule: self.rules[rule].name,
                    old: show(old_ty),
                    new: show(new_ty),
                });
            }
            n_unions += usize::from(self.egraph.union(class, new));
        }
        self.egraph.rebuild();
        if let Some((old, new)) = &self.egraph.analysis.torn {
            let (old, new) = (old.to_string(), new.to_string());
            return Err(RewriteError::OtherType { rule: "congruence", old, new });
        }
        Ok(match (is_full, n_unions == 0 && self.egraph.total_size() == n_before) {
            (true, _) => Round::Full,
            (false, true) => Round::Nothing,
            (false, false) => Round::Changed,
        })
    }

    /// All right sides that rules find: index of the rule, class of the left side, right side.
    fn search(&self) -> Vec<(usize, Id, Term)> {
        let view = View { egraph: &self.egraph };
        let mut ids: Vec<Id> = self.egraph.classes().map(|class| class.id).collect();
        ids.sort_unstable();
        let (mut found, mut terms) = (Vec::new(), Vec::new());
        for (idx, rule) in self.rules.iter().enumerate() {
            for class in &ids {
                for (op, operands) in view.nodes(*class) {
                    (rule.find)(&view, op, operands, &mut terms);
                    found.extend(terms.drain(..).map(|term| (idx, *class, term)));
                }
            }
        }
        found
    }

    /// Adds a right side. Right sides are a few nodes deep, whatever the graph.
    fn build(&mut self, rule: usize, term: &Term) -> Result<Id, RewriteError> {
        match term {
            Term::Class(class) => Ok(self.egraph.find(*class)),
            Term::Op(op, operands) => {
                let operands: SmallVec<[Id; 4]> =
                    operands.iter().map(|operand| self.build(rule, operand)).collect::<Result<_, _>>()?;
                let node = Node { head: Head::Op(op.clone()), operands };
                if let Some(known) = self.egraph.lookup(node.clone()) {
                    return Ok(known);
                }
                typed(&self.egraph, &node)
                    .map_err(|error| RewriteError::NoType { rule: self.rules[rule].name, error })?;
                self.made.push((node.clone(), rule));
                Ok(self.egraph.add(node))
            }
        }
    }
}
