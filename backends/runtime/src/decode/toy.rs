//! A decoder for tests: its logits are hashes of prefixes, its memory is bounded, and it panics where a caller breaks
//! the rules of [`Decoder`].

use std::collections::BTreeMap;

use super::decoder::{Chunk, Decoder, Limits, Rows, Slot, StepOutputs};
use crate::error::Error;
use crate::random::random;

#[derive(Clone, Debug)]
pub(super) struct Toy {
    pub(super) limits: Limits,
    /// Most tokens of all slots together.
    pub(super) memory: usize,
    /// How many values a logit has: with few, there are ties.
    pub(super) values: u64,
    /// The step after which logits of this token are no numbers.
    pub(super) broken_by: Option<u32>,
    /// Sequence number and committed tokens of slots in use.
    pub(super) slots: BTreeMap<Slot, (u32, Vec<u32>)>,
    /// Tokens of each step.
    pub(super) steps: Vec<usize>,
    /// How often a slot was begun.
    pub(super) started: usize,
    /// How many steps were drafts.
    pub(super) drafts: usize,
}

impl Toy {
    pub(super) fn new(slots: u32, step_tokens: u32) -> Toy {
        Toy {
            limits: Limits { slots, positions: 64, vocab_size: 6, step_tokens },
            memory: usize::MAX,
            values: 1 << 20,
            broken_by: None,
            slots: BTreeMap::new(),
            steps: Vec::new(),
            started: 0,
            drafts: 0,
        }
    }

    /// The logits after a prefix, between −4 and 4.
    pub(super) fn logits(&self, prefix: &[u32]) -> Vec<f32> {
        if self.broken_by == prefix.last().copied() && self.broken_by.is_some() {
            return vec![f32::NAN; self.limits.vocab_size as usize];
        }
        let place = prefix.iter().fold(1, |place, token| random(5, place, u64::from(*token)));
        let logit = |id: u32| random(6, place, u64::from(id)) % self.values;
        let ids = 0..self.limits.vocab_size;
        ids.map(|id| (logit(id) as f32 / self.values as f32) * 8.0 - 4.0).collect()
    }

    /// What its one router decides about a token.
    pub(super) fn gate(sequence: u32, position: usize, token: u32) -> u8 {
        (random(7, u64::from(sequence) << 32 | position as u64, u64::from(token)) & 1) as u8
    }

    fn kept(&self) -> usize {
        self.slots.values().map(|(_, tokens)| tokens.len()).sum()
    }
}

impl Decoder for Toy {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn start(&mut self, slot: Slot, sequence: u32) -> Result<(), Error> {
        assert!(slot.0 < self.limits.slots);
        assert!(self.slots.insert(slot, (sequence, Vec::new())).is_none(), "{slot:?} is in use");
        self.started += 1;
        Ok(())
    }

    fn fits(&self, chunks: &[Chunk<'_>]) -> bool {
        self.kept() + chunks.iter().map(|chunk| chunk.tokens.len()).sum::<usize>() <= self.memory
    }

    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<StepOutputs, Error> {
        self.limits.check(chunks)?;
        assert!(self.fits(chunks) && !chunks.is_empty());
        self.steps.push(chunks.iter().map(|chunk| chunk.tokens.len()).sum());
        let mut outputs = StepOutputs { gates: vec![Vec::new()], ..StepOutputs::default() };
        for Chunk { slot, tokens, rows } in chunks {
            for (idx, token) in tokens.iter().enumerate() {
                let (sequence, prefix) = self.slots.get_mut(slot).expect("the slot is in use");
                outputs.gates[0].push(Toy::gate(*sequence, prefix.len(), *token));
                prefix.push(*token);
                assert!(prefix.len() <= self.limits.positions as usize);
                let prefix = prefix.clone();
                if *rows == Rows::All || (*rows == Rows::Last && idx + 1 == tokens.len()) {
                    outputs.logits.extend(self.logits(&prefix));
                }
            }
        }
        Ok(outputs)
    }

    fn can_draft(&self) -> bool {
        true
    }

    /// Executes nothing under a margin, and takes another token every few times.
    fn draft(&mut self, chunks: &[Chunk<'_>], margin: f32) -> Result<StepOutputs, Error> {
        self.drafts += 1;
        let mut outputs = self.step(chunks)?;
        self.steps.pop();
        if margin > 0.0 {
            outputs.gates.iter_mut().for_each(|gate| gate.fill(0));
            if self.drafts.is_multiple_of(3) {
                outputs.logits.reverse();
            }
        }
        Ok(outputs)
    }

    fn fork(&mut self, from: Slot, to: Slot) -> Result<(), Error> {
        let sequence = self.slots[&from].clone();
        assert!(self.slots.insert(to, sequence).is_none(), "{to:?} is in use");
        Ok(())
    }

    fn truncate(&mut self, slot: Slot, length: u32) -> Result<(), Error> {
        let (_, tokens) = self.slots.get_mut(&slot).expect("the slot is in use");
        assert!(length as usize <= tokens.len());
        tokens.truncate(length as usize);
        Ok(())
    }

    fn free(&mut self, slot: Slot) -> Result<(), Error> {
        assert!(self.slots.remove(&slot).is_some(), "{slot:?} is free");
        Ok(())
    }
}
