//! Why a kernel has no code.

use skipc_artifact::target::Target;
use skipc_plan::codegen::CodegenError;

/// What went wrong within one kernel; [`Fault::at`] adds which.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// The user asked for something that this backend has no code for.
    #[error("{0}")]
    Unsupported(String),
    /// The kernel breaks a rule that the plan's verifier checks.
    #[error("malformed kernel: {0}")]
    Malformed(String),
    /// Cranelift refused what was generated.
    #[error("cranelift: {0}")]
    Cranelift(String),
}

impl Fault {
    pub(crate) fn at(self, kernel: &str) -> CodegenError {
        match self {
            Fault::Unsupported(why) => {
                CodegenError::Unsupported { target: Target::Cpu, kernel: kernel.to_owned(), why }
            }
            fault => CodegenError::Internal { kernel: kernel.to_owned(), message: fault.to_string() },
        }
    }
}
