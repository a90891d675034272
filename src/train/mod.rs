//! Training: steps of a model that learns to skip (`skipc train`).
//!
//! ```text
//! frontend::training::Config ─Data::read→ Part ─Engine::gradient→ Found ─Engine::update→ next weights
//! ```
//!
//! A step is four functions over states ([`crate::frontend::lower`]): one counts what routers want where rates have to be known
//! before a backward pass, one gives losses and gradients of a part of the batch, one the norm of the gradient, one the next
//! weights; a fifth is inference over the same states. They run as compiled code, or on the reference interpreter ([`machine`]).
//!
//! Several processes can train one model ([`ranks`]): each computes its rows of every batch, and they sum what they find.
//!
//! Nothing that a step depends on is kept anywhere but in weights and moments: noise, draws and the order of the data are
//! functions of the seed and the step. So a run that stops goes on as if it had not.

pub mod checkpoint;
pub mod codes;
mod compiled;
mod data;
pub mod engine;
mod evaluation;
mod found;
pub mod machine;
mod part;
pub mod ranks;
pub mod record;
mod run;
pub mod times;

pub use data::Data;
pub use engine::{Engine, Tensor, Tensors, compiled, interpreted};
pub use evaluation::Evaluation;
pub use part::Part;
pub use run::{Begin, Run, StepRecord, Teacher, check, precision};
