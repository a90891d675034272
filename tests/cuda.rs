//! CUDA code of the example model, as far as a machine without a GPU can check it.
#![cfg(feature = "cuda")]

#[path = "cuda/ptx_model.rs"]
mod ptx_model;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use skipc_artifact::bundle;
use skipc_artifact::program::Launch;
use skipc_artifact::target::Target;
use skipc_ptx::machine::Counters;
use skipc_runtime::Model;
use skipc_testkit::golden;
use tempfile::TempDir;

use ptx_model::{Outputs, PtxModel};

const TARGETS: &str = "cpu,cuda:sm_80,cuda:sm_90a";

fn skipc(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_skipc")).args(args).env("NO_COLOR", "1").output().unwrap()
}

fn compile(output: &str, more: &[&str]) {
    let base =
        ["compile", "models/kjv-12l-d25.toml", "--weights", "models/kjv-12l-d25.safetensors", "-o", output];
    let ran = skipc(&[&base[..], &["--target", TARGETS], more].concat());
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// Spills, stack frames and unresolved functions are errors of the compile, so its success says that there are none.
#[test]
fn the_example_compiles_for_ampere_and_hopper_and_twice_to_the_same_bytes() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    compile(&path("a.skp"), &[]);
    compile(&path("b.skp"), &[]);
    assert!(fs::read(path("a.skp")).unwrap() == fs::read(path("b.skp")).unwrap());
    let model = Model::open(path("a.skp").as_ref()).unwrap();
    for arch in ["sm_80", "sm_90a"] {
        let target = Target::Cuda(arch.to_owned());
        let program = bundle::read_program(model.artifact(), &target).unwrap();
        for entry in &program.entries {
            let Launch::Cuda { registers, threads, shared_bytes, .. } = entry.launch else {
                panic!("{}: not launched on CUDA", entry.symbol)
            };
            assert!(registers > 0 && registers <= 255 && registers * threads <= 65_536, "{entry:?}");
            let limit = if arch == "sm_80" { 163 } else { 227 };
            assert!(shared_bytes <= limit * 1024, "{entry:?}");
        }
        let (ptx, cubin) = bundle::read_cuda_code(model.artifact(), &program).unwrap();
        let ptx = std::str::from_utf8(ptx).unwrap();
        assert!(
            ptx.contains("mma.sync") && ptx.contains("cp.async") && ptx.contains(&format!(".target {arch}"))
        );
        assert!(!ptx.contains(".loc") && cubin.unwrap().starts_with(b"\x7fELF"));
    }
    check_machine_code(&path("a.skp"));
    let tokens = "tests/golden/kjv-12l-d25-t2/tokens.npy";
    let ran = skipc(&["run", &path("a.skp"), "--tokens", tokens, "--device", "cuda"]);
    let text = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success() || (ran.status.code() == Some(5) && text.contains("cuda::no_dr")), "{text}");
}

#[test]
fn f32_code_never_rounds_to_tf32() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("f32.skp").display().to_string();
    compile(&path, &["--dtype", "cuda=f32"]);
    let model = Model::open(path.as_ref()).unwrap();
    let target = Target::Cuda("sm_80".to_owned());
    let program = bundle::read_program(model.artifact(), &target).unwrap();
    let (ptx, _) = bundle::read_cuda_code(model.artifact(), &program).unwrap();
    let ptx = std::str::from_utf8(ptx).unwrap();
    assert!(!ptx.contains("tf32") && !ptx.contains("mma.sync") && ptx.contains("fma.rn.f32"));
}

/// The example model compiled with a precision.
fn example(dtype: &str) -> Model {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("example.skp").display().to_string();
    compile(&path, &["--dtype", dtype]);
    Model::open(path.as_ref()).unwrap()
}

/// Largest distance of an f32 logit from the reference.
const TOLERANCE: f64 = 2e-4;

/// A run of the reference, and its tokens.
fn golden_case(name: &str) -> (golden::Case, Vec<u32>) {
    let case = golden::case(&Path::new("tests/golden").join(name));
    let tokens = case.tokens[0].iter().map(|token| *token as u32).collect();
    (case, tokens)
}

fn logits(found: &Outputs) -> Vec<f64> {
    found.logits.iter().map(|logit| f64::from(*logit)).collect()
}

