//! Which values of the graph have to be computed, and who uses them.

use skipc_ir::text::Numbering;
use skipc_ir::{Graph, Trait, Value};

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
            // How many rows a value has is known without computing it.
            if needed[value.index()] && !graph.op(*value).has(Trait::CountsRows) {
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
        users.retain(|user| self.needs(*user) && !graph.op(*user).has(Trait::CountsRows));
        users
    }
}
