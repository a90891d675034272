//! A whole step: arena, buffers, kernels in order.

use std::ops::Range;

use skipc_artifact::program::{Arg, BOUND_UNIT, Buffer, Gate, Layout, Step};
use skipc_artifact::target::DType;

use skipc_ir::interp::Weights;

use super::element::Element;
use super::fault::Fault;
use super::memory::{ALIGN, Constant, Memory, Owner, Place};
use super::{Tiling, run};
use crate::kernel::Kernel;
use crate::plan::{ConstantSource, Plan, PlanConstant};
use crate::recipe;

/// What a float holds before it is written: a NaN that is easy to recognise. In bf16 its upper half.
pub const POISON_F32: u32 = 0x7FC0_DEAD;

/// Every byte of an integer before it is written.
pub const POISON_BYTE: u8 = 0xA5;

/// Bytes between buffers in [`Mode::Separate`]; any number keeps them apart, this one is a cache line.
const GAP: usize = 64;

/// Where buffers lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each in memory of its own.
    Separate,
    /// As the layout says, with reuse.
    Arena,
}

/// What the host hands to a step. The three lists have one entry a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Token ids, all sequences one after the other.
    pub tokens: Vec<u32>,
    /// Position of each token in its sequence.
    pub positions: Vec<u32>,
    /// Index of each token's sequence, ascending.
    pub sequences: Vec<u32>,
    /// Decisions to replay: for each gate of the layout one decision a token. Entries of constant gates are not read.
    pub forced: Option<Vec<Vec<bool>>>,
}

/// The decisions of one gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateOutcome {
    /// Whether each token executes.
    pub mask: Vec<bool>,
    /// How many do, as the step counted.
    pub count: u32,
    /// How many the router wanted before its capacity, as the step counted; `None` if it has none.
    pub wanted: Option<u32>,
}

/// What a step hands back.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome<N = f32> {
    /// `[tokens, vocab]`, row by row.
    pub logits: Vec<N>,
    /// One for each gate of the layout.
    pub gates: Vec<GateOutcome>,
}

/// Runs all steps of a layout over one batch. `kernels` and `constants` are those that its steps name by index; a
/// constant is its bytes. Before the first step every buffer is poisoned.
///
/// # Errors
/// The first [`Fault`], with the step in which it happened.
pub fn run_layout(
    kernels: &[(String, Kernel)],
    layout: &Layout,
    constants: &[Vec<u8>],
    batch: &Batch,
    places: (Mode, Tiling),
) -> Result<Outcome, Fault> {
    let constants = constants.iter().map(|bytes| Constant::Bytes(bytes)).collect();
    run_steps(kernels, layout, constants, batch, places)
}

/// Runs all steps of a plan in the number domain `N`, with constants made from their recipe and the original tensors.
///
/// # Errors
/// The first [`Fault`]; a weight that is missing or has another size is one too.
pub fn run_layout_in<N: Element>(
    plan: &Plan,
    weights: &dyn Weights<N>,
    batch: &Batch,
    places: (Mode, Tiling),
) -> Result<Outcome<N>, Fault> {
    N::run_plan(plan, weights, batch, places)
}

/// What every domain's [`Element::run_plan`] calls.
pub(super) fn run_plan<N: Element>(
    plan: &Plan,
    weights: &dyn Weights<N>,
    batch: &Batch,
    places: (Mode, Tiling),
) -> Result<Outcome<N>, Fault> {
    let constants = plan.constants.iter().map(|constant| make_constant(constant, weights));
    let constants = constants.collect::<Result<Vec<_>, Fault>>()?;
    run_steps(&plan.kernels, &plan.layout, constants, batch, places)
}

