//! Generation, above a step: what the host does with the logits of a model and the slots that it decodes in.
//!
//! A [`Decoder`] runs the next tokens of its slots; everything else here works on any of them. [`Recompute`] is the
//! plainest one: it runs whole prefixes on a [`Session`](crate::Session). An [`Engine`] continues many [`Request`]s on
//! one, token by token as [`Sampling`] says; [`beam::search`] looks for likely continuations as a whole.
//!
//! ```no_run
//! use skipc_runtime::decode::{Engine, EngineOptions, Event, Recompute, Request};
//! use skipc_runtime::{Device, Model, Options, Session};
//!
//! # fn main() -> Result<(), skipc_runtime::Error> {
//! let model = Model::open("model.skp".as_ref())?;
//! let session = Session::new(&model, Device::Cpu, Options::default())?;
//! let mut engine = Engine::new(Recompute::new(session, &model, 8)?, EngineOptions::default())?;
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
mod decoder;
mod engine;
mod recompute;
mod request;
pub mod sampling;
pub mod text;
mod tokenizer;
#[cfg(test)]
mod toy;

pub use decoder::{Chunk, Decoder, Limits, Rows, Slot, StepOutputs};
pub use engine::{Engine, EngineOptions, Progress};
pub use recompute::{Recompute, prepare};
pub use request::{Event, Finish, Handle, Request};
pub use sampling::Sampling;
pub use tokenizer::{Bytes, Tokenizer};
