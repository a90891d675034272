//! Simpler computations of the same value.
//!
//! Before: a verified graph. After: none of these patterns is left, where `%s` is one and the same set throughout:
//!
//! | pattern | becomes |
//! | --- | --- |
//! | `scatter %x, (gather %x, %s), %s` | `%x` |
//! | `gather (scatter %x, %y, %s), %s` | `%y` |
//! | `scatter (scatter %x, %y, %s), %z, %s` | `scatter %x, %z, %s` |
//! | `slice %x` of all columns | `%x` |
//! | `slice (slice %x)` | one `slice %x` |
//! | `relu (relu %x)` | `relu %x` |
//!
//! Leaves alone: everything that rounds. `one_minus (one_minus %x)` is not `%x` in floating point, nor are sums that
//! change their order.

use skipc_ir::{Facts, Graph, Op, Unary, Value};
use smallvec::SmallVec;

use crate::{Operand, Patch};

pub(crate) fn edits(graph: &Graph, facts: &Facts) -> Vec<Patch> {
    facts.order().iter().filter_map(|value| edit(graph, *value)).collect()
}

fn edit(graph: &Graph, value: Value) -> Option<Patch> {
    let (op, operands) = (graph.op(value), graph.operands(value));
    if let (Op::Scatter {}, &[base, rows, set]) = (op, operands.as_slice()) {
        return scatter(graph, value, base, rows, set);
    }
    if let (Op::Gather {}, &[x, set]) = (op, operands.as_slice()) {
        let inner = as_scatter(graph, x)?;
        let &[_, rows, of] = inner.as_slice() else { return None };
        return (of == set).then(|| Patch::new("gather of scatter").replace(value, rows));
    }
    if let (Op::Slice { start, len }, &[x]) = (op, operands.as_slice()) {
        return slice(graph, value, x, *start, *len);
    }
    if let (Op::Unary(Unary::Relu), &[x]) = (op, operands.as_slice()) {
        let is_twice = matches!(graph.op(x), Op::Unary(Unary::Relu));
        return is_twice.then(|| Patch::new("relu of relu").replace(value, x));
    }
    None
}

fn scatter(graph: &Graph, value: Value, base: Value, rows: Value, set: Value) -> Option<Patch> {
    if matches!(graph.op(rows), Op::Gather {}) && graph.operands(rows).as_slice() == [base, set] {
        return Some(Patch::new("scatter of gather").replace(value, base));
    }
    match as_scatter(graph, base)?.as_slice() {
        &[inner, _, of] if of == set => {
            let mut patch = Patch::new("scatter over scatter");
            let operands = [inner, rows, set].map(Operand::Old);
            let new = patch.add(Op::Scatter {}, &operands, graph.origin(value));
            Some(patch.replace(value, new))
        }
        _ => None,
    }
}

fn slice(graph: &Graph, value: Value, x: Value, start: u32, len: u32) -> Option<Patch> {
    if len == graph.ty(x).cols() {
        return Some(Patch::new("slice of all").replace(value, x));
    }
    let (Op::Slice { start: inner_start, .. }, &[inner]) = (graph.op(x), graph.operands(x).as_slice()) else {
        return None;
    };
    let mut patch = Patch::new("slice of slice");
    // The sum stays within the columns of `inner`, which fit.
    let op = Op::Slice { start: start + inner_start, len };
    let new = patch.add(op, &[inner.into()], graph.origin(value));
    Some(patch.replace(value, new))
}

/// Base, rows and set of a scatter.
fn as_scatter(graph: &Graph, value: Value) -> Option<SmallVec<[Value; 4]>> {
    matches!(graph.op(value), Op::Scatter {}).then(|| graph.operands(value))
}
