//! From a model to an artefact: the stages in order ([`pipeline`]), what generates code for which target ([`backends`]),
//! weights as the kernels want them ([`constants`]), the file ([`pack`]), the same file with other weights ([`repack`]), what
//! rules rewrote ([`rewrites`]), the functions of training ([`training`]) and how the stages are shown ([`trace`]). Around it: what it is made for ([`targets`]), what is
//! in it ([`contents`]) and what it was made from ([`original`]).

pub mod backends;
pub mod constants;
pub mod contents;
pub mod original;
pub mod pack;
pub mod pipeline;
pub mod repack;
pub mod rewrites;
pub mod targets;
pub mod trace;
pub mod training;
