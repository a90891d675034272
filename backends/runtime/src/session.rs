//! A program on a device, ready to run.

use std::sync::Arc;
use std::time::Duration;

use skipc_artifact::bundle;
use skipc_artifact::image::HostLevel;
use skipc_artifact::program::{Gate, Program, Purpose};
use skipc_artifact::target::Target;

use crate::batch::{Batch, Outputs};
use crate::error::{self, Error};
use crate::model::Model;
use crate::threads::Threads;
use crate::{cpu, cuda};

/// Where to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// On the host's processor.
    Cpu,
    /// On the first NVIDIA GPU.
    Cuda,
}

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads on the CPU. The results do not depend on it.
    pub threads: usize,
    /// Fill all memory with a pattern that is NaN in every type before each run, and look for writes outside of a
    /// kernel's buffers after each of its runs (on a GPU: outside of the arena, after the last). Slow.
    pub checked: bool,
    /// Highest level of host code to use, to compare levels on one machine.
    pub max_level: HostLevel,
    /// To score tokens, or to continue them: some models decide otherwise when they generate.
    pub purpose: Purpose,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: Threads::available(),
            checked: false,
            max_level: HostLevel::Avx512Bf16,
            purpose: Purpose::Score,
        }
    }
}

/// A loaded program with its memory. Runs one batch at a time; keeps memory for the largest so far.
#[derive(Debug)]
pub struct Session {
    program: Arc<Program>,
    engine: Engine,
}

#[derive(Debug)]
enum Engine {
    Cpu(cpu::Engine),
    Cuda(cuda::Engine),
}

impl Session {
    /// Prepares `model` for `device`.
    ///
    /// # Errors
    ///
    /// No program for the device, a model that cannot generate, no device, or a program that does not fit itself.
    pub fn new(model: &Model, device: Device, options: Options) -> Result<Self, Error> {
        let targets = model.targets();
        let missing =
            |wanted: &str| Error::NoProgram { wanted: wanted.into(), has: error::list_targets(&targets) };
        match device {
            Device::Cpu => {
                if !targets.contains(&Target::Cpu) {
                    return Err(missing("cpu"));
                }
                let program = Arc::new(read_program(model, &Target::Cpu, options.purpose)?);
                let engine = Engine::Cpu(cpu::Engine::new(model, Arc::clone(&program), options)?);
                Ok(Self { program, engine })
            }
            Device::Cuda => {
                if !targets.iter().any(|target| matches!(target, Target::Cuda(_))) {
                    return Err(missing("cuda:sm_80"));
                }
                let gpu = cuda::Gpu::first()?;
                let target = gpu.choose(&targets)?;
                let program = Arc::new(read_program(model, target, options.purpose)?);
                let engine = Engine::Cuda(cuda::Engine::new(gpu, model, Arc::clone(&program), options)?);
                Ok(Self { program, engine })
            }
        }
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// What the code runs on, for people: the level of host code, or the GPU's name.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.engine {
            Engine::Cpu(engine) => engine.describe(),
            Engine::Cuda(engine) => engine.describe(),
        }
    }

    /// How long each step of the last run took, in their order. Empty before the first run, and on a GPU, where a step
    /// of a program is no more than a part of one launch.
    #[must_use]
    pub fn step_times(&self) -> &[Duration] {
        match &self.engine {
            Engine::Cpu(engine) => engine.step_times(),
            Engine::Cuda(_) => &[],
        }
    }

    /// Runs one batch.
    ///
    /// # Errors
    ///
    /// A batch that the program does not take, no memory, or a fault of the device. Except for
    /// [`cuda::CudaError::Sticky`] the session stays usable.
    pub fn run(&mut self, batch: &Batch) -> Result<Outputs, Error> {
        let layout = &self.program.layout;
        batch.check(layout)?;
        let n_tokens = batch.tokens.len() as u32;
        let inputs = inputs(batch, &self.program);
        let mut wanted = vec![layout.io.logits];
        for gate in &layout.io.gates {
            if let Gate::Routed { mask, count, wanted: limited, .. } = *gate {
                wanted.extend([mask, count]);
                wanted.extend(limited);
            }
        }
        let results = self.engine.run(n_tokens, &inputs, &wanted)?;
        let mut outputs = outputs(n_tokens, &self.program, results);
        if batch.routing.is_some() {
            // What the routers wanted has nothing to do with what was replayed.
            outputs.overflow.fill(0);
        }
        Ok(outputs)
    }

    /// Fills buffers, runs all steps, and returns what the buffers `wanted` then hold, both by index, for harnesses
    /// that run single kernels. A buffer with a row for each token has as many rows as `n_tokens`.
    ///
    /// # Errors
    ///
    /// More tokens than the program takes, a buffer that is not there or cannot hold its input, no memory, or a fault
    /// of the device.
    pub fn run_buffers(
        &mut self,
        n_tokens: u32,
        inputs: Vec<(u32, Vec<u8>)>,
        wanted: &[u32],
    ) -> Result<Vec<Vec<u8>>, Error> {
        let layout = &self.program.layout;
        if n_tokens > layout.max_tokens {
            return Err(Error::TooManyTokens { found: n_tokens.into(), limit: layout.max_tokens });
        }
        let n_buffers = layout.buffers.len();
        let missing = |&idx: &u32| Error::BatchShape {
            what: "index of a buffer",
            found: idx as usize,
            expected: n_buffers.saturating_sub(1),
        };
        for (idx, bytes) in &inputs {
            let buffer = layout.buffers.get(*idx as usize).ok_or_else(|| missing(idx))?;
            let expected = buffer.bytes(n_tokens) as usize;
            if bytes.len() > expected {
                return Err(Error::BatchShape { what: "bytes of a buffer", found: bytes.len(), expected });
            }
        }
        if let Some(idx) = wanted.iter().find(|idx| **idx as usize >= n_buffers) {
            return Err(missing(idx));
        }
        let inputs: Vec<Input> = inputs.into_iter().map(|(buffer, bytes)| Input { buffer, bytes }).collect();
        self.engine.run(n_tokens, &inputs, wanted)
    }
}

