//! A decoder without a cache: each step runs the whole prefix of each of its slots again.
//!
//! The cost of a token grows with its position. It is what a cached decoder is compared with, and what generates with
//! an artefact that has no function for steps.

use skipc_artifact::program::{GENERATE, Head, SCORE};

use super::decoder::{Chunk, Decoder, Limits, Rows, Slot, StepOutputs};
use crate::batch::{Batch, Outputs};
use crate::choices::{self, Choices};
use crate::error::Error;
use crate::model::Model;
use crate::session::Session;

/// Makes the session run what the model generates with: its function for that, or, if no decision looks at later
/// tokens, the one that scores.
///
/// # Errors
///
/// [`Error::NotCausal`] if there is neither, [`Error::NoHead`] for a model that scores nothing.
pub fn prepare(session: &mut Session, model: &Model) -> Result<(), Error> {
    if session.function().head != Head::Tokens {
        return Err(Error::NoHead { what: "continue sequences" });
    }
    if session.program().function(GENERATE).is_some() {
        return session.choose(GENERATE);
    }
    match model.artifact().manifest().promises.causal {
        true => session.choose(SCORE),
        false => Err(Error::NotCausal),
    }
}

/// Sequences in slots, on a session that is all their memory but the tokens.
#[derive(Debug)]
pub struct Recompute {
    session: Session,
    slots: Vec<Option<Sequence>>,
    reports_choices: bool,
}

#[derive(Clone, Debug)]
struct Sequence {
    number: u32,
    tokens: Vec<u32>,
    /// Beyond the capacity of each router, of these tokens.
    overflow: Vec<u32>,
}

impl Recompute {
    /// A decoder of this many slots; see [`prepare`].
    ///
    /// # Errors
    ///
    /// [`Error::NotCausal`] for a model that cannot generate.
    pub fn new(mut session: Session, model: &Model, slots: u32) -> Result<Self, Error> {
        prepare(&mut session, model)?;
        Ok(Self { session, slots: vec![None; slots as usize], reports_choices: false })
    }

    /// What it runs on.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    fn sequence(&mut self, slot: Slot) -> Result<&mut Sequence, Error> {
        let found = self.slots.get_mut(slot.0 as usize).and_then(Option::as_mut);
        found.ok_or(Error::Slot { slot: slot.0, reason: "it holds no sequence" })
    }

    fn fill(&mut self, slot: Slot, sequence: Sequence) -> Result<(), Error> {
        match self.slots.get_mut(slot.0 as usize) {
            Some(place @ None) => {
                *place = Some(sequence);
                Ok(())
            }
            Some(Some(_)) => Err(Error::Slot { slot: slot.0, reason: "it is not free" }),
            None => Err(Error::Slot { slot: slot.0, reason: "there are not so many" }),
        }
    }

    /// Runs the prefix of a chunk with its tokens.
    fn run(&mut self, chunk: &Chunk<'_>) -> Result<Outputs, Error> {
        let Sequence { number, tokens, .. } = self.sequence(chunk.slot)?;
        let tokens = [tokens, chunk.tokens].concat();
        // The sequences before it in the batch are empty, so that it has its number there.
        let mut lengths = vec![0; *number as usize];
        lengths.push(u32::try_from(tokens.len()).unwrap_or(u32::MAX));
        let batch = Batch { tokens, lengths, ..Batch::default() };
        if self.reports_choices { self.session.run_with_choices(&batch) } else { self.session.run(&batch) }
    }
}

impl Decoder for Recompute {
    fn limits(&self) -> Limits {
        let function = self.session.function();
        Limits {
            slots: self.slots.len() as u32,
            positions: function.max_positions.min(function.max_tokens),
            vocab_size: function.vocab_size,
            step_tokens: function.max_tokens,
        }
    }

    fn start(&mut self, slot: Slot, sequence: u32) -> Result<(), Error> {
        self.fill(slot, Sequence { number: sequence, tokens: Vec::new(), overflow: Vec::new() })
    }

    fn fits(&self, _: &[Chunk<'_>]) -> bool {
        true
    }

    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<StepOutputs, Error> {
        let limits = self.limits();
        limits.check(chunks)?;
        let vocab_size = limits.vocab_size as usize;
        let (mut outputs, mut overflows) = (StepOutputs::default(), Vec::new());
        for chunk in chunks {
            let Outputs { logits, gates, overflow, choices, .. } = self.run(chunk)?;
            let wanted = match chunk.rows {
                Rows::None => 0,
                Rows::Last => 1,
                Rows::All => chunk.tokens.len(),
            };
            outputs.logits.extend_from_slice(&logits[logits.len() - wanted * vocab_size..]);
            outputs.gates.resize(gates.len(), Vec::new());
            for (all, gate) in outputs.gates.iter_mut().zip(gates) {
                all.extend_from_slice(&gate[gate.len() - chunk.tokens.len()..]);
            }
            let last = |layer: &Choices| layer.rows(layer.n_tokens() - chunk.tokens.len()..layer.n_tokens());
            choices::extend_all(&mut outputs.choices, &choices.iter().map(last).collect::<Vec<_>>());
            outputs.overflow.resize(overflow.len(), 0);
            let before = self.sequence(chunk.slot)?.overflow.iter().chain(std::iter::repeat(&0));
            for ((all, over), before) in outputs.overflow.iter_mut().zip(&overflow).zip(before) {
                *all += over.saturating_sub(*before);
            }
            overflows.push(overflow);
        }
        for (chunk, overflow) in chunks.iter().zip(overflows) {
            let sequence = self.sequence(chunk.slot)?;
            sequence.tokens.extend_from_slice(chunk.tokens);
            sequence.overflow = overflow;
        }
        Ok(outputs)
    }

    fn report_choices(&mut self) {
        self.reports_choices = true;
    }

    fn fork(&mut self, from: Slot, to: Slot) -> Result<(), Error> {
        let sequence = self.sequence(from)?.clone();
        self.fill(to, sequence)
    }

    fn truncate(&mut self, slot: Slot, length: u32) -> Result<(), Error> {
        let sequence = self.sequence(slot)?;
        if length as usize > sequence.tokens.len() {
            return Err(Error::Slot { slot: slot.0, reason: "it has fewer tokens" });
        }
        sequence.tokens.truncate(length as usize);
        // Known again with the next step.
        sequence.overflow.clear();
        Ok(())
    }

    fn free(&mut self, slot: Slot) -> Result<(), Error> {
        self.sequence(slot)?;
        self.slots[slot.0 as usize] = None;
        Ok(())
    }
}
