//! The loss of a model on sequences, over windows.
//!
//! A sequence is cut as the strided perplexity of Hugging Face's guide to it does: windows begin `stride` tokens apart, the
//! first scores all its tokens, each later one those that no window before it had, which are its last `stride` (the last
//! window of a sequence may have fewer). So a token is scored once, with at least `width - stride` tokens before it, but
//! for those of the first window. The first token of a sequence has nothing before it and is not scored, nor is that of
//! any window if they do not overlap (`stride = width`).

use std::ops::Range;

use skipc_artifact::program::Head;

use crate::batch::Batch;
use crate::decode::sampling::log_probabilities;
use crate::error::Error;
use crate::session::Session;

/// How sequences are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    width: u32,
    stride: u32,
}

/// A part of a sequence that runs as a sequence of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Which sequence.
    pub row: usize,
    /// Its tokens that run.
    pub runs: Range<usize>,
    /// Of these, the tokens whose probability counts: a part at the end.
    pub scores: Range<usize>,
}

/// What a window gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// The window.
    pub window: Window,
    /// The negative logarithm of each scored token's probability, in nats.
    pub nats: Vec<f64>,
    /// How many of the tokens that ran each router executed.
    pub executed: Vec<u32>,
}

impl Windows {
    /// Windows of `width` tokens, `stride` apart.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] unless `1 ≤ stride ≤ width` and `width ≥ 2`.
    pub fn new(width: u32, stride: u32) -> Result<Self, Error> {
        if width < 2 {
            return Err(Error::Usage(format!(
                "a window of {width} tokens has none with one before it; it takes 2"
            )));
        }
        if !(1..=width).contains(&stride) {
            let reason = "windows leave tokens out between them, or never move on";
            return Err(Error::Usage(format!(
                "a stride of {stride}: {reason}; write 1 to {width}, the window"
            )));
        }
        Ok(Self { width, stride })
    }

    /// The windows of a sequence of so many tokens; none if it is shorter than 2.
    pub fn of_row(self, row: usize, length: usize) -> impl Iterator<Item = Window> {
        let (width, stride) = (self.width as usize, self.stride as usize);
        // The first window that reaches the end is the last.
        let count = if length < 2 { 0 } else { length.saturating_sub(width).div_ceil(stride) + 1 };
        let window = move |idx: usize| {
            let start = idx * stride;
            let scored = if idx == 0 { 0 } else { start - stride + width };
            let end = length.min(start + width);
            Window { row, runs: start..end, scores: scored.max(start + 1)..end }
        };
        // A window of one token, which begins where the one before ended, has nothing to score.
        (0..count).map(window).filter(|window| !window.scores.is_empty())
    }
}

/// Scores sequences on a session's function, in batches of as many windows as a step takes, and never more than `at_once`:
/// decisions of some models depend on the number of a sequence in its batch, and alone it is 0. `each` sees every window
/// in order.
///
/// # Errors
///
/// [`Error::NonFinite`], named by sequence and token; what [`Session::run`] refuses.
pub fn evaluate(
    session: &mut Session,
    rows: &[&[u32]],
    windows: Windows,
    at_once: usize,
    each: &mut dyn FnMut(Scored),
) -> Result<(), Error> {
    if session.function().head != Head::Tokens {
        return Err(Error::NoHead { what: "be evaluated" });
    }
    let limit = session.function().max_tokens as usize;
    let all: Vec<Window> =
        rows.iter().enumerate().flat_map(|(row, tokens)| windows.of_row(row, tokens.len())).collect();
    let mut rest = all.as_slice();
    while !rest.is_empty() {
        let ends = rest.iter().scan(0, |sum, window| {
            *sum += window.runs.len();
            Some(*sum)
        });
        // One that does not fit alone is refused by the session.
        let fitting = ends.take_while(|end| *end <= limit).count().clamp(1, at_once.max(1));
        let (batch, after) = rest.split_at(fitting.min(rest.len()));
        rest = after;
        score(session, rows, batch, each)?;
    }
    Ok(())
}