/// The elements of a constant as its graph means them: no type rounds them.
fn make_constant<N: Element>(
    constant: &PlanConstant,
    weights: &dyn Weights<N>,
) -> Result<Constant<'static, N>, Fault> {
    let PlanConstant { source, constant } = constant;
    let table = |theta: f64, half: u32, positions: u32, function: fn(f64) -> f64| -> Vec<N> {
        let angles = (0..positions).flat_map(|position| (0..half).map(move |pair| (position, pair)));
        let angle = |(position, pair): (u32, u32)| {
            let angle = skipc_ir::rope_angle(i64::from(position), pair as usize, half as usize, theta);
            N::from_f64(function(f64::from(angle)))
        };
        angles.map(angle).collect()
    };
    let reals = match source {
        // Zeros of integers are all that plans have.
        ConstantSource::Zero => return Ok(Constant::Bytes(&[0; 4])),
        ConstantSource::Weight { name } => {
            weights.weight(name).ok_or_else(|| Fault::Layout(format!("there is no weight `{name}`")))?
        }
        ConstantSource::Recipe { steps } => recipe::elements(steps, |name| weights.weight(name))
            .ok_or_else(|| Fault::Layout(format!("there are no weights for `{}`", constant.name)))?,
        ConstantSource::RopeCos { theta, half, positions } => table(theta.0, *half, *positions, libm::cos),
        ConstantSource::RopeSin { theta, half, positions } => table(theta.0, *half, *positions, libm::sin),
    };
    let size = constant.dtype.size() as usize;
    if (reals.len() * size) as u64 != constant.bytes() {
        return Err(Fault::Layout(format!("`{}` has {} elements", constant.name, reals.len())));
    }
    Ok(Constant::Reals(reals, size))
}

fn run_steps<N: Element>(
    kernels: &[(String, Kernel)],
    layout: &Layout,
    constants: Vec<Constant<'_, N>>,
    batch: &Batch,
    (mode, tiling): (Mode, Tiling),
) -> Result<Outcome<N>, Fault> {
    let n_tokens = check_batch(layout, batch)?;
    let bound = n_tokens.max(1).checked_next_multiple_of(BOUND_UNIT);
    let bound = bound.ok_or_else(|| Fault::Batch(format!("{n_tokens} tokens are too many")))?;
    let mut machine = Machine::new(layout, constants, bound, mode)?;
    machine.write_inputs(batch, n_tokens)?;
    for (idx, step) in layout.steps.iter().enumerate() {
        let named = kernels.get(step.kernel as usize);
        let (name, kernel) =
            named.ok_or_else(|| Fault::Layout(format!("step {idx} names kernel {}", step.kernel)))?;
        machine.step(kernel, step, tiling).map_err(|fault| Fault::InStep {
            step: idx,
            kernel: name.clone(),
            origin: step.origin.clone(),
            fault: Box::new(fault),
        })?;
    }
    machine.outcome(n_tokens)
}

/// Fills a buffer with what stands for "not written".
pub fn poison(dtype: DType, bytes: &mut [u8]) {
    match dtype {
        DType::F32 => bytes.as_chunks_mut().0.fill(POISON_F32.to_le_bytes()),
        DType::Bf16 => bytes.as_chunks_mut().0.fill(((POISON_F32 >> 16) as u16).to_le_bytes()),
        DType::U32 | DType::U8 => bytes.fill(POISON_BYTE),
    }
}

fn check_batch(layout: &Layout, batch: &Batch) -> Result<u32, Fault> {
    let n_tokens = batch.tokens.len();
    if batch.positions.len() != n_tokens || batch.sequences.len() != n_tokens {
        return Err(Fault::Batch("tokens, positions and sequences differ in length".to_owned()));
    }
    if n_tokens > layout.max_tokens as usize {
        return Err(Fault::Batch(format!("{n_tokens} tokens, but at most {} fit", layout.max_tokens)));
    }
    if let Some(forced) = &batch.forced {
        if forced.len() != layout.io.gates.len() {
            let gates = layout.io.gates.len();
            return Err(Fault::Batch(format!("decisions for {} of {gates} gates", forced.len())));
        }
        for (gate, decisions) in layout.io.gates.iter().zip(forced) {
            if matches!(gate, Gate::Routed { .. }) && decisions.len() != n_tokens {
                return Err(Fault::Batch(format!("{} decisions for {n_tokens} tokens", decisions.len())));
            }
        }
    }
    Ok(n_tokens as u32)
}

