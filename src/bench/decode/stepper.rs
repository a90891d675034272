//! A model that is decoded with forced decisions.

use std::time::{Duration, Instant};

use skipc_ir::random_score;
use skipc_plan::traffic::ByMemory;
use skipc_runtime::decode::{Cached, Chunk, Decoder, Rows, Slot};
use skipc_runtime::trace::{self, Decider};
use skipc_runtime::{Batch, Device, Model as Artefact, Module, Options};

use super::touched::{Step, Touched};
use crate::diagnostic::Diagnostic;
use crate::error::{Error, ErrorKind};

/// Seed of tokens and decisions.
const SEED: u64 = 17;

/// Most tokens of a step of a prompt.
pub(super) const CHUNK: u32 = 256;

/// A model with its steps.
pub(super) struct Stepper {
    pub(super) module: Module,
    pub(super) touched: Touched,
    deciders: Vec<Decider>,
}

impl Stepper {
    pub(super) fn new(artefact: &Artefact, threads: usize) -> Result<Stepper, Error> {
        let module = Module::load(artefact, Device::Cpu, Options { threads, ..Options::default() })?;
        let Some(step) = module.program().function(skipc_artifact::program::STEP) else {
            let message =
                "the model has no function for steps: it looks at later tokens, so it cannot generate";
            let help = "`skipc check` says which decision it is";
            return Err(Error::new(ErrorKind::Input, Diagnostic::new("bench::no_steps", message).help(help)));
        };
        let deciders = trace::deciders(&step.interface.routers());
        let touched = Touched::new(artefact, module.program())?;
        Ok(Stepper { module, touched, deciders })
    }

    /// Routers that can be forced.
    pub(super) fn n_free(&self) -> usize {
        self.deciders.iter().filter(|decider| **decider == Decider::Free).count()
    }

    /// Most tokens of a slot.
    pub(super) fn positions(&self) -> u32 {
        self.module.program().functions[skipc_artifact::program::STEP].max_positions
    }

    /// The token of a slot at a position.
    fn token(&self, slot: u32, position: u32) -> u32 {
        let vocab_size = self.module.program().functions[skipc_artifact::program::STEP].vocab_size;
        (random_score(SEED, 0, slot.into(), position.into()) % u64::from(vocab_size)) as u32
    }

    /// Which routers execute the token of a slot at a position: of those that can be forced as near to the density as
    /// there are whole ones, drawn anew for each token.
    fn decide(&self, density: f64, slot: u32, position: u32) -> Vec<u8> {
        let score = |router: usize| random_score(SEED, router as u32 + 1, slot.into(), position.into());
        let free = self.deciders.iter().enumerate().filter(|(_, decider)| **decider == Decider::Free);
        let mut drawn: Vec<(u64, usize)> = free.map(|(router, _)| (score(router), router)).collect();
        drawn.sort_unstable();
        drawn.truncate((density * drawn.len() as f64).round() as usize);
        let mut decided = vec![0; self.deciders.len()];
        for (router, decider) in self.deciders.iter().enumerate() {
            decided[router] = match decider {
                Decider::Free => u8::from(drawn.iter().any(|(_, chosen)| *chosen == router)),
                Decider::Constant(executes) => u8::from(*executes),
                Decider::SameAs(other) => decided[*other],
            };
        }
        decided
    }

    /// Decisions `[routers][tokens]`.
    fn decisions(&self, density: f64, places: impl Iterator<Item = (u32, u32)>) -> Vec<Vec<u8>> {
        let mut decisions = vec![Vec::new(); self.deciders.len()];
        for (slot, position) in places {
            let decided = self.decide(density, slot, position);
            decisions.iter_mut().zip(decided).for_each(|(all, decided)| all.push(decided));
        }
        decisions
    }

