//! What rules rewrote: proofs of whole models, and how people see them.
#![cfg(feature = "cranelift")]

#[path = "rewrites/kernels.rs"]
mod kernels;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use skipc::frontend::lower::{Function, Skipping, lower};
use skipc::frontend::spec;
use skipc_ir::Op;
use skipc_passes::rewrite::check::check;
use skipc_passes::{Options, default_pipeline, run_reported};

const GOLDEN: &str = "tests/golden/small-sparse";

fn skipc(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_skipc")).args(args).env("NO_COLOR", "1").output().expect("skipc starts")
}

#[track_caller]
fn succeeds(args: &[&str]) -> String {
    let output = skipc(args);
    assert!(output.status.success(), "skipc {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[track_caller]
fn fails(args: &[&str], exit: i32, words: &[&str]) {
    let output = skipc(args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "skipc {args:?}: {said}");
    assert!(words.iter().all(|word| said.contains(word)), "skipc {args:?}: {said}");
}

#[track_caller]
fn json(args: &[&str]) -> Value {
    serde_json::from_str(&succeeds(&[args, &["--json"]].concat())).expect("JSON")
}

/// A golden model, compiled with `saturate`.
fn compiled(dir: &tempfile::TempDir, name: &str) -> String {
    let path = dir.path().join(name).display().to_string();
    let (spec, weights) = (format!("{GOLDEN}/spec.toml"), format!("{GOLDEN}/weights.safetensors"));
    let passes = default_pipeline().join(",");
    let timing = succeeds(&[
        "compile",
        "--cpu-levels",
        "native",
        &spec,
        "--weights",
        &weights,
        "-o",
        &path,
        "--passes",
        &passes,
        "--timing",
    ]);
    assert!(timing.contains("of it e-graphs") && timing.contains("KiB peak memory"), "{timing}");
    path
}

/// A light branch of all tokens, a heavy one of some and their router read one stream: its root mean square is taken once for
/// all three.
#[test]
fn branches_and_their_router_share_a_norm() {
    let model = spec::load(Path::new("models/light-heavy.toml")).expect("a model");
    let graph = lower(&model, Skipping::Gathered, Function::Score).expect("it lowers");
    let ran = run_reported(graph, &default_pipeline(), &Options::default(), &mut |_, _| {});
    let (legal, _) = ran.expect("the passes run");
    let scales = legal.values().filter(|value| matches!(legal.op(*value), Op::InvRms { .. })).count();
    // One for attention and one for the branches of each block; the norm of the head stays as it is or is one more.
    let n_blocks = model.blocks.len();
    assert!((2 * n_blocks..=2 * n_blocks + 1).contains(&scales), "{scales} of {n_blocks} blocks");
}

#[test]
fn proofs_of_all_models_hold() {
    let mut n_chains = 0;
    for entry in fs::read_dir("models").expect("the models") {
        let path = entry.expect("a readable folder").path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let model = spec::load(&path).unwrap_or_else(|_| panic!("{}", path.display()));
        let graph = lower(&model, Skipping::Gathered, Function::Score).expect("it lowers");
        let passes = default_pipeline();
        let ran = run_reported(graph, &passes, &Options::default(), &mut |_, _| {});
        let (_, report) = ran.expect("the passes run");
        for rewritten in &report.rewrites {
            check(rewritten).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(rewritten.ns_after <= rewritten.ns_before);
            n_chains += rewritten.chains.len();
            let steps = (0..rewritten.chains.len()).filter_map(|idx| rewritten.chain(idx, 0));
            let longest = steps.map(|chain| chain.steps.len()).max().unwrap_or_default();
            println!("{}: {longest} steps at most", path.display());
        }
    }
    assert!(n_chains > 100, "{n_chains}");
}

/// Linear steps of a decider with nothing between them, with biases on both: one matmul, one bias, and the same results.
#[test]
fn biased_linear_steps_of_a_decider_become_one() {
    let dir = tempfile::TempDir::new().expect("a folder");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let spec = r#"
[model]
name = "steps"
vocab_size = 32
d_model = 16
max_positions = 32
[block.b]
layers = [{ kind = "ffn", d_ff = 24, activation = "gelu" }]
skip = { router = "gumbel", decider = [{ linear = 12, bias = true }, { linear = 8, bias = true }], bias = true }
[[stack]]
blocks = ["b"]
"#;
    let [spec_path, weights, artefact] = ["spec.toml", "w.safetensors", "m.skp"].map(path);
    fs::write(&spec_path, spec).expect("it can be written");
    succeeds(&["init", &spec_path, "-o", &weights]);
    let passes = default_pipeline().join(",");
    let compile = ["compile", "--cpu-levels", "native", &spec_path, "--weights", &weights, "-o", &artefact];
    succeeds(&[&compile[..], &["--passes", &passes]].concat());

    let model = spec::load(Path::new(&spec_path)).expect("a spec");
    let graph = lower(&model, Skipping::Gathered, Function::Score).expect("it lowers");
    let ops = |graph: &skipc_ir::Graph| {
        let of = |name: &str| graph.values().filter(|value| graph.op(*value).name() == name).count();
        ["router_logits", "add_bias", "fold_linear", "fold_bias"].map(of)
    };
    assert_eq!(ops(&graph), [3, 3, 0, 0]);
    let ran = run_reported(graph, &default_pipeline(), &Options::default(), &mut |_, _| {});
    let (legal, report) = ran.expect("the passes run");
    assert_eq!(ops(&legal), [1, 1, 2, 2]);
    assert!(report.rewrites.iter().all(|rewritten| check(rewritten).is_ok()));
    assert_eq!(json(&["verify", &artefact, "--weights", &weights])["ok"], true);
}

#[test]
fn an_artefact_says_what_was_rewritten() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let artifact = compiled(&dir, "a.skp");
    assert!(
        fs::read(&artifact).unwrap() == fs::read(compiled(&dir, "b.skp")).unwrap(),
        "same input, same bytes"
    );
    let text = succeeds(&["inspect", &artifact, "--rewrites"]);
    for word in [
        "norm_into_weight × ",
        " ns → ",
        "  (passes/src/rewrite/rules/norms.rs:",
        "before  matmul (rms_norm",
        "where  %",
    ] {
        assert!(text.contains(word), "no `{word}`: {text}");
    }
    let all = json(&["inspect", &artifact, "--rewrites"]);
    let legal = succeeds(&["inspect", &artifact, "--section", "ir/score/legal.sir"]);
    let kept: Value =
        serde_json::from_str(&succeeds(&["inspect", &artifact, "--section", "rewrites.json"])).expect("JSON");
    assert_eq!(all, kept);
    // Every value that is named by number is of the op that its node says, at every place.
    let ops: BTreeMap<u64, &str> = legal
        .lines()
        .filter_map(|line| line.trim().strip_prefix('%')?.split_once(" = "))
        .filter_map(|(number, node)| Some((number.parse().ok()?, node.split(' ').next()?)))
        .collect();
    let mut n_values = 0;
    for region in all[0]["regions"].as_array().expect("regions") {
        for place in region["places"].as_array().expect("places") {
            for (value, result) in
                region["values"].as_array().unwrap().iter().zip(place["results"].as_array().unwrap())
            {
                let node = value["node"].as_str().expect("a node");
                if let (Some(number), false) = (result.as_u64(), node.starts_with('%')) {
                    assert_eq!(ops[&number], node.split(' ').next().unwrap(), "%{number}: {node}");
                    n_values += 1;
                }
            }
        }
    }
    assert!(n_values > 10, "{n_values}");
}

#[test]
fn an_artefact_without_saturation_says_so() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("m.skp").display().to_string();
    let (spec, weights) = (format!("{GOLDEN}/spec.toml"), format!("{GOLDEN}/weights.safetensors"));
    let passes = skipc_passes::plain_pipeline().join(",");
    succeeds(&[
        "compile",
        "--cpu-levels",
        "native",
        &spec,
        "--weights",
        &weights,
        "-o",
        &path,
        "--passes",
        &passes,
    ]);
    assert!(succeeds(&["inspect", &path, "--rewrites"]).contains("no rule made anything"));
}

