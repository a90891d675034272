//! What a backend implements.

use skipc_artifact::image::HostLevel;
use skipc_artifact::program::Launch;
use skipc_artifact::target::Target;

use crate::kernel::Kernel;

/// Why a backend has no code for a kernel. The pipeline adds kernel name and place in the model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodegenError {
    /// The target (or this backend for it) cannot do this. The user's choice of target or precision is at fault.
    #[error("{target} cannot run kernel `{kernel}`: {why}")]
    Unsupported {
        /// The target.
        target: Target,
        /// The kernel's symbol.
        kernel: String,
        /// What it lacks and what to choose instead.
        why: String,
    },
    /// A tool that the backend starts (ptxas) is missing or refused its input.
    #[error("{tool}: {message}")]
    Tool {
        /// The tool.
        tool: String,
        /// What it said, or how to install it.
        message: String,
    },
    /// A fault of the compiler.
    #[error("internal error while generating `{kernel}`: {message}")]
    Internal {
        /// The kernel's symbol.
        kernel: String,
        /// What happened.
        message: String,
    },
}

/// Code for one target, with what each kernel needs at launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// How each kernel is started, in the order of the request.
    pub launches: Vec<Launch>,
    /// The code, in the forms that this target takes.
    pub images: Vec<Image>,
    /// Intermediate forms, human-readable, as (stage name, text), such as `mlir`, `llvm`, `clif`.
    pub stages: Vec<(String, String)>,
}

/// One form of the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// A relocatable ELF object for the host.
    HostObject {
        /// Which instructions its code uses.
        level: HostLevel,
        /// Its bytes.
        object: Vec<u8>,
    },
    /// PTX text, for the driver to compile.
    Ptx(String),
    /// A cubin, for GPUs of its own major version.
    Cubin(Vec<u8>),
}

/// Generates code for kernels. Symbols are unique and match `[a-z0-9_]+`.
pub trait Codegen {
    /// What it generates for.
    fn target(&self) -> &Target;

    /// Makes code for all kernels of a plan at once.
    ///
    /// # Errors
    /// If one cannot be generated; nothing is left half-done.
    fn compile(&self, kernels: &[(String, &Kernel)]) -> Result<Code, CodegenError>;
}
