//! What runs the slots of a program.

use skipc_artifact::program::{PAGE_ROWS, STEP};

use super::cached::Cached;
use super::decoder::Decoder;
use super::recompute::Recompute;
use crate::error::Error;
use crate::model::Model;
use crate::module::Module;
use crate::session::Session;

/// A decoder of this many slots that has room for the longest sequence in each: with caches, or, if the artefact has no
/// function for steps, one that runs whole prefixes.
///
/// # Errors
///
/// [`Error::NotCausal`] for a model that cannot generate; no memory.
pub fn of_slots(module: &Module, model: &Model, slots: u32) -> Result<Box<dyn Decoder + Send>, Error> {
    decoder((module, model), (slots, None), |cached| cached)
}

/// As [`of_slots`], with room for so many tokens of all slots together if it is said, in which sequences that begin alike share
/// pages.
pub(super) fn with_prefixes(
    of: (&Module, &Model),
    slots: u32,
    cache_tokens: Option<u32>,
) -> Result<Box<dyn Decoder + Send>, Error> {
    decoder(of, (slots, cache_tokens), Cached::sharing_prefixes)
}

fn decoder(
    (module, model): (&Module, &Model),
    (slots, cache_tokens): (u32, Option<u32>),
    shares: fn(Cached) -> Cached,
) -> Result<Box<dyn Decoder + Send>, Error> {
    match module.program().function(STEP) {
        Some(step) => {
            let of_slot = step.max_positions.next_multiple_of(PAGE_ROWS);
            let tokens = cache_tokens.unwrap_or(slots.saturating_mul(of_slot));
            Ok(Box::new(shares(Cached::new(module, slots, tokens)?)))
        }
        None => Ok(Box::new(Recompute::new(Session::of_module(module)?, model, slots)?)),
    }
}
