//! Decoding on the host, timed: steps of one token of each of some slots, of a model at several densities and of its
//! dense sibling, which is the same spec without skips; what `skipc bench --decode` does.
//!
//! All of them take turns, a step each in every round, behind prompts of the same length. Decisions are forced: each token
//! executes the same number of routers, drawn anew for each. Beside a time stand the bytes that the step had to touch
//! ([`Touched`]) and their share of what this machine reads in that time, measured before and after the rounds. Ratios are
//! medians of those of all rounds. The dense sibling has random weights, on whose values no time depends.

mod bandwidth;
mod forms;
mod report;
mod stepper;
mod touched;

use std::time::Instant;

use skipc_runtime::{Model as Artefact, Session};

use crate::bench::report::{median, sorted};
use crate::diagnostic::Diagnostic;
use crate::error::{Error, ErrorKind};
use crate::frontend::spec::model::Model;
use crate::frontend::spec::node::{Block, Node, Route};
use crate::frontend::spec::stack::Stack;

pub use bandwidth::read_bandwidth;
pub use forms::{Form, Pair, run as run_pair};
pub use report::{DecodeReport, Far, Prefill, Step as StepRow, svg};
pub use touched::{Step, Touched};

use stepper::{CHUNK, Lane, Stepper};

/// Times that prompts are scored and run in chunks.
const PREFILLS: usize = 3;

/// Tokens of these prompts, if the model has as many positions.
const PROMPT: u32 = 1024;

/// Positions at which a step of one slot is compared, the second as far as the model goes, and the first at most half as far.
const POSITIONS: [u32; 2] = [64, 4096];

/// What is timed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Shares of the routers that each token executes, in ascending order.
    pub densities: Vec<f64>,
    /// Numbers of slots that are decoded together.
    pub slots: Vec<u32>,
    /// Tokens before the first one that is timed.
    pub behind: u32,
    /// Steps that are timed.
    pub rounds: u32,
    /// Threads of the host.
    pub threads: usize,
}

impl Settings {
    /// How often [`run`] calls its `turn`.
    pub fn turns(&self) -> u64 {
        let lanes = self.slots.len() * (self.densities.len() + 1);
        lanes as u64 + u64::from(self.rounds) + 2
    }
}

/// The same model with every layer run for every token, and no router to ask.
pub fn dense_sibling(model: &Model) -> Model {
    fn without_routes(node: &Node) -> Node {
        match node {
            Node::Sequence(nodes) => Node::Sequence(nodes.iter().map(without_routes).collect()),
            Node::Parallel(nodes) => Node::Parallel(nodes.iter().map(without_routes).collect()),
            Node::Residual(layer) => Node::Residual(*layer),
            Node::Route(Route { executed, .. }) => without_routes(executed),
        }
    }
    let block = |block: &Block| Block { body: without_routes(&block.body), ..block.clone() };
    Model {
        name: format!("{}-dense", model.name),
        stream: model.stream,
        blocks: model.blocks.iter().map(block).collect(),
        stacks: model.stacks.iter().map(|stack| Stack { skips: Vec::new(), ..stack.clone() }).collect(),
    }
}

