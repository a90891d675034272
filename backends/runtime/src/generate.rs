//! Generation by running the whole prefix again for each token.
//!
//! There is no cache of keys and values yet, so the cost of a token grows with its position.

use std::ops::ControlFlow;

use skipc_artifact::program::{Function, GENERATE, SCORE};

use crate::batch::Batch;
use crate::error::Error;
use crate::model::Model;
use crate::session::Session;

/// What a model adds to a prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Continuation {
    /// The new tokens.
    pub tokens: Vec<u32>,
    /// `[routers][n]`: the decisions about all tokens but the last new one; nothing if there is no new one.
    pub gates: Vec<Vec<u8>>,
    /// How many tokens each router wanted to execute beyond its capacity when it decided so.
    pub overflow: Vec<u32>,
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
    /// The row without the others: those before it are empty.
    fn batch(self, tokens: Vec<u32>) -> Batch {
        let mut lengths = vec![0; self.sequence];
        lengths.push(u32::try_from(tokens.len()).unwrap_or(u32::MAX));
        Batch { tokens, lengths, routing: None }
    }

    /// Checks the row against a function.
    ///
    /// # Errors
    ///
    /// Whatever of it the function cannot run; always the user's input at fault.
    pub fn check(self, function: &Function) -> Result<(), Error> {
        self.batch(self.tokens.to_vec()).check(function)
    }
}

/// Makes the session run what the model generates with: its function for that, or, if no decision looks at later
/// tokens, the one that scores.
///
/// # Errors
///
/// [`Error::NotCausal`] if there is neither.
pub fn prepare(session: &mut Session, model: &Model) -> Result<(), Error> {
    if session.program().function(GENERATE).is_some() {
        return session.choose(GENERATE);
    }
    match model.artifact().manifest().promises.causal {
        true => session.choose(SCORE),
        false => Err(Error::NotCausal),
    }
}

/// Continues one sequence; see [`greedy_row`]. `each` sees every new token as it comes.
///
/// # Errors
///
/// As [`greedy_row`].
pub fn greedy(
    session: &mut Session,
    prompt: &[u32],
    count: u32,
    mut each: impl FnMut(u32),
) -> Result<Continuation, Error> {
    greedy_row(session, Row { sequence: 0, tokens: prompt }, count, &mut |token| {
        each(token);
        ControlFlow::Continue(())
    })
}

/// Continues a row, in a session that was [prepared](prepare) for it, by the likeliest token (the lowest of several equal
/// ones), `count` times, until the model has no more positions, or until `each`, which sees every new token as it comes,
/// breaks off.
///
/// # Errors
///
/// An empty row, [`Error::NonFinite`] where no next token is likely, or what [`Session::run`] says.
pub fn greedy_row(
    session: &mut Session,
    row: Row<'_>,
    count: u32,
    each: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<Continuation, Error> {
    if row.tokens.is_empty() {
        return Err(Error::EmptyPrompt);
    }
    let function = session.function();
    let limit = function.max_positions.min(function.max_tokens) as usize;
    let vocab_size = function.vocab_size as usize;
    let given = row.tokens.len();
    let mut tokens = row.tokens.to_vec();
    let (mut gates, mut overflow) = (Vec::new(), Vec::new());
    for _ in 0..count {
        if tokens.len() >= limit && tokens.len() > given {
            break;
        }
        let batch = row.batch(tokens.clone());
        let outputs = session.run(&batch)?;
        outputs.check_finite(&batch.lengths)?;
        let last = outputs.logits.rchunks(vocab_size.max(1)).next().unwrap_or_default();
        let token = likeliest(last);
        tokens.push(token);
        (gates, overflow) = (outputs.gates, outputs.overflow);
        if each(token).is_break() {
            break;
        }
    }
    Ok(Continuation { tokens: tokens.split_off(given), gates, overflow })
}

/// The index of the largest number, the first of equal ones.
fn likeliest(logits: &[f32]) -> u32 {
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
