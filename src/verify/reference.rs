//! The oracle: the reference interpreter on a model's graph and weights.

use std::collections::{BTreeMap, BTreeSet};

use skipc_artifact::program::{Constant, Program};
use skipc_artifact::target::DType;
use skipc_ir::attr::Name;
use skipc_ir::interp::{self, Batch, Datum, Env, EvalError, Number, Routing, Weights as _};
use skipc_ir::{Graph, Role, SetSym};
use skipc_plan::{ConstantSource, PlanConstant, RecipeStep, recipe};

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
    let env = Env { batch, tensors: BTreeMap::new(), weights, routing: &routing };
    for (role, datum) in interp::run(graph, &env)? {
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
            _ => return Err(EvalError::Kind("logits or a decision")),
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

/// Weights as an artefact holds them for one of its programs.
pub struct Constants<'a> {
    /// The program.
    pub program: &'a Program,
    /// What its plan says of its constants.
    pub sources: &'a [PlanConstant],
    /// Bytes of its constants.
    pub bytes: &'a [u8],
}

impl Constants<'_> {
    /// A tensor of the weights file: as a constant of its own, or as what one was made of. What was done to it is undone:
    /// terms are added up, gains divided out. A gain of 0 has left nothing of its column, for which
    /// any weight is as good as 0.
    fn tensor(&self, name: &str) -> Option<Vec<f64>> {
        if let Some(constant) = self.constant(name) {
            return Some(constant);
        }
        let recipes = self.sources.iter().filter_map(|source| match &source.source {
            ConstantSource::Recipe { steps } => Some(steps.as_slice()),
            _ => None,
        });
        recipes.into_iter().find_map(|steps| match steps.first() {
            Some(RecipeStep::Weight { name: of, .. }) if of == name => self.undo(steps),
            _ => None,
        })
    }

    /// The tensor that a recipe began with; `None` if its result does not hold all of it.
    fn undo(&self, recipe: &[RecipeStep]) -> Option<Vec<f64>> {
        let (last, before) = recipe.split_last()?;
        // The first term alone says that there are others.
        let (mut values, mut left) = match last {
            RecipeStep::Term { term: 0 } => (self.terms(before)?, before),
            _ => (self.made(recipe)?, recipe),
        };
        while let Some((step, before)) = left.split_last() {
            match step {
                RecipeStep::Weight { .. } => return before.is_empty().then_some(values),
                RecipeStep::FoldGain { gain } => {
                    let gain = self.constant(gain)?;
                    let quotient = |value: f64, gain: f64| if gain == 0.0 { 0.0 } else { value / gain };
                    for row in values.chunks_exact_mut(gain.len().max(1)) {
                        row.iter_mut().zip(&gain).for_each(|(value, gain)| *value = quotient(*value, *gain));
                    }
                }
                RecipeStep::Transpose => {
                    // The last step, so that these are the columns of the constant.
                    let cols = self.constant_of(recipe)?.cols as usize;
                    let rows = values.len().checked_div(cols)?;
                    let places = (0..cols).flat_map(|col| (0..rows).map(move |row| row * cols + col));
                    values = places.map(|at| values[at]).collect();
                }
                RecipeStep::Panels { outputs, terms } => {
                    values = unpack((*outputs, columns(recipe)?), *terms, &values)?;
                }
                RecipeStep::Swizzled { outputs } => {
                    let (_, places) = recipe::swizzled_places(*outputs, columns(recipe)?)?;
                    values = places.map(|at| values.get(at).copied()).collect::<Option<_>>()?;
                }
                RecipeStep::Rows { .. } | RecipeStep::Term { .. } => return None,
            }
            left = before;
        }
        None
    }

    /// The sum of all terms of a constant.
    fn terms(&self, recipe: &[RecipeStep]) -> Option<Vec<f64>> {
        let mut recipe = recipe.to_vec();
        let mut sum: Option<Vec<f64>> = None;
        for term in 0..recipe::BF16_TERMS {
            recipe.push(RecipeStep::Term { term });
            let values = self.made(&recipe)?;
            recipe.pop();
            sum = Some(match sum {
                Some(sum) => sum.iter().zip(&values).map(|(sum, value)| sum + value).collect(),
                None => values,
            });
        }
        sum
    }

    /// The elements of the constant of this recipe.
    fn made(&self, recipe: &[RecipeStep]) -> Option<Vec<f64>> {
        self.values(self.constant_of(recipe)?)
    }

    fn constant_of(&self, recipe: &[RecipeStep]) -> Option<&Constant> {
        let mut made = self.sources.iter().zip(&self.program.constants);
        let (_, constant) = made.find(|(source, _)| match &source.source {
            ConstantSource::Recipe { steps } => steps == recipe,
            _ => false,
        })?;
        Some(constant)
    }

    /// The elements of the constant of this name.
    fn constant(&self, name: &str) -> Option<Vec<f64>> {
        let mut constants = self.program.constants.iter();
        self.values(constants.find(|constant| constant.name == Name::from(name).0.as_ref())?)
    }

    fn values(&self, constant: &Constant) -> Option<Vec<f64>> {
        let start = usize::try_from(constant.offset).ok()?;
        let bytes = self.bytes.get(start..start.checked_add(usize::try_from(constant.bytes()).ok()?)?)?;
        match constant.dtype {
            DType::F32 => {
                let words = bytes.as_chunks().0.iter();
                Some(words.map(|word| f64::from(f32::from_le_bytes(*word))).collect())
            }
            DType::Bf16 => {
                let halves = bytes.as_chunks().0.iter();
                Some(halves.map(|half| f64::from(half::bf16::from_le_bytes(*half).to_f32())).collect())
            }
            DType::U32 | DType::U8 => None,
        }
    }
}