/// Times a model and its dense sibling. `turn` is called after each part of the work, outside of all times.
///
/// # Errors
/// `bench::no_steps` for a model that cannot generate, `bench::nothing_to_skip` for one without decisions,
/// `bench::positions` if it has fewer positions than are asked for; no memory.
pub fn run(
    (model, dense): (&Artefact, &Artefact),
    settings: &Settings,
    turn: &mut dyn FnMut(),
) -> Result<DecodeReport, Error> {
    let steppers = [Stepper::new(dense, settings.threads)?, Stepper::new(model, settings.threads)?];
    let [dense, skipping] = &steppers;
    check(skipping, settings)?;
    let before = read_bandwidth(settings.threads);
    let subjects: Vec<(&Stepper, Option<f64>)> = std::iter::once((dense, None))
        .chain(settings.densities.iter().map(|density| (skipping, Some(*density))))
        .collect();
    let mut steps = Vec::new();
    let room = settings.behind + settings.rounds + 1;
    let mut lanes = Vec::new();
    for slots in &settings.slots {
        for (stepper, density) in &subjects {
            let mut lane = Lane::new(stepper, density.unwrap_or(1.0), *slots, room)?;
            lane.prefill(settings.behind)?;
            // Finds code and threads awake.
            lane.step()?;
            lanes.push((*slots, *density, lane, Vec::new()));
            turn();
        }
    }
    for _ in 0..settings.rounds {
        for (_, _, lane, stepped) in &mut lanes {
            stepped.push(lane.step()?);
        }
        turn();
    }
    let prefills = subjects.iter().map(|of| prefill(*of)).collect::<Result<Vec<_>, Error>>()?;
    turn();
    let far = subjects.iter().map(|of| far(*of, settings.rounds)).collect::<Result<Vec<_>, Error>>()?;
    turn();
    let bandwidth = before.max(read_bandwidth(settings.threads));
    for lanes in lanes.chunks(subjects.len()) {
        let dense = &lanes[0].3;
        steps.extend(
            lanes
                .iter()
                .map(|(slots, density, _, own)| StepRow::new(*slots, *density, (own, dense), bandwidth)),
        );
    }
    Ok(DecodeReport {
        model: String::new(),
        source: String::new(),
        processor: super::processor(),
        code: skipping.module.describe(),
        dtype: skipping.module.program().dtype.name(),
        threads: settings.threads,
        routers: skipping.n_free(),
        behind: settings.behind,
        rounds: settings.rounds,
        read_bandwidth: bandwidth,
        steps,
        prefills,
        far,
        forms: Vec::new(),
    })
}

fn check(skipping: &Stepper, settings: &Settings) -> Result<(), Error> {
    let input = |code, message: String, help: &str| {
        Err(Error::new(ErrorKind::Input, Diagnostic::new(code, message).help(help)))
    };
    if skipping.n_free() == 0 {
        let message = "no router of the model decides anything, so it has no density".to_owned();
        return input("bench::nothing_to_skip", message, "bench a model with routers such as `gumbel`");
    }
    let wanted = u64::from(settings.behind) + u64::from(settings.rounds) + 1;
    if wanted > u64::from(skipping.positions()) {
        let message = format!("{wanted} tokens of a slot, the model has {} positions", skipping.positions());
        return input("bench::positions", message, "write a smaller `--behind` or fewer `--rounds`");
    }
    Ok(())
}

/// A prompt in chunks against one that is scored whole.
fn prefill((stepper, density): (&Stepper, Option<f64>)) -> Result<Prefill, Error> {
    let mut session = Session::of_module(&stepper.module)?;
    let tokens = PROMPT.min(session.function().max_positions).min(session.function().max_tokens);
    let batch = stepper.batch(density.unwrap_or(1.0), tokens);
    let (mut whole, mut chunks) = (Vec::new(), Vec::new());
    for round in 0..=PREFILLS {
        let started = Instant::now();
        std::hint::black_box(session.run(&batch)?);
        let scored = started.elapsed();
        let steps = Lane::new(stepper, density.unwrap_or(1.0), 1, tokens)?.prefill(tokens)?;
        // The first round warms up.
        if round > 0 {
            whole.push(scored.as_secs_f64());
            chunks.push(steps.as_secs_f64());
        }
    }
    let ratios = whole.iter().zip(&chunks).map(|(whole, chunks)| whole / chunks).collect();
    Ok(Prefill {
        density,
        tokens,
        chunk: CHUNK.min(tokens),
        score_s: median(&sorted(whole)),
        chunks_s: median(&sorted(chunks)),
        speed: median(&sorted(ratios)),
    })
}

/// Steps of one slot at two positions, in turns.
fn far((stepper, density): (&Stepper, Option<f64>), rounds: u32) -> Result<Far, Error> {
    let last = stepper.positions() - rounds - 1;
    let far = POSITIONS[1].min(last);
    let positions = [POSITIONS[0].min(far / 2), far];
    let mut lanes = Vec::new();
    for position in positions {
        let mut lane = Lane::new(stepper, density.unwrap_or(1.0), 1, position + rounds + 1)?;
        lane.prefill(position)?;
        lane.step()?;
        lanes.push((lane, Vec::new()));
    }
    for _ in 0..rounds {
        for (lane, stepped) in &mut lanes {
            stepped.push(lane.step()?);
        }
    }
    Ok(Far::new(density, positions, [&lanes[0].1, &lanes[1].1]))
}

#[cfg(test)]
mod tests;
