//! Known-answer tests for the artefact: the oracle's results on a few tokens.

use std::sync::atomic::{AtomicUsize, Ordering};

use skipc_artifact::program::Function;
use skipc_ir::interp::{self, FlatBatch, Number};
use skipc_ir::{Domain, Graph};
use skipc_runtime::known_answer::{Case, FREE, KnownAnswers};

use super::cases::{self, masks};
use super::oracle::Oracle;
use super::{LadderError, all_finite};
use crate::frontend::weights::Weights;
use crate::verify::reference;

/// Lengths of the two sequences: few, because a compile waits for the answers.
const LENGTHS: [usize; 2] = [3, 2];

/// Weights times tokens beyond which there are fewer tokens, but always one.
const WORK: u64 = 1 << 28;

/// Scores nearer than this to a border may fall on the other side in f32.
const BAND: f64 = 1e-3;

/// Seed of what is drawn.
const SEED: u64 = 11;

/// The cases in which decisions are forced.
const FORCED: [&str; 3] = ["all", "half", "none"];

/// Computes the answers of a function, of its graph before the passes, in f64, from the original tensors.
///
/// Decisions are forced to none, all and about half of the tokens. Free ones are there too, unless a score stands so near
/// to a border that rounding could decide.
///
/// To read a tensor takes longer than to compute with it, so all forced cases are sequences of one batch, and no more than a
/// tensor or two are held at a time. `tick` hears how many have been read.
///
/// # Errors
/// [`LadderError::NotFinite`] if the weights overflow; else a graph that cannot be evaluated, a fault of the compiler.
pub fn known_answers(
    graph: &Graph,
    function: &Function,
    weights: &Weights,
    tick: &(dyn Fn(usize) + Sync),
) -> Result<KnownAnswers, LadderError> {
    let weights = Counted { weights, read: AtomicUsize::new(0), tick };
    let lengths = lengths(function, weights.weights);
    let batch = cases::drawn(function, SEED, &lengths);
    let n = batch.len();
    let routers = function.interface.routers();
    // How many tokens execute in each.
    let of_cases = [n, n.div_ceil(2), 0].map(|count| masks(&routers, n, |_| count));
    let together = batch.repeated(FORCED.len());
    let in_all_cases = |router: usize| of_cases.iter().flat_map(|masks| masks[router].clone()).collect();
    let forced: Vec<Vec<bool>> = (0..routers.len()).map(in_all_cases).collect();
    let doubles = || {
        let forced = evaluate::<f64>(graph, &weights, &together, &forced)?;
        decide(graph, &weights, &batch).map(|free| (forced, free))
    };
    // f64 holds what overflows in f32, on the way to logits too.
    let single = || evaluate::<f32>(graph, &weights, &batch, &of_cases[0]);
    let (doubles, single) = rayon::join(doubles, single);
    let ((forced, free), _) = (doubles?, single?);
    let mut answers = KnownAnswers {
        tokens: batch.tokens.iter().map(|token| *token as u32).collect(),
        rows: batch.rows.clone(),
        lengths: lengths.iter().map(|length| *length as u32).collect(),
        cases: Vec::new(),
    };
    let n_logits = forced.logits.len() / FORCED.len();
    for ((idx, name), logits) in FORCED.iter().enumerate().zip(forced.logits.chunks(n_logits.max(1))) {
        answers.cases.push(case(name, forced.gates.iter().map(|gate| &gate[idx * n..][..n]), logits));
    }
    answers.cases.extend(free.map(|(gates, logits)| case(FREE, gates.iter().map(Vec::as_slice), &logits)));
    Ok(answers)
}

fn case<'g>(name: &str, gates: impl Iterator<Item = &'g [bool]>, logits: &[f64]) -> Case {
    Case {
        name: name.to_owned(),
        gates: gates.map(|gate| gate.iter().map(|bit| u8::from(*bit)).collect()).collect(),
        logits: logits.iter().map(|logit| *logit as f32).collect(),
    }
}

/// Lengths of the sequences: as many tokens as the weights leave time for.
fn lengths(function: &Function, weights: &Weights) -> [usize; 2] {
    let parameters: usize = weights.sizes().map(|(_, n)| n).sum();
    let left = usize::try_from(WORK / (parameters as u64).max(1)).unwrap_or(usize::MAX).max(1);
    let mut left = left.min(function.max_tokens as usize);
    LENGTHS.map(|wanted| {
        let length = wanted.min(function.max_positions as usize).min(left);
        left -= length;
        length
    })
}

fn evaluate<N: Domain>(
    graph: &Graph,
    weights: &Counted<'_>,
    batch: &FlatBatch,
    forced: &[Vec<bool>],
) -> Result<reference::Outcome<N>, LadderError> {
    let outcome = reference::run::<N>(graph, weights, batch, Some(forced))
        .map_err(|error| LadderError::stage("known answers", &error))?;
    check_finite(&outcome.logits)?;
    Ok(outcome)
}

fn check_finite<N: Number>(logits: &[N]) -> Result<(), LadderError> {
    match all_finite(logits) {
        true => Ok(()),
        false => Err(LadderError::NotFinite { what: "the known answers".to_owned() }),
    }
}

/// Decisions `[routers][n]` and logits.
type Decided = (Vec<Vec<bool>>, Vec<f64>);

/// What the routers decide, and the logits; nothing if a score is so near to its border that rounding could decide.
fn decide(graph: &Graph, weights: &Counted<'_>, batch: &FlatBatch) -> Result<Option<Decided>, LadderError> {
    let oracle = Oracle::new(graph.clone()).map_err(|error| LadderError::stage("known answers", &error))?;
    let verdict = oracle.run::<f64>(weights, batch, (None, None))?;
    check_finite(&verdict.logits)?;
    let rows = 0..batch.len();
    let near = (0..verdict.own.len())
        .any(|router| rows.clone().any(|row| oracle.is_near_tie(&verdict, router, row, batch, BAND)));
    Ok((!near).then_some((verdict.own, verdict.logits)))
}

/// Weights that say how many tensors were read.
struct Counted<'w> {
    weights: &'w Weights,
    read: AtomicUsize,
    tick: &'w (dyn Fn(usize) + Sync),
}

impl<N: Number> interp::Weights<N> for Counted<'_> {
    fn weight(&self, name: &str) -> Option<Vec<N>> {
        (self.tick)(self.read.fetch_add(1, Ordering::Relaxed) + 1);
        self.weights.weight(name)
    }
}
