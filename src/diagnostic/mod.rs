//! Errors as users see them: a stable code, the place in their file, and what to write instead.
//!
//! Every phase that reads something of the user's returns [`Diagnostics`], all it found and not the first only.
//! They serialise for `--json`; with the feature `cli` they also render with the text that they are about.

#[cfg(feature = "cli")]
mod render;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

/// Bytes from `start` to `end` of a source.
pub type Span = Range<usize>;

/// Findings that are kept; a file of noise would otherwise give as many errors as it has bytes.
/// Nobody reads more than these before mending the first.
const MAX_KEPT: usize = 100;

/// Bytes of text that a label may underline.
const MAX_LABEL: usize = 200;

/// The text of a file with its name. Clones share the text.
#[derive(Clone, Debug)]
pub struct SourceText {
    name: Arc<str>,
    /// As read, but without control characters, which could drive the terminal that shows them. Offsets agree
    /// with the original.
    text: Arc<str>,
}

/// One finding: what is wrong, where, and what to write instead.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Diagnostic {
    code: &'static str,
    severity: Severity,
    message: Box<str>,
    help: Option<Box<str>>,
    text: Option<SourceText>,
    labels: Vec<Label>,
}

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The command fails.
    Error,
    /// The command goes on.
    Warning,
}

/// A place in the source and what to say there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Where.
    pub span: Span,
    /// What.
    pub text: String,
}

/// All findings of a phase, in the order in which they were found. As an error it holds at least one.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    kept: Vec<Diagnostic>,
    left_off: usize,
}

impl SourceText {
    /// `name` is what users call the file; it is shown as it is.
    pub fn new(name: &str, text: &str) -> SourceText {
        let visible = |c: char| {
            let hidden = c.is_control() && !matches!(c, '\n' | '\r' | '\t');
            // Reordering characters make a line read as something that it is not.
            let reorders = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            std::iter::repeat_n(
                if hidden || reorders { '?' } else { c },
                if hidden || reorders { c.len_utf8() } else { 1 },
            )
        };
        SourceText { name: name.into(), text: text.chars().flat_map(visible).collect::<String>().into() }
    }

    /// What users call the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All of it, as it is shown.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Line and column of a byte offset, both from 1, columns in characters.
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let at = self.text.floor_char_boundary(offset);
        let line_start = self.line_of(at).start;
        (self.text[..at].matches('\n').count() + 1, self.text[line_start..at].chars().count() + 1)
    }

    /// The line of a byte offset, without its end.
    pub fn line_of(&self, offset: usize) -> Span {
        let at = self.text.floor_char_boundary(offset);
        let start = self.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let end = self.text[at..].find('\n').map_or(self.text.len(), |length| at + length);
        start..end
    }

    /// A part of the text as it is shown; empty where there is none.
    pub fn slice(&self, span: Span) -> &str {
        self.text.get(span).unwrap_or_default()
    }

    /// The part of `span` that lies in the text, on its first line, and is short enough to underline.
    fn clip(&self, span: Span) -> Span {
        let start = self.text.floor_char_boundary(span.start);
        let end = self.text.floor_char_boundary(span.end.clamp(start, start + MAX_LABEL));
        let line_end = self.text[start..end].find(['\n', '\r']).map_or(end, |length| start + length);
        start..line_end
    }
}

impl Diagnostic {
    /// A finding without a place. `code` is stable and documented by `skipc explain`.
    pub fn new(code: &'static str, message: impl Into<String>) -> Diagnostic {
        let message = message.into().into_boxed_str();
        Diagnostic { code, severity: Severity::Error, message, help: None, text: None, labels: Vec::new() }
    }

    /// A finding that does not keep the command from its work. Otherwise as [`Diagnostic::new`].
    pub fn warning(code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::new(code, message) }
    }

    /// The same finding as an error.
    #[must_use]
    pub fn as_error(self) -> Diagnostic {
        Diagnostic { severity: Severity::Error, ..self }
    }

    /// Adds a place. All places of a finding are in one source.
    #[must_use]
    pub fn at(mut self, source: &SourceText, span: Span, text: impl Into<String>) -> Diagnostic {
        self.labels.push(Label { span: source.clip(span), text: text.into() });
        self.text = Some(source.clone());
        self
    }

    /// Says what to write instead.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into().into_boxed_str());
        self
    }

    /// Its stable code, such as `spec::unknown_key`.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// How much it weighs.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// Its places, the most important first.
    pub fn labels(&self) -> &[Label] {
        &self.labels
    }
}

