//! Reads typed values out of the tree and collects what is wrong with them.
//!
//! A reader that returns `None` has reported why; its caller goes on with the next key.

use std::ops::RangeInclusive;

use super::ast::{Ast, Entry, Notation, Table, Value, ValueKind};
use super::limits;
use super::words::{Word, nearest, quoted, translated};
use crate::diagnostic::{Diagnostic, Diagnostics, SourceText};

/// The source and what was found in it so far.
pub(in crate::frontend) struct Ctx<'a> {
    pub(in crate::frontend) source: &'a SourceText,
    pub(in crate::frontend) found: Diagnostics,
    notation: Notation,
}

/// One table with what it is, such as "an ffn layer".
#[derive(Clone, Copy)]
pub(in crate::frontend) struct Fields<'a> {
    pub(in crate::frontend) table: &'a Table,
    pub(in crate::frontend) what: &'static str,
    /// All keys that it may have.
    pub(in crate::frontend) keys: &'static [&'static str],
}

impl<'a> Ctx<'a> {
    pub(in crate::frontend) fn new(ast: &'a Ast) -> Ctx<'a> {
        Ctx { source: &ast.source, found: Diagnostics::default(), notation: ast.notation }
    }

    pub(in crate::frontend) fn report(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic);
    }

    /// Reports a finding with one place.
    pub(in crate::frontend) fn wrong(
        &mut self,
        code: &'static str,
        message: String,
        at: (&Value, &str),
        help: String,
    ) {
        let diagnostic = Diagnostic::new(code, message).at(self.source, at.0.span.clone(), at.1).help(help);
        self.found.push(diagnostic);
    }

    /// Reports keys that the table must not have. `elsewhere` knows where a key would belong.
    pub(in crate::frontend) fn check_keys(
        &mut self,
        fields: Fields<'_>,
        elsewhere: impl Fn(&str) -> Option<String>,
    ) {
        let unknown = fields.table.entries.iter().filter(|entry| !fields.keys.contains(&entry.key.as_str()));
        for entry in unknown {
            if self.found.is_full() {
                // Only counted from here on; no need to look for the nearest.
                self.report(Diagnostic::new("spec::unknown_key", ""));
                continue;
            }
            let meant = || nearest(&entry.key, fields.keys.iter().copied());
            let ours = translated(&entry.key).filter(|ours| fields.keys.contains(ours));
            let (label, help) = if let Some(help) = elsewhere(&entry.key) {
                ("does not belong here", help)
            } else if let Some(key) = ours {
                ("another name is used here", format!("write `{key}`"))
            } else if let Some(key) = meant() {
                ("no such key", format!("did you mean `{key}`?"))
            } else {
                ("no such key", format!("the keys of {} are {}", fields.what, list(fields.keys)))
            };
            let message = format!("{} has no key {}", fields.what, quoted(&entry.key));
            let diagnostic = Diagnostic::new("spec::unknown_key", message)
                .at(self.source, entry.key_span.clone(), label)
                .help(help);
            self.report(diagnostic);
        }
    }

