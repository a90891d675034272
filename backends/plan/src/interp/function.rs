//! A whole step: arena, states, buffers, kernels in order.

use std::collections::BTreeMap;
use std::ops::Range;

use skipc_artifact::interface::{ChoicePort, Direction, Interface, Role, RouterPorts};
use skipc_artifact::pending;
use skipc_artifact::program::{Arg, BOUND_UNIT, Bounds, Buffer, Function, RowBound, Step, Storage};
use skipc_artifact::target::DType;

use skipc_ir::Frequencies;
use skipc_ir::interp::Weights;

use super::element::Element;
use super::fault::Fault;
use super::memory::{ALIGN, Allocation, Constant, Memory, Owner};
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
    /// As the function says, with reuse.
    Arena,
}

/// What the host hands to a step. The three lists have one entry a token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepInput {
    /// Token ids, all sequences one after the other.
    pub tokens: Vec<u32>,
    /// Numbers in place of token ids, row by row, of functions that take them.
    pub rows: Vec<f64>,
    /// Position of each token in its sequence.
    pub positions: Vec<u32>,
    /// Index of each token's sequence, ascending.
    pub sequences: Vec<u32>,
    /// Where the sequences lie in the caches, for functions that have some.
    pub cached: Option<Cached>,
    /// Decisions to replay: for each router one decision a token. Entries of constant ones are not read.
    pub forced: Option<Vec<Vec<bool>>>,
    /// What routers with a capacity wanted, to be replayed beside that; of those that are not here, nothing.
    pub forced_wanted: BTreeMap<u32, Vec<bool>>,
    /// Inputs of a name of their own.
    pub tensors: BTreeMap<String, Tensor>,
}

/// The elements of an input or a result, row by row: as many rows as there are tokens, as its type says, or as its set has.
#[derive(Clone, Debug, PartialEq)]
pub enum Tensor<N = f64> {
    /// Numbers, which its type may round.
    Reals(Vec<N>),
    /// Integers; of a set its rows, ascending.
    Ints(Vec<u32>),
    /// One bit a row.
    Mask(Vec<bool>),
}

/// What the host says of the caches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cached {
    /// Number of each token's request.
    pub requests: Vec<u32>,
    /// Row of the caches at which each token lies.
    pub places: Vec<u32>,
    /// By how much scores have to be above thresholds, for each token; nothing for 0.
    pub margins: Vec<f32>,
    /// Pages of each sequence, all in a row.
    pub pages: Vec<u32>,
    /// What waits in each sequence, all in a row: [`Role::Pending`].
    pub pending: Vec<u32>,
    /// Rows whose logits are wanted, ascending.
    pub logit_rows: Vec<u32>,
}

/// The decisions of one router.
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
    /// One for each router, in model order.
    pub gates: Vec<GateOutcome>,
    /// One for each layer of experts, in the order in which they run.
    pub choices: Vec<ChoiceOutcome>,
    /// Results of a name of their own.
    pub results: BTreeMap<String, Tensor<N>>,
}

/// The choices of a layer of experts.
#[derive(Clone, Debug, PartialEq)]
pub struct ChoiceOutcome {
    /// How many there are.
    pub of: u32,
    /// Choices that a token can have at once.
    pub places: u32,
    /// `[tokens, places]`, as [`Role::Choices`] says.
    pub lists: Vec<f64>,
}

/// Runs all steps of a function over one batch, on states that earlier steps left. `kernels` and `constants` are those
/// that its steps name by index; a constant is its bytes. Before the first step every buffer of the step is poisoned.
///
/// # Errors
/// The first [`Fault`], with the step in which it happened.
pub fn run_function(
    kernels: &[(String, Kernel)],
    function: &Function,
    constants: &[impl AsRef<[u8]>],
    states: &mut States<f32>,
    batch: &StepInput,
    places: (Mode, Tiling),
) -> Result<Outcome, Fault> {
    let constants: Vec<_> = constants.iter().map(|bytes| Constant::Bytes(bytes.as_ref())).collect();
    run_steps((kernels, function), &constants, states, batch, places)
}

