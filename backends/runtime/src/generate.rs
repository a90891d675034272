//! Greedy continuation of rows, one after the other, on any decoder.

use std::ops::ControlFlow;

use crate::choices::{self, Choices};
use crate::decode::{Chunk, Decoder, Limits, Rows, Slot};
use crate::error::Error;

/// What a model adds to a prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Continuation {
    /// The new tokens.
    pub tokens: Vec<u32>,
    /// `[routers][n]`: the decisions about all tokens but the last new one; nothing if there is no new one.
    pub gates: Vec<Vec<u8>>,
    /// How many of these tokens each router wanted to execute beyond its capacity.
    pub overflow: Vec<u32>,
    /// Which choices these tokens got in each layer of experts.
    pub choices: Vec<Choices>,
    /// Whether it ends because the model has no more positions.
    pub at_last_position: bool,
}

/// A row of a batch that is to be continued, with the number that it has there: some routers decide by it.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Index of the sequence in its batch.
    pub sequence: usize,
    /// Its tokens.
    pub tokens: &'a [u32],
}

impl Row<'_> {
    /// Checks the row against what a decoder takes.
    ///
    /// # Errors
    ///
    /// [`Error::SequenceTooLong`] or [`Error::TokenRange`]: always the user's input at fault.
    pub fn check(self, limits: Limits) -> Result<(), Error> {
        let Limits { positions: limit, vocab_size, .. } = limits;
        if self.tokens.len() > limit as usize {
            let (sequence, found) = (self.sequence, self.tokens.len() as u64);
            return Err(Error::SequenceTooLong { sequence, found, limit });
        }
        match self.tokens.iter().enumerate().find(|&(_, &token)| token >= vocab_size) {
            Some((at, &found)) => Err(Error::TokenRange { found, at, vocab_size }),
            None => Ok(()),
        }
    }
}

/// The slot in which a row is continued.
const SLOT: Slot = Slot(0);

/// Continues a row on a decoder whose first slot is free, by the likeliest token (the lowest of several equal ones), `count`
/// times, until the model has no more positions, or until `each`, which sees every new token as it comes, breaks off. The slot is
/// free again afterwards.
///
/// # Errors
///
/// An empty row, [`Error::NonFinite`] where no next token is likely, or what [`Decoder::step`] says.
pub fn greedy_row(
    decoder: &mut dyn Decoder,
    row: Row<'_>,
    count: u32,
    each: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<Continuation, Error> {
    if row.tokens.is_empty() {
        return Err(Error::EmptyPrompt);
    }
    row.check(decoder.limits())?;
    decoder.start(SLOT, u32::try_from(row.sequence).unwrap_or(u32::MAX))?;
    let continuation = continue_slot(decoder, row, count, each);
    decoder.free(SLOT)?;
    continuation
}

fn continue_slot(
    decoder: &mut dyn Decoder,
    row: Row<'_>,
    count: u32,
    each: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<Continuation, Error> {
    let limits = decoder.limits();
    let (mut next, mut new) = (row.tokens.to_vec(), Continuation::default());
    while (new.tokens.len() as u64) < u64::from(count) {
        let length = row.tokens.len() + new.tokens.len();
        if length >= limits.positions as usize && !new.tokens.is_empty() {
            new.at_last_position = true;
            break;
        }
        let logits = run(decoder, &next, &mut new)?;
        if let Some(value) = logits.iter().find(|logit| !logit.is_finite()) {
            return Err(Error::NonFinite { sequence: row.sequence, position: length - 1, value: *value });
        }
        let token = likeliest(&logits);
        new.tokens.push(token);
        next = vec![token];
        if each(token).is_break() {
            break;
        }
    }
    Ok(new)
}

/// Runs tokens of the slot, in as many steps as it takes; gives the logits of the last one.
fn run(decoder: &mut dyn Decoder, tokens: &[u32], new: &mut Continuation) -> Result<Vec<f32>, Error> {
    let size = decoder.limits().step_tokens.max(1) as usize;
    let mut logits = Vec::new();
    let mut rest = tokens;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(size.min(rest.len()));
        rest = after;
        let rows = if rest.is_empty() { Rows::Last } else { Rows::None };
        let outputs = decoder.step(&[Chunk { slot: SLOT, tokens: piece, rows }])?;
        new.gates.resize(outputs.gates.len(), Vec::new());
        new.gates.iter_mut().zip(outputs.gates).for_each(|(all, gate)| all.extend(gate));
        choices::extend_all(&mut new.choices, &outputs.choices);
        new.overflow.resize(outputs.overflow.len(), 0);
        new.overflow.iter_mut().zip(outputs.overflow).for_each(|(all, over)| *all += over);
        logits = outputs.logits;
    }
    Ok(logits)
}

/// The index of the largest number, the first of equal ones.
#[must_use]
pub fn likeliest(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (idx, &logit) in (0u32..).zip(logits) {
        if logit > best.1 {
            best = (idx, logit);
        }
    }
    best.0
}

/// The tokens of a text for a model of bytes.
///
/// # Errors
///
/// [`Error::PromptVocabulary`] if the model's tokens are not bytes.
pub fn bytes_of(text: &str, vocab_size: u32) -> Result<Vec<u32>, Error> {
    if vocab_size != 256 {
        return Err(Error::PromptVocabulary { vocab_size });
    }
    Ok(text.bytes().map(u32::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equal_logits_wins() {
        assert_eq!(likeliest(&[1.0, 3.0, 2.0, 3.0]), 1);
        assert_eq!(likeliest(&[f32::NEG_INFINITY; 3]), 0);
        assert_eq!(likeliest(&[]), 0);
    }
}
