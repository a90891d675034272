//! A decoder whose steps somebody else sees, too.

use super::decoder::{Chunk, Decoder, Limits, PageUse, Rows, Slot, StepOutputs};
use crate::error::Error;

/// What a step ran.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepRecord {
    /// Its tokens.
    pub tokens: u32,
    /// Of how many of them the logits were wanted.
    pub logit_rows: u32,
    /// How many tokens each of them saw, itself included, summed over them.
    pub seen: u64,
    /// How many of them each router executed, in model order.
    pub executed: Vec<u32>,
    /// As in [`StepOutputs`].
    pub computed: Vec<u32>,
}

/// What a metered decoder did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It ran a step of the model, or of a draft.
    Ran(StepRecord),
    /// It took so many tokens of a slot back, which the last step ran, or the last ones of a draft.
    TookBack(u32),
}

/// A decoder that tells `each` what it did.
pub struct Metered<D, F> {
    decoder: D,
    each: F,
    /// Tokens of each slot.
    lengths: Vec<u32>,
}

impl<D: Decoder, F: FnMut(&Event)> Metered<D, F> {
    /// On a decoder whose slots are free.
    pub fn new(decoder: D, each: F) -> Self {
        let lengths = vec![0; decoder.limits().slots as usize];
        Self { decoder, each, lengths }
    }

    fn set(&mut self, slot: Slot, length: u32) {
        if let Some(place) = self.lengths.get_mut(slot.0 as usize) {
            *place = length;
        }
    }

    fn length(&self, slot: Slot) -> u32 {
        self.lengths.get(slot.0 as usize).copied().unwrap_or(0)
    }

    fn ran(&mut self, chunks: &[Chunk<'_>], outputs: &StepOutputs) {
        let count = |gate: &Vec<u8>| gate.iter().map(|bit| u32::from(*bit)).sum();
        let mut record = StepRecord {
            executed: outputs.gates.iter().map(count).collect(),
            computed: outputs.computed.clone(),
            ..StepRecord::default()
        };
        for Chunk { slot, tokens, rows } in chunks {
            let (before, new) = (self.length(*slot), tokens.len() as u32);
            record.tokens += new;
            record.logit_rows += match rows {
                Rows::None => 0,
                Rows::Last => 1,
                Rows::All => new,
            };
            record.seen += (before + 1..=before + new).map(u64::from).sum::<u64>();
            self.set(*slot, before + new);
        }
        (self.each)(&Event::Ran(record));
    }
}

impl<D: Decoder, F: FnMut(&Event)> Decoder for Metered<D, F> {
    fn limits(&self) -> Limits {
        self.decoder.limits()
    }

    fn start(&mut self, slot: Slot, sequence: u32) -> Result<(), Error> {
        self.decoder.start(slot, sequence)?;
        self.set(slot, 0);
        Ok(())
    }

    fn resume(&mut self, slot: Slot, sequence: u32, tokens: &[u32]) -> Result<u32, Error> {
        let known = self.decoder.resume(slot, sequence, tokens)?;
        self.set(slot, known);
        Ok(known)
    }

    fn pages(&self) -> PageUse {
        self.decoder.pages()
    }

    fn takes_whole_prompts(&self) -> bool {
        self.decoder.takes_whole_prompts()
    }

    fn fits(&self, chunks: &[Chunk<'_>]) -> bool {
        self.decoder.fits(chunks)
    }

    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<StepOutputs, Error> {
        let outputs = self.decoder.step(chunks)?;
        self.ran(chunks, &outputs);
        Ok(outputs)
    }

    fn report_choices(&mut self) {
        self.decoder.report_choices();
    }

    fn can_draft(&self) -> bool {
        self.decoder.can_draft()
    }

    fn draft(&mut self, chunks: &[Chunk<'_>], margin: f32) -> Result<StepOutputs, Error> {
        let outputs = self.decoder.draft(chunks, margin)?;
        self.ran(chunks, &outputs);
        Ok(outputs)
    }

    fn fork(&mut self, from: Slot, to: Slot) -> Result<(), Error> {
        self.decoder.fork(from, to)?;
        self.set(to, self.length(from));
        Ok(())
    }

    fn truncate(&mut self, slot: Slot, length: u32) -> Result<(), Error> {
        self.decoder.truncate(slot, length)?;
        let taken = self.length(slot).saturating_sub(length);
        (self.each)(&Event::TookBack(taken));
        self.set(slot, length);
        Ok(())
    }

    fn free(&mut self, slot: Slot) -> Result<(), Error> {
        self.decoder.free(slot)?;
        self.set(slot, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::toy::Toy;
    use super::*;

    #[test]
    fn a_record_counts_what_the_tokens_of_a_step_see() {
        let mut events = Vec::new();
        let mut metered = Metered::new(Toy::new(3, 8), |event: &Event| events.push(event.clone()));
        let chunk = |slot, tokens, rows| Chunk { slot: Slot(slot), tokens, rows };
        metered.start(Slot(0), 0).unwrap();
        metered.start(Slot(1), 1).unwrap();
        metered.step(&[chunk(0, &[1, 2, 3], Rows::Last), chunk(1, &[4], Rows::None)]).unwrap();
        metered.fork(Slot(0), Slot(2)).unwrap();
        metered.truncate(Slot(0), 1).unwrap();
        metered.step(&[chunk(0, &[1, 1], Rows::All), chunk(2, &[5], Rows::Last)]).unwrap();
        metered.free(Slot(2)).unwrap();
        metered.start(Slot(2), 0).unwrap();
        metered.step(&[chunk(2, &[0], Rows::None)]).unwrap();
        let of = |event: &Event| match event {
            Event::Ran(StepRecord { tokens, logit_rows, seen, executed, .. }) => {
                assert!(executed.iter().all(|executed| executed <= tokens));
                (*tokens, *logit_rows, *seen)
            }
            Event::TookBack(tokens) => (0, *tokens, 0),
        };
        assert_eq!(
            events.iter().map(of).collect::<Vec<_>>(),
            [(4, 1, 1 + 2 + 3 + 1), (0, 2, 0), (3, 3, 2 + 3 + 4), (1, 0, 1)]
        );
    }
}
