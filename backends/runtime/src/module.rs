//! A program on a device, its states, and calls of its functions.
//!
//! ```no_run
//! use skipc_artifact::interface::Role;
//! use skipc_runtime::{Device, Model, Module, Options};
//!
//! # fn main() -> Result<(), skipc_runtime::Error> {
//! let model = Model::open("model.skp".as_ref())?;
//! let module = Module::load(&model, Device::Cuda(1), Options::default())?;
//! let mut state = module.state()?;
//! let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
//! let inputs = [
//!     (Role::Tokens, words(&[72, 101, 108])),
//!     (Role::Positions, words(&[0, 1, 2])),
//!     (Role::Sequences, words(&[0, 0, 0])),
//! ];
//! // No kernel runs that this decision does not need, and nothing else is copied back.
//! let decisions = state.call("score", 3, &inputs, &[Role::Decision { router: 0 }])?;
//! println!("{:?}", decisions[0]);
//! # Ok(())
//! # }
//! ```

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use skipc_artifact::bundle;
use skipc_artifact::interface::{Binding, Direction, Role};
use skipc_artifact::program::{Arg, BOUND_UNIT, Bounds, Function, Program, RowBound};
use skipc_artifact::target::Target;

use crate::bind::{BoundInputs, bind_inputs, check_count, n_pending, no_port};
use crate::call::{Input, Run};
use crate::device::Device;
use crate::error::{self, Error};
use crate::model::Model;
use crate::options::Options;
use crate::{cpu, cuda, memory};

/// A program with its code and constants on a device; cheap to clone. All its states share it.
#[derive(Clone, Debug)]
pub struct Module {
    loaded: Arc<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    program: Arc<Program>,
    engine: Engine,
    checked: bool,
}

#[derive(Debug)]
enum Engine {
    Cpu(Box<cpu::Loaded>),
    Cuda(Box<cuda::Loaded>),
}

/// What a module's calls leave for later ones, with the memory that they take: one user of a module. States of one
/// module know nothing of each other. Calls keep memory for the largest step so far.
#[derive(Debug)]
pub struct State {
    // Dropped before what it points into.
    memory: Memory,
    module: Module,
    /// Rows of its caches.
    cached: u32,
}

#[derive(Debug)]
enum Memory {
    Cpu(Box<cpu::Memories>),
    Cuda(Box<cuda::Memories>),
}

impl Module {
    /// Loads the code of `model` that suits the device best.
    ///
    /// # Errors
    ///
    /// No program for the device, no device, or a program that does not fit itself.
    pub fn load(model: &Model, device: Device, options: Options) -> Result<Self, Error> {
        let targets = model.targets();
        let missing =
            |wanted: &str| Error::NoProgram { wanted: wanted.into(), has: error::list_targets(&targets) };
        let read = |target: &Target| bundle::read_program(model.artifact(), target).map(Arc::new);
        let (program, engine) = match device {
            Device::Cpu => {
                if !targets.contains(&Target::Cpu) {
                    return Err(missing("cpu"));
                }
                let program = read(&Target::Cpu)?;
                let loaded = cpu::Loaded::new(model, Arc::clone(&program), options)?;
                (program, Engine::Cpu(Box::new(loaded)))
            }
            Device::Cuda(ordinal) => {
                if !targets.iter().any(|target| matches!(target, Target::Cuda(_))) {
                    return Err(missing("cuda:sm_80"));
                }
                let gpu = cuda::Gpu::open(ordinal)?;
                let program = read(gpu.choose(&targets)?)?;
                let loaded = cuda::Loaded::new(gpu, model, Arc::clone(&program))?;
                (program, Engine::Cuda(Box::new(loaded)))
            }
        };
        Ok(Self { loaded: Arc::new(Loaded { program, engine, checked: options.checked }) })
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.loaded.program
    }

    /// A function of the program.
    ///
    /// # Errors
    ///
    /// [`Error::NoFunction`].
    pub fn function(&self, name: &str) -> Result<&Function, Error> {
        let functions = &self.program().functions;
        functions.get(name).ok_or_else(|| Error::NoFunction {
            wanted: name.into(),
            has: functions.keys().cloned().collect::<Vec<_>>().join(", "),
        })
    }

