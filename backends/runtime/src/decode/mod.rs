//! Generation, above a step: what the host does with the logits of a model and the slots that it decodes in.
//!
//! A [`Decoder`] runs the next tokens of its slots; everything else here works on any of them. [`Cached`] computes those
//! tokens alone. [`Recompute`] is the plainest one: it runs whole prefixes on a [`Session`](crate::Session). An [`Engine`]
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
mod slots;
pub mod text;
mod tokenizer;
#[cfg(test)]
mod toy;

pub use cached::Cached;
pub use decoder::{Chunk, Decoder, Limits, PageUse, Rows, Slot, StepOutputs};
pub use engine::{Drafts, Engine, EngineOptions, Progress, Speculation};
pub use language::{ChatTemplate, LanguageFiles};
pub use metered::{Metered, StepRecord};
pub use recompute::{Recompute, prepare};
pub use request::{Completion, Event, Finish, Handle, Listener, Request};
pub use sampling::{LogProbs, Sampling, likeliest};
pub use slots::of_slots;
pub use text::TextStream;
pub use tokenizer::{Bytes, Tokenizer};
