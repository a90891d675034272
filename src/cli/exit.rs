//! How a command ends: what the process returns, and what the user reads.

use std::io::{IsTerminal, Write};

use crate::diagnostic::Diagnostics;
use crate::error::{Error, ErrorKind};

/// What the process returns for an error. Errors in the command line itself (2) are clap's.
pub fn exit_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Input => 1,
        ErrorKind::Request => 2,
        ErrorKind::Mismatch => 3,
        ErrorKind::Regression => 4,
        ErrorKind::Unsupported => 5,
        ErrorKind::Internal => 70,
    }
}

/// Writes to standard error. A command whose messages nobody can read goes on.
pub fn say(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Says what failed. Where nobody can read it, the exit code alone has to. A result that is not good enough has been printed,
/// and stays the only JSON.
pub fn report(error: &Error, json: bool, out: &mut dyn Write) {
    if !json || error.kind == ErrorKind::Regression {
        return show(&error.diagnostics);
    }
    match serde_json::to_string_pretty(&error.diagnostics) {
        Ok(text) => {
            let _ = writeln!(out, "{text}").and_then(|()| out.flush());
        }
        Err(broken) => say(&format!("skipc: {broken}\n")),
    }
}

/// Shows findings on standard error.
pub fn show(found: &Diagnostics) {
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    say(&found.render(100, colours));
}
