//! How a command fails: diagnostics and an exit code.

use std::io::IsTerminal;

use crate::diagnostic::{Diagnostic, Diagnostics};

/// Exit codes. Usage errors (2) are clap's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Something that the user gave is wrong.
    User = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Two forms of a model differ.
    Mismatch = 3,
    /// The target cannot do this, or this build or machine has no such target.
    Unsupported = 5,
    /// A fault of skipc.
    Internal = 70,
}

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    /// What the process returns.
    pub exit: Exit,
    /// What the user reads.
    pub diagnostics: Diagnostics,
}

impl Failure {
    /// A failure with one finding.
    pub fn new(exit: Exit, diagnostic: Diagnostic) -> Failure {
        Failure { exit, diagnostics: diagnostic.into() }
    }

    /// A fault of skipc that ended a command by a panic.
    pub fn panicked(message: &str) -> Failure {
        let diagnostic = Diagnostic::new("internal::panic", message.to_owned());
        Failure::new(
            Exit::Internal,
            diagnostic.help("this is a fault of skipc: please report it with your input"),
        )
    }

    /// The failure with a last word on what to do.
    #[must_use]
    pub(super) fn help(mut self, text: String) -> Failure {
        self.diagnostics.push(Diagnostic::new("internal::reproducer", text));
        self
    }

    /// The failure with warnings that came before it.
    #[must_use]
    pub(super) fn with_warnings(mut self, warnings: Diagnostics) -> Failure {
        self.diagnostics = self.diagnostics.and(warnings);
        self
    }

    /// A file that cannot be read or written.
    pub fn io(path: &std::path::Path, error: &std::io::Error) -> Failure {
        Failure::new(Exit::User, Diagnostic::new("io::file", format!("{}: {error}", path.display())))
    }
}

/// Shows findings to people, on standard error.
pub fn show(found: &Diagnostics) {
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    eprint!("{}", found.render(100, colours));
}

impl From<Diagnostics> for Failure {
    fn from(diagnostics: Diagnostics) -> Failure {
        Failure { exit: Exit::User, diagnostics }
    }
}
