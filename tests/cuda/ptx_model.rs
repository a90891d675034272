//! A whole program for CUDA on the PTX machine: what the runtime does on a GPU, kernel after kernel.

use std::collections::BTreeMap;
use std::sync::Arc;

use skipc_artifact::interface::{ChoicePort, Role, RouterPorts};
use skipc_artifact::program::{
    Arg, BOUND_UNIT, Bounds, Buffer, Function, Launch, PAGE_ROWS, Program, RowBound, SCORE, STEP, Step,
    Storage,
};
use skipc_artifact::target::Target;
use skipc_artifact::{bundle, pending};
use skipc_ir::interp::FlatBatch;
use skipc_ptx::machine::{self, Counters, Memory};
use skipc_ptx::syntax;
use skipc_runtime::Model;
use skipc_runtime::choices::{self, Choices};

/// Multiprocessors of the device: few, so that persistent blocks make several tiles each.
const PROCESSORS: u32 = 3;

/// What memory holds before anything is written: NaN as f32 and bf16, out of range as an index.
const POISON: u8 = 0xFF;

/// A program of an artefact with its kernels ready to run.
pub(crate) struct PtxModel {
    program: Program,
    constants: Vec<u8>,
    kernels: BTreeMap<String, Arc<machine::Program>>,
}

/// The memory of the device that a function's buffers lie in.
pub(crate) struct Memories {
    arena: Vec<u8>,
    states: Vec<u8>,
    bounds: Bounds,
}

/// Tokens, each with its place: those of one sequence from some position on in a step, whole sequences elsewhere.
struct ChunkInput<'a> {
    positions: Vec<u32>,
    sequences: Vec<u32>,
    /// All 0 where rows stand for them.
    tokens: &'a [u32],
    /// The bytes of inputs of a name of their own.
    named: &'a [(Role, Vec<u8>)],
    routing: Option<&'a [Vec<bool>]>,
}

impl<'a> ChunkInput<'a> {
    /// Tokens of one sequence from position `first` on.
    fn of_sequence(first: u32, tokens: &'a [u32]) -> Self {
        let positions: Vec<u32> = (first..first + tokens.len() as u32).collect();
        Self { sequences: vec![0; positions.len()], positions, tokens, named: &[], routing: None }
    }

    fn replays_choices(&self) -> bool {
        self.named.iter().any(|(role, _)| matches!(role, Role::ForcedChoices { .. }))
    }

    /// What the caller and the runtime give, where caches have so many rows.
    fn inputs(&self, cached: u32) -> Vec<(Role, Vec<u8>)> {
        let n = self.tokens.len() as u32;
        let behind = self.positions.last().map_or(0, |last| last + 1);
        let n_pages = cached / PAGE_ROWS;
        let place = |position: u32| (n_pages - 1 - position / PAGE_ROWS) * PAGE_ROWS + position % PAGE_ROWS;
        let mut inputs = vec![
            (Role::TokenCount, vec![n]),
            (Role::Tokens, self.tokens.to_vec()),
            (Role::Positions, self.positions.clone()),
            (Role::Sequences, self.sequences.clone()),
            (Role::UseForced, vec![self.routing.is_some().into()]),
            (Role::UseForcedChoices, vec![self.replays_choices().into()]),
        ];
        if n_pages > 0 {
            inputs.extend([
                (Role::Requests, vec![0; self.tokens.len()]),
                (Role::Places, self.positions.iter().map(|position| place(*position)).collect()),
                (Role::Margins, vec![0f32.to_bits(); self.tokens.len()]),
                // Pages past the last token are none.
                (Role::Pages, (0..behind.div_ceil(PAGE_ROWS)).map(|page| n_pages - 1 - page).collect()),
                (Role::LogitRows, (0..n).collect()),
                (Role::LogitCount, vec![n]),
            ]);
        }
        let bytes = |words: Vec<u32>| words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let words = inputs.into_iter().map(|(role, words)| (role, bytes(words)));
        words.chain(self.named.iter().cloned()).collect()
    }
}

