//! Diagnostics as a terminal shows them: each with the lines that it is about.

use std::fmt;

use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, SourceCode,
    SourceSpan, SpanContents,
};

use skipc_runtime::command::printable;

use super::{Diagnostic, Diagnostics, Label, Severity, SourceText};

/// Bytes of one line that are shown whole. Of a longer one (generated or hostile files) only the surroundings.
const MAX_LINE: usize = 300;

/// Bytes shown on both sides of a label in a line longer than [`MAX_LINE`].
const SURROUNDINGS: usize = 60;

impl Diagnostics {
    /// As human-readable text, `width` columns wide, with or without terminal colours.
    pub fn render(&self, width: usize, colours: bool) -> String {
        let theme = if colours { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(width).with_links(false);
        let mut out = String::new();
        for diagnostic in &self.kept {
            let diagnostic = diagnostic.printable();
            // Writing to a String does not fail, and a label out of its source is shown as such.
            if handler.render_report(&mut out, &diagnostic).is_err() {
                out.push_str(&format!("{}: {diagnostic}\n", diagnostic.code));
            }
        }
        if self.left_off > 0 {
            out.push_str(&format!("and {} more\n", self.left_off));
        }
        out
    }
}

impl Diagnostic {
    /// The same without what names and texts of a user's file could make a terminal do; offsets into the source stay.
    fn printable(&self) -> Diagnostic {
        let text = |text: &str| printable(text).into_owned();
        let source = |source: &SourceText| SourceText { name: text(&source.name).into(), ..source.clone() };
        Diagnostic {
            message: text(&self.message).into(),
            help: self.help.as_deref().map(|help| text(help).into()),
            text: self.text.as_ref().map(source),
            labels: self
                .labels
                .iter()
                .map(|Label { span, text: label }| Label { span: span.clone(), text: text(label) })
                .collect(),
            ..self.clone()
        }
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn nothing_of_a_file_is_a_command_to_the_terminal() {
        let escape = "a\u{1b}[31m\u{9b}2J\u{202e}b";
        let source = SourceText::new(escape, escape);
        let diagnostic = Diagnostic::new("t::escape", escape).at(&source, 0..1, escape).help(escape);
        let shown = Diagnostics::from(diagnostic).render(80, false);
        let is_command = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!shown.contains(is_command), "{shown:?}");
        assert!(shown.matches("[31m").count() >= 5, "{shown}");
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
