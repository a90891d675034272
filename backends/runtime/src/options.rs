//! What a caller may choose about how a module runs.

use skipc_artifact::image::HostLevel;

use crate::threads::Threads;

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads on the CPU. The results do not depend on it.
    pub threads: usize,
    /// Fill all memory but what states hold with a pattern that is NaN in every type before each run, and look for writes
    /// outside of a kernel's buffers after each of its runs (on a GPU: outside of the arena and the states, after the
    /// last). Slow.
    pub checked: bool,
    /// Highest level of host code to use, to compare levels on one machine; without it the fastest runs, which is the
    /// highest except where the processor is slow at dot products of bf16.
    pub max_level: Option<HostLevel>,
}

impl Default for Options {
    fn default() -> Self {
        Self { threads: Threads::available(), checked: false, max_level: None }
    }
}
