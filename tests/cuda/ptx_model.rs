//! A whole program for CUDA on the PTX machine: what the runtime does on a GPU, kernel after kernel.

use std::collections::BTreeMap;
use std::sync::Arc;

use skipc_artifact::bundle;
use skipc_artifact::interface::{Role, RouterPorts};
use skipc_artifact::program::{Arg, BOUND_UNIT, Bounds, Function, Launch, Program, SCORE, Step};
use skipc_artifact::target::Target;
use skipc_ptx::machine::{self, Counters, Memory};
use skipc_ptx::syntax;
use skipc_runtime::Model;

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

/// What a run gave.
pub(crate) struct Outputs {
    /// `[n_tokens, vocab_size]`.
    pub(crate) logits: Vec<f32>,
    /// `[routers][n_tokens]`.
    pub(crate) gates: Vec<Vec<bool>>,
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

    fn function(&self) -> &Function {
        &self.program.functions[SCORE]
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
        let function = self.function();
        let interface = &function.interface;
        let n = tokens.len() as u32;
        let bound = n.next_power_of_two().max(BOUND_UNIT);
        let mut arena = vec![POISON; (function.fixed_bytes + function.row_bytes * u64::from(bound)) as usize];
        let mut put = |buffer: u32, bytes: Vec<u8>| {
            let at = function.buffers[buffer as usize]
                .arena_span(Bounds { tokens: bound, cached: 0 })
                .expect("no state");
            arena[at][..bytes.len()].copy_from_slice(&bytes);
        };
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let inputs = [
            (Role::TokenCount, words(&[n])),
            (Role::Tokens, words(tokens)),
            (Role::Positions, words(&(0..n).collect::<Vec<u32>>())),
            (Role::Sequences, words(&vec![0; tokens.len()])),
            (Role::UseForced, words(&[u32::from(routing.is_some())])),
        ];
        for (role, bytes) in inputs.into_iter().chain(named.iter().cloned()) {
            put(interface.buffer(&role).expect("a port"), bytes);
        }
        for (router, decisions) in interface.routers().iter().zip(routing.into_iter().flatten()) {
            if let RouterPorts::Routed { forced, .. } = router {
                put(*forced, decisions.iter().map(|executes| u8::from(*executes)).collect());
            }
        }
        let mut counters = BTreeMap::new();
        for step in &function.steps {
            let Some(counted) = self.step(step, &mut arena, bound, seed) else { continue };
            counters.entry(self.program.entries[step.kernel as usize].symbol.clone()).or_insert(counted);
        }
        let used = |buffer: u32| {
            let buffer = &function.buffers[buffer as usize];
            &arena[buffer.arena_span(Bounds { tokens: bound, cached: 0 }).expect("no state")]
                [..buffer.bytes(Bounds { tokens: n, cached: 0 }) as usize]
        };
        let number = |word: &[u8]| f32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        let logits =
            used(interface.buffer(&Role::Logits).expect("a port")).chunks_exact(4).map(number).collect();
        let gates = interface.routers().into_iter().map(|router| match router {
            RouterPorts::Constant(executes) => vec![executes; tokens.len()],
            RouterPorts::Routed { decision, .. } => used(decision).iter().map(|byte| *byte != 0).collect(),
        });
        Outputs { logits, gates: gates.collect(), counters }
    }

    /// Runs a kernel over the arena. Each argument is a buffer of its own, so that a write beside it is found.
    fn step(&self, step: &Step, arena: &mut [u8], bound: u32, seed: u64) -> Option<Counters> {
        let entry = &self.program.entries[step.kernel as usize];
        let Launch::Cuda { threads, shared_bytes, .. } = entry.launch else {
            panic!("{} is not for CUDA", entry.symbol)
        };
        let [x, y] = entry.launch.grid(entry.extent.at_most(bound), PROCESSORS)?;
        let mut memory = Memory::default();
        let mut addresses: BTreeMap<Arg, u64> = BTreeMap::new();
        let mut args = Vec::new();
        for arg in &step.args {
            let address =
                *addresses.entry(*arg).or_insert_with(|| memory.add(self.buffer(*arg, arena, bound)));
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
                let at = self.function().buffers[*idx as usize]
                    .arena_span(Bounds { tokens: bound, cached: 0 })
                    .expect("no state");
                arena[at].copy_from_slice(&buffer.bytes);
            }
        }
        Some(counters)
    }

    fn buffer(&self, arg: Arg, arena: &[u8], bound: u32) -> machine::Buffer {
        match arg {
            Arg::Buffer(idx) => {
                let buffer = &self.function().buffers[idx as usize];
                let bytes =
                    arena[buffer.arena_span(Bounds { tokens: bound, cached: 0 }).expect("no state")].to_vec();
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