/// The most rows of a cache that a step may compute, if some wait.
fn n_pending(function: &Function, inputs: &[(Role, Vec<u8>)]) -> u32 {
    let words = |role: Role| -> Vec<u32> {
        let given = inputs.iter().find(|(other, _)| *other == role).map(|(_, bytes)| bytes.as_chunks().0);
        given.unwrap_or_default().iter().map(|word| u32::from_le_bytes(*word)).collect()
    };
    let Some(table) = function.interface.buffer(&Role::Pending) else { return 0 };
    let n_routers = function.buffers[table as usize].cols as usize - 1;
    let [pending, positions, sequences] = [Role::Pending, Role::Positions, Role::Sequences].map(words);
    pending::most_rows(&pending, n_routers, &positions, &sequences)
}

/// What a run gave.
#[derive(Default)]
pub(crate) struct Outputs {
    /// `[n_tokens, vocab_size]`.
    pub(crate) logits: Vec<f32>,
    /// `[routers][n_tokens]`.
    pub(crate) gates: Vec<Vec<bool>>,
    /// By layer of experts.
    pub(crate) choices: Vec<Choices>,
    /// What each kernel did, by its symbol, in its first step.
    pub(crate) counters: BTreeMap<String, Counters>,
}

impl PtxModel {
    pub(crate) fn new(model: &Model, arch: &str) -> Self {
        let target = Target::Cuda(arch.to_owned());
        let program = bundle::read_program(model.artifact(), &target).expect("a program");
        let (ptx, _) = bundle::read_cuda_code(model.artifact(), &program).expect("code");
        let module =
            syntax::parse(std::str::from_utf8(ptx).expect("text")).unwrap_or_else(|error| panic!("{error}"));
        let load = |name: &str| {
            let kernel = machine::Program::of_module(&module, name).unwrap_or_else(|error| panic!("{error}"));
            (name.to_owned(), Arc::new(kernel))
        };
        let kernels = program.entries.iter().map(|entry| load(&entry.symbol)).collect();
        let constants = bundle::read_constants(model.artifact(), &program).expect("constants").to_vec();
        Self { program, constants, kernels }
    }

    pub(crate) fn function(&self, name: &str) -> &Function {
        &self.program.functions[name]
    }

    /// Scores one sequence; `routing` replays decisions, `[routers][n_tokens]`.
    pub(crate) fn run(&self, tokens: &[u32], routing: Option<&[Vec<bool>]>, seed: u64) -> Outputs {
        self.run_with(tokens, &[], routing, seed)
    }

    /// As [`PtxModel::run`], with the bytes of inputs of a name of their own.
    pub(crate) fn run_with(
        &self,
        tokens: &[u32],
        named: &[(Role, Vec<u8>)],
        routing: Option<&[Vec<bool>]>,
        seed: u64,
    ) -> Outputs {
        let batch = ChunkInput { named, routing, ..ChunkInput::of_sequence(0, tokens) };
        self.call(SCORE, &batch, &mut self.states(0), seed)
    }

    /// Scores whole sequences of token ids, or of rows that stand for them.
    pub(crate) fn run_batch(&self, batch: &FlatBatch, seed: u64) -> Outputs {
        let words = |numbers: &[i64]| numbers.iter().map(|number| *number as u32).collect::<Vec<u32>>();
        let rows = batch.rows.iter().flat_map(|number| number.to_le_bytes()).collect();
        let rows = (Role::Rows, rows);
        let (tokens, positions) = (words(&batch.tokens), words(&batch.positions));
        let (tokens, named) = match batch.rows.is_empty() {
            true => (tokens, Vec::new()),
            false => (vec![0; positions.len()], vec![rows]),
        };
        let sequences = words(&batch.sequences);
        let input = ChunkInput { positions, sequences, tokens: &tokens, named: &named, routing: None };
        self.call(SCORE, &input, &mut self.states(0), seed)
    }

    /// Inputs that replay choices of experts where sequences are scored.
    pub(crate) fn choices_to_replay(&self, layers: &[Choices]) -> Vec<(Role, Vec<u8>)> {
        let function = self.function(SCORE);
        let input = |((role, port), layer): ((Role, ChoicePort), &Choices)| {
            let Role::Choices { layer: idx, of } = role else { return None };
            let cols = function.buffers[port.forced? as usize].cols;
            Some((Role::ForcedChoices { layer: idx, of }, layer.to_lists(cols)))
        };
        function.interface.choices().into_iter().zip(layers).filter_map(input).collect()
    }

