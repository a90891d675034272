//! From a model spec and its weights to a graph: the language ([`spec`]), the kinds of layers ([`layer`]), what a model may
//! ask for and its author should know ([`lint`]), and the graph that a model means ([`lower`]).

pub mod build;
pub mod layer;
pub mod lint;
pub mod lower;
pub mod spec;