#[test]
fn the_whole_example_in_f32_agrees_with_pytorch_on_the_ptx_machine() {
    let model = PtxModel::new(&example("cuda=f32"), "sm_80");
    for (name, seeds) in [("kjv-12l-d25-t2", 0..8), ("kjv-12l-d25-t127", 1..2)] {
        let (case, tokens) = golden_case(name);
        for seed in seeds {
            let found = model.run(&tokens, None, seed);
            case.check("PTX machine, f32", &logits(&found), &found.gates, TOLERANCE);
        }
    }
    for (name, pieces) in [("kjv-12l-d25-t2", &[1, 1][..]), ("kjv-12l-d25-t127", &[15, 2, 1, 62, 47])] {
        let (case, tokens) = golden_case(name);
        let found = model.run_in_steps(&tokens, pieces, None, 1);
        case.check("PTX machine, f32, in steps", &logits(&found), &found.gates, TOLERANCE);
    }
}

#[test]
fn the_whole_example_in_bf16_is_as_near_as_pytorch_on_the_ptx_machine() {
    let model = PtxModel::new(&example("cuda=bf16"), "sm_90a");
    let check = |what: &str, case: &golden::Case, found: &Outputs| {
        assert_eq!(found.gates, case.scored.gates, "{what}: replayed decisions");
        let (error, allowed) = (case.rmse(&logits(found)), 3.0 * case.figures.bf16_rmse);
        assert!(error <= allowed, "{what}: {error} from f64; {allowed} is three times PyTorch's");
    };
    let mut counters = String::new();
    for (name, seeds) in [("kjv-12l-d25-t2", 0..8), ("kjv-12l-d25-t129", 1..2)] {
        let (case, tokens) = golden_case(name);
        for seed in seeds {
            let found = model.run(&tokens, Some(&case.scored.gates), seed);
            check(&format!("{name}, schedule {seed}"), &case, &found);
            counters = table(&found.counters);
        }
    }
    let (case, tokens) = golden_case("kjv-12l-d25-t129");
    let found = model.run_in_steps(&tokens, &[64, 33, 31, 1], Some(&case.scored.gates), 1);
    check("in steps", &case, &found);
    check_counters(&[
        ("129 tokens of the example in bf16 on sm_90a", counters),
        ("One token behind 128 in caches", table(&found.counters)),
    ]);
}

/// Shared repetitions, nested sets, top-k among a set, a depth, keys and values of the first repetition: the first row of
/// their cases.
#[test]
fn stacks_in_f32_agree_with_pytorch_on_the_ptx_machine() {
    for (name, pieces) in [("recursion", None), ("recursion-first", Some([1, 15, 2, 19]))] {
        let (mut case, tokens) = golden_case(name);
        let model = compiled(&case);
        only_first_row(&mut case, tokens.len());
        let found = model.run(&tokens, None, 3);
        case.scored.check(&format!("{name}, PTX machine"), &logits(&found), &found.gates, TOLERANCE);
        let Some(pieces) = pieces else { continue };
        let found = model.run_in_steps(&tokens, &pieces, None, 1);
        case.scored.check(&format!("{name}, in steps"), &logits(&found), &found.gates, TOLERANCE);
    }
}

/// Experts that tokens choose, with places and without, inside of a skip and outside: the first row of their cases.
#[test]
fn experts_in_f32_agree_with_pytorch_on_the_ptx_machine() {
    for (name, pieces) in
        [("experts", None), ("experts-capacity", Some([1, 15, 2, 12])), ("experts-choice", None)]
    {
        let (mut case, tokens) = golden_case(name);
        let model = compiled(&case);
        only_first_row(&mut case, tokens.len());
        let check = |what: &str, found: &Outputs| {
            let what = format!("{name}, {what}");
            case.scored.check(&what, &logits(found), &found.gates, TOLERANCE);
            let layers: Vec<(u32, &[u8])> =
                found.choices.iter().map(|layer| (layer.of, &layer.taken[..])).collect();
            case.scored.check_experts(&what, tokens.len(), &layers);
        };
        let free = model.run(&tokens, None, 3);
        check("PTX machine", &free);
        let replayed = model.run_with(&tokens, &model.choices_to_replay(&free.choices), None, 5);
        assert_eq!(replayed.choices, free.choices, "{name}: replayed choices");
        assert!(replayed.logits == free.logits, "{name}: a replay of its own choices differs");
        if let Some(pieces) = pieces {
            check("in steps", &model.run_in_steps(&tokens, &pieces, None, 1));
        }
    }
}