    /// Steps through one sequence in pieces of so many tokens, whose pages lie in the caches from the last to the first.
    /// The results are those of all pieces, the counters those of the last.
    pub(crate) fn run_in_steps(
        &self,
        tokens: &[u32],
        pieces: &[usize],
        routing: Option<&[Vec<bool>]>,
        seed: u64,
    ) -> Outputs {
        assert_eq!(pieces.iter().sum::<usize>(), tokens.len(), "the pieces are the sequence");
        let mut states = self.states((tokens.len() as u32).next_multiple_of(BOUND_UNIT));
        let mut all = Outputs::default();
        let mut first = 0;
        for n in pieces {
            let span = first..first + n;
            let routing: Option<Vec<Vec<bool>>> =
                routing.map(|routing| routing.iter().map(|gates| gates[span.clone()].to_vec()).collect());
            let batch = ChunkInput {
                routing: routing.as_deref(),
                ..ChunkInput::of_sequence(first as u32, &tokens[span])
            };
            let found = self.call(STEP, &batch, &mut states, seed);
            all.logits.extend(found.logits);
            all.gates.resize(found.gates.len(), Vec::new());
            all.gates.iter_mut().zip(found.gates).for_each(|(all, found)| all.extend(found));
            choices::extend_all(&mut all.choices, &found.choices);
            all.counters = found.counters;
            first += n;
        }
        all
    }

    /// States as they are at first, but that rows of caches hold anything: no token was stored in them yet.
    pub(crate) fn states(&self, cached: u32) -> Memories {
        let mut memories = self.zero_states(cached);
        for state in self.program.states.iter().filter(|state| state.rows == RowBound::Cached) {
            memories.states[state.span(cached)].fill(POISON);
        }
        memories
    }

    /// States as they are at first.
    pub(crate) fn zero_states(&self, cached: u32) -> Memories {
        let states = vec![0; self.program.state_bytes(cached) as usize];
        Memories { arena: Vec::new(), states, bounds: Bounds { tokens: 0, cached } }
    }

    /// A new arena with these inputs, as far as the function has ports for them.
    pub(crate) fn begin(
        &self,
        function: &Function,
        n: u32,
        inputs: &[(Role, Vec<u8>)],
        memories: &mut Memories,
    ) {
        let bound = n.max(n_pending(function, inputs)).next_power_of_two().max(BOUND_UNIT);
        memories.bounds.tokens = bound;
        memories.arena =
            vec![POISON; (function.fixed_bytes + function.row_bytes * u64::from(bound)) as usize];
        for (role, bytes) in inputs {
            if let Some(idx) = function.interface.buffer(role) {
                let buffer = &function.buffers[idx as usize];
                self.bytes(buffer, memories)[..bytes.len()].copy_from_slice(bytes);
            }
        }
    }

    /// Runs all steps; what each kernel did in its first.
    pub(crate) fn steps(
        &self,
        function: &Function,
        memories: &mut Memories,
        seed: u64,
    ) -> BTreeMap<String, Counters> {
        let mut counters = BTreeMap::new();
        for step in &function.steps {
            let Some(counted) = self.step(function, step, memories, seed) else { continue };
            counters.entry(self.program.entries[step.kernel as usize].symbol.clone()).or_insert(counted);
        }
        counters
    }

    /// The first rows of a buffer, if it has a row for each token, or all of it.
    pub(crate) fn used(&self, function: &Function, idx: u32, n: u32, memories: &mut Memories) -> Vec<u8> {
        let buffer = &function.buffers[idx as usize];
        let of = buffer.bytes(Bounds { tokens: n, ..memories.bounds }) as usize;
        self.bytes(buffer, memories)[..of].to_vec()
    }

