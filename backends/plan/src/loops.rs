//! Kernels as loops: what the backward pass and the update of weights do, of which each is needed by few models and none is
//! worth a structure of its own in every backend.
//!
//! The code runs once for each row of the kernel's extent, rows in any order and on any thread, so that no row reads what
//! another one writes. Numbers are f32; what is stored as bf16 is rounded. A loop over columns ([`Stmt::Columns`], [`Stmt::Reduce`]) is one in which all turns
//! are independent: backends make vectors of neighbouring columns, and choose an order of sums which depends on the number
//! of columns alone. All other loops run in order.

use serde::{Deserialize, Serialize};
use skipc_artifact::program::Extent;
use skipc_ir::Unary;

use crate::kernel::{Access, Rows, Slot, View};
use crate::pointwise::Real;

/// A kernel as loops.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loops {
    /// What it does, in the letters of symbols.
    pub name: String,
    /// The parameters that it uses, each once for the rows of an extent, but for counts and row lists.
    pub operands: Vec<Operand>,
    /// What is done for a row.
    pub code: Vec<Stmt>,
}

/// A parameter, and the rows of it that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operand {
    /// The parameter.
    pub slot: Slot,
    /// What is done to them.
    pub usage: Usage,
    /// Which rows.
    pub over: Over,
}

/// What a kernel does to a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Usage {
    /// It reads it.
    Read,
    /// It writes it.
    Write,
    /// It reads what was there, and writes; each element in one row of the kernel.
    Change,
    /// It reads what it wrote itself, in the same row of the kernel.
    Fill,
}

impl Usage {
    /// How the parameter has to be declared.
    pub fn access(self) -> Access {
        match self {
            Usage::Read => Access::Read,
            Usage::Write => Access::Write,
            Usage::Change | Usage::Fill => Access::ReadWrite,
        }
    }
}

/// Rows of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Over {
    /// Those of an extent, themselves or by a list.
    Rows(Extent, Rows),
    /// The first so many, of a matrix whose rows are no tokens.
    First(u32),
}

/// A variable: set once a turn, and seen until its loop's turn ends; what a loop carries, also behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Local(pub u32);

/// A whole number: of a row, a column, or how many there are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Index {
    /// The row of the kernel's extent.
    Row,
    /// This number.
    Is(u32),
    /// What a variable holds.
    Of(Local),
    /// The `u32` in the only column of a parameter.
    Word(View, Box<Index>),
    /// The sum.
    Plus(Box<Index>, Box<Index>),
    /// The product.
    Times(Box<Index>, u32),
    /// The difference, or 0 if that is below it.
    Less(Box<Index>, u32),
}

/// An element: the column counts from the view's first.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The matrix.
    pub view: View,
    /// Its row, by the view's list if it has one.
    pub row: Index,
    /// Its column: in a loop over columns its variable, on which something may be added, or without it.
    pub col: Index,
}

/// A number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expr {
    /// This one.
    Is(Real),
    /// What a variable holds.
    Of(Local),
    /// An element.
    Load(Box<Place>),
    /// A whole number.
    Count(Index),
    /// A function of one number.
    Call(Function, Box<Expr>),
    /// A function of two.
    Both(Operator, Box<Expr>, Box<Expr>),
    /// The derivative of an activation at a variable, see [`slope`].
    Slope(Unary, Local),
}

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    /// `eˣ` of what is not above 0, but for rounding.
    Exp,
    /// The natural logarithm of what is at least 1.
    Ln,
    /// `√x`; 0 of 0.
    Root,
    /// `1 / √x`.
    InvRoot,
    /// Hyperbolic tangent.
    Tanh,
    /// 1 of what is above 0, else 0.
    Step,
    /// The number itself; 0 where numbers have no order, so that softmax without a largest score is the same.
    Largest,
}

/// A function of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// `a + b`.
    Add,
    /// `a − b`.
    Sub,
    /// `a · b`.
    Mul,
    /// `a / b`.
    Div,
    /// The larger one.
    Max,
}

/// How the columns of a row become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// Their sum.
    Sum,
    /// The largest.
    Max,
}

/// A statement.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stmt {
    /// A variable becomes a number.
    Let(Local, Expr),
    /// A variable becomes a whole number.
    LetIndex(Local, Index),
    /// An element becomes a number.
    Store(Place, Expr),
    /// For each column.
    Columns {
        /// The column's variable.
        col: Local,
        /// How many there are.
        cols: u32,
        /// What is done: [`Stmt::Let`] and [`Stmt::Store`].
        body: Vec<Stmt>,
    },
    /// A number of all columns.
    Reduce {
        /// What it becomes.
        to: Local,
        /// How.
        how: Reduction,
        /// The column's variable.
        col: Local,
        /// How many there are, at least one.
        cols: u32,
        /// What each column adds.
        term: Expr,
    },
    /// For each number from one on up to, and without, another.
    For {
        /// The number.
        idx: Local,
        /// The first.
        from: Index,
        /// The one behind the last.
        to: Index,
        /// What is handed from turn to turn: a variable, its first value, and its value behind a turn.
        carried: Vec<(Local, Expr, Expr)>,
        /// What is done.
        body: Vec<Stmt>,
    },
    /// How many rows lie before a place, of rows ordered by sequence and position.
    Search {
        /// What becomes of it.
        to: Local,
        /// Sequences, `u32`.
        sequences: View,
        /// Positions, `u32`.
        positions: View,
        /// How many rows there are.
        rows: Index,
        /// The place: its sequence, and its position in it.
        place: (Index, Index),
    },
}