/// Runs windows as one batch.
fn score(
    session: &mut Session,
    rows: &[&[u32]],
    windows: &[Window],
    each: &mut dyn FnMut(Scored),
) -> Result<(), Error> {
    let tokens = windows.iter().flat_map(|window| &rows[window.row][window.runs.clone()]);
    let lengths: Vec<u32> = windows.iter().map(|window| window.runs.len() as u32).collect();
    let batch = Batch { tokens: tokens.copied().collect(), lengths, ..Batch::default() };
    let outputs = session.run(&batch)?;
    outputs.check_finite(&batch.lengths).map_err(|error| match error {
        Error::NonFinite { sequence, position, value } => {
            let window = &windows[sequence];
            Error::NonFinite { sequence: window.row, position: window.runs.start + position, value }
        }
        error => error,
    })?;
    let vocab_size = session.function().logits as usize;
    let mut first = 0;
    for window in windows {
        let end = first + window.runs.len();
        let nats = window.scores.clone().map(|at| {
            // The row of a token has the logits of the one after it.
            let row = first + at - 1 - window.runs.start;
            let logits = &outputs.logits[row * vocab_size..][..vocab_size];
            surprise(logits, rows[window.row][at] as usize)
        });
        let count = |gate: &Vec<u8>| gate[first..end].iter().map(|bit| u32::from(*bit)).sum();
        let executed = outputs.gates.iter().map(count).collect();
        each(Scored { window: window.clone(), nats: nats.collect(), executed });
        first = end;
    }
    Ok(())
}

/// The negative logarithm of the probability that logits give to a token, in nats.
fn surprise(logits: &[f32], token: usize) -> f64 {
    -log_probabilities(logits)(logits[token])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(width: u32, stride: u32, length: usize) -> Vec<(Range<usize>, Range<usize>)> {
        let windows = Windows::new(width, stride).unwrap().of_row(0, length);
        windows.map(|window| (window.runs, window.scores)).collect()
    }

    #[test]
    fn a_token_is_scored_once() {
        assert_eq!(windows(4, 2, 8), [(0..4, 1..4), (2..6, 4..6), (4..8, 6..8)]);
        assert_eq!(windows(4, 2, 7), [(0..4, 1..4), (2..6, 4..6), (4..7, 6..7)]);
        assert_eq!(windows(4, 2, 4), [(0..4, 1..4)]);
        assert_eq!(windows(4, 2, 3), [(0..3, 1..3)]);
        assert_eq!(windows(4, 1, 6), [(0..4, 1..4), (1..5, 4..5), (2..6, 5..6)]);
        assert_eq!(windows(4, 2, 1), []);
        assert_eq!(windows(4, 2, 0), []);
        for (width, stride, length) in [(2, 1, 100), (7, 3, 100), (16, 16, 99), (100, 99, 101), (5, 4, 23)] {
            let scored: Vec<usize> =
                windows(width, stride, length).into_iter().flat_map(|(_, scores)| scores).collect();
            let alone = |at: &usize| *at == 0 || (stride == width && at.is_multiple_of(width as usize));
            let wanted: Vec<usize> = (0..length).filter(|at| !alone(at)).collect();
            assert_eq!(scored, wanted, "{width} {stride} {length}");
        }
    }

    #[test]
    fn windows_without_overlap_score_all_but_their_first_token() {
        assert_eq!(windows(4, 4, 9), [(0..4, 1..4), (4..8, 5..8)]);
        assert_eq!(windows(4, 4, 10), [(0..4, 1..4), (4..8, 5..8), (8..10, 9..10)]);
    }

    #[test]
    fn windows_that_score_nothing_are_refused() {
        for (width, stride) in [(0, 0), (1, 1), (4, 0), (4, 5)] {
            assert!(matches!(Windows::new(width, stride), Err(Error::Usage(_))), "{width} {stride}");
        }
    }

    #[test]
    fn the_surprise_of_a_token_is_that_of_its_probability() {
        let thirds = [0.5f32.ln(), 0.25f32.ln(), 0.25f32.ln()].map(|logit| logit + 300.0);
        assert!((surprise(&thirds, 0) - 2f64.ln()).abs() < 1e-4);
        assert!((surprise(&thirds, 2) - 4f64.ln()).abs() < 1e-4);
    }
}
