//! What choices of experts rank by where an expert has too few places for all rows that chose it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::attr::{Attr, Literal};

/// What a choice ranks by among those of other rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ranking {
    /// Its score, as it was ranked among the choices of its row.
    Score,
    /// Its turn among the choices of its row: first choices before second ones.
    Turn,
}

impl Attr for Ranking {
    const KIND: &'static str = "score | turn";
    const OPTIONAL_KIND: &'static str = "score? | turn?";

    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ranking::Score => "score",
            Ranking::Turn => "turn",
        })
    }

    fn read(literal: &Literal) -> Option<Ranking> {
        match literal {
            Literal::Word(word) if word == "score" => Some(Ranking::Score),
            Literal::Word(word) if word == "turn" => Some(Ranking::Turn),
            _ => None,
        }
    }
}
