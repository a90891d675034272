//! Tests of the rules, of the search, and of their limits.

mod accuracy;
mod densities;
mod instances;
mod limits;
mod proofs;
mod search;
mod steps;
mod twins;

use skipc_ir::text::parse;
use skipc_ir::{Graph, Trait, Value};

use super::region::{self, Region};

fn graph(text: &str) -> Graph {
    parse(text).unwrap_or_else(|errors| panic!("{}\n{text}", errors[0]))
}

/// The whole graph as one region.
fn whole(graph: &Graph) -> Region {
    let is_own = |value: &Value| {
        let op = graph.op(*value);
        !op.has(Trait::Leaf) && !op.has(Trait::Constant)
    };
    let region: Vec<Value> = graph.order().into_iter().filter(is_own).collect();
    region::region(graph, &region, |_| 0.25).0
}
