//! What goes into a run and what comes out.
//!
//! Inside, all sequences of a batch stand one after the other, without padding. [`Grid`] is the shape in which users
//! give and get arrays, `[batch, tokens]` with rows filled up to the longest.

use std::ops::Range;

use skipc_artifact::interface::{Role, RouterPorts};
use skipc_artifact::program::{Buffer, Function, Head, Pool};

use crate::choices::{self, Choices};
use crate::error::Error;

/// Sequences to run, one after the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Token ids of all sequences, `[n_tokens]`; none for a model that takes rows.
    pub tokens: Vec<u32>,
    /// The rows of all sequences, `[n_tokens, columns]`, for a model that takes rows in place of token ids; else none.
    pub rows: Vec<f32>,
    /// Length of each sequence; their sum is the number of tokens. Empty sequences are allowed.
    pub lengths: Vec<u32>,
    /// Decisions to replay instead of asking the routers, `[routers][n_tokens]` of 0 and 1.
    pub routing: Option<Vec<Vec<u8>>>,
    /// Choices to replay in each layer of experts, in the order in which they run: they count by the scores that the layer gives
    /// them. Where a token has fewer than it can, the highest of the others are taken to have found no place.
    pub experts: Option<Vec<Choices>>,
}

/// The result of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outputs {
    /// `[n_tokens, columns of the logits]`, row by row; [`Outputs::take_logits`] says which rows count.
    pub logits: Vec<f32>,
    /// `[routers][n_tokens]`, in model order: 1 where the token executed.
    pub gates: Vec<Vec<u8>>,
    /// How many tokens executed, of each router.
    pub counts: Vec<u32>,
    /// How many tokens each router wanted to execute beyond its capacity; 0 if it has none or decisions were replayed.
    pub overflow: Vec<u32>,
    /// Which choices tokens got in each layer of experts, in the order in which they run; empty if nobody asked.
    pub choices: Vec<Choices>,
}

impl Outputs {
    /// The logits in the shape in which users get them: `[batch, tokens, columns]` with zeros as padding, or, where sequences
    /// are scored as a whole, `[batch, columns]`, zeros for one without tokens. Takes them out of the result.
    #[must_use]
    pub fn take_logits(&mut self, function: &Function, grid: &Grid) -> (Vec<u64>, Vec<f32>) {
        let (batch, cols) = (grid.lengths.len() as u64, function.logits as usize);
        let logits = std::mem::take(&mut self.logits);
        let Head::Pooled(pool) = function.head else {
            let is_full = grid.lengths.iter().all(|length| *length as usize == grid.width);
            let logits = if is_full { logits } else { grid.unpack(&logits, cols) };
            return (vec![batch, grid.width as u64, cols as u64], logits);
        };
        let mut pooled = Vec::with_capacity(grid.lengths.len() * cols);
        for rows in grid.rows() {
            match pooled_row(pool, &rows) {
                Some(row) => pooled.extend_from_slice(&logits[row * cols..][..cols]),
                None => pooled.resize(pooled.len() + cols, 0.0),
            }
        }
        (vec![batch, cols as u64], pooled)
    }

    /// Looks for logits that are no numbers, in sequences of these lengths.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] for the first.
    pub fn check_finite(&self, lengths: &[u32]) -> Result<(), Error> {
        let Some(at) = self.logits.iter().position(|logit| !logit.is_finite()) else { return Ok(()) };
        let n_tokens: usize = lengths.iter().map(|&length| length as usize).sum();
        let (mut sequence, mut position) = (0, at / (self.logits.len() / n_tokens.max(1)).max(1));
        for &length in lengths {
            if position < length as usize {
                break;
            }
            (sequence, position) = (sequence + 1, position - length as usize);
        }
        Err(Error::NonFinite { sequence, position, value: self.logits[at] })
    }
}

/// The row whose scores are those of a sequence of these rows; none if it has none.
#[must_use]
pub fn pooled_row(pool: Pool, rows: &Range<usize>) -> Option<usize> {
    match pool {
        // Each row has those of the mean.
        Pool::Mean | Pool::First => rows.clone().next(),
        Pool::Last => rows.clone().next_back(),
    }
}

/// What the routers, and those of experts, decided in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decisions {
    /// `[routers][n]`, in model order: 1 where the token executed.
    pub gates: Vec<Vec<u8>>,
    /// How many tokens each router wanted to execute beyond its capacity; `None` if it has none.
    pub overflow: Vec<Option<u32>>,
    /// Which choices tokens got in each layer of experts, in the order in which they run.
    pub choices: Vec<Choices>,
}

