//! Standard output, whose reader may go before all is said.

use std::io::{ErrorKind, Write};

use crate::error::Error;

/// Prints until the reader has gone: one that has seen enough, such as `head`, is no error.
pub(super) struct Printer<'a> {
    out: &'a mut dyn Write,
    closed: bool,
}

impl<'a> Printer<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Printer<'a> {
        Printer { out, closed: false }
    }

    /// Whether nobody reads any more.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Prints a text at once.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], unless the reader has gone.
    pub(super) fn print(&mut self, text: std::fmt::Arguments<'_>) -> Result<(), Error> {
        self.write(text.to_string().as_bytes())
    }

    /// Writes bytes at once.
    ///
    /// # Errors
    ///
    /// As [`Printer::print`].
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.closed {
            return Ok(());
        }
        match self.out.write_all(bytes).and_then(|()| self.out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            Err(source) => Err(Error::Io { action: "write to", path: "the standard output".into(), source }),
            Ok(()) => Ok(()),
        }
    }
}
