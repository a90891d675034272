//! Loads artefacts and runs them, on the host's processor or an NVIDIA GPU; contains no compiler.
//!
//! ```no_run
//! use skipc_runtime::{Batch, Device, Model, Options, Session};
//!
//! # fn main() -> Result<(), skipc_runtime::Error> {
//! let model = Model::open("model.skp".as_ref())?;
//! let mut session = Session::new(&model, Device::Cpu, Options::default())?;
//! let outputs = session.run(&Batch::of_sequence(vec![72, 101, 108]))?;
//! println!("{} logits", outputs.logits.len());
//! # Ok(())
//! # }
//! ```
//!
//! [`model`] checks a file, a [`module`] is its program on a [`device`] and has states, whose calls run functions; a
//! [`session`] is the simple way on top, for which a [`batch`] goes in and comes out, and a [`trace`] keeps decisions for another run. Same program, input and device: same bits, whatever the number
//! of threads. Once loaded, nothing is written but the session's own memory. [`command`] is the command line that
//! `skipc run` and `skipc-run` share.

#[expect(unsafe_code, reason = "an allocator hands out memory")]
pub mod allocator;
pub mod arrays;
pub mod batch;
mod bind;
mod call;
pub mod choices;
pub mod codes;
#[cfg(feature = "command")]
pub mod command;
#[expect(unsafe_code, reason = "maps generated code and calls it with pointers")]
mod cpu;
pub mod cuda;
pub mod decode;
pub mod device;
pub mod distance;
mod error;
pub mod eval;
mod file;
pub mod inputs;
mod kind;
pub mod known_answer;
mod math;
pub mod memory;
pub mod model;
pub mod module;
pub mod npy;
mod options;
pub mod peak;
mod random;
pub mod session;
pub mod steps;
pub mod threads;
pub mod timing;
pub mod trace;
pub mod words;

pub use batch::{Batch, Decisions, Outputs};
pub use choices::Choices;
pub use cpu::{Call, Choice, levels as cpu_levels, share_of_dots};
pub use device::Device;
pub use error::Error;
pub use kind::Kind;
pub use model::{Model, Opening};
pub use module::{Module, State};
pub use options::Options;
pub use session::Session;
pub use trace::Trace;
