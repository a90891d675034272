//! File format, kernel ABI and target names: all that compiler and runtime share.
//!
//! An artefact is one file. [`container`] says how its bytes lie, [`writer::Writer`] makes one and
//! [`reader::Artifact`] reads one, after which every byte of it has been checked against a hash.

pub mod bundle;
pub mod check;
pub mod codes;
pub mod container;
pub mod error;
mod hex;
pub mod image;
pub mod interface;
pub mod manifest;
#[cfg(feature = "link")]
pub mod object_image;
pub mod reader;
pub mod regular;
pub mod replace;
pub mod section;
pub mod signature;
pub mod writer;

pub use error::Error;

pub mod abi;
pub mod exponential;
pub mod pending;
pub mod program;
pub mod target;
