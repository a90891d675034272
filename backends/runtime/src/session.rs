//! The simple way to run a model: sequences in, logits and decisions out.

use std::time::Duration;

use half::bf16;
use skipc_artifact::interface::{Role, RouterPorts};
use skipc_artifact::program::{Function, Program, SCORE};
use skipc_artifact::target::DType;

use crate::batch::{Batch, Outputs, row_buffer};
use crate::choices;
use crate::device::Device;
use crate::error::Error;
use crate::model::Model;
use crate::module::{Module, State};
use crate::options::Options;

/// A module with a state of its own that runs batches through one function, [`SCORE`] unless another is chosen. Runs
/// one batch at a time; keeps memory for the largest so far.
#[derive(Debug)]
pub struct Session {
    state: State,
    function: String,
    /// Of the last batch, summed over its steps.
    step_times: Vec<Duration>,
}

impl Session {
    /// Prepares `model` for `device`.
    ///
    /// # Errors
    ///
    /// As [`Module::load`].
    pub fn new(model: &Model, device: Device, options: Options) -> Result<Self, Error> {
        Self::of_module(&Module::load(model, device, options)?)
    }

    /// A session of its own on a module that is loaded.
    ///
    /// # Errors
    ///
    /// No memory, or a program that does not score.
    pub fn of_module(module: &Module) -> Result<Self, Error> {
        module.function(SCORE)?;
        Ok(Self { state: module.state()?, function: SCORE.to_owned(), step_times: Vec::new() })
    }

    /// Chooses the function that runs from now on.
    ///
    /// # Errors
    ///
    /// [`Error::NoFunction`].
    pub fn choose(&mut self, function: &str) -> Result<(), Error> {
        self.state.module().function(function)?;
        function.clone_into(&mut self.function);
        Ok(())
    }

    /// The module that it runs.
    #[must_use]
    pub fn module(&self) -> &Module {
        self.state.module()
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Program {
        self.state.module().program()
    }

    /// The function that runs.
    ///
    /// # Panics
    ///
    /// Never: it was looked up when it was chosen.
    #[must_use]
    pub fn function(&self) -> &Function {
        &self.program().functions[&self.function]
    }

    /// The name of the function that runs.
    #[must_use]
    pub fn function_name(&self) -> &str {
        &self.function
    }

    /// What the code runs on, human-readable: the level of host code, or the GPU's name.
    #[must_use]
    pub fn describe(&self) -> String {
        self.state.module().describe()
    }

    /// As [`State::step_times`], of the last batch; sums where it took several steps.
    #[must_use]
    pub fn step_times(&self) -> &[Duration] {
        &self.step_times
    }

    /// As [`State::record_calls`].
    pub fn record_calls(&mut self, wanted: bool) {
        self.state.record_calls(wanted);
    }

    /// As [`State::calls`].
    #[must_use]
    pub fn calls(&self) -> &[crate::Call] {
        self.state.calls()
    }

    /// Runs one batch. One that has more tokens than a step takes runs in several, cut between its sequences: the results are the
    /// same, as no sequence looks at another.
    ///
    /// # Errors
    ///
    /// A batch that the program does not take, no memory, or a fault of the device. Except for
    /// [`crate::cuda::CudaError::Sticky`] the session stays usable.
    pub fn run(&mut self, batch: &Batch) -> Result<Outputs, Error> {
        self.outputs(batch, &[Role::Logits], false)
    }

    /// As [`Session::run`], and which choices tokens got in layers of experts.
    ///
    /// # Errors
    ///
    /// As [`Session::run`].
    pub fn run_with_choices(&mut self, batch: &Batch) -> Result<Outputs, Error> {
        self.outputs(batch, &[Role::Logits], true)
    }

    /// Runs one batch as far as decisions need it: the logits of the result are empty.
    ///
    /// # Errors
    ///
    /// As [`Session::run`].
    pub fn decide(&mut self, batch: &Batch) -> Result<Outputs, Error> {
        self.outputs(batch, &[], false)
    }

    /// As [`State::run_buffers`], on the function that runs.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn run_buffers(
        &mut self,
        n_tokens: u32,
        inputs: Vec<(u32, Vec<u8>)>,
        wanted: &[u32],
    ) -> Result<Vec<Vec<u8>>, Error> {
        let results = self.state.run_buffers(&self.function, n_tokens, inputs, wanted);
        self.step_times.clear();
        self.step_times.extend_from_slice(self.state.step_times());
        results
    }

    fn outputs(&mut self, batch: &Batch, first: &[Role], with_choices: bool) -> Result<Outputs, Error> {
        batch.check(self.function())?;
        self.step_times.clear();
        let mut whole = Outputs::default();
        for step in batch.steps(self.function()) {
            let outputs = self.step(&step, first, with_choices)?;
            self.step_times.resize(self.state.step_times().len(), Duration::ZERO);
            for (sum, time) in self.step_times.iter_mut().zip(self.state.step_times()) {
                *sum += *time;
            }
            whole.extend(outputs);
        }
        Ok(whole)
    }

