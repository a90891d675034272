//! skipc: spec frontend, pipeline and command line.

pub mod spec;
