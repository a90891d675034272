//! What the reference interpreter ([`run`](crate::run())) computes with: numbers, data, and what a graph needs from outside.
//!
//! Domains are f64 and f32, which round, and [`Ring32`] and [`Gf61`], which do not: there two forms of a model are
//! equal or one of them is wrong.

mod datum;
pub mod functions;
mod gf61;
mod number;
mod ring32;
mod tag;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use datum::Datum;
pub use gf61::Gf61;
pub use number::Number;
pub use ring32::Ring32;

use crate::port::{Role, RoleText};
use crate::ty::{SetSym, Type};

/// The tokens of a step, all sequences one after the other, ordered by (sequence, position).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FlatBatch {
    /// Token ids, `[n]`; none for a graph that takes rows.
    pub tokens: Vec<i64>,
    /// What stands in their place for a graph that takes [`Role::Rows`], `[n, columns]` row by row; else nothing.
    pub rows: Vec<f32>,
    /// Position of each token in its sequence, `[n]`.
    pub positions: Vec<i64>,
    /// Index of each token's sequence, `[n]`.
    pub sequences: Vec<i64>,
}

impl FlatBatch {
    /// Lays sequences out one after the other.
    pub fn from_sequences<'a>(sequences: impl IntoIterator<Item = &'a [i64]>) -> FlatBatch {
        let mut batch = FlatBatch::default();
        for (idx, tokens) in sequences.into_iter().enumerate() {
            batch.tokens.extend_from_slice(tokens);
            batch.positions.extend((0..).take(tokens.len()));
            batch.sequences.extend(std::iter::repeat_n(idx as i64, tokens.len()));
        }
        batch
    }

    /// Rows of numbers in place of token ids, `[n, columns]`, in sequences of these lengths.
    pub fn of_rows(rows: Vec<f32>, lengths: impl IntoIterator<Item = usize>) -> FlatBatch {
        let mut batch = FlatBatch { rows, ..FlatBatch::default() };
        for (idx, length) in lengths.into_iter().enumerate() {
            batch.positions.extend((0..).take(length));
            batch.sequences.extend(std::iter::repeat_n(idx as i64, length));
        }
        batch
    }

    /// How many tokens there are, whether as ids or as rows.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// The same sequences so many times, one after the other.
    #[must_use]
    pub fn repeated(&self, times: usize) -> FlatBatch {
        let n_sequences = self.sequences.last().map_or(0, |last| last + 1);
        let sequences = (0..times as i64)
            .flat_map(|time| self.sequences.iter().map(move |sequence| sequence + time * n_sequences));
        FlatBatch {
            tokens: self.tokens.repeat(times),
            rows: self.rows.repeat(times),
            positions: self.positions.repeat(times),
            sequences: sequences.collect(),
        }
    }

    /// The tokens that `keep` takes, by their index.
    #[must_use]
    pub fn select(&self, keep: impl Fn(usize) -> bool) -> FlatBatch {
        let pick = |ints: &[i64]| -> Vec<i64> {
            ints.iter().enumerate().filter(|(row, _)| keep(*row)).map(|(_, int)| *int).collect()
        };
        let cols = self.rows.len().checked_div(self.len()).unwrap_or(0);
        let rows = self.rows.chunks(cols.max(1)).enumerate().filter(|(row, _)| keep(*row));
        FlatBatch {
            tokens: pick(&self.tokens),
            rows: rows.flat_map(|(_, row)| row).copied().collect(),
            positions: pick(&self.positions),
            sequences: pick(&self.sequences),
        }
    }

    /// The same tokens as a later step: `before[i]` tokens of sequence `i` came in earlier ones.
    #[must_use]
    pub fn behind(mut self, before: &[i64]) -> FlatBatch {
        for (position, sequence) in self.positions.iter_mut().zip(&self.sequences) {
            *position +=
                usize::try_from(*sequence).ok().and_then(|idx| before.get(idx)).copied().unwrap_or(0);
        }
        self
    }
}

/// Gives the values of weights by name, row by row.
pub trait Weights<N> {
    /// All elements of a tensor; `None` if there is no such tensor.
    fn weight(&self, name: &str) -> Option<Vec<N>>;
}

/// Decisions that replace those of the routers, for replay and for the exact domains.
pub trait Routing {
    /// The forced mask of a set over the `n_rows` rows that it selects from; `None` to let the router decide.
    fn forced(&self, set: SetSym, n_rows: usize) -> Option<Vec<bool>>;
}

/// Lets every router decide.
pub struct Free;

impl Routing for Free {
    fn forced(&self, _: SetSym, _: usize) -> Option<Vec<bool>> {
        None
    }
}

/// All that a graph needs from outside.
pub struct Env<'a, N> {
    /// The step's tokens.
    pub batch: &'a FlatBatch,
    /// Named inputs and states, by role; what a step returns of a state is for the next one to find here.
    pub tensors: BTreeMap<Role, Datum<N>>,
    /// The weights.
    pub weights: &'a dyn Weights<N>,
    /// Forced decisions.
    pub routing: &'a dyn Routing,
}

/// Why a graph has no value here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// A weight is missing or has another number of elements.
    #[error("no weight `{0}` of the right size")]
    NoWeight(String),
    /// A token id (or position) has no row in its table.
    #[error("row {row}: id {id} is outside the {n_ids} rows of the embedding table")]
    IdOutOfRange {
        /// Row of the batch.
        row: usize,
        /// The id.
        id: i64,
        /// How many rows the table has.
        n_ids: usize,
    },
    /// An input is missing, or of another kind or size than its port.
    #[error("no `{}` of the type {ty}", RoleText(role))]
    Input {
        /// The input.
        role: Role,
        /// What it should be.
        ty: Type,
    },
    /// The batch does not have one position and one sequence for each token.
    #[error("the batch has {tokens} tokens, {positions} positions and {sequences} sequence indices")]
    Batch {
        /// How many tokens.
        tokens: usize,
        /// How many positions.
        positions: usize,
        /// How many sequence indices.
        sequences: usize,
    },
    /// A place is outside of the cache.
    #[error("row {row}: place {place} is outside the {n_rows} rows of the cache")]
    NoPlace {
        /// Row of the step.
        row: usize,
        /// The row of the cache that it names; -1 if the sequence has no page for a position.
        place: i64,
        /// How many rows the cache has.
        n_rows: usize,
    },
    /// A forced mask has the wrong number of rows.
    #[error("the forced routing has {got} rows, the set selects from {wanted}")]
    ForcedRows {
        /// Rows of the mask.
        got: usize,
        /// Rows of the set's source.
        wanted: usize,
    },
    /// An operand is of another kind than the type rule promised: the graph was not verified.
    #[error("operand is not {0}: the graph is not verified")]
    Kind(&'static str),
}

/// Results of a graph by role.
pub type Results<N> = Vec<(Role, Datum<N>)>;
