//! `skipc diff` as users meet it: nothing between a model and itself, and of two that differ in one option its name, the kernels
//! and the cost.
#![cfg(feature = "llvm")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const GOLDEN: &str = "tests/golden/gumbel";

fn skipc(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_skipc")).args(args).env("NO_COLOR", "1").output().unwrap()
}

#[track_caller]
fn succeeds(args: &[&str]) -> String {
    let output = skipc(args);
    assert!(output.status.success(), "skipc {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The difference of two files as JSON. Specs are compiled by Cranelift, which is quick.
#[track_caller]
fn diff(before: &str, after: &str) -> Value {
    let args = ["--json", "diff", before, after, "--cpu-backend", "cranelift"];
    serde_json::from_str(&succeeds(&args)).unwrap()
}

fn compiled(dir: &Path, name: &str, more: &[&str]) -> String {
    let path = dir.join(name).display().to_string();
    let (spec, weights) = (format!("{GOLDEN}/spec.toml"), format!("{GOLDEN}/weights.safetensors"));
    succeeds(&[&["compile", &spec, "--weights", &weights, "-o", &path], more].concat());
    path
}

/// The spec with one thing written otherwise.
fn spec(dir: &Path, name: &str, from: &str, to: &str) -> String {
    let text = fs::read_to_string(format!("{GOLDEN}/spec.toml")).unwrap();
    assert!(text.contains(from), "{from}");
    let path = dir.join(name).display().to_string();
    fs::write(&path, text.replacen(from, to, 1)).unwrap();
    path
}

/// Names of what differs in a part.
fn names(diff: &Value, part: &str) -> Vec<String> {
    let of = |change: &Value| change["what"].as_str().unwrap_or_default().to_owned();
    diff[part].as_array().unwrap().iter().map(of).collect()
}

#[test]
fn a_model_is_the_same_as_itself() {
    let dir = TempDir::new().unwrap();
    let artifact = compiled(dir.path(), "a.skp", &CRANELIFT);
    let same = diff(&artifact, &artifact);
    assert_eq!(same["same"], true, "{same}");
    assert!(succeeds(&["diff", &artifact, &artifact]).contains("are the same"));
    // Compiled twice, and from the spec: other names of the same.
    let again = compiled(dir.path(), "b.skp", &CRANELIFT);
    assert_eq!(diff(&artifact, &again)["same"], true);
    let spec = format!("{GOLDEN}/spec.toml");
    assert_eq!(diff(&spec, &spec)["same"], true);
    let sides = diff(&spec, &artifact);
    for part in ["options", "model", "graphs", "kernels", "figures"] {
        assert_eq!(sides[part].as_array().map(Vec::len), Some(0), "{part}: {}", sides[part]);
    }
}

const CRANELIFT: [&str; 2] = ["--cpu-backend", "cranelift"];

#[test]
fn one_option_is_named_with_its_kernels_and_its_cost() {
    let dir = TempDir::new().unwrap();
    let by_llvm = compiled(dir.path(), "llvm.skp", &[]);
    let by_cranelift = compiled(dir.path(), "cranelift.skp", &CRANELIFT);
    // The option, what is named, and whether kernels, figures of memory, cost and code differ.
    let cases: [(&[&str], &str, [bool; 4]); 9] = [
        (&["--max-tokens", "16"], "--max-tokens", [true, false, false, false]),
        (&["--no-steps"], "--no-steps", [true, true, false, true]),
        (&["--kv", "eager"], "--kv", [true, true, false, true]),
        (&["--skip-runs", "together"], "--skip-runs", [true, true, false, true]),
        (&["--dtype", "cpu=bf16"], "--target cpu", [true, true, true, true]),
        (&["--dtype", "cpu=q8"], "--dtype", [true, true, true, true]),
        (&["--cpu-backend", "cranelift"], "--cpu-backend", [true, true, true, true]),
        (&["--passes", "cse,dce"], "--passes", [true, true, true, true]),
        (&["--fuel", "2"], "--fuel", [true, true, true, true]),
    ];
    for (options, name, differs) in cases {
        // Other precisions, and the choice of the generator, are compared with LLVM.
        let is_of_llvm = name.contains("target") || name == "--dtype" || name == "--cpu-backend";
        let before = if is_of_llvm { &by_llvm } else { &by_cranelift };
        let more: &[&str] = if is_of_llvm { &[] } else { &CRANELIFT };
        let after = compiled(dir.path(), "b.skp", &[options, more].concat());
        let found = diff(before, &after);
        let named = names(&found, "options");
        assert!(named.iter().any(|option| option == name), "{options:?}: {named:?}");
        assert_eq!(names(&found, "model"), [""; 0], "{options:?}");
        let kernels = found["kernels"].as_array().is_some_and(|of| !of.is_empty());
        let group =
            |group: &str| found["figures"].as_array().unwrap().iter().any(|figure| figure["group"] == group);
        let got = [kernels, group("memory"), group("cost"), group("code")];
        assert_eq!(got, differs, "{options:?}: kernels, memory, cost, code: {}", found["figures"]);
    }
}

#[test]
fn one_key_of_a_spec_is_named_with_its_kernels_and_its_cost() {
    let dir = TempDir::new().unwrap();
    let before = format!("{GOLDEN}/spec.toml");
    let text = fs::read_to_string(&before).unwrap();
    let line = |key: &str| {
        let at = text.find(key).unwrap_or_else(|| panic!("{key}: {text}"));
        text[at..].split([',', '\n', '}']).next().unwrap().trim().to_owned()
    };
    for (key, to, path) in [
        ("density = ", "density = 0.75", "skip.density"),
        ("d_ff = ", "d_ff = 40", "d_ff"),
        ("activation = ", "activation = \"relu\"", "activation"),
        ("norm = ", "norm = \"layernorm\"", "norm"),
    ] {
        let after = spec(dir.path(), "b.toml", &line(key), to);
        let found = diff(&before, &after);
        let named = names(&found, "model");
        assert!(named.iter().any(|name| name.ends_with(path)), "{key}: {named:?}");
        let cost = found["figures"].as_array().unwrap().iter().any(|figure| figure["group"] == "cost");
        assert!(cost, "{key}: {}", found["figures"]);
        // Another density is the same code unless another form of a block is cheaper there.
        let kernels = found["kernels"].as_array().is_some_and(|of| !of.is_empty());
        assert!(kernels || key == "density = ", "{key}");
        let text = succeeds(&["diff", &before, &after, "--cpu-backend", "cranelift"]);
        assert!(text.contains(path) && text.contains("predicted cost"), "{text}");
    }
}

#[test]
fn graphs_are_compared_by_what_they_compute() {
    let dir = TempDir::new().unwrap();
    let artifact = compiled(dir.path(), "a.skp", &CRANELIFT);
    let [before, after] = ["lowered", "legal"].map(|phase| {
        let path = dir.path().join(format!("{phase}.sir"));
        fs::write(&path, succeeds(&["inspect", &artifact, "--section", &format!("ir/score/{phase}.sir")]))
            .unwrap();
        path.display().to_string()
    });
    let found = diff(&before, &after);
    let changes = found["graphs"][0]["changes"].as_array().unwrap();
    let of = |fate: &str, op: &str| {
        changes.iter().any(|change| {
            let side = if fate == "gone" { &change["before"] } else { &change["after"] };
            change["fate"] == fate && side.as_str().is_some_and(|line| line.contains(op))
        })
    };
    assert!(of("gone", "rms_norm") && of("added", "inv_rms") && of("added", "fold_gain"), "{changes:?}");
    let output = skipc(&["diff", &before, &artifact]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("usage::diff"));
}

#[test]
fn what_grows_by_more_than_is_allowed_ends_with_four() {
    let dir = TempDir::new().unwrap();
    let small = format!("{GOLDEN}/spec.toml");
    let text = fs::read_to_string(&small).unwrap();
    let at = text.find("d_ff = ").unwrap();
    let d_ff = text[at..].split([',', '\n', '}']).next().unwrap().trim().to_owned();
    let large = spec(dir.path(), "large.toml", &d_ff, "d_ff = 640");
    let compare = |args: &[&str]| skipc(&[&["diff"], args, &CRANELIFT].concat());
    let output = compare(&["--json", &small, &large, "--fail-over", "5%"]);
    assert_eq!(output.status.code(), Some(4));
    let found: Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!(found["same"], false);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("diff::worse") && error.contains("constants"), "{error}");
    // Less is no regression, and a generous limit is kept.
    assert!(compare(&[&large, &small, "--fail-over", "5%"]).status.success());
    assert!(compare(&[&small, &large, "--fail-over", "10000%"]).status.success());
    assert_eq!(compare(&[&small, &large, "--fail-over", "much"]).status.code(), Some(2));
    let page = dir.path().join("page");
    assert!(compare(&[&small, &large, "--html", &page.display().to_string()]).status.success());
    let html = fs::read_to_string(page.join("index.html")).unwrap();
    assert!(html.contains("predicted cost") && html.contains("d_ff"), "{html}");
    // Every link of the page leads to a part of it.
    for link in html.split("href=\"#").skip(1) {
        let id = link.split('"').next().unwrap();
        assert!(html.contains(&format!("id=\"{id}\"")), "{id}");
    }
}
