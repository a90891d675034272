//! Golden cases: what the PyTorch reference computes for a model and tokens (`tests/golden`).

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use skipc_ir::interp::FlatBatch;

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
    /// Token ids, one row a sequence; lengths may differ. All 0 for a model that takes patches.
    pub tokens: Vec<Vec<i64>>,
    /// Its patches, behind a row of zeros for each class token: `[n, patch_dim]`; none for a model that takes ids.
    pub patches: Vec<f32>,
    /// What scoring gives.
    pub scored: Outputs,
    /// What the same tokens give when the model generates, if it then decides otherwise.
    pub generated: Option<Outputs>,
    /// For each router how many tokens it wanted to execute and had no slot for; `None` if no router has a capacity.
    pub overflow: Option<Vec<usize>>,
    /// Greedy continuation of row 0.
    pub greedy: Vec<i64>,
    /// What `case.json` says.
    pub figures: Figures,
}

/// Results for n tokens, all rows one after the other.
#[derive(Debug)]
pub struct Outputs {
    /// `[n · vocab]`, or `[sequences · classes]`.
    pub logits: Vec<f32>,
    /// The rows that give the scores of each sequence, if sequences are scored.
    pub pooled: Option<Vec<usize>>,
    /// `[routers][n]`.
    pub gates: Vec<Vec<bool>>,
    /// Which choices tokens got in each layer of experts, `[layers][n · choices]`; the widest decides how many choices there
    /// are. Empty if there is no layer.
    pub experts: Vec<Vec<u8>>,
}

/// The figures of `case.json`; `tests/golden/README.md` says what each is.
#[derive(Debug, Deserialize)]
pub struct Figures {
    spec: PathBuf,
    weights: PathBuf,
    /// What of a sequence is scored: `first`, `mean` or `last`, if anything is.
    #[serde(default)]
    pool: Option<String>,
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
    let patches = optional::<f32>(dir, "patches");
    let (gate_shape, gates) = read(&dir.join("gates.npy"));
    let (shape, tokens) = match &patches {
        Some(_) => (gate_shape[1..].to_vec(), vec![0; (gate_shape[1] * gate_shape[2]) as usize]),
        None => read::<i32>(&dir.join("tokens.npy")),
    };
    let n_patches = patches.as_ref().map_or(shape[1], |(shape, _)| shape[1]);
    let grid = Grid::new(dir, (&shape, n_patches), figures.pool.as_deref());
    let overflow = optional::<i32>(dir, "overflow").map(|(_, counts)| {
        counts.into_iter().map(|count| usize::try_from(count).unwrap_or(usize::MAX)).collect()
    });
    let (_, greedy) = read::<i32>(&dir.join("greedy.npy"));
    Case {
        name: dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        spec: dir.join(&figures.spec),
        weights: dir.join(&figures.weights),
        patches: patches.map_or_else(Vec::new, |(shape, rows)| grid.behind_class_tokens(&shape, &rows)),
        tokens: grid.rows(&tokens).map(|row| row.iter().map(|token| i64::from(*token)).collect()).collect(),
        scored: Outputs {
            experts: grid.experts(dir),
            ..grid.outputs(read(&dir.join("logits.npy")), (gate_shape, gates))
        },
        generated: optional(dir, "generate_logits")
            .map(|logits| grid.outputs(logits, read(&dir.join("generate_gates.npy")))),
        overflow,
        greedy: greedy.into_iter().map(i64::from).collect(),
        figures,
        dir: dir.to_owned(),
    }
}

/// The rows of arrays `[…, batch, tokens, …]`, of which only a part counts where rows are short.
struct Grid {
    width: usize,
    lengths: Vec<usize>,
    /// What of a sequence is scored, if anything is.
    pool: Option<String>,
}