/// What the kernels of each feature run in, as whole models, with the pieces of a step if it is also run in steps.
const FEATURES: [(&str, &str, &[usize]); 16] = [
    ("another branch, steps of a decider, the last layer scaled", "otherwise-adapter", &[]),
    ("both branches summed, scaled by the logit", "otherwise-sum", &[]),
    ("what a branch gives added, scaled", "combine-add", &[]),
    ("steps of a decider with norms and biases", "decider-steps", &[]),
    ("a gate for each channel", "channels", &[]),
    ("a highway that carries by weights of its own", "highway-carry", &[]),
    ("one decision a sequence, by the mean of its tokens", "mindskip", &[]),
    ("decisions by token ids", "hash", &[]),
    ("first tokens that always execute", "force-first", &[]),
    ("the best of a batch", "topk-batch", &[]),
    ("convolutions over positions", "conv", &[1, 2, 16, 24]),
    ("layers side by side", "parallel", &[]),
    ("windows, caps, norms behind layers", "norms-window-cap", &[15, 2, 1, 22]),
    ("norms of queries and keys, part of a head turned", "family-attention", &[]),
    ("all of a sequence in sight, one row of scores for each", "encoder", &[]),
    ("patches, a class token, its scores", "vision", &[]),
];

/// Cases take turns on two threads.
#[test]
fn every_feature_in_f32_agrees_with_pytorch_on_the_ptx_machine() {
    std::thread::scope(|scope| {
        for first in 0..2 {
            scope.spawn(move || FEATURES.iter().skip(first).step_by(2).for_each(check_feature));
        }
    });
}

fn check_feature((feature, name, pieces): &(&str, &str, &[usize])) {
    let mut case = golden::case(&Path::new("tests/golden").join(name));
    let model = compiled(&case);
    let found = model.run_batch(&case.batch(), 3);
    case.check(&format!("{feature}, PTX machine"), &logits(&found), &found.gates, TOLERANCE);
    if pieces.is_empty() {
        return;
    }
    let tokens: Vec<u32> = case.tokens[0].iter().map(|token| *token as u32).collect();
    only_first_row(&mut case, tokens.len());
    let found = model.run_in_steps(&tokens, pieces, None, 1);
    case.scored.check(&format!("{feature}, in steps"), &logits(&found), &found.gates, TOLERANCE);
}

/// The model of a case for the PTX machine.
fn compiled(case: &golden::Case) -> PtxModel {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("case.skp").display().to_string();
    let files = [&case.spec, &case.weights].map(|path| path.display().to_string());
    let args = ["compile", &files[0], "--weights", &files[1], "-o", &path];
    // All rows of a case together may be more tokens than a sequence.
    let more = ["--target", "cuda:sm_80", "--dtype", "cuda=f32", "--max-tokens", "256"];
    let ran = skipc(&[&args[..], &more].concat());
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    PtxModel::new(&Model::open(path.as_ref()).unwrap(), "sm_80")
}

/// Leaves of what a case expects its first row, of so many tokens.
fn only_first_row(case: &mut golden::Case, n_tokens: usize) {
    let n_all = case.n_tokens();
    let cols = case.scored.logits.len() / n_all;
    case.scored.logits.truncate(n_tokens * cols);
    case.scored.gates.iter_mut().for_each(|gate| gate.truncate(n_tokens));
    for layer in &mut case.scored.experts {
        let width = layer.len() / n_all;
        layer.truncate(n_tokens * width);
    }
}

/// A line for each kernel.
fn table(counters: &BTreeMap<String, Counters>) -> String {
    let mut table = format!(
        "{:32} {:>6} {:>13} {:>10} {:>10} {:>10} {:>8} {:>9} {:>7} {:>7} {:>8}\n",
        "kernel",
        "blocks",
        "instructions",
        "loaded",
        "stored",
        "copied in",
        "sectors",
        "conflicts",
        "mma",
        "wgmma",
        "barriers"
    );
    for (kernel, n) in counters {
        let sectors = n.sectors_per_request();
        table += &format!(
            "{kernel:32} {:6} {:13} {:10} {:10} {:10} {sectors:8.2} {:9} {:7} {:7} {:8}\n",
            n.blocks,
            n.thread_instructions,
            n.global_loaded,
            n.global_stored,
            n.copied_in,
            n.bank_conflicts,
            n.mma,
            n.wgmma,
            n.barriers
        );
    }
    table
}