impl Decisions {
    /// Overflows as [`Outputs`] has them, told apart by whether the router has a capacity at all.
    #[must_use]
    pub fn new(function: &Function, gates: Vec<Vec<u8>>, overflow: &[u32], choices: Vec<Choices>) -> Self {
        let routers = function.interface.routers().into_iter();
        let limited = routers.map(|router| matches!(router, RouterPorts::Routed { wanted: Some(_), .. }));
        let overflow = limited.zip(overflow).map(|(limited, over)| limited.then_some(*over)).collect();
        Self { gates, overflow, choices }
    }
}

impl Batch {
    /// One sequence.
    #[must_use]
    pub fn of_sequence(tokens: Vec<u32>) -> Self {
        let lengths = vec![u32::try_from(tokens.len()).unwrap_or(u32::MAX)];
        Self { tokens, lengths, ..Self::default() }
    }

    /// Sequences of these lengths of rows, `[n_tokens, columns]`, for a model that takes rows.
    #[must_use]
    pub fn of_rows(rows: Vec<f32>, lengths: Vec<u32>) -> Self {
        Self { rows, lengths, ..Self::default() }
    }

    /// How many tokens there are, whether as ids or as rows.
    #[must_use]
    pub fn n_tokens(&self) -> u64 {
        self.lengths.iter().map(|&length| u64::from(length)).sum()
    }

    /// Checks the batch against a program.
    ///
    /// # Errors
    ///
    /// Whatever of it the program cannot run; always the user's input at fault.
    pub fn check(&self, function: &Function) -> Result<(), Error> {
        let n_tokens = self.n_tokens();
        match row_columns(function) {
            Some(cols) => self.check_rows(cols)?,
            None if !self.rows.is_empty() => return Err(Error::TakesTokens),
            None if n_tokens != self.tokens.len() as u64 => {
                let (found, expected) = (usize::try_from(n_tokens).unwrap_or(usize::MAX), self.tokens.len());
                return Err(Error::BatchShape { what: "sum of sequence lengths", found, expected });
            }
            None => {}
        }
        self.check_sizes(function)?;
        let vocab_size = function.vocab_size;
        if let Some((at, &found)) = self.tokens.iter().enumerate().find(|&(_, &token)| token >= vocab_size) {
            return Err(Error::TokenRange { found, at, vocab_size });
        }
        if let Some(routing) = self.routing.as_deref() {
            check_routing(routing, n_tokens as usize, function)?;
        }
        self.experts.as_deref().map_or(Ok(()), |layers| choices::check(layers, n_tokens as usize, function))
    }

    /// Checks its lengths alone against a function.
    ///
    /// # Errors
    ///
    /// [`Error::SequenceTooLong`], [`Error::LongSequence`] or [`Error::WholeBatch`].
    pub fn check_sizes(&self, function: &Function) -> Result<(), Error> {
        check_sizes(function, self.n_tokens(), longest(&self.lengths))
    }

    /// Finite numbers, so many in a row for each token, and no ids.
    fn check_rows(&self, cols: u32) -> Result<(), Error> {
        if !self.tokens.is_empty() || self.rows.len() as u64 != self.n_tokens().saturating_mul(cols.into()) {
            return Err(Error::TakesRows { cols });
        }
        match self.rows.iter().position(|number| !number.is_finite()) {
            Some(at) => Err(Error::RowValue { value: self.rows[at], at, cols }),
            None => Ok(()),
        }
    }
}

/// The first of the longest of some sequences, with its length; nothing of none.
pub(crate) fn longest(lengths: &[u32]) -> (usize, u64) {
    let first = lengths.iter().enumerate().max_by_key(|(at, length)| (**length, std::cmp::Reverse(*at)));
    first.map_or((0, 0), |(sequence, length)| (sequence, u64::from(*length)))
}

/// Checks a batch of so many tokens, and the longest of its sequences by index and length, against what a function takes.
///
/// # Errors
///
/// [`Error::SequenceTooLong`], [`Error::LongSequence`] or [`Error::WholeBatch`].
pub(crate) fn check_sizes(
    function: &Function,
    n_tokens: u64,
    (sequence, length): (usize, u64),
) -> Result<(), Error> {
    let Function { max_tokens, max_positions, ranks_batch, .. } = *function;
    // Before the tokens of a step, because no larger program would take it.
    if length > u64::from(max_positions) {
        return Err(Error::SequenceTooLong { sequence, found: length, limit: max_positions });
    }
    if length > u64::from(max_tokens) {
        return Err(Error::LongSequence { sequence, found: length, limit: max_tokens });
    }
    if ranks_batch && n_tokens > u64::from(max_tokens) {
        return Err(Error::WholeBatch { found: n_tokens, limit: max_tokens });
    }
    Ok(())
}

