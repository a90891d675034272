//! skipc: spec frontend, pipeline and command line.

pub mod diagnostic;
pub mod lower;
pub mod spec;
