//! A loaded model: scoring, and what is known of it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use numpy::PyArrayDyn;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use skipc::diagnostic::Diagnostic;
use skipc::driver::contents::Contents;
use skipc::driver::original::Original;
use skipc::frontend::source::weights_of;
use skipc::verify;
use skipc::{Error, ErrorKind};
use skipc_artifact::program::{Function, SCORE};
use skipc_runtime::batch::{Grid, row_columns};
use skipc_runtime::decode::{LanguageFiles, Tokenizer};
use skipc_runtime::inputs::{Sequences, choices_of_array, without_padding};
use skipc_runtime::npy::{FloatArray, IntArray};
use skipc_runtime::threads::Threads;
use skipc_runtime::{Batch, Device, Module, Options, Outputs, Session, choices};

use crate::arrays::{array, floats, ints};
use crate::artifact::Artifact;
use crate::error::{json, raised, without_lock};

/// What users call an artefact that has no file.
const IN_MEMORY: &str = "the artefact";

/// A model that is loaded for a device. Any number of threads may use it at once.
#[pyclass(frozen, module = "skipc._native")]
pub(crate) struct Model {
    /// Its file, or what users call it.
    name: PathBuf,
    pub(crate) artefact: skipc_runtime::Model,
    pub(crate) module: Module,
    threads: usize,
    /// None for a model whose tokens are no bytes and beside which there is none.
    pub(crate) tokenizer: Option<Arc<dyn Tokenizer>>,
    /// Those that no call uses: as many as ran at once so far.
    sessions: Mutex<Vec<Session>>,
}

/// Where to run: the device in words, and the threads of the host.
#[derive(FromPyObject)]
pub(crate) struct DeviceArgs {
    #[pyo3(item)]
    device: String,
    #[pyo3(item)]
    threads: Option<usize>,
    #[pyo3(item)]
    tokenizer: Option<PathBuf>,
}

/// Loads the artefact in a file.
#[pyfunction]
pub(crate) fn load(
    py: Python<'_>,
    path: PathBuf,
    args: DeviceArgs,
    trust: Option<PathBuf>,
) -> PyResult<Model> {
    without_lock(py, || {
        let opening = skipc_runtime::Opening { trust: trust.as_deref(), ..Default::default() };
        let artefact = skipc_runtime::Model::open_as(&path, &opening)?;
        Model::of(artefact, path, args)
    })
}

/// Loads an artefact in memory.
#[pyfunction]
pub(crate) fn load_artifact(
    py: Python<'_>,
    artifact: ArtifactBytes<'_>,
    args: DeviceArgs,
) -> PyResult<Model> {
    let bytes = artifact.bytes();
    without_lock(py, || {
        let artefact = skipc_runtime::Model::from_bytes(bytes)?;
        Model::of(artefact, IN_MEMORY.into(), args)
    })
}

/// An artefact, or its bytes.
#[derive(FromPyObject)]
pub(crate) enum ArtifactBytes<'py> {
    /// As it was compiled.
    Compiled(Bound<'py, Artifact>),
    /// As a file has it.
    Bytes(Bound<'py, PyBytes>),
}

impl ArtifactBytes<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            ArtifactBytes::Compiled(artifact) => &artifact.get().bytes,
            ArtifactBytes::Bytes(bytes) => pyo3::types::PyBytesMethods::as_bytes(bytes),
        }
    }
}

impl Model {
    fn of(artefact: skipc_runtime::Model, name: PathBuf, args: DeviceArgs) -> Result<Model, Error> {
        let device: Device = args.device.parse().map_err(|error: skipc_runtime::device::UnknownDevice| {
            skipc_runtime::Error::Usage(format!("no device `{}`: {error}", args.device))
        })?;
        let threads = args.threads.unwrap_or_else(Threads::available);
        let module = Module::load(&artefact, device, Options { threads, ..Options::default() })?;
        let vocab_size = module.function(SCORE)?.vocab_size;
        let files = LanguageFiles { model: name.clone(), tokenizer: args.tokenizer, chat_template: None };
        let tokenizer = match files.tokenizer_of_loaded(&artefact, vocab_size) {
            Err(skipc_runtime::Error::PromptVocabulary { .. }) => None,
            tokenizer => Some(tokenizer?),
        };
        let sessions = Mutex::default();
        Ok(Model { name, artefact, module, threads, tokenizer, sessions })
    }

