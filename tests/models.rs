//! Every spec under `models/`, through the commands as users call them: check, random weights, compile, verify, generate, run.
#![cfg(feature = "cranelift")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use skipc::frontend::lower::{Function, Skipping, lower};
use skipc::frontend::spec;
use skipc::frontend::spec::model::Model;
use skipc::frontend::spec::skip_table::Router;
use skipc::frontend::stream::StreamInput;
use skipc::frontend::weights::Weights;
use skipc_ir::Graph;
use skipc_ir::interp::{Datum, Env, FlatBatch, Free, Ring32};

/// What `skipc check` warns of in each model that is not free of warnings.
const WARNINGS: [(&str, &str); 15] = [
    ("capacity-groups", "lint::future_leak"),
    // All of a sequence in sight, and its scores as a whole.
    ("encoder", "lint::future_leak"),
    ("encoder", "lint::future_leak"),
    ("expert-choice", "lint::future_leak"),
    ("gshard", "lint::future_leak"),
    // All of a sequence in sight, its scores as a whole, and top-k.
    ("idle-vit", "lint::future_leak"),
    ("idle-vit", "lint::future_leak"),
    ("idle-vit", "lint::future_leak"),
    // Three selections, of two kinds of blocks.
    ("light-heavy", "lint::train_generate_mismatch"),
    ("light-heavy", "lint::train_generate_mismatch"),
    ("light-heavy", "lint::train_generate_mismatch"),
    ("mindskip", "lint::train_generate_mismatch"),
    ("mixture-of-recursions", "lint::train_generate_mismatch"),
    ("mod-topk", "lint::train_generate_mismatch"),
    ("random-gate", "lint::batch_dependence"),
];

/// The error with which each model that cannot generate is refused: what it looks at comes later, or it scores rows as a whole.
const REFUSED: [(&str, &str); 5] = [
    ("capacity-groups", "run::not-causal"),
    ("encoder", "run::no-head"),
    ("expert-choice", "run::not-causal"),
    ("gshard", "run::not-causal"),
    ("idle-vit", "run::no-head"),
];

/// Tokens that each model is asked to continue a text by.
const N_NEW: usize = 5;

fn skipc(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_skipc")).args(args).env("NO_COLOR", "1").output().expect("skipc starts")
}

