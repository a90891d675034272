//! Why a text is not a graph.

use std::fmt;

use crate::op::TypeError;
use crate::ops::{AttrError, table};
use crate::ty::Type;

/// An error at a place of the text: the fault of its author.
#[derive(Clone, Debug, PartialEq)]
pub struct ParseError {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Bytes before the place.
    pub offset: usize,
    /// What is wrong there.
    pub problem: Problem,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.problem)
    }
}

impl std::error::Error for ParseError {}

impl ParseError {
    /// The word in `error[…]`.
    pub fn code(&self) -> &'static str {
        match &self.problem {
            Problem::Sign(_)
            | Problem::Number(_)
            | Problem::Escape
            | Problem::Unterminated
            | Problem::Role(_)
            | Problem::Expected { .. } => "sir::syntax",
            Problem::Limit { .. } => "sir::limit",
            Problem::UnknownOp { .. } => "sir::unknown_op",
            Problem::Attr(_) | Problem::AttrTwice(_) => "sir::attribute",
            Problem::Undefined(_) => "sir::undefined",
            Problem::Twice { .. } => "sir::defined_twice",
            Problem::Type(error) => error.code(),
            Problem::OtherType { .. } => "sir::type",
        }
    }
}

/// What is wrong at a place.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Problem {
    /// A character that starts nothing.
    #[error("{0:?} does not belong here")]
    Sign(char),
    /// Digits that are no number.
    #[error("`{0}` is not a number: integers are 0 to 2^64 - 1, reals have a point or an exponent")]
    Number(String),
    /// A backslash in a string with something unknown after it.
    #[error("unknown escape in a string; write \\\\ for a backslash")]
    Escape,
    /// A string that does not end on its line.
    #[error("the string does not end on its line; close it with \"")]
    Unterminated,
    /// Something else should stand here.
    #[error("{wanted} expected, not {got}")]
    Expected {
        /// What should stand here.
        wanted: String,
        /// What does.
        got: String,
    },
    /// What stands in `return` is no role of a result.
    #[error(
        "`{0}` is not a role of a result; write `logits`, `decision 0`, `wanted 0`, `choices 0 of 8`, `state \"{0}\"` or any name, as `result \"{0}\"`"
    )]
    Role(String),
    /// The text is larger than what the parser takes.
    #[error("more than {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        limit: usize,
    },
    /// No op has this name.
    #[error("unknown op `{name}`{}", did_you_mean(*nearest))]
    UnknownOp {
        /// The name.
        name: String,
        /// The op whose name is nearest.
        nearest: Option<&'static str>,
    },
    /// The attributes do not fit the op.
    #[error("{0}{hint}", hint = attr_hint(.0))]
    Attr(AttrError),
    /// An attribute stands twice.
    #[error("duplicate attribute `{0}`")]
    AttrTwice(String),
    /// A value is used that no earlier line defines.
    #[error("`%{0}` is not defined above; operands stand before their users")]
    Undefined(String),
    /// A name is given twice.
    #[error("{what} `{name}` is defined twice")]
    Twice {
        /// What has the name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The operands do not fit the op.
    #[error(transparent)]
    Type(#[from] TypeError),
    /// The type in the text is not the one that follows from the operands.
    #[error("the type is {inferred}, not {written}")]
    OtherType {
        /// What the text says.
        written: Type,
        /// What the operands give.
        inferred: Type,
    },
}

/// The op whose name is nearest to a name that no op has.
pub(super) fn nearest_op(name: &str) -> Option<&'static str> {
    nearest(name, table().into_iter().map(|info| info.name))
}

/// The word most like `name`, if one is more like it than not.
pub fn nearest<'a>(name: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = words.map(|word| (strsim::jaro_winkler(name, word), word));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(score, _)| *score > 0.7).map(|(_, word)| word)
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|word| format!("; did you mean `{word}`?")).unwrap_or_default()
}

fn attr_hint(error: &AttrError) -> String {
    let AttrError::Unknown { op, attr } = error else { return String::new() };
    let known: Vec<&str> = table()
        .into_iter()
        .filter(|info| info.name == *op)
        .flat_map(|info| info.attrs.iter().map(|(name, _)| *name))
        .collect();
    match nearest(attr, known.iter().copied()) {
        Some(word) => did_you_mean(Some(word)),
        None if known.is_empty() => "; it takes none".to_owned(),
        None => format!("; it takes {}", known.join(", ")),
    }
}
