//! `skipc bench` as users meet it: the shape of what it reports, what it refuses, and that it notices forms that differ.
//! No test depends on a time.
#![cfg(feature = "cranelift")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use skipc_artifact::reader::Artifact;
use skipc_artifact::writer::Writer;
use tempfile::TempDir;

const GOLDEN: &str = "tests/golden/gumbel";

fn skipc(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_skipc")).args(args).env("NO_COLOR", "1").output().unwrap()
}

#[track_caller]
fn succeeds(args: &[&str]) -> String {
    let output = skipc(args);
    assert!(output.status.success(), "skipc {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "quiet in a pipe: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs, expects this exit code, and all of these words in what the user reads.
#[track_caller]
fn fails(args: &[&str], exit: i32, words: &[&str]) {
    let output = skipc(args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(exit), "skipc {args:?}: {text}");
    for word in words {
        assert!(text.contains(word), "skipc {args:?} should say `{word}`: {text}");
    }
}

/// The golden model as an artefact of 40 tokens, with these options.
fn artefact(dir: &TempDir, more: &[&str]) -> String {
    let path = dir.path().join("m.skp").display().to_string();
    let (spec, weights) = (format!("{GOLDEN}/spec.toml"), format!("{GOLDEN}/weights.safetensors"));
    let compile = [
        "compile",
        "--cpu-levels",
        "native",
        &spec,
        "--weights",
        &weights,
        "-o",
        &path,
        "--max-tokens",
        "40",
    ];
    succeeds(&[&compile, more].concat());
    path
}

/// One round at few densities.
const QUICK: [&str; 6] = ["--rounds", "1", "--density", "1,0.25,0.25", "--threads", "1"];

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&succeeds(&[&["bench", "--json"], args, &QUICK].concat())).unwrap()
}

fn forms(point: &Value) -> Vec<&str> {
    point["forms"].as_array().unwrap().iter().map(|form| form["form"].as_str().unwrap()).collect()
}

#[test]
fn a_spec_is_timed_in_three_forms_with_random_weights() {
    let dir = TempDir::new().unwrap();
    let svg = dir.path().join("plot.svg").display().to_string();
    let spec = format!("{GOLDEN}/spec.toml");
    let report = json(&[&spec, "--svg", &svg]);
    assert_eq!(report["model"], "gumbel");
    assert!(report["weights"].as_str().unwrap().starts_with("random"), "{report}");
    // The model's sequences have 64 positions.
    assert_eq!((&report["tokens"], &report["sequences"][7]), (&512.into(), &64.into()));
    assert_eq!(
        (&report["routers"], &report["threads"], &report["rounds"]),
        (&2.into(), &1.into(), &1.into())
    );
    assert!(!report["processor"].as_str().unwrap().is_empty());
    let points = report["points"].as_array().unwrap();
    let densities: Vec<f64> = points.iter().map(|point| point["density"].as_f64().unwrap()).collect();
    assert_eq!(densities, [0.25, 1.0]);
    for point in points {
        assert_eq!(forms(point), ["fused", "unfused", "masked"]);
        assert!(point["largest_difference"].as_f64().unwrap() <= report["tolerance"].as_f64().unwrap());
        for form in point["forms"].as_array().unwrap() {
            let number = |key: &str| form[key].as_f64().unwrap_or_else(|| panic!("{key}: {form}"));
            assert!(number("p10_s") > 0.0 && number("p10_s") <= number("median_s"));
            assert!(number("median_s") <= number("p90_s") && number("over_fused") > 0.0);
            assert!(number("kernels") > 10.0 && number("bytes") > 1e4);
            let skipped: Vec<bool> =
                form["blocks"].as_array().unwrap().iter().map(|block| block["skipped"] == true).collect();
            assert_eq!(skipped, [false, true, true]);
        }
    }
    let cost = |point: usize, form: usize, key: &str| points[point]["forms"][form][key].as_u64().unwrap();
    assert!(cost(0, 0, "kernels") < cost(0, 1, "kernels"), "every op is a kernel of its own");
    assert!(cost(0, 0, "bytes") < cost(1, 0, "bytes"), "bytes grow with density");
    assert!(cost(0, 0, "bytes") < cost(0, 1, "bytes") && cost(0, 0, "bytes") < cost(0, 2, "bytes"));
    assert!(report["break_even"]["measured"].is_object() && report["break_even"]["predicted"].is_object());
    let plot = fs::read_to_string(&svg).unwrap();
    assert!(plot.starts_with("<svg") && plot.contains("gumbel: 512 tokens, 1 thread"), "{plot}");
}

