//! What can be wrong with an artefact, each with a stable code.

use std::path::PathBuf;

use crate::section::SectionKind;

/// Why an artefact could not be written, read or trusted.
///
/// Unless a variant says otherwise the fault lies in the file: it was damaged, cut short, or not made by
/// this version of the compiler.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file does not begin with the magic line: it is no artefact.
    #[error("this is not a skipc artefact: it does not begin with `skipc-artefact`")]
    Magic,
    /// The file is an artefact of a format that this reader does not know.
    #[error(
        "artefact format {found} is not supported: this reader knows format {known}; compile the model again"
    )]
    Version {
        /// The version field of the file, as text.
        found: String,
        /// The only version this reader accepts.
        known: u32,
    },
    /// The file is shorter than it says it is.
    #[error("artefact is cut short: {what} needs {need} bytes, the file has {have}")]
    Truncated {
        /// The part that does not fit.
        what: String,
        /// Bytes the file would need to have.
        need: u64,
        /// Bytes the file has.
        have: u64,
    },
    /// The file goes on after its last section.
    #[error("artefact has {extra} bytes after its last section")]
    TrailingBytes {
        /// How many bytes too many.
        extra: u64,
    },
    /// The fixed lines before the header are not as written by any compiler.
    #[error("artefact preamble is damaged: {field}")]
    Preamble {
        /// The field at fault.
        field: &'static str,
    },
    /// The header is larger than any artefact needs.
    #[error("artefact {what} is {found}, over the limit of {limit}")]
    Limit {
        /// What was counted.
        what: &'static str,
        /// The number in the file.
        found: u64,
        /// The largest number accepted.
        limit: u64,
    },
    /// The header or a section does not have the content that its hash was taken of.
    #[error("artefact section `{section}` is damaged: its content does not match its hash")]
    Hash {
        /// Name of the section, or `header`.
        section: String,
    },
    /// The header is intact but does not say what a header says: made by another compiler.
    #[error("artefact header: {0}")]
    Header(serde_json::Error),
    /// A section does not begin where it has to.
    #[error(
        "artefact section `{section}` begins at {found}, expected {expected}: sections may not overlap or leave gaps"
    )]
    Layout {
        /// Name of the section.
        section: String,
        /// Where it must begin: the next multiple of 4096 after the sections before it.
        expected: u64,
        /// Where the header says it begins.
        found: u64,
    },
    /// The padding between two sections is not zero.
    #[error("artefact has a byte other than zero at {at}, where there is only padding")]
    Padding {
        /// Offset of the byte in the file.
        at: u64,
    },
    /// Two sections have one name. In a writer: a fault of the caller.
    #[error("artefact has two sections named `{section}`")]
    Duplicate {
        /// The name.
        section: String,
    },
    /// A section name is empty, too long, or has characters other than `a-z A-Z 0-9 . _ - /`.
    /// In a writer: a fault of the caller.
    #[error("artefact section name {section:?} is not allowed")]
    SectionName {
        /// The name.
        section: String,
    },
    /// A section that is needed is not there.
    #[error("artefact has no section `{section}`")]
    Missing {
        /// The name asked for.
        section: String,
    },
    /// A section is there but holds something else.
    #[error("artefact section `{section}` holds {found:?}, expected {expected:?}")]
    Kind {
        /// Name of the section.
        section: String,
        /// What it had to hold.
        expected: SectionKind,
        /// What it says it holds.
        found: SectionKind,
    },
    /// A section that holds JSON of another shape than expected: made by another compiler.
    #[error("artefact section `{section}`: {error}")]
    Json {
        /// Name of the section.
        section: String,
        /// What the parser said.
        error: serde_json::Error,
    },
    /// A program whose parts do not fit each other. A fault of the compiler that made it.
    #[error("program of the artefact: {reason}")]
    Program {
        /// What does not fit.
        reason: String,
    },
    /// Host code whose entry table does not fit it.
    #[error("host code entry `{entry}` lies at {offset}, outside its image of {size} bytes")]
    Entry {
        /// Name of the entry.
        entry: String,
        /// Its offset into the image.
        offset: u64,
        /// Size of the image in bytes.
        size: u64,
    },
    /// A relocatable object that cannot be read or is for another machine. A fault of the code generator.
    #[error("host object: {reason}")]
    Object {
        /// What is wrong with it.
        reason: String,
    },
    /// Generated code refers to a symbol that it does not define. A fault of the code generator: what code needs
    /// from outside, it takes from the table of helper functions.
    #[error(
        "host object refers to `{symbol}` in `{section}`, which it does not define; use the helper table"
    )]
    UndefinedSymbol {
        /// The symbol.
        symbol: String,
        /// The section that refers to it.
        section: String,
    },
    /// A reference that cannot be resolved before the image has an address. A fault of the code generator.
    #[error("host object refers to `{symbol}` in `{section}` by {relocation}, which needs a fixed address")]
    Relocation {
        /// The symbol.
        symbol: String,
        /// The section that refers to it.
        section: String,
        /// Name or number of the relocation.
        relocation: String,
    },
    /// Data that code may write. A fault of the code generator: images are mapped without write access.
    #[error("host object has writable data in `{section}`; images are read-only")]
    WritableData {
        /// The section.
        section: String,
    },
    /// The second file, which holds the constants, is not the one that was written with the artefact.
    #[error("the constants of the artefact lie in `{file}`: {reason}")]
    External {
        /// Its name.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that has to have a key has another one, or none.
    #[error("key {path}: {reason}", path = path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Only what was signed is to be run, and this is not.
    #[error("{path} is not signed: there is no {signature}; whoever made it signs it with `skipc sign`",
        path = path.display(), signature = signature.display())]
    Unsigned {
        /// The artefact.
        path: PathBuf,
        /// Where its signature would lie.
        signature: PathBuf,
    },
    /// The signature is not one of this artefact by a trusted key.
    #[error("signature {path}: {reason}", path = path.display())]
    Signature {
        /// The file of the signature.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

impl Error {
    /// The stable name of the error, for `skipc explain` and for scripts.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Error::Magic => "artifact::magic",
            Error::Version { .. } => "artifact::version",
            Error::Truncated { .. } => "artifact::truncated",
            Error::TrailingBytes { .. } => "artifact::trailing",
            Error::Preamble { .. } => "artifact::preamble",
            Error::Limit { .. } => "artifact::limit",
            Error::Hash { .. } => "artifact::hash",
            Error::Header(_) => "artifact::header",
            Error::Layout { .. } => "artifact::layout",
            Error::Padding { .. } => "artifact::padding",
            Error::Duplicate { .. } => "artifact::duplicate",
            Error::SectionName { .. } => "artifact::section-name",
            Error::Missing { .. } => "artifact::missing",
            Error::Kind { .. } => "artifact::kind",
            Error::Json { .. } => "artifact::json",
            Error::Program { .. } => "artifact::program",
            Error::Entry { .. } => "artifact::entry",
            Error::Object { .. } => "artifact::object",
            Error::UndefinedSymbol { .. } => "artifact::undefined-symbol",
            Error::Relocation { .. } => "artifact::relocation",
            Error::WritableData { .. } => "artifact::writable-data",
            Error::External { .. } => "artifact::external",
            Error::Key { .. } => "artifact::key",
            Error::Unsigned { .. } => "artifact::unsigned",
            Error::Signature { .. } => "artifact::signature",
            Error::Io { .. } => "artifact::io",
        }
    }
}
