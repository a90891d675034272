//! Generation, above a step: what the host does with the logits of a model and the slots that it decodes in.
//!
//! A [`Decoder`] runs the next tokens of its slots; everything else here works on any of them. [`Cached`] computes those
//! tokens alone. [`Recompute`] is the plainest one: it runs whole prefixes on a [`Session`]. An [`Engine`]
//! continues many [`Request`]s on one, token by token as [`Sampling`] says, with drafts of its own if [`Speculation`] asks for them; [`beam::search`] looks for likely continuations as a whole.

pub mod beam;
pub mod bookkeeping;
mod cached;
#[cfg(feature = "tokenizers")]
mod checkpoint;
mod decoder;
mod engine;
mod files;
mod language;
pub mod metered;
#[cfg(not(feature = "tokenizers"))]
mod no_checkpoint;
mod pages;
mod prefixes;
#[cfg(feature = "tokenizers")]
mod python_json;
mod recompute;
mod request;
pub mod sampling;
mod speculate;
pub mod text;
mod tokenizer;
#[cfg(test)]
mod toy;

pub use cached::Cached;
pub use decoder::{Chunk, Decoder, Limits, PageUse, Rows, Slot, StepOutputs};
pub use engine::{Engine, EngineOptions, Progress};
pub use language::{ChatTemplate, LanguageFiles};
pub use metered::{Metered, StepRecord};
pub use recompute::{Recompute, prepare};
pub use request::{Completion, Event, Finish, Handle, Listener, Request};
pub use sampling::{LogProbs, Sampling, likeliest};
pub use speculate::{Drafts, Speculation};
pub use text::TextStream;
pub use tokenizer::{Bytes, Tokenizer};

use skipc_artifact::program::{PAGE_ROWS, STEP};

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
fn with_prefixes(
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
