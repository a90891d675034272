//! The command line as users meet it: exit codes, error codes, files.
#![cfg(feature = "cranelift")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const GOLDEN: &str = "tests/golden/gumbel";

fn skipc(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_skipc")).args(args).env("NO_COLOR", "1").output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn succeeds(args: &[&str]) -> String {
    let output = skipc(args);
    assert!(output.status.success(), "skipc {args:?}: {}", stderr(&output));
    stdout(&output)
}

/// Runs, expects this exit code, and this error code in what the user reads.
#[track_caller]
fn fails(args: &[&str], exit: i32, code: &str) -> String {
    let output = skipc(args);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(exit), "skipc {args:?}: {text}");
    assert!(text.contains(code), "skipc {args:?} should say `{code}`: {text}");
    assert!(!text.contains("panicked"), "skipc {args:?}: {text}");
    text
}

struct Fixture {
    dir: TempDir,
    artifact: String,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = TempDir::new().unwrap();
        let artifact = dir.path().join("m.skp").display().to_string();
        compile(GOLDEN, &["-o", &artifact, "--max-tokens", "128"]);
        Fixture { dir, artifact }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Writes an array and gives its path.
    fn array<T: npyz::AutoSerialize + Copy>(&self, name: &str, shape: &[u64], data: &[T]) -> String {
        let path = self.path(name);
        skipc_runtime::npy::write(Path::new(&path), shape, data).unwrap();
        path
    }
}

fn compile(golden: &str, more: &[&str]) -> String {
    let (spec, weights) = (format!("{golden}/spec.toml"), format!("{golden}/weights.safetensors"));
    succeeds(&[&["compile", &spec, "--weights", &weights], more].concat())
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let fixture = Fixture::new();
    let other = fixture.path("other.skp");
    compile(GOLDEN, &["-o", &other, "--max-tokens", "128", "--verify-each", "--timing"]);
    assert!(fs::read(&fixture.artifact).unwrap() == fs::read(&other).unwrap());
    let spec = fs::canonicalize(format!("{GOLDEN}/spec.toml")).unwrap();
    let weights = fs::canonicalize(format!("{GOLDEN}/weights.safetensors")).unwrap();
    let elsewhere = Command::new(env!("CARGO_BIN_EXE_skipc"))
        .current_dir(fixture.dir.path())
        .args(["compile", &spec.display().to_string(), "--weights", &weights.display().to_string()])
        .args(["-o", "here.skp", "--max-tokens", "128"])
        .status();
    assert!(elsewhere.unwrap().success());
    assert!(fs::read(&fixture.artifact).unwrap() == fs::read(fixture.path("here.skp")).unwrap());
}

#[test]
fn every_stage_prints_and_dumps() {
    let fixture = Fixture::new();
    for (stage, word) in [
        ("model", "[model]"),
        ("graph", "route "),
        ("legal", "gather"),
        ("plan", "gemm_"),
        ("clif", "function"),
    ] {
        let emitted = compile(GOLDEN, &["--emit", stage, "--cpu-backend", "cranelift"]);
        assert!(emitted.contains(word), "--emit {stage}");
    }
    let dump = fixture.path("stages");
    compile(GOLDEN, &["--emit", "model", "--dump-to", &dump]);
    let mut names: Vec<String> = fs::read_dir(&dump)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert!(names.len() >= 8 && names[0] == "00-model.toml" && names[1] == "01-lowered.sir", "{names:?}");
    let spec = format!("{GOLDEN}/spec.toml");
    let weights = format!("{GOLDEN}/weights.safetensors");
    fails(&["compile", &spec, "--weights", &weights, "--emit", "nonsense"], 2, "usage::emit");
}

#[test]
fn a_run_writes_what_was_asked_for_and_replays_it() {
    let fixture = Fixture::new();
    let tokens = format!("{GOLDEN}/tokens.npy");
    let (logits, gates) = (fixture.path("l.npy"), fixture.path("g.npy"));
    let text = succeeds(&[
        "run",
        &fixture.artifact,
        "--tokens",
        &tokens,
        "--logits",
        &logits,
        "--routing-out",
        &gates,
    ]);
    assert!(text.contains("blocks.") && text.contains("tokens"), "{text}");
    let again = fixture.path("again.npy");
    succeeds(&["run", &fixture.artifact, "--tokens", &tokens, "--logits", &again, "--routing", &gates]);
    assert!(
        fs::read(&logits).unwrap() == fs::read(&again).unwrap(),
        "a replay of the same decisions differs"
    );
    let json = succeeds(&["--json", "run", &fixture.artifact, "--tokens", &tokens]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["run"]["tokens"], 80);
    assert!(json["routing"]["routers"][0]["executed"].as_u64().unwrap() > 0);
}

