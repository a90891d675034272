//! Whose fault an error is.

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file, a batch or the model does not do, or what the machine has does not suffice.
    Input,
    /// What was asked for contradicts itself.
    Request,
    /// A result is wrong.
    Mismatch,
    /// The artefact or the machine has nothing that runs this.
    Unsupported,
    /// This program's own.
    Internal,
}
