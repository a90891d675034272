//! From an instruction of the text to one that the machine can run.
//!
//! The forms that the machine knows are rows of tables, one table a family (`op/`). A row's syntax expands to full names;
//! an instruction whose name is in no row is an error, never skipped.

use std::collections::BTreeMap;

use super::{Run, is_special};
use crate::registers::{Slot, Source32, Source64, SourcePredicate};
use crate::syntax::{Instruction, Kernel, Operand, RegisterClass};

/// What an instruction is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Integer arithmetic, logic, comparison, movement.
    Integer,
    /// Floating point arithmetic.
    Float,
    /// Approximate functions (`ex2`, `rcp.approx`, …).
    Special,
    /// Loads and stores.
    Memory,
    /// Atomics and reductions.
    Atomic,
    /// Copies that run beside the thread.
    AsyncCopy,
    /// `mma.sync`, `wgmma.mma_async`.
    Matrix,
    /// Votes, shuffles.
    Warp,
    /// Barriers, fences, waits.
    Sync,
    /// Branches and ends.
    Flow,
}

impl Kind {
    /// All kinds, in their order.
    pub const ALL: [Self; 10] = [
        Self::Integer,
        Self::Float,
        Self::Special,
        Self::Memory,
        Self::Atomic,
        Self::AsyncCopy,
        Self::Matrix,
        Self::Warp,
        Self::Sync,
        Self::Flow,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Float => "float",
            Self::Special => "approximate",
            Self::Memory => "memory",
            Self::Atomic => "atomic",
            Self::AsyncCopy => "asynchronous copy",
            Self::Matrix => "matrix",
            Self::Warp => "warp",
            Self::Sync => "synchronisation",
            Self::Flow => "flow",
        }
    }
}

/// A family of instructions that the machine knows.
pub struct Form {
    /// Names: alternatives in braces, such as `add.{s32,u32}`; an empty alternative leaves its dot out.
    pub syntax: &'static str,
    /// Section of the PTX ISA 9.0, such as `9.7.1.1`.
    pub section: &'static str,
    /// What it is counted as.
    pub kind: Kind,
    /// Makes it runnable.
    pub decode: fn(&mut Decoder<'_>, &Instruction) -> Result<Run, DecodeError>,
}

/// Why an instruction cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No row has this name.
    #[error("the machine does not know `{opcode}`")]
    UnknownForm {
        /// Name with modifiers.
        opcode: String,
    },
    /// The form is known, but not with such operands.
    #[error("`{opcode}`: {what}")]
    Operands {
        /// Name with modifiers.
        opcode: String,
        /// What is wrong.
        what: String,
    },
}

/// Gives operands their places in the register files.
pub struct Decoder<'k> {
    kernel: &'k Kernel,
    /// Place of each register of the kernel.
    slots: Vec<Slot>,
    n_words: u32,
    n_doubles: u32,
    n_predicates: u32,
    /// Special registers that the kernel reads, each in a place of its own, filled at the start.
    pub(crate) specials: Vec<(String, Slot)>,
    /// Addresses of variables and parameters.
    symbols: &'k dyn Fn(&str) -> Option<u64>,
    /// Name of the instruction that is being decoded.
    opcode: String,
}

impl<'k> Decoder<'k> {
    /// A decoder for a kernel; `symbols` tells the address of a variable or parameter.
    pub(crate) fn new(kernel: &'k Kernel, symbols: &'k dyn Fn(&str) -> Option<u64>) -> Self {
        let mut counts = [0_u32; 3];
        let mut next = |file: usize| {
            counts[file] += 1;
            counts[file] - 1
        };
        let slot = |register: &crate::syntax::Register| match register.class {
            RegisterClass::B16 | RegisterClass::B32 => Slot::Word(next(0)),
            RegisterClass::B64 => Slot::Double(next(1)),
            RegisterClass::Predicate => Slot::Predicate(next(2)),
        };
        let slots = kernel.registers.iter().map(slot).collect();
        let [n_words, n_doubles, n_predicates] = counts;
        let (specials, opcode) = (Vec::new(), String::new());
        Self { kernel, slots, n_words, n_doubles, n_predicates, specials, symbols, opcode }
    }

    /// Numbers of words, doubles and predicates.
    pub(crate) fn sizes(&self) -> (usize, usize, usize) {
        (self.n_words as usize, self.n_doubles as usize, self.n_predicates as usize)
    }

    /// The name of a register, as reports show it.
    pub(crate) fn names(&self) -> BTreeMap<Slot, String> {
        let registers = self.slots.iter().zip(&self.kernel.registers);
        let specials = self.specials.iter().map(|(name, slot)| (*slot, name.clone()));
        registers.map(|(slot, register)| (*slot, register.name.clone())).chain(specials).collect()
    }

