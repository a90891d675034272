//! From a model to an artefact: the stages in order ([`pipeline`]), what generates code for which target ([`backends`]),
//! weights as the kernels want them ([`constants`]), the file ([`pack`]), the same file with other weights ([`repack`]), what
//! rules rewrote ([`rewrites`]) and how the stages are shown ([`trace`]).

pub mod backends;
pub mod constants;
pub mod pack;
pub mod pipeline;
pub mod repack;
pub mod rewrites;
pub mod trace;
