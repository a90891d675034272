//! Generation, piece by piece.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use numpy::PyArrayDyn;
use pyo3::prelude::*;
use skipc_artifact::program::SCORE;
use skipc_runtime::Error;
use skipc_runtime::decode::{self, Decoder, Engine, EngineOptions, Event, Finish, Handle, Request, Sampling};
use skipc_runtime::inputs::Sequences;

use crate::arrays::{array, ints};
use crate::error::without_lock;
use crate::model::Model;

/// A continuation that is computed as it is asked for. It has caches of its own, so that what comes does not depend on what
/// else runs.
#[pyclass(frozen, module = "skipc._native")]
pub(crate) struct Stream {
    running: Mutex<Running>,
}

struct Running {
    engine: Engine<Box<dyn Decoder + Send>>,
    handle: Handle,
    /// Decisions since the last piece, `[routers][n]`.
    gates: Vec<Vec<u8>>,
    is_over: bool,
}

/// How a continuation is chosen and when it ends.
#[derive(FromPyObject)]
pub(crate) struct Settings {
    #[pyo3(item)]
    max_new_tokens: u32,
    #[pyo3(item)]
    temperature: f64,
    #[pyo3(item)]
    top_k: u32,
    #[pyo3(item)]
    top_p: f64,
    #[pyo3(item)]
    min_p: f64,
    #[pyo3(item)]
    repetition_penalty: f64,
    #[pyo3(item)]
    seed: u64,
    #[pyo3(item)]
    stop: Vec<String>,
}

/// What a piece is made of: the new token and its text, or why there are no more; and the decisions that were made for it.
struct Piece {
    token: Option<u32>,
    text: String,
    gates: Vec<Vec<u8>>,
    finish: Option<Finish>,
}

impl Running {
    /// Does as much as can be done at once: reads an event, or runs a step. Gives a piece if there is one.
    fn advance(&mut self) -> Result<Option<Piece>, Error> {
        match self.handle.try_next() {
            None => {
                self.engine.step()?;
                Ok(None)
            }
            Some(Event::Ran { gates, .. }) => {
                self.gates.resize(gates.len(), Vec::new());
                self.gates.iter_mut().zip(gates).for_each(|(all, gates)| all.extend(gates));
                Ok(None)
            }
            Some(Event::Token { token, text, .. }) => {
                Ok(Some(Piece { token: Some(token), text, gates: self.take_gates(), finish: None }))
            }
            Some(Event::Finished { text, reason }) => {
                self.is_over = true;
                Ok(Some(Piece { token: None, text, gates: self.take_gates(), finish: Some(reason) }))
            }
            Some(Event::Failed(error)) => {
                self.is_over = true;
                Err(error)
            }
        }
    }

    fn take_gates(&mut self) -> Vec<Vec<u8>> {
        self.gates.iter_mut().map(std::mem::take).collect()
    }
}

/// Token, text, gates `[routers, n]`, and why there are no more.
type PieceParts<'py> = (Option<u32>, String, Bound<'py, PyArrayDyn<u8>>, Option<&'static str>);

#[pymethods]
impl Stream {
    /// Begins to continue tokens: see `skipc.Model.stream`.
    #[new]
    fn new(
        py: Python<'_>,
        model: &Bound<'_, Model>,
        prompt: &Bound<'_, PyAny>,
        settings: Settings,
    ) -> PyResult<Stream> {
        let model = model.get();
        let prompt = ints("prompt", prompt, &[1])?;
        let running = without_lock(py, || {
            let prompt = Sequences::of_arrays((Path::new("prompt"), &prompt), None)?.tokens;
            let Settings { temperature, top_k, top_p, min_p, repetition_penalty, seed, .. } = settings;
            let sampling = Sampling { repetition_penalty, temperature, top_k, top_p, min_p, seed };
            let greedy = Request::greedy(prompt, settings.max_new_tokens);
            let request = Request { sampling, stop: settings.stop, ..greedy };
            let decoder = decode::of_slots(&model.module, &model.artefact, 1)?;
            let options = EngineOptions { tokenizer: model.tokenizer.clone(), ..EngineOptions::default() };
            let mut engine = Engine::on(decoder, options)?;
            let handle = engine.submit(request)?;
            let gates = vec![Vec::new(); model.module.function(SCORE)?.interface.routers().len()];
            Ok::<_, Error>(Running { engine, handle, gates, is_over: false })
        })?;
        Ok(Stream { running: Mutex::new(running) })
    }

    fn __iter__(stream: PyRef<'_, Self>) -> PyRef<'_, Self> {
        stream
    }

    /// The next piece. Signals are looked at between steps.
    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<PieceParts<'py>>> {
        loop {
            py.check_signals()?;
            let piece = without_lock(py, || {
                let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                if running.is_over { Ok(None) } else { running.advance().map(Some) }
            })?;
            match piece {
                None => return Ok(None),
                Some(None) => {}
                Some(Some(Piece { token, text, gates, finish })) => {
                    let n = gates.first().map_or(0, Vec::len);
                    let gates = array(py, &[gates.len(), n], gates.concat())?;
                    return Ok(Some((token, text, gates, finish.map(Finish::reason))));
                }
            }
        }
    }
}
