//! Weights and constants as files: the same artefact wherever tensors lie, constants in a second file, and which weights
//! commands compare an artefact with.
#![cfg(feature = "cranelift")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use safetensors::SafeTensors;
use serde_json::{Value, json};
use tempfile::TempDir;

const GOLDEN: &str = "tests/golden/gumbel";

/// A folder with the spec `s.toml`, weights `w.safetensors` and tokens `t.npy` of a golden case.
struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = Folder(TempDir::new().unwrap());
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(GOLDEN);
        for (from, to) in
            [("spec.toml", "s.toml"), ("weights.safetensors", "w.safetensors"), ("tokens.npy", "t.npy")]
        {
            fs::copy(root.join(from), folder.0.path().join(to)).unwrap();
        }
        folder
    }

    fn skipc(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skipc"));
        command.args(args).current_dir(self.0.path()).env("NO_COLOR", "1").output().unwrap()
    }

    #[track_caller]
    fn succeeds(&self, args: &[&str]) -> String {
        let output = self.skipc(args);
        assert!(output.status.success(), "skipc {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs, expects this exit code, and these words in what the user reads.
    #[track_caller]
    fn fails(&self, args: &[&str], exit: i32, words: &[&str]) -> String {
        let output = self.skipc(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(exit), "skipc {args:?}: {text}");
        // Long lines are wrapped.
        let words_of = text.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(words_of.contains(word), "skipc {args:?} should say `{word}`: {text}");
        }
        text
    }

    fn compile(&self, weights: &str, more: &[&str]) {
        let args = ["compile", "s.toml", "--weights", weights, "--max-tokens", "128"];
        self.succeeds(&[&args[..], &["--cpu-backend", "cranelift"], more].concat());
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.path().join(name)).unwrap()
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.0.path().join(name), bytes).unwrap();
    }

    /// The weights as two files with an index, `index.json`.
    fn split(&self) {
        let whole = self.read("w.safetensors");
        let all = SafeTensors::deserialize(&whole).unwrap();
        let mut map = serde_json::Map::new();
        for (shard, file) in ["one.safetensors", "two.safetensors"].into_iter().enumerate() {
            let mut names: Vec<&str> = all.names();
            names.sort_unstable();
            let names = names.into_iter().skip(shard).step_by(2);
            let tensors: Vec<_> = names.map(|name| (name, all.tensor(name).unwrap())).collect();
            map.extend(tensors.iter().map(|(name, _)| ((*name).to_owned(), json!(file))));
            self.write(file, &safetensors::serialize(tensors, None).unwrap());
        }
        self.write("index.json", json!({"weight_map": map}).to_string().as_bytes());
    }
}

#[test]
fn an_artefact_does_not_depend_on_where_tensors_lie() {
    let folder = Folder::new();
    folder.split();
    folder.compile("w.safetensors", &["-o", "one.skp"]);
    folder.compile("index.json", &["-o", "two.skp"]);
    assert!(folder.read("one.skp") == folder.read("two.skp"));
}

#[test]
fn constants_lie_in_a_second_file_where_that_is_asked_for() {
    let folder = Folder::new();
    folder.compile("w.safetensors", &["-o", "whole.skp"]);
    folder.compile("w.safetensors", &["-o", "m.skp", "--external-weights"]);
    folder.compile("w.safetensors", &["-o", "n.skp", "--external-weights=other.skw"]);
    assert!(folder.read("m.skw") == folder.read("other.skw"));
    assert!(folder.read("m.skp").len() + folder.read("m.skw").len() < folder.read("whole.skp").len() + 8192);
    let run = |model: &str, more: &[&str]| {
        let args = ["run", model, "--tokens", "t.npy", "--logits", "l.npy"];
        folder.succeeds(&[&args[..], more].concat());
        folder.read("l.npy")
    };
    let wanted = run("whole.skp", &[]);
    assert!(run("m.skp", &[]) == wanted);
    folder.succeeds(&["run", "m.skp", "--self-test"]);
    let verified = folder.succeeds(&["verify", "m.skp", "--weights", "w.safetensors"]);
    assert!(verified.starts_with("weights: w.safetensors\n") && !verified.contains("WRONG"), "{verified}");
    folder.succeeds(&["verify", "m.skp"]);
    let bench = ["bench", "m.skp", "--rounds", "1", "--density", "0.5", "--tokens", "40"];
    assert!(folder.succeeds(&bench).contains("random ones of seed 1"));
    let bench = folder.succeeds(&[&bench[..], &["--weights", "w.safetensors"]].concat());
    assert!(bench.contains("weights: w.safetensors"), "{bench}");
    folder.succeeds(&["trace", "generate", "m.skp", "--lengths", "3", "--density", "1", "-o", "x.trace"]);

    // Elsewhere, gone, of another compile, cut short, and not wanted.
    fs::rename(folder.0.path().join("m.skw"), folder.0.path().join("moved")).unwrap();
    assert!(folder.succeeds(&["inspect", "m.skp"]).contains("constants in m.skw"));
    let missing = ["run::no-external-weights", "m.skw", "--external-weights"];
    folder.fails(&["run", "m.skp", "--tokens", "t.npy"], 1, &missing);
    folder.fails(&["verify", "m.skp"], 1, &missing);
    folder.fails(&["bench", "m.skp"], 1, &missing);
    assert!(run("m.skp", &["--external-weights", "moved"]) == wanted);
    folder.succeeds(&["init", "s.toml", "-o", "random.safetensors"]);
    folder.compile("random.safetensors", &["-o", "r.skp", "--external-weights=m.skw"]);
    folder.fails(
        &["run", "m.skp", "--tokens", "t.npy"],
        1,
        &["artifact::external", "does not match the hash"],
    );
    folder.write("m.skw", &folder.read("moved")[..4096]);
    folder.fails(&["run", "m.skp", "--tokens", "t.npy"], 1, &["artifact::external", "it has 4096 bytes"]);
    let more = ["--external-weights", "moved"];
    folder.fails(&[&["run", "whole.skp", "--tokens", "t.npy"], &more[..]].concat(), 2, &["run::usage"]);
}

