//! skipc: spec frontend, pipeline and command line.

pub mod lower;
pub mod spec;