/// The constants of a plan as its graph means them, in the number domain `N`: no type rounds them.
#[derive(Debug)]
pub struct Constants<N>(Vec<Constant<'static, N>>);

impl<N: Element> Constants<N> {
    /// Made from their recipes and the original tensors.
    ///
    /// # Errors
    /// A weight that is missing or has another size.
    pub fn of(plan: &Plan, weights: &dyn Weights<N>) -> Result<Self, Fault> {
        N::make_constants(plan, weights)
    }
}

/// Runs all steps of a plan in the number domain `N`, on states that earlier steps left.
///
/// # Errors
/// The first [`Fault`].
pub fn run_plan_in<N: Element>(
    plan: &Plan,
    constants: &Constants<N>,
    states: &mut States<N>,
    batch: &StepInput,
    places: (Mode, Tiling),
) -> Result<Outcome<N>, Fault> {
    N::run_plan(plan, constants, states, batch, places)
}

/// What steps leave for later ones, by the name of the state; what is not there is zero.
#[derive(Clone, Debug, PartialEq)]
pub struct States<N> {
    cached_rows: u32,
    contents: BTreeMap<String, Contents<N>>,
}

impl<N> Default for States<N> {
    /// All zero, with caches without rows.
    fn default() -> Self {
        States::with_cache(0)
    }
}

/// The memory of a state: integers by their bytes, reals by their numbers.
#[derive(Clone, Debug, PartialEq)]
struct Contents<N> {
    bytes: Vec<u8>,
    reals: Vec<N>,
}

impl<N> States<N> {
    /// All zero, with caches of so many rows.
    pub fn with_cache(cached_rows: u32) -> Self {
        States { cached_rows, contents: BTreeMap::new() }
    }

    /// The bytes of a state of integers; `None` if no step has left it.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.contents.get(name).map(|contents| contents.bytes.as_slice())
    }

    /// Gives a state of reals its elements.
    pub fn set_reals(&mut self, name: &str, reals: Vec<N>) {
        let bytes = vec![0; 4 * reals.len()];
        self.contents.insert(name.to_owned(), Contents { bytes, reals });
    }

    /// The elements of a state of reals; `None` if no step has left it.
    pub fn reals(&self, name: &str) -> Option<&[N]> {
        self.contents.get(name).map(|contents| contents.reals.as_slice())
    }
}

/// What every domain's [`Element::run_plan`] calls.
pub(super) fn run_plan<N: Element>(
    plan: &Plan,
    constants: &Constants<N>,
    states: &mut States<N>,
    batch: &StepInput,
    places: (Mode, Tiling),
) -> Result<Outcome<N>, Fault> {
    run_steps((&plan.kernels, &plan.function), &constants.0, states, batch, places)
}

/// What every domain's [`Element::make_constants`] calls.
pub(super) fn make_constants<N: Element>(
    plan: &Plan,
    weights: &dyn Weights<N>,
) -> Result<Constants<N>, Fault> {
    let made = plan.constants.iter().map(|constant| make_constant(constant, weights));
    Ok(Constants(made.collect::<Result<_, Fault>>()?))
}

fn make_constant<N: Element>(
    constant: &PlanConstant,
    weights: &dyn Weights<N>,
) -> Result<Constant<'static, N>, Fault> {
    let PlanConstant { source, constant } = constant;
    let table = |frequencies: Frequencies, half: u32, positions: u32, function: fn(f64) -> f64| -> Vec<N> {
        let angles = (0..positions).flat_map(|position| (0..half).map(move |pair| (position, pair)));
        let angle = |(position, pair): (u32, u32)| {
            let angle = frequencies.angle(i64::from(position), pair as usize, half as usize);
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
        ConstantSource::RopeCos { frequencies, half, positions } => {
            table(*frequencies, *half, *positions, libm::cos)
        }
        ConstantSource::Forced { first, positions } => {
            let lift = |position| N::from_f64(if position < *first { f64::INFINITY } else { 0.0 });
            (0..*positions).map(lift).collect()
        }
        ConstantSource::HashChoice { experts, seed, block, n_ids } => {
            let expert = |id: u32| skipc_ir::hash_expert(*seed, *block, id.into(), *experts);
            (0..*n_ids).flat_map(|id| [N::ONE, N::from_f64(expert(id) as f64)]).collect()
        }
        ConstantSource::Beginning { positions } => {
            (0..*positions).map(|position| N::from_f64(f64::from(u8::from(position == 0)))).collect()
        }
        ConstantSource::RopeSin { frequencies, half, positions } => {
            table(*frequencies, *half, *positions, libm::sin)
        }
    };
    let size = constant.dtype.size() as usize;
    if (reals.len() * size) as u64 != constant.bytes() {
        return Err(Fault::Layout(format!("`{}` has {} elements", constant.name, reals.len())));
    }
    Ok(Constant::Reals(reals, size))
}

