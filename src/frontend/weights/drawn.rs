//! Random tensors, drawn when they are asked for: the same for the same spec and seed, on every machine.

use std::collections::BTreeMap;

use safetensors::tensor::View;

use super::{DType, Tensor, TensorInfo, TensorSource, no_tensor};
use crate::diagnostic::Diagnostic;
use crate::frontend::spec::model::Model;
use crate::frontend::spec::random::{self, Draw};

/// Seed of random weights where forms of a model are compared or timed and no file has any: decisions are forced there, so
/// that they depend on weights as little as arithmetic does.
pub const RANDOM_SEED: u64 = 1;

/// Random tensors of a model, in f32.
pub struct Drawn {
    infos: BTreeMap<String, TensorInfo>,
    draws: BTreeMap<String, Draw>,
}

impl Drawn {
    /// Those of a seed, as `skipc init` writes them.
    pub fn new(model: &Model, seed: u64) -> Drawn {
        let draws: BTreeMap<String, Draw> = random::draws(model, seed, DType::F32).collect();
        let info = |(name, draw): (&String, &Draw)| {
            (name.clone(), TensorInfo { dtype: Ok(DType::F32), shape: draw.shape().to_vec() })
        };
        Drawn { infos: draws.iter().map(info).collect(), draws }
    }
}

impl TensorSource for Drawn {
    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.infos
    }

    fn read(&self, name: &str) -> Result<Tensor<'_>, Diagnostic> {
        let draw = self.draws.get(name).ok_or_else(|| no_tensor("what is drawn", name))?;
        Ok(Tensor { dtype: DType::F32, shape: draw.shape(), bytes: draw.data() })
    }
}