impl Grid {
    /// Of arrays of this shape, of which so many of a row are no class token.
    fn new(dir: &Path, (shape, n_own): (&[u64], u64), pool: Option<&str>) -> Grid {
        let size = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        let (width, more) = (size(shape[1]), size(shape[1] - n_own));
        let lengths = match optional::<i32>(dir, "lengths") {
            Some((_, lengths)) => {
                lengths.into_iter().map(|length| size(length.unsigned_abs().into()) + more).collect()
            }
            None => vec![width; size(shape[0])],
        };
        Grid { width, lengths, pool: pool.map(str::to_owned) }
    }

    /// The part of each row that counts, of elements that may be wider than one.
    fn rows<'a, T>(&'a self, data: &'a [T]) -> impl Iterator<Item = &'a [T]> {
        let element = data.len() / (self.width * self.lengths.len()).max(1);
        let rows = data.chunks_exact((self.width * element).max(1));
        rows.zip(&self.lengths).map(move |(row, length)| &row[..length * element])
    }

    /// The patches that count, those of each row behind zeros for its class token if it has one.
    fn behind_class_tokens(&self, shape: &[u64], patches: &[f32]) -> Vec<f32> {
        let (n_patches, cols) = (shape[1] as usize, shape[2] as usize);
        let more = self.width - n_patches;
        let mut all = Vec::new();
        for (row, length) in patches.chunks_exact(n_patches * cols).zip(&self.lengths) {
            all.resize(all.len() + more * cols, 0.0);
            all.extend_from_slice(&row[..(length - more) * cols]);
        }
        all
    }

    fn outputs(&self, (_, logits): (Vec<u64>, Vec<f32>), (shape, gates): (Vec<u64>, Vec<u8>)) -> Outputs {
        let routers = gates.chunks_exact((self.width * self.lengths.len()).max(1));
        let gates: Vec<Vec<bool>> =
            routers.map(|gate| self.rows(gate).flatten().map(|gate| *gate == 1).collect()).collect();
        assert_eq!(gates.len() as u64, shape[0], "routers of the gates");
        let Some(pool) = &self.pool else {
            let logits = self.rows(&logits).flatten().copied().collect();
            return Outputs { logits, pooled: None, gates, experts: Vec::new() };
        };
        let ends = self.lengths.iter().scan(0, |end, length| {
            *end += length;
            Some(*end)
        });
        let row = |(end, length): (usize, &usize)| if pool == "first" { end - length } else { end - 1 };
        let pooled = Some(ends.zip(&self.lengths).map(row).collect());
        Outputs { logits, pooled, gates, experts: Vec::new() }
    }

    /// The choices that tokens got.
    fn experts(&self, dir: &Path) -> Vec<Vec<u8>> {
        let Some((shape, taken)) = optional::<u8>(dir, "experts") else { return Vec::new() };
        let size = shape[1..].iter().product::<u64>() as usize;
        taken.chunks_exact(size).map(|layer| self.rows(layer).flatten().copied().collect()).collect()
    }
}

fn optional<T: npyz::Deserialize>(dir: &Path, name: &str) -> Option<(Vec<u64>, Vec<T>)> {
    let path = dir.join(format!("{name}.npy"));
    path.exists().then(|| read(&path))
}

