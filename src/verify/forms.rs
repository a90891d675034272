//! The forms of a model, each as something that runs a batch.

use std::collections::BTreeMap;

use skipc_ir::interp::{FlatBatch, Weights};
use skipc_ir::{Domain, Graph};
use skipc_plan::Plan;
use skipc_plan::interp::{self, Constants, Element, Mode, States, Tiling};
use skipc_runtime::Session;
use skipc_runtime::choices::{self, Choices};
use skipc_runtime::distance::Bound;
use skipc_runtime::steps::cuts;

use super::LadderError;
use super::cases::select_masks;
use crate::verify::reference::{self, Outcome};

/// Rows of a tile of the kernel interpreter: small and odd, so that short batches have several tiles and a tail.
pub(super) const TILE_ROWS: u32 = 7;

/// A form that runs.
pub(super) struct Runner<'a, N> {
    /// What it is, such as `kernels`.
    pub(super) form: String,
    /// In which numbers it computes.
    pub(super) numbers: &'static str,
    /// How far it may be from the oracle.
    pub(super) bound: Bound,
    run: Box<Run<'a, N>>,
}

type Run<'a, N> = dyn FnMut(&FlatBatch, Option<&[Vec<bool>]>) -> Result<Outcome<N>, LadderError> + 'a;

impl<'a, N> Runner<'a, N> {
    pub(super) fn new(
        form: String,
        numbers: &'static str,
        bound: Bound,
        run: impl FnMut(&FlatBatch, Option<&[Vec<bool>]>) -> Result<Outcome<N>, LadderError> + 'a,
    ) -> Runner<'a, N> {
        Runner { form, numbers, bound, run: Box::new(run) }
    }

    /// Runs the batch, under the forced decisions if there are any.
    pub(super) fn run(
        &mut self,
        batch: &FlatBatch,
        forced: Option<&[Vec<bool>]>,
    ) -> Result<Outcome<N>, LadderError> {
        (self.run)(batch, forced)
    }
}

/// Planned kernels, which run a batch in steps of at most so many tokens, cut between its sequences as the runtime does.
fn of_kernels<'a, N>(
    (numbers, bound): (&'static str, Bound),
    most: u32,
    mut step: impl FnMut(&FlatBatch, Option<&[Vec<bool>]>) -> Result<Outcome<N>, LadderError> + 'a,
) -> Runner<'a, N> {
    let run = move |batch: &FlatBatch, forced: Option<&[Vec<bool>]>| {
        if batch.len() <= most as usize {
            return step(batch, forced);
        }
        let mut whole = Outcome::default();
        for sequences in cuts(&lengths(batch), most) {
            let keep = |row: usize| sequences.contains(&(batch.sequences[row] as usize));
            let own = forced.map(|masks| select_masks(masks, keep));
            let Outcome { logits, gates, choices, .. } = step(&batch.select(keep), own.as_deref())?;
            whole.logits.extend(logits);
            whole.gates.resize(gates.len(), Vec::new());
            whole.gates.iter_mut().zip(gates).for_each(|(all, gate)| all.extend(gate));
            choices::extend_all(&mut whole.choices, &choices);
        }
        Ok(whole)
    };
    Runner::new("kernels".to_owned(), numbers, bound, run)
}

/// A graph in the number domain `N`.
pub(super) fn graph<'a, N: Domain>(
    form: &'static str,
    numbers: &'static str,
    graph: &'a Graph,
    weights: &'a dyn Weights<N>,
    bound: Bound,
) -> Runner<'a, N> {
    let run = move |batch: &FlatBatch, forced: Option<&[Vec<bool>]>| {
        reference::run(graph, weights, batch, forced).map_err(|error| LadderError::stage(form, &error))
    };
    Runner { form: form.to_owned(), numbers, bound, run: Box::new(run) }
}

/// The planned kernels in the number domain `N`, without any rounding of their own.
pub(super) fn kernels_in<'a, N: Element>(
    numbers: &'static str,
    plan: &'a Plan,
    constants: &'a Constants<N>,
    bound: Bound,
) -> Runner<'a, N> {
    let step = move |batch: &FlatBatch, forced: Option<&[Vec<bool>]>| {
        let places = (Mode::Arena, Tiling::of(TILE_ROWS));
        let outcome = interp::run_plan_in::<N>(
            plan,
            constants,
            &mut States::default(),
            &kernel_batch(batch, forced),
            places,
        )
        .map_err(|fault| LadderError::stage("kernels", &fault))?;
        Ok(outcome_of(outcome))
    };
    of_kernels((numbers, bound), plan.function.max_tokens, step)
}

