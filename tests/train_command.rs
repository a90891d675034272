//! `skipc train` as its users know it: files, errors, and runs that stop and go on.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A model with its configuration and data, to train for so many steps.
fn project(folder: &Path, steps: u32) {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/training/text");
    for name in ["spec.toml", "text.txt"] {
        std::fs::copy(case.join(name), folder.join(name)).unwrap();
    }
    let config = std::fs::read_to_string(case.join("train.toml")).unwrap();
    std::fs::write(folder.join("train.toml"), config.replacen("steps = 6", &format!("steps = {steps}"), 1))
        .unwrap();
}

fn train(folder: &Path, out: &str, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skipc"));
    command
        .current_dir(folder)
        .args(["train", "spec.toml", "--config", "train.toml", "-o", out])
        .args(options);
    command
}

fn run(folder: &Path, out: &str, options: &[&str]) -> Output {
    train(folder, out, options).output().unwrap()
}

fn succeeds(folder: &Path, out: &str, options: &[&str]) -> String {
    let output = run(folder, out, options);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The code and the text of an error, and the exit status.
fn fails(folder: &Path, options: &[&str]) -> (String, String, i32) {
    let output = run(folder, "fails", &[&["--json"], options].concat());
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let error = &found["errors"][0];
    let word = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    (word("code"), word("message"), output.status.code().unwrap_or(-1))
}

fn checkpoints(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = entries
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-")))
        .collect();
    found.sort();
    found
}

fn wait_for_checkpoint(child: &mut Child, folder: &Path) {
    let began = Instant::now();
    while checkpoints(folder).len() < 2 && child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < Duration::from_secs(60), "no checkpoint comes");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn weights(folder: &Path, out: &str) -> Vec<u8> {
    std::fs::read(folder.join(out).join("weights.safetensors")).unwrap()
}

#[test]
fn a_run_leaves_weights_a_log_and_a_plot() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    project(folder, 6);
    let options = ["--eval-every", "2", "--save-every", "1", "--svg", "run.svg", "--timing"];
    let said = succeeds(folder, "out", &options);
    assert!(said.contains("6 of 6 steps") && said.contains("bits per byte"), "{said}");
    // Each step ran these functions once.
    for function in ["train_gradient", "train_update"] {
        assert!(said.lines().any(|line| line.contains("  1.0  ") && line.contains(function)), "{said}");
    }
    let log = std::fs::read_to_string(folder.join("out/log.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().filter(|line| line["loss"].is_number()).count(), 6);
    assert_eq!(lines.iter().filter(|line| line["eval"].is_object()).count(), 3);
    assert!(lines[0]["multiply_adds"].as_f64().is_some_and(|share| share > 0.0 && share < 1.0));
    let svg = std::fs::read_to_string(folder.join("run.svg")).unwrap();
    assert!(svg.contains("router 1") && svg.contains("nats a token"));
    // Two steps, each with its two files.
    assert_eq!(checkpoints(&folder.join("out")).len(), 4);
    let compile = Command::new(env!("CARGO_BIN_EXE_skipc"))
        .current_dir(folder)
        .args(["check", "spec.toml", "--weights", "out/weights.safetensors"])
        .output()
        .unwrap();
    assert!(compile.status.success(), "{}", String::from_utf8_lossy(&compile.stderr));
}

#[test]
fn more_windows_are_held_out_than_a_batch_has_rows() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    project(folder, 2);
    let config = std::fs::read_to_string(folder.join("train.toml")).unwrap();
    let config = config.replace("validation = 0.1", "validation = 0.5").replace("batch = 5", "batch = 1");
    std::fs::write(folder.join("train.toml"), config).unwrap();
    let evaluated = |out: &str, options: &[&str]| -> serde_json::Value {
        let said = succeeds(folder, out, &[&["--json"], options].concat());
        serde_json::from_str::<serde_json::Value>(&said).unwrap()["eval"].take()
    };
    let [compiled, reference] =
        [evaluated("compiled", &[]), evaluated("reference", &["--target", "interpreter"])];
    assert_eq!(compiled["tokens"], 15 * 16, "{compiled}");
    assert_eq!(compiled["tokens"], reference["tokens"]);
    let [ours, theirs] = [&compiled, &reference].map(|eval| eval["loss"].as_f64().unwrap());
    assert!((ours - theirs).abs() < 2e-5, "{ours} instead of {theirs}");
}

#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    project(folder, 60);
    succeeds(folder, "whole", &[]);
    for (idx, wait) in [0, 20, 60, 130].into_iter().enumerate() {
        let out = format!("killed-{idx}");
        let mut child = train(folder, &out, &["--save-every", "1"]).stdout(Stdio::null()).spawn().unwrap();
        wait_for_checkpoint(&mut child, &folder.join(&out));
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
        succeeds(folder, &out, &["--resume", "--save-every", "7"]);
        assert!(
            weights(folder, &out) == weights(folder, "whole"),
            "killed {wait} ms after its first checkpoint"
        );
    }
}

