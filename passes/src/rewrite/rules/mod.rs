//! The rules, by family. A rule is a Rust function over the nodes of an e-graph: attributes are matched as values, and
//! what it makes is typed before it is added.
//!
//! - [`rows`]: gathers and scatters move over ops that work row by row, and cancel;
//! - [`norms`]: gain and bias of a norm go into the weights behind it, its row scale behind the matmul;
//! - [`linear`]: the weights of two steps of a decider in a row become one, and so do their biases;
//! - [`columns`]: slices move over ops that work element by element, and into weights.
//!
//! That matmuls of one operand share a kernel is no rule: the planner lets all of them do so, and the cost of their
//! kernel is paid for once ([`super::extract`]). What the rules do for it is to let them have one operand.
//!
//! No rule is a mere commutativity or associativity, and none makes a wider matmul than there is.

mod columns;
mod linear;
mod norms;
mod rows;
mod view;

use egg::Id;
use skipc_ir::Op;

pub(crate) use view::View;

/// A right side: ops over classes that there are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Term {
    /// A class of the e-graph.
    Class(Id),
    /// An op.
    Op(Op, Vec<Term>),
}

impl From<Id> for Term {
    fn from(class: Id) -> Term {
        Term::Class(class)
    }
}

/// An op over terms.
pub(crate) fn op<const N: usize>(op: Op, operands: [Term; N]) -> Term {
    Term::Op(op, operands.into())
}

/// Finds right sides for a node: op and operands.
pub(crate) type Find = fn(&View<'_>, &Op, &[Id], &mut Vec<Term>);

/// A rule: two ways to compute one value.
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// What it says, `left = right`.
    pub says: &'static str,
    /// Why it holds, and what for.
    pub why: &'static str,
    /// What it checks before it applies.
    pub condition: &'static str,
    /// File and line of its row.
    pub place: (&'static str, u32),
    pub(crate) find: Find,
}

/// The line on which a row of a table begins. `line!` in a macro is the line of the whole table.
const fn line_of(text: &str, row: &str) -> u32 {
    let (text, row) = (text.as_bytes(), row.as_bytes());
    let (mut at, mut line) = (0, 2);
    while at + row.len() <= text.len() {
        let mut n_same = 0;
        while n_same < row.len() && text[at + n_same] == row[n_same] {
            n_same += 1;
        }
        if n_same == row.len() {
            return line;
        }
        if text[at] == b'\n' {
            line += 1;
        }
        at += 1;
    }
    0
}

/// A table of rules, with the name of its file in this folder.
macro_rules! rules {
    ($file:literal: $(
        $(#[doc = $why:literal])+
        $name:ident: $says:literal if $condition:literal;
    )+) => {
        /// The rules of this family.
        pub(super) const RULES: &[Rule] = &[
            $(Rule {
                name: stringify!($name),
                says: $says,
                why: concat!($($why),+),
                condition: $condition,
                place: (
                    concat!("passes/src/rewrite/rules/", $file),
                    $crate::rewrite::rules::line_of(
                        include_str!($file),
                        concat!("\n    ", stringify!($name), ":"),
                    ),
                ),
                find: $name,
            },)+
        ];
    };
}

use rules;

/// All rules, family by family.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    rows::RULES.iter().chain(keeping_rows())
}

/// The rules that leave every op its rows.
pub(crate) fn keeping_rows() -> impl Iterator<Item = &'static Rule> {
    [norms::RULES, linear::RULES, columns::RULES].into_iter().flatten()
}
