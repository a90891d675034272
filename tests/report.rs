//! The report without a browser: what it says is what `inspect` says, what it points to is there, and it stays small. What it looks
//! like, and that its scripts run, `make report-check` tests.
#![cfg(feature = "llvm")]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

/// Bytes of the report of a large model.
const LIMIT: u64 = 5_000_000;

#[track_caller]
fn succeeds(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_skipc")).args(args).env("NO_COLOR", "1").output().unwrap();
    assert!(output.status.success(), "skipc {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The data of a report.
fn data(dir: &Path) -> Value {
    let text = fs::read_to_string(dir.join("data.js")).unwrap();
    let json = text.strip_prefix("window.REPORT = ").and_then(|text| text.strip_suffix(";\n"));
    serde_json::from_str(json.expect("one assignment")).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn index(value: &Value) -> usize {
    value.as_u64().unwrap_or_else(|| panic!("an index: {value}")) as usize
}

/// Everything that the pages make links of leads to something.
fn check_references(report: &Value) {
    let lines = report["spec"].as_str().unwrap().lines().count();
    let places = list(&report["places"]);
    for place in places {
        let name = place["name"].as_str().unwrap();
        if let Some(block) = name.strip_prefix("blocks.").and_then(|rest| rest.split('.').next()) {
            assert!(block.parse::<usize>().unwrap() < list(&report["blocks"]).len(), "{name}");
            assert!(index(&place["line"]) <= lines, "{name}");
        }
    }
    for function in list(&report["functions"]) {
        let phases = list(&function["phases"]);
        for (idx, phase) in phases.iter().enumerate() {
            if let Some(same) = phase["same"].as_u64() {
                assert!((same as usize) < idx && phases[same as usize]["nodes"].is_array());
            }
            let nodes = list(&phase["nodes"]);
            for node in nodes {
                assert!(report["ops"][node[0].as_str().unwrap()].is_object(), "{node}");
                assert!(list(&node[1]).iter().all(|operand| index(operand) < nodes.len()), "{node}");
                assert!(index(&node[4]) < places.len(), "{node}");
            }
        }
    }
    for program in list(&report["programs"]) {
        let plan = &report["plans"][index(&program["plan"])];
        let kernels = list(&plan["kernels"]);
        assert_eq!(list(&program["launches"]).len(), kernels.len());
        for function in list(&plan["functions"]) {
            let graphs = list(&report["functions"]).iter().find(|of| of["name"] == function["name"]).unwrap();
            let phases = list(&graphs["phases"]);
            let legal = phases.last().unwrap();
            let legal = legal["same"].as_u64().map_or(legal, |same| &phases[same as usize]);
            let (steps, buffers) = (list(&function["steps"]), list(&function["buffers"]));
            for step in steps {
                let kernel = &kernels[index(&step["kernel"])];
                assert_eq!(list(&step["args"]).len(), list(&kernel["params"]).len());
                assert!(index(&step["place"]) < places.len());
                assert!(!list(&step["nodes"]).is_empty(), "{step}");
                assert!(list(&step["nodes"]).iter().all(|node| index(node) < list(&legal["nodes"]).len()));
                for arg in list(&step["args"]) {
                    let of = if arg[0] == "b" { buffers.len() } else { list(&plan["constants"]).len() };
                    assert!(index(&arg[1]) < of, "{arg}");
                }
            }
            for buffer in buffers.iter().filter(|buffer| buffer["live"].is_array()) {
                assert!(list(&buffer["live"]).iter().all(|step| index(step) < steps.len()), "{buffer}");
            }
        }
    }
}

fn size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(
            |entry| if entry.path().is_dir() { size(&entry.path()) } else { entry.metadata().unwrap().len() },
        )
        .sum()
}

#[test]
fn the_report_says_what_inspect_says() {
    let dir = TempDir::new().unwrap();
    let (artifact, site) = (dir.path().join("m.skp"), dir.path().join("site"));
    let (artifact, site_name) = (artifact.display().to_string(), site.display().to_string());
    let model = "models/kjv-12l-d25";
    let (spec, weights) = (format!("{model}.toml"), format!("{model}.safetensors"));
    succeeds(&[
        "compile",
        "--cpu-levels",
        "native",
        &spec,
        "--weights",
        &weights,
        "-o",
        &artifact,
        "--report",
        &site_name,
    ]);
    let report = data(&site);
    check_references(&report);
    assert!(size(&site) < LIMIT);

    let inspected: Value = serde_json::from_str(&succeeds(&["--json", "inspect", &artifact])).unwrap();
    for (key, value) in report["inspect"].as_object().unwrap() {
        assert_eq!(*value, inspected[key], "{key}");
    }
    assert_eq!(report["options"], inspected["manifest"]["flags"]);
    let step_of =
        |name: &str| list(&inspected["programs"]).iter().find(|of| of["purpose"] == name).cloned().unwrap();
    for function in list(&report["plans"][0]["functions"]) {
        let program = step_of(function["name"].as_str().unwrap());
        assert_eq!(list(&function["steps"]).len(), index(&program["steps"]));
        assert_eq!(function["row_bytes"], program["bytes_per_token"]);
        assert_eq!(list(&function["buffers"]).len(), list(&program["buffers"]).len());
    }
    let densities: Vec<String> = (0..=20).map(|step| (f64::from(step) / 20.0).to_string()).collect();
    let cost = succeeds(&["--json", "inspect", &artifact, "--cost", "--density", &densities.join(",")]);
    assert_eq!(report["costs"][0]["cost"], serde_json::from_str::<Value>(&cost).unwrap()["cost"]);
    let rewrites = succeeds(&["--json", "inspect", &artifact, "--rewrites"]);
    assert_eq!(report["rewrites"], serde_json::from_str::<Value>(&rewrites).unwrap());
    let legal = succeeds(&["inspect", &artifact, "--section", "ir/score/legal.sir"]);
    let names: Vec<&str> =
        list(&report["functions"][0]["phases"]).iter().map(|phase| phase["name"].as_str().unwrap()).collect();
    assert_eq!(names.first().zip(names.last()), Some((&"lowered", &"legal")));
    assert!(names.contains(&"saturate"), "the passes end at the graph of the artefact: {names:?}");

    // Four questions of a stranger, as the data answers them; `make report-check` clicks to the same answers.
    let plan = &report["plans"][0];
    let kernel = list(&plan["kernels"])
        .iter()
        .position(|it| it["symbol"].as_str().unwrap().starts_with("k09_"))
        .unwrap();
    let steps =
        list(&list(&plan["functions"]).iter().find(|it| it["name"] == "score").unwrap()["steps"]).to_vec();
    let step = steps.iter().find(|step| index(&step["kernel"]) == kernel).unwrap();
    let ops: Vec<&str> = list(&step["nodes"])
        .iter()
        .map(|number| legal.lines().find(|line| line.starts_with(&format!("  %{number} = "))).unwrap())
        .map(|line| line.trim().split([' ']).nth(2).unwrap())
        .collect();
    assert_eq!(ops, ["matmul", "scale_rows", "rope"]);
    let first = &list(&step["nodes"])[0];
    let regions = list(&report["rewrites"][0]["regions"]);
    let proof = regions.iter().find_map(|region| {
        let places = list(&region["places"]).iter();
        let at =
            places.filter_map(|place| list(&place["results"]).iter().position(|it| it == first)).next()?;
        Some(region["values"][at]["steps"][0]["rule"].as_str()?.to_owned())
    });
    assert_eq!(proof.as_deref(), Some("norm_into_weight"));
    let place = &report["places"][index(&steps[40]["place"])];
    let line = report["spec"].as_str().unwrap().lines().nth(index(&place["line"]) - 1).unwrap();
    assert_eq!(place["name"], "blocks.4.layers.1");
    assert_eq!(line.trim(), "{ kind = \"ffn\", d_ff = 384, activation = \"swiglu\" },");

    // Each kernel has its code, in a file of its own.
    for (idx, kernel) in list(&plan["kernels"]).iter().enumerate() {
        let code = fs::read_to_string(site.join(format!("code/0-{idx}.js"))).unwrap();
        assert!(code.starts_with(&format!("REPORT_CODE(\"0-{idx}\", [[\"llvm\",\"cpu\",")), "{code:.60}");
        assert!(code.contains(kernel["symbol"].as_str().unwrap()));
    }
    // Nothing is fetched.
    for file in ["index.html", "report.css", "report.js"] {
        let text = fs::read_to_string(site.join(file)).unwrap().replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains("http") && !text.contains("@import") && !text.contains("url("), "{file}");
    }
}

#[test]
fn large_models_and_specs_have_small_reports() {
    let dir = TempDir::new().unwrap();
    let site = dir.path().display().to_string();
    succeeds(&["inspect", "models/skip-48l-d12.toml", "--html", &site]);
    let report = data(dir.path());
    check_references(&report);
    assert_eq!(list(&report["blocks"]).len(), 48);
    // What is shown of a spec is what was written, with its comments.
    let text = fs::read_to_string("models/skip-48l-d12.toml").unwrap();
    assert_eq!(report["spec"], text);
    assert_eq!(report["written"], "models/skip-48l-d12.toml");
    let place = list(&report["places"]).iter().find(|place| place["name"] == "blocks.47.layers.1").unwrap();
    let line = text.lines().nth(index(&place["line"]) - 1).unwrap();
    assert!(line.contains("kind = \"ffn\""), "{line}");
    assert!(size(dir.path()) < LIMIT, "{} bytes", size(dir.path()));
}

#[test]
fn phases_are_drawn_and_assertions_hold_or_end_with_four() {
    let dir = TempDir::new().unwrap();
    let artifact = dir.path().join("m.skp").display().to_string();
    let golden = "tests/golden/gumbel";
    let (spec, weights) = (format!("{golden}/spec.toml"), format!("{golden}/weights.safetensors"));
    succeeds(&["compile", "--cpu-levels", "native", &spec, "--weights", &weights, "-o", &artifact]);
    for (phase, words) in [
        ("lowered", "rms_norm"),
        ("saturate", "fold_gain"),
        ("legal", "inv_rms"),
        ("step/legal", "cached_attention"),
        ("plan", "k00_"),
        ("step/plan-cpu-f32", "k00_"),
    ] {
        for subject in [&artifact, &spec] {
            let dot = succeeds(&["inspect", subject, "--dot", phase]);
            assert!(
                dot.starts_with("digraph ") && dot.contains(words) && dot.contains(" -> "),
                "{phase}: {dot:.300}"
            );
            assert_eq!(dot.matches('{').count(), dot.matches('}').count(), "{phase}");
        }
    }
    let sir = dir.path().join("g.sir").display().to_string();
    fs::write(&sir, succeeds(&["inspect", &artifact, "--section", "ir/score/legal.sir"])).unwrap();
    assert!(succeeds(&["inspect", &sir, "--dot", "graph"]).contains("inv_rms"));

    let run = |args: &[&str]| {
        let all = [&["inspect", &artifact], args].concat();
        let output =
            Command::new(env!("CARGO_BIN_EXE_skipc")).args(&all).env("NO_COLOR", "1").output().unwrap();
        let [out, error] =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (output.status.code(), out, error)
    };
    let (code, out, _) = run(&["--assert", "kernels <= 1000", "--assert", "promises.device_resident"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("kernels in"), "{out}");
    let (code, out, error) = run(&["--assert", "kernels < 2", "--json"]);
    assert_eq!(code, Some(4));
    assert!(serde_json::from_str::<Value>(&out).is_ok(), "what was inspected is still printed: {out:.200}");
    assert!(
        error.contains("assert::failed") && error.contains("programs[0].kernels is a list of"),
        "{error}"
    );
    let (code, _, error) = run(&["--assert", "kernals < 2"]);
    assert!(code == Some(2) && error.contains("did you mean `kernels`?"), "{error}");
    let (code, _, error) = run(&["--dot", "nonsense"]);
    assert!(code == Some(2) && error.contains("usage::inspect") && error.contains("saturate"), "{error}");
    let (code, _, _) = run(&["--cost", "--assert", "cost.total.at.time_ns > 1"]);
    assert_eq!(code, Some(0));
}

#[test]
fn shells_and_man_know_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = succeeds(&["completions", shell]);
        assert!(script.contains("inspect") && script.contains("fail-over"), "{shell}");
    }
    let dir = TempDir::new().unwrap();
    succeeds(&["man", &dir.path().display().to_string()]);
    let page = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert!(page("skipc.1").contains(".TH SKIPC 1"), "{}", page("skipc.1"));
    assert!(
        page("skipc-trace-show.1").contains("routing trace")
            || page("skipc-trace-show.1").contains("Routing trace")
    );
    let help = succeeds(&["--help"]);
    let commands = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let names = commands.take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
    let names: Vec<&str> = names.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.contains(&"diff") && names.contains(&"verify"), "{names:?}");
    for name in names.into_iter().filter(|name| *name != "help") {
        assert!(dir.path().join(format!("skipc-{name}.1")).is_file(), "{name}");
    }
}