    /// The entry of a key that must be there. `example` is the line to write.
    pub(in crate::frontend) fn required<'t>(
        &mut self,
        fields: Fields<'t>,
        key: &str,
        example: &str,
    ) -> Option<&'t Entry> {
        let entry = fields.table.get(key);
        if entry.is_none() {
            let diagnostic =
                Diagnostic::new("spec::missing_key", format!("{} needs the key `{key}`", fields.what))
                    .at(self.source, fields.table.span.clone(), format!("`{key}` is missing"))
                    .help(for_example("add", example));
            self.report(diagnostic);
        }
        entry
    }

    /// A value that may be left out: `default` if it is, `None` if it is wrong.
    pub(in crate::frontend) fn optional<T>(
        &mut self,
        fields: Fields<'_>,
        key: &str,
        default: T,
        read: impl FnOnce(&mut Self, &Entry) -> Option<T>,
    ) -> Option<T> {
        match fields.table.get(key) {
            None => Some(default),
            Some(entry) => read(self, entry),
        }
    }

    /// An integer in `range`.
    pub(in crate::frontend) fn count(
        &mut self,
        entry: &Entry,
        range: RangeInclusive<usize>,
    ) -> Option<usize> {
        let number = self.integer(entry)?;
        let count = usize::try_from(number).ok().filter(|count| range.contains(count));
        if count.is_none() {
            let (least, most) = (range.start(), range.end());
            // A number that is only too large meets a limit of the compiler; the others have no meaning.
            let large = number > 0 && number as u64 > *most as u64;
            let code = if large { "spec::limit" } else { "spec::out_of_range" };
            let message = format!(
                "`{}` is {number}, which is {}",
                entry.key,
                if large { "too large" } else { "too small" }
            );
            let label = if large { format!("at most {most}") } else { format!("at least {least}") };
            self.wrong(
                code,
                message,
                (&entry.value, &label),
                format!("write a number from {least} to {most}"),
            );
        }
        count
    }

    /// An integer that is not negative.
    pub(in crate::frontend) fn seed(&mut self, entry: &Entry) -> Option<u64> {
        let number = self.integer(entry)?;
        let seed = u64::try_from(number).ok();
        if seed.is_none() {
            let message = format!("`{}` is {number}, which is negative", entry.key);
            let help = format!("write a number from 0 to {}", i64::MAX);
            self.wrong("spec::out_of_range", message, (&entry.value, "at least 0"), help);
        }
        seed
    }

    fn integer(&mut self, entry: &Entry) -> Option<i64> {
        if let ValueKind::Integer(number) = entry.value.kind {
            return Some(number);
        }
        let meant = match &entry.value.kind {
            ValueKind::Text(text) => text.trim().parse::<i64>().ok(),
            // Exact, as it is whole and far below 2^53.
            ValueKind::Float(number) if number.fract() == 0.0 && number.abs() < 1e15 => Some(*number as i64),
            _ => None,
        };
        self.wrong_type(
            entry,
            "an integer",
            meant.map_or("write digits only".to_owned(), |number| self.meant_line(entry, number)),
        );
        None
    }

    /// A finite number for which `holds`; `range` says in words which ones those are.
    pub(in crate::frontend) fn number(
        &mut self,
        entry: &Entry,
        range: &str,
        holds: impl Fn(f64) -> bool,
    ) -> Option<f64> {
        let number = match &entry.value.kind {
            ValueKind::Float(number) => *number,
            ValueKind::Integer(number) => *number as f64,
            other => {
                let meant = match other {
                    ValueKind::Text(text) => {
                        text.trim().parse::<f64>().ok().filter(|number| number.is_finite())
                    }
                    _ => None,
                };
                let help = meant.map_or(format!("write a number {range}"), |number| {
                    self.meant_line(entry, format!("{number:?}"))
                });
                self.wrong_type(entry, "a number", help);
                return None;
            }
        };
        if number.is_finite() && holds(number) {
            return Some(number);
        }
        let message = format!("`{}` is {number:?}, which is out of range", entry.key);
        self.wrong("spec::out_of_range", message, (&entry.value, range), format!("write a number {range}"));
        None
    }

    /// `true` or `false`.
    pub(in crate::frontend) fn flag(&mut self, entry: &Entry) -> Option<bool> {
        if let ValueKind::Bool(flag) = entry.value.kind {
            return Some(flag);
        }
        let help = match &entry.value.kind {
            ValueKind::Text(text) if text == "true" || text == "false" => self.meant_line(entry, text),
            _ => "write `true` or `false`".to_owned(),
        };
        self.wrong_type(entry, "a boolean", help);
        None
    }

    /// One of the words of `T`.
    pub(in crate::frontend) fn word<T: Word>(&mut self, entry: &Entry) -> Option<T> {
        let words: Vec<&str> = T::WORDS.iter().map(|(word, _)| *word).collect();
        let ValueKind::Text(text) = &entry.value.kind else {
            self.wrong_type(entry, "a word in quotes", format!("write one of {}", list_quoted(&words)));
            return None;
        };
        let choice = T::WORDS.iter().find(|(word, _)| word == text).map(|(_, choice)| *choice);
        if choice.is_none() {
            let help = match nearest(text, words.iter().copied().filter(|word| !word.is_empty())) {
                Some(word) => format!("did you mean `{word:?}`?"),
                None => format!("write one of {}", list_quoted(&words)),
            };
            let message = format!("`{}` has no choice {}", entry.key, quoted(text));
            self.wrong("spec::bad_value", message, (&entry.value, "no such choice"), help);
        }
        choice
    }

    /// A name that can be shown: not empty, short, no control characters.
    pub(in crate::frontend) fn name(&mut self, entry: &Entry) -> Option<String> {
        let ValueKind::Text(text) = &entry.value.kind else {
            self.wrong_type(entry, "a string", format!("write `{} = \"…\"`", entry.key));
            return None;
        };
        match name_fault(text) {
            None => Some(text.clone()),
            Some((code, label)) => {
                let message = format!("{} cannot be a name", quoted_name(text));
                self.wrong(code, message, (&entry.value, &label), "choose a short, readable name".to_owned());
                None
            }
        }
    }

    /// The elements of a list that must not be empty.
    pub(in crate::frontend) fn list<'t>(
        &mut self,
        entry: &'t Entry,
        of: &str,
        example: &str,
    ) -> Option<&'t [Value]> {
        match &entry.value.kind {
            ValueKind::List(list) if list.is_empty() => {
                let message = format!("`{}` is empty", entry.key);
                let help = for_example("write", example);
                self.wrong(
                    "spec::empty",
                    message,
                    (&entry.value, &format!("a list of {of}, at least one")),
                    help,
                );
                None
            }
            ValueKind::List(list) => Some(list),
            _ => {
                self.wrong_type(entry, &format!("a list of {of}"), for_example("write", example));
                None
            }
        }
    }

    /// A table.
    pub(in crate::frontend) fn table<'t>(
        &mut self,
        key: &str,
        value: &'t Value,
        example: &str,
    ) -> Option<&'t Table> {
        if let ValueKind::Table(table) = &value.kind {
            return Some(table);
        }
        let message = format!("`{key}` wants a table, not {}", value.kind.describe());
        self.wrong(
            "spec::wrong_type",
            message,
            (value, "a table is wanted here"),
            for_example("write", example),
        );
        None
    }

    /// What to write for an entry.
    fn meant_line(&self, entry: &Entry, value: impl std::fmt::Display) -> String {
        match self.notation {
            Notation::Toml => format!("write `{} = {value}`", entry.key),
            Notation::Json => format!("write `{:?}: {value}`", entry.key),
        }
    }

    fn wrong_type(&mut self, entry: &Entry, wanted: &str, help: String) {
        let message = format!("`{}` wants {wanted}, not {}", entry.key, entry.value.kind.describe());
        self.wrong("spec::wrong_type", message, (&entry.value, &format!("{wanted} is wanted here")), help);
    }
}

