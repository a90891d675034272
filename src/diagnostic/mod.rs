//! Errors as users see them: a stable code, the place in their file, and what to write instead.
//!
//! Every phase that reads something of the user's returns [`Diagnostics`], all it found and not the first only.
//! They render for people ([`Diagnostics::render`]) and serialise for `--json`.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, SourceCode,
    SourceSpan, SpanContents,
};
use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

/// Bytes from `start` to `end` of a source.
pub type Span = Range<usize>;

/// Findings that are kept; a file of noise would otherwise give as many errors as it has bytes.
/// Nobody reads more than these before mending the first.
const MAX_KEPT: usize = 100;

/// Bytes of one line that are shown whole. Of a longer one (generated or hostile files) only the surroundings.
const MAX_LINE: usize = 300;

/// Bytes shown on both sides of a label in a line longer than [`MAX_LINE`].
const SURROUNDINGS: usize = 60;

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

impl SourceCode for SourceText {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let whole = self.text.read_span(span, lines_before, lines_after)?;
        let (data, at, line, column) =
            if whole.data().split(|byte| *byte == b'\n').any(|line| line.len() > MAX_LINE) {
                let start = self.text.floor_char_boundary(span.offset().saturating_sub(SURROUNDINGS));
                let end = self.text.ceil_char_boundary(span.offset() + span.len() + SURROUNDINGS);
                // Only the line of the label: a window over several would be cut in the middle of two.
                let label = span.offset().min(self.text.len());
                let start = self.text[start..label].rfind('\n').map_or(start, |newline| start + newline + 1);
                let label_end = (label + span.len()).min(end);
                let end = self.text[label_end..end].find('\n').map_or(end, |length| label_end + length);
                let (line, column) = self.line_column(start);
                (&self.text.as_bytes()[start..end], start, line - 1, column - 1)
            } else {
                (whole.data(), whole.span().offset(), whole.line(), whole.column())
            };
        let at = SourceSpan::from((at, data.len()));
        let contents =
            MietteSpanContents::new_named(self.name.to_string(), data, at, line, column, whole.line_count());
        Ok(Box::new(contents))
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

impl miette::Diagnostic for Diagnostic {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.code))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.text.as_ref().map(|text| text as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let spans = self.labels.iter().enumerate().map(|(idx, label)| {
            let place = (label.span.start, label.span.len());
            let text = Some(label.text.clone());
            if idx == 0 {
                LabeledSpan::new_primary_with_span(text, place)
            } else {
                LabeledSpan::new_with_span(text, place)
            }
        });
        (!self.labels.is_empty()).then(|| Box::new(spans) as Box<dyn Iterator<Item = LabeledSpan>>)
    }
}

impl Serialize for Diagnostic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// A label with the place as editors count it.
        #[derive(Serialize)]
        struct Place<'a> {
            line: usize,
            column: usize,
            start: usize,
            end: usize,
            text: &'a str,
        }
        let places: Vec<Place<'_>> = self
            .labels
            .iter()
            .filter_map(|label| {
                let (line, column) = self.text.as_ref()?.line_column(label.span.start);
                let Span { start, end } = label.span;
                Some(Place { line, column, start, end, text: &label.text })
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

    /// As text for people, `width` columns wide, with or without terminal colours.
    pub fn render(&self, width: usize, colours: bool) -> String {
        let theme = if colours { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(width).with_links(false);
        let mut out = String::new();
        for diagnostic in &self.kept {
            // Writing to a String does not fail, and a label out of its source is shown as such.
            if handler.render_report(&mut out, diagnostic).is_err() {
                out.push_str(&format!("{}: {diagnostic}\n", diagnostic.code));
            }
        }
        if self.left_off > 0 {
            out.push_str(&format!("and {} more\n", self.left_off));
        }
        out
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

    #[test]
    fn a_long_line_is_shown_around_the_label_only() {
        let text = format!("a = 1\nb = \"{}\" c = {}\n", "x".repeat(5000), "y".repeat(5000));
        let at = text.find(" c =").unwrap_or_default() + 1;
        let source = SourceText::new("long", &text);
        let found = Diagnostics::from(Diagnostic::new("t::long", "wrong").at(&source, at..at + 1, "here"));
        let shown = found.render(100, false);
        assert!(shown.len() < 1500 && shown.contains("[long:2:5008]") && shown.contains("here"), "{shown}");
    }

    #[test]
    fn spans_outside_the_text_are_clipped() {
        let source = SourceText::new("short", "é\nb");
        for span in [0..1, 1..9, 2..2, 3..4, 4..4, 70..90] {
            let found = Diagnostics::from(Diagnostic::new("t::clip", "wrong").at(&source, span, "here"));
            assert!(found.render(80, false).contains("t::clip"));
        }
    }

    #[test]
    fn findings_after_the_hundredth_are_counted() {
        let mut found = Diagnostics::default();
        for _ in 0..130 {
            found.push(Diagnostic::new("t::many", "again"));
        }
        assert_eq!((found.iter().count(), found.left_off()), (100, 30));
        assert!(found.render(80, false).ends_with("and 30 more\n"));
    }
}
