//! Lets routes with the same scores and attributes share one token set.
//!
//! A route is every op that opens a set: by threshold, at random, by rank, and the capacities over another set.
//!
//! Before: a verified graph. After: at most one route for each (operands, attributes), where operands are the same if they
//! are computed alike from the same leaves, the wanted set of a capacity among them. The set keeps the symbol of the first route in the graph's order; every
//! type with the symbol of another is renamed. Leaves alone: routes that merely decide alike at run time, and
//! everything that the merge makes equal (`cse` shares it).
//!
//! A forced routing decides for the merged set by the symbol that stays: masks of merged routers have to be equal.

use skipc_ir::{Facts, Graph};

use crate::Patch;
use crate::numbering::{Routes, repeated};

pub(crate) fn edits(graph: &Graph, facts: &Facts) -> Vec<Patch> {
    let repeated = repeated(graph, facts, Routes::ByDecision).into_iter();
    let routes = repeated.filter_map(|(first, value)| {
        let (kept, merged) = (graph.op(first).opens()?, graph.op(value).opens()?);
        Some(Patch::new("same decision").rename(merged, kept).replace(value, first))
    });
    routes.collect()
}