struct Machine<'a, N> {
    layout: &'a Layout,
    memory: Memory<'a, N>,
    places: Vec<Place>,
}

impl<'a, N: Element> Machine<'a, N> {
    fn new(
        layout: &'a Layout,
        constants: Vec<Constant<'a, N>>,
        bound: u32,
        mode: Mode,
    ) -> Result<Machine<'a, N>, Fault> {
        let mut places = Vec::with_capacity(layout.buffers.len());
        let mut end = 0_usize;
        for (buffer, owner) in layout.buffers.iter().zip(1..) {
            let begin = match mode {
                Mode::Separate => (end + GAP).next_multiple_of(ALIGN),
                Mode::Arena => arena_offset(buffer, bound)?,
            };
            let n_bytes = usize::try_from(buffer.bytes(bound)).ok();
            let range = n_bytes.and_then(|n_bytes| Some(begin..begin.checked_add(n_bytes)?));
            let range =
                range.ok_or_else(|| Fault::Layout(format!("buffer `{}` is too large", buffer.name)))?;
            end = end.max(range.end);
            places.push(Place::Arena(range, owner));
        }
        if mode == Mode::Arena {
            let arena_bytes =
                layout.row_bytes.saturating_mul(u64::from(bound)).saturating_add(layout.fixed_bytes);
            if end as u64 > arena_bytes {
                return Err(Fault::Layout(format!("buffers end at {end}, the arena at {arena_bytes}")));
            }
        }
        let memory = Memory::new(end, constants);
        Ok(Machine { layout, memory, places })
    }

    fn write_inputs(&mut self, batch: &Batch, n_tokens: u32) -> Result<(), Fault> {
        let io = &self.layout.io;
        self.write_u32(io.n_tokens, &[n_tokens])?;
        self.write_u32(io.tokens, &batch.tokens)?;
        self.write_u32(io.positions, &batch.positions)?;
        self.write_u32(io.sequences, &batch.sequences)?;
        self.write_u32(io.use_forced, &[batch.forced.is_some().into()])?;
        for (gate, decisions) in io.gates.iter().zip(batch.forced.iter().flatten()) {
            if let Gate::Routed { forced, .. } = gate {
                let bytes: Vec<u8> = decisions.iter().map(|executes| u8::from(*executes)).collect();
                self.write(*forced, DType::U8, &bytes)?;
            }
        }
        Ok(())
    }

    fn step(&mut self, kernel: &Kernel, step: &Step, tiling: Tiling) -> Result<(), Fault> {
        let mut places = Vec::with_capacity(step.args.len());
        for (idx, arg) in step.args.iter().enumerate() {
            let place = match *arg {
                Arg::Buffer(buffer) => {
                    let (bound, place) = self.buffer(buffer)?;
                    if let Some(param) = kernel.params.get(idx)
                        && (param.dtype, param.cols) != (bound.dtype, bound.cols)
                    {
                        return Err(Fault::BadOperand(format!(
                            "parameter `{}` has {} columns of {}, buffer `{}` has {} of {}",
                            param.name, param.cols, param.dtype, bound.name, bound.cols, bound.dtype
                        )));
                    }
                    place.clone()
                }
                Arg::Constant(constant) if (constant as usize) < self.memory.constants.len() => {
                    Place::Constant(constant as usize)
                }
                Arg::Constant(constant) => {
                    return Err(Fault::Layout(format!("there is no constant {constant}")));
                }
            };
            places.push(place);
        }
        run(kernel, &mut self.memory, places, tiling)
    }

    fn outcome(&self, n_tokens: u32) -> Result<Outcome<N>, Fault> {
        let io = &self.layout.io;
        let begin = self.written(io.logits, DType::F32, n_tokens)?;
        let n_logits = begin.len() / DType::F32.size() as usize;
        let logits = self.memory.reals(begin.start, DType::F32, n_logits).collect();
        let mut gates = Vec::with_capacity(io.gates.len());
        for gate in &io.gates {
            gates.push(match *gate {
                Gate::Constant(executes) => GateOutcome {
                    mask: vec![executes; n_tokens as usize],
                    count: if executes { n_tokens } else { 0 },
                    wanted: None,
                },
                Gate::Routed { mask, count, wanted, .. } => {
                    let mask = self.read(mask, DType::U8, n_tokens)?;
                    GateOutcome {
                        mask: mask.iter().map(|executes| *executes != 0).collect(),
                        count: self.read_count(count)?,
                        wanted: wanted.map(|wanted| self.read_count(wanted)).transpose()?,
                    }
                }
            });
        }
        Ok(Outcome { logits, gates })
    }

    fn buffer(&self, idx: u32) -> Result<(&'a Buffer, &Place), Fault> {
        let missing = || Fault::Layout(format!("there is no buffer {idx}"));
        let buffer = self.layout.buffers.get(idx as usize).ok_or_else(missing)?;
        Ok((buffer, self.places.get(idx as usize).ok_or_else(missing)?))
    }

    fn arena_place(&self, idx: u32, dtype: DType) -> Result<(&'a Buffer, usize, usize, Owner), Fault> {
        let (buffer, place) = self.buffer(idx)?;
        match place {
            Place::Arena(range, owner) if buffer.dtype == dtype => {
                Ok((buffer, range.start, range.end, *owner))
            }
            Place::Arena(..) | Place::Constant(_) => {
                Err(Fault::Layout(format!("buffer `{}` should hold {dtype}", buffer.name)))
            }
        }
    }

    fn write_u32(&mut self, idx: u32, values: &[u32]) -> Result<(), Fault> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.write(idx, DType::U32, &bytes)
    }

    fn write(&mut self, idx: u32, dtype: DType, bytes: &[u8]) -> Result<(), Fault> {
        let (buffer, begin, end, owner) = self.arena_place(idx, dtype)?;
        if buffer.cols != 1 || bytes.len() > end - begin {
            return Err(Fault::Layout(format!("buffer `{}` cannot hold its input", buffer.name)));
        }
        self.memory.arena[begin..begin + bytes.len()].copy_from_slice(bytes);
        self.memory.owners[begin..begin + bytes.len()].fill(owner);
        Ok(())
    }

    fn read_count(&self, idx: u32) -> Result<u32, Fault> {
        let bytes = self.read(idx, DType::U32, 1)?;
        Ok(bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).sum())
    }

    fn read(&self, idx: u32, dtype: DType, n_rows: u32) -> Result<&[u8], Fault> {
        Ok(&self.memory.arena[self.written(idx, dtype, n_rows)?])
    }

    /// The place of the first rows of a buffer, which steps must have written.
    fn written(&self, idx: u32, dtype: DType, n_rows: u32) -> Result<Range<usize>, Fault> {
        let (buffer, begin, end, owner) = self.arena_place(idx, dtype)?;
        let row_bytes = buffer.cols as usize * dtype.size() as usize;
        let n_bytes = row_bytes * n_rows as usize;
        if n_bytes > end - begin {
            return Err(Fault::Layout(format!("buffer `{}` has less than {n_rows} rows", buffer.name)));
        }
        let owners = &self.memory.owners[begin..begin + n_bytes];
        if let Some(at) = owners.iter().position(|other| *other != owner) {
            return Err(Fault::Undefined {
                param: buffer.name.clone(),
                row: (at / row_bytes) as u64,
                col: (at % row_bytes) as u64 / u64::from(dtype.size()),
                why: "no step wrote this result".to_owned(),
            });
        }
        Ok(begin..begin + n_bytes)
    }
}

fn arena_offset(buffer: &Buffer, bound: u32) -> Result<usize, Fault> {
    let rows = buffer.place.row_offset.checked_mul(u64::from(bound));
    let offset = rows.and_then(|rows| rows.checked_add(buffer.place.fixed_offset));
    let offset = offset.and_then(|offset| usize::try_from(offset).ok());
    offset.ok_or_else(|| Fault::Layout(format!("buffer `{}` lies past the end of memory", buffer.name)))
}