#[test]
fn an_artefact_is_timed_as_it_is_with_its_own_weights() {
    let dir = TempDir::new().unwrap();
    for passes in [&[][..], &["--passes", "merge_routes,saturate,cse,dce"]] {
        let path = artefact(&dir, passes);
        let report = json(&[&path]);
        assert_eq!((&report["tokens"], &report["weights"]), (&40.into(), &"random ones of seed 1".into()));
        let inspected: Value = serde_json::from_str(&succeeds(&["inspect", &path, "--json"])).unwrap();
        let fused = &report["points"][0]["forms"][0];
        assert_eq!(fused["kernels"], inspected["programs"][0]["steps"], "{passes:?}");
        // Whatever passes the artefact has, the masked form computes all rows.
        let bytes = |form: usize| report["points"][0]["forms"][form]["bytes"].as_u64();
        assert!(bytes(2) > bytes(0), "{passes:?}: {report}");
    }
}

#[test]
fn the_table_says_what_was_run() {
    let (spec, weights) = (format!("{GOLDEN}/spec.toml"), format!("{GOLDEN}/weights.safetensors"));
    let common =
        ["bench", &spec, "--weights", &weights, "--tokens", "70", "--rounds", "1", "--density", "0.5"];
    let text = succeeds(&common);
    for word in
        ["gumbel: 70 tokens in 2 sequences", &weights, "of fused", "masked is as fast as fused:", "agree"]
    {
        assert!(text.contains(word), "no `{word}`: {text}");
    }
    let rows = |text: &str, form: &str| {
        text.lines()
            .filter(|line| line.starts_with("0.5") || line.starts_with(" 0.5"))
            .filter(|line| line.contains(form))
            .count()
    };
    assert_eq!((rows(&text, " fused"), rows(&text, " unfused"), rows(&text, " masked")), (1, 1, 1), "{text}");
    let text = succeeds(&[&common[..], &["--forms", "masked,unfused"]].concat());
    assert_eq!((rows(&text, " fused"), rows(&text, " unfused"), rows(&text, " masked")), (0, 1, 1), "{text}");
    assert!(!text.contains("as fast as"), "{text}");
}

#[test]
fn what_cannot_be_timed_is_refused_by_name() {
    let dir = TempDir::new().unwrap();
    let path = artefact(&dir, &[]);
    let spec = format!("{GOLDEN}/spec.toml");
    fails(&["bench", &path, "--device", "cuda"], 5, &["bench::cuda", "tests/device"]);
    fails(&["bench", &path, "--density", "1.5"], 2, &["usage::bench", "1.5"]);
    fails(&["bench", &path, "--weights", &spec], 1, &["weights::header"]);
    let other = dir.path().join("other.safetensors").display().to_string();
    succeeds(&["init", &spec, "-o", &other]);
    fails(&["bench", &path, "--weights", &other], 1, &["weights::other"]);
    fails(&["bench", &path, "--forms", "fast"], 2, &["fast", "masked"]);
    fails(&["bench", &path, "--rounds", "0"], 2, &["--rounds"]);
    fails(&["bench", &path, "--tokens", "41"], 1, &["run::too-many-tokens"]);
    fails(
        &["bench", &path, "--svg", &dir.path().join("no/plot.svg").display().to_string()],
        1,
        &["io::file"],
    );
    fails(&["bench", "missing.skp"], 1, &["io::file"]);
    fails(&["bench", "models/dense-12l.toml", "--tokens", "8"], 1, &["bench::nothing_to_skip"]);
}