impl Serialize for Diagnostic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// A label with the place as editors count it.
        #[derive(Serialize)]
        struct LabelPosition<'a> {
            line: usize,
            column: usize,
            start: usize,
            end: usize,
            text: &'a str,
        }
        let places: Vec<LabelPosition<'_>> = self
            .labels
            .iter()
            .filter_map(|label| {
                let (line, column) = self.text.as_ref()?.line_column(label.span.start);
                let Span { start, end } = label.span;
                Some(LabelPosition { line, column, start, end, text: &label.text })
            })
            .collect();
        let mut object = serializer.serialize_struct("Diagnostic", 6)?;
        object.serialize_field("code", self.code)?;
        object.serialize_field("severity", &self.severity)?;
        object.serialize_field("message", &self.message)?;
        object.serialize_field("help", &self.help)?;
        object.serialize_field("file", &self.text.as_ref().map(SourceText::name))?;
        object.serialize_field("labels", &places)?;
        object.end()
    }
}

impl Diagnostics {
    /// Adds a finding; after the first hundred it is only counted.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if self.is_full() {
            self.left_off += 1;
        } else {
            self.kept.push(diagnostic);
        }
    }

    /// The findings with the name of who says them in front.
    #[must_use]
    pub fn of(mut self, name: &str) -> Diagnostics {
        for diagnostic in &mut self.kept {
            diagnostic.message = format!("{name}: {}", diagnostic.message).into_boxed_str();
        }
        self
    }

    /// Whether further findings are only counted, so that help for them need not be looked for.
    pub fn is_full(&self) -> bool {
        self.kept.len() >= MAX_KEPT
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The findings that were kept.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.kept.iter()
    }

    /// Each finding changed by `change`.
    #[must_use]
    pub fn map(mut self, change: impl FnMut(Diagnostic) -> Diagnostic) -> Diagnostics {
        self.kept = self.kept.into_iter().map(change).collect();
        self
    }

    /// These findings, then `later`.
    #[must_use]
    pub fn and(mut self, later: Diagnostics) -> Diagnostics {
        self.left_off += later.left_off;
        later.kept.into_iter().for_each(|diagnostic| self.push(diagnostic));
        self
    }

    /// How many were only counted.
    pub fn left_off(&self) -> usize {
        self.left_off
    }

    /// The findings as an error, or `value` if there are none.
    pub fn or<T>(self, value: T) -> Result<T, Diagnostics> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl Serialize for Diagnostics {
    /// Errors and warnings apart, so that scripts need not look at the weight of each.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let of = |severity: Severity| -> Vec<&Diagnostic> {
            self.kept.iter().filter(|diagnostic| diagnostic.severity == severity).collect()
        };
        let mut object = serializer.serialize_struct("Diagnostics", 3)?;
        object.serialize_field("errors", &of(Severity::Error))?;
        object.serialize_field("warnings", &of(Severity::Warning))?;
        object.serialize_field("left_off", &self.left_off)?;
        object.end()
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Diagnostics {
        Diagnostics { kept: vec![diagnostic], left_off: 0 }
    }
}

impl fmt::Display for Diagnostics {
    /// One line each, without the source.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (idx, diagnostic) in self.kept.iter().enumerate() {
            let separator = if idx > 0 { "\n" } else { "" };
            write!(f, "{separator}{}: {diagnostic}", diagnostic.code)?;
        }
        if self.left_off > 0 {
            write!(f, "\nand {} more", self.left_off)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_not_shown_and_offsets_stay() {
        let source = SourceText::new("a", "x\u{1b}[31m\u{85}é\u{202e}y");
        assert_eq!(&*source.text, "x?[31m??é???y");
        assert_eq!(source.line_column("x\u{1b}[31m\u{85}é\u{202e}".len()), (1, 13));
    }
}
