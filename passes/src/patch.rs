//! Edits as values.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;
use skipc_ir::{Graph, Op, Origin, SetSym, Type, TypeError, Value};

/// One edit of a graph: new nodes, values that others replace, token sets that get another symbol, unused nodes that
/// go. It refers to the values of the graph that the pass saw, and is of use for that graph only.
#[derive(Clone, Debug)]
pub struct Patch {
    why: &'static str,
    nodes: Vec<NewNode>,
    renames: Vec<(SetSym, SetSym)>,
    replacements: Vec<(Value, Operand)>,
    removals: Vec<Value>,
}

/// A value of the graph, or of a node that the same patch adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// Of the graph.
    Old(Value),
    /// Of the patch: the index of the node in it.
    New(usize),
}

impl From<Value> for Operand {
    fn from(value: Value) -> Operand {
        Operand::Old(value)
    }
}

#[derive(Clone, Debug)]
struct NewNode {
    op: Op,
    operands: Vec<Operand>,
    origin: Origin,
}

/// Why an edit cannot be made: always a fault of the pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// A new node does not fit its operands.
    #[error("{why}: {error}")]
    Node {
        /// What the edit is for.
        why: &'static str,
        /// What does not fit.
        error: TypeError,
    },
    /// A value would be replaced by one of another type.
    #[error("{why}: a value of type {old} cannot be replaced by one of type {new}")]
    Replacement {
        /// What the edit is for.
        why: &'static str,
        /// Type of the old value.
        old: Type,
        /// Type of the new one.
        new: Type,
    },
    /// A node that is to go is used.
    #[error("{why}: the value of `{op}` is still used")]
    Used {
        /// What the edit is for.
        why: &'static str,
        /// The op of the node.
        op: &'static str,
    },
    /// The patch names a node of its own that it does not have.
    #[error("{why}: the patch has no new node {idx}")]
    NoNode {
        /// What the edit is for.
        why: &'static str,
        /// The index.
        idx: usize,
    },
}

impl Patch {
    /// An edit that does nothing yet. `why` names the kind of edit in statistics and errors.
    pub fn new(why: &'static str) -> Patch {
        Patch { why, nodes: Vec::new(), renames: Vec::new(), replacements: Vec::new(), removals: Vec::new() }
    }

    /// What the edit is for.
    pub fn why(&self) -> &'static str {
        self.why
    }

    /// Adds a node and returns its value, for use within this patch.
    pub fn add(&mut self, op: Op, operands: &[Operand], origin: &Origin) -> Operand {
        self.nodes.push(NewNode { op, operands: operands.to_vec(), origin: origin.clone() });
        Operand::New(self.nodes.len() - 1)
    }

    /// Lets all users and outputs of `old` use `new` instead; nodes that nothing uses then will go. `new` must have the
    /// same type (after the renames of the patch) and must not depend on `old`.
    #[must_use]
    pub fn replace(mut self, old: Value, new: impl Into<Operand>) -> Patch {
        self.replacements.push((old, new.into()));
        self
    }

    /// Gives a token set the symbol of another; the patch must also replace the one's route by the other's.
    #[must_use]
    pub fn rename(mut self, from: SetSym, to: SetSym) -> Patch {
        self.renames.push((from, to));
        self
    }

    /// Removes a node that nothing uses.
    #[must_use]
    pub fn remove(mut self, value: Value) -> Patch {
        self.removals.push(value);
        self
    }
}

/// What edits did to values.
#[derive(Debug, Default)]
pub struct Applied {
    /// The new values of each patch.
    added: Vec<Vec<Value>>,
    replaced: IndexMap<Value, Value, FxBuildHasher>,
}

impl Applied {
    /// What stands for an operand of a patch now; it may have gone since.
    pub fn value(&self, patch: usize, operand: Operand) -> Option<Value> {
        match operand {
            Operand::Old(value) => Some(self.now(value)),
            Operand::New(idx) => self.added.get(patch)?.get(idx).map(|value| self.now(*value)),
        }
    }

