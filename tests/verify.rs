//! `skipc verify` notices when forms of one model differ, and leaves a smaller input that still shows it.
#![cfg(feature = "cranelift")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use skipc::verify::steps::CUTS;
use skipc_artifact::reader::Artifact;
use skipc_artifact::section::SectionKind;
use skipc_testkit::tamper;
use tempfile::TempDir;

fn skipc(dir: &TempDir, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_skipc")).args(args).current_dir(dir.path()).output().unwrap()
}

/// A golden model as an artefact `right.skp`, and as `wrong.skp` with one section's text changed.
fn tampered(golden: &str, section: &str, change: impl Fn(&str) -> String) -> TempDir {
    tampered_bytes(golden, section, |bytes| change(std::str::from_utf8(bytes).unwrap()).into_bytes())
}

fn tampered_bytes(golden: &str, section: &str, change: impl Fn(&[u8]) -> Vec<u8>) -> TempDir {
    let dir = TempDir::new().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(golden);
    let (spec, weights) = (root.join("spec.toml"), root.join("weights.safetensors"));
    let (spec, weights) = (spec.display().to_string(), weights.display().to_string());
    let ran =
        skipc(&dir, &["compile", "--cpu-levels", "native", &spec, "--weights", &weights, "-o", "right.skp"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let right = fs::read(dir.path().join("right.skp")).unwrap();
    let wrong = tamper::with_sections(&right, |name, bytes| (name == section).then(|| change(bytes)));
    fs::write(dir.path().join("wrong.skp"), wrong).unwrap();
    dir
}

fn golden_weights(golden: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(golden);
    root.join("weights.safetensors").display().to_string()
}

fn report(dir: &TempDir, artifact: &str, more: &[&str], exit: i32) -> serde_json::Value {
    let ran = skipc(dir, &[&["verify", artifact, "--json"], more].concat());
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert_eq!(ran.status.code(), Some(exit), "{out}{err}");
    let text = if exit == 0 { out } else { err };
    let begin = text.find('{').unwrap_or_else(|| panic!("no JSON: {text}"));
    serde_json::from_str(&text[begin..]).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The machine's code and exact numbers, two domains in turn, go through every cut.
#[test]
fn steps_are_shown_in_every_cut() {
    let dir = tampered("gumbel", "ir/score/legal.sir", |text| text.to_owned() + "\n");
    let report = report(&dir, "right.skp", &["--weights", &golden_weights("gumbel")], 0);
    let rows: Vec<(&str, &str)> = report["report"]["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .filter_map(|row| Some((row["form"].as_str()?, row["numbers"].as_str()?)))
        .collect();
    for (cut, exact) in CUTS.iter().zip(["ring32", "gf61"].into_iter().cycle()) {
        for (form, numbers) in [("kernels", exact), ("cpu", "f32")] {
            let wanted = format!("{form}, {cut}");
            assert!(rows.contains(&(&wanted, numbers)), "{wanted} in {numbers}: {rows:?}");
        }
    }
}

#[test]
fn a_wrong_pass_is_a_mismatch_in_every_domain_and_leaves_a_case() {
    // One router decides by another threshold.
    let dir =
        tampered("gumbel", "ir/score/legal.sir", |text| text.replacen("at_least=0.0", "at_least=9.0", 1));
    // Random weights may decide alike under both.
    let weights = golden_weights("gumbel");
    assert_eq!(report(&dir, "right.skp", &["--weights", &weights], 0)["ok"], true);
    let verify = |artifact: &str, more: &[&str]| {
        skipc(&dir, &[&["verify", artifact, "--weights", &weights], more].concat())
    };
    let ran = verify("wrong.skp", &["--keep", "kept"]);
    let text = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!(ran.status.code(), Some(3), "{text}");
    assert!(text.contains("verify::mismatch") && text.contains("WRONG"), "{text}");
    assert!(text.contains("--weights"), "what shows it again has the same weights: {text}");
    for name in ["tokens.npy", "lengths.npy"] {
        assert!(dir.path().join("kept").join(name).is_file(), "{name} is missing");
    }
    // What was kept shows it again, on fewer tokens.
    let kept = ["--tokens", "kept/tokens.npy", "--lengths", "kept/lengths.npy"];
    let ran = verify("wrong.skp", &[&kept[..], &["--keep", "again"]].concat());
    assert_eq!(ran.status.code(), Some(3), "{}", String::from_utf8_lossy(&ran.stderr));
    let ran = verify("right.skp", &kept);
    assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// Steps whose keys and values wait are those of whole sequences; rows that wait for another router are not.
#[test]
fn keys_that_wait_are_checked_in_steps() {
    let fault = |text: &str| {
        assert!(text.contains("= pending "), "nothing waits: {text}");
        text.replacen(", router=0}", ", router=1}", 1)
    };
    let golden = "gumbel";
    for (kv, skip_runs) in [("lazy", "apart"), ("eager", "apart"), ("lazy", "together")] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(golden);
        let (spec, weights) = (root.join("spec.toml"), golden_weights(golden));
        let spec = spec.display().to_string();
        let dir = TempDir::new().unwrap();
        let ran = skipc(
            &dir,
            &[
                "compile",
                "--cpu-levels",
                "native",
                &spec,
                "--weights",
                &weights,
                "--kv",
                kv,
                "--skip-runs",
                skip_runs,
                "-o",
                "right.skp",
            ],
        );
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        assert_eq!(report(&dir, "right.skp", &["--weights", &weights], 0)["ok"], true, "{kv}, {skip_runs}");
        if (kv, skip_runs) == ("lazy", "apart") {
            let right = fs::read(dir.path().join("right.skp")).unwrap();
            let wrong = tamper::with_sections(&right, |name, bytes| {
                let text = || fault(std::str::from_utf8(bytes).unwrap()).into_bytes();
                (name == "ir/step/legal.sir").then(text)
            });
            fs::write(dir.path().join("wrong.skp"), wrong).unwrap();
            let ran = skipc(&dir, &["verify", "wrong.skp", "--weights", &weights]);
            let text = String::from_utf8_lossy(&ran.stderr).into_owned();
            assert_eq!(ran.status.code(), Some(3), "{text}");
            let wrong: Vec<&str> = text.lines().filter(|line| line.trim_end().ends_with("WRONG")).collect();
            assert!(
                !wrong.is_empty()
                    && wrong.iter().all(|line| line.contains(" a step") || line.contains(" in turn")),
                "{text}"
            );
        }
    }
}

/// The stream that waits for one router waits for the next one, too, but not where that has two layers that look at other tokens:
/// the later one would leave there what the first router's layer has made of a token that still waits for it.
#[test]
fn a_stream_waits_for_two_routers_only_if_the_second_has_one_layer_that_mixes() {
    let attention = r#"{ kind = "attention", heads = 2 }"#;
    for (layers, caches) in [(1, ["stream.0"].as_slice()), (2, &["stream.0", "stream.1"])] {
        let dir = TempDir::new().unwrap();
        let second = vec![attention; layers].join(", ");
        let spec = format!(
            r#"
[model]
name = "waiting"
vocab_size = 13
d_model = 8
max_positions = 64
[block.a]
skip = {{ router = "random", density = 0.4, seed = 1 }}
layers = [{attention}]
[block.b]
skip = {{ router = "random", density = 0.4, seed = 2 }}
layers = [{second}]
[[stack]]
blocks = ["a", "b"]
"#
        );
        fs::write(dir.path().join("spec.toml"), spec).unwrap();
        for args in [
            &["init", "spec.toml", "-o", "w.safetensors"][..],
            &[
                "compile",
                "--cpu-levels",
                "native",
                "spec.toml",
                "--weights",
                "w.safetensors",
                "--kv",
                "lazy",
                "-o",
                "model.skp",
            ],
        ] {
            let ran = skipc(&dir, args);
            assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        }
        let artifact = Artifact::parse(fs::read(dir.path().join("model.skp")).unwrap()).unwrap();
        let step = artifact.section("ir/step/legal.sir", SectionKind::Ir).unwrap();
        let step = std::str::from_utf8(step).unwrap();
        let named = |name: &&str| step.contains(&format!("\"{name}\""));
        let found: Vec<&str> = ["stream.0", "stream.1"].into_iter().filter(named).collect();
        assert_eq!(found, caches, "{layers} layers: {step}");
        assert_eq!(
            report(&dir, "model.skp", &["--weights", "w.safetensors"], 0)["ok"],
            true,
            "{layers} layers"
        );
    }
}

/// With the weights of the compile, a program runs on its own constants: wrong ones differ from the original tensors.
#[test]
fn wrong_constants_differ_from_the_original_tensors() {
    let dir = tampered_bytes("gumbel", "cpu/constants", |bytes| plus_one(bytes, bytes.len() / 8 * 4));
    let weights = golden_weights("gumbel");
    let ran = skipc(&dir, &["verify", "wrong.skp", "--weights", &weights]);
    let text = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!(ran.status.code(), Some(3), "{text}");
    let wrong: Vec<&str> = text.lines().filter(|line| line.trim_end().ends_with("WRONG")).collect();
    let of_constants =
        |line: &&str| (line.contains("kernels") || line.contains("cpu")) && line.contains("f32");
    assert!(!wrong.is_empty() && wrong.iter().all(of_constants), "{text}");
    // With others, its constants are made anew.
    assert_eq!(report(&dir, "wrong.skp", &[], 0)["ok"], true);
}

#[test]
fn wrong_values_are_found_under_forced_decisions_and_exactly() {
    // Another activation.
    let dir = tampered("gumbel", "ir/score/legal.sir", |text| text.replacen("= silu", "= gelu", 1));
    let ran = skipc(&dir, &["verify", "wrong.skp", "--keep", "kept"]);
    let text = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!(ran.status.code(), Some(3), "{text}");
    for numbers in ["f64", "ring32", "gf61"] {
        let wrong = text
            .lines()
            .any(|line| line.contains("passes") && line.contains(numbers) && line.contains("WRONG"));
        assert!(wrong, "{numbers} sees nothing: {text}");
    }
    let kernels_ok = text.lines().filter(|line| line.contains("kernels")).all(|line| line.ends_with("ok"));
    assert!(kernels_ok, "the kernels were not changed: {text}");
    assert!(dir.path().join("kept/routing.npy").is_file(), "{text}");
}

const LAYER_NORM: &str = r#"
[model]
name = "case"
vocab_size = 16
d_model = 32
max_positions = 256
norm = "layernorm"
positions = "rope"
tie_embeddings = false

[block.a]
skip = { router = "gumbel", density = 0.4 }
layers = [
  { kind = "attention", heads = 4, kv_heads = 2, head_dim = 8 },
  { kind = "ffn", d_ff = 48, activation = "swiglu" },
]

[[stack]]
blocks = ["a", "a"]
"#;

/// Changes rows of the table of tokens in a weights file.
fn edit_embedding(weights: &Path, d_model: usize, change: impl Fn(usize, f32) -> f32) {
    let mut bytes = fs::read(weights).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let tensors: serde_json::Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let offsets = &tensors["embed.weight"]["data_offsets"];
    let [begin, end] = [0, 1].map(|idx| header + offsets[idx].as_u64().unwrap() as usize);
    for (idx, element) in bytes[begin..end].as_chunks_mut::<4>().0.iter_mut().enumerate() {
        *element = change(idx / d_model, f32::from_le_bytes(*element)).to_le_bytes();
    }
    fs::write(weights, bytes).unwrap();
}

/// Tokens whose rows have a mean of many times what they spread by: the norm has to find what is left beside it. Larger
/// means are for the kernels alone, as the stream itself rounds by more than the bound beside them.
#[test]
fn a_layer_norm_of_rows_far_from_zero_is_within_the_bound() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("spec.toml"), LAYER_NORM).unwrap();
    assert!(skipc(&dir, &["init", "spec.toml", "-o", "w.safetensors"]).status.success());
    edit_embedding(&dir.path().join("w.safetensors"), 32, |token, value| match token % 4 {
        0 => 7.1,
        1 => 7.1 + value,
        _ => value,
    });
    let ran = skipc(
        &dir,
        &["compile", "--cpu-levels", "native", "spec.toml", "--weights", "w.safetensors", "-o", "m.skp"],
    );
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(report(&dir, "m.skp", &[], 0)["ok"], true);
}

/// The 32-bit float at this offset, plus one.
fn plus_one(bytes: &[u8], offset: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let word: [u8; 4] = bytes[offset..offset + 4].try_into().unwrap();
    bytes[offset..offset + 4].copy_from_slice(&(f32::from_le_bytes(word) + 1.0).to_le_bytes());
    bytes
}

#[test]
fn known_answers_hold_and_wrong_ones_are_noticed() {
    // The last number of the section is a logit of its last case.
    let section = "known-answer/score/f32.safetensors";
    let dir = tampered_bytes("gumbel", section, |bytes| plus_one(bytes, bytes.len() - 4));
    let ran = skipc(&dir, &["run", "right.skp", "--self-test"]);
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert_eq!(ran.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&ran.stderr));
    for case in ["all", "half", "none", "free"] {
        assert!(text.lines().any(|line| line.contains(case) && line.ends_with("ok")), "{case}: {text}");
    }
    let ran = skipc(&dir, &["run", "wrong.skp", "--self-test"]);
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert_eq!(ran.status.code(), Some(3), "{text}");
    // In one case of both functions.
    let wrong: Vec<&str> = text.lines().filter(|line| line.ends_with("WRONG")).collect();
    let functions: Vec<&str> = wrong.iter().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(functions, ["score", "step"], "{text}");
    assert!(String::from_utf8_lossy(&ran.stderr).contains("run::self-test"));
}

#[test]
fn a_program_with_other_constants_fails_its_known_answers() {
    let dir = tampered_bytes("gumbel", "cpu/constants", |bytes| plus_one(bytes, bytes.len() / 8 * 4));
    let ran = skipc(&dir, &["run", "wrong.skp", "--self-test", "--json"]);
    assert_eq!(ran.status.code(), Some(3), "{}", String::from_utf8_lossy(&ran.stdout));
}

#[test]
fn an_artefact_without_known_answers_says_so() {
    let section = "known-answer/score/f32.safetensors";
    let dir = tampered_bytes("gumbel", section, |_| b"no tensors".to_vec());
    let ran = skipc(&dir, &["run", "wrong.skp", "--self-test"]);
    assert_eq!(ran.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ran.stderr).contains("run::known-answer"));
}

