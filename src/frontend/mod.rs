//! From a model spec and its weights to a graph: what specs are written in ([`language`]) and what
//! they say ([`spec`]), the kinds of layers ([`layer`]) around the stream ([`stream`]), what a model may
//! ask for and its author should know ([`lint`]), the graph that a model means ([`lower`]), and where its
//! tensors come from ([`weights`]).

pub mod build;
pub mod language;
pub mod layer;
pub mod lint;
pub mod lower;
mod rope;
pub mod spec;
pub mod stream;
pub mod weights;