/// A model that is causal generates with the program that scores.
fn read_program(model: &Model, target: &Target, purpose: Purpose) -> Result<Program, Error> {
    let artifact = model.artifact();
    let purpose = match purpose {
        Purpose::Generate if bundle::has_program(artifact, target, Purpose::Generate) => Purpose::Generate,
        Purpose::Generate if !artifact.manifest().promises.causal => return Err(Error::NotCausal),
        Purpose::Generate | Purpose::Score => Purpose::Score,
    };
    Ok(bundle::read_program(artifact, target, purpose)?)
}

impl Engine {
    fn run(&mut self, n_tokens: u32, inputs: &[Input], wanted: &[u32]) -> Result<Vec<Vec<u8>>, Error> {
        match self {
            Engine::Cpu(engine) => engine.run(n_tokens, inputs, wanted),
            Engine::Cuda(engine) => engine.run(n_tokens, inputs, wanted),
        }
    }
}

/// Bytes to put into a buffer before a run.
#[derive(Debug)]
pub(crate) struct Input {
    /// Index of the buffer.
    pub(crate) buffer: u32,
    /// What its first bytes become.
    pub(crate) bytes: Vec<u8>,
}

fn inputs(batch: &Batch, program: &Program) -> Vec<Input> {
    let io = &program.layout.io;
    let words = |buffer, words: &[u32]| Input { buffer, bytes: bytemuck::cast_slice(words).to_vec() };
    let positions: Vec<u32> = batch.lengths.iter().flat_map(|&length| 0..length).collect();
    let sequences = batch.lengths.iter().zip(0u32..);
    let sequences: Vec<u32> =
        sequences.flat_map(|(&length, idx)| std::iter::repeat_n(idx, length as usize)).collect();
    let mut inputs = vec![
        words(io.n_tokens, &[batch.tokens.len() as u32]),
        words(io.tokens, &batch.tokens),
        words(io.positions, &positions),
        words(io.sequences, &sequences),
        words(io.use_forced, &[u32::from(batch.routing.is_some())]),
    ];
    for (gate, decisions) in io.gates.iter().zip(batch.routing.iter().flatten()) {
        if let Gate::Routed { forced, .. } = *gate {
            let bytes = decisions.iter().map(|&decision| u8::from(decision != 0)).collect();
            inputs.push(Input { buffer: forced, bytes });
        }
    }
    inputs
}

/// `results` are the bytes of the buffers in the order in which [`Session::run`] asks for them.
fn outputs(n_tokens: u32, program: &Program, results: Vec<Vec<u8>>) -> Outputs {
    let mut results = results.into_iter();
    let mut next = || results.next().unwrap_or_default();
    let logits = next().chunks_exact(4).map(|word| f32::from_bits(u32_of(word))).collect();
    let (mut gates, mut counts, mut overflow) = (Vec::new(), Vec::new(), Vec::new());
    for gate in &program.layout.io.gates {
        match *gate {
            Gate::Constant(executes) => {
                gates.push(vec![u8::from(executes); n_tokens as usize]);
                counts.push(if executes { n_tokens } else { 0 });
                overflow.push(0);
            }
            Gate::Routed { wanted, .. } => {
                gates.push(next());
                let executed = u32_of(&next());
                counts.push(executed);
                overflow.push(wanted.map_or(0, |_| u32_of(&next()).saturating_sub(executed)));
            }
        }
    }
    Outputs { logits, gates, counts, overflow }
}

fn u32_of(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_ne_bytes)
}