    /// Runs a function over one batch, in a new arena.
    fn call(&self, name: &str, batch: &ChunkInput<'_>, memories: &mut Memories, seed: u64) -> Outputs {
        let function = self.function(name);
        let interface = &function.interface;
        let n = batch.tokens.len() as u32;
        let mut inputs = batch.inputs(memories.bounds.cached);
        for (router, decisions) in (0..).zip(batch.routing.into_iter().flatten()) {
            let bytes = decisions.iter().map(|executes| u8::from(*executes)).collect();
            inputs.push((Role::Forced { router }, bytes));
        }
        self.begin(function, n, &inputs, memories);
        let counters = self.steps(function, memories, seed);
        let buffer = |idx: u32| &function.buffers[idx as usize];
        let mut used = |idx: u32| self.used(function, idx, n, memories);
        let number = |word: &[u8; 4]| f32::from_le_bytes(*word);
        let logits = used(interface.buffer(&Role::Logits).expect("a port"));
        let logits = logits.as_chunks().0.iter().map(number).collect();
        let gates = interface.routers().into_iter().map(|router| match router {
            RouterPorts::Constant(executes) => vec![executes; n as usize],
            RouterPorts::Routed { decision, .. } => used(decision).iter().map(|byte| *byte != 0).collect(),
        });
        let gates = gates.collect();
        let of_layer = |(_, port): (Role, ChoicePort)| {
            Choices::of_lists(port.of, buffer(port.buffer).cols, &used(port.buffer))
        };
        let choices = interface.choices().into_iter().map(of_layer).collect();
        Outputs { logits, gates, choices, counters }
    }

    /// The bytes of a buffer.
    fn bytes<'m>(&self, buffer: &Buffer, memories: &'m mut Memories) -> &'m mut [u8] {
        let bounds = memories.bounds;
        match buffer.storage {
            Storage::Step(_) => &mut memories.arena[buffer.arena_span(bounds).expect("a place in the arena")],
            Storage::State(idx) => {
                &mut memories.states[self.program.states[idx as usize].span(bounds.cached)]
            }
        }
    }

    /// Runs a kernel over the memories. Each argument is a buffer of its own, so that a write beside it is found.
    fn step(&self, function: &Function, step: &Step, memories: &mut Memories, seed: u64) -> Option<Counters> {
        let entry = &self.program.entries[step.kernel as usize];
        let Launch::Cuda { threads, shared_bytes, .. } = entry.launch else {
            panic!("{} is not for CUDA", entry.symbol)
        };
        let [x, y] = entry.launch.grid(entry.extent.at_most(memories.bounds.tokens), PROCESSORS)?;
        let mut memory = Memory::default();
        let mut addresses: BTreeMap<Arg, u64> = BTreeMap::new();
        let mut args = Vec::new();
        for arg in &step.args {
            let address =
                *addresses.entry(*arg).or_insert_with(|| memory.add(self.operand(function, *arg, memories)));
            args.push(machine::Arg::U64(address));
        }
        let launch = machine::Launch {
            dynamic_shared: shared_bytes,
            seed,
            ..machine::Launch::new([x, y, 1], threads, args)
        };
        let ran = machine::run(&self.kernels[&entry.symbol], &launch, &mut memory);
        let counters = ran.unwrap_or_else(|fault| panic!("{}: {fault}", step.origin));
        let order: BTreeMap<u64, Arg> = addresses.into_iter().map(|(arg, address)| (address, arg)).collect();
        for (arg, buffer) in order.values().zip(memory.into_buffers()) {
            if let Arg::Buffer(idx) = arg {
                self.bytes(&function.buffers[*idx as usize], memories).copy_from_slice(&buffer.bytes);
            }
        }
        Some(counters)
    }

    fn operand(&self, function: &Function, arg: Arg, memories: &mut Memories) -> machine::Buffer {
        match arg {
            Arg::Buffer(idx) => {
                let buffer = &function.buffers[idx as usize];
                let bytes = self.bytes(buffer, memories).to_vec();
                machine::Buffer { name: buffer.name.clone(), bytes, writable: true }
            }
            Arg::Constant(idx) => {
                let constant = &self.program.constants[idx as usize];
                let at = constant.offset as usize;
                let bytes = self.constants[at..at + constant.bytes() as usize].to_vec();
                machine::Buffer { name: constant.name.clone(), bytes, writable: false }
            }
        }
    }
}
