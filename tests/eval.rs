//! `skipc eval`: its figures against the logits of PyTorch and of `skipc run --logits`, by a few lines of their own.
#![cfg(feature = "cranelift")]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

use npyz::NpyFile;
use serde_json::Value;
use skipc_runtime::npy;
use tempfile::TempDir;

fn skipc(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_skipc")).args(args).env("NO_COLOR", "1").output().expect("skipc starts")
}

#[track_caller]
fn succeeds(args: &[&str]) -> String {
    let output = skipc(args);
    assert!(output.status.success(), "skipc {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// A model, compiled once for all tests.
fn compiled(spec: &str, weights: &str, more: &[&str]) -> (TempDir, String) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("m.skp").display().to_string();
    succeeds(
        &[&["compile", "--cpu-levels", "native", spec, "--weights", weights, "-o", &path], more].concat(),
    );
    (folder, path)
}

fn example() -> &'static str {
    static COMPILED: OnceLock<(TempDir, String)> = OnceLock::new();
    let spec = ["models/kjv-12l-d25.toml", "models/kjv-12l-d25.safetensors"];
    &COMPILED.get_or_init(|| compiled(spec[0], spec[1], &["--max-tokens", "1000"])).1
}

fn eval(model: &str, more: &[&str]) -> Value {
    serde_json::from_str(&succeeds(&[&["eval", model, "--json"], more].concat())).expect("JSON")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

#[track_caller]
fn close(found: f64, wanted: f64, tolerance: f64) {
    assert!((found - wanted).abs() <= tolerance * wanted.abs(), "{found}, not {wanted}");
}

fn floats(path: &Path) -> Vec<f32> {
    NpyFile::new(std::fs::read(path).unwrap().as_slice()).unwrap().into_vec().unwrap()
}

/// Nats of the tokens in `scores` of a window that begins at `start`, from its logits `[tokens, 256]`: softmax as it is
/// written in books.
fn nats(logits: &[f32], tokens: &[i64], start: usize, scores: std::ops::Range<usize>) -> f64 {
    let of = |at: usize| {
        let row = &logits[(at - 1 - start) * 256..][..256];
        let sum: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
        -(f64::from(row[tokens[at] as usize]).exp() / sum).ln()
    };
    scores.map(of).sum()
}

const GOLDEN: &str = "tests/golden/kjv-12l-d25-t1000";

#[test]
fn the_loss_is_that_of_the_reference() {
    let (logits, path) = (floats(Path::new(&format!("{GOLDEN}/logits.npy"))), format!("{GOLDEN}/tokens.npy"));
    let tokens = npy::read_ints(Path::new(&path), &[1, 2]).unwrap().data;
    let found = eval(example(), &["--tokens", &path]);
    let wanted = nats(&logits, &tokens, 0, 1..1000) / 999.0;
    close(number(&found["loss"]), wanted, 1e-5);
    close(number(&found["perplexity"]), wanted.exp(), 1e-5);
    close(number(&found["bits_per_byte"]), wanted / 2f64.ln(), 1e-5);
    assert_eq!(
        [&found["scored"], &found["tokens"], &found["windows"]].map(|it| it.as_u64()),
        [Some(999), Some(1000), Some(1)]
    );
    // Decisions of the reference, counted.
    let gates = npy::read_ints(Path::new(&format!("{GOLDEN}/gates.npy")), &[2, 3]).unwrap();
    for (router, gate) in found["routing"]["routers"].as_array().unwrap().iter().zip(gates.data.chunks(1000))
    {
        assert_eq!(router["executed"].as_i64(), Some(gate.iter().sum()), "{router}");
    }
}

#[test]
fn windows_are_scored_as_runs_of_their_own() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let text: String = "And God said, Let there be light: and there was light. ".repeat(6);
    let text = &text[..300];
    std::fs::write(path("t.txt"), text).unwrap();
    let tokens: Vec<i64> = text.bytes().map(i64::from).collect();
    // 0..128 scores 127, 96..224 scores 96, 192..300 the rest.
    let mut sum = 0.0;
    for (start, end, from) in [(0, 128, 1), (96, 224, 128), (192, 300, 224)] {
        npy::write(Path::new(&path("w.npy")), &[(end - start) as u64], &tokens[start..end]).unwrap();
        succeeds(&["run", example(), "--tokens", &path("w.npy"), "--logits", &path("l.npy")]);
        sum += nats(&floats(Path::new(&path("l.npy"))), &tokens, start, from..end);
    }
    let found = eval(example(), &["--text", &path("t.txt"), "--window", "128", "--stride", "96"]);
    assert_eq!([&found["scored"], &found["windows"]].map(|it| it.as_u64()), [Some(299), Some(3)]);
    close(number(&found["loss"]), sum / 299.0, 1e-6);
    // Rows of a file are sequences of their own; they come in batches.
    let rows: Vec<i32> = tokens.iter().map(|token| *token as i32).collect();
    npy::write(Path::new(&path("rows.npy")), &[3, 100], &rows).unwrap();
    npy::write(Path::new(&path("lengths.npy")), &[3], &[100, 1, 60]).unwrap();
    let rows = eval(example(), &["--tokens", &path("rows.npy"), "--lengths", &path("lengths.npy")]);
    assert_eq!(rows["scored"].as_u64(), Some(99 + 59));
}