/// The planned kernels in the program's own precision.
pub(super) fn kernels<'a>(plan: &'a Plan, constants: &'a [u8], bound: Bound) -> Runner<'a, f64> {
    let step =
        move |batch: &FlatBatch, forced: Option<&[Vec<bool>]>| run_plan(plan, constants, batch, forced);
    of_kernels((plan.dtype.name(), bound), plan.function.max_tokens, step)
}

/// The machine's own code.
pub(super) fn code<'a>(mut session: Session, bound: Bound) -> Runner<'a, f64> {
    let (form, numbers) = (session.program().target.to_string(), session.program().dtype.name());
    let run = move |batch: &FlatBatch, forced: Option<&[Vec<bool>]>| {
        let bytes = |masks: &[Vec<bool>]| -> Vec<Vec<u8>> {
            masks.iter().map(|mask| mask.iter().map(|bit| u8::from(*bit)).collect()).collect()
        };
        let outputs = session.run_with_choices(&skipc_runtime::Batch {
            tokens: batch.tokens.iter().map(|token| *token as u32).collect(),
            rows: batch.rows.clone(),
            lengths: lengths(batch),
            routing: forced.map(bytes),
            experts: None,
        })?;
        Ok(Outcome {
            logits: outputs.logits.into_iter().map(f64::from).collect(),
            gates: outputs.gates.iter().map(|gate| gate.iter().map(|bit| *bit != 0).collect()).collect(),
            overflow: outputs.overflow.into_iter().map(|count| count as usize).collect(),
            choices: outputs.choices,
        })
    };
    Runner { form, numbers, bound, run: Box::new(run) }
}

/// Runs the planned kernels on the kernel interpreter, in the precision of the plan. `constants` are the bytes of all
/// constants, each at its offset.
///
/// # Errors
/// What the interpreter finds wrong with the plan.
pub fn run_plan(
    plan: &Plan,
    constants: &[u8],
    batch: &FlatBatch,
    forced: Option<&[Vec<bool>]>,
) -> Result<Outcome<f64>, LadderError> {
    let places = plan.constants.iter().map(|constant| &constant.constant);
    let slices: Vec<&[u8]> = places
        .map(|place| &constants[place.offset as usize..(place.offset + place.bytes()) as usize])
        .collect();
    let places = (Mode::Arena, Tiling::of(TILE_ROWS));
    let outcome = interp::run_function(
        &plan.kernels,
        &plan.function,
        &slices,
        &mut States::default(),
        &kernel_batch(batch, forced),
        places,
    )
    .map_err(|fault| LadderError::stage("kernels", &fault))?;
    let interp::Outcome { logits, gates, choices, .. } = outcome;
    let logits = logits.into_iter().map(f64::from).collect();
    Ok(outcome_of(interp::Outcome { logits, gates, choices, results: BTreeMap::new() }))
}

pub(super) fn outcome_of<N>(outcome: interp::Outcome<N>) -> Outcome<N> {
    let interp::Outcome { logits, gates, choices, .. } = outcome;
    let gates = gates.into_iter().map(|gate| gate.mask).collect();
    let choices =
        choices.iter().map(|layer| Choices::of_numbers(layer.of, layer.places, &layer.lists)).collect();
    Outcome { logits, gates, choices, ..Outcome::default() }
}

pub(super) fn kernel_batch(batch: &FlatBatch, forced: Option<&[Vec<bool>]>) -> interp::StepInput {
    let words = |ints: &[i64]| ints.iter().map(|int| *int as u32).collect();
    interp::StepInput {
        tokens: words(&batch.tokens),
        positions: words(&batch.positions),
        sequences: words(&batch.sequences),
        forced: forced.map(<[Vec<bool>]>::to_vec),
        rows: batch.rows.iter().map(|number| f64::from(*number)).collect(),
        ..interp::StepInput::default()
    }
}

/// Lengths of the batch's sequences, those between with no tokens included.
pub(super) fn lengths(batch: &FlatBatch) -> Vec<u32> {
    let mut lengths = Vec::new();
    for sequence in &batch.sequences {
        let sequence = usize::try_from(*sequence).unwrap_or(0);
        if lengths.len() <= sequence {
            lengths.resize(sequence + 1, 0);
        }
        lengths[sequence] += 1;
    }
    lengths
}