#[test]
fn inspect_verify_and_the_lists_print_for_users_and_machines() {
    let fixture = Fixture::new();
    let tokens = format!("{GOLDEN}/tokens.npy");
    let text = succeeds(&["inspect", &fixture.artifact, "--tokens", &tokens]);
    for word in ["gemm_", "bytes a token", "cpu/constants", "run for every token", "here runs "] {
        assert!(text.contains(word), "inspect lacks `{word}`: {text}");
    }
    assert!(
        succeeds(&["inspect", &fixture.artifact, "--section", "ir/score/legal.sir"]).starts_with("graph ")
    );
    fails(&["inspect", &fixture.artifact, "--section", "nonsense"], 1, "artifact::missing");
    let report: serde_json::Value =
        serde_json::from_str(&succeeds(&["verify", &fixture.artifact, "--json"])).unwrap();
    assert_eq!(report["ok"], true);
    for command in
        [&["doctor"][..], &["targets"], &["passes"], &["rules"], &["ops"], &["inspect", &fixture.artifact]]
    {
        let json = succeeds(&[command, &["--json"]].concat());
        assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{command:?}: {json}");
        assert!(!succeeds(command).is_empty());
    }
}

#[test]
fn opt_runs_passes_on_the_text_form() {
    let fixture = Fixture::new();
    let lowered = fixture.path("lowered.sir");
    fs::write(&lowered, succeeds(&["inspect", &fixture.artifact, "--section", "ir/score/lowered.sir"]))
        .unwrap();
    let legal = succeeds(&["inspect", &fixture.artifact, "--section", "ir/score/legal.sir"]);
    assert!(succeeds(&["opt", &lowered]) == legal, "the default list is that of a compile");
    let out = fixture.path("out.sir");
    let said =
        succeeds(&["opt", &lowered, "--passes", "merge_routes", "-o", &out, "--verify-each", "--report"]);
    assert!(said.contains("merge_routes") && !said.contains("graph "), "{said}");
    assert!(fs::read_to_string(&out).unwrap() != legal);
    assert_eq!(succeeds(&["opt", &lowered, "--fuel", "0"]), fs::read_to_string(&lowered).unwrap());
    assert!(succeeds(&["opt", &lowered, "--print-each"]).matches("// after ").count() >= 5);
    let json: serde_json::Value = serde_json::from_str(&succeeds(&["opt", &lowered, "--json"])).unwrap();
    assert_eq!(json["graph"], legal.as_str());
    fails(&["opt", &lowered, "--passes", "nonsense"], 2, "passes::unknown");
    fails(&["opt", &fixture.path("none.sir")], 1, "io::file");
    fs::write(&out, "graph \"g\" {\n  %0 = inputt {port=tokens}\n  return result \"x\" = %0\n}\n").unwrap();
    let text = fails(&["opt", &out], 1, "sir::unknown_op");
    assert!(text.contains("out.sir:2"), "{text}");
    fs::write(&out, [0xff, 0xfe]).unwrap();
    fails(&["opt", &out], 1, "sir::syntax");
}

