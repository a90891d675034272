//! Weights of a compile: a file, random ones, NumPy arrays, or those of a directory.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use numpy::{PyArrayDyn, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use skipc::diagnostic::{Diagnostic, Diagnostics};
use skipc::frontend::source::Source;
use skipc::frontend::weights::{DType, Tensor, TensorInfo, TensorSource, Weights};

/// Where the tensors of a model come from.
#[derive(FromPyObject)]
pub(crate) enum Tensors {
    /// The seed of random ones.
    Seed(u64),
    /// A safetensors file, or the index of several.
    File(PathBuf),
    /// Arrays by name.
    Arrays(BTreeMap<String, Py<PyAny>>),
}

impl Tensors {
    /// The weights of what `source` says, its own if none are given. Called without the interpreter's lock.
    pub(crate) fn open(
        tensors: Option<Tensors>,
        source: &Source,
        routers: Option<&Path>,
    ) -> Result<Weights, Diagnostics> {
        let file = match tensors {
            Some(Tensors::Seed(seed)) => return Weights::drawn(&source.model, seed),
            Some(Tensors::Arrays(arrays)) => {
                return Weights::new(MEMORY, Arrays::new(arrays), &source.model);
            }
            Some(Tensors::File(path)) => Some(path),
            None => None,
        };
        let none = || {
            let help = "give `weights`; `skipc.RandomWeights()` are random ones";
            Diagnostic::new("usage::compile", "a spec has no weights of its own").help(help)
        };
        source.weights(file.as_deref(), routers)?.ok_or_else(|| none().into())
    }
}

/// What users call arrays in memory.
const MEMORY: &str = "the arrays of weights";

/// NumPy arrays, of which one at a time is copied when its turn comes.
struct Arrays {
    infos: BTreeMap<String, TensorInfo>,
    arrays: BTreeMap<String, Py<PyAny>>,
}

impl Arrays {
    fn new(arrays: BTreeMap<String, Py<PyAny>>) -> Arrays {
        let infos = Python::attach(|py| {
            let infos = arrays.iter().map(|(name, array)| (name.clone(), info(array.bind(py))));
            infos.collect()
        });
        Arrays { infos, arrays }
    }
}

/// Type and shape; what is no array has a type that weights cannot have.
fn info(array: &Bound<'_, PyAny>) -> TensorInfo {
    let Ok(array) = array.cast::<PyUntypedArray>() else {
        return TensorInfo { dtype: Err(array.get_type().to_string()), shape: Vec::new() };
    };
    let name = array.dtype().to_string();
    let dtype = match name.as_str() {
        "float32" => Ok(DType::F32),
        _ => Err(name),
    };
    TensorInfo { dtype, shape: array.shape().to_vec() }
}

impl TensorSource for Arrays {
    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.infos
    }

    fn read(&self, name: &str) -> Result<Tensor<'_>, Diagnostic> {
        let missing = || Diagnostic::new("weights::missing", format!("`{name}` is missing from {MEMORY}"));
        let (info, array) = self.infos.get(name).zip(self.arrays.get(name)).ok_or_else(missing)?;
        let bytes = Python::attach(|py| -> PyResult<Vec<u8>> {
            let array = array.bind(py).cast::<PyArrayDyn<f32>>()?.try_readonly()?;
            Ok(array.as_array().iter().flat_map(|element| element.to_le_bytes()).collect())
        });
        let bytes = bytes
            .map_err(|error| Diagnostic::new("weights::read", format!("`{name}` of {MEMORY}: {error}")))?;
        Ok(Tensor { dtype: DType::F32, shape: &info.shape, bytes: Cow::Owned(bytes) })
    }
}
