//! Work along sequences.

use serde::{Deserialize, Serialize};
use skipc_artifact::program::Extent;

use super::operand::{Slot, View};

/// Work along sequences, in which a row of the result depends on several rows of its sequence. Rows are ordered by (sequence,
/// position).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Along {
    /// The mean of the rows of each sequence, for every row of it; sums are f32. One task.
    Mean {
        /// Columns.
        cols: u32,
        /// The rows, `[extent, cols]`.
        x: View,
        /// Sequence of each row: `u32`, one column.
        sequences: View,
        /// Result, `[extent, cols]`; dense.
        out: Slot,
    },
    /// A causal convolution, row by row.
    Conv(Conv),
}

/// A causal convolution with a filter for each column: row `i` of the result is the sum over its taps `j` of `filters[j]` times the
/// input at position `positions[i] − (taps − 1) + j` of its sequence, in f32 and in order of positions. What is not there adds
/// nothing; a row without inputs is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv {
    /// Columns.
    pub cols: u32,
    /// Inputs of a row, at most.
    pub taps: u32,
    /// `f32 [taps, cols]`; the last row is for the input at the row's own position.
    pub filters: Slot,
    /// Position of each row of the result: `u32`, one column.
    pub positions: View,
    /// Sequence of each row of the result: `u32`, one column.
    pub sequences: View,
    /// What is convolved.
    pub inputs: Inputs,
    /// Result, `[extent, cols]`; dense.
    pub out: Slot,
}

/// Where the inputs of a convolution lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inputs {
    /// In rows that are ordered by (sequence, position), no two of which are at one place.
    Rows {
        /// How many there are.
        extent: Extent,
        /// The rows, `[this extent, cols]`.
        x: View,
        /// Position of each: `u32`, one column.
        positions: View,
        /// Sequence of each: `u32`, one column.
        sequences: View,
    },
    /// In a cache, by the pages of their sequence, as keys of [`CachedAttention`](super::CachedAttention).
    Cached {
        /// `[rows of the cache, cols]`.
        cache: Slot,
        /// `u32`, a row for each sequence, with a column for each page that it can have.
        pages: Slot,
        /// `u8`, one column and a row for each of the cache: not 0 where there is an input; without it there is one everywhere.
        present: Option<Slot>,
    },
}

impl Along {
    /// Such as `conv_4x384`: taps and columns.
    pub(super) fn describe(&self) -> String {
        match self {
            Along::Mean { cols, .. } => format!("sequence_mean_{cols}"),
            Along::Conv(Conv { cols, taps, inputs, .. }) => match inputs {
                Inputs::Rows { .. } => format!("conv_{taps}x{cols}"),
                Inputs::Cached { present: None, .. } => format!("cached_conv_{taps}x{cols}"),
                Inputs::Cached { present: Some(_), .. } => format!("cached_conv_{taps}x{cols}_of_some"),
            },
        }
    }
}