    pub(crate) fn decode(
        &mut self,
        table: &Table,
        instruction: &Instruction,
    ) -> Result<(&'static Form, Run), DecodeError> {
        self.opcode.clone_from(&instruction.opcode);
        let form = table.find(&instruction.opcode)?;
        Ok((form, (form.decode)(self, instruction)?))
    }

    /// An error about the operands of the current instruction.
    pub fn error(&self, what: impl Into<String>) -> DecodeError {
        DecodeError::Operands { opcode: self.opcode.clone(), what: what.into() }
    }

    /// Fails unless the instruction has as many operands.
    ///
    /// # Errors
    /// [`DecodeError::Operands`].
    pub fn expect_operands(&self, instruction: &Instruction, n: usize) -> Result<(), DecodeError> {
        let found = instruction.operands.len();
        if found == n { Ok(()) } else { Err(self.error(format!("{found} operands, {n} wanted"))) }
    }

    /// The class of a register; `None` for other operands.
    pub fn class(&self, operand: &Operand) -> Option<RegisterClass> {
        match operand {
            Operand::Register(id) => Some(self.kernel.registers[id.0 as usize].class),
            _ => None,
        }
    }

    /// Fails if the operand is a register of another class.
    ///
    /// # Errors
    /// [`DecodeError::Operands`].
    pub fn expect_class(&self, operand: &Operand, class: RegisterClass) -> Result<(), DecodeError> {
        match self.class(operand) {
            Some(found) if found != class => {
                Err(self.error(format!("a register of class {found:?}, {class:?} is wanted")))
            }
            _ => Ok(()),
        }
    }

    /// The place of a register of any class.
    ///
    /// # Errors
    /// If it is no register.
    pub fn slot(&self, operand: &Operand) -> Result<Slot, DecodeError> {
        match operand {
            Operand::Register(id) => Ok(self.slots[id.0 as usize]),
            other => Err(self.error(format!("{other:?} is not a register"))),
        }
    }

    /// A 16- or 32-bit result.
    ///
    /// # Errors
    /// If it is no such register.
    pub fn to32(&self, operand: &Operand) -> Result<u32, DecodeError> {
        match self.slot(operand)? {
            Slot::Word(slot) => Ok(slot),
            _ => Err(self.error("a register of 16 or 32 bits is wanted")),
        }
    }

    /// A 64-bit result.
    ///
    /// # Errors
    /// If it is no such register.
    pub fn to64(&self, operand: &Operand) -> Result<u32, DecodeError> {
        match self.slot(operand)? {
            Slot::Double(slot) => Ok(slot),
            _ => Err(self.error("a register of 64 bits is wanted")),
        }
    }

    /// A predicate result.
    ///
    /// # Errors
    /// If it is no such register.
    pub fn to_predicate(&self, operand: &Operand) -> Result<u32, DecodeError> {
        match self.slot(operand)? {
            Slot::Predicate(slot) => Ok(slot),
            _ => Err(self.error("a predicate is wanted")),
        }
    }

    /// A 32-bit operand: register, constant, special register, or the low half of an address.
    ///
    /// # Errors
    /// If it is none.
    pub fn source32(&mut self, operand: &Operand) -> Result<Source32, DecodeError> {
        match operand {
            Operand::Register(_) => self.to32(operand).map(Source32::Register),
            Operand::Integer(value) => Ok(Source32::Constant(*value as u32)),
            Operand::Float32(bits) => Ok(Source32::Constant(*bits)),
            Operand::Symbol(name) => self.symbol(name).map(|address| Source32::Constant(address as u32)),
            Operand::Special(name) => match self.special(name)? {
                Slot::Word(slot) => Ok(Source32::Register(slot)),
                _ => Err(self.error(format!("{name} has 64 bits"))),
            },
            other => Err(self.error(format!("{other:?} is not an operand of 32 bits"))),
        }
    }

    /// A 64-bit operand.
    ///
    /// # Errors
    /// If it is none.
    pub fn source64(&mut self, operand: &Operand) -> Result<Source64, DecodeError> {
        match operand {
            Operand::Register(_) => self.to64(operand).map(Source64::Register),
            Operand::Integer(value) | Operand::Float64(value) => Ok(Source64::Constant(*value)),
            Operand::Symbol(name) => self.symbol(name).map(Source64::Constant),
            Operand::Special(name) => match self.special(name)? {
                Slot::Double(slot) => Ok(Source64::Register(slot)),
                _ => Err(self.error(format!("{name} has 32 bits"))),
            },
            other => Err(self.error(format!("{other:?} is not an operand of 64 bits"))),
        }
    }