/// Holds what `inspect --sass` says of the example's machine code for Hopper to what it said the last time.
fn check_machine_code(artefact: &str) {
    let ran = skipc(&["inspect", artefact, "--sass", "--json"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    for rows in ["0", "4294967295"] {
        let refused = skipc(&["inspect", artefact, "--sass", "--step-tokens", rows]);
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && text.contains("give 1 to"), "{text}");
    }
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    let targets = report["sass"].as_array().unwrap();
    let hopper = targets.iter().find(|report| report["target"] == "cuda:sm_90a").unwrap();
    let mut table = format!(
        "The machine code of the example in bf16 on sm_90a, by `skipc inspect --sass`: cycles of the main loop, then of one \
         warp behind it,\nand what that is of a tile; loads of global memory that a warp waits for, in all parts.\n\n{:32} {:>6} \
         {:>6} {:>5} {:>4} {:>7} {:>8} {:>6} {:>6}\n",
        "kernel", "bytes", "loop", "turns", "gap", "behind", "exposed", "waits", "chain"
    );
    for kernel in hopper["kernels"].as_array().unwrap() {
        let parts = kernel["parts"].as_array().unwrap();
        let sum = |key: &str| parts.iter().map(|part| part[key].as_u64().unwrap()).sum::<u64>();
        let most = |key: &str| parts.iter().map(|part| part[key].as_u64().unwrap()).max().unwrap_or(0);
        let figure = |key: &str| kernel[key].as_u64().map_or("-".to_owned(), |cycles| cycles.to_string());
        let exposed =
            kernel["exposed"].as_f64().map_or("-".to_owned(), |share| format!("{:.0} %", 100.0 * share));
        if let Some(pool) = kernel["pool"].as_object() {
            assert!(pool["taken"].as_u64() <= pool["launched"].as_u64(), "{kernel:#}");
        }
        table += &format!(
            "{:32} {:6} {:>6} {:>5} {:>4} {:>7} {exposed:>8} {:6} {:6}\n",
            kernel["name"].as_str().unwrap(),
            kernel["code_bytes"].as_u64().unwrap(),
            figure("turn_cycles"),
            figure("turns"),
            figure("matmul_gap"),
            figure("behind_cycles"),
            sum("global_waits"),
            most("global_chain"),
        );
    }
    hold("tests/cuda/sass.txt", &table);
}

/// Holds the counters of every kernel to those of the last time, so that a kernel that begins to move or compute more is
/// seen without a GPU.
fn check_counters(runs: &[(&str, String)]) {
    let runs: Vec<String> = runs
        .iter()
        .map(|(what, counters)| {
            format!(
                "{what}, the first step of each kernel: instructions of threads, bytes of global memory, sectors a \
                 request to it.\n\n{counters}"
            )
        })
        .collect();
    hold("tests/cuda/counters.txt", &runs.join("\n"));
}

/// Compares a table with that of the last time; `BLESS=1` writes it anew.
fn hold(path: &str, found: &str) {
    let path = Path::new(path);
    if std::env::var_os("BLESS").is_some() {
        fs::write(path, found).unwrap();
        return;
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    let diff = similar::TextDiff::from_lines(expected.as_str(), found);
    assert!(expected == found, "{}: BLESS=1 accepts\n{}", path.display(), diff.unified_diff());
}

const LARGE: &str = r#"
[model]
name = "large"
vocab_size = 256
d_model = 2048
max_positions = 16384
norm = "rmsnorm"
norm_eps = 1e-5
positions = "none"
tie_embeddings = true

[block.sparse]
skip = { router = "gumbel", density = 0.125, kv = "all" }
layers = [{ kind = "ffn", d_ff = 8192, activation = "gelu" }]

[[stack]]
blocks = ["sparse"]
"#;

/// 2,112 rows in tiles of 128 × 256 are half a tile row more than 2,048: another round of tiles on all multiprocessors.
#[test]
fn the_cost_on_a_gpu_is_one_of_whole_tiles() {
    let dir = TempDir::new().unwrap();
    let spec = dir.path().join("large.toml").display().to_string();
    fs::write(&spec, LARGE).unwrap();
    let densities = [2048.0, 2112.0, 2560.0].map(|rows: f64| (rows / 16384.0).to_string()).join(",");
    let args = ["inspect", &spec, "--cost", "--step-tokens", "16384", "--target", "cuda:sm_90a", "--json"];
    let ran = skipc(&[&args[..], &["--density", &densities]].concat());
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    let block = &report["cost"]["layers"][1];
    assert_eq!(block["name"], "blocks.0");
    let times: Vec<f64> =
        block["at"].as_array().unwrap().iter().map(|at| at["time_ns"].as_f64().unwrap()).collect();
    assert!(times[1] > 1.15 * times[0], "{times:?}");
    assert!(times[2] < 1.15 * times[1], "{times:?}");
}
