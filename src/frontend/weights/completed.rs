//! A file with tensors that it lacks.

use std::collections::BTreeMap;

use super::memory::Memory;
use super::{Tensor, TensorInfo, TensorSource};
use crate::diagnostic::Diagnostic;

/// The tensors of a source, and others where it has none of the name.
pub(super) struct Completed {
    source: Box<dyn TensorSource>,
    others: Memory,
    infos: BTreeMap<String, TensorInfo>,
}

impl Completed {
    pub(super) fn new(source: Box<dyn TensorSource>, others: Memory) -> Completed {
        let mut infos = others.tensors().clone();
        infos.extend(source.tensors().iter().map(|(name, info)| (name.clone(), info.clone())));
        Completed { source, others, infos }
    }
}

impl TensorSource for Completed {
    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.infos
    }

    fn read(&self, name: &str) -> Result<Tensor<'_>, Diagnostic> {
        match self.source.tensors().contains_key(name) {
            true => self.source.read(name),
            false => self.others.read(name),
        }
    }
}