#[track_caller]
fn succeeds(args: &[&str]) -> Output {
    let output = skipc(args);
    assert!(output.status.success(), "skipc {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

#[track_caller]
fn json(args: &[&str]) -> Value {
    let output = succeeds(&[&["--json"], args].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("skipc {args:?}: {error}"))
}

fn specs() -> Vec<PathBuf> {
    let entries = fs::read_dir("models").expect("the models");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    assert!(paths.len() >= 9, "{paths:?}");
    paths
}

/// Blocks above which a model is verified on fewer tokens: every form runs every block under a dozen decisions.
const DEEP: usize = 16;

/// A folder with one model's files.
struct Workshop {
    dir: tempfile::TempDir,
    spec: String,
}

impl Workshop {
    fn new(spec: &Path) -> Workshop {
        let dir = tempfile::tempdir().expect("a temporary folder");
        Workshop { dir, spec: spec.display().to_string() }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn init(&self, name: &str, more: &[&str]) -> String {
        let path = self.path(name);
        succeeds(&[&["init", &self.spec, "-o", &path], more].concat());
        path
    }

    /// Patches without a pattern, `[2, n, columns]`.
    fn patches(&self, name: &str, n: usize, cols: usize) -> String {
        let path = self.path(name);
        let numbers: Vec<f32> = (0..2 * n * cols).map(|idx| (idx * 37 % 101) as f32 / 50.0 - 1.0).collect();
        let shape = [2, n as u64, cols as u64];
        skipc_runtime::npy::write(Path::new(&path), &shape, &numbers).expect("a writable folder");
        path
    }

    /// Token ids without a pattern, in an array of this shape.
    fn tokens(&self, name: &str, shape: &[u64]) -> String {
        let ids: Vec<i32> = (0..256).map(|idx| (idx * 37 + idx / 7) % 256).collect();
        let count: u64 = shape.iter().product();
        let path = self.path(name);
        let ids: Vec<i32> = ids.into_iter().cycle().take(count as usize).collect();
        skipc_runtime::npy::write(Path::new(&path), shape, &ids).expect("a writable folder");
        path
    }

    fn compile(&self) -> String {
        let (weights, artifact) = (self.init("w.safetensors", &["--seed", "3"]), self.path("m.skp"));
        succeeds(&["check", &self.spec, "--weights", &weights]);
        let args = [
            "compile",
            "--cpu-levels",
            "native",
            &self.spec,
            "--weights",
            &weights,
            "-o",
            &artifact,
            "--target",
            "cpu",
        ];
        succeeds(&args);
        artifact
    }
}

/// The model continues a text greedily, twice the same; one that cannot says why.
fn generates(name: &str, path: &Path, artifact: &str) {
    let count = N_NEW.to_string();
    let args = ["generate", artifact, "--prompt", "And God said, Let", "--max-new-tokens", &count];
    let refusal = REFUSED.iter().find(|(model, _)| *model == name);
    assert_eq!(refusal.is_none(), model(path).can_generate(), "{name}");
    if let Some((_, code)) = refusal {
        let output = skipc(&args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && text.contains(code), "{name}: {text}");
        if *code == "run::not-causal" {
            let served = skipc(&["serve", artifact, "--port", "0"]);
            let said = String::from_utf8_lossy(&served.stderr).into_owned();
            assert!(served.status.code() == Some(1) && said.contains(code), "{name}: {said}");
            let evaluated = succeeds(&["eval", artifact, "--text", "LICENSE-MIT", "--window", "32"]);
            let figures = String::from_utf8_lossy(&evaluated.stdout).into_owned();
            for text in [text, said, figures] {
                assert!(text.contains("lint::future_leak"), "{name}: {text}");
            }
        }
        return;
    }
    let found = json(&args);
    let tokens = found["sequences"][0]["tokens"].as_array().expect("a list").clone();
    assert!(tokens.iter().all(|token| token.as_u64().is_some_and(|token| token < 256)), "{name}: {found}");
    assert_eq!(tokens.len(), N_NEW, "{name}: {found}");
    assert_eq!(json(&args)["sequences"], found["sequences"], "{name}: greedy twice");
}

/// Checks, compiles and verifies one model, and generates with it. Models are independent, so each has a thread.
fn goes_through(path: &Path) {
    let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
    let workshop = Workshop::new(path);
    let warnings = json(&["check", &workshop.spec])["warnings"].clone();
    let codes: Vec<&str> =
        warnings.as_array().expect("a list").iter().filter_map(|warning| warning["code"].as_str()).collect();
    let wanted: Vec<&str> =
        WARNINGS.iter().filter(|(model, _)| *model == name).map(|(_, code)| *code).collect();
    assert_eq!(codes, wanted, "{name}");
    let artifact = workshop.compile();
    let mut verify = vec!["verify", &artifact, "--threads", "1"];
    let few = workshop.tokens("few.npy", &[2, 20]);
    if model(path).blocks.len() > DEEP {
        verify.extend(["--tokens", &few]);
    }
    let report = json(&verify);
    assert_eq!(report["ok"], true, "{name}: {report}");
    let forms = report["report"]["rows"].as_array().map_or(0, Vec::len);
    assert!(forms >= 4, "{name}: {forms} comparisons");
    generates(&name, path, &artifact);
}

#[test]
fn every_model_goes_through_check_compile_verify_and_generate() {
    let specs = specs();
    std::thread::scope(|scope| {
        let threads: Vec<_> = specs.iter().map(|path| scope.spawn(|| goes_through(path))).collect();
        for (thread, path) in threads.into_iter().zip(&specs) {
            assert!(thread.join().is_ok(), "{}", path.display());
        }
    });
}

/// Where a token is changed: at the beginning, around a page of a cache, at the end.
const CHANGED: [usize; 6] = [0, 1, 15, 16, 17, 23];

/// What a graph gives for 24 tokens of which one is changed, where nothing rounds: `[24, vocab]`, and decisions.
fn scored(graph: &Graph, weights: &Weights, changed: Option<usize>) -> (Vec<Ring32>, Vec<Vec<bool>>) {
    let mut tokens: Vec<i64> = (0..24).map(|idx| idx * idx * 11 % 256).collect();
    if let Some(changed) = changed {
        tokens[changed] += 1;
    }
    let batch = FlatBatch::from_sequences([tokens.as_slice()]);
    let env = Env { batch: &batch, tensors: BTreeMap::new(), weights, routing: &Free };
    let (mut logits, mut gates) = (Vec::new(), Vec::new());
    for (_, datum) in skipc_ir::run::<Ring32>(graph, &env).expect("values") {
        match datum {
            Datum::Real { data, .. } => logits = data,
            Datum::Mask(mask) => gates.push(mask),
            other => panic!("{other:?}"),
        }
    }
    (logits, gates)
}

/// Whether a change of a token changes a logit or a decision of the tokens before it, and whether any behind it.
fn influence(model: &Model, function: Function) -> (bool, bool) {
    let graph = lower(model, Skipping::Gathered, function).expect("a graph");
    let weights = Weights::drawn(model, 5).expect("weights");
    let (logits, gates) = scored(&graph, &weights, None);
    let cols = logits.len() / 24;
    let (mut earlier, mut later) = (false, false);
    for changed in CHANGED {
        let (new_logits, new_gates) = scored(&graph, &weights, Some(changed));
        earlier |= logits[..changed * cols] != new_logits[..changed * cols];
        earlier |= gates.iter().zip(&new_gates).any(|(old, new)| old[..changed] != new[..changed]);
        later |= logits[changed * cols..] != new_logits[changed * cols..];
    }
    (earlier, later)
}

/// No logit of a causal model depends on a later token; of one that is not, some do, and none in what it generates with.
#[test]
fn later_tokens_change_nothing_in_models_that_claim_to_be_causal() {
    let (mut n_causal, mut n_leaking) = (0, 0);
    for path in specs() {
        let (model, name) = (model(&path), path.display());
        if model.stream.input != StreamInput::Tokens {
            continue;
        }
        let function = if model.is_causal() { Function::Score } else { Function::Generate };
        // Tokens of a prompt that decides as a whole depend on all of it.
        if model.can_generate() && !model.keeps_prompts() {
            assert_eq!(influence(&model, function), (false, true), "{name}: (earlier, later) tokens change");
            n_causal += 1;
        }
        if !model.is_causal() {
            n_leaking += usize::from(influence(&model, Function::Score).0);
        }
    }
    assert!(n_causal >= 8, "only {n_causal} models generate");
    assert!(n_leaking >= 1, "the probe sees no leak in any model that has one");
}

fn model(path: &Path) -> Model {
    spec::load(path).unwrap_or_else(|found| panic!("{found}"))
}

/// A vision transformer from the command line: a class token in front of each image that always executes, half of all tokens
/// with it, and a row of scores for each image.
#[test]
fn images_are_scored_as_a_whole() {
    let workshop = Workshop::new(Path::new("models/idle-vit.toml"));
    let (weights, artifact) = (workshop.init("w.safetensors", &[]), workshop.path("m.skp"));
    let compile = [
        "compile",
        "--cpu-levels",
        "native",
        &workshop.spec,
        "--weights",
        &weights,
        "-o",
        &artifact,
        "--target",
        "cpu",
    ];
    succeeds(&[&compile[..], &["--max-tokens", "160"]].concat());
    let patches = workshop.patches("p.npy", 64, 48);
    let (logits, gates, trace) = (workshop.path("l.npy"), workshop.path("g.npy"), workshop.path("d.trace"));
    let run = ["run", &artifact, "--patches", &patches, "--logits", &logits, "--routing-out"];
    succeeds(&[&run[..], &[&gates]].concat());
    let scores = skipc_runtime::npy::read_floats(Path::new(&logits), &[2]).expect("what was written");
    assert_eq!(scores.shape, [2, 10]);
    assert!(scores.data[..10] != scores.data[10..], "two images have the same scores");
    let decisions = skipc_runtime::npy::read_ints(Path::new(&gates), &[3]).expect("what was written");
    assert_eq!(decisions.shape, [3, 2, 65]);
    for of_image in decisions.data.chunks(65) {
        assert_eq!((of_image[0], of_image.iter().sum::<i64>()), (1, 33), "{of_image:?}");
    }
    // Recorded decisions, replayed, give the same bytes.
    succeeds(&["trace", "record", &artifact, "--patches", &patches, "-o", &trace]);
    let again = workshop.path("again.npy");
    succeeds(&["run", &artifact, "--patches", &patches, "--routing", &trace, "--logits", &again]);
    assert!(fs::read(&logits).expect("there") == fs::read(&again).expect("there"));
    succeeds(&["verify", &artifact, "--patches", &patches, "--routing", &trace]);
    // A class token alone is a sequence, too.
    let lengths = workshop.path("n.npy");
    skipc_runtime::npy::write(Path::new(&lengths), &[2], &[64, 0]).expect("a writable folder");
    succeeds(&["run", &artifact, "--patches", &patches, "--lengths", &lengths, "--logits", &again]);
    let some = skipc_runtime::npy::read_floats(Path::new(&again), &[2]).expect("what was written");
    assert_eq!(some.data[..10], scores.data[..10]);
    succeeds(&["bench", &artifact, "--density", "0.5", "--tokens", "65", "--rounds", "2"]);
    let fails = |args: &[&str], code: &str| {
        let output = skipc(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && text.contains(code), "skipc {args:?}: {text}");
    };
    let (many, narrow) = (workshop.patches("many.npy", 65, 48), workshop.patches("narrow.npy", 64, 47));
    fails(&["run", &artifact, "--patches", &many], "run::sequence-too-long");
    fails(&["run", &artifact, "--patches", &narrow], "run::input");
    fails(&["generate", &artifact, "--prompt", "a"], "run::no-head");
}

/// Random weights give learned routers about the density that the spec asks for: over all blocks together, and no block
/// runs for nobody or for everybody.
#[test]
fn random_weights_meet_the_density() {
    for name in ["skip-12l-d50", "skip-48l-d12", "decoupled"] {
        let path = PathBuf::from(format!("models/{name}.toml"));
        let workshop = Workshop::new(&path);
        let artifact = workshop.compile();
        let tokens = workshop.tokens("t.npy", &[256]);
        let ran = json(&["run", &artifact, "--tokens", &tokens]);
        let routers = ran["routing"]["routers"].as_array().expect("a list").clone();
        let rate = |router: &Value| {
            router["executed"].as_f64().expect("a count") / router["tokens"].as_f64().expect("a count")
        };
        let rates: Vec<f64> = routers.iter().map(rate).collect();
        let model = model(&path);
        let wanted: Vec<f64> = model.skips().map(|skip| skip.density).collect();
        assert_eq!(rates.len(), wanted.len());
        let off: f64 =
            rates.iter().zip(&wanted).map(|(rate, wanted)| rate - wanted).sum::<f64>() / rates.len() as f64;
        assert!(off.abs() < 0.05, "{name}: {rates:?}");
        for (rate, wanted) in rates.iter().zip(&wanted) {
            assert!((rate - wanted).abs() < 0.2 && *rate > 0.0, "{name}: {rates:?}");
        }
    }
}

/// Multiply-adds of a block of a spec for 256 tokens, of which such a share executes.
fn macs(spec: &str, block: &str, density: f64) -> f64 {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("m.toml").display().to_string();
    fs::write(&path, spec).expect("a writable folder");
    let density = density.to_string();
    let args = ["inspect", &path, "--cost", "--step-tokens", "256", "--density", &density];
    let report = json(&args);
    let layers = report["cost"]["layers"].as_array().expect("a list").clone();
    let layer = layers.iter().find(|layer| layer["name"] == block).expect("the block");
    layer["at"][0]["macs"].as_f64().expect("a number")
}

/// Another branch costs what the tokens take that do not execute, and experts what their share of the choices takes: those
/// that give nothing or their input cost nothing, and experts that choose have the rows that they are let choose.
#[test]
fn the_cost_counts_other_branches_and_the_shares_of_experts() {
    let text = |name: &str| fs::read_to_string(format!("models/{name}.toml")).expect("a spec");
    let both = text("flexidepth");
    let alone = both.replace("otherwise = [{ kind = \"ffn\", d_ff = 10, activation = \"swiglu\" }]\n", "");
    assert_ne!(both, alone);
    for density in [0.0, 0.25, 1.0] {
        let more = macs(&both, "blocks.2", density) - macs(&alone, "blocks.2", density);
        let wanted = (1.0 - density) * 256.0 * 3.0 * 64.0 * 10.0;
        assert!((more - wanted).abs() < 1.0, "density {density}: {more}, not {wanted}");
    }
    let some = text("zero-experts");
    let all = some.replace("experts = 8, zero = 2, copy = 2", "experts = 12");
    let of_choices = 2.0 * 256.0 * 3.0 * 96.0 * 64.0;
    let less = macs(&all, "blocks.0", 1.0) - macs(&some, "blocks.0", 1.0);
    assert!((less - of_choices / 3.0).abs() < 1.0, "{less}, not a third of {of_choices}");
    // By hash a token has one of twelve choices, of which a third is no expert.
    let hashed = text("hash-experts");
    let none = hashed.replace("experts = 8,", "experts = 12,");
    let some = hashed.replace("experts = 8,", "experts = 8, zero = 3, copy = 1,");
    let [none, some] = [&none, &some].map(|spec| macs(spec, "blocks.0", 1.0));
    let of_choices = 256.0 * 2.0 * 96.0 * 128.0;
    assert!((none - some - of_choices / 3.0).abs() < 1.0, "{}, not a third of {of_choices}", none - some);
    // Experts that choose take two rows for each token, as tokens that choose two experts do.
    let choosing = text("expert-choice");
    let chosen = choosing.replace("choose = \"expert\", ", "");
    let [choosing, chosen] = [&choosing, &chosen].map(|spec| macs(spec, "blocks.0", 1.0));
    assert!((choosing - chosen).abs() < 1.0, "{choosing}, not {chosen}");
}

#[test]
fn weights_follow_seed_and_type_alone() {
    let workshop = Workshop::new(Path::new("models/highway.toml"));
    let read = |path: String| fs::read(path).expect("written");
    let first = read(workshop.init("a", &["--seed", "5"]));
    assert!(first == read(workshop.init("b", &["--seed", "5"])));
    assert!(first != read(workshop.init("a", &["--seed", "6"])));
    assert!(read(workshop.init("c", &[])) == read(workshop.init("d", &["--seed", "0", "--dtype", "f32"])));
    let small = workshop.init("e", &["--seed", "5", "--dtype", "bf16"]);
    succeeds(&["check", &workshop.spec, "--weights", &small]);
    let half = read(workshop.init("f", &["--seed", "5", "--dtype", "f16"]));
    assert!(read(small).len() < first.len() * 2 / 3 && half.len() < first.len() * 2 / 3);
    let wrong = skipc(&["init", &workshop.spec, "-o", &workshop.path("g"), "--dtype", "f8"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(!Path::new(&workshop.path("g")).exists());
}

/// The names say what is in the models.
#[test]
fn models_are_what_their_names_say() {
    let skips = |name: &str| -> Vec<(Router, f64)> {
        let model = model(Path::new(&format!("models/{name}.toml")));
        assert_eq!(model.name, name);
        model.skips().map(|skip| (Router::of(skip), skip.density)).collect()
    };
    assert!(skips("dense-12l").is_empty());
    assert_eq!(skips("skip-12l-d50"), vec![(Router::Gumbel, 0.5); 12]);
    assert_eq!(skips("skip-48l-d12"), vec![(Router::Gumbel, 0.125); 48]);
    assert_eq!(skips("mod-topk"), vec![(Router::TopK, 0.125); 4]);
    assert_eq!(skips("highway").len(), 6);
    assert_eq!(skips("random-gate").len(), 8);
    assert_eq!(skips("decoupled").len(), 12);
    assert_eq!(skips("capacity-groups").len(), 6);
    assert_eq!(skips("d-llm").len(), 4);
    assert_eq!(skips("skipgpt").len(), 10);
    assert_eq!(skips("flexidepth"), vec![(Router::Sigmoid, 0.5); 4]);
    assert_eq!(skips("light-heavy"), vec![(Router::TopK, 0.25); 6]);
    assert_eq!(skips("encoder"), vec![(Router::Gumbel, 0.5); 2]);
    assert_eq!(skips("idle-vit"), vec![(Router::TopK, 0.5); 3]);
    let thirds = [1.0, 2.0 / 3.0, 1.0 / 3.0];
    assert_eq!(skips("mixture-of-recursions"), thirds.map(|density| (Router::TopK, density)));
    assert_eq!(skips("recursion-depth"), thirds.map(|density| (Router::Depth, density)));
    assert_eq!(skips("early-exit"), [0.75, 0.5, 0.25].map(|density| (Router::Sigmoid, density)));
    assert_eq!(skips("static-exit").len(), 4);
    assert_eq!(skips("convolution").len(), 6);
}
