//! Runs programs on an NVIDIA GPU.
//!
//! The driver is found when it is first needed, so that everything else builds and starts on machines without one.
//! `driver` holds all calls into it, and with them the `unsafe` of this half of the crate.
//!
//! The steps that a run needs are captured once into a graph, for each function and power-of-two bound on tokens. A run
//! writes its inputs, launches that graph and reads its results; between the first and the last of these the host waits
//! for nothing. Each state has a stream of its own. Where times of steps are wanted, events are part of the graph.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use skipc_artifact::bundle;
use skipc_artifact::program::{Arg, BOUND_UNIT, Bounds, Function, Launch, Program, Step};
use skipc_artifact::target::Target;

use crate::call::{Region, Run, place};
use crate::cpu::Call;
use crate::error::Error;
use crate::model::Model;

#[expect(unsafe_code, reason = "every call of the CUDA driver is one into foreign code")]
mod driver;
pub(crate) mod fault;
mod peak;

use driver::{Context, Event, Graph, Memory, Module, Stream};
pub use fault::CudaError;
pub use peak::Peak;

/// Bytes before and after the arena that nothing may write to.
const GUARD: u64 = 4096;

/// What memory is filled with before a checked run: NaN as f32 and bf16, out of range as an index.
const POISON: u8 = 0xff;

/// A GPU with its driver.
#[derive(Debug)]
pub struct Gpu {
    context: Context,
}

impl Gpu {
    /// The GPU of this ordinal among those that the driver shows (`CUDA_VISIBLE_DEVICES` says which).
    ///
    /// # Errors
    ///
    /// [`CudaError::NoDriver`], [`CudaError::NoDevice`], [`CudaError::BrokenDriver`] or [`CudaError::DriverTooOld`].
    pub fn open(ordinal: u32) -> Result<Self, CudaError> {
        Ok(Self { context: Context::open(ordinal)? })
    }

    /// Its name, human-readable.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.context.name
    }

    /// The target whose code suits this GPU best.
    ///
    /// # Errors
    ///
    /// [`CudaError::NoCode`] if it runs none of them.
    pub fn choose<'a>(&self, targets: &'a [Target]) -> Result<&'a Target, CudaError> {
        let compute = self.context.compute;
        choose(targets, compute).ok_or_else(|| CudaError::NoCode {
            device: format!("{} (sm_{}{})", self.context.name, compute.0, compute.1),
            has: crate::error::list_targets(targets),
        })
    }
}

/// What an architecture name such as `sm_90a` says: major and minor version, and whether code for it runs there only.
fn parse_arch(target: &Target) -> Option<((u32, u32), bool)> {
    let Target::Cuda(arch) = target else { return None };
    let digits = arch.strip_prefix("sm_")?;
    let (number, exact) = match digits.strip_suffix('a') {
        Some(number) => (number, true),
        None => (digits, false),
    };
    let number: u32 = number.parse().ok()?;
    Some(((number / 10, number % 10), exact))
}

/// Code runs on its own and on newer architectures, or, with an `a`, on its own only. The newest that runs is best,
/// and of two equal ones that with the `a`.
fn choose(targets: &[Target], compute: (u32, u32)) -> Option<&Target> {
    let runs = |&(arch, exact): &((u32, u32), bool)| if exact { arch == compute } else { arch <= compute };
    let runnable = targets.iter().filter_map(|target| Some((parse_arch(target).filter(runs)?, target)));
    runnable.max_by_key(|(arch, _)| *arch).map(|(_, target)| target)
}

/// A program with its code and constants on a GPU.
#[derive(Debug)]
pub(crate) struct Loaded {
    // Fields are dropped in this order: what lives in the context goes before it.
    constants: Memory,
    module: Module,
    gpu: Gpu,
    program: Arc<Program>,
}

/// The memory of one state of a module, with what it has captured. It goes before the module that it belongs to.
#[derive(Debug)]
pub(crate) struct Memories {
    graphs: BTreeMap<GraphKey, Captured>,
    /// Whether the times of steps are wanted, and those of the last run.
    calls: Option<Vec<Call>>,
    arena: Option<Memory>,
    /// Guarded, as the arena is; none if the program has no states.
    states: Option<Memory>,
    /// Rows of the caches among the states.
    cached: u32,
    stream: Stream,
    /// The fault that ended this state, if one did.
    dead: Option<String>,
}

/// Function, bound on tokens, and which steps.
type GraphKey = (String, u32, Vec<usize>);