    /// One step of a batch that was checked.
    fn step(&mut self, batch: &Batch, first: &[Role], with_choices: bool) -> Result<Outputs, Error> {
        let function = self.function();
        let n_tokens = batch.n_tokens() as u32;
        let routers = function.interface.routers();
        let mut wanted = first.to_vec();
        for (router, ports) in (0..).zip(&routers) {
            wanted.push(Role::Decision { router });
            if let RouterPorts::Routed { wanted: limited, .. } = ports {
                wanted.push(Role::Executed { router });
                wanted.extend(limited.map(|_| Role::Wanted { router }));
            }
        }
        let n_others = wanted.len();
        let ports = function.interface.choices();
        let has_hashes = batch.experts.is_some() && ports.iter().any(|(_, port)| port.forced.is_none());
        if with_choices || has_hashes {
            wanted.extend(ports.into_iter().map(|(role, _)| role));
        }
        let inputs = inputs(batch, function, &routers);
        let mut results = self.state.call(&self.function, n_tokens, &inputs, &wanted)?;
        let of_layers = results.split_off(n_others);
        let mut outputs = outputs(n_tokens, &routers, wanted.iter().zip(results));
        outputs.choices = choices::of_results(self.function(), of_layers);
        if let Some(replayed) = batch.experts.as_deref().filter(|_| has_hashes) {
            choices::check_hashed(self.function(), replayed, &outputs.choices)?;
        }
        if !with_choices {
            outputs.choices.clear();
        }
        if batch.routing.is_some() {
            // What the routers wanted has nothing to do with what was replayed.
            outputs.overflow.fill(0);
        }
        Ok(outputs)
    }
}

fn inputs(batch: &Batch, function: &Function, routers: &[RouterPorts]) -> Vec<(Role, Vec<u8>)> {
    let words = |words: &[u32]| bytemuck::cast_slice(words).to_vec();
    let positions: Vec<u32> = batch.lengths.iter().flat_map(|&length| 0..length).collect();
    let sequences = batch.lengths.iter().zip(0u32..);
    let sequences: Vec<u32> =
        sequences.flat_map(|(&length, idx)| std::iter::repeat_n(idx, length as usize)).collect();
    let first = match row_buffer(function) {
        None => (Role::Tokens, words(&batch.tokens)),
        Some(buffer) => (Role::Rows, numbers(buffer.dtype, &batch.rows)),
    };
    let mut inputs = vec![first, (Role::Positions, words(&positions)), (Role::Sequences, words(&sequences))];
    for ((router, ports), decisions) in (0..).zip(routers).zip(batch.routing.iter().flatten()) {
        if matches!(ports, RouterPorts::Routed { .. }) {
            let bytes = decisions.iter().map(|&decision| u8::from(decision != 0)).collect();
            inputs.push((Role::Forced { router }, bytes));
        }
    }
    for ((role, port), choices) in
        function.interface.choices().into_iter().zip(batch.experts.iter().flatten())
    {
        if let (Role::Choices { layer, of }, Some(_)) = (role, port.forced) {
            let lists = choices.to_lists(choices::places(function, port));
            inputs.push((Role::ForcedChoices { layer, of }, lists));
        }
    }
    inputs
}

/// Numbers as a buffer of this type holds them.
fn numbers(dtype: DType, numbers: &[f32]) -> Vec<u8> {
    match dtype {
        DType::Bf16 => {
            let halves: Vec<u16> = numbers.iter().map(|number| bf16::from_f32(*number).to_bits()).collect();
            bytemuck::cast_slice(&halves).to_vec()
        }
        _ => bytemuck::cast_slice(numbers).to_vec(),
    }
}

/// Results by role, those of a router after its decisions.
fn outputs<'r>(
    n_tokens: u32,
    routers: &[RouterPorts],
    results: impl Iterator<Item = (&'r Role, Vec<u8>)>,
) -> Outputs {
    let count = |router: &RouterPorts| match router {
        RouterPorts::Constant(true) => n_tokens,
        RouterPorts::Constant(false) | RouterPorts::Routed { .. } => 0,
    };
    let mut outputs = Outputs {
        logits: Vec::new(),
        gates: Vec::new(),
        counts: routers.iter().map(count).collect(),
        overflow: vec![0; routers.len()],
        choices: Vec::new(),
    };
    for (role, bytes) in results {
        match *role {
            Role::Logits => {
                outputs.logits = bytes.chunks_exact(4).map(|word| f32::from_bits(u32_of(word))).collect();
            }
            Role::Decision { .. } => outputs.gates.push(bytes),
            Role::Executed { router } => outputs.counts[router as usize] = u32_of(&bytes),
            Role::Wanted { router } => {
                let executed = outputs.counts[router as usize];
                outputs.overflow[router as usize] = u32_of(&bytes).saturating_sub(executed);
            }
            _ => {}
        }
    }
    outputs
}

fn u32_of(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_ne_bytes)
}
