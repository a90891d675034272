//! JSON as the templates of checkpoints expect it: as Python's `json.dumps` writes it, without changing what is not ASCII.

use std::io::{self, Write};

use minijinja::value::{Kwargs, Value};
use minijinja::{Error, ErrorKind};
use serde::Serialize as _;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// One line, with a blank behind each comma and colon.
struct OneLine;

impl Formatter for OneLine {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, is_first: bool) -> io::Result<()> {
        if is_first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, is_first: bool) -> io::Result<()> {
        if is_first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

/// Most blanks that a level is indented by: a template is anyone's.
const MOST_INDENT: usize = 64;

/// The filter `tojson`, with the argument `indent`. The one of templates for web pages writes `<` as `\u003c`.
pub(super) fn tojson(value: &Value, arguments: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = arguments.get("indent")?;
    arguments.assert_all_used()?;
    if let Some(indent) = indent.filter(|indent| *indent > MOST_INDENT) {
        let reason = format!("tojson: an indent of {indent}, over {MOST_INDENT}");
        return Err(Error::new(ErrorKind::InvalidOperation, reason));
    }
    let mut out = Vec::new();
    let written = match indent {
        Some(indent) => {
            let blanks = vec![b' '; indent];
            let pretty = PrettyFormatter::with_indent(&blanks);
            value.serialize(&mut Serializer::with_formatter(&mut out, pretty))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut out, OneLine)),
    };
    let wrong = |error: &dyn std::fmt::Display| Error::new(ErrorKind::BadSerialization, error.to_string());
    written.map_err(|error| wrong(&error))?;
    String::from_utf8(out).map_err(|error| wrong(&error))
}
