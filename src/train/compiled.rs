//! Functions of training as compiled code, over states of the runtime.

use skipc_artifact::interface::{Binding, Direction, Role};
use skipc_ir::interp::{Datum, FlatBatch, Results};
use skipc_runtime::{Module, State};

use super::machine::{FirstState, Function, Machine, OfPart};
use super::times::Times;
use crate::error::Error;

/// A compiled program with its states.
pub(super) struct Compiled {
    state: State,
    times: Times,
}

impl Compiled {
    /// A program with its first states.
    ///
    /// # Errors
    /// No memory.
    pub(super) fn new(module: &Module, states: Vec<FirstState>) -> Result<Compiled, Error> {
        let state = module.state().map_err(|error| runtime(&error))?;
        let mut compiled = Compiled { state, times: Times::default() };
        for FirstState { name, values, .. } in states {
            if let Some(values) = values {
                compiled.set_state(&name, &values);
            }
        }
        Ok(compiled)
    }
}

fn runtime(error: &skipc_runtime::Error) -> Error {
    Error::internal("train::step", error)
}

fn words(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|value| (*value as u32).to_le_bytes()).collect()
}

fn bytes(datum: &Datum<f32>) -> Vec<u8> {
    match datum {
        Datum::Real { data, .. } => data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Datum::Ints(values) => words(values),
        Datum::Mask(mask) => flags(mask),
        Datum::Set { .. } | Datum::Partition { .. } => Vec::new(),
    }
}

fn flags(mask: &[bool]) -> Vec<u8> {
    mask.iter().map(|flag| u8::from(*flag)).collect()
}

fn reals(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

impl Machine<f32> for Compiled {
    fn run(
        &mut self,
        function: Function,
        inputs: Vec<(String, Datum<f32>)>,
        batch: &FlatBatch,
        replayed: Option<&OfPart<'_>>,
    ) -> Result<Results<f32>, Error> {
        let module = self.state.module().clone();
        let Ok(called) = module.function(function.name()) else { return Ok(Vec::new()) };
        let n_tokens = batch.positions.len();
        let mut given = Vec::new();
        for (role, _) in called.interface.buffers(Direction::In) {
            let value = match role {
                Role::Tokens => Some(words(&batch.tokens)),
                Role::Positions => Some(words(&batch.positions)),
                Role::Sequences => Some(words(&batch.sequences)),
                Role::Forced { router } => {
                    replayed.and_then(|of_part| of_part.executed(*router as usize)).map(flags)
                }
                Role::ForcedWanted { router } => {
                    replayed.and_then(|of_part| of_part.wanted(*router as usize)).map(flags)
                }
                Role::Input { name } => {
                    inputs.iter().find(|(own, _)| own == name).map(|(_, datum)| bytes(datum))
                }
                _ => None,
            };
            given.extend(value.map(|value| (role.clone(), value)));
        }
        let is_result = |role: &Role| {
            matches!(
                role,
                Role::Logits | Role::Decision { .. } | Role::WantedMask { .. } | Role::Result { .. }
            )
        };
        let wanted: Vec<Role> = called
            .interface
            .ports
            .iter()
            .map(|port| &port.role)
            .filter(|role| is_result(role))
            .cloned()
            .collect();
        let found = self.state.call(function.name(), n_tokens as u32, &given, &wanted);
        let found = found.map_err(|error| runtime(&error))?;
        let entries = &module.program().entries;
        for (step, time) in called.steps.iter().zip(self.state.step_times()) {
            let entry = entries.get(step.kernel as usize);
            // Evaluations are no part of a step.
            let is_timed = function != Function::Score && !time.is_zero();
            if let Some(entry) = entry.filter(|_| is_timed) {
                self.times.add(function, &entry.symbol, *time);
            }
        }
        let datum = |role: &Role, bytes: Vec<u8>| match (role, called.interface.binding(role)) {
            (Role::Decision { .. } | Role::WantedMask { .. }, _) => {
                Datum::Mask(bytes.iter().map(|flag| *flag != 0).collect())
            }
            (_, Some(Binding::Buffer(idx))) => {
                let cols = called.buffers.get(idx as usize).map_or(1, |buffer| buffer.cols as usize);
                Datum::Real { cols, data: reals(&bytes) }
            }
            (_, Some(Binding::Always(_)) | None) => Datum::Real { cols: 1, data: Vec::new() },
        };
        let results = wanted.iter().zip(found);
        Ok(results.map(|(role, bytes)| (role.clone(), datum(role, bytes))).collect())
    }

    fn state(&self, name: &str) -> Option<Vec<f32>> {
        self.state.kept(name).map(|bytes| reals(&bytes))
    }

    fn set_state(&mut self, name: &str, values: &[f32]) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.state.keep(name, &bytes);
    }

    fn describe(&self) -> String {
        self.state.module().describe()
    }

    fn times(&self) -> Option<&Times> {
        Some(&self.times)
    }
}