    /// Whether memory that holds nothing is filled with NaN.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        self.loaded.checked
    }

    /// What the code runs on, human-readable: the level of host code, or the GPU's name.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.loaded.engine {
            Engine::Cpu(loaded) => loaded.describe(),
            Engine::Cuda(loaded) => loaded.describe(),
        }
    }

    /// What the GPU that the code runs on does at most; none if it runs on the host.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn gpu_peak(&self) -> Result<Option<cuda::Peak>, Error> {
        match &self.loaded.engine {
            Engine::Cpu(_) => Ok(None),
            Engine::Cuda(loaded) => Ok(Some(loaded.peak()?)),
        }
    }

    /// Bytes that the host has left for states, if it says; a GPU says when it is asked for more than it has.
    #[must_use]
    pub fn available_memory(&self) -> Option<u64> {
        match &self.loaded.engine {
            Engine::Cpu(_) => memory::available_bytes(),
            Engine::Cuda(_) => None,
        }
    }

    /// A state of its own, all zeros, without room in its caches.
    ///
    /// # Errors
    ///
    /// No memory for it.
    pub fn state(&self) -> Result<State, Error> {
        self.state_with_cache(0)
    }

    /// A state of its own, all zeros, with room for so many tokens in its caches, in whole pages of
    /// [`PAGE_ROWS`](skipc_artifact::program::PAGE_ROWS).
    ///
    /// # Errors
    ///
    /// No memory for it.
    pub fn state_with_cache(&self, n_tokens: u32) -> Result<State, Error> {
        let cached = n_tokens
            .checked_next_multiple_of(BOUND_UNIT)
            .ok_or(Error::TooManyTokens { found: n_tokens.into(), limit: u32::MAX - BOUND_UNIT })?;
        let memory = match &self.loaded.engine {
            Engine::Cpu(loaded) => Memory::Cpu(Box::new(loaded.memories(cached)?)),
            Engine::Cuda(loaded) => Memory::Cuda(Box::new(loaded.memories(cached)?)),
        };
        Ok(State { memory, module: self.clone(), cached })
    }
}

impl State {
    /// The module that it is a state of.
    #[must_use]
    pub fn module(&self) -> &Module {
        &self.module
    }

    /// Runs a function over `n_tokens` tokens. `inputs` has the elements of every port that the caller gives, in
    /// little-endian bytes, of a set its rows in ascending order, of an input with the rows of a set that many; forced decisions, and forced choices, may be left out, and a state may be given, which is what the
    /// step then finds there. The result has the bytes of each role in `wanted`, in their order, cut to `n_tokens` rows or to those
    /// of its set. Steps that
    /// neither these nor a state need are left out.
    ///
    /// # Errors
    ///
    /// No such function or port, an input that is missing or has another size, too many tokens, no memory, or a fault of
    /// the device. Except for [`cuda::CudaError::Sticky`] the state stays usable.
    pub fn call(
        &mut self,
        function: &str,
        n_tokens: u32,
        inputs: &[(Role, Vec<u8>)],
        wanted: &[Role],
    ) -> Result<Vec<Vec<u8>>, Error> {
        let module = self.module.clone();
        let (name, function) = (function, module.function(function)?);
        let bounds = Bounds { tokens: n_tokens, cached: self.cached };
        let n_pending = n_pending(function, inputs);
        check_count(function, n_pending)?;
        let BoundInputs { inputs, n_logits } = bind_inputs(function, bounds, inputs)?;
        let mut buffers = Vec::new();
        for role in wanted {
            match function.interface.binding(role).filter(|_| is_result(role)) {
                // The count says how much of what follows means something.
                Some(Binding::Buffer(idx)) => buffers.extend([function.interface.count(role), Some(idx)]),
                Some(Binding::Always(_)) => {}
                None => return Err(no_port(role, "result")),
            }
        }
        let buffers: Vec<u32> = buffers.into_iter().flatten().collect();
        let steps = steps_for(module.program(), function, &buffers);
        let n_rows = n_tokens.max(n_pending);
        let run =
            Run { name, function, steps, n_tokens, n_rows, n_logits, inputs: &inputs, wanted: &buffers };
        let mut results = self.run(&run)?.into_iter();
        let result = |role: &Role| match (function.interface.binding(role), function.interface.count(role)) {
            (Some(Binding::Always(executes)), _) => vec![u8::from(executes); n_tokens as usize],
            (_, None) => results.next().unwrap_or_default(),
            (_, Some(_)) => {
                let count = results.next().and_then(|word| Some(u32::from_le_bytes(*word.first_chunk()?)));
                let mut rows = results.next().unwrap_or_default();
                rows.truncate(rows.len() / n_tokens.max(1) as usize * count.unwrap_or(0) as usize);
                rows
            }
        };
        Ok(wanted.iter().map(result).collect())
    }

    /// Rows of its caches: the tokens that it has room for.
    #[must_use]
    pub fn cached_rows(&self) -> u32 {
        self.cached
    }

