//! PTX text as a tree: modules, kernels, instructions, with every name resolved.
//!
//! Registers and labels are scoped by braces, as inline assembly uses them; here a register is an index into the
//! kernel's list and a label is the index of the instruction that it stands before.

mod body;
mod cursor;
mod declare;
mod kernel;
mod lex;
mod number;
mod operand;
mod parse;
mod scope;
mod source;
mod special;

pub use parse::{SyntaxError, parse};

/// A PTX module (PTX ISA section 5).
#[derive(Debug, Clone, PartialEq)]
pub struct Module {
    /// `.version`, major and minor.
    pub version: (u32, u32),
    /// `.target`, such as `sm_90a`.
    pub target: String,
    /// Variables outside of kernels, such as dynamic shared memory.
    pub variables: Vec<Variable>,
    /// Kernels (`.entry`), in order.
    pub kernels: Vec<Kernel>,
}

/// State space of a declared variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VariableSpace {
    /// `.shared`
    Shared,
    /// `.global`, with initial bytes perhaps
    Global,
    /// `.const`, with initial bytes perhaps
    Const,
    /// `.local`
    Local,
}

/// A declared variable.
#[derive(Debug, Clone, PartialEq)]
pub struct Variable {
    /// Where it lies.
    pub space: VariableSpace,
    /// Its name.
    pub name: String,
    /// Alignment in bytes.
    pub align: u32,
    /// Size in bytes; `None` for `.extern` arrays without one (dynamic shared memory).
    pub bytes: Option<u64>,
    /// Initial bytes; if there are fewer than `bytes`, the rest is zero. Empty if nothing is said about them.
    pub init: Vec<u8>,
}

/// A parameter of a kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Alignment in bytes.
    pub align: u32,
    /// Size in bytes.
    pub bytes: u32,
}

/// Class of a register: what it can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegisterClass {
    /// `.pred`
    Predicate,
    /// `.b16`, `.u16`, `.s16`, `.f16`, `.bf16`
    B16,
    /// `.b32`, `.u32`, `.s32`, `.f32`, …
    B32,
    /// `.b64`, `.u64`, `.s64`, `.f64`
    B64,
}

/// A declared register.
#[derive(Debug, Clone, PartialEq)]
pub struct Register {
    /// Its name, with `%` if it has one.
    pub name: String,
    /// What it can hold.
    pub class: RegisterClass,
}

/// Index into [`Kernel::registers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegisterId(pub u32);

/// A kernel (`.entry`).
#[derive(Debug, Clone, PartialEq)]
pub struct Kernel {
    /// Its name.
    pub name: String,
    /// Its parameters, in order.
    pub params: Vec<Param>,
    /// `.reqntid`: threads of a block in x, y, z.
    pub threads: Option<[u32; 3]>,
    /// `.reqnctapercluster`: blocks of a cluster in x, y, z.
    pub cluster: Option<[u32; 3]>,
    /// Registers of all scopes.
    pub registers: Vec<Register>,
    /// Variables declared inside.
    pub variables: Vec<Variable>,
    /// The body.
    pub instructions: Vec<Instruction>,
}

/// `@p` or `@!p` before an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    /// A predicate.
    pub register: RegisterId,
    /// `@!p`
    pub negated: bool,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// Line of its opcode in the text, from 1.
    pub line: u32,
    /// The predicate under which it runs.
    pub guard: Option<Guard>,
    /// Name with modifiers, such as `mad.lo.s32`.
    pub opcode: String,
    /// Operands, results first.
    pub operands: Vec<Operand>,
    /// What it looks like in the text, on one line and with long lists shortened: for messages.
    pub text: String,
}

/// An operand.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A register.
    Register(RegisterId),
    /// `!p`
    Not(RegisterId),
    /// An integer constant, in two's complement.
    Integer(u64),
    /// `0f…`: bits of an f32.
    Float32(u32),
    /// `0d…`: bits of an f64.
    Float64(u64),
    /// A special register such as `%tid.x`.
    Special(String),
    /// A variable or a parameter, used as an address.
    Symbol(String),
    /// The instruction to go to; one past the last is the end of the kernel.
    Label(usize),
    /// `{a, b, …}`
    List(Vec<Operand>),
    /// `a|b`, two results.
    Pair(Box<Operand>, Box<Operand>),
    /// `_`, a result that is not wanted.
    Sink,
    /// `[base + offset]` or `[base, {c0, c1, …}]`.
    Address(Address),
}

/// What an address begins with.
#[derive(Debug, Clone, PartialEq)]
pub enum Base {
    /// A register.
    Register(RegisterId),
    /// A variable or a parameter.
    Symbol(String),
    /// A constant.
    Constant(u64),
}

/// An operand in brackets.
#[derive(Debug, Clone, PartialEq)]
pub struct Address {
    /// Base.
    pub base: Base,
    /// Offset in bytes.
    pub offset: i64,
    /// Coordinates of a tensor copy.
    pub coordinates: Vec<Operand>,
}
