//! Where a command that generates prints.

use std::borrow::Cow;
use std::io::Write;

use super::printer::Printer;
use crate::error::Error;

/// Standard output and standard error, as a command is given them.
pub struct Console<'a> {
    out: Printer<'a>,
    err: &'a mut dyn Write,
    terminal: bool,
    colours: bool,
}

/// Text of a file or of a model for a terminal: control characters but line breaks and tabs would be commands to it, and
/// characters that change the direction make a line read as something that it is not; each becomes U+FFFD.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    let is_command = |char: char| {
        char.is_control() && !matches!(char, '\n' | '\t')
            || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    match text.contains(is_command) {
        true => Cow::Owned(text.replace(is_command, "\u{fffd}")),
        false => Cow::Borrowed(text),
    }
}

impl<'a> Console<'a> {
    /// `terminal` says whether `out` is one; colours are used there only, and not if `NO_COLOR` is set.
    pub fn new(out: &'a mut dyn Write, err: &'a mut dyn Write, terminal: bool) -> Self {
        let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { out: Printer::new(out), err, terminal, colours }
    }

    /// Whether text may be coloured.
    pub(super) fn has_colours(&self) -> bool {
        self.colours
    }

    /// Whether nobody reads any more.
    pub(super) fn is_closed(&self) -> bool {
        self.out.is_closed()
    }

    /// Prints text of a model at once; to a terminal as [`printable`] has it.
    ///
    /// # Errors
    ///
    /// As [`Printer::print`].
    pub(super) fn text(&mut self, text: &str) -> Result<(), Error> {
        match self.terminal {
            true => self.print(&printable(text)),
            false => self.print(text),
        }
    }

    /// Prints at once.
    ///
    /// # Errors
    ///
    /// As [`Printer::print`].
    pub(super) fn print(&mut self, text: &str) -> Result<(), Error> {
        self.out.write(text.as_bytes())
    }

    /// Says something about the run. Where nobody can read it, the run goes on.
    pub(super) fn say(&mut self, text: &str) {
        let _ = self.err.write_all(text.as_bytes()).and_then(|()| self.err.flush());
    }
}
