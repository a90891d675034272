//! The log of a training run: JSON, a line for each step and each evaluation.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use skipc_artifact::regular;

use crate::error::Error;
use crate::train::{Evaluation, StepRecord};

/// Bytes of a log at most.
const LOG_BYTES: u64 = 1 << 32;

/// A log that goes on.
pub(super) struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// The log in a folder, of which lines before `step` stay.
    pub(super) fn open(folder: &Path, step: u64) -> Result<Log, Error> {
        let path = folder.join("log.jsonl");
        let kept: String = match step {
            0 => String::new(),
            step => lines(&path)?
                .into_iter()
                .filter(|line| line["step"].as_u64().is_some_and(|of| of < step))
                .map(|line| format!("{line}\n"))
                .collect(),
        };
        let wrote = skipc_artifact::replace::bytes(&path, kept.as_bytes());
        wrote.map_err(|error| Error::in_artifact(&path, &error))?;
        let file = OpenOptions::new().append(true).open(&path).map_err(|error| Error::io(&path, &error))?;
        Ok(Log { path, file })
    }

    fn line(&mut self, line: &Value) -> Result<(), Error> {
        writeln!(self.file, "{line}").map_err(|error| Error::io(&self.path, &error))
    }

    /// A step: its number, from 0, and what it found, with the share of the multiply-adds of a model that skips nothing.
    pub(super) fn step(
        &mut self,
        step: u64,
        done: &StepRecord,
        share: f64,
        tokens_per_second: f64,
    ) -> Result<(), Error> {
        let mut line = json!({"step": step, "multiply_adds": share, "tokens_per_second": tokens_per_second});
        if let (Value::Object(line), Ok(Value::Object(done))) = (&mut line, serde_json::to_value(done)) {
            line.extend(done);
        }
        self.line(&line)
    }

    /// The model after so many steps on what is held out.
    pub(super) fn eval(&mut self, steps: u64, eval: &Evaluation) -> Result<(), Error> {
        self.line(&json!({"step": steps - 1, "eval": eval}))
    }

    /// All lines.
    pub(super) fn read(&self) -> Result<Vec<Value>, Error> {
        lines(&self.path)
    }
}

/// The lines of a log; one that was cut short when a run was killed is none.
fn lines(path: &Path) -> Result<Vec<Value>, Error> {
    let text = regular::read_text(path, LOG_BYTES).map_err(|error| Error::io(path, &error))?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}
