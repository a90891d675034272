//! Why machine code could not be read.

use std::path::PathBuf;

/// Why machine code could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no disassembler, or it does not start.
    #[error("{} does not start: {error}", program.display())]
    NoDisassembler {
        /// What was tried.
        program: PathBuf,
        /// The system's reason.
        error: std::io::Error,
    },
    /// The disassembler refused the file.
    #[error("nvdisasm: {0}")]
    Refused(String),
    /// A temporary file could not be written.
    #[error("a temporary file for nvdisasm: {0}")]
    Temporary(std::io::Error),
    /// A kernel is not in the machine code.
    #[error("the machine code has no kernel `{0}`")]
    NoKernel(String),
    /// A line of the listing is not as expected.
    #[error("line {line} of the disassembly: {what}")]
    Listing {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
}

impl Error {
    /// The code of [`codes::CODES`](crate::codes::CODES).
    pub fn code(&self) -> &'static str {
        match self {
            Error::NoDisassembler { .. } => "sass::no-disassembler",
            Error::Refused(_) => "sass::refused",
            Error::Temporary(_) => "sass::temporary",
            Error::NoKernel(_) => "sass::no-kernel",
            Error::Listing { .. } => "sass::listing",
        }
    }

    /// What to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Error::NoDisassembler { .. } => {
                "`make setup` fetches nvdisasm; set SKIPC_CACHE to the folder that has it, or put it on PATH"
            }
            Error::Refused(_) => "the file has to be a cubin, which is an ELF file for one GPU architecture",
            Error::Temporary(_) => "TMPDIR names a folder for temporary files",
            Error::NoKernel(_) => "it is of another compile: compile the model again",
            Error::Listing { .. } => {
                "nvdisasm prints another form than its version 13.2 does; `make setup` fetches that version"
            }
        }
    }
}