/// One of ten golden models with the forms that equality saturation chooses: constants made of several tensors, norms folded
/// into weights. All forms, in all numbers, agree with the masked graph, and the program replays its known answers.
/// `tests/golden.rs` does the same with all of them, in one process.
#[test]
fn golden_models_with_saturation_pass() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let passes = skipc_passes::default_pipeline().join(",");
    let (mut n_models, mut n_folded) = (0, 0);
    let entries = fs::read_dir(&golden).unwrap().map(|entry| entry.unwrap().path());
    let roots: BTreeSet<PathBuf> = entries.filter(|path| path.join("spec.toml").exists()).collect();
    for root in roots.into_iter().step_by(10) {
        let dir = TempDir::new().unwrap();
        let (spec, weights) = (root.join("spec.toml"), root.join("weights.safetensors"));
        if !weights.exists() {
            continue;
        }
        let (spec, weights) = (spec.display().to_string(), weights.display().to_string());
        let compile = [
            "compile",
            "--cpu-levels",
            "native",
            &spec,
            "--weights",
            &weights,
            "-o",
            "saturated.skp",
            "--passes",
            passes.as_str(),
        ];
        let ran = skipc(&dir, &compile);
        assert!(ran.status.success(), "{spec}: {}", String::from_utf8_lossy(&ran.stderr));
        assert_eq!(report(&dir, "saturated.skp", &[], 0)["ok"], true, "{spec}");
        let artifact = Artifact::parse(fs::read(dir.path().join("saturated.skp")).unwrap()).unwrap();
        let legal = artifact.sections().iter().find(|entry| entry.name == "ir/score/legal.sir").unwrap();
        let legal = artifact.section(&legal.name, legal.kind).unwrap();
        n_folded += usize::from(String::from_utf8_lossy(legal).contains("fold_gain"));
        n_models += 1;
    }
    assert!(n_models > 5 && n_folded > 2, "{n_models} models, {n_folded} with folded norms");
}
