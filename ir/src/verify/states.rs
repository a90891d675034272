//! That states are linear: each comes in once, every value of it is used up once, and the last one goes out under its
//! name.

use std::collections::BTreeMap;

use super::{Ctx, VerifyError};
use crate::graph::Value;
use crate::ops::{Op, Trait};
use crate::port::Role;

impl Ctx<'_> {
    /// The checks of states; nothing in a graph without one.
    pub(super) fn states(&mut self) {
        self.inputs_of_states();
        self.results_of_states();
        for value in self.numbering.values().to_vec() {
            if self.graph.ty(value).is_state() {
                self.state(value);
            }
        }
    }

    fn inputs_of_states(&mut self) {
        let mut firsts: BTreeMap<&Role, Value> = BTreeMap::new();
        let graph = self.graph;
        for value in self.numbering.values() {
            let Op::Input { port } = graph.op(*value) else { continue };
            if !graph.ty(*value).is_state() {
                continue;
            }
            let first = *firsts.entry(&port.role).or_insert(*value);
            if first != *value {
                let (place, first) = (self.place(*value), self.place(first));
                self.errors.push(VerifyError::StateTwice { place, first: first.to_string() });
            }
        }
    }

    fn results_of_states(&mut self) {
        let graph = self.graph;
        for (role, value) in graph.results() {
            let is_state_role = role.state_name().is_some();
            if is_state_role != graph.ty(value).is_state() {
                self.errors.push(VerifyError::StateType { role: role.clone(), place: self.place(value) });
            } else if is_state_role && self.state_of(value) != Some(role) {
                self.errors.push(VerifyError::StateName {
                    role: role.clone(),
                    place: self.place(value),
                    of: self.state_of(value).cloned(),
                });
            }
        }
    }

    /// The state that a value is one of; `None` on a cycle, which is another fault.
    fn state_of(&self, value: Value) -> Option<&Role> {
        let mut value = value;
        for _ in 0..self.graph.len() {
            if let Op::Input { port } = self.graph.op(value) {
                return Some(&port.role);
            }
            value = *self.graph.operands(value).first()?;
        }
        None
    }

    /// Each value of a state is used up once, after all that look at it.
    fn state(&mut self, value: Value) {
        let graph = self.graph;
        let updates = |user: &Value| {
            graph.op(*user).has(Trait::UpdatesState) && graph.operands(*user).first() == Some(&value)
        };
        let (updaters, readers): (Vec<Value>, Vec<Value>) = graph.users(value).into_iter().partition(updates);
        let mut uses: Vec<String> = updaters.iter().map(|user| self.place(*user).to_string()).collect();
        uses.extend(graph.roles(value).map(|role| format!("`{role}` of the results")));
        let place = self.place(value);
        match uses.as_slice() {
            [] => self.errors.push(VerifyError::StateLost { place }),
            [_] => {}
            [first, ..] => self.errors.push(VerifyError::StateTwice { place, first: first.clone() }),
        }
        for updater in updaters {
            let late: Vec<Value> =
                readers.iter().copied().filter(|reader| self.depends(*reader, updater)).collect();
            for reader in late {
                let (place, reader) = (self.place(updater), self.place(reader));
                self.errors.push(VerifyError::StateOrder { place, reader });
            }
        }
    }

    /// Whether `value` depends on `on`.
    fn depends(&self, value: Value, on: Value) -> bool {
        let mut seen = vec![false; self.graph.bound()];
        let mut waiting = vec![value];
        while let Some(value) = waiting.pop() {
            if value == on {
                return true;
            }
            if !std::mem::replace(&mut seen[value.index()], true) {
                waiting.extend(self.graph.operands(value));
            }
        }
        false
    }
}
