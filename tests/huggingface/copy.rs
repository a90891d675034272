//! A directory that can be changed.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use skipc::diagnostic::Diagnostics;
use skipc::frontend::source::Source;
use tempfile::TempDir;

use crate::case::{configuration, root};

/// Name, shape and bytes of a tensor.
pub(crate) type Stored = (String, Vec<usize>, Vec<u8>);

pub(crate) fn named<'t>(tensors: &'t mut [Stored], name: &str) -> &'t mut Stored {
    tensors.iter_mut().find(|(other, ..)| other == name).unwrap()
}

/// A directory that can be changed.
pub(crate) struct Copy(pub(crate) TempDir);

impl Copy {
    pub(crate) fn of(name: &str) -> Copy {
        let copy = Copy(TempDir::new().unwrap());
        for entry in fs::read_dir(root().join(name)).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, copy.path(path.file_name().unwrap().to_str().unwrap())).unwrap();
        }
        copy
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn config(&self, change: impl FnOnce(&mut Value)) -> &Copy {
        self.json(configuration(self.0.path()).unwrap(), change)
    }

    pub(crate) fn json(&self, name: &str, change: impl FnOnce(&mut Value)) -> &Copy {
        let mut value = serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap();
        change(&mut value);
        fs::write(self.path(name), serde_json::to_vec_pretty(&value).unwrap()).unwrap();
        self
    }

    /// Puts the tensors of all shards into one file.
    pub(crate) fn merged(self) -> Copy {
        let index = self.path("model.safetensors.index.json");
        let Ok(bytes) = fs::read(&index) else { return self };
        let names: Value = serde_json::from_slice(&bytes).unwrap();
        let shards: BTreeSet<&str> =
            names["weight_map"].as_object().unwrap().values().map(|shard| shard.as_str().unwrap()).collect();
        let shards: Vec<Vec<u8>> = shards.iter().map(|shard| fs::read(self.path(shard)).unwrap()).collect();
        let read: Vec<_> = shards.iter().map(|bytes| SafeTensors::deserialize(bytes).unwrap()).collect();
        let tensors = read.iter().flat_map(SafeTensors::tensors);
        fs::write(self.path("model.safetensors"), safetensors::serialize(tensors, None).unwrap()).unwrap();
        fs::remove_file(index).unwrap();
        self
    }

    /// Changes the tensors of its one file: name, shape, bytes.
    pub(crate) fn tensors(&self, change: impl Fn(&mut Vec<Stored>)) -> &Copy {
        let file = self.path("model.safetensors");
        let bytes = fs::read(&file).unwrap();
        let read = SafeTensors::deserialize(&bytes).unwrap();
        let mut tensors: Vec<_> = read
            .iter()
            .map(|(name, view)| (name.to_owned(), view.shape().to_vec(), view.data().to_vec()))
            .collect();
        change(&mut tensors);
        let views = tensors.iter().map(|(name, shape, bytes)| {
            (name.as_str(), TensorView::new(Dtype::BF16, shape.clone(), bytes).unwrap())
        });
        fs::write(file, safetensors::serialize(views, None).unwrap()).unwrap();
        self
    }

    pub(crate) fn found(&self) -> Result<Diagnostics, Diagnostics> {
        let source = Source::open(self.0.path(), None)?;
        source.weights(None, None)?;
        Ok(source.notes())
    }

    /// The code of the first finding, which has to name each of these words.
    #[track_caller]
    pub(crate) fn fails(&self, code: &str, words: &[&str]) {
        let found = self.found().expect_err("it is read in silence");
        let first = found.iter().next().unwrap();
        assert_eq!(first.code(), code, "{found}");
        words.iter().for_each(|word| assert!(first.to_string().contains(word), "no `{word}` in {first}"));
    }
}