fn run_steps<N: Element>(
    (kernels, function): (&[(String, Kernel)], &Function),
    constants: &[Constant<'_, N>],
    states: &mut States<N>,
    batch: &StepInput,
    (mode, tiling): (Mode, Tiling),
) -> Result<Outcome<N>, Fault> {
    let n_tokens = check_batch(function, batch)?;
    let bound = n_tokens.max(1).max(n_pending(function, batch)).checked_next_multiple_of(BOUND_UNIT);
    let bound = bound.ok_or_else(|| Fault::Batch(format!("{n_tokens} tokens are too many")))?;
    let bounds = Bounds { tokens: bound, cached: states.cached_rows };
    let mut machine = Machine::new(function, constants, bounds, mode)?;
    machine.write_states(states)?;
    machine.write_inputs(batch, n_tokens)?;
    for (idx, step) in function.steps.iter().enumerate() {
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
    let n_logits = batch.cached.as_ref().map_or(n_tokens, |cached| cached.logit_rows.len() as u32);
    let outcome = machine.outcome(n_tokens, n_logits)?;
    machine.read_states(states)?;
    Ok(outcome)
}

/// The most rows of a cache that the step may compute, if some wait.
fn n_pending(function: &Function, batch: &StepInput) -> u32 {
    let table = function.interface.buffer(&Role::Pending).and_then(|idx| function.buffers.get(idx as usize));
    let (Some(table), Some(cached)) = (table, &batch.cached) else { return 0 };
    let n_routers = table.cols.saturating_sub(1) as usize;
    pending::most_rows(&cached.pending, n_routers, &batch.positions, &batch.sequences)
}

/// Fills a buffer with what stands for "not written".
pub fn poison(dtype: DType, bytes: &mut [u8]) {
    match dtype {
        DType::F32 => bytes.as_chunks_mut().0.fill(POISON_F32.to_le_bytes()),
        DType::Bf16 => bytes.as_chunks_mut().0.fill(((POISON_F32 >> 16) as u16).to_le_bytes()),
        DType::U32 | DType::U8 | DType::I8 => bytes.fill(POISON_BYTE),
    }
}

fn check_batch(function: &Function, batch: &StepInput) -> Result<u32, Fault> {
    let n_tokens = batch.positions.len();
    let takes_tokens = function.interface.buffer(&Role::Tokens).is_some();
    if batch.sequences.len() != n_tokens || (takes_tokens && batch.tokens.len() != n_tokens) {
        return Err(Fault::Batch("tokens, positions and sequences differ in length".to_owned()));
    }
    if n_tokens > function.max_tokens as usize {
        return Err(Fault::Batch(format!("{n_tokens} tokens, but at most {} fit", function.max_tokens)));
    }
    if let Some(forced) = &batch.forced {
        let routers = function.interface.routers();
        if forced.len() != routers.len() {
            let n_routers = routers.len();
            return Err(Fault::Batch(format!("decisions for {} of {n_routers} routers", forced.len())));
        }
        for (router, decisions) in routers.iter().zip(forced) {
            if matches!(router, RouterPorts::Routed { .. }) && decisions.len() != n_tokens {
                return Err(Fault::Batch(format!("{} decisions for {n_tokens} tokens", decisions.len())));
            }
        }
    }
    Ok(n_tokens as u32)
}

fn given_tensor<'a>(batch: &'a StepInput, name: &str) -> Result<&'a Tensor, Fault> {
    batch.tensors.get(name).ok_or_else(|| Fault::Batch(format!("unknown input `{name}`")))
}

