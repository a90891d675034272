//! Which values of the graph have to be computed, and who uses them.

use skipc_ir::text::Numbering;
use skipc_ir::{Graph, Op, Value};

/// The values that results depend on. What is dead is not planned.
pub(crate) struct Uses {
    /// Needed values, operands before users.
    pub(crate) order: Vec<Value>,
    /// Place in the text form of every value, by [`Value::index`]: later than that of its operands.
    numbers: Vec<usize>,
    needed: Vec<bool>,
    is_result: Vec<bool>,
}

impl Uses {
    /// Finds what the results need.
    pub(crate) fn new(graph: &Graph, numbering: &Numbering) -> Uses {
        let mut needed = vec![false; graph.bound()];
        let mut is_result = vec![false; graph.bound()];
        let mut numbers = vec![0; graph.bound()];
        for (_, value) in graph.results() {
            needed[value.index()] = true;
            is_result[value.index()] = true;
        }
        for value in numbering.values().iter().rev() {
            numbers[value.index()] = numbering.number(*value);
            // `fill_mask` takes only the number of rows from its operand, which nothing has to compute.
            if needed[value.index()] && !matches!(graph.op(*value), Op::FillMask { .. }) {
                for operand in graph.operands(*value) {
                    needed[operand.index()] = true;
                }
            }
        }
        let order = numbering.values().iter().copied().filter(|value| needed[value.index()]).collect();
        Uses { order, numbers, needed, is_result }
    }

    /// Whether a result depends on it.
    pub(crate) fn needs(&self, value: Value) -> bool {
        self.needed[value.index()]
    }

    /// Whether it is a result.
    pub(crate) fn is_result(&self, value: Value) -> bool {
        self.is_result[value.index()]
    }

    /// Its place in the text form.
    pub(crate) fn number(&self, value: Value) -> usize {
        self.numbers[value.index()]
    }

    /// The needed values that use it.
    pub(crate) fn users(&self, graph: &Graph, value: Value) -> Vec<Value> {
        let mut users = graph.users(value);
        users.retain(|user| self.needs(*user) && !matches!(graph.op(*user), Op::FillMask { .. }));
        users
    }
}
