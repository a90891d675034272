//! What a model is trained on: windows of a stream, or rows, and the order in which steps take them.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use skipc_ir::draws;
use skipc_runtime::decode::{LanguageFiles, Tokenizer};
use skipc_runtime::inputs::{Room, Sequences, read_text};

use super::Part;
use crate::diagnostic::Diagnostic;
use crate::error::Error;
use crate::frontend::training::{Config, From, Order};

/// Longest text that is read, in bytes: it is held in memory, as are its tokens.
const TEXT_LIMIT: u64 = 1 << 30;

/// The rows of a training run, each with its tokens and, for every token but the last, the one behind it as the target.
pub struct Data {
    /// Inputs of a row.
    seq: usize,
    batch: usize,
    seed: u64,
    order: Order,
    from: Tokens,
    /// The end of a stream, which is not trained on.
    held_out: Vec<u32>,
    unit: Unit,
}

/// What a token stands for.
enum Unit {
    /// A byte of a text.
    Byte,
    /// As many as this says.
    Piece(Arc<dyn Tokenizer>),
    /// Nobody knows.
    Unknown,
}

enum Tokens {
    /// Windows begin `seq` tokens apart and share one.
    Stream(Vec<u32>),
    /// Each a row.
    Rows(Sequences),
}

impl Data {
    /// Reads what the configuration names, for a model of so many ids.
    ///
    /// # Errors
    /// Files that cannot be read; ids that the model does not have; too few tokens.
    pub fn read(config: &Config, vocab_size: usize) -> Result<Data, Error> {
        let (unit, from, path) = match &config.data.from {
            From::Text { text, tokenizer } => {
                let read = read_text(text, TEXT_LIMIT)?;
                if tokenizer.is_none() && vocab_size < 256 {
                    let message = format!(
                        "the tokens of {} are its bytes, and the model has {vocab_size} ids",
                        text.display()
                    );
                    let help = "write `tokenizer = \"tokenizer.json\"`, or train a model of 256 ids or more";
                    return Err(Diagnostic::new("train::token", message).help(help).into());
                }
                let (unit, ids) = encoded(&read, (text, tokenizer.as_deref()), vocab_size)?;
                (unit, Tokens::Stream(ids), text)
            }
            From::Tokens { tokens, lengths } => {
                let sequences = Sequences::read(tokens, lengths.as_deref(), Room::Corpus)?;
                if let Some(path) = lengths.as_ref().filter(|_| !sequences.is_batch) {
                    let message = format!("{} is one stream, which has no lengths", tokens.display());
                    let help = format!("leave {} out, or give rows [rows, seq + 1]", path.display());
                    return Err(Diagnostic::new("train::rows", message).help(help).into());
                }
                let from = match sequences.is_batch {
                    false => Tokens::Stream(sequences.tokens),
                    true => Tokens::Rows(sequences),
                };
                (Unit::Unknown, from, tokens)
            }
        };
        check_ids(&from, path, vocab_size)?;
        Data::of(config, from, unit).divided(config, path)
    }

    fn of(config: &Config, from: Tokens, unit: Unit) -> Data {
        let train = &config.train;
        let own = match from {
            Tokens::Stream(_) => Order::Shuffled,
            Tokens::Rows(_) => Order::Given,
        };
        Data {
            seq: train.seq,
            batch: train.batch,
            seed: train.seed,
            order: config.data.order.unwrap_or(own),
            from,
            held_out: Vec::new(),
            unit,
        }
    }

    /// Takes the end of a stream away, and looks whether there is a window left on either side.
    fn divided(mut self, config: &Config, path: &Path) -> Result<Data, Error> {
        let share = config.data.validation;
        match &mut self.from {
            Tokens::Stream(stream) => {
                let held = (share * stream.len() as f64).floor() as usize;
                self.held_out = stream.split_off(stream.len() - held);
                let (seq, train) = (self.seq, stream.len());
                let short = |what: &str, got: usize| {
                    let message = format!(
                        "{}: {what} has {got} tokens, and a window takes {}",
                        path.display(),
                        seq + 1
                    );
                    let help = "write a smaller `seq`, or give more text";
                    Err(Diagnostic::new("train::no_window", message).help(help).into())
                };
                if train < seq + 1 {
                    return short("what is trained on", train);
                }
                if share > 0.0 && held < seq + 1 {
                    return short("the share that is held out", held);
                }
            }
            Tokens::Rows(rows) => {
                let wrong = |message: String, help: &str| {
                    Err(Diagnostic::new("train::rows", message).help(help).into())
                };
                if rows.grid.width != self.seq + 1 || rows.grid.lengths.is_empty() {
                    let (got, wanted) = (rows.grid.width, self.seq + 1);
                    let n_rows = rows.grid.lengths.len();
                    let message =
                        format!("{}: {n_rows} rows of {got} tokens, not of {wanted}", path.display());
                    return wrong(message, "rows have `seq` + 1 tokens, so that each input has a target");
                }
                if share > 0.0 {
                    let message = "`validation` holds out the end of a stream, and these are rows".to_owned();
                    return wrong(message, "leave it out, or give one stream [n]");
                }
            }
        }
        Ok(self)
    }

