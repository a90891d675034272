//! Value numbering: which nodes compute the same.

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;
use skipc_ir::{Facts, Graph, Op, Value};
use smallvec::SmallVec;

/// How routes compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Routes {
    /// Each is its own: its set is another type.
    Apart,
    /// By what they decide: scores and attributes, not the symbol.
    ByDecision,
}

/// For each value that computes the same as an earlier one: the two, earliest first, in [`Facts::order`].
///
/// Two nodes compute the same if their ops (with all attributes) and their operands' classes are equal. No op is
/// taken to be commutative.
pub(crate) fn repeated(graph: &Graph, facts: &Facts, routes: Routes) -> Vec<(Value, Value)> {
    let mut class: Vec<Option<Value>> = vec![None; graph.bound()];
    let mut seen: IndexMap<(Op, SmallVec<[Value; 4]>), Value, FxBuildHasher> = IndexMap::default();
    let mut repeated = Vec::new();
    for value in facts.order() {
        let op = match routes {
            Routes::Apart => graph.op(*value).clone(),
            Routes::ByDecision => graph.op(*value).without_set(),
        };
        let operands = graph.operands(*value);
        let operands =
            operands.into_iter().map(|operand| class[operand.index()].unwrap_or(operand)).collect();
        let first = *seen.entry((op, operands)).or_insert(*value);
        class[value.index()] = Some(first);
        if first != *value {
            repeated.push((first, *value));
        }
    }
    repeated
}
