//! The languages that specs and configurations are written in, without what they say: the tree of the text ([`ast`], of
//! JSON by [`json`]), typed values out of it
//! with what is wrong with them (`read`), the words of choices ([`words`]), and how large a spec may be ([`limits`]).
//!
//! Whatever has settings reads them with this: the spec's own tables, and each kind of layer.

pub mod ast;
pub mod json;
pub mod limits;
pub(super) mod read;
pub mod words;