#[test]
fn the_second_file_is_none_that_is_read_or_written_already() {
    let folder = Folder::new();
    let compile = ["compile", "s.toml", "--weights", "w.safetensors"];
    let refused = |more: &[&str], code: &str| folder.fails(&[&compile[..], more].concat(), 2, &[code]);
    refused(&["-o", "m.skp", "--external-weights=w.safetensors"], "run::same-file");
    refused(&["-o", "m.skp", "--external-weights=m.skp"], "run::same-file");
    refused(&["-o", "m.skw", "--external-weights"], "usage::compile");
    assert!(!folder.0.path().join("m.skp").exists() && !folder.0.path().join("m.skw").exists());
}

#[test]
fn weights_of_another_compile_are_refused() {
    let folder = Folder::new();
    folder.compile("w.safetensors", &["-o", "m.skp"]);
    folder.split();
    let of_shards = folder.succeeds(&["verify", "m.skp", "--weights", "index.json", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&of_shards).unwrap()["weights"], "index.json");
    let drawn = folder.succeeds(&["verify", "m.skp", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&drawn).unwrap()["weights"], "random ones of seed 1");
    folder.succeeds(&["init", "s.toml", "-o", "random.safetensors"]);
    for command in ["verify", "bench"] {
        folder.fails(&[command, "m.skp", "--weights", "random.safetensors"], 1, &["weights::other"]);
    }
}

/// What is drawn while a file is written is what the library makes of all tensors in memory.
#[test]
fn random_weights_are_the_same_bytes_every_time() {
    let folder = Folder::new();
    folder.succeeds(&["init", "s.toml", "-o", "a.safetensors", "--seed", "3", "--dtype", "bf16"]);
    folder.succeeds(&["init", "s.toml", "-o", "b.safetensors", "--seed", "3", "--dtype", "bf16"]);
    let bytes = folder.read("a.safetensors");
    assert!(bytes == folder.read("b.safetensors"));
    let all = SafeTensors::deserialize(&bytes).unwrap();
    assert!(safetensors::serialize(all.tensors(), None).unwrap() == bytes);
    let length = bytes.len() / 1024;
    let said = folder.succeeds(&["init", "s.toml", "-o", "a.safetensors", "--dtype", "bf16"]);
    assert!(said.starts_with(&format!("a.safetensors ({length} KiB)")), "{said}");
}

#[cfg(feature = "cuda")]
mod shared {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use skipc::diagnostic::Diagnostic;
    use skipc::driver::pipeline::Request;
    use skipc::frontend::spec;
    use skipc::frontend::weights::safetensors::Safetensors;
    use skipc::frontend::weights::{Tensor, TensorInfo, TensorSource, Weights};
    use skipc_artifact::reader::Artifact;
    use skipc_artifact::section::SectionKind;
    use skipc_artifact::target::{DType, Target};

    use super::GOLDEN;

    /// A source that counts how often a tensor is read.
    struct Counted {
        source: Safetensors,
        reads: Arc<AtomicUsize>,
    }

    impl TensorSource for Counted {
        fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
            self.source.tensors()
        }

        fn read(&self, name: &str) -> Result<Tensor<'_>, Diagnostic> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.source.read(name)
        }
    }

    #[test]
    fn targets_of_one_kind_share_their_constants() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(GOLDEN);
        let model = spec::load(&root.join("spec.toml")).unwrap();
        let reads_for = |archs: &[&str]| {
            let reads = Arc::new(AtomicUsize::new(0));
            let source = Safetensors::open(&root.join("weights.safetensors")).unwrap();
            let source = Counted { source, reads: Arc::clone(&reads) };
            let weights = Weights::new("counted", source, &model).unwrap();
            let targets = archs.iter().map(|arch| (Target::Cuda((*arch).to_owned()), DType::Bf16)).collect();
            let artefact = skipc::compile(&model, &weights, &Request { targets, ..Request::host() }).unwrap();
            let artefact = Artifact::parse(artefact).unwrap();
            let constants = archs.iter().map(|arch| {
                let section = format!("cuda/{arch}/constants");
                artefact.section(&section, SectionKind::Constants).unwrap().as_ptr()
            });
            let places: BTreeSet<_> = constants.collect();
            assert_eq!(places.len(), 1, "one place in the file");
            reads.load(Ordering::Relaxed)
        };
        assert_eq!(reads_for(&["sm_80"]), reads_for(&["sm_80", "sm_86"]), "they are made once");
    }
}