/// A graph, with an event before its first step and one behind each if times are wanted.
#[derive(Debug)]
struct Captured {
    graph: Graph,
    events: Vec<Event>,
}

impl Captured {
    /// When each of these steps ran, after all work is done: a step begins when the one before it has ended.
    fn calls(&self, steps: &[usize]) -> Result<Vec<Call>, CudaError> {
        let Some((first, behind)) = self.events.split_first() else { return Ok(Vec::new()) };
        let mut begin = 0;
        let mut calls = Vec::with_capacity(steps.len());
        for (step, event) in steps.iter().zip(behind) {
            let end = first.nanoseconds_until(event)?.max(begin);
            calls.push(Call { step: *step as u32, thread: 0, begin, end });
            begin = end;
        }
        Ok(calls)
    }
}

impl Memories {
    /// Keeps the times of steps from now on, or no longer. Graphs are captured anew.
    pub(crate) fn record_calls(&mut self, wanted: bool) {
        if self.calls.is_some() != wanted {
            self.graphs.clear();
        }
        self.calls = wanted.then(Vec::new);
    }

    pub(crate) fn calls(&self) -> &[Call] {
        self.calls.as_deref().unwrap_or_default()
    }

    /// Sets the states to zero.
    pub(crate) fn clear(&self) -> Result<(), CudaError> {
        let Some(states) = &self.states else { return Ok(()) };
        states.fill(&self.stream, 0)?;
        self.stream.synchronize()
    }

    /// Copies `n_bytes` of the states.
    pub(crate) fn copy_state(&self, from: usize, to: usize, n_bytes: usize) -> Result<(), CudaError> {
        let Some(states) = &self.states else { return Ok(()) };
        let mut bytes = vec![0; n_bytes];
        states.read(&self.stream, GUARD + from as u64, &mut bytes)?;
        self.stream.synchronize()?;
        states.write(&self.stream, GUARD + to as u64, &bytes)?;
        self.stream.synchronize()
    }

    /// Fills a part of the states with what is NaN in every type.
    pub(crate) fn poison_state(&self, span: &Range<usize>) -> Result<(), CudaError> {
        let Some(states) = &self.states else { return Ok(()) };
        states.write(&self.stream, GUARD + span.start as u64, &vec![POISON; span.len()])?;
        self.stream.synchronize()
    }

    fn region(&self, region: Region) -> Option<&Memory> {
        match region {
            Region::Arena => self.arena.as_ref(),
            Region::States => self.states.as_ref(),
        }
    }
}

impl Loaded {
    /// Loads code and constants onto the GPU.
    pub(crate) fn new(gpu: Gpu, model: &Model, program: Arc<Program>) -> Result<Self, Error> {
        gpu.context.make_current()?;
        let (ptx, cubin) = bundle::read_cuda_code(model.artifact(), &program)?;
        let mut module = load_code(&gpu, &program.target, ptx, cubin)?;
        let stream = Stream::new(&gpu.context)?;
        let bytes = bundle::read_constants(model.artifact(), &program)?;
        let constants = Memory::new(&gpu.context, "constants", bytes.len() as u64)?;
        constants.write(&stream, 0, bytes)?;
        stream.synchronize()?;
        for entry in &program.entries {
            let shared_bytes = match entry.launch {
                Launch::Cuda { shared_bytes, .. } => shared_bytes,
                Launch::Host { .. } => 0,
            };
            module.add_function(&entry.symbol, shared_bytes)?;
        }
        Ok(Self { constants, module, gpu, program })
    }

    /// What the GPU does at most.
    pub(crate) fn peak(&self) -> Result<Peak, CudaError> {
        peak::of(&self.gpu.context)
    }

    pub(crate) fn describe(&self) -> String {
        format!("{}, {}", self.program.target, self.gpu.name())
    }

    /// Memory for a state of its own.
    pub(crate) fn memories(&self, cached: u32) -> Result<Memories, Error> {
        let stream = Stream::new(&self.gpu.context)?;
        let states = match self.program.state_bytes(cached) {
            0 => None,
            bytes => Some(Memory::new(&self.gpu.context, "the states", bytes + 2 * GUARD)?),
        };
        let memories = Memories {
            graphs: BTreeMap::new(),
            calls: None,
            arena: None,
            states,
            cached,
            stream,
            dead: None,
        };
        memories.clear()?;
        Ok(memories)
    }

