//! Why a kernel has no host code.

use inkwell::builder::BuilderError;
use inkwell::values::InstructionValueError;
use skipc_artifact::target::Target;
use skipc_plan::codegen::CodegenError;

/// What went wrong within one kernel; [`Fault::at`] adds which.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The user asked for something that this backend has no code for.
    #[error("{0}")]
    Unsupported(String),
    /// The kernel breaks a rule that the plan's verifier checks.
    #[error("malformed kernel: {0}")]
    Malformed(String),
    /// LLVM refused what was generated.
    #[error("LLVM: {0}")]
    Llvm(String),
}

impl From<BuilderError> for Fault {
    fn from(error: BuilderError) -> Fault {
        Fault::Llvm(error.to_string())
    }
}

impl From<InstructionValueError> for Fault {
    fn from(error: InstructionValueError) -> Fault {
        Fault::Llvm(error.to_string())
    }
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