    /// The first tokens of slot 0 as a batch.
    pub(super) fn batch(&self, density: f64, tokens: u32) -> Batch {
        let routing = self.decisions(density, (0..tokens).map(|position| (0, position)));
        let tokens = (0..tokens).map(|position| self.token(0, position)).collect();
        Batch { routing: Some(routing), ..Batch::of_sequence(tokens) }
    }
}

/// Slots of one model that are decoded together at one density.
pub(super) struct Lane<'s> {
    pub(super) stepper: &'s Stepper,
    density: f64,
    slots: u32,
    cached: Cached,
    /// Tokens that each slot has.
    length: u32,
}

/// One step of a lane.
pub(super) struct Stepped {
    pub(super) time: Duration,
    pub(super) bytes: ByMemory,
    /// Decisions of all tokens, and how many of them executed.
    pub(super) decided: u64,
    pub(super) executed: u64,
}

impl<'s> Lane<'s> {
    /// Slots without tokens, with room for so many in each.
    pub(super) fn new(stepper: &'s Stepper, density: f64, slots: u32, room: u32) -> Result<Lane<'s>, Error> {
        let page = skipc_artifact::program::PAGE_ROWS;
        let mut cached = Cached::new(&stepper.module, slots, slots * room.next_multiple_of(page))?;
        for slot in 0..slots {
            cached.start(Slot(slot), slot)?;
        }
        Ok(Lane { stepper, density, slots, cached, length: 0 })
    }

    /// Runs prompts in chunks until each slot has so many tokens; gives how long the steps took.
    pub(super) fn prefill(&mut self, length: u32) -> Result<Duration, Error> {
        let mut time = Duration::ZERO;
        let most = CHUNK.min(self.cached.limits().step_tokens);
        for slot in 0..self.slots {
            let mut first = self.length;
            while first < length {
                let end = length.min(first + most);
                let places = first..end;
                let tokens: Vec<u32> =
                    places.clone().map(|position| self.stepper.token(slot, position)).collect();
                let forced = self.stepper.decisions(self.density, places.map(|position| (slot, position)));
                let rows = if end == length { Rows::Last } else { Rows::None };
                let chunk = Chunk { slot: Slot(slot), tokens: &tokens, rows };
                let started = Instant::now();
                self.cached.step_forced(&[chunk], Some(&forced))?;
                time += started.elapsed();
                first = end;
            }
        }
        self.length = length;
        Ok(time)
    }

    /// Runs the next token of every slot.
    pub(super) fn step(&mut self) -> Result<Stepped, Error> {
        let Lane { stepper, density, slots, length, .. } = *self;
        let tokens: Vec<u32> = (0..slots).map(|slot| stepper.token(slot, length)).collect();
        let forced = stepper.decisions(density, (0..slots).map(|slot| (slot, length)));
        let chunk =
            |(slot, token)| Chunk { slot: Slot(slot), tokens: std::slice::from_ref(token), rows: Rows::Last };
        let chunks: Vec<Chunk<'_>> = (0..slots).zip(&tokens).map(chunk).collect();
        let started = Instant::now();
        let outputs = self.cached.step_forced(&chunks, Some(&forced))?;
        let time = started.elapsed();
        if outputs.gates != forced {
            let message = "a step did not decide as it was forced to";
            return Err(Error::internal("bench::mismatch", &message));
        }
        let count = |gate: &Vec<u8>| gate.iter().map(|bit| u32::from(*bit)).sum();
        let executed: Vec<u32> = outputs.gates.iter().map(count).collect();
        self.length += 1;
        let kept = (density * f64::from(self.length)).round() as u32;
        let seen = self.length;
        let computed = &outputs.computed;
        let step = Step { tokens: slots, logit_rows: slots, executed: &executed, computed, seen, kept };
        Ok(Stepped {
            time,
            bytes: stepper.touched.bytes(&step),
            decided: u64::from(slots) * executed.len() as u64,
            executed: executed.iter().map(|count| u64::from(*count)).sum(),
        })
    }
}
