//! Reverse mode: adds the backward pass of a number to a graph.
//!
//! It runs before the passes, on the graph that a model is lowered to: ops that passes make have no derivative.
//! The rule of each op stands in `op/vjp.rs`.

use crate::attr::F64;
use crate::elementwise::Binary;
use crate::graph::{Graph, Origin, Value};
use crate::op::TypeError;
use crate::op::vjp::{Fault, vjp};
use crate::training::Training;
use crate::ty::Dim;

/// Why a number has no gradient.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GradientError {
    /// An op between the number and what it depends on has no derivative.
    #[error("{origin}: `{op}` has no derivative, so nothing in front of it can be trained")]
    NoDerivative {
        /// The op's name.
        op: &'static str,
        /// Where it stands in the model.
        origin: String,
    },
    /// A node of the backward pass does not fit its operands: a fault of the compiler.
    #[error("{origin}: {error}")]
    Type {
        /// Where it stands in the model.
        origin: String,
        /// What does not fit.
        error: TypeError,
    },
}

/// Adds to the graph the gradient of `loss`, a number, by each of these values, which has the value's type, or is f32 if it is a
/// weight; `None` of one that it does not depend on. Gradients of a value with several uses are summed, the last use first.
///
/// # Errors
/// If an op on the way has no derivative.
pub fn gradients(graph: &mut Graph, loss: Value, by: &[Value]) -> Result<Vec<Option<Value>>, GradientError> {
    let order = graph.order();
    let mut depends = vec![false; graph.bound()];
    for value in by {
        depends[value.index()] = true;
    }
    for value in &order {
        depends[value.index()] |= graph.operands(*value).iter().any(|operand| depends[operand.index()]);
    }
    let mut found: Vec<Option<Value>> = vec![None; graph.bound()];
    if depends[loss.index()] {
        found[loss.index()] = Some(add(graph, Training::Constant { value: F64::from(1.0) }, &[], loss)?);
    }
    let wanted = |value: Value| depends[value.index()];
    for node in order.into_iter().rev().filter(|node| wanted(*node)) {
        let Some(dy) = found[node.index()] else { continue };
        let operands = graph.operands(node);
        let gradients = vjp(graph, node, dy, &wanted).map_err(|fault| match fault {
            Fault::NoDerivative => {
                let (op, origin) = (graph.op(node).name(), graph.origin(node).to_string());
                GradientError::NoDerivative { op, origin }
            }
            Fault::Type(error) => of_type(graph.origin(node), error),
        })?;
        for (operand, gradient) in operands.into_iter().zip(gradients) {
            let Some(gradient) = gradient.filter(|_| wanted(operand)) else { continue };
            let sum = match found[operand.index()] {
                Some(before) => sum(graph, before, gradient, operand)?,
                None => gradient,
            };
            found[operand.index()] = Some(sum);
        }
    }
    Ok(by.iter().map(|value| found[value.index()]).collect())
}

/// The sum of two gradients of a value.
fn sum(graph: &mut Graph, a: Value, b: Value, of: Value) -> Result<Value, GradientError> {
    if matches!(graph.ty(a).rows(), Dim::Fixed(_)) {
        let one = F64::from(1.0);
        return add(graph, Training::Combine { by_a: one, by_b: one }, &[a, b], of);
    }
    let origin = graph.origin(of).clone();
    graph.add(Binary::Add.into(), &[a, b], &origin).map_err(|error| of_type(&origin, error))
}

fn add(graph: &mut Graph, op: Training, operands: &[Value], of: Value) -> Result<Value, GradientError> {
    let origin = graph.origin(of).clone();
    graph.add(op.into(), operands, &origin).map_err(|error| of_type(&origin, error))
}

fn of_type(origin: &Origin, error: TypeError) -> GradientError {
    GradientError::Type { origin: origin.to_string(), error }
}
