//! Machine code for one CUDA target.

use crate::error::Error;
use crate::resources::KernelResources;
use crate::target::CudaTarget;

/// An assembled module: an ELF file for one target, and what its kernels take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cubin {
    /// The file.
    pub bytes: Vec<u8>,
    /// What it runs on.
    pub target: CudaTarget,
    /// One entry per kernel, in the order of the assembler's report.
    pub kernels: Vec<KernelResources>,
}

impl Cubin {
    /// Checks that no kernel keeps values in local memory.
    ///
    /// # Errors
    /// [`Error::LocalMemory`] for the first kernel that does.
    pub fn require_no_local_memory(&self) -> Result<(), Error> {
        self.kernels.iter().try_for_each(|kernel| kernel.require_no_local_memory(self.target))
    }

    /// Checks that matmuls of warp groups can be in flight together.
    ///
    /// # Errors
    /// [`Error::Serialized`] for the first kernel in which they cannot.
    pub fn require_no_serialized_matmuls(&self) -> Result<(), Error> {
        self.kernels.iter().try_for_each(|kernel| kernel.require_no_serialized_matmuls(self.target))
    }
}