    /// Writes the inputs, runs the steps, and reads the wanted buffers.
    pub(crate) fn run(
        &self,
        memories: &mut Memories,
        run: &Run<'_>,
        checked: bool,
    ) -> Result<Vec<Vec<u8>>, Error> {
        if let Some(fault) = &memories.dead {
            return Err(CudaError::Sticky { fault: fault.clone() }.into());
        }
        let result = self.run_graph(memories, run, checked);
        if let Err(Error::Cuda(CudaError::Sticky { fault })) = &result {
            memories.dead = Some(fault.clone());
        }
        result
    }

    fn run_graph(
        &self,
        memories: &mut Memories,
        run: &Run<'_>,
        checked: bool,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let Run { function, n_rows, .. } = *run;
        let bound = bound_for(n_rows, function.max_tokens);
        let bounds = Bounds { tokens: bound, cached: memories.cached };
        let key = (run.name.to_owned(), bound, run.steps.clone());
        self.prepare(memories, run, &key)?;
        let (Some(arena), Some(captured)) = (&memories.arena, memories.graphs.get(&key)) else {
            return Err(CudaError::Internal { what: "a graph was not kept" }.into());
        };
        let stream = &memories.stream;
        if checked {
            arena.fill(stream, POISON)?;
            poison_guards(memories)?;
        }
        for input in run.inputs {
            if let Some((region, span)) = place(&self.program, function, input.buffer, bounds)
                && let Some(memory) = memories.region(region)
            {
                memory.write(stream, GUARD + span.start as u64, &input.bytes)?;
            }
        }
        captured.graph.launch(stream)?;
        let mut results = Vec::new();
        for &idx in run.wanted {
            let mut bytes = vec![0; run.result_bytes(idx, bounds)];
            if let Some((region, span)) = place(&self.program, function, idx, bounds)
                && let Some(memory) = memories.region(region)
            {
                memory.read(stream, GUARD + span.start as u64, &mut bytes)?;
            }
            results.push(bytes);
        }
        stream.synchronize()?;
        let calls = captured.calls(&run.steps)?;
        if let Some(kept) = &mut memories.calls {
            *kept = calls;
        }
        if checked {
            let arena_bytes = function.fixed_bytes + function.row_bytes * u64::from(bound);
            check_guards(memories, Region::Arena, arena_bytes)?;
            check_guards(memories, Region::States, self.program.state_bytes(memories.cached))?;
        }
        Ok(results)
    }

    /// Makes arena and graph for a run, unless they are there.
    fn prepare(&self, memories: &mut Memories, run: &Run<'_>, key: &GraphKey) -> Result<(), CudaError> {
        let (function, bound) = (run.function, key.1);
        let bytes = function.fixed_bytes + function.row_bytes * u64::from(bound) + 2 * GUARD;
        if memories.arena.as_ref().is_none_or(|arena| arena.bytes() < bytes) {
            // Graphs hold addresses of the old arena. Both go first, so that the new one has their memory.
            memories.graphs.clear();
            memories.arena = None;
            let arena = Memory::new(&self.gpu.context, "the arena", bytes)?;
            arena.fill(&memories.stream, 0)?;
            memories.arena = Some(arena);
        }
        if !memories.graphs.contains_key(key) {
            let steps = run.steps.iter().filter_map(|idx| function.steps.get(*idx));
            let n_events = if memories.calls.is_some() { run.steps.len() + 1 } else { 0 };
            let events = (0..n_events).map(|_| Event::new(&self.gpu.context));
            let events = events.collect::<Result<Vec<_>, _>>()?;
            let stream = &memories.stream;
            let graph = stream.capture(|| {
                let mut marks = events.iter();
                let mut mark = || marks.next().map_or(Ok(()), |event| event.record(stream, true));
                mark()?;
                steps.clone().try_for_each(|step| {
                    self.launch(memories, function, step, bound)?;
                    mark()
                })
            })?;
            memories.graphs.insert(key.clone(), Captured { graph, events });
        }
        Ok(())
    }

    fn launch(
        &self,
        memories: &Memories,
        function: &Function,
        step: &Step,
        bound: u32,
    ) -> Result<(), CudaError> {
        let Some(entry) = self.program.entries.get(step.kernel as usize) else { return Ok(()) };
        let Launch::Cuda { threads, shared_bytes, .. } = entry.launch else { return Ok(()) };
        let rows = entry.extent.at_most(bound);
        let Some(grid) = entry.launch.grid(rows, self.gpu.context.processors) else { return Ok(()) };
        let address = |arg: &Arg| match *arg {
            Arg::Buffer(idx) => {
                let bounds = Bounds { tokens: bound, cached: memories.cached };
                let (region, span) = place(&self.program, function, idx, bounds)?;
                Some(memories.region(region)?.address() + GUARD + span.start as u64)
            }
            Arg::Constant(idx) => {
                let constant = self.program.constants.get(idx as usize);
                constant.map(|constant| self.constants.address() + constant.offset)
            }
        };
        let args: Vec<u64> = step.args.iter().filter_map(address).collect();
        self.module.launch(&memories.stream, &entry.symbol, grid, threads, shared_bytes, &args)
    }
}

