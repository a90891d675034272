//! Printing.

use std::fmt::{self, Write};

use crate::graph::{Graph, Origin, Value};
use crate::ops::Attrs;
use crate::port::RoleText;

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print(self))
    }
}

/// The graph in text form.
pub fn print(graph: &Graph) -> String {
    let numbering = Numbering::new(graph);
    let mut text = format!("graph {:?} {{\n", graph.name());
    for value in &numbering.values {
        // Writing to a String cannot fail.
        let _ = write!(text, "  {}", numbering.node(graph, *value));
        let origin = graph.origin(*value);
        text.push_str(&if origin.is_empty() { "\n".to_owned() } else { format!(" @{origin:?}\n") });
    }
    for (idx, (role, value)) in graph.results().enumerate() {
        let lead = if idx == 0 { "  return " } else { ", " };
        let _ = write!(text, "{lead}{} = %{}", RoleText(role), numbering.number(value));
    }
    text.push_str(if graph.n_results() > 0 { "\n}\n" } else { "}\n" });
    text
}

/// The numbers that a graph's values have in text.
#[derive(Clone, Debug)]
pub struct Numbering {
    /// All values; first those of [`Graph::order`], then those on cycles, in order of their indices.
    values: Vec<Value>,
    /// Number of each value, by [`Value::index`].
    numbers: Vec<usize>,
}

impl Numbering {
    /// Numbers all values of the graph.
    pub fn new(graph: &Graph) -> Numbering {
        let mut values = graph.order();
        let mut numbers = vec![usize::MAX; graph.bound()];
        for (number, value) in values.iter().enumerate() {
            numbers[value.index()] = number;
        }
        for value in graph.values() {
            if numbers[value.index()] == usize::MAX {
                numbers[value.index()] = values.len();
                values.push(value);
            }
        }
        Numbering { values, numbers }
    }

    /// All values, in the order of their numbers.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// The number that stands after `%`.
    pub fn number(&self, value: Value) -> usize {
        self.numbers[value.index()]
    }

    /// The node as it stands on its line, without origin.
    pub fn node(&self, graph: &Graph, value: Value) -> String {
        let op = graph.op(value);
        let mut line = format!("%{} = {}", self.number(value), op.name());
        for (idx, operand) in graph.operands(value).into_iter().enumerate() {
            let lead = if idx == 0 { " " } else { ", " };
            let _ = write!(line, "{lead}%{}", self.number(operand));
        }
        let _ = write!(line, "{} : {}", Attrs(op), graph.ty(value));
        line
    }

    /// The node with its origin, for an error.
    pub fn place(&self, graph: &Graph, value: Value) -> NodeLocation {
        NodeLocation { node: self.node(graph, value), origin: graph.origin(value).clone() }
    }
}

/// Which node an error is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeLocation {
    /// The node as printed.
    pub node: String,
    /// Where it comes from in the model; empty if nowhere.
    pub origin: Origin,
}

impl fmt::Display for NodeLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.node)?;
        if self.origin.is_empty() { Ok(()) } else { write!(f, "  ({})", self.origin) }
    }
}
