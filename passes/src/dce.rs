//! Dead code.
//!
//! Before: a verified graph. After: some result depends on each node. Leaves alone:
//! everything that a result depends on, even if its value cannot matter.

use skipc_ir::{Facts, Graph};

use crate::Patch;

pub(crate) fn edits(graph: &Graph, facts: &Facts) -> Vec<Patch> {
    let mut live = vec![false; graph.bound()];
    for (_, value) in graph.results() {
        live[value.index()] = true;
    }
    let mut patches = Vec::new();
    // Users come first this way round, and each edit leaves a whole graph behind it.
    for value in facts.order().iter().rev() {
        if live[value.index()] {
            for operand in graph.operands(*value) {
                live[operand.index()] = true;
            }
        } else {
            patches.push(Patch::new("unused").remove(*value));
        }
    }
    patches
}
