//! skipc: spec frontend, pipeline and command line.
