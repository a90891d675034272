//! A run of a function as a device gets it, and where its buffers lie.

use std::ops::Range;

use skipc_artifact::interface::Role;
use skipc_artifact::program::{Bounds, Function, Program, Storage};

/// One run of a function.
pub(crate) struct Run<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// The function.
    pub(crate) function: &'a Function,
    /// Which of its steps, ascending.
    pub(crate) steps: Vec<usize>,
    /// Tokens of the step.
    pub(crate) n_tokens: u32,
    /// Rows that buffers of tokens need room for: of tokens, or of a cache that this step computes.
    pub(crate) n_rows: u32,
    /// Rows of the logits.
    pub(crate) n_logits: u32,
    /// What is written before.
    pub(crate) inputs: &'a [Input],
    /// Buffers that are read afterwards.
    pub(crate) wanted: &'a [u32],
}

impl Run<'_> {
    /// Bytes of a result that mean something: of the tokens that there are, and of the logits that are wanted.
    pub(crate) fn result_bytes(&self, idx: u32, bounds: Bounds) -> usize {
        let is_logits = self.function.interface.buffer(&Role::Logits) == Some(idx);
        let tokens = if is_logits { self.n_logits } else { self.n_tokens };
        let buffer = self.function.buffers.get(idx as usize);
        buffer.map_or(0, |buffer| buffer.bytes(Bounds { tokens, ..bounds })) as usize
    }
}

/// Bytes to put into a buffer before a run.
#[derive(Debug)]
pub(crate) struct Input {
    /// Index of the buffer.
    pub(crate) buffer: u32,
    /// What its first bytes become.
    pub(crate) bytes: Vec<u8>,
}

/// The memories that buffers lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Region {
    /// The arena of the step.
    Arena,
    /// The states.
    States,
}

impl Region {
    /// As messages name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Region::Arena => "the arena",
            Region::States => "the states",
        }
    }
}

/// Where a buffer of a function lies under a bound.
pub(crate) fn place(
    program: &Program,
    function: &Function,
    idx: u32,
    bounds: Bounds,
) -> Option<(Region, Range<usize>)> {
    let buffer = function.buffers.get(idx as usize)?;
    match buffer.storage {
        Storage::Step(_) => Some((Region::Arena, buffer.arena_span(bounds)?)),
        Storage::State(state) => {
            Some((Region::States, program.states.get(state as usize)?.span(bounds.cached)))
        }
    }
}
