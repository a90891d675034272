//! Real inputs: the files of other tests and of the models, and what the command line makes of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

/// A model of a few thousand parameters.
const SPEC: &str = r#"[model]
name = "small"
vocab_size = 256
d_model = 16
max_positions = 64
norm = "layernorm"
positions = "rope"
tie_embeddings = true

[[stack]]
blocks = ["a", "b"]

[block.a]
skip = { router = "gumbel", density = 0.5, kv = "active" }
layers = [{ kind = "attention", heads = 2, head_dim = 8 }]

[block.b]
skip = { router = "sigmoid", kv = "all" }
layers = [{ kind = "ffn", d_ff = 16, activation = "relu" }]
"#;

/// All files with this name's end below a folder of the repository, in order; those of more than 64 KiB are left out.
pub(crate) fn files(folder: &str, end: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::from(folder)];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.to_string_lossy().ends_with(end) && fs::metadata(&path).unwrap().len() <= 1 << 16 {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no {end} in {folder}");
    found.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// A folder with the small model as `small.toml`, `small.safetensors`, `small.skp`, times of its kernels as `tuned.json`, and
/// decisions as `drawn.trace`.
pub(crate) fn folder() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            let folder = TempDir::new().unwrap();
            fs::write(folder.path().join("small.toml"), SPEC).unwrap();
            for args in [
                "init small.toml -o small.safetensors",
                "compile small.toml --weights small.safetensors --cpu-backend cranelift -o small.skp",
                "tune small.toml -o tuned.json --rounds 1 --cpu-backend cranelift",
                "trace generate small.skp --lengths 3,5 --density 0.5 -o drawn.trace",
            ] {
                let mut skipc = Command::new(env!("CARGO_BIN_EXE_skipc"));
                let output = skipc.args(args.split(' ')).current_dir(folder.path()).output().unwrap();
                assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
            }
            folder
        })
        .path()
}

/// A file of that folder.
pub(crate) fn made(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap()
}