/// Columns of the tensor that a recipe begins with.
fn columns(recipe: &[RecipeStep]) -> Option<u32> {
    match recipe.first()? {
        RecipeStep::Weight { cols, .. } => Some(*cols),
        _ => None,
    }
}

/// The matrix of which these are the panels.
fn unpack((rows, cols): (u32, u32), terms: u32, panels: &[f64]) -> Option<Vec<f64>> {
    let (rows, cols) = (rows as usize, cols as usize);
    let mut matrix = vec![0.0; rows.checked_mul(cols)?];
    for (from, element) in recipe::panel_places(rows, cols, terms as usize)?.zip(panels) {
        if let Some(place) = from.and_then(|at| matrix.get_mut(at)) {
            *place = *element;
        }
    }
    Some(matrix)
}

/// Constants converted to a number domain once, for many evaluations.
pub struct Converted<N>(BTreeMap<String, Vec<N>>);

impl<N: Number> Converted<N> {
    /// Converts all tensors that the program is made of.
    pub fn new(constants: &Constants<'_>) -> Converted<N> {
        let mut names: BTreeSet<&str> = BTreeSet::new();
        for source in constants.sources {
            match &source.source {
                ConstantSource::Weight { name } => drop(names.insert(name)),
                ConstantSource::Recipe { steps } => names.extend(recipe::tensors(steps)),
                ConstantSource::Zero | ConstantSource::RopeCos { .. } | ConstantSource::RopeSin { .. } => {}
            }
        }
        Converted(
            names.into_iter().filter_map(|name| Some((name.to_owned(), constants.weight(name)?))).collect(),
        )
    }
}

impl<N: Number> interp::Weights<N> for Converted<N> {
    fn weight(&self, name: &str) -> Option<Vec<N>> {
        self.0.get(name).cloned()
    }
}

impl<N: Number> interp::Weights<N> for Constants<'_> {
    fn weight(&self, name: &str) -> Option<Vec<N>> {
        Some(self.tensor(name)?.into_iter().map(N::from_f64).collect())
    }
}