    fn function(&self) -> Result<&Function, skipc_runtime::Error> {
        self.module.function(SCORE)
    }

    /// Runs a batch on a session that is free, or a new one.
    fn run(&self, batch: &Batch) -> Result<Outputs, skipc_runtime::Error> {
        let free = self.sessions.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut session = match free {
            Some(session) => session,
            None => Session::of_module(&self.module)?,
        };
        let outputs = session.run_with_choices(batch)?;
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        outputs.check_finite(&batch.lengths)?;
        Ok(outputs)
    }

    /// What arrays ask for, and where its tokens stand in them.
    fn batch(
        &self,
        tokens: &Tokens,
        lengths: Option<&IntArray>,
        routing: Option<&IntArray>,
        experts: Option<&IntArray>,
    ) -> Result<(Grid, Batch), skipc_runtime::Error> {
        let name = Path::new;
        let lengths = lengths.map(|array| (name("lengths"), array));
        let sequences = match tokens {
            Tokens::Ids(ids) => Sequences::of_arrays((name("tokens"), ids), lengths)?,
            Tokens::Rows(rows) => Sequences::of_row_arrays((name("rows"), rows), lengths)?,
        };
        let sequences = sequences.for_function(self.function()?);
        let grid = sequences.grid.clone();
        let routers = self.function()?.interface.routers().len();
        let routing = routing.map(|array| without_padding(name("routing"), array, &grid, routers));
        let of = (self.function()?, &grid);
        let experts = experts.map(|array| choices_of_array(name("experts"), array, of)).transpose()?;
        Ok((grid, Batch { experts, ..sequences.into_batch(routing.transpose()?) }))
    }

    fn tokenizer(&self) -> Result<&dyn Tokenizer, skipc_runtime::Error> {
        let vocab_size = self.function()?.vocab_size;
        self.tokenizer.as_deref().ok_or(skipc_runtime::Error::PromptVocabulary { vocab_size })
    }
}

/// What stands for tokens: their ids, or rows for a model that takes these.
enum Tokens {
    Ids(IntArray),
    Rows(FloatArray),
}

/// Logits `[batch, tokens, columns]` or `[batch, columns]`, gates `[routers, batch, tokens]`, counts and overflow of each router, and
/// experts `[layers, batch, tokens, choices]`.
type Scored<'py> = (
    Bound<'py, PyArrayDyn<f32>>,
    Bound<'py, PyArrayDyn<u8>>,
    Bound<'py, PyArrayDyn<u32>>,
    Bound<'py, PyArrayDyn<u32>>,
    Bound<'py, PyArrayDyn<u8>>,
);