/// Why a text cannot name a model or block: code and label.
pub(in crate::frontend) fn name_fault(name: &str) -> Option<(&'static str, String)> {
    if name.is_empty() {
        Some(("spec::bad_value", "empty".to_owned()))
    } else if name.len() > limits::NAME_BYTES {
        Some(("spec::limit", format!("at most {} bytes", limits::NAME_BYTES)))
    } else if name.chars().any(char::is_control) {
        Some(("spec::bad_value", "has control characters".to_owned()))
    } else {
        None
    }
}

/// What to write; an example of several lines stands on lines of its own.
pub(in crate::frontend) fn for_example(verb: &str, example: &str) -> String {
    if example.contains('\n') {
        format!("{verb}, for example:\n{example}")
    } else {
        format!("{verb}, for example, `{example}`")
    }
}

/// A name that cannot be one.
pub(in crate::frontend) fn quoted_name(name: &str) -> String {
    if name.is_empty() { "an empty text".to_owned() } else { quoted(name) }
}

/// "`a`, `b` and `c`".
pub(in crate::frontend) fn list(words: &[&str]) -> String {
    let marked: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    match marked.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => marked.concat(),
    }
}

fn list_quoted(words: &[&str]) -> String {
    let marked: Vec<String> = words.iter().map(|word| format!("`{word:?}`")).collect();
    marked.join(", ")
}
