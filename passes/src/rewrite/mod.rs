//! Rewriting by equality saturation.
//!
//! Each region of the graph ([`region`], a block of the model) becomes an e-graph, in which the rules ([`rules`]) say
//! what is equal until they have nothing new to say ([`saturate`](mod@saturate)). Then the cheapest form that the e-graph holds is
//! taken out ([`extract`]): by the time of its kernels ([`cost`]) at the densities that the routers are trained for.
//! What comes out is compared with the source where nothing rounds ([`prove`]) before it becomes an edit of the graph.
//!
//! How each value of the chosen form follows from the source is kept as well ([`proof`]), human-readable ([`explain`]).
//!
//! Regions that differ in names alone are rewritten once. State lives in no e-graph: a route is a node like others,
//! with its scores as operands and its symbol as attribute, so that two routes never become one here.
//!
//! Rules that round differently: `norm_into_weight` and `row_scale_out` take a row's scale after a sum instead of before
//! it. In exact domains all rules keep every bit; in floating point none is more than four times as far from the exact
//! result as what it replaces, on rows of one value or far from zero as well (`tests/accuracy.rs`).

pub mod check;
mod congruence;
pub mod cost;
pub mod explain;
mod extract;
mod language;
mod proof;
mod prove;
mod region;
pub mod rules;
pub mod runner_up;
mod saturate;
#[cfg(test)]
mod tests;
mod widths;

use std::collections::BTreeMap;

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;
use skipc_ir::text::Numbering;
use skipc_ir::{Facts, Graph, Op, Origin, SetSym, Type, Value};
use smallvec::SmallVec;

use crate::{Operand, Options, Patch};
use cost::{CPU, Counts, Poly, Target};
use explain::{Location, Rewritten, Step};
use extract::{Choice, Prices, Problem};
use language::{EGraph, Head, Node};
use region::{Occurrence, Region};
use rules::Rule;
use runner_up::runner_up;
use saturate::{Limits, Saturated};

/// Tokens of the step for which forms are chosen: a prompt of ordinary length, with work for every kernel's tiles.
pub const TOKENS: f64 = 512.0;

/// Share of the tokens in a set of which nothing is known.
const UNKNOWN_DENSITY: f64 = 0.5;

/// Steps of the search for joint choices. A block of the models in `models/` takes fewer to the proof that nothing is
/// cheaper; a test prints how many.
const MAX_STEPS: usize = 20_000;

/// Why a graph is not rewritten: always a fault of a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// A rule makes something that has no type.
    #[error("rule `{rule}` makes what has no type: {error}")]
    NoType {
        /// The rule.
        rule: &'static str,
        /// What the type rule says.
        error: String,
    },
    /// A rule equates values of two types.
    #[error("rule `{rule}` equates a value of type {old} with one of type {new}")]
    OtherType {
        /// The rule.
        rule: &'static str,
        /// Type of the left side.
        old: String,
        /// Type of the right side.
        new: String,
    },
    /// The form that was chosen has other values than the source.
    #[error("the rewritten form of {origin} has other values than its source; rules: {rules}")]
    Different {
        /// Where in the model.
        origin: String,
        /// The rules that made it.
        rules: String,
    },
}

/// The cheapest form of a region, without names.
struct Outcome {
    nodes: Vec<(Head, SmallVec<[usize; 4]>)>,
    /// Where each root of the source is.
    roots: Vec<usize>,
    /// A node of the source that has the same value.
    same_as: Vec<Option<usize>>,
    /// What users are told of it; without places yet.
    rewritten: Rewritten,
}

/// Edits, and what users are told of them.
#[derive(Debug, Default)]
pub struct Rewrites {
    pub(crate) patches: Vec<Patch>,
    /// The distinct regions that were rewritten.
    pub(crate) regions: Vec<Rewritten>,
    /// For each patch the region, the place in it, and what stands for the value of each chain.
    pub(crate) made: Vec<(usize, usize, Vec<Operand>)>,
}

