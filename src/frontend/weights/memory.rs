//! Tensors in memory.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{DType, Tensor, TensorInfo, TensorSource, no_tensor};
use crate::diagnostic::Diagnostic;

/// Tensors in memory, in f32.
pub struct Memory {
    infos: BTreeMap<String, TensorInfo>,
    bytes: BTreeMap<String, Vec<u8>>,
}

impl Memory {
    /// Tensors with their names, shapes and elements, row by row; as many elements as the shape says.
    pub fn new(tensors: impl IntoIterator<Item = (String, Vec<usize>, Vec<f32>)>) -> Memory {
        let mut memory = Memory { infos: BTreeMap::new(), bytes: BTreeMap::new() };
        for (name, shape, values) in tensors {
            memory.infos.insert(name.clone(), TensorInfo { dtype: Ok(DType::F32), shape });
            memory.bytes.insert(name, values.iter().flat_map(|value| value.to_le_bytes()).collect());
        }
        memory
    }
}

impl TensorSource for Memory {
    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.infos
    }

    fn read(&self, name: &str) -> Result<Tensor<'_>, Diagnostic> {
        let found = self.infos.get(name).zip(self.bytes.get(name));
        let (info, bytes) = found.ok_or_else(|| no_tensor("memory", name))?;
        Ok(Tensor { dtype: DType::F32, shape: &info.shape, bytes: Cow::Borrowed(bytes) })
    }
}