    /// What stands for a value of the graph before the edits now; it may have gone since.
    pub fn now(&self, value: Value) -> Value {
        let mut now = value;
        while let Some(next) = self.replaced.get(&now) {
            now = *next;
        }
        now
    }
}

/// Makes edits that one pass returned for this graph, in order. An edit may refer to a value that an earlier one
/// replaced: it gets the replacement.
///
/// # Errors
/// If an edit cannot be made; the graph is of no use then.
pub fn apply(graph: &mut Graph, patches: &[Patch]) -> Result<Applied, PatchError> {
    let renames: BTreeMap<SetSym, SetSym> =
        patches.iter().flat_map(|patch| patch.renames.iter().copied()).collect();
    if !renames.is_empty() {
        graph.rename_sets(&renames);
    }
    let mut ctx = Ctx { graph, replaced: IndexMap::default() };
    let added = patches.iter().map(|patch| ctx.build(patch)).collect::<Result<_, _>>()?;
    // Nodes go last: petgraph gives their numbers to new nodes, and patches hold numbers.
    for patch in patches {
        ctx.remove(patch)?;
    }
    ctx.sweep();
    Ok(Applied { added, replaced: ctx.replaced })
}

struct Ctx<'a> {
    graph: &'a mut Graph,
    replaced: IndexMap<Value, Value, FxBuildHasher>,
}

impl Ctx<'_> {
    /// What stands for the value now.
    fn now(&mut self, value: Value) -> Value {
        let mut now = value;
        while let Some(next) = self.replaced.get(&now) {
            now = *next;
        }
        // Long chains of replacements are walked once.
        let mut walked = value;
        while let Some(next) = self.replaced.get_mut(&walked) {
            walked = std::mem::replace(next, now);
        }
        now
    }

    /// Adds the new nodes of a patch, and returns their values.
    fn build(&mut self, patch: &Patch) -> Result<Vec<Value>, PatchError> {
        let why = patch.why;
        let mut added: Vec<Value> = Vec::with_capacity(patch.nodes.len());
        for node in &patch.nodes {
            let operands: Vec<Value> = node
                .operands
                .iter()
                .map(|operand| self.resolve(why, *operand, &added))
                .collect::<Result<_, _>>()?;
            let value = self.graph.add(node.op.clone(), &operands, &node.origin);
            added.push(value.map_err(|error| PatchError::Node { why, error })?);
        }
        for (old, new) in &patch.replacements {
            let (old, new) = (self.now(*old), self.resolve(why, *new, &added)?);
            if old == new {
                continue;
            }
            self.graph.replace(old, new).map_err(|_| PatchError::Replacement {
                why,
                old: self.graph.ty(old).clone(),
                new: self.graph.ty(new).clone(),
            })?;
            self.replaced.insert(old, new);
        }
        Ok(added)
    }

    fn resolve(&mut self, why: &'static str, operand: Operand, added: &[Value]) -> Result<Value, PatchError> {
        match operand {
            Operand::Old(value) => Ok(self.now(value)),
            Operand::New(idx) => added.get(idx).copied().ok_or(PatchError::NoNode { why, idx }),
        }
    }

    fn remove(&mut self, patch: &Patch) -> Result<(), PatchError> {
        for value in &patch.removals {
            if !self.graph.remove_unused(*value) {
                let op = self.graph.op(*value).name();
                return Err(PatchError::Used { why: patch.why, op });
            }
        }
        Ok(())
    }

    /// Removes replaced nodes, and what only they used.
    fn sweep(&mut self) {
        let mut waiting: Vec<Value> = self.replaced.keys().copied().collect();
        while let Some(value) = waiting.pop() {
            if self.graph.contains(value) && !self.graph.is_used(value) {
                let operands = self.graph.operands(value);
                self.graph.remove_unused(value);
                waiting.extend(operands);
            }
        }
    }
}