#[test]
fn wrong_arguments_are_refused_by_name() {
    let fixture = Fixture::new();
    let (spec, weights) = (format!("{GOLDEN}/spec.toml"), format!("{GOLDEN}/weights.safetensors"));
    let compile = |more: &[&'static str], exit: i32, code: &str| {
        fails(&[&["compile", &spec, "--weights", &weights, "--emit", "model"], more].concat(), exit, code)
    };
    compile(&["--target", "tpu"], 2, "usage::compile");
    compile(&["--target", "cuda"], 2, "usage::compile");
    compile(&["--dtype", "cpu=f64"], 2, "usage::compile");
    compile(&["--dtype", "bf16"], 2, "usage::compile");
    compile(&["--max-tokens", "0"], 2, "usage::compile");
    compile(&["--passes", "cse,nonsense"], 2, "passes::unknown");
    compile(&["--dtype", "cpu=bf16", "--cpu-backend", "cranelift"], 5, "target::unsupported");
    compile(&["--dtype", "cpu=q8", "--cpu-backend", "cranelift"], 5, "target::unsupported");
    compile(&["--dtype", "cuda=q8"], 2, "usage::compile");
    fails(&["compile", "missing.toml", "--weights", &weights, "--emit", "model"], 1, "spec::read");
    fails(&["compile", &spec, "--weights", "missing", "--emit", "model"], 1, "weights::");
    fails(&["compile", &spec, "--weights", &spec, "--emit", "model"], 1, "weights::");
    fails(&["check", "models/kjv-12l-d25.safetensors"], 1, "spec::");
    fails(&["run", &fixture.artifact], 2, "tokens");
    fails(&["nonsense"], 2, "nonsense");
    fails(&["run", "missing.skp", "--prompt", "x"], 1, "run::io");
}

