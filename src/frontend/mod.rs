//! From a model spec and its weights to a graph: the language ([`spec`]), what a model may ask for and its author should
//! know ([`lint`]), and the graph that a model means ([`lower`]).

pub mod lint;
pub mod lower;
pub mod spec;
