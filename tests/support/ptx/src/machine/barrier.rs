//! Barriers for the threads of a block (PTX ISA section 9.7.13.1) and of a cluster (9.7.13.4).

use super::clock::View;

/// One of the 16 barriers of a block.
#[derive(Debug, Clone, Default)]
pub(crate) struct Barrier {
    /// Threads that arrived.
    pub(crate) arrived: u32,
    /// Threads that it waits for; 0 while none has arrived.
    pub(crate) expected: u32,
    /// What they release.
    pub(crate) view: View,
}

/// The barrier of a cluster: each thread arrives, then waits.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClusterBarrier {
    pub(crate) arrived: u32,
    pub(crate) view: View,
    pub(crate) completed: View,
    pub(crate) generation: u32,
}
