//! Weights: where the tensors of a model come from.
//!
//! A [`TensorSource`] has tensors by name and reads one when it is asked for: from a safetensors file ([`safetensors`]), from
//! several ([`shards`]), from memory ([`memory`]) or drawn by a seed ([`drawn`]). [`Weights`] are a source that was held
//! against a model: exactly its tensors, of its shapes, all finite. Whatever needs weights takes these: the constants that
//! kernels read are made from them, and the reference computes with them; nothing is ever made back from constants.
//!
//! No source keeps what it read, so that a compile holds a tensor or two at a time, however large the model.

pub(in crate::frontend) mod check;
mod completed;
pub mod drawn;
pub mod memory;
pub mod safetensors;
pub mod shards;
mod tensor;

use std::collections::BTreeMap;
use std::path::Path;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use skipc_artifact::section::ContentHash;
use skipc_ir::interp::{self, Number};

use self::completed::Completed;
use self::drawn::Drawn;
use self::memory::Memory;
use self::safetensors::Safetensors;
use self::shards::Shards;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::frontend::spec::model::Model;
use crate::frontend::spec::tensors::tensors;

pub use tensor::{DType, Tensor, TensorInfo};

/// Tensors by name, read when they are asked for.
pub trait TensorSource: Send + Sync {
    /// Type and shape of every tensor there is.
    fn tensors(&self) -> &BTreeMap<String, TensorInfo>;

    /// A tensor's elements, row by row, little endian; as many bytes as type and shape say.
    ///
    /// # Errors
    /// `weights::missing` for a name that is not among [`TensorSource::tensors`], `weights::read` if a file cannot be read.
    fn read(&self, name: &str) -> Result<Tensor<'_>, Diagnostic>;
}

/// The tensors in a file: safetensors, or the JSON index of several.
///
/// # Errors
/// What is wrong with the file.
pub(in crate::frontend) fn open(path: &Path) -> Result<Box<dyn TensorSource>, Diagnostics> {
    if path.extension().is_some_and(|extension| extension == "json") {
        return Ok(Box::new(Shards::open(path)?));
    }
    Ok(Box::new(Safetensors::open(path)?))
}

/// All tensors of a model and no others, every element finite.
pub struct Weights {
    source: Box<dyn TensorSource>,
    hash: ContentHash,
}

impl Weights {
    /// The weights of `model` in a file: safetensors, or the JSON index of several.
    ///
    /// # Errors
    /// What is wrong with the file or its tensors, each with a code.
    pub fn open(path: &Path, model: &Model) -> Result<Weights, Diagnostics> {
        Weights::held(&path.display().to_string(), open(path)?, model)
    }

    /// The weights of `model` in the bytes of a safetensors file; `name` is what users call it.
    ///
    /// # Errors
    /// As [`Weights::open`].
    pub fn from_bytes(name: &str, bytes: Vec<u8>, model: &Model) -> Result<Weights, Diagnostics> {
        Weights::new(name, Safetensors::of_bytes(name, bytes)?, model)
    }

    /// The weights of `model` in memory, in f32.
    ///
    /// # Errors
    /// As [`Weights::open`].
    pub fn from_tensors(
        tensors: impl IntoIterator<Item = (String, Vec<usize>, Vec<f32>)>,
        model: &Model,
    ) -> Result<Weights, Diagnostics> {
        Weights::new("memory", Memory::new(tensors), model)
    }

    /// Random ones of a seed, for a model that is not trained.
    ///
    /// # Errors
    /// As [`Weights::open`].
    pub fn drawn(model: &Model, seed: u64) -> Result<Weights, Diagnostics> {
        Weights::new("random weights", Drawn::new(model, seed), model)
    }

    /// Holds a source against a model. `name` is what users call it.
    ///
    /// # Errors
    /// Every tensor that is missing, not of the model, of another shape, or has an element that is not finite.
    pub fn new(
        name: &str,
        source: impl TensorSource + 'static,
        model: &Model,
    ) -> Result<Weights, Diagnostics> {
        Weights::held(name, Box::new(source), model)
    }

    /// As [`Weights::open`]; tensors that the file lacks are taken from `others`.
    ///
    /// # Errors
    /// As [`Weights::open`].
    pub fn open_with(path: &Path, others: Memory, model: &Model) -> Result<Weights, Diagnostics> {
        let source = Completed::new(open(path)?, others);
        Weights::held(&path.display().to_string(), Box::new(source), model)
    }

    fn held(name: &str, source: Box<dyn TensorSource>, model: &Model) -> Result<Weights, Diagnostics> {
        check::names_and_shapes(name, source.tensors(), &tensors(model), model)?;
        let names: Vec<(&String, &TensorInfo)> = source.tensors().iter().collect();
        let read: Vec<Result<ContentHash, Diagnostic>> =
            names.par_iter().map(|(tensor, _)| check::read_whole(name, source.as_ref(), tensor)).collect();
        let (mut found, mut text) = (Diagnostics::default(), String::new());
        for ((tensor, info), hash) in names.into_iter().zip(read) {
            match hash {
                Ok(hash) => text.push_str(&format!("{tensor:?} {:?} {:?} {hash}\n", info.dtype, info.shape)),
                Err(diagnostic) => found.push(diagnostic),
            }
        }
        let hash = ContentHash::of(text.as_bytes());
        found.or(())?;
        Ok(Weights { source, hash })
    }

    /// A hash of names, types, shapes and elements of all tensors, wherever they lie.
    pub fn content_hash(&self) -> ContentHash {
        self.hash
    }

    /// The names of all tensors, ascending, each with its number of elements.
    pub fn sizes(&self) -> impl Iterator<Item = (&str, usize)> {
        let infos = self.source.tensors().iter();
        infos.map(|(name, info)| (name.as_str(), info.shape.iter().product()))
    }

    /// Reads a tensor.
    ///
    /// # Errors
    /// As [`TensorSource::read`].
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>, Diagnostic> {
        self.source.read(name)
    }
}

impl<N: Number> interp::Weights<N> for Weights {
    fn weight(&self, name: &str) -> Option<Vec<N>> {
        Some(self.tensor(name).ok()?.numbers())
    }
}

/// What says that a source has no such tensor.
pub(crate) fn no_tensor(source: &str, tensor: &str) -> Diagnostic {
    Diagnostic::new("weights::missing", format!("`{tensor}` is missing from {source}"))
}