    /// A predicate operand.
    ///
    /// # Errors
    /// If it is none.
    pub fn source_predicate(&self, operand: &Operand) -> Result<SourcePredicate, DecodeError> {
        match operand {
            Operand::Register(_) => Ok(SourcePredicate::Register(self.to_predicate(operand)?, false)),
            Operand::Not(id) => {
                let slot = self.to_predicate(&Operand::Register(*id))?;
                Ok(SourcePredicate::Register(slot, true))
            }
            Operand::Integer(value) => Ok(SourcePredicate::Constant(*value != 0)),
            other => Err(self.error(format!("{other:?} is not a predicate"))),
        }
    }

    /// An integer constant.
    ///
    /// # Errors
    /// If it is none.
    pub fn constant(&self, operand: &Operand) -> Result<u64, DecodeError> {
        match operand {
            Operand::Integer(value) => Ok(*value),
            other => Err(self.error(format!("{other:?} is not an integer constant"))),
        }
    }

    /// The registers of `{…}`, or of a single one.
    ///
    /// # Errors
    /// If one is no register of 16 or 32 bits.
    pub fn list32(&mut self, operand: &Operand) -> Result<Vec<Source32>, DecodeError> {
        match operand {
            Operand::List(items) => items.iter().map(|item| self.source32(item)).collect(),
            single => Ok(vec![self.source32(single)?]),
        }
    }

    /// The address of a variable or parameter.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn symbol(&self, name: &str) -> Result<u64, DecodeError> {
        (self.symbols)(name).ok_or_else(|| self.error(format!("no variable or parameter `{name}`")))
    }

    /// A place for a special register (PTX ISA section 10), which the launch fills.
    fn special(&mut self, name: &str) -> Result<Slot, DecodeError> {
        if let Some((_, slot)) = self.specials.iter().find(|(known, _)| known == name) {
            return Ok(*slot);
        }
        if !is_special(name) {
            return Err(self.error(format!("the machine does not know the special register {name}")));
        }
        let slot = Slot::Word(self.n_words);
        self.n_words += 1;
        self.specials.push((name.to_owned(), slot));
        Ok(slot)
    }
}

/// All names that the machine knows.
pub(crate) struct Table {
    rows: BTreeMap<String, &'static Form>,
}

impl Table {
    /// Expands the rows of all families. A name that two rows have is a fault of the tables, which a test finds.
    pub(crate) fn new(forms: impl Iterator<Item = &'static Form>) -> Self {
        let rows = forms.flat_map(|form| expand(form.syntax).into_iter().map(move |name| (name, form)));
        Self { rows: rows.collect() }
    }

    fn find(&self, opcode: &str) -> Result<&'static Form, DecodeError> {
        self.rows.get(opcode).copied().ok_or_else(|| DecodeError::UnknownForm { opcode: opcode.to_owned() })
    }
}

/// The names that a form's syntax stands for: `ld.{volatile,}.b32` is `ld.volatile.b32` and `ld.b32`.
pub fn expand(syntax: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    for part in split(syntax) {
        let choices: Vec<&str> = match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some(inner) => inner.split(',').map(str::trim).collect(),
            None => vec![part],
        };
        let join = |name: &String, choice: &&str| match (name.is_empty(), choice.is_empty()) {
            (_, true) => name.clone(),
            (true, false) => (*choice).to_owned(),
            (false, false) => format!("{name}.{choice}"),
        };
        names = names.iter().flat_map(|name| choices.iter().map(move |choice| join(name, choice))).collect();
    }
    names
}

/// Parts between dots outside of braces.
fn split(syntax: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in syntax.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            '.' if depth == 0 => {
                parts.push(&syntax[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&syntax[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternatives_expand_and_an_empty_one_leaves_its_dot_out() {
        assert_eq!(expand("ret"), ["ret"]);
        assert_eq!(expand("add.{s32,u32}"), ["add.s32", "add.u32"]);
        assert_eq!(
            expand("ld.{volatile,}.{b8,b32}"),
            ["ld.volatile.b8", "ld.volatile.b32", "ld.b8", "ld.b32"]
        );
        assert_eq!(expand("bra.{uni,}"), ["bra.uni", "bra"]);
    }

    #[test]
    fn kinds_stand_at_their_own_place() {
        assert!(Kind::ALL.into_iter().enumerate().all(|(place, kind)| kind as usize == place));
    }
}
