//! What the user gave and cannot be used: what is wrong, where, and what to write instead.

use std::fmt;
use std::path::Path;

use skipc_ptx::machine::LoadError;

/// Why nothing was run.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    help: Option<String>,
    place: Option<SourceLine>,
}

/// A line of the PTX text.
#[derive(Debug)]
struct SourceLine {
    path: String,
    line: u32,
    text: String,
}

impl Failure {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), help: None, place: None }
    }

    /// A file that cannot be read or written.
    pub(crate) fn file(path: &Path, error: &dyn fmt::Display) -> Self {
        Self::new(format!("{}: {error}", path.display()))
    }

    /// A kernel that the machine cannot run.
    pub(crate) fn load(error: &LoadError, path: &Path, text: &str) -> Self {
        match error {
            LoadError::Syntax(error) => Self::new(error.what.clone()).at(path, text, error.line),
            LoadError::Decode { line, error, .. } => Self::new(error.to_string())
                .at(path, text, *line)
                .help("`skipc-ptx --forms` lists the instructions that the machine knows"),
            other => Self::new(other.to_string()),
        }
    }

    /// The failure with a word on what to write.
    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// The failure with a line of the text, from 1.
    pub(crate) fn at(self, path: &Path, text: &str, line: u32) -> Self {
        let shown = text.lines().nth(line.saturating_sub(1) as usize).unwrap_or_default().trim();
        let place = SourceLine { path: path.display().to_string(), line, text: shown.to_owned() };
        Self { place: Some(place), ..self }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        let place = self.place.as_ref();
        serde_json::json!({
            "error": {
                "message": self.what,
                "help": self.help,
                "file": place.map(|place| &place.path),
                "line": place.map(|place| place.line),
                "text": place.map(|place| &place.text),
            }
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.what)?;
        if let Some(SourceLine { path, line, text }) = &self.place {
            writeln!(f, "  --> {path}:{line}\n  {text}")?;
        }
        match &self.help {
            Some(help) => writeln!(f, "  help: {help}"),
            None => Ok(()),
        }
    }
}
