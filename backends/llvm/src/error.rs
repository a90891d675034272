//! What can go wrong between an LLVM module and a cubin.

use std::path::PathBuf;

use crate::target::{CudaTarget, Feature};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is not one of the targets that code can be generated for. The caller's mistake.
    #[error("unknown CUDA target `{name}`; known: {known}")]
    UnknownTarget {
        /// What was asked for.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// A kernel needs an instruction that the target does not have. The kernel generator chose a
    /// variant without looking at the target.
    #[error("kernel `{kernel}` needs {feature}, which {target} does not have")]
    Unsupported {
        /// Entry point of the kernel.
        kernel: String,
        /// The instruction family.
        feature: Feature,
        /// The target it was to be compiled for.
        target: CudaTarget,
    },
    /// LLVM refused the module. A mistake of the kernel generator.
    #[error("invalid LLVM module: {message}")]
    Invalid {
        /// LLVM's own words.
        message: String,
    },
    /// The module calls functions that exist nowhere on a device, such as libdevice math.
    #[error("module calls external functions: {}", names.join(", "))]
    Externals {
        /// Their names, in the order of declaration.
        names: Vec<String>,
    },
    /// LLVM has no NVPTX back end or refused the machine description. The installation's fault.
    #[error("LLVM cannot generate code for {target}: {message}")]
    Machine {
        /// The target that was asked for.
        target: CudaTarget,
        /// LLVM's own words.
        message: String,
    },
    /// The optimiser or the code generator failed.
    #[error("LLVM failed for {target}: {message}")]
    Codegen {
        /// The target of the compile.
        target: CudaTarget,
        /// LLVM's own words.
        message: String,
    },
    /// No PTX assembler was found.
    #[error(
        "no ptxas found; looked at {}. \
         Set SKIPC_PTXAS to a ptxas of CUDA 13.0, or get one with \
         `pip download --no-deps nvidia-cuda-nvcc==13.0.88` and unpack `nvidia/cu13/bin/ptxas` \
         to `.cache/cuda/bin/ptxas`",
        looked_at.join(", ")
    )]
    NoPtxas {
        /// The places that were tried.
        looked_at: Vec<String>,
    },
    /// The assembler could not be started, or its files not be written or read.
    #[error("cannot run {}: {source}", program.display())]
    Io {
        /// The assembler.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The assembler refused the PTX. A mistake of the kernel generator.
    #[error("ptxas refused the code for {target}:\n{log}")]
    Ptxas {
        /// The target of the compile.
        target: CudaTarget,
        /// The assembler's own words.
        log: String,
    },
    /// The assembler's report on resources has a form that this crate does not know.
    #[error("cannot read the report of ptxas: `{line}`")]
    Report {
        /// The line that was not understood.
        line: String,
    },
    /// The assembler lets each `wgmma` of a kernel wait for the one before. A mistake of the kernel generator.
    #[error("kernel `{kernel}` on {target} touches accumulators of matmuls in flight")]
    Serialized {
        /// Entry point of the kernel.
        kernel: String,
        /// The target of the compile.
        target: CudaTarget,
    },
    /// A kernel keeps values in local memory although it should not. A tile is too large.
    #[error(
        "kernel `{kernel}` on {target} uses local memory: {stack} bytes of stack, {spills} bytes of spills"
    )]
    LocalMemory {
        /// Entry point of the kernel.
        kernel: String,
        /// The target of the compile.
        target: CudaTarget,
        /// Bytes of stack frame per thread.
        stack: u32,
        /// Bytes of spill stores and loads per thread.
        spills: u32,
    },
}