#[cfg(feature = "llvm")]
#[test]
fn weights_in_8_bits_are_kept_and_verified() {
    let fixture = Fixture::new();
    let (artifact, plain) = (fixture.path("q8.skp"), fixture.path("bf16.skp"));
    compile(GOLDEN, &["-o", &artifact, "--max-tokens", "128", "--dtype", "cpu=q8"]);
    compile(GOLDEN, &["-o", &plain, "--max-tokens", "128", "--dtype", "cpu=bf16"]);
    let constants = |artifact: &str| {
        let text = succeeds(&["inspect", artifact, "--json"]);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        json["programs"][0]["constant_bytes"].as_u64().unwrap()
    };
    assert!(constants(&artifact) < constants(&plain));
    succeeds(&["verify", &artifact]);
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_target_that_is_not_built_in_says_how_to_build_it() {
    let (spec, weights) = (format!("{GOLDEN}/spec.toml"), format!("{GOLDEN}/weights.safetensors"));
    let args = ["compile", &spec, "--weights", &weights, "--emit", "ptx", "--target", "cuda:sm_80"];
    assert!(fails(&args, 5, "target::not_built").contains("--features cuda"));
}

#[test]
fn inputs_that_a_program_does_not_take_are_refused() {
    let fixture = Fixture::new();
    let run = |more: &[&str], code: &str| {
        fails(&[&["run", &fixture.artifact], more].concat(), 1, code);
    };
    run(&["--prompt", "text for a model of other tokens"], "run::prompt-vocabulary");
    run(&["--tokens", &fixture.array("float.npy", &[2], &[1.0f32, 2.0])], "npy::dtype");
    run(&["--tokens", &fixture.array("cube.npy", &[1, 1, 1], &[1i32])], "npy::shape");
    run(&["--tokens", &fixture.array("high.npy", &[2], &[1i32, 1 << 20])], "run::token-range");
    run(&["--tokens", &fixture.array("negative.npy", &[2], &[1i64, -1])], "npy::value");
    run(&["--tokens", &fixture.array("long.npy", &[1, 100], &[1i32; 100])], "run::sequence-too-long");
    // No program would take this one, however many tokens it takes.
    run(&["--tokens", &fixture.array("longer.npy", &[1, 200], &[1i32; 200])], "run::sequence-too-long");
    let tokens = fixture.array("t.npy", &[2, 3], &[1i32; 6]);
    run(&["--tokens", &tokens, "--lengths", &fixture.array("l1.npy", &[1], &[3i32])], "npy::shape");
    run(&["--tokens", &tokens, "--lengths", &fixture.array("l2.npy", &[2], &[3i32, 4])], "npy::value");
    run(&["--tokens", &tokens, "--routing", &fixture.array("r1.npy", &[1, 2, 3], &[1u8; 6])], "npy::shape");
    run(&["--tokens", &tokens, "--routing", &fixture.array("r2.npy", &[2, 2, 3], &[2u8; 12])], "npy::value");
    let noise = fixture.path("noise.npy");
    fs::write(&noise, b"\x93NUMPY\x01\x00\xff\xffnoise").unwrap();
    run(&["--tokens", &noise], "npy::format");
    let ragged = fixture.array("l3.npy", &[2], &[0i32, 2]);
    succeeds(&["run", &fixture.artifact, "--tokens", &tokens, "--lengths", &ragged]);
}

#[test]
fn a_gpu_that_is_not_there_is_an_error_of_its_own() {
    let fixture = Fixture::new();
    let tokens = format!("{GOLDEN}/tokens.npy");
    fails(&["run", &fixture.artifact, "--tokens", &tokens, "--device", "cuda"], 5, "run::no-program");
}

/// Truncated and bit-flipped artefacts at places spread over the whole file are refused. `inspect` checks what it reads, and
/// lengths.
#[test]
fn damaged_artefacts_are_refused() {
    let fixture = Fixture::new();
    let whole = fs::read(&fixture.artifact).unwrap();
    let damaged = PathBuf::from(fixture.path("damaged.skp"));
    let path = damaged.display().to_string();
    let tokens = format!("{GOLDEN}/tokens.npy");
    for part in 0..24 {
        let at = whole.len() * part / 24 + part;
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (part % 8);
        fs::write(&damaged, &flipped).unwrap();
        fails(&["run", &path, "--tokens", &tokens], 1, "artifact::");
        fs::write(&damaged, &whole[..at]).unwrap();
        fails(&["inspect", &path], 1, "artifact::");
    }
    fs::write(&damaged, [&whole[..], b"\0"].concat()).unwrap();
    fails(&["verify", &path], 1, "artifact::trailing");
}

#[test]
fn measured_times_choose_among_forms() {
    let dir = TempDir::new().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (tuned, artifact) = (file("tuned.json"), file("m.skp"));
    let spec = format!("{GOLDEN}/spec.toml");
    let said = succeeds(&["tune", &spec, "-o", &tuned, "--rounds", "2", "--cpu-backend", "cranelift"]);
    assert!(said.contains("attention_") && said.contains("µs in tiles of"), "{said}");

    // The lowest form is made ten times as slow as the highest at all counts, and then ten times as fast.
    for (factor, tiles) in [(10.0, "32"), (0.1, "1")] {
        let mut table: serde_json::Value = serde_json::from_slice(&fs::read(&tuned).unwrap()).unwrap();
        for kernel in table["kernels"].as_array_mut().unwrap() {
            let slow = kernel["forms"][1]["ns"].clone();
            let times = slow.as_array().unwrap().iter().map(|ns| (ns.as_f64().unwrap() * factor).into());
            kernel["forms"][0]["ns"] = serde_json::Value::Array(times.collect());
        }
        let edited = file("edited.json");
        fs::write(&edited, table.to_string()).unwrap();
        let said = compile(
            GOLDEN,
            &["-o", &artifact, "--max-tokens", "128", "--tuning", &edited, "--cpu-backend", "cranelift"],
        );
        assert!(said.contains("1 of 2 kernels with several forms chosen by measured times"), "{said}");
        let shown = succeeds(&["inspect", &artifact]);
        let of = |line: &&str| line.contains("k10_attention_");
        let row = shown.lines().find(of).unwrap_or_else(|| panic!("{shown}"));
        assert_eq!(row.split_whitespace().nth(2), Some(tiles), "{shown}");
        let flags = succeeds(&["inspect", &artifact, "--json"]);
        assert!(flags.contains("--tuning "), "{flags}");

        // A report has the code of kernels if it is told the times that decided it, and no other code.
        let site = |name: &str, more: &[&str]| {
            let folder = file(name);
            succeeds(&[&["inspect", &artifact, "--html", &folder][..], more].concat());
            fs::read_to_string(format!("{folder}/code/0-10.js")).unwrap_or_default()
        };
        assert!(site("times unknown", &[]).is_empty());
        assert!(site("times known", &["--tuning", &edited]).contains("clif"));
        let folder = file("other times");
        fails(&["inspect", &artifact, "--html", &folder, "--tuning", &tuned], 1, "tuning::other");
    }

    fs::write(file("cut.json"), "{").unwrap();
    let compile_with = |name: &str, exit: i32, code: &str| {
        let args = ["compile", &spec, "--weights", &format!("{GOLDEN}/weights.safetensors"), "-o", &artifact];
        fails(&[&args[..], &["--tuning", &file(name)]].concat(), exit, code)
    };
    compile_with("cut.json", 1, "tuning::parse");
    let text = fs::read_to_string(&tuned).unwrap();
    for (name, from, to, code) in [
        ("version.json", "\"version\": 1", "\"version\": 9", "tuning::version"),
        ("target.json", "\"target\": \"cpu\"", "\"target\": \"cuda:sm_80\"", "tuning::target"),
        ("table.json", "\"counts\": [", "\"counts\": [0,", "tuning::table"),
    ] {
        let edited = text.replacen(from, to, 1);
        assert_ne!(edited, text, "{from}");
        fs::write(file(name), edited).unwrap();
        compile_with(name, 1, code);
    }
    if skipc_runtime::cuda::Gpu::open(0).is_err() {
        let before = fs::read(&tuned).unwrap();
        fails(&["tune", &spec, "-o", &tuned, "--target", "cuda:sm_80"], 5, "cuda::");
        assert!(fs::read(&tuned).unwrap() == before, "nothing was measured");
    }
}

#[test]
#[cfg(not(feature = "cuda"))]
fn the_cost_on_a_gpu_takes_its_code() {
    let args = ["inspect", "models/skip-12l-d50.toml", "--cost", "--target", "cuda:sm_90a"];
    fails(&args, 5, "target::not_built");
    fails(&["inspect", "models/skip-12l-d50.toml", "--cost", "--target", "gpu"], 2, "usage::inspect");
}

#[test]
fn promises_can_be_required() {
    let dir = tempfile::tempdir().unwrap();
    let artifact = dir.path().join("m.skp").display().to_string();
    compile(GOLDEN, &["-o", &artifact, "--require", "device-resident,causal"]);
    let (spec, weights) = ("models/mod-topk.toml", dir.path().join("w.safetensors").display().to_string());
    succeeds(&["init", spec, "-o", &weights]);
    let base = ["compile", spec, "--weights", &weights, "-o", &artifact];
    succeeds(&[&base[..], &["--require", "device-resident"]].concat());
    fails(&[&base[..], &["--require", "causal"]].concat(), 1, "require::causal");
}

/// Sizes and passes that nobody can have are a wrong command line, whoever finds out.
#[test]
fn what_cannot_be_asked_for_is_a_usage_error() {
    let (spec, weights) = (format!("{GOLDEN}/spec.toml"), format!("{GOLDEN}/weights.safetensors"));
    let compile = ["compile", &spec, "--weights", &weights, "-o", "/dev/null"];
    for n in ["4294967295", "2147483648"] {
        let text = fails(&[&compile[..], &["--max-tokens", n]].concat(), 2, "plan::refused");
        assert!(text.contains("max_tokens") && text.contains(n), "{text}");
    }
    fails(&[&compile[..], &["--max-tokens", "0"]].concat(), 2, "usage::compile");
    fails(&[&compile[..], &["--passes", "x"]].concat(), 2, "passes::unknown");
    fails(&["opt", "tests/golden/gumbel/spec.toml", "--passes", "x"], 1, "sir::");
    let text = fails(&[&compile[..5], &["nodir/m.skp"]].concat(), 1, "artifact::io");
    assert!(text.contains("there is no folder nodir"), "{text}");
}

/// With `--json`, what a command says is JSON: errors of the command line and texts of stages, too.
#[test]
fn json_is_asked_for_and_given() {
    let fixture = Fixture::new();
    let (spec, weights) = (format!("{GOLDEN}/spec.toml"), format!("{GOLDEN}/weights.safetensors"));
    let json = |args: &[&std::ffi::OsStr], exit: i32| -> serde_json::Value {
        let output = Command::new(env!("CARGO_BIN_EXE_skipc")).arg("--json").args(args).output().unwrap();
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(exit), "{args:?}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error} in {text}"))
    };
    let words = |args: &[&str]| args.iter().map(|arg| std::ffi::OsString::from(*arg)).collect::<Vec<_>>();
    let of = |args: &[&str], exit: i32| {
        let args = words(args);
        json(&args.iter().map(|arg| arg.as_os_str()).collect::<Vec<_>>(), exit)
    };
    let unknown = of(&["no-such-command"], 2);
    assert_eq!(unknown["errors"][0]["code"], "usage::arguments", "{unknown}");
    let both = of(&["run", &fixture.artifact, "--prompt", "a", "--lengths", "nothere.npy"], 2);
    assert_eq!(both["errors"][0]["code"], "usage::arguments", "{both}");
    let emitted = of(&["compile", &spec, "--weights", &weights, "--emit", "graph"], 0);
    assert!(emitted["emitted"].as_str().is_some_and(|text| text.contains("graph \"")), "{emitted}");
    let tokens = fixture.array("begin.npy", &[1, 63], &[5i32; 63]);
    let greedy = of(&["generate", &fixture.artifact, "--tokens", &tokens, "--max-new-tokens", "9"], 0);
    let row = &greedy["sequences"][0];
    assert_eq!((&row["prompt_tokens"], &row["at_last_position"]), (&63.into(), &true.into()), "{greedy}");
    assert_eq!(row["tokens"].as_array().map(Vec::len), Some(1), "{greedy}");
    let section = of(&["inspect", &fixture.artifact, "--section", "spec.toml"], 0);
    assert!(section["text"].as_str().is_some_and(|text| text.contains("[model]")), "{section}");
    let sections = of(&["inspect", &fixture.artifact, "--section", ""], 0);
    assert!(sections.as_array().is_some_and(|all| all.len() > 5), "{sections}");
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStringExt;
        let name = std::ffi::OsString::from_vec([fixture.path("m").as_bytes(), b"\xff.skp"].concat());
        let mut args = words(&["compile", &spec, "--weights", &weights, "-o"]);
        args.push(name.clone());
        let written = json(&args.iter().map(|arg| arg.as_os_str()).collect::<Vec<_>>(), 0);
        assert!(written["bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{written}");
        assert!(fs::metadata(&name).is_ok());
    }
}

