//! What was written: a tree of tables, lists and scalars in which every key and value knows its place. Specs are TOML and
//! parsed here; configurations of checkpoints are JSON, which [`json`](super::json) parses to the same tree.
//!
//! What the keys of a spec mean is decided in [`resolve`](super::super::spec::resolve).

use toml_edit::{Document, Item, TableLike};

use super::limits;
use super::words::quoted;
use crate::diagnostic::{Diagnostic, Diagnostics, SourceText, Span};

/// A parsed file.
#[derive(Clone, Debug)]
pub struct Ast {
    /// For diagnostics.
    pub source: SourceText,
    /// How it is written, for what diagnostics propose.
    pub notation: Notation,
    /// The whole file.
    pub root: Table,
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notation {
    /// `key = value`.
    Toml,
    /// `"key": value`.
    Json,
}

/// Keys and values in the order of the file; no key twice.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its header (`[model]`), braces, or first key.
    pub span: Span,
    /// What stands in it.
    pub entries: Vec<Entry>,
}

/// `key = value`.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Without quotes.
    pub key: String,
    /// Of the key.
    pub key_span: Span,
    /// Behind the key.
    pub value: Value,
}

/// A value with its place.
#[derive(Clone, Debug)]
pub struct Value {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub kind: ValueKind,
}

/// What can stand behind a key.
#[derive(Clone, Debug)]
pub enum ValueKind {
    /// A string, escapes resolved.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction or exponent, `inf` or `nan`.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// A date or time; no key takes one. TOML alone has it.
    Date,
    /// `null`. JSON alone has it.
    Null,
    /// `[…]`, or all `[[name]]` of one name.
    List(Vec<Value>),
    /// `{…}`, `[name]`, or one `[[name]]`.
    Table(Table),
}

impl Table {
    /// The entry of a key.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

impl ValueKind {
    /// What it is, for messages.
    pub fn describe(&self) -> &'static str {
        match self {
            ValueKind::Text(_) => "a string",
            ValueKind::Integer(_) => "an integer",
            ValueKind::Float(_) => "a float",
            ValueKind::Bool(_) => "a boolean",
            ValueKind::Date => "a date",
            ValueKind::Null => "null",
            ValueKind::List(_) => "a list",
            ValueKind::Table(_) => "a table",
        }
    }
}

/// Parses TOML text. Errors are `spec::syntax`, `spec::duplicate_key` and `spec::limit`.
pub fn parse(source_name: &str, text: &str) -> Result<Ast, Diagnostics> {
    if text.len() > limits::FILE_BYTES {
        return Err(limits::file_too_large(source_name).into());
    }
    let source = SourceText::new(source_name, text);
    let document = Document::parse(text).map_err(|error| syntax(&source, &error))?;
    let root = table(document.as_table(), 0..0);
    Ok(Ast { source, notation: Notation::Toml, root })
}

fn syntax(source: &SourceText, error: &toml_edit::TomlError) -> Diagnostic {
    let span = error.span().unwrap_or(0..0);
    if error.message().starts_with("duplicate key") {
        let header = source.line_of(span.start);
        let (message, span) = match source.slice(header.clone()).trim_start().starts_with('[') {
            true => ("duplicate table".to_owned(), header),
            false => (format!("duplicate key {}", quoted(source.slice(span.clone()))), span),
        };
        return Diagnostic::new("spec::duplicate_key", message)
            .at(source, span, "again here")
            .help("remove one of them, or give it another name");
    }
    Diagnostic::new("spec::syntax", format!("the spec is not TOML: {}", error.message()))
        .at(source, span, "here")
        .help("words stand in double quotes, tables under `[name]`, and commas between the elements of `[…]` and `{…}`")
}

/// Recursion here and below is bounded: the parser refuses more than 80 levels.
fn table(from: &dyn TableLike, span: Span) -> Table {
    let entries = from.iter().filter_map(|(key, item)| {
        let key_span = from.key(key).and_then(|key| key.span()).unwrap_or_else(|| span.clone());
        Some(Entry { key: key.to_owned(), value: behind_key(item, &key_span)?, key_span })
    });
    Table { entries: entries.collect(), span: span.clone() }
}

fn behind_key(item: &Item, key_span: &Span) -> Option<Value> {
    // A table that is only implied, such as `a` in `a.b = 1`, has no place but its key's.
    let place = |span: Option<Span>| span.filter(|span| !span.is_empty()).unwrap_or_else(|| key_span.clone());
    let of_table = |from: &toml_edit::Table| {
        let span = place(from.span());
        Value { kind: ValueKind::Table(table(from, span.clone())), span }
    };
    match item {
        Item::None => None,
        Item::Table(from) => Some(of_table(from)),
        Item::ArrayOfTables(from) => {
            let kind = ValueKind::List(from.iter().map(of_table).collect());
            Some(Value { span: place(from.span()), kind })
        }
        Item::Value(from) => Some(value(from, key_span)),
    }
}

fn value(from: &toml_edit::Value, outer: &Span) -> Value {
    let span = from.span().unwrap_or_else(|| outer.clone());
    let kind = match from {
        toml_edit::Value::String(text) => ValueKind::Text(text.value().clone()),
        toml_edit::Value::Integer(number) => ValueKind::Integer(*number.value()),
        toml_edit::Value::Float(number) => ValueKind::Float(*number.value()),
        toml_edit::Value::Boolean(flag) => ValueKind::Bool(*flag.value()),
        toml_edit::Value::Datetime(_) => ValueKind::Date,
        toml_edit::Value::Array(list) => ValueKind::List(list.iter().map(|one| value(one, &span)).collect()),
        toml_edit::Value::InlineTable(from) => ValueKind::Table(table(from, span.clone())),
    };
    Value { span, kind }
}
