//! Verdicts: wrong results are called wrong and right ones right, whatever the size of the logits; logits that are no numbers are said
//! with a code; what compared nothing is no success.
#![cfg(all(feature = "cranelift", target_arch = "x86_64"))]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::tensor::{SafeTensors, TensorView, serialize};
use skipc_artifact::bundle;
use skipc_artifact::image::HostTable;
use skipc_artifact::program::SCORE;
use skipc_artifact::reader::Artifact;
use skipc_artifact::target::Target;
use skipc_runtime::npy;
use skipc_testkit::tamper;
use tempfile::TempDir;

/// A folder with the golden model `gumbel`, whose weights can be changed.
struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = Folder(TempDir::new().unwrap());
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gumbel");
        for name in ["spec.toml", "weights.safetensors"] {
            fs::copy(golden.join(name), folder.path(name)).unwrap();
        }
        npy::write(&folder.path("tokens.npy"), &[3], &[5i64, 6, 7]).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Changes all elements of a tensor.
    fn change(&self, tensor: &str, to: impl Fn(f32) -> f32) {
        let file = fs::read(self.path("weights.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&file).unwrap();
        let changed: Vec<(String, Vec<u8>)> = tensors
            .iter()
            .map(|(name, view)| {
                let to = |x: f32| if name == tensor { to(x) } else { x };
                let numbers = view.data().as_chunks().0.iter().map(|word| to(f32::from_le_bytes(*word)));
                (name.to_owned(), numbers.flat_map(f32::to_le_bytes).collect())
            })
            .collect();
        let views = changed.iter().map(|(name, bytes)| {
            let view = tensors.tensor(name).unwrap();
            (name, TensorView::new(view.dtype(), view.shape().to_vec(), bytes).unwrap())
        });
        fs::write(self.path("weights.safetensors"), serialize(views, None).unwrap()).unwrap();
    }

    fn skipc(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_skipc")).args(args).current_dir(self.0.path()).output().unwrap()
    }

    fn compile(&self, more: &[&str]) -> Output {
        let base = [
            "compile",
            "--cpu-levels",
            "native",
            "spec.toml",
            "--weights",
            "weights.safetensors",
            "-o",
            "m.skp",
        ];
        self.skipc(&[&base[..], &["--cpu-backend", "cranelift"], more].concat())
    }

    /// Lets the kernel of the last step, which makes the logits, return at once.
    fn silence_the_head(&self) {
        let file = fs::read(self.path("m.skp")).unwrap();
        let artifact = Artifact::parse(&file).unwrap();
        let program = bundle::read_program(&artifact, &Target::Cpu).unwrap();
        let last = program.functions[SCORE].steps.last().unwrap().kernel;
        let symbol = &program.entries[last as usize].symbol;
        let table = artifact.sections().iter().find(|entry| entry.name == "cpu/baseline.json").unwrap();
        let table: HostTable =
            serde_json::from_slice(artifact.section(&table.name, table.kind).unwrap()).unwrap();
        let offset = table.entries.iter().find(|entry| entry.name == *symbol).unwrap().offset as usize;
        let silenced = tamper::with_sections(&file, |name, code| {
            const RET: u8 = 0xc3;
            let mut code = code.to_vec();
            (name == "cpu/baseline.code").then(|| {
                code[offset] = RET;
                code
            })
        });
        fs::write(self.path("silenced.skp"), silenced).unwrap();
    }
}

#[track_caller]
fn ends(output: &Output, exit: i32, code: &str) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(exit), "{out}{err}");
    assert!(err.contains(code), "no {code} in {err}");
    format!("{out}{err}")
}

#[test]
fn a_head_that_writes_zeros_is_wrong_and_rounding_is_right_at_every_scale() {
    for scale in [1e-6, 1.0, 1e6, 1e8] {
        let folder = Folder::new();
        folder.change("norm.weight", |gain| gain * scale);
        ends(&folder.compile(&[]), 0, "");
        folder.silence_the_head();
        ends(&folder.skipc(&["run", "m.skp", "--self-test"]), 0, "");
        ends(&folder.skipc(&["verify", "m.skp"]), 0, "");
        let text = ends(&folder.skipc(&["run", "silenced.skp", "--self-test"]), 3, "run::self-test");
        assert!(text.contains("relative rms 1.00e0"), "the head writes zeros: {text}");
        ends(&folder.skipc(&["verify", "silenced.skp"]), 3, "verify::mismatch");
    }
}

