//! What `saturate` did, human-readable: each distinct region once, with the proof of every value that it made.
//!
//! Expressions stand over values of the graph as the pass saw it. They are kept without names, since regions that
//! differ in names alone share them, and become text for one place at a time.

use std::collections::{BTreeMap, BTreeSet};

use skipc_ir::ops::Attrs;
use skipc_ir::text::Numbering;
use skipc_ir::{Graph, Op, Trait, Value};
use smallvec::SmallVec;

use super::check;
use super::language::Head;
use super::proof::{Application, Derivation, Expr};
use super::region::{Occurrence, Region};
use super::runner_up::RunnerUp;

/// A region that was rewritten, with all regions that differ from it in names alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// Where it lies in the model, the place whose names stand in the proofs first.
    pub places: Vec<Location>,
    /// How often each rule applies in the proofs; an application that several proofs share counts once.
    pub rules: BTreeMap<&'static str, u64>,
    /// Modelled time of the source, in nanoseconds.
    pub ns_before: u64,
    /// Modelled time of the form that was chosen, in nanoseconds.
    pub ns_after: u64,
    /// The form for high densities, if it is another, and from which density on it is cheaper.
    pub runner_up: Option<RunnerUp>,
    /// Whether nothing that the rules find is cheaper; else a limit of nodes, rounds or steps was reached.
    pub is_cheapest: bool,
    /// Nodes of the e-graph at the end.
    pub n_nodes: usize,
    /// Rounds of the rules.
    pub n_rounds: usize,
    /// Steps of the search for the cheapest form.
    pub n_steps: usize,
    /// How each value of the form that the source does not have came about.
    pub chains: Vec<Chain>,
    pub(super) applications: BTreeMap<usize, Step>,
    pub(super) nodes: Vec<(Head, SmallVec<[usize; 4]>)>,
}

/// Where a region lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// In the model, such as `blocks.3`; empty if the graph does not say.
    pub origin: String,
    /// For each chain the number of its value in the graph that the passes returned, if it is still there.
    pub results: Vec<Option<usize>>,
    pub(super) place: Occurrence,
    /// The number of each value of the source in the graph before the rewrite.
    numbers: Vec<usize>,
    /// The lines of values from outside of the region, each with its index in the source.
    outside: BTreeMap<usize, String>,
}

/// The applications that lead from the source to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The node, by its index in the form.
    pub(super) node: usize,
    pub(super) expr: Expr,
    pub(super) same_as: Option<usize>,
    pub(super) steps: Vec<usize>,
}

/// An application of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) rule: &'static str,
    pub(super) place: (&'static str, u32),
    pub(super) says: &'static str,
    pub(super) before: Expr,
    pub(super) after: Expr,
}

/// A chain as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainText {
    /// The node over values of the graph before the rewrite: `matmul %2, (fold_gain %4, %3)`.
    pub node: String,
    /// The value of the graph before the rewrite that it is equal to and stands for. Parts of larger forms have none.
    pub equals: Option<String>,
    /// The applications, in order: the left side of each is in the source, or in a right side before it.
    pub steps: Vec<StepText>,
    /// The lines of the values that the other texts name, as in the graph before the rewrite.
    pub values: Vec<String>,
}

/// An application as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepText {
    /// The rule.
    pub rule: &'static str,
    /// File and line of the rule.
    pub place: (&'static str, u32),
    /// What the rule says, `left = right`.
    pub says: &'static str,
    /// The left side as it was found.
    pub before: String,
    /// The right side that it was made equal to.
    pub after: String,
}

impl Rewritten {
    /// A chain with the names of a place.
    ///
    /// `None` if there is no such chain or place.
    pub fn chain(&self, chain: usize, location: usize) -> Option<ChainText> {
        let (chain, location) = (self.chains.get(chain)?, self.places.get(location)?);
        let mut named = BTreeSet::new();
        let mut text = |expr: &Expr| location.text(expr, &mut named);
        let node = text(&chain.expr);
        let equals = chain.same_as.map(|idx| text(&Expr::Value(idx)));
        let steps = chain.steps.iter().filter_map(|step| self.applications.get(step));
        let steps = steps.map(|step| StepText {
            rule: step.rule,
            place: step.place,
            says: step.says,
            before: text(&step.before),
            after: text(&step.after),
        });
        let steps = steps.collect();
        let mut values: Vec<(usize, String)> =
            named.into_iter().map(|idx| (location.numbers[idx], self.line(location, idx))).collect();
        values.sort_unstable();
        Some(ChainText { node, equals, steps, values: values.into_iter().map(|(_, line)| line).collect() })
    }

