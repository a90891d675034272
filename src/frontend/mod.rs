//! From a model spec and its weights to a graph: the language ([`spec`]), the kinds of layers ([`layer`]), what a model may
//! ask for and its author should know ([`lint`]), the graph that a model means ([`lower`]), and where its
//! tensors come from ([`weights`]).

pub mod build;
pub mod layer;
pub mod lint;
pub mod lower;
pub mod spec;
pub mod weights;