#[test]
fn weights_that_overflow_are_said_at_compile_time() {
    for gain in ["norm.weight", "blocks.0.layers.0.norm.weight"] {
        let folder = Folder::new();
        folder.change(gain, |_| 3e38);
        ends(&folder.compile(&[]), 1, "weights::overflow");
        assert!(!folder.path("m.skp").exists(), "an artefact was written");
    }
}

#[test]
fn logits_that_are_no_numbers_end_a_run_with_1() {
    let folder = Folder::new();
    // Constants of NaN, as no compile would pass them.
    ends(&folder.compile(&[]), 0, "");
    let file = fs::read(folder.path("m.skp")).unwrap();
    let broken = tamper::with_sections(&file, |name, bytes| {
        (name == "cpu/constants").then(|| vec![0xff; bytes.len()])
    });
    fs::write(folder.path("m.skp"), broken).unwrap();
    let run = ["run", "m.skp", "--tokens", "tokens.npy"];
    for more in [&[][..], &["--logits", "logits.npy"], &["--checked"]] {
        let text = ends(&folder.skipc(&[&run[..], more].concat()), 1, "run::non-finite");
        assert!(text.contains("token"), "{text}");
    }
    assert!(folder.path("logits.npy").exists(), "what was asked for is written");
    let generate = ["generate", "m.skp", "--tokens", "tokens.npy", "--max-new-tokens", "4"];
    for more in
        [&[][..], &["--out", "tokens-out.npy"], &["--beams", "2"], &["--temperature", "1", "--seed", "2"]]
    {
        ends(&folder.skipc(&[&generate[..], more].concat()), 1, "run::non-finite");
    }
    ends(&folder.skipc(&["eval", "m.skp", "--tokens", "tokens.npy"]), 1, "run::non-finite");
    let record = ["trace", "record", "m.skp", "--tokens", "tokens.npy", "-o", "r.trace"];
    ends(&folder.skipc(&record), 1, "run::non-finite");
}

#[test]
fn comparing_nothing_is_no_success() {
    let folder = Folder::new();
    ends(&folder.compile(&[]), 0, "");
    npy::write(&folder.path("none.npy"), &[0], &[0i64; 0]).unwrap();
    npy::write(&folder.path("empty.npy"), &[2, 0], &[0i64; 0]).unwrap();
    for tokens in ["none.npy", "empty.npy"] {
        let verify = folder.skipc(&["verify", "m.skp", "--tokens", tokens]);
        ends(&verify, 1, "verify::nothing_compared");
    }
    let file = fs::read(folder.path("m.skp")).unwrap();
    let no_tokens = tamper::with_sections(&file, |name, bytes| {
        let text = std::str::from_utf8(bytes).ok()?;
        name.ends_with(".json").then(|| text.replace("\"max_tokens\": 64", "\"max_tokens\": 0").into_bytes())
    });
    fs::write(folder.path("m.skp"), no_tokens).unwrap();
    ends(&folder.skipc(&["verify", "m.skp"]), 1, "verify::nothing_compared");
}

#[test]
fn a_mismatch_stays_one_where_its_case_cannot_be_kept() {
    let folder = Folder::new();
    ends(&folder.compile(&[]), 0, "");
    folder.silence_the_head();
    fs::write(folder.path("file"), "no folder").unwrap();
    let text = ends(&folder.skipc(&["verify", "silenced.skp", "--keep", "file/kept"]), 3, "verify::mismatch");
    assert!(text.contains("could not be kept"), "{text}");
    let rows: Vec<&str> =
        text.lines().filter(|line| line.contains("relative") || line.contains(" of ")).collect();
    let is_wrong: Vec<bool> = rows
        .iter()
        .filter(|row| row.ends_with("ok") || row.ends_with("WRONG"))
        .map(|row| row.ends_with("WRONG"))
        .collect();
    let n_wrong = is_wrong.iter().filter(|wrong| **wrong).count();
    assert!(n_wrong > 0 && n_wrong < is_wrong.len(), "{text}");
    assert!(is_wrong[..n_wrong].iter().all(|wrong| *wrong), "wrong ones come first: {text}");
}