/// A state of a function that runs.
struct Kept<'a> {
    name: &'a str,
    dtype: DType,
    range: Range<usize>,
    owner: Owner,
}

struct Machine<'a, N> {
    function: &'a Function,
    memory: Memory<'a, N>,
    places: Vec<Allocation>,
}

impl<'a, N: Element> Machine<'a, N> {
    fn new(
        function: &'a Function,
        constants: &'a [Constant<'a, N>],
        bounds: Bounds,
        mode: Mode,
    ) -> Result<Machine<'a, N>, Fault> {
        let mut places = Vec::with_capacity(function.buffers.len());
        let (mut end, bound) = (0_usize, bounds.tokens);
        let arena_bytes =
            function.row_bytes.saturating_mul(u64::from(bound)).saturating_add(function.fixed_bytes);
        // States lie behind the arena.
        let mut states_end = usize::try_from(arena_bytes).unwrap_or(usize::MAX);
        for (buffer, owner) in function.buffers.iter().zip(1..) {
            let begin = match (mode, arena_offset(buffer, bound)?) {
                (Mode::Arena, Some(offset)) => offset,
                (Mode::Arena, None) => states_end.saturating_add(GAP).next_multiple_of(ALIGN),
                (Mode::Separate, _) => (end + GAP).next_multiple_of(ALIGN),
            };
            let n_bytes = usize::try_from(buffer.bytes(bounds)).ok();
            let range = n_bytes.and_then(|n_bytes| Some(begin..begin.checked_add(n_bytes)?));
            let range =
                range.ok_or_else(|| Fault::Layout(format!("buffer `{}` is too large", buffer.name)))?;
            end = end.max(range.end);
            if mode == Mode::Arena && buffer.place().is_some() && range.end as u64 > arena_bytes {
                let (name, at) = (&buffer.name, range.end);
                return Err(Fault::Layout(format!("`{name}` ends at {at}, the arena at {arena_bytes}")));
            }
            if buffer.place().is_none() {
                states_end = range.end;
            }
            places.push(Allocation::Arena(range, owner));
        }
        let memory = Memory::new(end, constants);
        Ok(Machine { function, memory, places })
    }

    /// The states, each with its place.
    fn states(&self) -> Result<Vec<Kept<'a>>, Fault> {
        let mut states = Vec::new();
        for port in &self.function.interface.ports {
            let Some(name) = port.role.state_name() else { continue };
            let idx = self.port(&port.role)?;
            let (buffer, Allocation::Arena(range, owner)) = self.buffer(idx)? else { continue };
            states.push(Kept { name, dtype: buffer.dtype, range: range.clone(), owner: *owner });
        }
        Ok(states)
    }

    fn write_states(&mut self, states: &States<N>) -> Result<(), Fault> {
        for Kept { name, dtype, range, owner } in self.states()? {
            self.memory.owners[range.clone()].fill(owner);
            self.memory.arena[range.clone()].fill(0);
            let Some(Contents { bytes, reals }) = states.contents.get(name) else { continue };
            if bytes.len() != range.len() {
                return Err(Fault::Layout(format!("state `{name}` has another size")));
            }
            self.memory.arena[range.clone()].copy_from_slice(bytes);
            self.memory.set_reals(range.start, dtype, reals.iter().copied());
        }
        Ok(())
    }

    fn read_states(&self, states: &mut States<N>) -> Result<(), Fault> {
        for Kept { name, dtype, range, .. } in self.states()? {
            let n_reals = match dtype {
                DType::F32 | DType::Bf16 | DType::I8 => range.len() / dtype.size() as usize,
                DType::U32 | DType::U8 => 0,
            };
            let reals = self.memory.reals(range.start, dtype, n_reals).collect();
            let bytes = self.memory.arena[range].to_vec();
            states.contents.insert(name.to_owned(), Contents { bytes, reals });
        }
        Ok(())
    }

    fn interface(&self) -> &'a Interface {
        &self.function.interface
    }

    /// The buffer of a port that the function has.
    fn port(&self, role: &Role) -> Result<u32, Fault> {
        self.interface().buffer(role).ok_or_else(|| Fault::Layout(format!("unknown port `{role}`")))
    }

    /// Writes what the function has ports for.
    fn write_inputs(&mut self, batch: &StepInput, n_tokens: u32) -> Result<(), Fault> {
        let use_forced = [u32::from(batch.forced.is_some())];
        let nothing = Cached::default();
        let cached = batch.cached.as_ref().unwrap_or(&nothing);
        let inputs = [
            (Role::Requests, &cached.requests[..]),
            (Role::Places, &cached.places),
            (Role::Pages, &cached.pages),
            (Role::Pending, &cached.pending),
            (Role::LogitRows, &cached.logit_rows),
            (Role::LogitCount, &[cached.logit_rows.len() as u32]),
            (Role::TokenCount, &[n_tokens][..]),
            (Role::Tokens, &batch.tokens),
            (Role::Positions, &batch.positions),
            (Role::Sequences, &batch.sequences),
            (Role::UseForced, &use_forced),
            // Nobody replays choices of experts here.
            (Role::UseForcedChoices, &[0]),
        ];
        for (role, words) in inputs {
            if let Some(idx) = self.interface().buffer(&role) {
                self.write_u32(idx, words)?;
            }
        }
        if let Some(idx) = self.interface().buffer(&Role::Margins) {
            let mut margins = cached.margins.clone();
            margins.resize(n_tokens as usize, 0.0);
            self.write_reals(idx, &margins)?;
        }
        for (role, idx) in self.interface().buffers(Direction::In) {
            match role {
                Role::Input { name } => {
                    let given = given_tensor(batch, name)?;
                    match self.interface().given_set(role) {
                        Some(count) => self.write_set((idx, count), (name, given), n_tokens)?,
                        None => {
                            let n_rows = self.rows_given(role, batch)?.unwrap_or(n_tokens);
                            self.write_tensor(idx, given, n_rows)?;
                        }
                    }
                }
                Role::Rows => self.write_tensor(idx, &Tensor::Reals(batch.rows.clone()), n_tokens)?,
                Role::ForcedWanted { router } => {
                    let nothing = || vec![false; n_tokens as usize];
                    let wanted = batch.forced_wanted.get(router).cloned().unwrap_or_else(nothing);
                    self.write_tensor(idx, &Tensor::Mask(wanted), n_tokens)?;
                }
                _ => {}
            }
        }
        for (router, decisions) in self.interface().routers().iter().zip(batch.forced.iter().flatten()) {
            if let RouterPorts::Routed { forced, .. } = router {
                let bytes: Vec<u8> = decisions.iter().map(|executes| u8::from(*executes)).collect();
                self.write(*forced, DType::U8, &bytes)?;
            }
        }
        Ok(())
    }

    /// The rows of an input that has those of a set which the caller gives.
    fn rows_given(&self, role: &Role, batch: &StepInput) -> Result<Option<u32>, Fault> {
        let interface = self.interface();
        let Some(count) = interface.count(role) else { return Ok(None) };
        let is_its = |role: &&Role| interface.given_set(role) == Some(count);
        match interface.ports.iter().map(|port| &port.role).find(is_its) {
            Some(Role::Input { name }) => match given_tensor(batch, name)? {
                Tensor::Ints(rows) => Ok(Some(rows.len() as u32)),
                Tensor::Reals(_) | Tensor::Mask(_) => Err(Fault::Batch(format!("`input {name}` is a set"))),
            },
            _ => Err(Fault::Layout(format!("`{role}` has the rows of no input"))),
        }
    }

    /// Writes the list of a set, its count, and its mask where there is one.
    fn write_set(
        &mut self,
        (list, count): (u32, u32),
        (name, given): (&str, &Tensor),
        n_tokens: u32,
    ) -> Result<(), Fault> {
        let Tensor::Ints(rows) = given else {
            return Err(Fault::Batch(format!("`input {name}` is a set: its rows are integers")));
        };
        let ascends = rows.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascends || rows.last().is_some_and(|last| *last >= n_tokens) {
            let what =
                format!("`input {name}` is a set: its rows ascend and are below the {n_tokens} tokens");
            return Err(Fault::Batch(what));
        }
        self.write_u32(list, rows)?;
        self.write_u32(count, &[rows.len() as u32])?;
        if let Some(mask) = self.interface().buffer(&Role::SetMask { name: name.to_owned() }) {
            let mut bits = vec![0; n_tokens as usize];
            rows.iter().for_each(|row| bits[*row as usize] = 1);
            self.write(mask, DType::U8, &bits)?;
        }
        Ok(())
    }

    /// The results of a name of their own, each with the rows that mean something.
    fn results(&self, n_tokens: u32) -> Result<BTreeMap<String, Tensor<N>>, Fault> {
        let mut results = BTreeMap::new();
        for (role, idx) in self.interface().buffers(Direction::Out) {
            let Role::Result { name } = role else { continue };
            let (buffer, _) = self.buffer(idx)?;
            let n_rows = match (self.interface().count(role), buffer.rows) {
                (Some(count), _) => self.read_count(count)?,
                (None, RowBound::Fixed(rows)) => rows,
                (None, RowBound::Tokens | RowBound::Cached) => n_tokens,
            };
            let place = self.written(idx, buffer.dtype, n_rows)?;
            let n_elements = n_rows as usize * buffer.cols as usize;
            let tensor = match buffer.dtype {
                DType::F32 | DType::Bf16 | DType::I8 => {
                    Tensor::Reals(self.memory.reals(place.start, buffer.dtype, n_elements).collect())
                }
                DType::U32 => {
                    let words = self.memory.arena[place].as_chunks().0;
                    Tensor::Ints(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
                }
                DType::U8 => Tensor::Mask(self.memory.arena[place].iter().map(|bit| *bit != 0).collect()),
            };
            results.insert(name.clone(), tensor);
        }
        Ok(results)
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
                    Allocation::Constant(constant as usize)
                }
                Arg::Constant(constant) => {
                    return Err(Fault::Layout(format!("there is no constant {constant}")));
                }
            };
            places.push(place);
        }
        run(kernel, &mut self.memory, places, tiling)
    }

    fn outcome(&self, n_tokens: u32, n_logits: u32) -> Result<Outcome<N>, Fault> {
        let results = self.results(n_tokens)?;
        let mut outcome = Outcome { logits: Vec::new(), gates: Vec::new(), choices: Vec::new(), results };
        if let Some(idx) = self.interface().buffer(&Role::Logits) {
            let begin = self.written(idx, DType::F32, n_logits)?;
            let n_logits = begin.len() / DType::F32.size() as usize;
            outcome.logits = self.memory.reals(begin.start, DType::F32, n_logits).collect();
        }
        for router in self.interface().routers() {
            outcome.gates.push(match router {
                RouterPorts::Constant(executes) => GateOutcome {
                    mask: vec![executes; n_tokens as usize],
                    count: if executes { n_tokens } else { 0 },
                    wanted: None,
                },
                RouterPorts::Routed { decision, executed, wanted, .. } => {
                    let mask = self.read(decision, DType::U8, n_tokens)?;
                    GateOutcome {
                        mask: mask.iter().map(|executes| *executes != 0).collect(),
                        count: self.read_count(executed)?,
                        wanted: wanted.map(|wanted| self.read_count(wanted)).transpose()?,
                    }
                }
            });
        }
        for (_, ChoicePort { of, buffer, .. }) in self.interface().choices() {
            let (places, place) = (self.buffer(buffer)?.0.cols, self.written(buffer, DType::F32, n_tokens)?);
            let n_numbers = place.len() / DType::F32.size() as usize;
            let lists = self.memory.reals(place.start, DType::F32, n_numbers).map(N::to_f64).collect();
            outcome.choices.push(ChoiceOutcome { of, places, lists });
        }
        Ok(outcome)
    }

    fn buffer(&self, idx: u32) -> Result<(&'a Buffer, &Allocation), Fault> {
        let missing = || Fault::Layout(format!("there is no buffer {idx}"));
        let buffer = self.function.buffers.get(idx as usize).ok_or_else(missing)?;
        Ok((buffer, self.places.get(idx as usize).ok_or_else(missing)?))
    }

    fn arena_place(&self, idx: u32, dtype: DType) -> Result<(&'a Buffer, usize, usize, Owner), Fault> {
        let (buffer, place) = self.buffer(idx)?;
        match place {
            Allocation::Arena(range, owner) if buffer.dtype == dtype => {
                Ok((buffer, range.start, range.end, *owner))
            }
            Allocation::Arena(..) | Allocation::Constant(_) => {
                Err(Fault::Layout(format!("buffer `{}` should hold {dtype}", buffer.name)))
            }
        }
    }

    fn write_u32(&mut self, idx: u32, values: &[u32]) -> Result<(), Fault> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.write(idx, DType::U32, &bytes)
    }

    fn write_reals(&mut self, idx: u32, values: &[f32]) -> Result<(), Fault> {
        let begin = self.arena_place(idx, DType::F32)?.1;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.write(idx, DType::F32, &bytes)?;
        self.memory.set_reals(begin, DType::F32, values.iter().map(|value| N::from_f64(f64::from(*value))));
        Ok(())
    }

    /// Writes an input of so many rows, or of as many as its buffer has.
    fn write_tensor(&mut self, idx: u32, given: &Tensor, n_rows: u32) -> Result<(), Fault> {
        let (buffer, _) = self.buffer(idx)?;
        let n_rows = match buffer.rows {
            RowBound::Fixed(rows) => rows,
            RowBound::Tokens | RowBound::Cached => n_rows,
        };
        let (n_elements, name) = (n_rows as usize * buffer.cols as usize, &buffer.name);
        let unfit = |len: usize| Fault::Batch(format!("`{name}` has {len} elements, not {n_elements}"));
        match (given, buffer.dtype) {
            (Tensor::Reals(values), dtype @ (DType::F32 | DType::Bf16)) if values.len() == n_elements => {
                let (_, begin, ..) = self.arena_place(idx, dtype)?;
                self.write(idx, dtype, &vec![0; n_elements * dtype.size() as usize])?;
                self.memory.set_reals(begin, dtype, values.iter().map(|value| N::from_f64(*value)));
                Ok(())
            }
            (Tensor::Ints(words), DType::U32) if words.len() == n_elements => self.write_u32(idx, words),
            (Tensor::Mask(bits), DType::U8) if bits.len() == n_elements => {
                self.write(idx, DType::U8, &bits.iter().map(|bit| u8::from(*bit)).collect::<Vec<u8>>())
            }
            (Tensor::Reals(values), DType::F32 | DType::Bf16) => Err(unfit(values.len())),
            (Tensor::Ints(words), DType::U32) => Err(unfit(words.len())),
            (Tensor::Mask(bits), DType::U8) => Err(unfit(bits.len())),
            (_, dtype) => Err(Fault::Batch(format!("`{name}` holds {dtype}"))),
        }
    }

    fn write(&mut self, idx: u32, dtype: DType, bytes: &[u8]) -> Result<(), Fault> {
        let (buffer, begin, end, owner) = self.arena_place(idx, dtype)?;
        if bytes.len() > end - begin {
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

/// Where a buffer begins in the arena; `None` for a state.
fn arena_offset(buffer: &Buffer, bound: u32) -> Result<Option<usize>, Fault> {
    let Storage::Step(place) = buffer.storage else { return Ok(None) };
    let rows = place.row_offset.checked_mul(u64::from(bound));
    let offset = rows.and_then(|rows| rows.checked_add(place.fixed_offset));
    let offset = offset.and_then(|offset| usize::try_from(offset).ok());
    offset
        .map(Some)
        .ok_or_else(|| Fault::Layout(format!("buffer `{}` lies past the end of memory", buffer.name)))
}
