//! The gate before the plan, as a pass.
//!
//! Before: a verified graph. After: the same graph, and it is legal. What legal means stands at the head of
//! [`skipc_ir::legal`], whose [`legalize`] alone makes a [`skipc_ir::Legal`]: the type lives there because the plan takes it
//! and knows no passes.

use skipc_ir::legal::LegalError;
use skipc_ir::{Graph, legalize};

pub(crate) fn check(graph: &Graph) -> Result<(), Vec<LegalError>> {
    legalize(graph.clone()).map(|_| ())
}
