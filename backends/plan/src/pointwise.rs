//! Pointwise programs: what epilogues and maps do to each element.

use ordered_float::OrderedFloat;
use serde::{Deserialize, Serialize};

pub use skipc_ir::elementwise::{Binary, Unary};

use crate::kernel::{Slot, View};

/// A real number in a kernel.
pub type Real = OrderedFloat<f64>;

/// Index of an earlier instruction of the same program, whose result is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reg(pub u32);

/// One instruction; its result is an f32, for each element `(i, j)` of the kernel's rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inst {
    /// The part's own sum of this number.
    Acc(u32),
    /// `rotate_half` of the part's own sum, in heads of `width` columns: column `j` of a head is `−acc[j + width / 2]` in
    /// the head's first half and `acc[j − width / 2]` in its second. The width is even and divides the columns.
    AccRotated {
        /// The sum.
        sum: u32,
        /// Columns of a head.
        width: u32,
    },
    /// Element `(row i, view.col + j)`.
    Load(View),
    /// Element `(row i, view.col)`: one number for the whole row.
    LoadRow(View),
    /// Element `(0, j)`: one number for the whole column.
    LoadCol(Slot),
    /// Element `(index of row i, j mod the table's columns)` of a table, such as the cosine of a position's angle.
    LoadAt {
        /// A constant whose columns divide the program's.
        table: Slot,
        /// `u32`, one column; below the rows of the table.
        index: View,
    },
    /// A function of one earlier result.
    Unary(Unary, Reg),
    /// A function of two earlier results.
    Binary(Binary, Reg, Reg),
}

/// Writes a result to element `(row i, to.col + j)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// Where to.
    pub to: View,
    /// What.
    pub value: Reg,
}

/// A straight-line program in SSA form. All loads of an element happen before its stores.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pointwise {
    /// Instructions in order; each uses only results of earlier ones.
    pub code: Vec<Inst>,
    /// What is kept.
    pub stores: Vec<Store>,
}