    /// The line of a value of the source.
    fn line(&self, location: &Location, idx: usize) -> String {
        let number = location.numbers[idx];
        match &self.nodes[idx] {
            (Head::Outside { .. }, _) => location.outside.get(&idx).cloned().unwrap_or_default(),
            (Head::Op(op), operands) => {
                let operands = operands.iter().map(|operand| Expr::Value(*operand)).collect();
                let node = location.text(&Expr::Op(op.clone(), operands), &mut BTreeSet::new());
                format!("%{number} = {node}")
            }
        }
    }

    /// Says how a form came about.
    pub(super) fn set_proofs(&mut self, applications: BTreeMap<usize, Step>, of: Vec<Derivation>) {
        self.applications = applications;
        let chain =
            |Derivation { node, expr, same_as, steps }: Derivation| Chain { node, expr, same_as, steps };
        self.chains = of.into_iter().map(chain).collect();
        check::shorten(self);
        let used: BTreeSet<usize> = self.chains.iter().flat_map(|chain| &chain.steps).copied().collect();
        self.applications.retain(|step, _| used.contains(step));
        for step in self.applications.values() {
            *self.rules.entry(step.rule).or_default() += 1;
        }
    }
}

impl Step {
    pub(super) fn new(application: Application, rules: &[&super::Rule]) -> Step {
        let Application { rule, before, after } = application;
        let rule = rules[rule];
        Step { rule: rule.name, place: rule.place, says: rule.says, before, after }
    }
}

impl Location {
    pub(super) fn new(graph: &Graph, numbering: &Numbering, source: &Region, place: Occurrence) -> Location {
        let heads = source.nodes.iter().map(|(head, _)| head);
        let outside = heads.zip(&place.values).enumerate();
        let outside = outside.filter(|(_, (head, _))| matches!(head, Head::Outside { .. }));
        Location {
            origin: origin(graph, &place.values, source),
            results: Vec::new(),
            numbers: place.values.iter().map(|value| numbering.number(*value)).collect(),
            outside: outside.map(|(idx, (_, value))| (idx, numbering.node(graph, *value))).collect(),
            place,
        }
    }

    /// An expression as in the graph's text form, nested ones in parentheses. Notes the values that it names.
    fn text(&self, expr: &Expr, named: &mut BTreeSet<usize>) -> String {
        match expr {
            Expr::Value(idx) => {
                named.insert(*idx);
                format!("%{}", self.numbers[*idx])
            }
            Expr::Op(op, operands) => {
                let op: Op = self.place.named(op);
                let mut text = op.name().to_owned();
                for (idx, operand) in operands.iter().enumerate() {
                    let nested = self.text(operand, named);
                    text.push_str(if idx == 0 { " " } else { ", " });
                    text.push_str(&match operand {
                        Expr::Value(_) => nested,
                        Expr::Op(..) => format!("({nested})"),
                    });
                }
                text + &Attrs(&op).to_string()
            }
        }
    }
}

/// Where values of a region come from: what their origins begin with, or the blocks that they are in.
fn origin(graph: &Graph, values: &[Value], source: &Region) -> String {
    let is_own = |(value, (head, _)): &(&Value, &(Head, SmallVec<[usize; 4]>))| {
        matches!(head, Head::Op(op) if !op.has(Trait::Leaf) && !op.has(Trait::Constant))
            && !graph.origin(**value).is_empty()
    };
    let origins = values.iter().zip(&source.nodes).filter(is_own);
    let origins: Vec<Vec<&str>> =
        origins.map(|(value, _)| graph.origin(*value).split('.').collect()).collect();
    let Some(first) = origins.first() else { return String::new() };
    let n_shared =
        |of: &Vec<&str>| of.iter().zip(first).take_while(|(part, in_first)| part == in_first).count();
    let shared = origins.iter().map(n_shared).min().unwrap_or_default();
    if shared > 1 || origins.iter().all(|of| of == first) {
        return first[..shared].join(".");
    }
    let mut blocks: Vec<String> = Vec::new();
    for of in &origins {
        let block = of[..of.len().min(2)].join(".");
        if !blocks.contains(&block) {
            blocks.push(block);
        }
    }
    blocks.join(", ")
}
