//! What names stand for: braces open a scope, and an inner declaration hides an outer one.
//!
//! The outermost scope is the module's. A jump may name a label that comes later, so jumps wait until their scope
//! closes, and go outward if it has no such label.

use std::collections::{BTreeMap, BTreeSet};

use super::{RegisterClass, RegisterId, SyntaxError};

/// Scopes inside each other, the module's and the kernel's included. Inline assembly of LLVM nests two deep.
pub(super) const DEPTH_LIMIT: usize = 64;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A register.
    Register(RegisterId, RegisterClass),
    /// A variable or a parameter.
    Symbol,
    /// The instruction with this index.
    Label(usize),
}

/// A branch to a label.
#[derive(Debug, Clone, Copy)]
pub(super) struct Jump<'t> {
    /// Index of the branch.
    pub(super) from: usize,
    /// The label.
    pub(super) to: &'t str,
    /// Line of the branch.
    pub(super) line: u32,
}

struct Scope<'t> {
    names: BTreeMap<String, Meaning>,
    jumps: Vec<Jump<'t>>,
    /// Line of its `{`.
    line: u32,
}

/// The open scopes, innermost last.
pub(super) struct Scopes<'t> {
    open: Vec<Scope<'t>>,
    /// Variables and parameters of the current kernel. The machine finds them by name alone, so they may not hide each
    /// other.
    symbols: BTreeSet<String>,
}

impl<'t> Scopes<'t> {
    /// The scope of a module.
    pub(super) fn new() -> Self {
        let module = Scope { names: BTreeMap::new(), jumps: Vec::new(), line: 1 };
        Self { open: vec![module], symbols: BTreeSet::new() }
    }

    /// Number of open scopes: 1 outside of kernels.
    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    /// Line of the innermost `{`.
    pub(super) fn opened_at(&self) -> u32 {
        self.open.last().map_or(1, |scope| scope.line)
    }

    /// Opens a scope; a kernel's if it is the first in the module's.
    pub(super) fn open(&mut self, line: u32) -> Result<(), SyntaxError> {
        if self.open.len() == DEPTH_LIMIT {
            let what = format!("blocks are nested deeper than {DEPTH_LIMIT}; take some of the braces away");
            return Err(SyntaxError { line, what });
        }
        if self.open.len() == 1 {
            self.symbols.clear();
        }
        self.open.push(Scope { names: BTreeMap::new(), jumps: Vec::new(), line });
        Ok(())
    }

    /// Closes the innermost scope of a kernel and gives the targets that its end has settled, by index of the branch.
    pub(super) fn close(&mut self) -> Result<Vec<(usize, usize)>, SyntaxError> {
        let Some(scope) = self.open.pop() else { return Ok(Vec::new()) };
        let (mut settled, mut outward) = (Vec::new(), Vec::new());
        for jump in scope.jumps {
            match scope.names.get(jump.to) {
                Some(Meaning::Label(target)) => settled.push((jump.from, *target)),
                _ => outward.push(jump),
            }
        }
        let outermost = self.open.len() <= 1;
        match (outward.first(), self.open.last_mut()) {
            (Some(jump), _) if outermost => {
                let what = format!("no label `{0}`: put `{0}:` into this block or one around it", jump.to);
                Err(SyntaxError { line: jump.line, what })
            }
            (_, Some(outer)) => {
                outer.jumps.append(&mut outward);
                Ok(settled)
            }
            (_, None) => Ok(settled),
        }
    }

    /// What a name stands for here.
    pub(super) fn find(&self, name: &str) -> Option<Meaning> {
        self.open.iter().rev().find_map(|scope| scope.names.get(name).copied())
    }

    /// Declares a register or a label in the innermost scope.
    pub(super) fn declare(&mut self, name: String, meaning: Meaning, line: u32) -> Result<(), SyntaxError> {
        let Some(scope) = self.open.last_mut() else { return Ok(()) };
        if scope.names.contains_key(&name) {
            let what = match meaning {
                Meaning::Label(_) => "label",
                _ => "name",
            };
            let what = format!("the {what} `{name}` is already taken in this block; give it another one");
            return Err(SyntaxError { line, what });
        }
        scope.names.insert(name, meaning);
        Ok(())
    }

    /// Declares a variable or a parameter in the innermost scope.
    pub(super) fn declare_symbol(&mut self, name: &str, line: u32) -> Result<(), SyntaxError> {
        let hides = self.find(name) == Some(Meaning::Symbol);
        let in_kernel = self.open.len() > 1;
        if hides || (in_kernel && !self.symbols.insert(name.to_owned())) {
            let what = format!(
                "a variable `{name}` is declared already; the machine wants another name for this one"
            );
            return Err(SyntaxError { line, what });
        }
        self.declare(name.to_owned(), Meaning::Symbol, line)
    }

    /// Notes a branch, to be settled when the scope of its label closes.
    pub(super) fn jump(&mut self, jump: Jump<'t>) {
        if let Some(scope) = self.open.last_mut() {
            scope.jumps.push(jump);
        }
    }
}