fn read<T: npyz::Deserialize>(path: &Path) -> (Vec<u64>, Vec<T>) {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = npyz::NpyFile::new(&bytes[..]).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let shape = file.shape().to_vec();
    (shape, file.into_vec().unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

impl Case {
    /// Its tokens with positions and sequences.
    pub fn batch(&self) -> FlatBatch {
        if self.patches.is_empty() {
            return FlatBatch::from_sequences(self.tokens.iter().map(Vec::as_slice));
        }
        FlatBatch::of_rows(self.patches.clone(), self.tokens.iter().map(Vec::len))
    }

    /// Tokens of all rows together.
    pub fn n_tokens(&self) -> usize {
        self.tokens.iter().map(Vec::len).sum()
    }

    /// Asserts that scoring gave logits within `tolerance` of the reference and the same decisions.
    ///
    /// # Panics
    /// If not; the message names the case, the form of the model and the worst logit.
    pub fn check(&self, form: &str, logits: &[f64], gates: &[Vec<bool>], tolerance: f64) {
        self.scored.check(&format!("{}, {form}", self.name), logits, gates, tolerance);
    }

    /// Asserts that tokens got the same choices of experts, `[n, choices]` of each layer.
    ///
    /// # Panics
    /// If not; the message names the case, the form of the model, the layer and the token.
    pub fn check_experts(&self, form: &str, layers: &[(u32, &[u8])]) {
        self.scored.check_experts(&format!("{}, {form}", self.name), self.n_tokens(), layers);
    }

    /// Asserts that a router lost as many tokens to its capacity as in the reference.
    ///
    /// # Panics
    /// If not; the message names the case and the form of the model.
    pub fn check_overflow(&self, form: &str, overflow: &[usize]) {
        let none = vec![0; self.scored.gates.len()];
        assert_eq!(overflow, self.overflow.as_ref().unwrap_or(&none), "{}, {form}: overflow", self.name);
    }

    /// Root mean square distance of logits from the reference.
    pub fn rmse(&self, logits: &[f64]) -> f64 {
        let logits = self.scored.of_sequences(logits);
        let squares =
            logits.iter().zip(&self.scored.logits).map(|(got, wanted)| (got - f64::from(*wanted)).powi(2));
        (squares.sum::<f64>() / logits.len().max(1) as f64).sqrt()
    }
}

impl Outputs {
    /// The logits that count: all, or those of one row of each sequence.
    fn of_sequences<'l>(&self, logits: &'l [f64]) -> Cow<'l, [f64]> {
        let Some(rows) = &self.pooled else { return logits.into() };
        let cols = self.logits.len() / rows.len().max(1);
        rows.iter().flat_map(|row| &logits[row * cols..][..cols]).copied().collect()
    }

    /// Asserts that so many tokens got the same choices of experts, `[n, choices]` of each layer. `what` is for the message.
    ///
    /// # Panics
    /// If not; the message has the layer and the token.
    pub fn check_experts(&self, what: &str, n_tokens: usize, layers: &[(u32, &[u8])]) {
        assert_eq!(layers.len(), self.experts.len(), "{what}: layers of experts");
        for (layer, ((of, got), wanted)) in layers.iter().zip(&self.experts).enumerate() {
            let (of, width) = (*of as usize, wanted.len() / n_tokens.max(1));
            assert_eq!(got.len(), of * n_tokens, "{what}: tokens of layer {layer}");
            for (row, (got, wanted)) in got.chunks_exact(of).zip(wanted.chunks_exact(width)).enumerate() {
                let (same, rest) = wanted.split_at(of);
                assert!(
                    got == same && rest.iter().all(|taken| *taken == 0),
                    "{what}: row {row} has {got:?} in layer {layer}, expected {wanted:?}"
                );
            }
        }
    }

    /// Asserts that logits are within `tolerance` of these and all decisions equal. `what` is for the message.
    ///
    /// # Panics
    /// If not; the message has the worst logit.
    pub fn check(&self, what: &str, logits: &[f64], gates: &[Vec<bool>], tolerance: f64) {
        assert_eq!(gates.len(), self.gates.len(), "{what}: number of routers");
        for (router, (got, wanted)) in gates.iter().zip(&self.gates).enumerate() {
            let differ = got.iter().zip(wanted).position(|(got, wanted)| got != wanted);
            assert!(
                differ.is_none() && got.len() == wanted.len(),
                "{what}: router {router} decides otherwise at row {differ:?}"
            );
        }
        let logits = self.of_sequences(logits);
        assert_eq!(logits.len(), self.logits.len(), "{what}: number of logits");
        let mut worst = (0, 0.0);
        for (idx, (got, wanted)) in logits.iter().zip(&self.logits).enumerate() {
            let error = (got - f64::from(*wanted)).abs();
            // A NaN is the worst of all, and no later error is above it.
            if error > worst.1 || error.is_nan() {
                worst = (idx, error);
            }
        }
        assert!(worst.1 <= tolerance, "{what}: logit {} is {:.3e} from the reference", worst.0, worst.1);
    }
}