#[test]
fn a_run_that_is_asked_to_end_writes_a_checkpoint_and_says_how_to_go_on() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    project(folder, 400);
    let mut child = train(folder, "out", &["--save-every", "1"]).stdout(Stdio::piped()).spawn().unwrap();
    wait_for_checkpoint(&mut child, &folder.join("out"));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(said.contains("to go on: skipc train spec.toml --config train.toml -o out --resume"), "{said}");
    let done: u64 = said.split("train-text: ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let last = checkpoints(&folder.join("out")).pop().unwrap();
    assert!(last.ends_with(format!("step-{done:08}.safetensors")), "{} {done}", last.display());
}

#[test]
fn another_run_does_not_go_on() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    project(folder, 2);
    succeeds(folder, "fails", &[]);
    assert_eq!(fails(folder, &[]).0, "train::checkpoint");
    project(folder, 3);
    let (code, message, status) = fails(folder, &["--resume"]);
    assert_eq!((code.as_str(), status), ("train::resumed", 1));
    assert!(message.contains("`train.steps` was 2 and is 3"), "{message}");
    assert!(fails(folder, &["--resume", "--override", "train.stepz"]).1.contains("train.stepz"));
    succeeds(folder, "fails", &["--resume", "--override", "train.steps"]);
    std::fs::write(
        folder.join("text.txt"),
        "Another text, which is long enough for a window or two. ".repeat(9),
    )
    .unwrap();
    assert!(fails(folder, &["--resume"]).1.contains("the data is another"));
}

#[test]
fn what_cannot_be_trained_has_a_code() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    project(folder, 2);
    let config = std::fs::read_to_string(folder.join("train.toml")).unwrap();
    for (from, to, wanted, status) in [
        ("seed = 2", "sead = 2", "spec::unknown_key", 1),
        ("lr = 5e-3", "lr = 0.0", "spec::out_of_range", 1),
        ("lr = 5e-3", "beta2 = 0.9", "spec::unknown_key", 1),
        ("seed = 2", "temperature = 0.0", "spec::out_of_range", 1),
        ("noise = { from = 1.0, to = 0.0, steps = 4 }", "noise = -1.0", "spec::out_of_range", 1),
        ("seed = 2", "freeze = \"*\"", "spec::wrong_type", 1),
        ("seed = 2", "freeze = [\"*\"]", "train::nothing", 1),
        ("seed = 2", "train = [\"*.router\"]", "train::pattern", 1),
        ("batch = 5", "batch = 70000", "spec::limit", 1),
        ("seq = 16", "seq = 65", "train::positions", 1),
        ("validation = 0.1", "validation = 0.01", "train::no_window", 1),
        ("text = \"text.txt\"", "", "spec::missing_key", 1),
        ("text = \"text.txt\"", "text = \"text.txt\"\ntokens = \"x.npy\"", "spec::bad_value", 1),
        ("text = \"text.txt\"", "text = \"nowhere.txt\"", "run::io", 1),
        (
            "[data]",
            "[distill]\nspec = \"other.toml\"\nweights = \"other.safetensors\"\n[data]",
            "train::teacher",
            1,
        ),
    ] {
        let changed = config.replacen(from, to, 1);
        assert_ne!(changed, config, "{from}");
        std::fs::write(folder.join("train.toml"), changed).unwrap();
        other_model(folder);
        let (code, message, got) = fails(folder, &[]);
        assert_eq!((code.as_str(), got), (wanted, status), "{to}: {message}");
    }
    std::fs::write(folder.join("train.toml"), config).unwrap();
    let spec = std::fs::read_to_string(folder.join("spec.toml")).unwrap();
    std::fs::write(folder.join("spec.toml"), spec.replace("tie_embeddings = true", "head = \"rows\""))
        .unwrap();
    assert_eq!(fails(folder, &[]).0, "train::rows_model");
    std::fs::write(folder.join("spec.toml"), spec).unwrap();
    let (code, message, status) = fails(folder, &["--target", "cuda:sm_90a"]);
    assert_eq!((code.as_str(), status), ("legal::no_kernel", 5), "{message}");
    assert_eq!(fails(folder, &["--target", "gpu"]).0, "usage::train");
    assert_eq!(fails(folder, &["--target", "interpreter", "--timing"]).0, "usage::train");
    let config = std::fs::read_to_string(folder.join("train.toml")).unwrap();
    std::fs::write(folder.join("train.toml"), config.replace("seed = 2", "dtype = \"bf16\"")).unwrap();
    for in_f32 in [["--target", "interpreter"], ["--cpu-backend", "cranelift"]] {
        let (code, message, status) = fails(folder, &in_f32);
        assert_eq!((code.as_str(), status), ("train::dtype", 5), "{message}");
    }
    assert!(!folder.join("fails").join("log.jsonl").exists(), "nothing has begun");
}

