//! A batch of more tokens than a step takes, cut between its sequences.

use std::borrow::Cow;
use std::ops::Range;

use skipc_artifact::program::Function;

use crate::batch::{Batch, Outputs, row_columns};
use crate::choices;

impl Batch {
    /// The batch in steps of a function that [takes](Batch::check) it: whole sequences, as many in each as it takes. A step has
    /// empty sequences in front of its own, so that each keeps its number, by which some routers decide.
    pub(crate) fn steps<'a>(&'a self, function: &Function) -> impl Iterator<Item = Cow<'a, Batch>> + use<'a> {
        let cols = row_columns(function).unwrap_or(0) as usize;
        let cuts = cuts(&self.lengths, function.max_tokens);
        let mut first_token = 0;
        cuts.into_iter().map(move |sequences| {
            if sequences.len() == self.lengths.len() {
                return Cow::Borrowed(self);
            }
            let n_tokens: usize = self.lengths[sequences.clone()].iter().map(|length| *length as usize).sum();
            let tokens = first_token..first_token + n_tokens;
            first_token = tokens.end;
            Cow::Owned(self.step(sequences, tokens, cols))
        })
    }

    /// Some of its sequences, which have these tokens.
    fn step(&self, sequences: Range<usize>, tokens: Range<usize>, cols: usize) -> Batch {
        let mut lengths = vec![0; sequences.start];
        lengths.extend_from_slice(&self.lengths[sequences]);
        let routing = self.routing.as_ref();
        let experts = self.experts.as_ref();
        Batch {
            tokens: if self.tokens.is_empty() { Vec::new() } else { self.tokens[tokens.clone()].to_vec() },
            rows: self.rows.get(tokens.start * cols..tokens.end * cols).unwrap_or_default().to_vec(),
            lengths,
            routing: routing.map(|gates| gates.iter().map(|gate| gate[tokens.clone()].to_vec()).collect()),
            experts: experts.map(|layers| layers.iter().map(|layer| layer.rows(tokens.clone())).collect()),
        }
    }
}

impl Outputs {
    /// Adds those of the step that follows.
    pub(crate) fn extend(&mut self, further: Outputs) {
        let Outputs { logits, gates, counts, overflow, choices } = further;
        match self.logits.is_empty() {
            true => self.logits = logits,
            false => self.logits.extend(logits),
        }
        self.gates.resize(gates.len(), Vec::new());
        self.gates.iter_mut().zip(gates).for_each(|(all, gate)| all.extend(gate));
        let add = |sums: &mut Vec<u32>, counts: Vec<u32>| {
            sums.resize(counts.len(), 0);
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum = sum.saturating_add(count));
        };
        add(&mut self.counts, counts);
        add(&mut self.overflow, overflow);
        choices::extend_all(&mut self.choices, &choices);
    }
}

/// Sequences of these lengths in groups of at most so many tokens, or of one sequence; one empty group of none.
#[must_use]
pub fn cuts(lengths: &[u32], limit: u32) -> Vec<Range<usize>> {
    let (mut cuts, mut begin, mut tokens) = (Vec::new(), 0, 0u64);
    for (sequence, length) in lengths.iter().enumerate() {
        if tokens + u64::from(*length) > u64::from(limit) && sequence > begin {
            cuts.push(begin..sequence);
            (begin, tokens) = (sequence, 0);
        }
        tokens += u64::from(*length);
    }
    cuts.push(begin..lengths.len());
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_are_between_sequences_and_as_few_as_can_be() {
        let of = |lengths: &[u32]| -> Vec<(usize, usize)> {
            cuts(lengths, 4).into_iter().map(|cut| (cut.start, cut.end)).collect()
        };
        assert_eq!(of(&[]), [(0, 0)]);
        assert_eq!(of(&[0, 0]), [(0, 2)]);
        assert_eq!(of(&[1, 3, 0, 1, 4, 4]), [(0, 3), (3, 4), (4, 5), (5, 6)]);
        assert_eq!(of(&[2, 0, 2, 0]), [(0, 4)]);
        assert_eq!(of(&[5, 1, 5]), [(0, 1), (1, 2), (2, 3)]);
    }
}
