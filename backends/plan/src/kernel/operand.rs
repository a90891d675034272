//! How a kernel sees its parameters.

use serde::{Deserialize, Serialize};

/// Index of a kernel parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(pub u32);

/// How a logical row finds its physical row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rows {
    /// It is the same.
    Dense,
    /// It stands in this row list (`u32`, one column) at the logical row's place.
    Listed(Slot),
}

/// A matrix as a kernel sees it: physical rows through `rows`, columns from `col` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// The parameter.
    pub slot: Slot,
    /// How rows are found.
    pub rows: Rows,
    /// First column.
    pub col: u32,
}

impl View {
    /// All columns of a matrix, row by row as they lie.
    pub fn dense(slot: Slot) -> View {
        View { slot, rows: Rows::Dense, col: 0 }
    }
}
