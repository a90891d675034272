//! From a model spec, or a directory as Hugging Face has them ([`huggingface`]), and its weights to a graph: what specs are
//! written in ([`language`]) and what they say ([`spec`]), the kinds of layers ([`layer`]) around the stream ([`stream`]), what a model may
//! ask for and its author should know ([`lint`]), the graph that a model means ([`lower`]), where its
//! tensors come from ([`weights`]), and how a model is trained ([`training`]). A [`source`] is either of the two that a model can be read from.

pub mod build;
pub mod function;
pub mod huggingface;
pub mod language;
pub mod layer;
pub mod lint;
pub mod lower;
mod rope;
pub mod source;
pub mod spec;
pub mod stream;
pub mod training;
pub mod weights;
