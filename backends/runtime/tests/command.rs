//! `skipc-run` as a user meets it.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::path::Path;
use std::process::{Command, Output};

use skipc_artifact::interface::RouterPorts;
use skipc_runtime::npy;

mod tiny;

struct Folder(tempfile::TempDir);

impl Folder {
    fn with_model() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        std::fs::write(folder.path("m.skp"), tiny::artifact(tiny::bundle())).unwrap();
        folder
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skipc-run"));
        command.current_dir(self.0.path()).args(args).output().unwrap()
    }

    /// Runs a command that fails; returns its exit code and the error code that it prints.
    fn fails(&self, args: &[&str]) -> (i32, String) {
        let output = self.run(args);
        assert!(output.stdout.is_empty());
        let text = String::from_utf8(output.stderr).unwrap();
        let code = text.split(['[', ']']).nth(1).unwrap_or(&text).to_owned();
        (output.status.code().unwrap(), code)
    }
}

fn ints(path: &Path, ranks: usize) -> (Vec<u64>, Vec<i64>) {
    let array = npy::read_ints(path, &[ranks]).unwrap();
    (array.shape, array.data)
}

#[test]
fn ragged_rows_go_in_and_come_out_padded() {
    let folder = Folder::with_model();
    npy::write(&folder.path("t.npy"), &[2, 3], &[1i32, 2, -7, 3, 0, 1]).unwrap();
    npy::write(&folder.path("l.npy"), &[2], &[2i64, 3]).unwrap();
    let base = ["m.skp", "--tokens", "t.npy", "--lengths", "l.npy"];
    let outs = ["--logits", "o.npy", "--routing-out", "r.npy", "--json", "--threads", "2"];
    let output = folder.run(&[&base[..], &outs[..]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let summary = String::from_utf8(output.stdout).unwrap();
    assert!(summary.contains(r#""executed":[5,3,0]"#), "{summary}");
    let (shape, gates) = ints(&folder.path("r.npy"), 3);
    assert_eq!(shape, [3, 2, 3]);
    assert_eq!(gates, [1, 1, 0, 1, 1, 1, 1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0]);
    let logits = std::fs::read(folder.path("o.npy")).unwrap();
    let numbers: Vec<f32> = logits[logits.len() - 96..]
        .chunks_exact(4)
        .map(|word| f32::from_le_bytes(word.try_into().unwrap()))
        .collect();
    let rows = [tiny::logits_of(1), tiny::logits_of(2), [0.0; 4], tiny::logits_of(3), tiny::logits_of(0)];
    assert_eq!(numbers[..20], rows.concat());

    // What a run decided is what the next one replays.
    let replay = folder.run(&[&base[..], &["--routing", "r.npy", "--routing-out", "again.npy"]].concat());
    assert!(replay.status.success(), "{}", String::from_utf8_lossy(&replay.stderr));
    assert_eq!(ints(&folder.path("again.npy"), 3).1, gates);
}

#[test]
fn tokens_over_capacity_are_reported() {
    let folder = Folder::with_model();
    let mut bundle = tiny::bundle();
    let routed = RouterPorts::Routed { decision: 7, forced: 8, executed: 2, wanted: Some(0) };
    tiny::function(&mut bundle).interface.bind_router(1, routed);
    std::fs::write(folder.path("limited.skp"), tiny::artifact(bundle)).unwrap();
    npy::write(&folder.path("t.npy"), &[4], &[1i32, 2, 3, 0]).unwrap();
    let said = |args: &[&str]| String::from_utf8(folder.run(args).stdout).unwrap();
    let summary = said(&["limited.skp", "--tokens", "t.npy", "--json"]);
    assert!(summary.contains(r#""executed":[4,2,0],"over_capacity":[null,2,null]"#), "{summary}");
    let summary = said(&["limited.skp", "--tokens", "t.npy"]);
    assert!(summary.ends_with("\ntokens over capacity, by router: 1: 2\n"), "{summary}");
    for args in [&["m.skp", "--tokens", "t.npy"][..], &["m.skp", "--tokens", "t.npy", "--json"]] {
        assert!(!said(args).contains("capacity"), "{}", said(args));
    }
}

#[test]
fn rows_are_continued() {
    let folder = Folder::with_model();
    npy::write(&folder.path("t.npy"), &[2, 2], &[0u8, 1, 0, 2]).unwrap();
    // Who looks for it where it was is told where it is.
    let output = folder.run(&["m.skp", "--tokens", "t.npy", "--max-new-tokens", "3"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("`generate` continues it") && output.stdout.is_empty(), "{said}");
    // Without the compiler it also draws and searches, in many rows at once.
    let generate = ["generate", "m.skp", "--tokens", "t.npy", "--max-new-tokens", "3"];
    let out = |more: &[&str]| {
        let output = folder.run(&[&generate[..], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(out(&[]), "2 3 0\n3 0 1\n");
    assert_eq!(out(&["--temperature", "1", "--top-k", "1"]), "2 3 0\n3 0 1\n");
    assert_eq!(out(&["--out", "o.npy"]), "2 3 0\n3 0 1\n");
    assert_eq!(ints(&folder.path("o.npy"), 2), (vec![2, 5], vec![0, 1, 2, 3, 0, 0, 2, 3, 0, 1]));
    assert_eq!(
        folder.fails(&["generate", "m.skp", "--prompt", "x"]),
        (1, "run::prompt-vocabulary".to_owned())
    );
    assert_eq!(folder.fails(&["generate", "m.skp"]).0, 2);
    assert_eq!(folder.fails(&[]).0, 2);
}

#[test]
fn faults_have_codes_and_exit_codes() {
    let folder = Folder::with_model();
    npy::write(&folder.path("t.npy"), &[2], &[1i32, 2]).unwrap();
    npy::write(&folder.path("f.npy"), &[2], &[1f32, 2.0]).unwrap();
    npy::write(&folder.path("minus.npy"), &[2], &[1i32, -1]).unwrap();
    npy::write(&folder.path("big.npy"), &[2], &[1i32, 4]).unwrap();
    npy::write(&folder.path("gates.npy"), &[3, 1, 2], &[1u8, 1, 0, 2, 0, 0]).unwrap();
    std::fs::write(folder.path("empty.skp"), b"").unwrap();
    let mut damaged = std::fs::read(folder.path("m.skp")).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(folder.path("damaged.skp"), damaged).unwrap();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["m.skp"], 2, "run::usage"),
        (&["none.skp", "--tokens", "t.npy"], 1, "run::io"),
        (&[".", "--tokens", "t.npy"], 1, "run::io"),
        (&["m.skp", "--tokens", "/dev/zero"], 1, "run::io"),
        (&["t.npy", "--tokens", "t.npy"], 1, "artifact::magic"),
        (&["empty.skp", "--tokens", "t.npy"], 1, "artifact::truncated"),
        (&["damaged.skp", "--tokens", "t.npy"], 1, "artifact::hash"),
        (&["m.skp", "--tokens", "f.npy"], 1, "npy::dtype"),
        (&["m.skp", "--tokens", "m.skp"], 1, "npy::format"),
        (&["m.skp", "--tokens", "minus.npy"], 1, "npy::value"),
        (&["m.skp", "--tokens", "big.npy"], 1, "run::token-range"),
        (&["m.skp", "--tokens", "t.npy", "--lengths", "t.npy"], 1, "npy::shape"),
        (&["m.skp", "--tokens", "t.npy", "--routing", "t.npy"], 1, "npy::shape"),
        (&["m.skp", "--tokens", "t.npy", "--routing", "gates.npy"], 1, "npy::value"),
        (&["m.skp", "--prompt", "x"], 1, "run::prompt-vocabulary"),
        (&["m.skp", "--tokens", "t.npy", "--logits", "none/o.npy"], 1, "artifact::io"),
        (&["m.skp", "--tokens", "t.npy", "--device", "cuda"], 5, "run::no-program"),
    ];
    for (args, exit, code) in cases {
        assert_eq!(folder.fails(args), (*exit, (*code).to_owned()), "{args:?}");
    }
    assert_eq!(folder.fails(&["m.skp", "--nonsense"]).0, 2);
}

#[test]
fn timing_tells_the_step_and_its_kernels() {
    let folder = Folder::with_model();
    npy::write(&folder.path("t.npy"), &[1, 3], &[1i32, 2, 3]).unwrap();
    let base = ["m.skp", "--tokens", "t.npy", "--timing"];
    let output = folder.run(&base);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().skip(1).collect();
    assert!(
        lines[0].contains("ms to load") && lines[0].contains("ms a step") && lines[0].contains("KiB"),
        "{text}"
    );
    let output = folder.run(&[&base[..], &["--json"]].concat());
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let timing = &summary["timing"];
    let kernels = timing["kernels"].as_array().unwrap();
    assert_eq!(kernels.len() + 2, lines.len(), "a line for each kernel, below two of words");
    let sum: f64 = kernels.iter().map(|kernel| kernel["ms"].as_f64().unwrap()).sum();
    assert!(sum > 0.0 && sum <= timing["step_ms"].as_f64().unwrap(), "{summary}");
}

#[test]
fn with_json_errors_are_json_too() {
    let folder = Folder::with_model();
    let tokens = folder.path("t.npy");
    npy::write(&tokens, &[1], &[70_000i32]).unwrap();
    for (args, exit, code) in [
        (&["m.skp", "--tokens", "t.npy", "--json"][..], 1, "run::token-range"),
        (&["m.skp", "--json"], 2, "run::usage"),
        (&["m.skp", "--json", "--no-such-option"], 2, "usage::arguments"),
    ] {
        let output = folder.run(args);
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&found["errors"][0]["code"], output.status.code()),
            (&code.into(), Some(exit)),
            "{found}"
        );
        assert!(output.stderr.is_empty());
    }
}