/// A feed-forward layer of 16 × 32 twice behind a router, a head of 8 × 16: what they multiply is counted by hand.
const SMALL: &str = r#"
[model]
name = "small"
vocab_size = 8
d_model = 16
max_positions = 16
norm = "rmsnorm"
norm_eps = 1e-5
positions = "none"
tie_embeddings = false

[block.sparse]
skip = { router = "ROUTER", density = 0.5 }
layers = [{ kind = "ffn", d_ff = 32, activation = "gelu" }]

[[stack]]
blocks = ["sparse"]
"#;

fn small(router: &str) -> (TempDir, String) {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("m.toml"), SMALL.replace("ROUTER", router)).unwrap();
    succeeds(&["init", &path("m.toml"), "-o", &path("w.safetensors"), "--seed", "3"]);
    compiled(&path("m.toml"), &path("w.safetensors"), &["--max-tokens", "64"])
}

#[test]
fn work_is_that_of_the_rows_that_executed() {
    let (folder, model) = small("hash");
    let tokens = folder.path().join("t.npy");
    npy::write(&tokens, &[16], &(0..16).map(|idx| idx * 5 % 8).collect::<Vec<i32>>()).unwrap();
    let found = eval(&model, &["--tokens", &tokens.display().to_string()]);
    let executed = number(&found["routing"]["routers"][0]["executed"]);
    assert!(executed > 0.0 && executed < 16.0, "{found}");
    // A hash decides without a matmul; the head runs for every token.
    let macs = |executed: f64| executed * 2.0 * 16.0 * 32.0 + 16.0 * 16.0 * 8.0;
    assert_eq!(number(&found["work"]["multiply_adds"]), macs(executed));
    assert_eq!(number(&found["work"]["dense"]), macs(16.0));
    assert_eq!(found["bits_per_byte"], Value::Null);
}

#[test]
fn random_decisions_do_not_depend_on_the_batch() {
    let (folder, model) = small("random");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let tokens: Vec<i32> = (0..48).map(|idx| idx * 3 % 8).collect();
    npy::write(Path::new(&path("t.npy")), &[48], &tokens).unwrap();
    let found = eval(&model, &["--tokens", &path("t.npy"), "--window", "16", "--stride", "16"]);
    // The same decisions in each window, since each is the first sequence of a batch of its own.
    npy::write(Path::new(&path("one.npy")), &[16], &tokens[..16]).unwrap();
    let one = eval(&model, &["--tokens", &path("one.npy")]);
    let executed = |found: &Value| number(&found["routing"]["routers"][0]["executed"]);
    assert_eq!(executed(&found), 3.0 * executed(&one));
}

/// What is lost where weights are blocks of 32 numbers in 8 bits, on a text that the model knows and on one that it does not.
#[cfg(feature = "llvm")]
#[test]
fn weights_in_8_bits_lose_less_than_a_half_per_cent_of_perplexity() {
    let spec = ["models/kjv-12l-d25.toml", "models/kjv-12l-d25.safetensors"];
    let more = ["--max-tokens", "1000", "--no-steps", "--dtype", "cpu=q8"];
    let (_folder, in_8_bits) = compiled(spec[0], spec[1], &more);
    for text in ["tests/golden/genesis.txt", "LICENSE-MIT"] {
        let more = ["--text", text, "--window", "500"];
        let [wanted, found] = [example(), &in_8_bits].map(|model| number(&eval(model, &more)["perplexity"]));
        assert!(wanted != found && (found / wanted - 1.0).abs() < 0.005, "{text}: {found}, not {wanted}");
    }
}

/// A loss that is no measure of what is generated is told with the code that says why.
#[test]
fn losses_of_models_that_look_ahead_have_the_code_of_the_lint() {
    for (router, code) in [
        ("hash", None),
        ("topk", Some("lint::future_leak")),
        ("topk\", generate = \"threshold", Some("lint::train_generate_mismatch")),
    ] {
        let (folder, model) = small(router);
        let tokens = folder.path().join("t.npy");
        npy::write(&tokens, &[16], &(0..16).map(|idx| idx * 5 % 8).collect::<Vec<i32>>()).unwrap();
        let args = ["eval", &model, "--tokens", &tokens.display().to_string()];
        let said = succeeds(&args);
        assert_eq!(eval(&model, &args[2..])["lint"].as_str(), code, "{router}");
        assert_eq!(said.contains("lint::"), code.is_some(), "{router}: {said}");
        assert!(code.is_none_or(|code| said.contains(code)), "{router}: {said}");
    }
}

#[test]
fn what_it_cannot_score_is_said() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let refused = |args: &[&str], exit: i32, code: &str| {
        let output = skipc(&[&["eval", example()], args].concat());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(exit) && text.contains(code), "{args:?}: {text}");
    };
    let text = path("t.txt", b"In the beginning");
    refused(&[], 2, "--text");
    refused(&["--text", &text, "--window", "1001"], 2, "usage::eval");
    refused(&["--text", &text, "--window", "1"], 2, "run::usage");
    refused(&["--text", &text, "--window", "8", "--stride", "9"], 2, "run::usage");
    refused(&["--text", &path("one.txt", b"I")], 1, "eval::nothing");
    refused(&["--text", &path("empty.txt", b"")], 1, "eval::nothing");
    refused(&["--text", &path("latin.txt", b"caf\xe9")], 1, "run::io");
    refused(&["--text", &path("gone", b"")[..3]], 1, "run::io");
}
