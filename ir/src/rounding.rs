//! Which way a share of rows that is not whole is rounded.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::attr::{Attr, Literal};

/// Which way a number that is not whole is rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rounding {
    /// To the next whole number above it.
    #[default]
    Up,
    /// To the next below it.
    Down,
}

impl Rounding {
    /// A number rounded this way.
    pub fn of(self, number: f64) -> f64 {
        match self {
            Rounding::Up => number.ceil(),
            Rounding::Down => number.floor(),
        }
    }
}

/// Up where it is not written.
impl Attr for Rounding {
    const KIND: &'static str = "up? | down?";

    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rounding::Up => "up",
            Rounding::Down => "down",
        })
    }

    fn read(literal: &Literal) -> Option<Rounding> {
        match literal {
            Literal::Word(word) if word == "up" => Some(Rounding::Up),
            Literal::Word(word) if word == "down" => Some(Rounding::Down),
            _ => None,
        }
    }

    fn absent() -> Option<Rounding> {
        Some(Rounding::Up)
    }

    fn is_absent(&self) -> bool {
        *self == Rounding::Up
    }
}
