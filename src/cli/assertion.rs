//! `skipc inspect --assert`: what has to hold for a value of the JSON that `inspect` prints.
//!
//! `PATH` or `PATH OP VALUE`. A path is names with points between them, and `[3]` or `[target=cpu]` behind a list chooses
//! of its elements. It begins wherever its first name stands, on the level nearest to the root on which any is; the
//! assertion has to hold at all of these places. A list compared with a number counts as its length.

use serde_json::Value;

use crate::diagnostic::Diagnostic;
use crate::error::{Error, ErrorKind};
use crate::frontend::language::words::nearest;

/// Comparisons with their signs, longer signs first.
const OPS: [(&str, Op); 6] = [
    ("<=", Op::AtMost),
    (">=", Op::AtLeast),
    ("==", Op::Equal),
    ("!=", Op::Other),
    ("<", Op::Below),
    (">", Op::Above),
];

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    AtMost,
    AtLeast,
    Equal,
    Other,
    Below,
    Above,
}

/// A name of a path, or a choice among the elements of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Name(String),
    Index(usize),
    With(String, String),
}

/// An assertion as it was written.
struct Assertion<'t> {
    path: Vec<Part>,
    op: Op,
    value: &'t str,
}

/// Checks all assertions.
///
/// # Errors
/// `assert::failed` with all that do not hold; `usage::assert` for one that is none, or names nothing.
pub(super) fn check(all: &[String], json: &Value) -> Result<(), Error> {
    let mut failed = Vec::new();
    for text in all {
        let assertion = Assertion::parse(text)?;
        let places = assertion.places(json);
        if places.is_empty() {
            return Err(assertion.nothing(text, json));
        }
        for (place, value) in places {
            if !assertion.holds(value) {
                failed.push(format!("`{text}` does not hold: {place} is {}", shown(value)));
            }
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Regression, Diagnostic::new("assert::failed", failed.join("\n")))),
    }
}

impl Assertion<'_> {
    fn parse(text: &str) -> Result<Assertion<'_>, Error> {
        let found = OPS.iter().filter_map(|(sign, op)| Some((text.find(sign)?, *sign, *op)));
        // `[target=cpu]` has a sign that is none of these, and the first that is one ends the path.
        let (path, op, value) = match found.min_by_key(|(at, sign, _)| (*at, std::cmp::Reverse(sign.len()))) {
            Some((at, sign, op)) => (&text[..at], op, text[at + sign.len()..].trim()),
            None => (text, Op::Equal, "true"),
        };
        let path = parts(path.trim()).filter(|path| matches!(path.first(), Some(Part::Name(_))));
        match path {
            Some(path) if !value.is_empty() => Ok(Assertion { path, op, value: value.trim_matches('"') }),
            _ => {
                let help = "write a path of `inspect --json` and what it has to be, such as `kernels <= 105`, \
                            `programs[target=cpu].steps < 300` or `promises.device_resident`";
                let message = format!("--assert: `{text}` is not a comparison");
                Err(Error::new(ErrorKind::Request, Diagnostic::new("usage::assert", message).help(help)))
            }
        }
    }

    /// Every value that the path leads to, with where it is.
    fn places<'j>(&self, json: &'j Value) -> Vec<(String, &'j Value)> {
        let Some(Part::Name(first)) = self.path.first() else { return Vec::new() };
        let mut level: Vec<(String, &Value)> = vec![(String::new(), json)];
        while !level.is_empty() {
            let starts: Vec<(String, &Value)> = level
                .iter()
                .filter_map(|(at, value)| Some((join(at, first), value.get(first.as_str())?)))
                .collect();
            if !starts.is_empty() {
                return self.path[1..].iter().fold(starts, |found, part| {
                    found.into_iter().flat_map(|(at, value)| follow(&at, value, part)).collect()
                });
            }
            level = level.iter().flat_map(|(at, value)| children(at, value)).collect();
        }
        Vec::new()
    }

    fn holds(&self, value: &Value) -> bool {
        let number = match value {
            Value::Array(list) => Some(list.len() as f64),
            value => value.as_f64(),
        };
        let order = match number.zip(self.value.parse::<f64>().ok()) {
            Some((found, wanted)) => found.partial_cmp(&wanted),
            None => {
                let found = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                return match self.op {
                    Op::Equal => found == self.value,
                    Op::Other => found != self.value,
                    Op::AtMost | Op::AtLeast | Op::Below | Op::Above => false,
                };
            }
        };
        order.is_some_and(|order| match self.op {
            Op::AtMost => order.is_le(),
            Op::AtLeast => order.is_ge(),
            Op::Equal => order.is_eq(),
            Op::Other => order.is_ne(),
            Op::Below => order.is_lt(),
            Op::Above => order.is_gt(),
        })
    }

    /// The error for a path that leads nowhere.
    fn nothing(&self, text: &str, json: &Value) -> Error {
        let mut names = Vec::new();
        collect_names(json, &mut names);
        names.sort_unstable();
        names.dedup();
        let unknown = self.path.iter().find_map(|part| match part {
            Part::Name(name) if !names.contains(&name.as_str()) => Some(name.as_str()),
            _ => None,
        });
        let near = unknown.and_then(|name| nearest(name, names.iter().copied()));
        let help = match near {
            Some(name) => format!("did you mean `{name}`? `--json` shows all names"),
            None => "`--json` shows what there is".to_owned(),
        };
        let message = format!("--assert: `{text}`: unknown value");
        Error::new(ErrorKind::Request, Diagnostic::new("usage::assert", message).help(help))
    }
}