/// The edits that make each region as cheap as the rules can.
///
/// # Errors
/// If a rule is at fault.
pub(crate) fn edits(graph: &Graph, _: &Facts, options: &Options) -> Result<Rewrites, RewriteError> {
    let rules: Vec<&Rule> = match options.keep_rows {
        true => rules::keeping_rows().collect(),
        false => rules::all().collect(),
    };
    let densities = densities(graph, options);
    let mut memo: IndexMap<Region, Option<Outcome>, FxBuildHasher> = IndexMap::default();
    let mut rewrites = Rewrites::default();
    let mut region_of: BTreeMap<usize, usize> = BTreeMap::new();
    let numbering = Numbering::new(graph);
    let mut places = region::Occurrences::new(graph);
    for region in region::regions(graph) {
        let density = |set| densities.get(&set).copied().unwrap_or(UNKNOWN_DENSITY);
        let (source, place) = places.region(&region, density);
        let idx = match memo.get_index_of(&source) {
            Some(idx) => idx,
            None => {
                let outcome = match cheapest(&source, &rules, &CPU)? {
                    Some(outcome) if is_proved(graph, &source, &place, &outcome)? => Some(outcome),
                    _ => None,
                };
                memo.insert_full(source, outcome).0
            }
        };
        let Some((source, Some(outcome))) = memo.get_index(idx) else { continue };
        let region = *region_of.entry(idx).or_insert_with(|| {
            rewrites.regions.push(outcome.rewritten.clone());
            rewrites.regions.len() - 1
        });
        let (patch, values) = patch(graph, source, &place, outcome);
        let rewritten = &mut rewrites.regions[region];
        let made = rewritten.chains.iter().map(|chain| values[chain.node]).collect();
        rewrites.patches.push(patch);
        rewrites.made.push((region, rewritten.places.len(), made));
        rewritten.places.push(Location::new(graph, &numbering, source, place));
    }
    Ok(rewrites)
}

/// The share of the tokens in each set: what the options say, or what the route says of itself.
fn densities(graph: &Graph, options: &Options) -> BTreeMap<SetSym, f64> {
    let of_route = |value: Value| {
        let op = graph.op(value);
        let set = op.opens()?;
        let density = if let Op::RouteRandom { limit, .. } = op {
            *limit as f64 / 2f64.powi(32)
        } else if let Op::RouteTopK { share, .. } | Op::RouteTopKAmong { share, .. } = op {
            share.0
        } else if let Op::Partition { parts, .. } = op {
            share_of_choices(graph, value, *parts)
        } else {
            UNKNOWN_DENSITY
        };
        Some((set, density))
    };
    let mut densities: BTreeMap<SetSym, f64> = graph.values().filter_map(of_route).collect();
    densities.extend(&options.densities);
    for value in graph.values() {
        let Some(of) = graph.operands(value).first().and_then(|of| graph.op(*of).opens()) else { continue };
        let of = densities.get(&of).copied().unwrap_or(UNKNOWN_DENSITY);
        if let Op::Complement { set } = graph.op(value) {
            densities.insert(*set, 1.0 - of);
        } else if let Op::WithFirst { set, .. } = graph.op(value)
            && !options.densities.contains_key(set)
        {
            // A few rows more.
            densities.insert(*set, of);
        }
    }
    densities
}

/// The share of rows that a partition by choices of experts has, if all are chosen alike; choices that find no place are not
/// known.
fn share_of_choices(graph: &Graph, partition: Value, parts: u32) -> f64 {
    let mut index = partition;
    while let Some(operand) = graph.operands(index).first().copied() {
        let (op, choices) = (graph.op(operand), f64::from(graph.ty(operand).cols()));
        if let Op::ShareChoices { top_k, .. } = op {
            return f64::from(*top_k) / choices;
        }
        if let Op::HashChoice { experts, .. } = op {
            return f64::from(parts) / f64::from(*experts);
        }
        if let (Op::Choose { .. } | Op::ChooseOrReplay { .. }, Some(logits)) =
            (op, graph.operands(operand).first())
        {
            return f64::from(parts) / f64::from(graph.ty(*logits).cols());
        }
        index = operand;
    }
    UNKNOWN_DENSITY
}

/// Counts at the densities of a source.
struct AtDensities<'a>(&'a Region);

impl Counts for AtDensities<'_> {
    fn tokens(&self) -> f64 {
        TOKENS
    }

    fn rows(&self, set: SetSym) -> f64 {
        self.0.densities.get(set.0 as usize).map_or(UNKNOWN_DENSITY, |density| density.0) * TOKENS
    }
}

/// What nodes of an e-graph cost on a target at some counts.
struct PriceList<'a> {
    egraph: &'a EGraph,
    target: &'a Target,
    counts: &'a dyn Counts,
}

impl PriceList<'_> {
    fn picoseconds(&self, time: &Poly) -> u64 {
        // Times are finite and not negative; `as` saturates.
        (time.at(self.counts) * 1e3).round() as u64
    }
}

