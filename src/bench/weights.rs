//! Weights of what is timed, where no file has them.

use std::borrow::Cow;

use safetensors::tensor::{Dtype, View};
use skipc_ir::interp::Weights as _;

use crate::diagnostic::Diagnostic;
use crate::error::{Error, ErrorKind};
use crate::frontend::spec::model::Model;
use crate::frontend::spec::random::weights_file;
use crate::frontend::spec::weights::{DType, Weights, tensors};
use crate::verify::reference::Constants;

/// Seed of random weights. Decisions are forced, so times depend on weights as little as arithmetic does.
pub const RANDOM_SEED: u64 = 1;

/// Random weights, the same in every run.
///
/// # Errors
/// If they are too large for one file.
pub fn random(model: &Model) -> Result<Weights, Error> {
    let bytes =
        weights_file(model, RANDOM_SEED, DType::F32).map_err(|error| Error::new(ErrorKind::Input, error))?;
    Ok(Weights::read("random weights", bytes.as_slice(), bytes.len() as u64, model)?)
}

/// The weights that an artefact was made of, from the constants of one of its programs. A tensor that no kernel reads
/// is not in it; zeros are as good.
///
/// # Errors
/// If the constants are not those of the model.
pub fn of_artifact(model: &Model, constants: &Constants<'_>) -> Result<Weights, Error> {
    let kept = tensors(model).into_iter().map(|tensor| {
        let values: Option<Vec<f64>> = constants.weight(&tensor.name);
        let n: usize = tensor.shape.iter().product();
        let values = values.unwrap_or_else(|| vec![0.0; n]);
        let bytes = values.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect();
        (tensor.name, Kept { shape: tensor.shape, bytes })
    });
    let bytes = safetensors::serialize(kept, None).map_err(|error| {
        let message = format!("the weights of the artefact do not fit into one file: {error}");
        Error::new(ErrorKind::Input, Diagnostic::new("bench::weights", message))
    })?;
    Ok(Weights::read("the artefact's weights", bytes.as_slice(), bytes.len() as u64, model)?)
}

/// A tensor in f32.
struct Kept {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for Kept {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}