/// `a.b[3].c[d=e]`; `None` if it is none.
fn parts(path: &str) -> Option<Vec<Part>> {
    let mut found = Vec::new();
    // A point inside of brackets is part of a value.
    let mut rest = path;
    while !rest.is_empty() {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let name = rest[..end].trim();
        if !name.is_empty() {
            found.push(Part::Name(name.to_owned()));
        } else if !rest.starts_with('[') {
            return None;
        }
        rest = &rest[end..];
        while let Some(inside) = rest.strip_prefix('[') {
            let (choice, behind) = inside.split_once(']')?;
            found.push(match choice.split_once('=') {
                Some((key, value)) => {
                    Part::With(key.trim().to_owned(), value.trim().trim_matches('"').to_owned())
                }
                None => Part::Index(choice.trim().parse().ok()?),
            });
            rest = behind;
        }
        rest = match rest.strip_prefix('.') {
            Some(behind) if !behind.is_empty() => behind,
            None if rest.is_empty() => rest,
            _ => return None,
        };
    }
    Some(found)
}

fn join(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

fn follow<'j>(at: &str, value: &'j Value, part: &Part) -> Vec<(String, &'j Value)> {
    let element = |idx: usize, it: &'j Value| (format!("{at}[{idx}]"), it);
    match (part, value) {
        (Part::Name(name), Value::Array(list)) => {
            let with = |(idx, it): (usize, &'j Value)| {
                Some((join(&element(idx, it).0, name), it.get(name.as_str())?))
            };
            list.iter().enumerate().filter_map(with).collect()
        }
        (Part::Name(name), value) => {
            value.get(name.as_str()).map(|it| (join(at, name), it)).into_iter().collect()
        }
        (Part::Index(idx), value) => value.get(idx).map(|it| element(*idx, it)).into_iter().collect(),
        (Part::With(key, wanted), Value::Array(list)) => {
            let is = |it: &Value| match it.get(key.as_str()) {
                Some(Value::String(text)) => text == wanted,
                Some(other) => serde_json::from_str::<Value>(wanted).is_ok_and(|wanted| wanted == *other),
                None => false,
            };
            list.iter().enumerate().filter(|(_, it)| is(it)).map(|(idx, it)| element(idx, it)).collect()
        }
        (Part::With(..), _) => Vec::new(),
    }
}

fn children<'j>(at: &str, value: &'j Value) -> Vec<(String, &'j Value)> {
    match value {
        Value::Array(list) => list.iter().enumerate().map(|(idx, it)| (format!("{at}[{idx}]"), it)).collect(),
        Value::Object(fields) => fields.iter().map(|(name, it)| (join(at, name), it)).collect(),
        _ => Vec::new(),
    }
}

fn collect_names<'j>(value: &'j Value, names: &mut Vec<&'j str>) {
    if let Value::Object(fields) = value {
        names.extend(fields.keys().map(String::as_str));
    }
    children("", value).into_iter().for_each(|(_, child)| collect_names(child, names));
}

fn shown(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(_) => "no single value".to_owned(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn verdict(text: &str) -> Result<(), String> {
        let json = json!({
            "manifest": {"promises": {"causal": true, "device_resident": false}, "model": "kjv-1.5"},
            "programs": [
                {"target": "cpu", "kernels": [{"symbol": "a", "runs": 3}, {"symbol": "b", "runs": 1}], "steps": 4},
                {"target": "cuda:sm_90a", "kernels": [{"symbol": "a", "runs": 9}], "steps": 9},
            ],
        });
        let failed = check(&[text.to_owned()], &json).err();
        failed.map_or(Ok(()), |error| Err(error.to_string()))
    }

    #[test]
    fn assertions_hold_at_all_places() {
        for text in [
            "kernels <= 2",
            "promises.causal",
            "promises.device_resident == false",
            "promises.device_resident != true",
            "steps < 10",
            "programs == 2",
            "programs[target=cpu].steps == 4",
            "programs[target=cuda:sm_90a].steps > 8",
            "programs[0].kernels[symbol=a].runs >= 3",
            "manifest.model == \"kjv-1.5\"",
            "model == kjv-1.5",
            "kernels.runs < 10",
        ] {
            assert_eq!(verdict(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_does_not_hold_says_where() {
        for (text, words) in [
            ("kernels <= 1", "programs[0].kernels is a list of 2"),
            ("promises.device_resident", "manifest.promises.device_resident is false"),
            ("steps == 4", "programs[1].steps is 9"),
            ("model < 3", "manifest.model is \"kjv-1.5\""),
            ("promises", "no single value"),
        ] {
            let error = verdict(text).expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_no_assertion_is_refused() {
        for text in [
            "",
            "<= 3",
            "kernels <=",
            "kernel <= 3",
            "programs[7].steps == 4",
            "a..b",
            "a[x] == 1",
            "a[0 == 1",
        ] {
            let error = verdict(text).expect_err(text);
            assert!(!error.contains("does not hold"), "{text}: {error}");
        }
    }
}