    /// Windows or rows that are trained on.
    pub fn n_windows(&self) -> usize {
        match &self.from {
            Tokens::Stream(stream) => (stream.len() - 1) / self.seq,
            Tokens::Rows(rows) => rows.grid.lengths.len(),
        }
    }

    /// Which windows a step takes.
    pub fn indices(&self, step: u64) -> Vec<usize> {
        let n = self.n_windows() as u64;
        let mut order: Option<(u64, Vec<u64>)> = None;
        let entries = step * self.batch as u64..(step + 1) * self.batch as u64;
        let window = |entry: u64| {
            let (epoch, place) = (entry / n, entry % n);
            if self.order == Order::Given {
                return place as usize;
            }
            if order.as_ref().is_none_or(|(of, _)| *of != epoch) {
                order = Some((epoch, permutation(self.seed, epoch, n)));
            }
            order.as_ref().map_or(0, |(_, windows)| windows[place as usize] as usize)
        };
        entries.map(window).collect()
    }

    /// The tokens of a window.
    fn window(&self, idx: usize) -> &[u32] {
        match &self.from {
            Tokens::Stream(stream) => &stream[idx * self.seq..][..=self.seq],
            Tokens::Rows(rows) => rows.ids().nth(idx).unwrap_or_default(),
        }
    }

    /// The rows of a step.
    pub fn step(&self, step: u64) -> Part {
        let rows = self.indices(step).into_iter().enumerate();
        Part::of(rows.map(|(row, window)| (row, self.window(window))))
    }

    /// Windows that are held out.
    pub fn n_held_out(&self) -> usize {
        self.held_out.len().saturating_sub(1) / self.seq
    }

    /// Some of them, as many as `at_once` together, each a row of its index.
    pub fn held_out(&self, windows: Range<usize>, at_once: usize) -> impl Iterator<Item = Part> {
        let end = windows.end;
        windows.step_by(at_once.max(1)).map(move |first| {
            let window = |idx: usize| (idx, &self.held_out[idx * self.seq..][..=self.seq]);
            Part::of((first..end.min(first + at_once.max(1))).map(window))
        })
    }

    /// How many bytes so many targets stand for, where anybody knows.
    pub fn bytes(&self, targets: &[i64]) -> Option<u64> {
        match &self.unit {
            Unit::Byte => Some(targets.len() as u64),
            Unit::Piece(tokenizer) => {
                let ids: Vec<u32> = targets.iter().filter_map(|id| u32::try_from(*id).ok()).collect();
                Some(tokenizer.decode(&ids).len() as u64)
            }
            Unit::Unknown => None,
        }
    }

    /// What says whether a run goes on with the same data: all its tokens.
    pub fn content(&self) -> Vec<u8> {
        let tokens = match &self.from {
            Tokens::Stream(stream) => stream,
            Tokens::Rows(rows) => &rows.tokens,
        };
        tokens.iter().chain(&self.held_out).flat_map(|id| id.to_le_bytes()).collect()
    }
}

/// The ids of a text.
fn encoded(
    text: &str,
    (path, tokenizer): (&Path, Option<&Path>),
    vocab_size: usize,
) -> Result<(Unit, Vec<u32>), Error> {
    let Some(tokenizer) = tokenizer else {
        return Ok((Unit::Byte, text.bytes().map(u32::from).collect()));
    };
    let files = LanguageFiles { model: path.into(), tokenizer: Some(tokenizer.into()), chat_template: None };
    let tokenizer = files.tokenizer(u32::try_from(vocab_size).unwrap_or(u32::MAX))?;
    let ids = tokenizer.encode(text)?;
    Ok((Unit::Piece(tokenizer), ids))
}

fn check_ids(from: &Tokens, path: &Path, vocab_size: usize) -> Result<(), Error> {
    let tokens = match from {
        Tokens::Stream(stream) => stream,
        Tokens::Rows(rows) => &rows.tokens,
    };
    let Some(idx) = tokens.iter().position(|id| *id as usize >= vocab_size) else { return Ok(()) };
    let message = format!(
        "{}: token {} (counted from 0) is {}, and the model has the ids 0 to {}",
        path.display(),
        idx,
        tokens[idx],
        vocab_size - 1
    );
    let help = "tokens and model belong together: check `vocab_size` in the spec, or the tokenizer";
    Err(Diagnostic::new("train::token", message).help(help).into())
}

/// The windows of an epoch in their order.
fn permutation(seed: u64, epoch: u64, n: u64) -> Vec<u64> {
    let first = draws::word(seed, "order", epoch);
    let mut windows: Vec<u64> = (0..n).collect();
    windows.sort_by_key(|window| draws::mix(first.wrapping_add(*window)));
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_have_the_orders_of_the_definition() {
        assert_eq!(permutation(7, 0, 8), [5, 3, 6, 4, 1, 2, 7, 0]);
        assert_eq!(permutation(7, 1, 8), [1, 3, 0, 5, 2, 6, 7, 4]);
    }
}