#[test]
fn rows_that_end_at_the_last_position_say_so_and_a_router_that_never_executes_wants_no_share() {
    let fixture = Fixture::new();
    let tokens = fixture.array("begin.npy", &[1, 63], &[5i32; 63]);
    for (count, ends) in [("1", false), ("9", true)] {
        let ran = skipc(&["generate", &fixture.artifact, "--tokens", &tokens, "--max-new-tokens", count]);
        let note = stderr(&ran).contains("it ends at the model's last position\n");
        assert_eq!((note, ran.status.code()), (ends, Some(0)), "{count} tokens");
        assert_eq!(stdout(&ran).lines().next().map(|ids| ids.split(' ').count()), Some(1));
    }
    let never = fixture.path("never.skp");
    compile("tests/golden/never", &["-o", &never]);
    let shares = succeeds(&["run", &never, "--tokens", &tokens]);
    assert!(shares.contains("0 of 63 tokens (never)\n"), "{shares}");
}

/// Files of the right name and the wrong kind are told apart.
#[test]
fn files_of_another_kind_are_called_what_they_are() {
    let fixture = Fixture::new();
    let index = fixture.path("w.safetensors");
    fs::write(&index, "{\"weight_map\": {}}").unwrap();
    let text = fails(&["check", &format!("{GOLDEN}/spec.toml"), "--weights", &index], 1, "weights::header");
    assert!(text.contains("is JSON") && text.contains("index of shards"), "{text}");
    let by_column = fixture.path("f.npy");
    let mut header = "{'descr': '<i4', 'fortran_order': True, 'shape': (3, 7), }".to_owned();
    header += &" ".repeat(128 - 10 - header.len() - 1);
    header.push('\n');
    let bytes = [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), &[0; 84]];
    fs::write(&by_column, bytes.concat()).unwrap();
    let text = fails(&["run", &fixture.artifact, "--tokens", &by_column], 1, "npy::shape");
    assert!(text.contains("np.ascontiguousarray"), "{text}");
    let one = fixture.array("one.npy", &[1, 1], &[5i32]);
    let text = succeeds(&["run", &fixture.artifact, "--tokens", &one]);
    assert!(text.starts_with("1 token in 1 sequence on cpu"), "{text}");
}