#[test]
fn opt_explains_values() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let graph = dir.path().join("g.sir").display().to_string();
    let text = r#"graph "g" {
  %t = input {port=tokens}
  %table = weight {name="table", shape=[8, 16]}
  %x = embed %table, %t
  %gain = weight {name="gain", shape=[16]}
  %n = rms_norm %x, %gain {eps=1e-5}
  %w = weight {name="w", shape=[16, 16]}
  %y = matmul %n, %w
  return result "out" = %y
}"#;
    fs::write(&graph, text).unwrap();
    let opt = ["opt", &graph, "--passes", "saturate,cse,dce"];
    let explain = |value| [&opt[..], &["--explain", value]].concat();
    assert!(succeeds(&opt).contains("%8 = scale_rows %6, %7"));
    let said = succeeds(&explain("%8"));
    for word in [
        "%8: scale_rows (matmul %2, (fold_gain %5, %3)), (inv_rms %2 {eps=1e-5})  (stands for %6)",
        "  1. norm_into_weight  (passes/src/rewrite/rules/norms.rs:",
        "     before  matmul (rms_norm %2, %3 {eps=1e-5}), %5\n",
        "     after   scale_rows (matmul %2, (fold_gain %5, %3)), (inv_rms %2 {eps=1e-5})\n",
        "  where  %2 = embed %1, %0\n",
        "         %3 = weight {name=\"gain\", shape=[16]}\n",
    ] {
        assert!(said.contains(word), "no `{word}`: {said}");
    }
    assert_eq!(succeeds(&explain("out")), said, "an output has a name");
    assert_eq!(succeeds(&explain("8")), said);
    assert!(succeeds(&explain("%2")).contains("%2 = embed %1, %0 : real[n, 16]\n  no rule made it"));
    assert!(succeeds(&explain("all")).contains("norm_into_weight × 1"));
    let made = json(&explain("%8"));
    assert_eq!(made["explanation"]["result"], 8);
    assert_eq!(made["explanation"]["made"][0]["steps"][0]["rule"], "norm_into_weight");
    assert_eq!(json(&explain("%2"))["explanation"]["made"].as_array().map(Vec::len), Some(0));
    fails(&explain("%9"), 2, &["usage::value", "`%9`", "`%8`"]);
    fails(&explain("outs"), 2, &["usage::value", "`out`"]);
}
