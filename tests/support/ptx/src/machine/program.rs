//! A kernel that is ready to run: decoded instructions, the layout of its variables, where its branches meet again.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Run;
use super::decode::{DecodeError, Decoder, Form, Table};
use super::shared::{self, Rooms};
use crate::flow;
use crate::registers::{Registers, Slot, SourcePredicate};
use crate::syntax::{Guard, Kernel, Module, Operand, SyntaxError, VariableSpace};

/// Address of the first parameter.
pub(crate) const PARAMS: u64 = 1 << 40;

/// Most bytes of a kernel's parameters (CUDA 12.1 and later, from sm_70 on).
const MAX_PARAMS: u64 = 32_764;

/// Why a kernel cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The text is no PTX.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// The module has no such kernel.
    #[error("unknown kernel `{name}`; there are {}", there.join(", "))]
    NoKernel {
        /// What was asked for.
        name: String,
        /// The kernels of the module.
        there: Vec<String>,
    },
    /// An instruction that the machine does not know.
    #[error("{kernel}, line {line}: `{text}`: {error}")]
    Decode {
        /// The kernel.
        kernel: String,
        /// Line in the text.
        line: u32,
        /// The instruction.
        text: String,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// More bytes of parameters than a kernel can have.
    #[error("parameter `{name}` ends at byte {end}; a kernel has at most {MAX_PARAMS} bytes of parameters")]
    Parameter {
        /// The first that does not fit.
        name: String,
        /// Where it ends.
        end: u64,
    },
    /// A variable in a space that the machine does not have.
    #[error("variable `{name}`: the machine knows variables in shared memory only")]
    Variable {
        /// The variable.
        name: String,
    },
}

/// An instruction that can be run.
pub(crate) struct Step {
    pub(crate) guard: Option<SourcePredicate>,
    pub(crate) form: &'static Form,
    pub(crate) run: Run,
    pub(crate) line: u32,
    pub(crate) text: String,
    /// For a branch under a guard: where the lanes meet again.
    pub(crate) join: Option<u32>,
}

/// A kernel that is ready to run.
pub struct Program {
    /// Its name.
    pub name: String,
    pub(crate) steps: Vec<Step>,
    pub(crate) sizes: (usize, usize, usize),
    pub(crate) specials: Vec<(String, Slot)>,
    pub(crate) names: BTreeMap<Slot, String>,
    /// Offset and size of each parameter.
    pub(crate) params: Vec<(u32, u32)>,
    /// `.reqntid`.
    pub(crate) threads: Option<[u32; 3]>,
    /// `.reqnctapercluster`.
    pub(crate) cluster: Option<[u32; 3]>,
    /// Bytes of shared memory with a fixed size; dynamic shared memory comes after them.
    pub(crate) static_shared: u32,
    /// Where the machine puts it.
    pub(crate) rooms: Arc<Rooms>,
    /// Least bytes that an instruction touches in shared and in global memory.
    pub(crate) granules: (u32, u32),
}

impl Program {
    /// A kernel of a module, whose instructions have the forms of the table.
    pub(crate) fn decoded(module: &Module, name: &str, table: &Table) -> Result<Self, LoadError> {
        let Some(kernel) = module.kernels.iter().find(|kernel| kernel.name == name) else {
            let there = module.kernels.iter().map(|kernel| kernel.name.clone()).collect();
            return Err(LoadError::NoKernel { name: name.to_owned(), there });
        };
        let Layout { symbols, params, static_shared, rooms } = layout(module, kernel)?;
        let find = |name: &str| symbols.get(name).copied();
        let mut decoder = Decoder::new(kernel, &find);
        let flow = flow::analyse(kernel);
        let mut steps = Vec::with_capacity(kernel.instructions.len());
        for (idx, instruction) in kernel.instructions.iter().enumerate() {
            let decoded = decoder.decode(table, instruction).and_then(|decoded| {
                let guard = instruction.guard.map(|guard| guard_of(&decoder, guard)).transpose()?;
                Ok((decoded, guard))
            });
            let ((form, run), guard) = decoded.map_err(|error| LoadError::Decode {
                kernel: name.to_owned(),
                line: instruction.line,
                text: instruction.text.clone(),
                error,
            })?;
            let join = flow.join.get(idx).map(|at| *at as u32).filter(|_| guard.is_some());
            let (line, text) = (instruction.line, instruction.text.clone());
            steps.push(Step { guard, form, run, line, text, join });
        }
        Ok(Self {
            name: name.to_owned(),
            steps,
            sizes: decoder.sizes(),
            names: decoder.names(),
            granules: granules(kernel),
            specials: std::mem::take(&mut decoder.specials),
            params,
            threads: kernel.threads,
            cluster: kernel.cluster,
            static_shared,
            rooms: Arc::new(rooms),
        })
    }

