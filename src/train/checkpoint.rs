//! Checkpoints: the weights of a step in one file, as `skipc compile` reads them, and the moments of the optimiser in another.
//!
//! Files are written aside, synced and renamed, the moments first: a step whose weights are there has both. The last two
//! steps are kept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;
use skipc_artifact::section::ContentHash;
use skipc_artifact::{regular, replace};

use super::{Tensor, Tensors};
use crate::diagnostic::Diagnostic;
use crate::error::Error;
use crate::frontend::language::words::quoted;

/// Checkpoints that are kept.
const KEPT: usize = 2;

/// Bytes of a file of a checkpoint at most, as of an artefact.
const CHECKPOINT_BYTES: u64 = 1 << 36;

/// What a run is, so that one that goes on can tell whether it is the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The settings by key, such as `optimizer.lr`, without the paths of files.
    pub settings: BTreeMap<String, String>,
    /// Hashes of what files hold: `spec`, `data`, `teacher`.
    pub hashes: BTreeMap<String, String>,
}

/// A step that a run can go on from.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Steps that are done.
    pub step: u64,
    /// All weights.
    pub weights: Tensors,
    /// Moments of the optimiser.
    pub moments: Tensors,
    identity: Identity,
}

impl Identity {
    /// Of a configuration as JSON and the contents of files by what they are.
    pub fn new(config: &Value, contents: &[(&str, &[u8])]) -> Identity {
        let mut settings = BTreeMap::new();
        flatten("", config, &mut settings);
        // Files are known by what they hold: a folder may move.
        for key in
            ["data.text", "data.tokens", "data.lengths", "data.tokenizer", "distill.spec", "distill.weights"]
        {
            settings.remove(key);
        }
        let hash =
            |(name, content): &(&str, &[u8])| ((*name).to_owned(), ContentHash::of(content).to_string());
        Identity { settings, hashes: contents.iter().map(hash).collect() }
    }

    /// What is not the same in a run that goes on, in words.
    fn differences(&self, before: &Identity, allowed: &[String]) -> Vec<String> {
        let keys: std::collections::BTreeSet<&String> =
            self.settings.keys().chain(before.settings.keys()).collect();
        let shown = |value: Option<&String>| value.map_or("absent", String::as_str).to_owned();
        let differs =
            |key: &&&String| self.settings.get(**key) != before.settings.get(**key) && !allowed.contains(key);
        let settings = keys.iter().filter(differs).map(|key| {
            let (was, is) = (before.settings.get(*key), self.settings.get(*key));
            format!("`{key}` was {} and is {}", shown(was), shown(is))
        });
        let files = self.hashes.iter().filter(|(name, hash)| before.hashes.get(*name) != Some(*hash));
        settings.chain(files.map(|(name, _)| format!("the {name} is another"))).collect()
    }

    fn metadata(&self, step: u64) -> BTreeMap<String, String> {
        let as_text = |map: &BTreeMap<String, String>| serde_json::to_string(map).unwrap_or_default();
        BTreeMap::from([
            ("step".to_owned(), step.to_string()),
            ("settings".to_owned(), as_text(&self.settings)),
            ("hashes".to_owned(), as_text(&self.hashes)),
        ])
    }
}

fn flatten(prefix: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&key, value, into);
            }
        }
        value => drop(into.insert(prefix.to_owned(), value.to_string())),
    }
}

/// The two files of a step: weights, moments.
fn files(folder: &Path, step: u64) -> [PathBuf; 2] {
    ["safetensors", "optimizer.safetensors"].map(|end| folder.join(format!("step-{step:08}.{end}")))
}

/// The steps whose checkpoints are in a folder, ascending.
fn steps(folder: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let step = |name: &str| name.strip_prefix("step-")?.strip_suffix(".safetensors")?.parse::<u64>().ok();
    let mut steps: Vec<u64> =
        entries.filter_map(|entry| step(entry.file_name().to_string_lossy().as_ref())).collect();
    steps.retain(|step| files(folder, *step).iter().all(|file| file.is_file()));
    steps.sort_unstable();
    steps
}

/// Writes tensors as a safetensors file with metadata, whole or not at all.
///
/// # Errors
/// What the file system says.
pub fn write_tensors(
    path: &Path,
    tensors: &Tensors,
    metadata: Option<BTreeMap<String, String>>,
) -> Result<(), Error> {
    let internal = |error: &dyn std::fmt::Display| Error::internal("weights::header", error);
    let bytes = |tensor: &Tensor| tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let encoded: Vec<(&String, Vec<usize>, Vec<u8>)> =
        tensors.iter().map(|(name, tensor)| (name, tensor.shape.clone(), bytes(tensor))).collect();
    let mut views = Vec::new();
    for (name, shape, bytes) in &encoded {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(|error| internal(&error))?;
        views.push((name.as_str(), view));
    }
    // The format keeps metadata as a map without an order, of which one entry alone has one.
    let metadata = metadata.map(|map| {
        let text = serde_json::to_string(&map).unwrap_or_default();
        std::iter::once(("skipc".to_owned(), text)).collect()
    });
    let file = safetensors::serialize(views, metadata).map_err(|error| internal(&error))?;
    replace::bytes(path, &file).map_err(|error| Error::in_artifact(path, &error))
}