#[test]
fn an_artefact_without_code_for_the_host_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = artefact(&dir, &[]);
    let artifact = Artifact::parse(fs::read(&path).unwrap()).unwrap();
    let mut writer = Writer::new(artifact.manifest().clone());
    for entry in artifact.sections().iter().filter(|entry| !entry.name.starts_with("cpu/")) {
        let bytes = artifact.section(&entry.name, entry.kind).unwrap().to_vec();
        writer.section(entry.name.clone(), entry.kind, bytes).unwrap();
    }
    let other = dir.path().join("other.skp");
    fs::write(&other, writer.to_bytes().unwrap()).unwrap();
    fails(&["bench", &other.display().to_string()], 5, &["bench::no_cpu_program", "--target cpu"]);
}

/// One block that keeps keys of executed tokens alone; its sizes are in the counts below.
const DECODED: &str = r#"
[model]
name = "decoded"
vocab_size = 32
d_model = 16
max_positions = 64
norm = "rmsnorm"
norm_eps = 1e-5
positions = "none"
tie_embeddings = false

[block.sparse]
skip = { router = "gumbel", density = 0.5, kv = "active" }
layers = [
  { kind = "attention", heads = 2, kv_heads = 1, head_dim = 8 },
  { kind = "ffn", d_ff = 64, activation = "gelu" },
]

[[stack]]
blocks = ["sparse"]
repeat = 2
"#;

fn decoded(dir: &TempDir, more: &[&str]) -> Value {
    decoded_spec(dir, DECODED, more)
}

fn decoded_spec(dir: &TempDir, text: &str, more: &[&str]) -> Value {
    let spec = dir.path().join("decoded.toml");
    fs::write(&spec, text).unwrap();
    let spec = spec.display().to_string();
    let args = ["bench", "--json", &spec, "--decode", "--cpu-backend", "cranelift", "--threads", "1"];
    serde_json::from_str(&succeeds(&[&args, more].concat())).unwrap()
}

#[test]
fn steps_of_decoding_touch_what_is_counted_by_hand() {
    let dir = TempDir::new().unwrap();
    let found = decoded(&dir, &["--density", "0,0.5,1", "--slots", "1,3", "--behind", "20", "--rounds", "3"]);
    let steps = found["steps"].as_array().unwrap();
    let number = |step: &Value, key: &str| step[key].as_f64().unwrap();
    let of = |slots: u64, density: Option<f64>| {
        let is = |step: &&Value| step["slots"] == slots && step["density"].as_f64() == density;
        steps.iter().find(is).unwrap_or_else(|| panic!("{slots} {density:?}: {found}"))
    };
    let weights =
        |slots: u64, density| (number(of(slots, density), "weight_bytes_a_token") * slots as f64).round();
    // Query, key, value and result of attention, and both matrices of the feed-forward, in f32; gains of two norms, if
    // they are not multiplied into these.
    let matrices = 4.0 * (16.0 * 16.0 + 2.0 * 8.0 * 16.0 + 16.0 * 16.0 + 2.0 * 16.0 * 64.0);
    let gains = 4.0 * 2.0 * 16.0;
    let block = (weights(1, Some(1.0)) - weights(1, Some(0.0))) / 2.0;
    assert!((matrices..=matrices + gains).contains(&block), "{block} of {matrices}");
    for slots in [1, 3] {
        let none = weights(slots, Some(0.0));
        assert_eq!(weights(slots, Some(1.0)) - none, 2.0 * block, "both blocks");
        let head = 4.0 * (32.0 * 16.0);
        assert!((head..head + block / 2.0).contains(&none), "head, and little else: {none}");
        assert_eq!(number(of(slots, Some(1.0)), "executed"), 1.0);
        assert_eq!(number(of(slots, Some(0.5)), "executed"), 0.5);
    }
    // One token executes one of the blocks; three together may execute both.
    assert_eq!(weights(1, Some(0.5)) - weights(1, Some(0.0)), block);
    // Keys and values of all that executed before are read, those of the token are written, in each block: 8 columns
    // in f32 each, and a mark of each token in sight. Tokens 21 and on are timed, the first of which warms up.
    let seen: f64 = (22..25).map(f64::from).sum::<f64>() / 3.0;
    let cache = |density| number(of(1, density), "cache_bytes_a_token");
    let of_block = 2.0 * 32.0 * (seen + 1.0) + seen;
    let more = cache(Some(1.0)) - cache(Some(0.0));
    assert!((more - 2.0 * of_block).abs() < 2.0, "{more} of {}", 2.0 * of_block);
    // The dense sibling touches what all blocks touch, but for the routers' two rows and for gains, which it has folded.
    let (dense, all) = (weights(1, None), weights(1, Some(1.0)));
    assert!(dense < all && all - dense < 2.0 * (gains + 4.0 * 3.0 * 16.0), "{dense} of {all}");
    assert_eq!([&found["prefills"], &found["far"]].map(|list| list.as_array().unwrap().len()), [4, 4]);
    let far = &found["far"][0];
    assert!(far["bytes_ratio"].as_f64() > Some(1.0), "{far}");
    assert_eq!(found["forms"].as_array().unwrap().len(), 0, "nothing waits, and nothing is in bf16: {found}");
}