impl Prices for PriceList<'_> {
    fn node(&self, node: &Node) -> u64 {
        let Some((op, operands)) = node.view() else { return 0 };
        let types: Option<SmallVec<[&Type; 8]>> =
            operands.iter().map(|operand| self.egraph[*operand].data.as_ref()).collect();
        let (Some(types), Ok(result)) = (types, language::typed(self.egraph, node)) else { return u64::MAX };
        self.picoseconds(&cost::time(self.target, op, &types, &result))
    }

    fn kernel(&self, operand: egg::Id) -> u64 {
        let ty = self.egraph[operand].data.as_ref();
        ty.map_or(u64::MAX, |ty| self.picoseconds(&cost::matmul_kernel(self.target, ty)))
    }
}

/// The cheapest form that the rules find, if it is cheaper than the source.
fn cheapest(source: &Region, rules: &[&Rule], target: &Target) -> Result<Option<Outcome>, RewriteError> {
    let saturated = saturate::saturate(source, rules, Limits::default())?;
    let Saturated { egraph, classes, .. } = &saturated;
    let counts = AtDensities(source);
    let prices = PriceList { egraph, target, counts: &counts };
    let roots: Vec<egg::Id> = source.roots.iter().map(|root| classes[*root]).collect();
    let problem = Problem::new(egraph, &roots, &prices);
    let nodes = source_nodes(source, &saturated);
    let before = extract::cost_of(&nodes, &prices);
    let starts = [own_choice(&problem, &saturated, &nodes), problem.greedy()];
    let start = starts.into_iter().filter_map(|choice| Some((problem.cost(&choice)?, choice)));
    let Some((_, start)) = start.min_by_key(|(cost, _)| *cost) else { return Ok(None) };
    let Some(found) = problem.search(start, MAX_STEPS) else { return Ok(None) };
    if found.cost >= before {
        return Ok(None);
    }
    let own = problem.nodes(&found.choice).unwrap_or_default();
    let rewritten = Rewritten {
        ns_before: before / 1000,
        ns_after: found.cost / 1000,
        runner_up: runner_up(source, &saturated, (&own, &counts), target),
        is_cheapest: saturated.is_complete && found.is_proved,
        n_nodes: egraph.total_size(),
        n_rounds: saturated.log.len(),
        n_steps: found.n_steps,
        places: Vec::new(),
        rules: BTreeMap::new(),
        chains: Vec::new(),
        applications: BTreeMap::new(),
        nodes: source.nodes.clone(),
    };
    let outcome = outcome(source, &saturated, &problem, (&found.choice, rewritten));
    Ok(outcome.map(|mut outcome| {
        let form = prove::Dag { nodes: &outcome.nodes, roots: &outcome.roots };
        if let Some(derived) = proof::derive(source, rules, &saturated.log, form) {
            let steps = derived.applications.into_iter();
            let steps = steps.map(|(idx, application)| (idx, Step::new(application, rules)));
            outcome.rewritten.set_proofs(steps.collect(), derived.of);
        }
        outcome
    }))
}

/// The nodes of the source as they stand in the e-graph.
fn source_nodes(source: &Region, saturated: &Saturated) -> Vec<Node> {
    let in_graph = |(head, operands): &(Head, SmallVec<[usize; 4]>)| Node {
        head: head.clone(),
        operands: operands.iter().map(|idx| saturated.egraph.find(saturated.classes[*idx])).collect(),
    };
    source.nodes.iter().map(in_graph).collect()
}

/// The choice that is the source: for each class its first node in the source.
fn own_choice(problem: &Problem, saturated: &Saturated, nodes: &[Node]) -> Choice {
    let mut choice: Choice = Vec::new();
    for (node, class) in nodes.iter().zip(&saturated.classes) {
        let Some(class) = problem.number(saturated.egraph.find(*class)) else { continue };
        if choice.len() <= class {
            choice.resize(class + 1, None);
        }
        if choice[class].is_none() {
            choice[class] = problem.alternative(class, node);
        }
    }
    choice.resize(problem.len(), None);
    problem.kernels().for_each(|kernel| choice[kernel] = Some(0));
    choice
}

