//! What the caller of passes may choose.

use std::collections::BTreeMap;

use skipc_ir::SetSym;

/// How passes run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// After each pass, check also that the graph's text form reads back as the same text. (The graph itself is verified
    /// after every round, with or without this: the next round needs the facts.)
    pub verify_each: bool,
    /// Make at most this many edits in all, then let every pass find nothing to do.
    pub fuel: Option<u64>,
    /// Leave every op the rows that it works on: a masked model stays one.
    pub keep_rows: bool,
    /// Share of the tokens that a set is expected to have, from 0 to 1: what forms are chosen for. It is no promise:
    /// every form is right for every count.
    pub densities: BTreeMap<SetSym, f64>,
}
