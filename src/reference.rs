//! The judge: the reference interpreter on a model's graph and weights.

use std::collections::BTreeMap;

use skipc_artifact::program::Program;
use skipc_artifact::target::DType;
use skipc_ir::attr::Name;
use skipc_ir::interp::{self, Batch, Datum, Env, EvalError, Number, Routing, Weights as _};
use skipc_ir::{Graph, SetSym};

use crate::spec::weights::Weights;

/// What a model computes for a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome<N> {
    /// `[n, vocab]`, row by row.
    pub logits: Vec<N>,
    /// Decisions of every router, in model order, `[n]` each.
    pub gates: Vec<Vec<bool>>,
    /// For each router how many tokens it wanted to execute and had no slot for; 0 where decisions were forced.
    pub overflow: Vec<usize>,
}

/// Evaluates a graph. `forced` replays decisions, one mask `[n]` a router.
///
/// # Errors
/// If the batch or the weights do not fit the graph.
pub fn run<N: Number>(
    graph: &Graph,
    weights: &dyn interp::Weights<N>,
    batch: &Batch,
    forced: Option<&[Vec<bool>]>,
) -> Result<Outcome<N>, EvalError> {
    let routing = Forced { graph, masks: forced };
    let mut outcome = Outcome { logits: Vec::new(), gates: Vec::new(), overflow: Vec::new() };
    for (name, datum) in interp::run(graph, &Env { batch, weights, routing: &routing })? {
        match datum {
            Datum::Real { data, .. } if name == "logits" => outcome.logits = data,
            Datum::Mask(mask) if name.starts_with("gate.") => {
                outcome.gates.push(mask);
                outcome.overflow.push(0);
            }
            // What a router wanted stands behind its gate.
            Datum::Mask(wanted) if forced.is_none() => {
                if let (Some(gate), Some(overflow)) = (outcome.gates.last(), outcome.overflow.last_mut()) {
                    *overflow = wanted.iter().zip(gate).filter(|(wanted, got)| **wanted && !**got).count();
                }
            }
            Datum::Mask(_) => {}
            _ => return Err(EvalError::Kind("logits or a gate")),
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
        let gates = self.graph.outputs().filter(|(name, _)| name.starts_with("gate."));
        let mut sets = gates.map(|(_, gate)| {
            let source = self.graph.operands(gate).first().copied()?;
            self.graph.op(source).opens()
        });
        let router = sets.position(|opened| opened == Some(set))?;
        masks.get(router).cloned()
    }
}

/// Weights as they stand in their file.
impl<N: Number> interp::Weights<N> for Weights {
    fn weight(&self, name: &str) -> Option<Vec<N>> {
        let tensor = self.tensor(name)?;
        Some(tensor.to_f32().into_iter().map(|value| N::from_f64(f64::from(value))).collect())
    }
}

/// Weights as an artefact holds them for one of its programs.
pub struct Constants<'a> {
    /// The program.
    pub program: &'a Program,
    /// Bytes of its constants.
    pub bytes: &'a [u8],
}

/// Constants converted to a number domain once, for many evaluations.
pub struct Converted<N>(BTreeMap<String, Vec<N>>);

impl<N: Number> Converted<N> {
    /// Converts all constants of the program.
    pub fn new(constants: &Constants<'_>) -> Converted<N> {
        let named = constants.program.constants.iter().map(|constant| constant.name.clone());
        Converted(named.filter_map(|name| Some((name.clone(), constants.weight(&name)?))).collect())
    }
}

impl<N: Number> interp::Weights<N> for Converted<N> {
    fn weight(&self, name: &str) -> Option<Vec<N>> {
        self.0.get(name).cloned()
    }
}

impl<N: Number> interp::Weights<N> for Constants<'_> {
    fn weight(&self, name: &str) -> Option<Vec<N>> {
        let constant =
            self.program.constants.iter().find(|constant| constant.name == Name::from(name).0.as_ref())?;
        let start = usize::try_from(constant.offset).ok()?;
        let bytes = self.bytes.get(start..start.checked_add(usize::try_from(constant.bytes()).ok()?)?)?;
        let number = |value: f32| N::from_f64(f64::from(value));
        match constant.dtype {
            DType::F32 => {
                Some(bytes.as_chunks().0.iter().map(|word| number(f32::from_le_bytes(*word))).collect())
            }
            DType::Bf16 => Some(
                bytes
                    .as_chunks()
                    .0
                    .iter()
                    .map(|half| number(half::bf16::from_le_bytes(*half).to_f32()))
                    .collect(),
            ),
            DType::U32 | DType::U8 => None,
        }
    }
}