fn outcome(
    source: &Region,
    saturated: &Saturated,
    problem: &Problem,
    (choice, rewritten): (&Choice, Rewritten),
) -> Option<Outcome> {
    let find = |id| saturated.egraph.find(id);
    let mut first_same: BTreeMap<usize, usize> = BTreeMap::new();
    for (idx, class) in saturated.classes.iter().enumerate() {
        if let Some(class) = problem.number(find(*class)) {
            first_same.entry(class).or_insert(idx);
        }
    }
    let mut made = Outcome { nodes: Vec::new(), roots: Vec::new(), same_as: Vec::new(), rewritten };
    let mut place: BTreeMap<usize, usize> = BTreeMap::new();
    for class in problem.order(choice)? {
        let Some(node) = &problem.chosen(choice, class)?.node else { continue };
        let operands: Option<SmallVec<[usize; 4]>> = node
            .operands
            .iter()
            .map(|operand| place.get(&problem.number(find(*operand))?).copied())
            .collect();
        place.insert(class, made.nodes.len());
        made.nodes.push((node.head.clone(), operands?));
        made.same_as.push(first_same.get(&class).copied());
    }
    let roots = source.roots.iter();
    let roots: Option<Vec<usize>> =
        roots.map(|root| place.get(&problem.number(find(saturated.classes[*root]))?).copied()).collect();
    made.roots = roots?;
    Some(made)
}

/// Compares an outcome with its source. One that cannot be compared is not used.
fn is_proved(
    graph: &Graph,
    source: &Region,
    place: &Occurrence,
    outcome: &Outcome,
) -> Result<bool, RewriteError> {
    let before = prove::Dag { nodes: &source.nodes, roots: &source.roots };
    let after = prove::Dag { nodes: &outcome.nodes, roots: &outcome.roots };
    match prove::compare(before, after) {
        prove::Verdict::Equal => Ok(true),
        prove::Verdict::Unknown => Ok(false),
        prove::Verdict::Different => {
            let origin = source.roots.last().map(|root| graph.origin(place.values[*root]).to_string());
            let origin = origin.filter(|origin| !origin.is_empty());
            Err(RewriteError::Different {
                origin: origin.unwrap_or_else(|| "the graph".to_owned()),
                rules: outcome.rewritten.rules.keys().copied().collect::<Vec<_>>().join(", "),
            })
        }
    }
}

/// The edit that puts an outcome in the place of its source, and what stands for each of its nodes: values that are
/// there already are used.
fn patch(graph: &Graph, source: &Region, place: &Occurrence, outcome: &Outcome) -> (Patch, Vec<Operand>) {
    let why = if outcome.rewritten.is_cheapest {
        "cheapest form"
    } else {
        "cheaper form; the search was cut short"
    };
    let mut patch = Patch::new(why);
    let known: IndexMap<(Op, SmallVec<[Value; 4]>), Value, FxBuildHasher> = place
        .values
        .iter()
        .zip(&source.nodes)
        .filter(|(_, (head, _))| matches!(head, Head::Op(_)))
        .map(|(value, _)| ((graph.op(*value).clone(), graph.operands(*value)), *value))
        .collect();
    let outside: Vec<Value> = place
        .values
        .iter()
        .zip(&source.nodes)
        .filter(|(_, (head, _))| matches!(head, Head::Outside { .. }))
        .map(|(value, _)| *value)
        .collect();
    let origins = origins(graph, place, outcome);
    let mut values: Vec<Operand> = Vec::with_capacity(outcome.nodes.len());
    for ((head, operands), origin) in outcome.nodes.iter().zip(&origins) {
        let value = match head {
            Head::Outside { idx, .. } => Operand::Old(outside[*idx as usize]),
            Head::Op(op) => {
                let op = place.named(op);
                let operands: SmallVec<[Operand; 4]> = operands.iter().map(|idx| values[*idx]).collect();
                let old: Option<SmallVec<[Value; 4]>> = operands
                    .iter()
                    .map(|operand| match operand {
                        Operand::Old(value) => Some(*value),
                        Operand::New(_) => None,
                    })
                    .collect();
                match old.and_then(|old| known.get(&(op.clone(), old))) {
                    Some(value) => Operand::Old(*value),
                    None => patch.add(op, &operands, origin),
                }
            }
        };
        values.push(value);
    }
    for (root, new) in source.roots.iter().zip(&outcome.roots) {
        let (old, new) = (place.values[*root], values[*new]);
        if new != Operand::Old(old) {
            patch = patch.replace(old, new);
        }
    }
    (patch, values)
}

/// Where in the model each node comes from: as the value of the source that it is equal to, or as its user.
fn origins(graph: &Graph, place: &Occurrence, outcome: &Outcome) -> Vec<Origin> {
    let own = |same: &Option<usize>| same.map(|idx| graph.origin(place.values[idx]).clone());
    let mut origins: Vec<Option<Origin>> = outcome.same_as.iter().map(own).collect();
    for idx in (0..origins.len()).rev() {
        let Some(origin) = origins[idx].clone() else { continue };
        for operand in &outcome.nodes[idx].1 {
            origins[*operand].get_or_insert_with(|| origin.clone());
        }
    }
    origins.into_iter().map(Option::unwrap_or_default).collect()
}
