//! Compiling a model, and what it gives.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use skipc::diagnostic::Diagnostic;
use skipc::driver::pack;
use skipc::driver::pipeline::{self, Request};
use skipc::driver::targets::Targets;
use skipc::driver::trace::Trace;
use skipc::frontend::lint;
use skipc::frontend::source::Source;
use skipc::{Error, ErrorKind};

use crate::error::{json, without_lock};
use crate::weights::Tensors;

/// A compiled model in memory: the bytes that `skipc compile` writes.
#[pyclass(frozen, module = "skipc._native")]
pub(crate) struct Artifact {
    pub(crate) bytes: Vec<u8>,
}

#[pymethods]
impl Artifact {
    /// Writes the artefact to a file, which is there as a whole or not at all.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        without_lock(py, || {
            skipc_artifact::replace::bytes(&path, &self.bytes)
                .map_err(|error| Error::in_artifact(&path, &error))
        })
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.bytes)
    }

    fn __len__(&self) -> usize {
        self.bytes.len()
    }
}

/// Text of a spec, or where it or a directory is.
#[derive(FromPyObject)]
pub(crate) enum Spec {
    /// Name and text.
    Text(String, String),
    /// A file or a directory.
    Path(PathBuf),
}

impl Spec {
    fn read(&self, options: &Options) -> Result<Source, Error> {
        match self {
            Spec::Path(path) if path.is_dir() => Ok(Source::open(path, options.skip.as_deref())?),
            _ if options.skip.is_some() || options.router_weights.is_some() => {
                let message = "`skip` and `router_weights` are for directories, and this is a spec";
                let help = "write `router = {…}` into the spec; weights of routers are in its own file";
                Err(Error::new(ErrorKind::Request, Diagnostic::new("usage::directory", message).help(help)))
            }
            Spec::Path(path) => Ok(Source::open(path, None)?),
            Spec::Text(name, text) => Ok(Source::of_text(name, text)?),
        }
    }
}

/// What the command line has options for.
#[derive(FromPyObject)]
pub(crate) struct Options {
    #[pyo3(item)]
    targets: Vec<String>,
    #[pyo3(item)]
    dtype: Vec<String>,
    #[pyo3(item)]
    max_tokens: Option<u32>,
    #[pyo3(item)]
    steps: bool,
    #[pyo3(item)]
    skip: Option<PathBuf>,
    #[pyo3(item)]
    router_weights: Option<PathBuf>,
}

/// Compiles a model; gives the artefact, and what the model's author should know as JSON.
#[pyfunction]
pub(crate) fn compile(
    py: Python<'_>,
    spec: Spec,
    weights: Option<Tensors>,
    options: Options,
) -> PyResult<(Artifact, String)> {
    let (bytes, found) = without_lock(py, || -> Result<_, Error> {
        let Targets { list: targets, in_8_bits } = Targets::parse(&options.targets, &options.dtype)?;
        let Options { max_tokens, steps, .. } = options;
        let request = Request { targets, in_8_bits, max_tokens, steps, ..Request::host() };
        let source = spec.read(&options)?;
        let found = source.notes().and(lint::run(&source.ast, &source.model));
        let weights = Tensors::open(weights, &source, options.router_weights.as_deref())?;
        let mut compiled = pipeline::compile(&source.model, &request, &mut Trace::silent())?;
        compiled.language = source.texts()?;
        Ok((pack::to_bytes((&source.model, &weights), &request, compiled)?, found))
    })?;
    Ok((Artifact { bytes }, json(py, &found)?))
}
