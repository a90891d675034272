//! Known-answer tests for the artefact: the oracle's results on a few tokens.

use skipc_artifact::target::DType;
use skipc_ir::interp::Batch;
use skipc_ir::{Graph, random_score};
use skipc_runtime::known_answer::{Case, FREE, KnownAnswers};

use super::cases::masks;
use super::oracle::Oracle;
use super::{LadderError, all_finite};
use crate::verify::reference::{self, Constants, Converted};

/// Lengths of the two sequences: few, because a compile waits for the answers.
const LENGTHS: [usize; 2] = [3, 2];

/// Products of weights and tokens beyond which there are fewer tokens, but always one.
const WORK: u64 = 1 << 28;

/// Scores nearer than this to a border may fall on the other side in f32.
const BAND: f64 = 1e-3;

/// Computes the answers of a function, of its graph before the passes, in f64, from the program's own constants.
///
/// Decisions are forced to none, all and about half of the tokens. Free ones come with f32 programs, unless a score
/// stands so near to a border that rounding could decide.
///
/// # Errors
/// [`LadderError::NotFinite`] if the weights overflow; else a graph that cannot be evaluated, a fault of the compiler.
pub fn known_answers(
    graph: &Graph,
    function: &str,
    constants: &Constants<'_>,
) -> Result<KnownAnswers, LadderError> {
    let program = constants.program;
    let missing = || LadderError::stage("known answers", &format!("there is no function `{function}`"));
    let function = program.function(function).ok_or_else(missing)?;
    let routers = function.interface.routers();
    let parameters: u64 =
        program.constants.iter().map(|constant| u64::from(constant.rows) * u64::from(constant.cols)).sum();
    let mut left = usize::try_from(WORK / parameters.max(1)).unwrap_or(usize::MAX).max(1);
    left = left.min(function.max_tokens as usize);
    let mut sequences: Vec<Vec<i64>> = Vec::new();
    for (idx, wanted) in (0u64..).zip(LENGTHS) {
        let length = wanted.min(function.max_positions as usize).min(left);
        left -= length;
        let draw = |place: u64| (random_score(11, 0, idx, place) % u64::from(function.vocab_size)) as i64;
        sequences.push((0..length as u64).map(draw).collect());
    }
    let batch = Batch::from_sequences(sequences.iter().map(Vec::as_slice));
    let n = batch.tokens.len();
    let weights = Converted::<f64>::new(constants);
    let run = |forced: Option<&[Vec<bool>]>| {
        reference::run::<f64>(graph, &weights, &batch, forced)
            .map_err(|error| LadderError::stage("known answers", &error))
    };
    let mut answers = KnownAnswers {
        tokens: batch.tokens.iter().map(|token| *token as u32).collect(),
        lengths: sequences.iter().map(|sequence| sequence.len() as u32).collect(),
        cases: Vec::new(),
    };
    // f64 holds what overflows in f32, on the way to logits too.
    let (singles, all) = (Converted::<f32>::new(constants), masks(&routers, n, |_| n));
    let single = reference::run::<f32>(graph, &singles, &batch, Some(&all))
        .map_err(|error| LadderError::stage("known answers", &error))?;
    if !all_finite(&single.logits) {
        return Err(LadderError::NotFinite { what: "the known answers".to_owned() });
    }
    let mut push = |name: &str, outcome: reference::Outcome<f64>| {
        if !all_finite(&outcome.logits) {
            return Err(LadderError::NotFinite { what: format!("the known answers, decisions `{name}`,") });
        }
        let gates = outcome.gates.iter().map(|gate| gate.iter().map(|bit| u8::from(*bit)).collect());
        let logits = outcome.logits.iter().map(|logit| *logit as f32).collect();
        answers.cases.push(Case { name: name.to_owned(), gates: gates.collect(), logits });
        Ok(())
    };
    for (name, count) in [("all", n), ("half", n.div_ceil(2)), ("none", 0)] {
        push(name, run(Some(&masks(&routers, n, |_| count)))?)?;
    }
    if program.dtype == DType::F32 {
        let outcome = run(None)?;
        if !has_near_tie(graph, &weights, &batch, &outcome.gates)? {
            push(FREE, outcome)?;
        }
    }
    Ok(answers)
}

fn has_near_tie(
    graph: &Graph,
    weights: &Converted<f64>,
    batch: &Batch,
    gates: &[Vec<bool>],
) -> Result<bool, LadderError> {
    let oracle = Oracle::new(graph.clone()).map_err(|error| LadderError::stage("known answers", &error))?;
    let verdict = oracle.run::<f64>(weights, batch, gates)?;
    let rows = 0..batch.tokens.len();
    Ok((0..gates.len())
        .any(|router| rows.clone().any(|row| oracle.is_near_tie(&verdict, router, row, batch, BAND))))
}
