//! `skipc explain`: what an error code means.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{ExplainArgs, to_json};
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::error::{Error, ErrorKind};
use crate::frontend::language::words::quoted;

/// Columns of the text.
const WIDTH: usize = 100;

/// Names that are offered for one that does not exist.
const OFFERED: usize = 3;

pub(super) fn run(args: &ExplainArgs, json: bool) -> Result<String, Error> {
    let all = codes::all();
    let chosen: Vec<(&str, &str)> = match &args.code {
        None => all,
        Some(code) => all.iter().copied().filter(|(known, _)| is_meant(known, code)).collect(),
    };
    match &args.code {
        Some(code) if chosen.is_empty() => Err(unknown(code)),
        _ if json => {
            let object = |(code, text): &(&str, &str)| json!({"code": code, "explanation": text});
            to_json(&chosen.iter().map(object).collect::<Vec<Value>>())
        }
        _ => Ok(chosen.iter().fold(String::new(), |out, (code, text)| out + code + "\n" + &wrap(text))),
    }
}

/// Whether `written` is this code, or the family that it belongs to.
fn is_meant(known: &str, written: &str) -> bool {
    known == written
        || known.split_once("::").is_some_and(|(family, _)| family == written.trim_end_matches(':'))
}

fn unknown(code: &str) -> Error {
    let last = |code: &str| code.rsplit("::").next().unwrap_or_default().replace('-', "_");
    let distance = |known: &str| {
        let whole = strsim::osa_distance(known, code);
        whole.min(strsim::osa_distance(&last(known), &last(code)))
    };
    // A distance takes time by the product of both lengths.
    let comparable = code.len() <= 100;
    let mut near: Vec<(usize, &str)> = codes::all()
        .iter()
        .filter(|_| comparable)
        .map(|(known, _)| (distance(known), *known))
        .filter(|(distance, known)| *distance <= last(known).len() / 2)
        .collect();
    near.sort_unstable();
    let near: Vec<String> = near.iter().take(OFFERED).map(|(_, known)| format!("`{known}`")).collect();
    let help = if near.is_empty() {
        "`skipc explain` lists all codes".to_owned()
    } else {
        format!("did you mean {}?", near.join(" or "))
    };
    let message = format!("unknown error code {}", quoted(code));
    Error::new(ErrorKind::Request, Diagnostic::new("usage::explain", message).help(help))
}

/// Indented lines of at most [`WIDTH`] columns.
fn wrap(text: &str) -> String {
    let mut out = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + word.chars().count() + 5 > WIDTH {
            let _ = writeln!(out, "    {line}");
            line.clear();
        }
        let gap = if line.is_empty() { "" } else { " " };
        let _ = write!(line, "{gap}{word}");
    }
    let _ = writeln!(out, "    {line}");
    out
}
