//! Golden cases: what the PyTorch reference computes for a model and tokens (`tests/golden`).

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use skipc_ir::interp::Batch;

/// One case. All paths are absolute or from where the cases were asked for.
#[derive(Debug)]
pub struct Case {
    /// Its folder's name.
    pub name: String,
    /// Its folder.
    pub dir: PathBuf,
    /// The model.
    pub spec: PathBuf,
    /// Its weights.
    pub weights: PathBuf,
    /// Token ids, `[batch][tokens]`; all rows are of one length.
    pub tokens: Vec<Vec<i64>>,
    /// `[batch · tokens · vocab]`.
    pub logits: Vec<f32>,
    /// `[routers][batch · tokens]`.
    pub gates: Vec<Vec<bool>>,
    /// Greedy continuation of row 0.
    pub greedy: Vec<i64>,
    /// What `case.json` says.
    pub figures: Figures,
}

/// The figures of `case.json`; `tests/golden/README.md` says what each is.
#[derive(Debug, Deserialize)]
pub struct Figures {
    spec: PathBuf,
    weights: PathBuf,
    /// Root mean square difference of PyTorch's bf16 logits from f64, with the f32 decisions replayed.
    pub bf16_rmse: f64,
    /// Smallest distance of a score to the border of its decision.
    pub nearest_score: f64,
}

/// All cases below a folder, by name.
///
/// # Panics
/// If the folder or a case cannot be read: golden files are part of the repository.
pub fn cases(dir: &Path) -> Vec<Case> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut dirs: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("case.json").exists())
        .collect();
    dirs.sort();
    dirs.iter().map(|dir| case(dir)).collect()
}

/// The case in this folder.
///
/// # Panics
/// If it cannot be read.
pub fn case(dir: &Path) -> Case {
    let text = fs::read_to_string(dir.join("case.json"))
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let figures: Figures =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let (shape, tokens) = read::<i32>(&dir.join("tokens.npy"));
    let tokens: Vec<i64> = tokens.into_iter().map(i64::from).collect();
    let row = usize::try_from(shape[1]).unwrap_or(1);
    let (_, logits) = read::<f32>(&dir.join("logits.npy"));
    let (_, gates) = read::<u8>(&dir.join("gates.npy"));
    let (_, greedy) = read::<i32>(&dir.join("greedy.npy"));
    Case {
        name: dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        spec: dir.join(&figures.spec),
        weights: dir.join(&figures.weights),
        gates: gates
            .chunks_exact(tokens.len().max(1))
            .map(|gate| gate.iter().map(|gate| *gate == 1).collect())
            .collect(),
        tokens: tokens.chunks_exact(row.max(1)).map(<[i64]>::to_vec).collect(),
        logits,
        greedy: greedy.into_iter().map(i64::from).collect(),
        figures,
        dir: dir.to_owned(),
    }
}

fn read<T: npyz::Deserialize>(path: &Path) -> (Vec<u64>, Vec<T>) {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = npyz::NpyFile::new(&bytes[..]).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let shape = file.shape().to_vec();
    (shape, file.into_vec().unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

impl Case {
    /// Its tokens with positions and sequences.
    pub fn batch(&self) -> Batch {
        Batch::from_sequences(self.tokens.iter().map(Vec::as_slice))
    }

    /// Asserts that logits are within `tolerance` of the reference and all decisions equal.
    ///
    /// # Panics
    /// If not; the message names the case, the form of the model and the worst logit.
    pub fn check(&self, form: &str, logits: &[f64], gates: &[Vec<bool>], tolerance: f64) {
        assert_eq!(gates.len(), self.gates.len(), "{}, {form}: number of routers", self.name);
        for (router, (got, wanted)) in gates.iter().zip(&self.gates).enumerate() {
            let differ = got.iter().zip(wanted).position(|(got, wanted)| got != wanted);
            assert!(
                differ.is_none() && got.len() == wanted.len(),
                "{}, {form}: router {router} decides otherwise at row {differ:?}",
                self.name
            );
        }
        assert_eq!(logits.len(), self.logits.len(), "{}, {form}: number of logits", self.name);
        let mut worst = (0, 0.0);
        for (idx, (got, wanted)) in logits.iter().zip(&self.logits).enumerate() {
            let error = (got - f64::from(*wanted)).abs();
            // A NaN is the worst of all, and no later error is above it.
            if error > worst.1 || error.is_nan() {
                worst = (idx, error);
            }
        }
        assert!(
            worst.1 <= tolerance,
            "{}, {form}: logit {} is {:.3e} from the reference",
            self.name,
            worst.0,
            worst.1
        );
    }

    /// Root mean square distance of logits from the reference.
    pub fn rmse(&self, logits: &[f64]) -> f64 {
        let squares = logits.iter().zip(&self.logits).map(|(got, wanted)| (got - f64::from(*wanted)).powi(2));
        (squares.sum::<f64>() / logits.len().max(1) as f64).sqrt()
    }
}
