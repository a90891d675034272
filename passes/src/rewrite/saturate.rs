//! The loop that applies rules until they have nothing new to say.
//!
//! All rules search the same e-graph, then all that they found is added: what one rule finds does not depend on what
//! another found in the same round. Limits are numbers of nodes and rounds, never time, and are looked at before each
//! addition, so that a limit is passed by the size of one right side at most.
//!
//! What changed the e-graph is logged as it was found: proofs are built from that afterwards ([`super::proof`]), and
//! only where a form is used, so that the loop pays for a list of right sides and nothing else.

use egg::Id;
use skipc_ir::Type;
use smallvec::SmallVec;

use super::RewriteError;
use super::language::{EGraph, Head, Node, Typing, typed};
use super::region::Region;
use super::rules::{Rule, Term, View};

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
    /// What changed the e-graph, round by round.
    pub(crate) log: Vec<Vec<Firing>>,
}

/// A rule that fired: it added a node, or made two classes one.
#[derive(Clone, Debug)]
pub(crate) struct Firing {
    /// The rule, by its index.
    pub(crate) rule: usize,
    /// The class of the left side, when the round began.
    pub(crate) class: Id,
    /// The node of that class that the rule was shown, by its place in the class.
    pub(crate) node: usize,
    /// The right side, over classes as they were when the round began.
    pub(crate) term: Term,
}

/// Saturates the source with these rules.
///
/// # Errors
/// If a rule makes something that has no type, or another type than what it stands for.
pub(crate) fn saturate(source: &Region, rules: &[&Rule], limits: Limits) -> Result<Saturated, RewriteError> {
    let (egraph, classes) = begin(source);
    let n_source = egraph.total_number_of_nodes();
    let mut ctx = Ctx { egraph, rules, log: Vec::new() };
    let mut is_complete = false;
    while ctx.log.len() < limits.rounds && !is_complete {
        match ctx.round(n_source.max(limits.nodes))? {
            Round::Changed => {}
            Round::Nothing => is_complete = true,
            Round::Full => break,
        }
    }
    let Ctx { egraph, log, .. } = ctx;
    Ok(Saturated { egraph, classes, is_complete, log })
}

/// The e-graph of a source that no rule has seen yet, with the class of each of its nodes.
pub(crate) fn begin(source: &Region) -> (EGraph, Vec<Id>) {
    let mut egraph = EGraph::new(Typing::default());
    let mut classes: Vec<Id> = Vec::with_capacity(source.nodes.len());
    for (head, operands) in &source.nodes {
        let operands = operands.iter().map(|operand| classes[*operand]).collect();
        classes.push(egraph.add(Node { head: head.clone(), operands }));
    }
    egraph.rebuild();
    (egraph, classes)
}

enum Round {
    Changed,
    Nothing,
    Full,
}

struct Ctx<'a> {
    egraph: EGraph,
    rules: &'a [&'a Rule],
    /// What changed the e-graph, round by round.
    log: Vec<Vec<Firing>>,
}

impl Ctx<'_> {
    fn round(&mut self, node_limit: usize) -> Result<Round, RewriteError> {
        let found = self.search();
        let mut fired = Vec::new();
        let mut is_full = false;
        for firing in found {
            let n_before = self.egraph.total_size();
            if n_before >= node_limit {
                is_full = true;
                break;
            }
            let rule = self.rules[firing.rule].name;
            let new = build(&mut self.egraph, &firing.term)
                .map_err(|error| RewriteError::NoType { rule, error })?;
            let (old_ty, new_ty) = (&self.egraph[firing.class].data, &self.egraph[new].data);
            if old_ty != new_ty {
                let show = |ty: &Option<Type>| ty.as_ref().map_or("none".to_owned(), Type::to_string);
                return Err(RewriteError::OtherType { rule, old: show(old_ty), new: show(new_ty) });
            }
            if self.egraph.union(firing.class, new) || self.egraph.total_size() != n_before {
                fired.push(firing);
            }
        }
        self.egraph.rebuild();
        if let Some((old, new)) = &self.egraph.analysis.torn {
            let (old, new) = (old.to_string(), new.to_string());
            return Err(RewriteError::OtherType { rule: "congruence", old, new });
        }
        let is_nothing = fired.is_empty();
        self.log.push(fired);
        Ok(match (is_full, is_nothing) {
            (true, _) => Round::Full,
            (false, true) => Round::Nothing,
            (false, false) => Round::Changed,
        })
    }

    /// All right sides that rules find.
    fn search(&self) -> Vec<Firing> {
        let view = View::new(&self.egraph);
        let mut ids: Vec<Id> = self.egraph.classes().map(|class| class.id).collect();
        ids.sort_unstable();
        let (mut found, mut terms) = (Vec::new(), Vec::new());
        for (rule, Rule { find, .. }) in self.rules.iter().enumerate() {
            for class in ids.iter().copied() {
                for (node, at) in self.egraph[class].nodes.iter().enumerate() {
                    let Some((op, operands)) = at.view() else { continue };
                    find(&view, op, operands, &mut terms);
                    found.extend(terms.drain(..).map(|term| Firing { rule, class, node, term }));
                }
            }
        }
        found
    }
}

/// Adds a right side. Right sides are a few nodes deep, whatever the graph.
///
/// # Errors
/// If a node of it has no type.
fn build(egraph: &mut EGraph, term: &Term) -> Result<Id, String> {
    match term {
        Term::Class(class) => Ok(egraph.find(*class)),
        Term::Op(op, operands) => {
            let operands: SmallVec<[Id; 4]> =
                operands.iter().map(|operand| build(egraph, operand)).collect::<Result<_, _>>()?;
            let node = Node { head: Head::Op(op.clone()), operands };
            if let Some(known) = egraph.lookup(node.clone()) {
                return Ok(known);
            }
            typed(egraph, &node)?;
            Ok(egraph.add(node))
        }
    }
}
