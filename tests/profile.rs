//! `skipc profile` and `skipc bench --group-size` as users meet them. Nothing here depends on how long anything takes.
#![cfg(feature = "cranelift")]

use std::collections::BTreeMap;
use std::fs;
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

#[test]
fn calls_of_threads_are_recorded_and_add_up() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (artifact, events, lines, svg) = (path("m.skp"), path("p.json"), path("p.jsonl"), path("p.svg"));
    let (spec, weights) = (format!("{GOLDEN}/spec.toml"), format!("{GOLDEN}/weights.safetensors"));
    let cranelift = ["--cpu-backend", "cranelift"];
    succeeds(&[&["compile", &spec, "--weights", &weights, "-o", &artifact][..], &cranelift].concat());
    let args = ["--json", "profile", &artifact, "--density", "0.5,1", "--tokens", "64", "--rounds", "3"];
    let more = ["--threads", "2", "--perfetto", &events, "--lines", &lines, "--svg", &svg];
    let report: Value = serde_json::from_str(&succeeds(&[&args[..], &more].concat())).unwrap();
    assert!(report["machine"]["gflops"].as_f64().unwrap() > 0.1);
    assert!(report["machine"]["gbytes"].as_f64().unwrap() > 0.1);
    let profiles = report["profiles"].as_array().unwrap();
    assert_eq!(profiles.len(), 2);
    let sum = |profile: &Value, part: &str, key: &str| -> f64 {
        profile[part].as_array().unwrap().iter().map(|it| it[key].as_f64().unwrap()).sum()
    };
    for profile in profiles {
        for key in ["wall_ns", "flops", "bytes"] {
            let steps = sum(profile, "steps", key);
            assert!(steps > 0.0, "{key}");
            for part in ["kernels", "blocks"] {
                assert!((sum(profile, part, key) - steps).abs() <= 1e-9 * steps, "{part} {key}");
            }
        }
        assert!((0.0..1.0).contains(&profile["waiting"].as_f64().unwrap()));
    }
    // More tokens that execute are more work.
    assert!(sum(&profiles[0], "steps", "flops") < sum(&profiles[1], "steps", "flops"));

    // Calls of a thread follow each other, and a step begins when those before it have ended.
    let steps = profiles[0]["steps"].as_array().unwrap();
    let calls: Vec<Value> =
        fs::read_to_string(&lines).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let number = |call: &Value, key: &str| call[key].as_u64().unwrap();
    let mut ends: BTreeMap<u64, u64> = BTreeMap::new();
    let mut spans: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for call in &calls {
        let (thread, begin, end) = (number(call, "thread"), number(call, "begin_ns"), number(call, "end_ns"));
        assert!(begin <= end && ends.insert(thread, end).is_none_or(|before| before <= begin), "{call}");
        let step = number(call, "step");
        assert_eq!(steps[step as usize]["kernel"], call["kernel"]);
        let span = spans.entry(step).or_insert((begin, end));
        *span = (span.0.min(begin), span.1.max(end));
    }
    assert!(ends.keys().all(|thread| *thread < 2));
    let spans: Vec<(u64, (u64, u64))> = spans.into_iter().collect();
    assert!(spans.windows(2).all(|pair| pair[0].1.1 <= pair[1].1.0), "{spans:?}");
    for (step, (begin, end)) in &spans {
        assert_eq!(steps[*step as usize]["wall_ns"].as_u64().unwrap(), end - begin);
    }

    let trace: Value = serde_json::from_str(&fs::read_to_string(&events).unwrap()).unwrap();
    let complete = trace["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == "X");
    assert_eq!(complete.count(), calls.len());
    assert!(fs::read_to_string(&svg).unwrap().contains("GFLOP/s"));
    let text = succeeds(&["profile", &artifact, "--density", "0.5", "--rounds", "1", "--threads", "1"]);
    for words in ["density 0.5", "% of peak", "blocks.1", "threads wait"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let output = skipc(&["profile", &artifact, "--density", "2"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("usage::profile"));

    // An artefact for the host alone has nothing for a GPU, whether there is one or not.
    let output = skipc(&["profile", &artifact, "--device", "cuda"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("has no program") && text.contains("cuda"), "{text}");
}

#[test]
fn capacities_limit_what_executes() {
    let dir = TempDir::new().unwrap();
    let svg = dir.path().join("c.svg").display().to_string();
    let (spec, weights) = (format!("{GOLDEN}/spec.toml"), format!("{GOLDEN}/weights.safetensors"));
    let args =
        ["bench", &spec, "--weights", &weights, "--group-size", "8,16", "--capacity-factor", "0.5,100"];
    let more = ["--tokens", "64", "--rounds", "2", "--threads", "1", "--svg", &svg, "--json"];
    let report: Value = serde_json::from_str(&succeeds(&[&args[..], &more].concat())).unwrap();
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 5);
    let figure = |row: usize, key: &str| rows[row][key].as_f64().unwrap();
    assert!(rows[0]["capacity"].is_null() && figure(0, "lost") == 0.0);
    for (row, found) in rows.iter().enumerate().skip(1) {
        let factor = found["capacity"][1].as_f64().unwrap();
        let is_tight = factor < 1.0;
        assert_eq!(figure(row, "lost") > 0.0, is_tight, "{found}");
        assert_eq!(figure(row, "executed") < figure(0, "executed"), is_tight, "{found}");
    }
    assert!(fs::read_to_string(&svg).unwrap().contains("factor 0.5"));
    for wrong in [["--group-size", "none"], ["--capacity-factor", "-1"]] {
        let output = skipc(&[&["bench", &spec, "--rounds", "1"], &wrong[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}