/// How many columns the rows have that a function takes in place of token ids; `None` if it takes those.
#[must_use]
pub fn row_columns(function: &Function) -> Option<u32> {
    row_buffer(function).map(|buffer| buffer.cols)
}

/// Where a function finds the rows that it takes in place of token ids.
pub(crate) fn row_buffer(function: &Function) -> Option<&Buffer> {
    let idx = function.interface.buffer(&Role::Rows)?;
    function.buffers.get(idx as usize)
}

fn check_routing(routing: &[Vec<u8>], n_tokens: usize, function: &Function) -> Result<(), Error> {
    let routers = function.interface.routers();
    if routing.len() != routers.len() {
        let (found, expected) = (routing.len(), routers.len());
        return Err(Error::BatchShape { what: "routers of the replayed decisions", found, expected });
    }
    for (router, (decisions, ports)) in routing.iter().zip(&routers).enumerate() {
        if decisions.len() != n_tokens {
            let (found, expected) = (decisions.len(), n_tokens);
            return Err(Error::BatchShape { what: "tokens of the replayed decisions", found, expected });
        }
        match *ports {
            RouterPorts::Constant(executes) => {
                if let Some(at) = decisions.iter().position(|&decision| (decision != 0) != executes) {
                    return Err(Error::RoutingConflict { router, with: "its constant".into(), at });
                }
            }
            RouterPorts::Routed { forced, .. } => {
                // Routers that share a buffer were proved equal, so only a file that contradicts the model differs.
                let shares = |ports: &RouterPorts| matches!(*ports, RouterPorts::Routed { forced: other, .. } if other == forced);
                let first = routers.iter().position(shares).unwrap_or(router);
                let differs = |at: &usize| decisions.get(*at) != routing[first].get(*at);
                if let Some(at) = (0..n_tokens).find(differs) {
                    return Err(Error::RoutingConflict { router, with: format!("router {first}"), at });
                }
            }
        }
    }
    Ok(())
}

/// Where the tokens of a batch stand in an array `[batch, width]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grid {
    /// Length of each row; the rest of a row is padding.
    pub lengths: Vec<u32>,
    /// Columns of the array.
    pub width: usize,
}

impl Grid {
    /// How many tokens all sequences have.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.lengths.iter().map(|&length| length as usize).sum()
    }

    /// The elements that are not padding, one row after the other. `rows` has `batch · width` of them.
    pub fn pack<'a, T: Copy>(&'a self, array: &'a [T]) -> impl Iterator<Item = T> + 'a {
        self.pack_rows(array, 1)
    }

    /// As [`Grid::pack`], of elements of `size` numbers each.
    pub fn pack_rows<'a, T: Copy>(&'a self, array: &'a [T], size: usize) -> impl Iterator<Item = T> + 'a {
        let rows = array.chunks((self.width * size).max(1)).zip(&self.lengths);
        rows.flat_map(move |(row, &length)| row.iter().take(length as usize * size).copied())
    }

    /// Where the tokens of each sequence lie among those of all.
    pub fn rows(&self) -> impl Iterator<Item = Range<usize>> {
        self.lengths.iter().scan(0, |end, &length| {
            let begin = *end;
            *end += length as usize;
            Some(begin..*end)
        })
    }

    /// The inverse of [`Grid::pack`] for elements of `size` numbers each, with zeros as padding.
    #[must_use]
    pub fn unpack<T: Copy + Default>(&self, packed: &[T], size: usize) -> Vec<T> {
        let mut array = Vec::with_capacity(self.lengths.len() * self.width * size);
        let mut rest = packed;
        for &length in &self.lengths {
            let (row, after) = rest.split_at((length as usize * size).min(rest.len()));
            rest = after;
            array.extend_from_slice(row);
            array.resize(array.len() + self.width * size - row.len(), T::default());
        }
        array
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_drop_and_restore_padding() {
        let grid = Grid { lengths: vec![2, 0, 3], width: 3 };
        let array = [1, 2, 9, 9, 9, 9, 3, 4, 5];
        let packed: Vec<i32> = grid.pack(&array).collect();
        assert_eq!(packed, [1, 2, 3, 4, 5]);
        assert_eq!(grid.unpack(&packed, 1), [1, 2, 0, 0, 0, 0, 3, 4, 5]);
        let pairs = grid.unpack(&[1, 1, 2, 2, 3, 3, 4, 4, 5, 5], 2);
        assert_eq!(pairs, [1, 1, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 3, 3, 4, 4, 5, 5]);
        let packed: Vec<i32> = grid.pack_rows(&pairs, 2).collect();
        assert_eq!(packed, [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
        let empty = Grid { lengths: vec![0, 0], width: 0 };
        assert_eq!(empty.unpack::<f32>(&[], 7), [0.0; 0]);
    }
}