    /// How many instructions it has.
    pub fn n_instructions(&self) -> usize {
        self.steps.len()
    }

    pub(crate) fn registers(&self) -> Registers {
        let (words, doubles, predicates) = self.sizes;
        Registers::new(words, doubles, predicates)
    }
}

fn guard_of(decoder: &Decoder<'_>, guard: Guard) -> Result<SourcePredicate, DecodeError> {
    let operand =
        if guard.negated { Operand::Not(guard.register) } else { Operand::Register(guard.register) };
    decoder.source_predicate(&operand)
}

struct Layout {
    /// Addresses of all names.
    symbols: BTreeMap<String, u64>,
    /// Offset and size of each parameter.
    params: Vec<(u32, u32)>,
    /// Bytes of shared memory with a fixed size.
    static_shared: u32,
    rooms: Rooms,
}

fn layout(module: &Module, kernel: &Kernel) -> Result<Layout, LoadError> {
    let mut symbols = BTreeMap::new();
    let mut params = Vec::new();
    let mut end = 0_u64;
    for param in &kernel.params {
        let offset = end.next_multiple_of(u64::from(param.align.max(1)));
        end = offset + u64::from(param.bytes);
        if end > MAX_PARAMS {
            return Err(LoadError::Parameter { name: param.name.clone(), end });
        }
        symbols.insert(param.name.clone(), PARAMS + offset);
        params.push((offset as u32, param.bytes));
    }
    let variables = || module.variables.iter().chain(&kernel.variables);
    if let Some(other) = variables().find(|variable| variable.space != VariableSpace::Shared) {
        return Err(LoadError::Variable { name: other.name.clone() });
    }
    let n_sized = variables().filter(|variable| variable.bytes.is_some()).count();
    let gap = if n_sized > shared::MOST_APART { 0 } else { shared::GAP };
    let (mut size, mut gaps, mut rooms) = (0_u64, 0, Rooms::default());
    for variable in variables() {
        if let Some(bytes) = variable.bytes {
            // A launch refuses far less; no sum of these overflows.
            let bytes = bytes.min(u64::from(u32::MAX));
            size = size.next_multiple_of(u64::from(variable.align.max(1)));
            symbols.insert(variable.name.clone(), shared::BASE + size + gaps);
            rooms.variables.push((size + gaps, bytes, variable.name.clone()));
            size += bytes;
            gaps += gap;
        }
    }
    for variable in variables().filter(|variable| variable.bytes.is_none()) {
        size = size.next_multiple_of(u64::from(variable.align.max(1)));
        symbols.insert(variable.name.clone(), shared::BASE + size + gaps);
    }
    (rooms.dynamic, rooms.gap) = (size + gaps, gap);
    let static_shared = u32::try_from(size).unwrap_or(u32::MAX);
    Ok(Layout { symbols, params, static_shared, rooms })
}

/// The least bytes that an instruction touches in shared and in global memory, as far as its name tells; powers of two
/// from 1 to 16.
fn granules(kernel: &Kernel) -> (u32, u32) {
    let (mut shared, mut global) = (16, 16);
    for instruction in &kernel.instructions {
        let mut parts = instruction.opcode.split('.');
        let first = parts.next().unwrap_or_default();
        if !matches!(first, "ld" | "st" | "red" | "atom" | "ldmatrix" | "stmatrix" | "cp") {
            continue;
        }
        let bytes = match first {
            "ldmatrix" | "stmatrix" => 16,
            "cp" if instruction.opcode.starts_with("cp.async.bulk") => 16,
            "cp" => match instruction.operands.get(2) {
                Some(Operand::Integer(bytes)) => *bytes as u32,
                _ => 16,
            },
            _ => {
                let ty = instruction.opcode.rsplit('.').next().unwrap_or_default();
                let digits = ty.trim_start_matches(|c: char| c.is_ascii_alphabetic());
                let bits: u32 = digits.split('x').next().and_then(|bits| bits.parse().ok()).unwrap_or(8);
                (bits / 8).clamp(1, 16)
            }
        };
        let bytes = if bytes.is_power_of_two() { bytes } else { 1 };
        let has = |space: &str| instruction.opcode.split('.').any(|part| part.starts_with(space));
        if !has("global") {
            shared = shared.min(bytes);
        }
        if !has("shared") || first == "cp" {
            global = global.min(bytes);
        }
        if first == "cp" {
            shared = shared.min(bytes);
        }
    }
    (shared, global)
}
