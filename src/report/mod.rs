//! What the compiler did, to look at: graphs by phase, kernels, costs and code of a model, and how two of them differ.
//!
//! Everything here reads what there is (graphs, plans, programs, proofs) and knows no kind of op, layer or kernel by
//! name: what is added elsewhere shows by itself.

pub mod cost;
pub mod diff;
pub mod dot;
pub mod html;
pub mod phases;
pub mod routing;
pub mod site;
pub mod subject;

pub use subject::Subject;