/// Where keys and values of all tokens are kept, those of tokens that skip may wait, which saves their weights.
#[test]
fn forms_in_which_keys_and_values_wait_are_timed_beside_those_in_which_none_do() {
    let dir = TempDir::new().unwrap();
    let spec = DECODED.replace("kv = \"active\"", "kv = \"all\"");
    let more = ["--density", "0,1", "--slots", "1", "--behind", "20", "--rounds", "3"];
    let found = decoded_spec(&dir, &spec, &more);
    let forms = found["forms"].as_array().unwrap();
    assert_eq!(forms.len(), 2, "one for each density: {found}");
    let bytes = |form: &Value, idx: usize| form["bytes"][idx].as_f64().unwrap();
    for form in forms {
        assert_eq!([&form["form"], &form["over"]], ["--kv lazy", "--kv eager"]);
        assert!(form["speed"].as_f64() > Some(0.0), "{form}");
    }
    // Key and value weights of both blocks, in f32, are read for a token that skips unless it may wait.
    let saved = bytes(&forms[0], 1) - bytes(&forms[0], 0);
    let weights = 2.0 * 4.0 * (2.0 * 8.0 * 16.0);
    assert!((weights / 2.0..=weights).contains(&saved), "{saved} of {weights}: {forms:?}");
}

#[test]
fn decoding_that_cannot_be_timed_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("m.toml").display().to_string();
    let refused = |spec: &str, more: &[&str], exit, words: &[&str]| {
        fs::write(&path, spec).unwrap();
        let args =
            ["bench", &path, "--decode", "--cpu-backend", "cranelift", "--slots", "1", "--rounds", "1"];
        fails(&[&args, more].concat(), exit, words);
    };
    refused(DECODED, &["--behind", "64"], 1, &["bench::positions", "--behind"]);
    refused(DECODED, &["--dtype", "f16"], 2, &["usage::bench", "cpu=bf16"]);
    let dense = DECODED.replace("skip = {", "# skip = {");
    refused(&dense, &[], 1, &["bench::nothing_to_skip"]);
    let later = DECODED.replace(r#""gumbel", density = 0.5, kv = "active""#, r#""topk", density = 0.5"#);
    refused(&later, &[], 1, &["bench::no_steps", "skipc check"]);
    let output = skipc(&["bench", &path, "--slots", "1"]);
    assert_eq!(output.status.code(), Some(2), "slots are of --decode");
}

/// The spec in the artefact, which the other forms are compiled from, has another activation than its code.
#[test]
fn forms_that_differ_are_a_mismatch() {
    let dir = TempDir::new().unwrap();
    let path = artefact(&dir, &[]);
    let artifact = Artifact::parse(fs::read(&path).unwrap()).unwrap();
    let mut writer = Writer::new(artifact.manifest().clone());
    for entry in artifact.sections() {
        let mut bytes = artifact.section(&entry.name, entry.kind).unwrap().to_vec();
        if entry.name == "spec.toml" {
            let text = String::from_utf8(bytes).unwrap();
            let other = text.replace("swiglu", "geglu");
            assert_ne!(text, other);
            bytes = other.into_bytes();
        }
        writer.section(entry.name.clone(), entry.kind, bytes).unwrap();
    }
    fs::write(Path::new(&path), writer.to_bytes().unwrap()).unwrap();
    fails(
        &[&["bench", &path], &QUICK[..]].concat(),
        3,
        &["bench::mismatch", "fused and unfused", "skipc verify"],
    );
}
