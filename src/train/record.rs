//! What a run was, as arrays and tensors: to compare it with another, and to replay its decisions.

use std::path::Path;

use serde_json::json;
use skipc_ir::interp::Number;
use skipc_runtime::npy;

use super::machine::Replayed;
use super::{Engine, Evaluation, Part, StepRecord, Tensors, checkpoint};
use crate::diagnostic::Diagnostic;
use crate::error::Error;

/// Files of a record.
pub const FILES: [&str; 7] = [
    "steps.json",
    "order.npy",
    "wanted.npy",
    "gates.npy",
    "weights.safetensors",
    "grads.safetensors",
    "after.safetensors",
];

/// A record in the making.
#[derive(Default)]
pub struct Record {
    steps: Vec<StepRecord>,
    order: Vec<i32>,
    wanted: Vec<u8>,
    gates: Vec<u8>,
    before: Tensors,
    gradients: Tensors,
}

impl Record {
    /// Begins with these weights.
    pub fn new(before: Tensors) -> Record {
        Record { before, ..Record::default() }
    }

    /// Keeps what a step found, before its update.
    pub fn step<N: Number>(
        &mut self,
        engine: &Engine<N>,
        (batch, order): (&Part, &[usize]),
        (wanted, executed): (&[Vec<bool>], &[Vec<bool>]),
        width: usize,
    ) {
        if self.order.is_empty() {
            self.gradients = engine.gradients();
        }
        self.order.extend(order.iter().map(|idx| i32::try_from(*idx).unwrap_or(i32::MAX)));
        for (masks, into) in [(wanted, &mut self.wanted), (executed, &mut self.gates)] {
            for mask in masks {
                for row in &batch.rows {
                    into.extend(mask[row.clone()].iter().map(|it| u8::from(*it)));
                    into.resize(into.len() + width - row.len(), 0);
                }
            }
        }
    }

    /// Keeps the line of a step.
    pub fn line(&mut self, step: StepRecord) {
        self.steps.push(step);
    }

    /// Writes all files.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(
        &self,
        folder: &Path,
        after: &Tensors,
        eval: Option<&Evaluation>,
        [batch, width]: [usize; 2],
    ) -> Result<(), Error> {
        std::fs::create_dir_all(folder).map_err(|error| Error::io(folder, &error))?;
        let steps = self.steps.len();
        let text = serde_json::to_string_pretty(&json!({"steps": self.steps, "eval": eval}));
        let text = text.map_err(|error| Error::internal("json::write", &error))? + "\n";
        let path = folder.join("steps.json");
        let wrote = skipc_artifact::replace::bytes(&path, text.as_bytes());
        wrote.map_err(|error| Error::in_artifact(&path, &error))?;
        npy::write(&folder.join("order.npy"), &[steps as u64, batch as u64], &self.order)?;
        let routers = self.gates.len() / (steps * batch * width).max(1);
        let shape = [steps, routers, batch, width].map(|size| size as u64);
        npy::write(&folder.join("wanted.npy"), &shape, &self.wanted)?;
        npy::write(&folder.join("gates.npy"), &shape, &self.gates)?;
        checkpoint::write_tensors(&folder.join("weights.safetensors"), &self.before, None)?;
        checkpoint::write_tensors(&folder.join("grads.safetensors"), &self.gradients, None)?;
        checkpoint::write_tensors(&folder.join("after.safetensors"), after, None)
    }
}

/// Decisions of all steps of a record.
pub struct Replay {
    wanted: Vec<i64>,
    gates: Vec<i64>,
    /// Steps, routers, batch, inputs of a row.
    shape: [usize; 4],
}

impl Replay {
    /// Reads the decisions in a folder; `shape` is that of the run.
    ///
    /// # Errors
    /// `train::routing` for those of another run.
    pub fn read(folder: &Path, shape: [usize; 4]) -> Result<Replay, Error> {
        let read = |name: &str| {
            let path = folder.join(name);
            let array = npy::read_ints(&path, &[4])?;
            let got: Vec<usize> = array.shape.iter().map(|size| *size as usize).collect();
            if got[0] < shape[0] || got[1..] != shape[1..] {
                let message = format!("{} is {got:?}, and this run takes {shape:?}", path.display());
                let help = "decisions are [steps, routers, batch, seq], as `--record` writes them";
                return Err(Error::from(Diagnostic::new("train::routing", message).help(help)));
            }
            Ok(array.data)
        };
        Ok(Replay { wanted: read("wanted.npy")?, gates: read("gates.npy")?, shape })
    }

    /// The decisions of a step.
    pub fn step(&self, step: u64, batch: &Part) -> Replayed {
        let [_, routers, rows, width] = self.shape;
        let of = |all: &[i64], router: usize| -> Vec<bool> {
            let masks = batch.rows.iter().enumerate().flat_map(|(row, inputs)| {
                let at = ((step as usize * routers + router) * rows + row) * width;
                all[at..][..inputs.len()].iter().map(|it| *it != 0)
            });
            masks.collect()
        };
        let both = |all: &[i64]| (0..routers).map(|router| of(all, router)).collect();
        Replayed { wanted: both(&self.wanted), executed: both(&self.gates) }
    }
}
