//! Clusters: blocks that run at the same time and read each other's shared memory.
//!
//! Sections are those of the PTX ISA 9.0.

use super::Code;
use super::value::{CPtr, Int, SPtr};

impl Code {
    /// Index of the block in its cluster.
    pub(crate) fn rank_in_cluster(&self) -> Int<'_> {
        self.op("nvvm.read.ptx.sreg.cluster.ctarank : i32")
    }

    /// All threads of the cluster meet here and see the shared memory of its blocks (section 9.7.13.4).
    pub(crate) fn cluster_barrier(&self) {
        self.stmt("nvvm.cluster.arrive {aligned}");
        self.stmt("nvvm.cluster.wait {aligned}");
    }
}

impl<'c> SPtr<'c> {
    /// The same place in the shared memory of that block of the cluster (section 9.7.9.24).
    pub(crate) fn of_block(self, rank: u32) -> CPtr<'c> {
        let rank = self.code.int(rank);
        self.code.op(format_args!("nvvm.mapa {self}, {rank} : !llvm.ptr<3> -> !llvm.ptr<7>"))
    }
}