#[test]
fn what_training_does_not_know_is_named() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    project(folder, 2);
    let spec = std::fs::read_to_string(folder.join("spec.toml")).unwrap();
    let skip = "skip = { router = \"gumbel\", density = 0.25 }";
    let ffn = "{ kind = \"ffn\", d_ff = 30, activation = \"swiglu\" }";
    let blocks = "blocks = [\"dense\", \"skip\", \"skip\"]";
    let topk = |rest: &str| format!("skip = {{ router = \"topk\", density = 0.5, {rest} }}");
    for (from, to, named) in [
        (ffn, "{ kind = \"experts\", experts = 4, d_ff = 30 }".to_owned(), "kind = \"experts\""),
        (ffn, "{ kind = \"conv\", kernel = 3 }".to_owned(), "kind = \"conv\""),
        (blocks, "blocks = [\"dense\", \"dense\"]\nrepeat = 2\nshare = true".to_owned(), "`share`"),
        (blocks, format!("blocks = [\"dense\"]\n{skip}"), "`skip` on a stack"),
        (
            skip,
            format!("skip = {{ router = \"gumbel\", density = 0.25, otherwise = [{ffn}] }}"),
            "`otherwise`",
        ),
        (skip, "skip = { router = \"highway\", carry = \"own\" }".to_owned(), "carry = \"own\""),
        (skip, "skip = { router = \"highway\", carry_bias = 1.0 }".to_owned(), "`carry_bias`"),
        (
            skip,
            "skip = { router = \"sigmoid\", density = 0.5, decider = [{ linear = 8 }] }".to_owned(),
            "`decider`",
        ),
        (skip, "skip = { router = \"sigmoid\", density = 0.5, channels = true }".to_owned(), "`channels`"),
        (skip, topk("scope = \"batch\""), "scope = \"batch\""),
        (skip, topk("generate = \"predictor\", predictor = [{ linear = 8 }]"), "generate = \"predictor\""),
        (skip, topk("force_first = 1"), "`force_first`"),
        (skip, topk("gate = \"scaled\", gate_factor = 2.0"), "`gate_factor`"),
        (skip, topk("gate = \"raw\""), "gate = \"raw\""),
        (skip, topk("gate = \"scaled_last\""), "gate = \"scaled_last\""),
        (skip, topk("combine = \"add\""), "`combine`"),
    ] {
        let changed = spec.replace(from, &to);
        assert_ne!(changed, spec, "{from}");
        std::fs::write(folder.join("spec.toml"), changed).unwrap();
        let (code, message, status) = fails(folder, &[]);
        assert_eq!((code.as_str(), status), ("train::unsupported", 5), "{to}: {message}");
        assert!(message.contains(named), "{to}: {message}");
    }
    assert!(!folder.join("fails").exists(), "nothing has begun");
}

/// A model with another vocabulary, and its weights.
fn other_model(folder: &Path) {
    let text = std::fs::read_to_string(folder.join("spec.toml")).unwrap();
    std::fs::write(folder.join("other.toml"), text.replace("vocab_size = 256", "vocab_size = 300")).unwrap();
    let made = Command::new(env!("CARGO_BIN_EXE_skipc"))
        .current_dir(folder)
        .args(["init", "other.toml", "-o", "other.safetensors"])
        .output()
        .unwrap();
    assert!(made.status.success());
}

#[test]
fn a_model_learns_from_its_teacher_and_from_dense_weights() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    project(folder, 4);
    let spec = std::fs::read_to_string(folder.join("spec.toml")).unwrap();
    let dense = spec.replace("skip = { router = \"gumbel\", density = 0.25 }", "");
    assert_ne!(dense, spec);
    std::fs::write(folder.join("dense.toml"), dense).unwrap();
    let made = Command::new(env!("CARGO_BIN_EXE_skipc"))
        .current_dir(folder)
        .args(["train", "dense.toml", "--config", "train.toml", "-o", "dense"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    // Routers are missing from the weights of a dense model.
    let options = ["--weights", "dense/weights.safetensors"];
    assert_eq!(fails(folder, &options).0, "weights::missing");
    let config = std::fs::read_to_string(folder.join("train.toml")).unwrap();
    let taught = config.replace("[init]", "[distill]\nspec = \"dense.toml\"\nweights = \"dense/weights.safetensors\"\nweight = 0.5\ntemperature = 2.0\n\n[init]\nmissing = [\"*router*\"]");
    std::fs::write(folder.join("train.toml"), taught).unwrap();
    let said = succeeds(folder, "taught", &[&options[..], &["--json"]].concat());
    let found: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert!(found["last"]["kl"].as_f64().is_some_and(|kl| kl > 0.0), "{said}");
}