/// Tensors of a file, and what it says of itself.
fn read_tensors(path: &Path) -> Result<(Tensors, BTreeMap<String, String>), Error> {
    let wrong = |error: &dyn std::fmt::Display| {
        let message = format!("{} is not a checkpoint: {error}", path.display());
        Error::from(
            Diagnostic::new("train::checkpoint", message).help("remove it, and go on from the one before"),
        )
    };
    let bytes = regular::read(path, CHECKPOINT_BYTES).map_err(|error| Error::io(path, &error))?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| wrong(&error))?;
    let text = header.metadata().as_ref().and_then(|map| map.get("skipc")).cloned().unwrap_or_default();
    let metadata = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
    let read = SafeTensors::deserialize(&bytes).map_err(|error| wrong(&error))?;
    let tensor = |view: TensorView<'_>| Tensor {
        shape: view.shape().to_vec(),
        values: view.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
    };
    let tensors = read.iter().map(|(name, view)| (name.to_owned(), tensor(view))).collect();
    Ok((tensors, metadata))
}

/// Where the weights of a step's checkpoint are.
pub fn weight_file(folder: &Path, step: u64) -> PathBuf {
    let [weights, _] = files(folder, step);
    weights
}

/// What tells tensors from others: a hash of each.
pub fn hashes(tensors: &Tensors) -> Vec<u8> {
    let of_tensor = |(name, tensor): (&String, &Tensor)| {
        let values = tensor.values.iter().flat_map(|value| value.to_le_bytes());
        let bytes: Vec<u8> = name.bytes().chain(values).collect();
        ContentHash::of(&bytes).to_string().into_bytes()
    };
    tensors.iter().flat_map(of_tensor).collect()
}

/// Writes the checkpoint of a step, and removes those before the last two.
///
/// # Errors
/// What the file system says.
pub fn write(
    folder: &Path,
    step: u64,
    (weights, moments): (&Tensors, &Tensors),
    identity: &Identity,
) -> Result<PathBuf, Error> {
    let [weight_file, moment_file] = files(folder, step);
    write_tensors(&moment_file, moments, Some(identity.metadata(step)))?;
    write_tensors(&weight_file, weights, Some(identity.metadata(step)))?;
    let steps = steps(folder);
    for old in steps.iter().take(steps.len().saturating_sub(KEPT)) {
        for file in files(folder, *old) {
            std::fs::remove_file(&file).map_err(|error| Error::io(&file, &error))?;
        }
    }
    Ok(weight_file)
}

/// The last step whose checkpoint is in a folder.
pub fn last(folder: &Path) -> Option<u64> {
    steps(folder).last().copied()
}

impl Checkpoint {
    /// The last checkpoint of a folder.
    ///
    /// # Errors
    /// `train::checkpoint` if there is none, or it is none.
    pub fn read(folder: &Path) -> Result<Checkpoint, Error> {
        let Some(step) = last(folder) else {
            let message = format!("{} has no checkpoint", folder.display());
            let help = "begin without `--resume`";
            return Err(Diagnostic::new("train::checkpoint", message).help(help).into());
        };
        let [weight_file, moment_file] = files(folder, step);
        let ((weights, metadata), (moments, of_moments)) =
            (read_tensors(&weight_file)?, read_tensors(&moment_file)?);
        if metadata != of_moments || metadata.get("step") != Some(&step.to_string()) {
            let message = format!("{} and its moments are not of one step", weight_file.display());
            return Err(Diagnostic::new("train::checkpoint", message)
                .help("remove both, and go on from those before")
                .into());
        }
        let map = |key: &str| {
            metadata.get(key).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
        };
        let identity = Identity { settings: map("settings"), hashes: map("hashes") };
        Ok(Checkpoint { step, weights, moments, identity })
    }

    /// Refuses to go on as another run than that of the checkpoint.
    ///
    /// # Errors
    /// `train::resumed`, with every difference but those in `allowed`.
    pub fn check(&self, now: &Identity, allowed: &[String]) -> Result<(), Error> {
        if let Some(key) = allowed
            .iter()
            .find(|key| !now.settings.contains_key(*key) && !self.identity.settings.contains_key(*key))
        {
            let near =
                crate::frontend::language::words::nearest(key, now.settings.keys().map(String::as_str));
            let message = format!("--override: the configuration has no key {}", quoted(key));
            let help = near.map_or(
                "keys have the name of their table in front, such as `optimizer.lr`".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            return Err(Diagnostic::new("train::resumed", message).help(help).into());
        }
        let differences = now.differences(&self.identity, allowed);
        if differences.is_empty() {
            return Ok(());
        }
        let message = format!("this is not the run of step {}: {}", self.step, differences.join("; "));
        let help = "write the configuration as it was, or allow a change of a key by `--override KEY`";
        Err(Diagnostic::new("train::resumed", message).help(help).into())
    }
}