/// Fills the guards of the states, which a run must leave as they are; those of the arena are filled with it.
fn poison_guards(memories: &Memories) -> Result<(), CudaError> {
    let Some(states) = &memories.states else { return Ok(()) };
    for at in [0, states.bytes().saturating_sub(GUARD)] {
        states.write(&memories.stream, at, &[POISON; GUARD as usize])?;
    }
    Ok(())
}

/// Checks that the poison on both sides of a memory is as it was.
fn check_guards(memories: &Memories, region: Region, inner: u64) -> Result<(), Error> {
    let Some(memory) = memories.region(region) else { return Ok(()) };
    for (at, from) in [(0, -(GUARD as i64)), (GUARD + inner, inner as i64)] {
        let mut guard = vec![0; GUARD as usize];
        memory.read(&memories.stream, at, &mut guard)?;
        memories.stream.synchronize()?;
        if let Some(idx) = guard.iter().position(|&byte| byte != POISON) {
            let (memory, at) = (region.name(), from + idx as i64);
            let (kernel, origin) = ("some".into(), "the program".into());
            return Err(Error::StrayWrite { kernel, origin, memory, at });
        }
    }
    Ok(())
}

/// The smallest power of two that is not below `n_rows`, but no more than the program's own limit needs.
fn bound_for(n_rows: u32, max_tokens: u32) -> u32 {
    let limit = max_tokens.next_multiple_of(BOUND_UNIT).max(BOUND_UNIT);
    n_rows.next_power_of_two().clamp(BOUND_UNIT, limit)
}

/// The cubin if this GPU runs it as it is, else the PTX.
fn load_code(gpu: &Gpu, target: &Target, ptx: &[u8], cubin: Option<&[u8]>) -> Result<Module, CudaError> {
    let compute = gpu.context.compute;
    let native =
        parse_arch(target).is_some_and(|((major, minor), _)| major == compute.0 && minor <= compute.1);
    match cubin {
        Some(cubin) if native => Module::from_cubin(&gpu.context, cubin),
        _ => Module::from_ptx(&gpu.context, ptx),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(targets: &[&str], compute: (u32, u32)) -> Option<String> {
        let targets: Vec<Target> = targets.iter().map(|name| name.parse().unwrap()).collect();
        choose(&targets, compute).map(ToString::to_string)
    }

    #[test]
    fn the_newest_code_that_runs_is_chosen() {
        let all = ["cpu", "cuda:sm_80", "cuda:sm_90a", "cuda:sm_90", "cuda:sm_100a"];
        assert_eq!(chosen(&all, (9, 0)).as_deref(), Some("cuda:sm_90a"));
        assert_eq!(chosen(&all, (8, 6)).as_deref(), Some("cuda:sm_80"));
        assert_eq!(chosen(&all, (10, 3)).as_deref(), Some("cuda:sm_90"), "an `a` runs on its own only");
        assert_eq!(chosen(&all, (10, 0)).as_deref(), Some("cuda:sm_100a"));
        assert_eq!(chosen(&all, (7, 5)), None);
        assert_eq!(chosen(&["cpu", "cuda:sm_x"], (9, 0)), None);
    }

    #[test]
    fn bounds_are_powers_of_two_up_to_the_limit() {
        let bounds: Vec<_> = [0, 1, 64, 65, 1000, 1025, 1500].iter().map(|&n| bound_for(n, 1500)).collect();
        assert_eq!(bounds, [64, 64, 64, 128, 1024, 1536, 1536]);
        assert_eq!(bound_for(0, 0), 64);
    }

    #[test]
    fn a_machine_without_a_driver_says_so() {
        // On a machine with a GPU this opens it; there is no third outcome but a driver too old or without a device.
        match Gpu::open(0) {
            Ok(gpu) => assert!(!gpu.name().is_empty()),
            Err(error) => {
                assert!(matches!(
                    error.code(),
                    "cuda::no_driver" | "cuda::no_device" | "cuda::driver_too_old"
                ));
                assert_eq!(error.kind(), crate::kind::Kind::Unsupported);
            }
        }
    }
}
