//! Generation, above a step: what the host does with the logits of a model and the slots that it decodes in.
//!
//! A [`Decoder`] runs the next tokens of its slots; everything else here works on any of them. [`Cached`] computes those
//! tokens alone. [`Recompute`] is the plainest one: it runs whole prefixes on a [`Session`](crate::Session).

mod cached;
mod decoder;
mod pages;
mod recompute;

pub use cached::Cached;
pub use decoder::{Chunk, Decoder, Limits, Rows, Slot, StepOutputs};
pub use recompute::{Recompute, prepare};
