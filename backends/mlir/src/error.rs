//! What can go wrong between a kernel and an LLVM module.

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// MLIR refused the text or its operations. A mistake of the kernel generator.
    #[error("MLIR refused the generated module: {}", diagnostics.join("; "))]
    Parse {
        /// MLIR's own words.
        diagnostics: Vec<String>,
    },
    /// A pass failed. A mistake of the kernel generator.
    #[error("MLIR pipeline `{pipeline}` failed: {}", diagnostics.join("; "))]
    Pipeline {
        /// Which.
        pipeline: &'static str,
        /// MLIR's own words.
        diagnostics: Vec<String>,
    },
    /// The module has no form in LLVM. A mistake of the kernel generator.
    #[error("MLIR cannot translate the module to LLVM: {}", diagnostics.join("; "))]
    Translate {
        /// MLIR's own words.
        diagnostics: Vec<String>,
    },
    /// A kernel asks for something that there is no code for.
    #[error("no code for {what}")]
    Unsupported {
        /// What it is, and what to choose instead.
        what: String,
    },
    /// A kernel contradicts the plan's rules. A mistake of the planner.
    #[error("malformed kernel: {what}")]
    Malformed {
        /// The rule.
        what: String,
    },
    /// LLVM or ptxas.
    #[error(transparent)]
    Llvm(#[from] skipc_llvm::Error),
}
