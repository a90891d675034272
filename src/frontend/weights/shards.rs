//! Several safetensors files with an index, as large models are published: `model.safetensors.index.json`.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use serde::Deserialize;
use skipc_artifact::regular;

use super::safetensors::Safetensors;
use super::{Tensor, TensorInfo, TensorSource, no_tensor};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::frontend::language::words::quoted;

/// Bytes of an index: as many as the header of one file may have.
const INDEX_BYTES: u64 = crate::frontend::language::limits::WEIGHTS_HEADER_BYTES;

/// The files of an index.
pub struct Shards {
    name: String,
    infos: BTreeMap<String, TensorInfo>,
    files: Vec<Safetensors>,
    /// In which of the files each tensor is.
    places: BTreeMap<String, usize>,
}

/// What an index says. Sizes and other metadata are not read.
#[derive(Deserialize)]
struct Index {
    /// Tensor to the name of its file, beside the index.
    weight_map: BTreeMap<String, String>,
}

impl Shards {
    /// Opens an index and the headers of all its files.
    ///
    /// # Errors
    /// `weights::index` for an index that cannot be read or contradicts its files; what [`Safetensors::open`] says of a file.
    pub fn open(path: &Path) -> Result<Shards, Diagnostics> {
        let name = path.display().to_string();
        let index = read_index(path, &name)?;
        let mut file_names: Vec<&str> = index.weight_map.values().map(String::as_str).collect();
        file_names.sort_unstable();
        file_names.dedup();
        let mut shards = Shards { name, infos: BTreeMap::new(), files: Vec::new(), places: BTreeMap::new() };
        let mut found = Diagnostics::default();
        for (idx, file_name) in file_names.into_iter().enumerate() {
            if Path::new(file_name).file_name() != Some(file_name.as_ref()) {
                let what = format!("{} is not the name of a file beside it", quoted(file_name));
                found.push(wrong(&shards.name, &what));
                continue;
            }
            match Safetensors::open(&path.with_file_name(file_name)) {
                Ok(file) => shards.add(idx, file_name, file, &index, &mut found),
                Err(diagnostic) => found.push(diagnostic),
            }
        }
        found.or(shards)
    }

    /// Adds a file, which has to have the tensors that the index says are in it, and no others.
    fn add(
        &mut self,
        idx: usize,
        file_name: &str,
        file: Safetensors,
        index: &Index,
        found: &mut Diagnostics,
    ) {
        for (tensor, info) in file.tensors() {
            if index.weight_map.get(tensor).is_none_or(|listed| listed != file_name) {
                let what = format!("{} is in {file_name}, where it has none", quoted(tensor));
                found.push(wrong(&self.name, &what));
            }
            self.infos.insert(tensor.clone(), info.clone());
            self.places.insert(tensor.clone(), idx);
        }
        let listed = index.weight_map.iter().filter(|(_, listed)| *listed == file_name);
        for (tensor, _) in listed.filter(|(tensor, _)| !file.tensors().contains_key(*tensor)) {
            found.push(wrong(&self.name, &format!("{} is not in {file_name}", quoted(tensor))));
        }
        self.files.push(file);
    }
}

impl TensorSource for Shards {
    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.infos
    }

    fn read(&self, name: &str) -> Result<Tensor<'_>, Diagnostic> {
        let file = self.places.get(name).and_then(|idx| self.files.get(*idx));
        file.ok_or_else(|| no_tensor(&self.name, name))?.read(name)
    }
}

fn read_index(path: &Path, name: &str) -> Result<Index, Diagnostic> {
    let failed = |error: &dyn std::fmt::Display| {
        Diagnostic::new("weights::read", format!("cannot read {name}: {error}"))
            .help("give the path of a safetensors file, or of the index of several")
    };
    let text = regular::read(path, INDEX_BYTES).map_err(|error| match error.kind() {
        ErrorKind::FileTooLarge => wrong(name, &error.to_string()),
        _ => failed(&error),
    })?;
    serde_json::from_slice(&text).map_err(|error| wrong(name, &error.to_string()))
}

fn wrong(index: &str, what: &str) -> Diagnostic {
    Diagnostic::new("weights::index", format!("the index {index} is wrong: {what}"))
        .help("an index has a map `weight_map` from tensors to the names of files in its folder; download all of them again")
}
