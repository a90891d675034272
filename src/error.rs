//! Why something below the command line failed: of which kind it is, and what the user reads.
//!
//! Nothing here knows how a process ends: the command line gives each [`ErrorKind`] its exit code.

use std::any::Any;
use std::fmt;
use std::path::Path;

use crate::diagnostic::{Diagnostic, Diagnostics};

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A spec, weights or another input is wrong, or cannot be read or written.
    Input,
    /// What was asked for does not exist or contradicts itself.
    Request,
    /// Two forms of a model give different results.
    Mismatch,
    /// Something is worse, or larger, than the user allows.
    Regression,
    /// The target cannot do this, or this build or machine has no such target.
    Unsupported,
    /// A fault of skipc.
    Internal,
}

/// Why something failed.
#[derive(Clone, Debug)]
pub struct Error {
    /// Whose fault it is.
    pub kind: ErrorKind,
    /// What the user reads: at least one finding, each with a stable code.
    pub diagnostics: Diagnostics,
}

impl Error {
    /// An error with one finding.
    pub fn new(kind: ErrorKind, diagnostic: Diagnostic) -> Error {
        Error { kind, diagnostics: diagnostic.into() }
    }

    /// A fault of skipc, whatever its input was.
    pub fn internal(code: &'static str, problem: &dyn fmt::Display) -> Error {
        let help = "this is a fault of skipc, not of your input: please report it with the spec";
        Error::new(ErrorKind::Internal, Diagnostic::new(code, problem.to_string()).help(help))
    }

    /// A fault of skipc that ended its work by a panic, of which this is the payload.
    pub fn panicked(panic: &(dyn Any + Send)) -> Error {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
        let message = message.unwrap_or("a panic without a message");
        // Libraries panic where the system refuses a thread.
        let no_thread = ["failed to spawn thread", "The global thread pool has not been initialized"];
        if no_thread.iter().any(|said| message.starts_with(said)) {
            let help = "fewer threads (`--threads`, RAYON_NUM_THREADS) need less memory; see also `ulimit -u` and `ulimit -v`";
            return Diagnostic::new("run::threads", message).help(help).into();
        }
        let help = "this is a fault of skipc: please report it with your input";
        Error::new(ErrorKind::Internal, Diagnostic::new("internal::panic", message).help(help))
    }

    /// A file that cannot be read or written.
    pub fn io(path: &Path, error: &std::io::Error) -> Error {
        Diagnostic::new("io::file", format!("{}: {error}", path.display())).into()
    }

    /// What is wrong with the artefact in this file.
    pub fn in_artifact(path: &Path, error: &skipc_artifact::Error) -> Error {
        let message = match error {
            // Which name the file by themselves.
            skipc_artifact::Error::Io { .. }
            | skipc_artifact::Error::Key { .. }
            | skipc_artifact::Error::Unsigned { .. }
            | skipc_artifact::Error::Signature { .. } => error.to_string(),
            error => format!("{}: {error}", path.display()),
        };
        Diagnostic::new(error.code(), message).into()
    }

    /// What went wrong while an artefact was written to `path`: an error of ours that came through the writer as one of the
    /// system's, or the writer's own.
    pub fn of_writer(path: &Path, error: skipc_artifact::Error) -> Error {
        match error {
            skipc_artifact::Error::Io { action, path: at, source } => {
                source.downcast().unwrap_or_else(|source| {
                    Error::in_artifact(path, &skipc_artifact::Error::Io { action, path: at, source })
                })
            }
            error => Error::in_artifact(path, &error),
        }
    }

    /// The error as something says it that has a name, such as a rank of several.
    #[must_use]
    pub fn of(mut self, name: &str) -> Error {
        self.diagnostics = self.diagnostics.of(name);
        self
    }

    /// The error with further findings.
    #[must_use]
    pub fn and(mut self, further: Diagnostics) -> Error {
        self.diagnostics = self.diagnostics.and(further);
        self
    }
}

impl fmt::Display for Error {
    /// One line for each finding, without the source.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.diagnostics.fmt(f)
    }
}

impl std::error::Error for Error {}

impl From<Diagnostics> for Error {
    /// What is wrong with an input.
    fn from(diagnostics: Diagnostics) -> Error {
        Error { kind: ErrorKind::Input, diagnostics }
    }
}

impl From<Diagnostic> for Error {
    /// What is wrong with an input.
    fn from(diagnostic: Diagnostic) -> Error {
        Error::new(ErrorKind::Input, diagnostic)
    }
}

impl From<skipc_artifact::Error> for Error {
    /// An artefact in memory that is not sound.
    fn from(error: skipc_artifact::Error) -> Error {
        skipc_runtime::Error::from(error).into()
    }
}

impl From<skipc_runtime::Error> for Error {
    fn from(error: skipc_runtime::Error) -> Error {
        let kind = match error.kind() {
            skipc_runtime::Kind::Input => ErrorKind::Input,
            skipc_runtime::Kind::Request => ErrorKind::Request,
            skipc_runtime::Kind::Mismatch => ErrorKind::Mismatch,
            skipc_runtime::Kind::Unsupported => ErrorKind::Unsupported,
            skipc_runtime::Kind::Internal => ErrorKind::Internal,
        };
        Error::new(kind, Diagnostic::new(error.code(), error.to_string()))
    }
}
