//! JSON as the tree of [`ast`](super::ast), for the configurations of checkpoints.

use jsonc_parser::ast as parsed;
use jsonc_parser::common::{Range, Ranged};
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use super::ast::{Ast, Entry, Notation, Table, Value, ValueKind};
use super::limits;
use super::words::quoted;
use crate::diagnostic::{Diagnostic, Diagnostics, SourceText, Span};

/// JSON as its standard has it; the parser knows dialects.
const STRICT: ParseOptions = ParseOptions {
    allow_comments: false,
    allow_loose_object_property_names: false,
    allow_trailing_commas: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// Parses the text of a JSON object. Errors are `spec::syntax`, `spec::duplicate_key` and `spec::limit`.
pub fn parse(source_name: &str, text: &str) -> Result<Ast, Diagnostics> {
    if text.len() > limits::FILE_BYTES {
        return Err(limits::file_too_large(source_name).into());
    }
    let source = SourceText::new(source_name, text);
    let syntax = |message: String, span: Span| {
        Diagnostic::new("spec::syntax", message)
            .at(&source, span, "here")
            .help("a configuration is one JSON object, `{ … }`; download it again, or mend this place")
    };
    let parsed = parse_to_ast(text, &CollectOptions::default(), &STRICT).map_err(|error| {
        syntax(format!("{source_name} is not JSON: {}", error.kind()), span(error.range()))
    })?;
    let Some(parsed::Value::Object(object)) = parsed.value else {
        return Err(syntax(format!("{source_name} is not a JSON object"), 0..text.len()).into());
    };
    let mut found = Diagnostics::default();
    let root = table(&object, &source, &mut found);
    found.or(Ast { source, notation: Notation::Json, root })
}

/// Recursion here and below is bounded: the parser refuses texts that nest too deeply.
fn table(object: &parsed::Object<'_>, source: &SourceText, found: &mut Diagnostics) -> Table {
    let mut entries: Vec<Entry> = Vec::new();
    for property in &object.properties {
        let (key, key_span) = (property.name.as_str().to_owned(), span(property.name.range()));
        if entries.iter().any(|entry| entry.key == key) {
            let message = format!("duplicate key {}", quoted(&key));
            found.push(
                Diagnostic::new("spec::duplicate_key", message)
                    .at(source, key_span.clone(), "again here")
                    .help("remove one of them: either could be meant"),
            );
        }
        entries.push(Entry { key, key_span, value: value(&property.value, source, found) });
    }
    Table { span: span(object.range), entries }
}

fn value(from: &parsed::Value<'_>, source: &SourceText, found: &mut Diagnostics) -> Value {
    let kind = match from {
        parsed::Value::StringLit(text) => ValueKind::Text(text.value.clone().into_owned()),
        parsed::Value::NumberLit(number) => self::number(number.value),
        parsed::Value::BooleanLit(flag) => ValueKind::Bool(flag.value),
        parsed::Value::NullKeyword(_) => ValueKind::Null,
        parsed::Value::Array(list) => {
            ValueKind::List(list.elements.iter().map(|one| value(one, source, found)).collect())
        }
        parsed::Value::Object(object) => ValueKind::Table(table(object, source, found)),
    };
    Value { span: span(from.range()), kind }
}

/// A number without fraction and exponent is whole, as Python reads it.
fn number(text: &str) -> ValueKind {
    match text.parse::<i64>() {
        Ok(whole) => ValueKind::Integer(whole),
        // What the parser took for a number is one; too large a one is infinite, which no key takes.
        Err(_) => ValueKind::Float(text.parse().unwrap_or(f64::INFINITY)),
    }
}

fn span(range: Range) -> Span {
    range.start..range.end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_and_value_knows_its_place() {
        let text = r#"{"a": [1, 2.5, "x\n"], "b": {"c": null, "d": true}, "e": 1e-6}"#;
        let ast = parse("config.json", text).unwrap();
        let keys: Vec<&str> = ast.root.entries.iter().map(|entry| &text[entry.key_span.clone()]).collect();
        assert_eq!(keys, ["\"a\"", "\"b\"", "\"e\""]);
        let ValueKind::List(list) = &ast.root.entries[0].value.kind else { panic!("{ast:?}") };
        assert!(matches!(list[0].kind, ValueKind::Integer(1)) && &text[list[1].span.clone()] == "2.5");
        assert!(matches!(&list[2].kind, ValueKind::Text(text) if text == "x\n"));
        let ValueKind::Table(inner) = &ast.root.entries[1].value.kind else { panic!("{ast:?}") };
        assert!(matches!(inner.entries[0].value.kind, ValueKind::Null));
        assert!(matches!(ast.root.entries[2].value.kind, ValueKind::Float(number) if number == 1e-6));
    }

    #[test]
    fn dialects_and_keys_that_come_twice_are_refused() {
        let code =
            |text: &str| parse("config.json", text).err().map(|found| found.iter().next().unwrap().code());
        for text in
            ["", "[]", "{\"a\": 1,}", "{a: 1}", "{\"a\": 1} // b", "{\"a\": NaN}", "{\"a\": 'b'}", "{} {}"]
        {
            assert_eq!(code(text), Some("spec::syntax"), "{text}");
        }
        assert_eq!(code("{\"a\": 1, \"a\": 1}"), Some("spec::duplicate_key"));
        assert_eq!(code(&format!("{}1{}", "{\"a\":".repeat(5000), "}".repeat(5000))), Some("spec::syntax"));
        assert_eq!(code("{}"), None);
    }
}