    /// Copies rows `from …` of all caches to `to …`, `n_rows` of them.
    ///
    /// # Errors
    ///
    /// Rows past the caches; what the driver of a GPU says.
    pub fn copy_cached(&mut self, from: u32, to: u32, n_rows: u32) -> Result<(), Error> {
        let module = self.module.clone();
        if from.max(to).checked_add(n_rows).is_none_or(|end| end > self.cached) {
            let (what, expected) = ("end of the rows of a cache", self.cached as usize);
            return Err(Error::BatchShape { what, found: from.max(to) as usize + n_rows as usize, expected });
        }
        for state in module.program().states.iter().filter(|state| state.rows == RowBound::Cached) {
            let (begin, row_bytes) = (state.span(self.cached).start, state.bytes(1) as usize);
            let at = |row: u32| begin + row as usize * row_bytes;
            let n_bytes = n_rows as usize * row_bytes;
            match &mut self.memory {
                Memory::Cpu(memories) => memories.copy_state(at(from), at(to), n_bytes),
                Memory::Cuda(memories) => memories.copy_state(at(from), at(to), n_bytes)?,
            }
        }
        Ok(())
    }

    /// In a checked module, fills rows of all caches with what is NaN in every type, so that a step that reads what nobody has
    /// written shows; leaves them as they are in any other. Which rows hold something, the caller knows.
    ///
    /// # Errors
    ///
    /// Rows past the caches; what the driver of a GPU says.
    pub fn forget_cached(&mut self, rows: Range<u32>) -> Result<(), Error> {
        if !self.module.loaded.checked || rows.is_empty() {
            return Ok(());
        }
        if rows.end > self.cached {
            let (what, expected) = ("end of the rows of a cache", self.cached as usize);
            return Err(Error::BatchShape { what, found: rows.end as usize, expected });
        }
        let module = self.module.clone();
        for state in module.program().states.iter().filter(|state| state.rows == RowBound::Cached) {
            let (begin, row_bytes) = (state.span(self.cached).start, state.bytes(1) as usize);
            let at = |row: u32| begin + row as usize * row_bytes;
            let span = at(rows.start)..at(rows.end);
            match &mut self.memory {
                Memory::Cpu(memories) => memories.poison_state(span),
                Memory::Cuda(memories) => memories.poison_state(&span)?,
            }
        }
        Ok(())
    }

    /// The bytes of the state of this name, without a call; `None` if there is none, or it lies on a GPU.
    #[must_use]
    pub fn kept(&self, name: &str) -> Option<Vec<u8>> {
        let span = self.span_of(name)?;
        match &self.memory {
            Memory::Cpu(memories) => memories.states().get(span).map(<[u8]>::to_vec),
            Memory::Cuda(_) => None,
        }
    }

    /// Gives the state of this name other bytes, as many as it has; whether it did.
    pub fn keep(&mut self, name: &str, bytes: &[u8]) -> bool {
        let Some(span) = self.span_of(name).filter(|span| span.len() == bytes.len()) else { return false };
        match &mut self.memory {
            Memory::Cpu(memories) => match memories.states_mut().get_mut(span) {
                Some(state) => {
                    state.copy_from_slice(bytes);
                    true
                }
                None => false,
            },
            Memory::Cuda(_) => false,
        }
    }

    fn span_of(&self, name: &str) -> Option<Range<usize>> {
        let state = self.module.program().states.iter().find(|state| state.name == name)?;
        Some(state.span(self.cached))
    }

    /// Sets all states to zero.
    ///
    /// # Errors
    ///
    /// What the driver of a GPU says.
    pub fn clear(&mut self) -> Result<(), Error> {
        match &mut self.memory {
            Memory::Cpu(memories) => memories.clear(),
            Memory::Cuda(memories) => memories.clear()?,
        }
        Ok(())
    }

    /// How long each step of the last call took, in their order, 0 for those that were left out. Empty before the first
    /// call, and on a GPU, where a step of a function is no more than a part of one launch.
    #[must_use]
    pub fn step_times(&self) -> &[Duration] {
        match &self.memory {
            Memory::Cpu(memories) => memories.step_times(),
            Memory::Cuda(_) => &[],
        }
    }

    /// Keeps the calls of kernels from now on, or no longer. What it takes is a look at the clock before and after each, and
    /// on a GPU an event behind each.
    pub fn record_calls(&mut self, wanted: bool) {
        match &mut self.memory {
            Memory::Cpu(memories) => memories.record_calls(wanted),
            Memory::Cuda(memories) => memories.record_calls(wanted),
        }
    }

