//! The oracle: the reference interpreter on a model's graph and its original tensors.

use std::collections::BTreeMap;

use skipc_ir::interp::{self, Datum, Env, EvalError, FlatBatch, Number, Routing, Weights as _};
use skipc_ir::{Domain, Graph, Port, Role, SetSym};
use skipc_runtime::Choices;

use crate::frontend::weights::Weights;

/// What a model computes for a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome<N> {
    /// `[n, vocab]`, row by row.
    pub logits: Vec<N>,
    /// Decisions of every router, in model order, `[n]` each.
    pub gates: Vec<Vec<bool>>,
    /// For each router how many tokens it wanted to execute and had no slot for; 0 where decisions were forced.
    pub overflow: Vec<usize>,
    /// Which choices tokens got in each layer of experts, in the order in which they run.
    pub choices: Vec<Choices>,
}

impl<N> Default for Outcome<N> {
    fn default() -> Self {
        Outcome { logits: Vec::new(), gates: Vec::new(), overflow: Vec::new(), choices: Vec::new() }
    }
}

/// What replays these choices of a model's layers of experts in a graph.
pub(crate) fn replayed<N: Number>(graph: &Graph, layers: &[Choices]) -> BTreeMap<Role, Datum<N>> {
    let datum = |port: Port| {
        let Role::ForcedChoices { layer, .. } = port.role else { return None };
        let cols = port.ty.cols();
        let lists = layers.get(layer as usize)?.to_numbers(cols);
        let data = lists.into_iter().map(N::from_f64).collect();
        Some((port.role, Datum::Real { cols: cols as usize, data }))
    };
    graph.signature().inputs.into_iter().filter_map(datum).collect()
}

/// Choices as a graph gives them.
pub(crate) fn choices_of<N: Number>(of: u32, cols: usize, lists: &[N]) -> Choices {
    let lists: Vec<f64> = lists.iter().map(|choice| choice.to_f64()).collect();
    Choices::of_numbers(of, u32::try_from(cols).unwrap_or(u32::MAX), &lists)
}

/// Evaluates a graph. `forced` replays decisions, one mask `[n]` a router.
///
/// # Errors
/// If the batch or the weights do not fit the graph.
pub fn run<N: Domain>(
    graph: &Graph,
    weights: &dyn interp::Weights<N>,
    batch: &FlatBatch,
    forced: Option<&[Vec<bool>]>,
) -> Result<Outcome<N>, EvalError> {
    let routing = Forced { graph, masks: forced };
    let mut outcome = Outcome::default();
    let env = Env { batch, tensors: BTreeMap::new(), weights, routing: &routing };
    for (role, datum) in skipc_ir::run(graph, &env)? {
        match (role, datum) {
            (Role::Logits, Datum::Real { data, .. }) => outcome.logits = data,
            (Role::Decision { .. }, Datum::Mask(mask)) => {
                outcome.gates.push(mask);
                outcome.overflow.push(0);
            }
            // What a router wanted stands behind its decision.
            (Role::Wanted { .. }, Datum::Mask(wanted)) if forced.is_none() => {
                if let (Some(gate), Some(overflow)) = (outcome.gates.last(), outcome.overflow.last_mut()) {
                    *overflow = wanted.iter().zip(gate).filter(|(wanted, got)| **wanted && !**got).count();
                }
            }
            (Role::Wanted { .. }, Datum::Mask(_)) => {}
            (Role::Choices { of, .. }, Datum::Real { cols, data }) => {
                outcome.choices.push(choices_of(of, cols, &data));
            }
            _ => return Err(EvalError::Kind("logits, a decision or choices")),
        }
    }
    Ok(outcome)
}

/// Decisions by router; a set's router is the first whose gate says what the set executes.
pub(crate) struct Forced<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) masks: Option<&'a [Vec<bool>]>,
}

impl Routing for Forced<'_> {
    fn forced(&self, set: SetSym, _: usize) -> Option<Vec<bool>> {
        let masks = self.masks?;
        let mut sets = self.graph.decisions().map(|(_, gate)| {
            let source = self.graph.operands(gate).first().copied()?;
            self.graph.op(source).opens()
        });
        let router = sets.position(|opened| opened == Some(set))?;
        masks.get(router).cloned()
    }
}

/// Elements of all tensors together up to which they are kept in a number domain: half a gigabyte in f64.
const KEPT: usize = 1 << 26;

/// The original tensors in a number domain, for many evaluations: converted once, or, if they are many, whenever they are
/// asked for.
pub struct Converted<'w, N> {
    weights: &'w Weights,
    kept: BTreeMap<String, Vec<N>>,
}

impl<'w, N: Number> Converted<'w, N> {
    /// The weights in this domain.
    pub fn new(weights: &'w Weights) -> Converted<'w, N> {
        let all: usize = weights.sizes().map(|(_, n)| n).sum();
        let names = weights.sizes().map(|(name, _)| name).filter(|_| all <= KEPT);
        let kept = names.filter_map(|name| Some((name.to_owned(), weights.weight(name)?)));
        Converted { weights, kept: kept.collect() }
    }
}

impl<N: Number> interp::Weights<N> for Converted<'_, N> {
    fn weight(&self, name: &str) -> Option<Vec<N>> {
        self.kept.get(name).cloned().or_else(|| self.weights.weight(name))
    }
}
