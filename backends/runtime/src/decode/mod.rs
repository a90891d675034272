//! Generation, above a step: what the host does with the logits of a model and the slots that it decodes in.
//!
//! A [`Decoder`] runs the next tokens of its slots; everything else here works on any of them. [`Cached`] computes those
//! tokens alone. [`Recompute`] is the plainest one: it runs whole prefixes on a [`Session`]. An [`Engine`]
//! continues many [`Request`]s on one, token by token as [`Sampling`] says, with drafts of its own if [`Speculation`] asks for them; [`beam::search`] looks for likely continuations as a whole.
//!
//! ```no_run
//! use skipc_runtime::decode::{Cached, Engine, EngineOptions, Event, Request};
//! use skipc_runtime::{Device, Model, Module, Options};
//!
//! # fn main() -> Result<(), skipc_runtime::Error> {
//! let model = Model::open("model.skp".as_ref())?;
//! let module = Module::load(&model, Device::Cpu, Options::default())?;
//! // Eight slots, and room for so many tokens of all of them together.
//! let mut engine = Engine::new(Cached::new(&module, 8, 4096)?, EngineOptions::default())?;
//! let handle = engine.submit(Request::greedy(vec![72, 101, 108], 16))?;
//! while !engine.is_idle() {
//!     engine.step()?;
//!     while let Some(event) = handle.try_next() {
//!         if let Event::Token { token, .. } = event {
//!             println!("{token}");
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! ```

pub mod beam;
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
pub use request::{Event, Finish, Handle, Listener, Request};
pub use sampling::{LogProbs, Sampling};
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
    match module.program().function(STEP) {
        Some(step) => {
            let of_slot = step.max_positions.next_multiple_of(PAGE_ROWS);
            Ok(Box::new(Cached::new(module, slots, slots.saturating_mul(of_slot))?))
        }
        None => Ok(Box::new(Recompute::new(Session::of_module(module)?, model, slots)?)),
    }
}