    /// The calls of the last run, thread by thread; none if nobody wanted them. On a GPU they are those of one thread, each
    /// of which begins where the one before it ended.
    #[must_use]
    pub fn calls(&self) -> &[cpu::Call] {
        match &self.memory {
            Memory::Cpu(memories) => memories.calls(),
            Memory::Cuda(memories) => memories.calls(),
        }
    }

    /// Fills buffers, runs all steps of a function, and returns what the buffers `wanted` then hold, both by index: for
    /// harnesses that run single kernels. A buffer with a row for each token has as many rows as `n_tokens`.
    ///
    /// # Errors
    ///
    /// No such function, more tokens than it takes, a buffer that is not there or cannot hold its input, no memory, or a
    /// fault of the device.
    pub fn run_buffers(
        &mut self,
        function: &str,
        n_tokens: u32,
        inputs: Vec<(u32, Vec<u8>)>,
        wanted: &[u32],
    ) -> Result<Vec<Vec<u8>>, Error> {
        let module = self.module.clone();
        let (name, function) = (function, module.function(function)?);
        check_count(function, n_tokens)?;
        let n_buffers = function.buffers.len();
        let missing = |&idx: &u32| Error::BatchShape {
            what: "index of a buffer",
            found: idx as usize,
            expected: n_buffers.saturating_sub(1),
        };
        for (idx, bytes) in &inputs {
            let buffer = function.buffers.get(*idx as usize).ok_or_else(|| missing(idx))?;
            let expected = buffer.bytes(Bounds { tokens: n_tokens, cached: self.cached }) as usize;
            if bytes.len() > expected {
                return Err(Error::BatchShape { what: "bytes of a buffer", found: bytes.len(), expected });
            }
        }
        if let Some(idx) = wanted.iter().find(|idx| **idx as usize >= n_buffers) {
            return Err(missing(idx));
        }
        let inputs: Vec<Input> = inputs.into_iter().map(|(buffer, bytes)| Input { buffer, bytes }).collect();
        let steps = (0..function.steps.len()).collect();
        let run = Run {
            name,
            function,
            steps,
            n_tokens,
            n_rows: n_tokens,
            n_logits: n_tokens,
            inputs: &inputs,
            wanted,
        };
        self.run(&run)
    }

    fn run(&mut self, run: &Run<'_>) -> Result<Vec<Vec<u8>>, Error> {
        let Loaded { engine, checked, .. } = &*self.module.loaded;
        match (engine, &mut self.memory) {
            (Engine::Cpu(loaded), Memory::Cpu(memories)) => loaded.run(memories, run, *checked),
            (Engine::Cuda(loaded), Memory::Cuda(memories)) => loaded.run(memories, run, *checked),
            // `Module::state` makes memory of the engine's kind.
            (Engine::Cpu(_), Memory::Cuda(_)) | (Engine::Cuda(_), Memory::Cpu(_)) => {
                Err(cuda::CudaError::Internal { what: "a state of another device" }.into())
            }
        }
    }
}

fn is_result(role: &Role) -> bool {
    matches!(role.direction(), Direction::Out | Direction::Kept)
}

/// The steps that these buffers and the states need: those that write them, and those that write what these read. A
/// kernel may leave rows of what it writes as they are, so all that write a buffer are needed.
fn steps_for(program: &Program, function: &Function, wanted: &[u32]) -> Vec<usize> {
    let kept = function.interface.buffers(Direction::Kept).map(|(_, idx)| idx);
    let mut needed = vec![false; function.buffers.len()];
    let need = |needed: &mut [bool], buffer: u32| {
        if let Some(is_needed) = needed.get_mut(buffer as usize) {
            *is_needed = true;
        }
    };
    wanted.iter().copied().chain(kept).for_each(|buffer| need(&mut needed, buffer));
    let mut steps = Vec::new();
    for (idx, step) in function.steps.iter().enumerate().rev() {
        let writes = program.entries.get(step.kernel as usize).map_or(&[][..], |entry| &entry.writes);
        let is_needed = writes.iter().any(|param| match step.args.get(*param as usize) {
            Some(Arg::Buffer(buffer)) => needed.get(*buffer as usize) == Some(&true),
            _ => false,
        });
        if is_needed {
            steps.push(idx);
            for arg in &step.args {
                match arg {
                    Arg::Buffer(buffer) => need(&mut needed, *buffer),
                    Arg::Constant(_) => {}
                }
            }
        }
    }
    steps.reverse();
    steps
}
