//! Common subexpressions.
//!
//! Before: a verified graph. After: no two nodes have the same op, attributes and operands. Leaves alone: routes, even
//! equal ones (`merge_routes` shares them), and `add %1, %2` beside `add %2, %1`.

use skipc_ir::{Facts, Graph};

use crate::Patch;
use crate::numbering::{Routes, repeated};

pub(crate) fn edits(graph: &Graph, facts: &Facts) -> Vec<Patch> {
    let repeated = repeated(graph, facts, Routes::Apart);
    repeated.into_iter().map(|(first, value)| Patch::new("computed before").replace(value, first)).collect()
}
