//! What attention makes of products of queries and keys, and which keys a query sees.

use serde::{Deserialize, Serialize};

use crate::attr::F64;

/// How scores are made, and which of the earlier positions a query sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scoring {
    /// What products are multiplied with; `1 / √width` if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<F64>,
    /// The bound `c` of `c · tanh(score / c)`, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<F64>,
    /// How many positions a query sees, its own included; all up to it if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u32>,
    /// How many positions after its own a query sees; none if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<u32>,
}

/// How far a query can look ahead, at most: places of rows are compared as numbers of 32 bits.
pub const MOST_AHEAD: u32 = 1 << 30;

impl Scoring {
    /// The positions that a query at this one sees.
    pub fn positions(self, position: i64) -> std::ops::RangeInclusive<i64> {
        let first = self.window.map_or(0, |window| position - i64::from(window) + 1);
        first.max(0)..=position + i64::from(self.ahead.unwrap_or(0))
    }

    /// What products are multiplied with, for heads of this width.
    pub fn scale(self, width: u32) -> f64 {
        self.scale.map_or_else(|| 1.0 / f64::from(width).sqrt(), |scale| scale.0)
    }

    /// Whether nothing is said.
    pub fn is_plain(&self) -> bool {
        *self == Scoring::default()
    }
}
