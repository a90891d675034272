//! Loading a kernel's text: where the machine meets the instructions that it knows.

use crate::machine::{LoadError, Program};
use crate::op;
use crate::syntax::{self, Module};

impl Program {
    /// Loads a kernel of a module's text.
    ///
    /// # Errors
    /// What the text is not, or what the machine does not know.
    pub fn load(text: &str, kernel: &str) -> Result<Program, LoadError> {
        Program::of_module(&syntax::parse(text)?, kernel)
    }

    /// Loads a kernel of a module.
    ///
    /// # Errors
    /// [`LoadError::NoKernel`], or what the machine does not know.
    pub fn of_module(module: &Module, name: &str) -> Result<Program, LoadError> {
        Program::decoded(module, name, op::table())
    }
}