#[pymethods]
impl Model {
    /// Scores sequences: see `skipc.Model.score`.
    fn score<'py>(
        &self,
        py: Python<'py>,
        tokens: &Bound<'py, PyAny>,
        lengths: Option<&Bound<'py, PyAny>>,
        routing: Option<&Bound<'py, PyAny>>,
        experts: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Scored<'py>> {
        let tokens = match self.row_columns(py)? {
            None => Tokens::Ids(ints("tokens", tokens, &[1, 2])?),
            Some(_) => Tokens::Rows(floats("rows", tokens, &[2, 3])?),
        };
        let lengths = lengths.map(|array| ints("lengths", array, &[1])).transpose()?;
        let routing = routing.map(|array| ints("routing", array, &[3])).transpose()?;
        let experts = experts.map(|array| ints("experts", array, &[4])).transpose()?;
        let (grid, (shape, logits), gates, counts, overflow, experts) = without_lock(py, || {
            let (grid, batch) = self.batch(&tokens, lengths.as_ref(), routing.as_ref(), experts.as_ref())?;
            let mut outputs = self.run(&batch)?;
            let logits = outputs.take_logits(self.function()?, &grid);
            let Outputs { gates, counts, overflow, choices, .. } = outputs;
            let experts = choices::to_array(&choices, &grid);
            let gates: Vec<u8> = gates.iter().flat_map(|gates| grid.unpack(gates, 1)).collect();
            Ok::<_, skipc_runtime::Error>((grid, logits, gates, counts, overflow, experts))
        })?;
        let (batch, width, routers) = (grid.lengths.len(), grid.width, counts.len());
        Ok((
            array(py, &shape.iter().map(|size| *size as usize).collect::<Vec<_>>(), logits)?,
            array(py, &[routers, batch, width], gates)?,
            array(py, &[routers], counts)?,
            array(py, &[routers], overflow)?,
            array(py, &experts.0.map(|size| size as usize), experts.1)?,
        ))
    }

    /// Compares every form of the model; gives the report as JSON.
    fn verify(&self, py: Python<'_>, weights: Option<PathBuf>) -> PyResult<String> {
        let (report, from) = without_lock(py, || -> Result<_, Error> {
            let read = |model: &_, file: &Path| Ok(weights_of(model, file, None, None)?);
            let original = Original::of(self.artefact.clone(), &self.name, weights.as_deref(), read)?;
            let batch = verify::drawn_batch(&verify::scoring(&original.artefact)?);
            let (threads, progress) = (Some(self.threads), &|_: &str| ());
            let weights = &original.weights;
            let inputs =
                verify::Inputs { batch: &batch, routing: None, threads, max_level: None, weights, progress };
            Ok((verify::climb(&original.artefact, &inputs)?, original.from))
        })?;
        let text = json(py, &serde_json::json!({"ok": report.ok(), "weights": from, "report": report}))?;
        if report.ok() {
            return Ok(text);
        }
        let wrong = report.rows.iter().filter(|row| !row.ok).count();
        let message = format!("{wrong} of {} comparisons are out of bounds", report.rows.len());
        let diagnostic = Diagnostic::new("verify::mismatch", message).help("`skipc verify` shows them");
        Err(raised(py, &Error::new(ErrorKind::Mismatch, diagnostic)))
    }

    /// What is in the artefact, as JSON.
    fn inspect(&self, py: Python<'_>) -> PyResult<String> {
        let artifact = self.artefact.artifact();
        let contents = without_lock(py, || {
            Contents::of(artifact).map_err(|error| Error::in_artifact(&self.name, &error))
        })?;
        json(py, &contents.json(skipc_artifact::reader::Sections::header(artifact)))
    }

    /// The tokens of a text, uint32 `[tokens]`.
    fn encode<'py>(&self, py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyArrayDyn<u32>>> {
        let tokens = without_lock(py, || self.tokenizer()?.encode(text))?;
        array(py, &[tokens.len()], tokens)
    }

    /// The text of tokens, as UTF-8 that may begin and end within a character.
    fn decode<'py>(&self, py: Python<'py>, tokens: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let tokens = ints("tokens", tokens, &[1])?;
        let text = without_lock(py, || {
            let tokens = Sequences::of_arrays((Path::new("tokens"), &tokens), None)?.tokens;
            Ok::<_, skipc_runtime::Error>(self.tokenizer()?.decode(&tokens))
        })?;
        Ok(PyBytes::new(py, &text))
    }

    /// Name of the model.
    #[getter]
    fn name(&self) -> &str {
        &self.artefact.artifact().manifest().model
    }

    /// What the code runs on, human-readable.
    #[getter]
    fn device(&self) -> String {
        self.module.describe()
    }

    /// Columns of the rows that it takes in place of token ids; none if it takes ids.
    #[getter]
    fn row_columns(&self, py: Python<'_>) -> PyResult<Option<u32>> {
        Ok(row_columns(self.function().map_err(|error| raised(py, &error.into()))?))
    }

    /// Columns of the logits.
    #[getter]
    fn columns(&self, py: Python<'_>) -> PyResult<u32> {
        Ok(self.function().map_err(|error| raised(py, &error.into()))?.logits)
    }

    /// Token ids are below this.
    #[getter]
    fn vocab_size(&self, py: Python<'_>) -> PyResult<u32> {
        Ok(self.function().map_err(|error| raised(py, &error.into()))?.vocab_size)
    }

    /// How many routers decide.
    #[getter]
    fn routers(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.function().map_err(|error| raised(py, &error.into()))?.interface.routers().len())
    }

    /// Longest sequence.
    #[getter]
    fn max_positions(&self, py: Python<'_>) -> PyResult<u32> {
        Ok(self.function().map_err(|error| raised(py, &error.into()))?.max_positions)
    }

    /// Most tokens of a step.
    #[getter]
    fn max_tokens(&self, py: Python<'_>) -> PyResult<u32> {
        Ok(self.function().map_err(|error| raised(py, &error.into()))?.max_tokens)
    }
}
