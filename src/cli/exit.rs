//! How a command ends: what the process returns, and what the user reads.

use std::io::{IsTerminal, Write};

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::error::{Error, ErrorKind};

/// What the process returns for an error. Errors in the command line itself (2) are clap's.
pub fn exit_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Input => 1,
        ErrorKind::Request => 2,
        ErrorKind::Mismatch => 3,
        ErrorKind::Unsupported => 5,
        ErrorKind::Internal => 70,
    }
}

/// A fault of skipc that ended a command by a panic.
pub fn panicked(message: &str) -> Error {
    let diagnostic = Diagnostic::new("internal::panic", message.to_owned());
    Error::new(
        ErrorKind::Internal,
        diagnostic.help("this is a fault of skipc: please report it with your input"),
    )
}

/// Writes to standard error. A command whose messages nobody can read goes on.
pub fn say(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Shows findings on standard error.
pub fn show(found: &Diagnostics) {
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    say(&found.render(100, colours));
}