/// The weight gradient of a matmul: `out[j, i] = Σ_r dy[r, j] · x[r, i]` for each row `j` of the extent, or that added to
/// `out`. Rows `r` are taken in order, in blocks of [`GRADIENT_ROWS`], whoever makes which rows of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightGradient {
    /// How many rows the operands have.
    pub rows: Extent,
    /// `f32` or `bf16 [rows, cols]`.
    pub x: View,
    /// Columns of `x` and of the result.
    pub cols: u32,
    /// `f32` or `bf16 [rows, extent]`.
    pub dy: View,
    /// Result, `f32 [extent, cols]`; dense.
    pub out: Slot,
    /// Whether it is added to what is there.
    pub adds: bool,
}

/// Rows that are summed over before they are added to the sum of those before.
pub const GRADIENT_ROWS: u32 = 256;

/// `1/15, 1/13 … 1`: with `z = (m − 1) / (m + 1)` the logarithm of `m` in `1 ≤ m < 2` is `2z` times this polynomial of `z²`,
/// highest power first; what is left out is below 10⁻⁹.
pub const LN_SERIES: [f32; 8] =
    [1.0 / 15.0, 1.0 / 13.0, 1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0, 1.0];

impl Index {
    /// Whether it changes with a variable.
    pub fn mentions(&self, local: Local) -> bool {
        match self {
            Index::Row | Index::Is(_) => false,
            Index::Of(own) => *own == local,
            Index::Word(_, row) => row.mentions(local),
            Index::Plus(a, b) => a.mentions(local) || b.mentions(local),
            Index::Times(a, _) | Index::Less(a, _) => a.mentions(local),
        }
    }
}

impl Expr {
    /// A function of it.
    pub fn call(self, function: Function) -> Expr {
        Expr::Call(function, Box::new(self))
    }

    /// The larger of two.
    pub fn max(self, other: Expr) -> Expr {
        Expr::Both(Operator::Max, Box::new(self), Box::new(other))
    }

    /// `each` of every element that it loads.
    pub fn places<'e>(&'e self, each: &mut dyn FnMut(&'e Place)) {
        match self {
            Expr::Is(_) | Expr::Of(_) | Expr::Count(_) | Expr::Slope(..) => {}
            Expr::Load(place) => each(place),
            Expr::Call(_, x) => x.places(each),
            Expr::Both(_, a, b) => {
                a.places(each);
                b.places(each);
            }
        }
    }
}

/// The elements that a loop over columns loads and stores; `None` if there is another loop within it.
pub fn places(body: &[Stmt]) -> Option<Vec<&Place>> {
    let mut found = Vec::new();
    for stmt in body {
        match stmt {
            Stmt::Let(_, expr) => expr.places(&mut |place| found.push(place)),
            Stmt::Store(place, expr) => {
                found.push(place);
                expr.places(&mut |place| found.push(place));
            }
            Stmt::LetIndex(..)
            | Stmt::Columns { .. }
            | Stmt::Reduce { .. }
            | Stmt::For { .. }
            | Stmt::Search { .. } => return None,
        }
    }
    Some(found)
}

/// A constant.
pub fn number(value: f64) -> Expr {
    Expr::Is(Real::from(value))
}

macro_rules! operators {
    ($($trait:ident $method:ident),*) => {
        $(impl std::ops::$trait for Expr {
            type Output = Expr;

            fn $method(self, other: Expr) -> Expr {
                Expr::Both(Operator::$trait, Box::new(self), Box::new(other))
            }
        })*
    };
}

operators!(Add add, Sub sub, Mul mul, Div div);

impl std::ops::Add for Index {
    type Output = Index;

    fn add(self, other: Index) -> Index {
        Index::Plus(Box::new(self), Box::new(other))
    }
}

/// `1 / (1 + e^−x)`, of whose exponents none is above 0.
fn sigmoid(x: &Expr) -> Expr {
    let (above, below) = (x.clone().max(number(0.0)), (number(0.0) - x.clone()).max(number(0.0)));
    let numerator = (number(0.0) - below.clone()).call(Function::Exp);
    let exponent = number(0.0) - (above + below);
    numerator / (number(1.0) + exponent.call(Function::Exp))
}

/// The derivative of a function at `x`, of what every backend has; `None` of those that none has yet.
pub fn slope(of: Unary, x: &Expr) -> Option<Expr> {
    let one = || number(1.0);
    match of {
        Unary::Relu => Some(x.clone().call(Function::Step)),
        Unary::Relu2 => Some(number(2.0) * x.clone().max(number(0.0))),
        Unary::Sigmoid => Some(sigmoid(x) * sigmoid(&(number(0.0) - x.clone()))),
        Unary::Silu => Some(sigmoid(x) * (one() + x.clone() * sigmoid(&(number(0.0) - x.clone())))),
        Unary::Tanh => {
            let t = || x.clone().call(Function::Tanh);
            Some((one() - t()) * (one() + t()))
        }
        Unary::Gelu => {
            let (root, cubic) = ((2.0 / std::f64::consts::PI).sqrt(), 0.044_715);
            let square = || x.clone() * x.clone();
            let t = number(root) * x.clone() * (one() + number(cubic) * square());
            let t = || t.clone().call(Function::Tanh);
            let slope = number(root) * (one() + number(3.0 * cubic) * square());
            let within = x.clone() * (one() - t()) * (one() + t()) * slope;
            Some(number(0.5) * (one() + t() + within))
        }
        Unary::OneMinus => Some(number(-1.0)),
        Unary::Scale(by) => Some(number(by.0)),
        Unary::GeluErf => None,
    }
}
