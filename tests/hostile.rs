//! Artefacts whose tables somebody changed, with hashes that fit: what reads them refuses them by name or is unharmed. Nothing
//! panics, goes on for ever, or takes memory by a number that it did not check.
#![cfg(feature = "cranelift")]

use std::fs;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use skipc_artifact::check;
use skipc_artifact::program::{Arg, BOUND_UNIT, Bounds, Program};
use skipc_artifact::reader::Artifact;
use skipc_artifact::section::SectionKind;
use skipc_testkit::random::Rng;
use skipc_testkit::{mutate, tamper};
use tempfile::TempDir;

const SEED: u64 = 20_261_130;

/// Longest that a command may take with such a file.
const PATIENCE: Duration = Duration::from_secs(30);

/// Address space of a command, in KiB: what it takes with the file as it was, and some.
const MEMORY: u64 = 3 << 20;

const SPEC: &str = r#"[model]
name = "small"
vocab_size = 64
d_model = 16
max_positions = 16
norm = "layernorm"
positions = "rope"
tie_embeddings = true

[[stack]]
blocks = ["a", "b"]

[block.a]
skip = { router = "gumbel", density = 0.5, kv = "active" }
layers = [{ kind = "attention", heads = 2, head_dim = 8 }]

[block.b]
skip = { router = "topk", density = 0.5, kv = "all" }
layers = [{ kind = "ffn", d_ff = 16, activation = "relu" }]
"#;

/// An artefact for the host, and one for a GPU if this build has code for them.
fn artifacts() -> &'static [Vec<u8>] {
    static MADE: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        fs::write(path("spec.toml"), SPEC).unwrap();
        let skipc = |args: &[&str]| {
            let output = Command::new(env!("CARGO_BIN_EXE_skipc")).args(args).output().unwrap();
            assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        skipc(&["init", &path("spec.toml"), "-o", &path("w")]);
        let targets: &[&str] = if cfg!(feature = "cuda") { &["cpu", "cuda:sm_90a"] } else { &["cpu"] };
        let compiled = |target: &&str| {
            let (spec, weights, out) = (path("spec.toml"), path("w"), path("m.skp"));
            let args = ["compile", &spec, "--weights", &weights, "--cpu-backend", "cranelift", "-o", &out];
            skipc(&[&args[..], &["--target", target]].concat());
            fs::read(out).unwrap()
        };
        targets.iter().map(compiled).collect()
    })
}

/// Everything that is computed from the numbers of a program before its code runs.
fn use_tables(program: &Program) {
    for function in program.functions.values() {
        let most = function.max_tokens.next_multiple_of(BOUND_UNIT).max(BOUND_UNIT);
        for bound in [BOUND_UNIT, most] {
            let bounds = Bounds { tokens: bound, cached: BOUND_UNIT };
            let arena = function.fixed_bytes + function.row_bytes * u64::from(bound);
            for buffer in &function.buffers {
                if let Some(span) = buffer.arena_span(bounds) {
                    assert!(span.start <= span.end && span.end as u64 <= arena, "{buffer:?}");
                }
            }
            for step in &function.steps {
                let entry = &program.entries[step.kernel as usize];
                let rows = entry.extent.at_most(bound);
                let _ = (entry.launch.host_tiles(rows), entry.launch.grid(rows, 132));
                for arg in &step.args {
                    match *arg {
                        Arg::Buffer(idx) => assert!((idx as usize) < function.buffers.len()),
                        Arg::Constant(idx) => assert!((idx as usize) < program.constants.len()),
                    }
                }
            }
        }
        let _ = (function.interface.routers(), function.kernels());
    }
    for cached in [0, BOUND_UNIT, u32::MAX] {
        let all = program.state_bytes(cached);
        program.states.iter().for_each(|state| assert!(state.span(cached).end as u64 <= all, "{state:?}"));
    }
}

#[test]
fn changed_programs_are_refused_or_hold() {
    let mut rng = Rng::new(SEED);
    let (mut refused, mut taken) = (0, 0);
    for file in artifacts() {
        let artifact = Artifact::parse(file.as_slice()).unwrap();
        let section = artifact.sections().iter().find(|entry| entry.kind == SectionKind::Program).unwrap();
        let text = std::str::from_utf8(artifact.section(&section.name, section.kind).unwrap()).unwrap();
        for _ in 0..1500 {
            let changed = mutate::json(&mut rng, text);
            let Ok(program) = serde_json::from_str::<Program>(&changed) else {
                refused += 1;
                continue;
            };
            match check::program(&program, program.constant_bytes) {
                Err(error) => {
                    assert!(error.to_string().len() < 4_000, "{error}");
                    refused += 1;
                }
                Ok(()) => {
                    taken += 1;
                    use_tables(&program);
                }
            }
        }
    }
    println!("{refused} refused, {taken} taken");
    assert!(refused > taken && taken > 0, "{refused} refused, {taken} taken");
}

/// Ends a command, and says what is wrong with how it ended.
fn wrong(folder: &TempDir, args: &str) -> Option<String> {
    let command = format!("ulimit -v {MEMORY}; exec {} {args}", env!("CARGO_BIN_EXE_skipc"));
    let (out, err) = (folder.path().join("out"), folder.path().join("err"));
    let begun = Instant::now();
    let mut child = Command::new("sh")
        .args(["-c", &command])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(fs::File::create(&out).unwrap())
        .stderr(fs::File::create(&err).unwrap())
        .spawn()
        .unwrap();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if begun.elapsed() > PATIENCE => {
                child.kill().unwrap();
                child.wait().unwrap();
                return Some(format!("{args}: no end"));
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let said = String::from_utf8_lossy(&fs::read(&err).unwrap()).into_owned();
    let is_fine = matches!(status.code(), Some(0 | 1 | 2 | 3 | 5)) && !said.contains("memory::exhausted");
    (!is_fine).then(|| format!("{args}: {status}: {said:.600}"))
}

/// Commands that promise to be safe, over files in which one section was changed.
#[test]
fn commands_that_run_no_code_are_safe_with_any_file() {
    let folder = TempDir::new().unwrap();
    let mut rng = Rng::new(SEED);
    let mut found = Vec::new();
    for (of, file) in artifacts().iter().enumerate() {
        fs::write(folder.path().join("m.skp"), file).unwrap();
        let artifact = Artifact::parse(file.as_slice()).unwrap();
        let is_text = |kind: SectionKind| {
            !matches!(
                kind,
                SectionKind::Constants
                    | SectionKind::HostCode
                    | SectionKind::Cubin
                    | SectionKind::KnownAnswer
            )
        };
        let sections: Vec<_> = artifact.sections().iter().filter(|entry| is_text(entry.kind)).collect();
        for round in 0..3 {
            for section in &sections {
                let text =
                    std::str::from_utf8(artifact.section(&section.name, section.kind).unwrap()).unwrap();
                let changed = match section.name.ends_with(".json") {
                    true => mutate::json(&mut rng, text),
                    false => mutate::words(&mut rng, text),
                };
                if changed == text {
                    continue;
                }
                let changed = tamper::with_sections(file, |name, _| {
                    (name == section.name).then(|| changed.clone().into_bytes())
                });
                fs::write(folder.path().join("changed.skp"), changed).unwrap();
                let command = match (round + rng.below(6)) % 6 {
                    0 => "inspect changed.skp --buffers",
                    1 => "diff m.skp changed.skp",
                    2 => "inspect changed.skp --html html",
                    3 => "inspect changed.skp --cost",
                    4 => "inspect changed.skp --json --dot plan",
                    _ => "verify changed.skp --no-run",
                };
                if let Some(wrong) = wrong(&folder, command) {
                    let kept = std::env::temp_dir().join(format!("skipc-hostile-{of}-{round}.skp"));
                    let _ = fs::copy(folder.path().join("changed.skp"), &kept);
                    found.push(format!("{} ({}): {wrong}", section.name, kept.display()));
                }
            }
        }
    }
    assert!(found.is_empty(), "{} wrong:\n{}", found.len(), found.join("\n"));
}

/// Without its code an artefact can be compared, and what reads it neither maps nor calls that: here it is no code.
#[test]
fn code_is_not_touched_by_what_runs_none() {
    let folder = TempDir::new().unwrap();
    let file = &artifacts()[0];
    fs::write(folder.path().join("m.skp"), file).unwrap();
    // The first byte of every function traps (x86-64 `ud2`, and no instruction of Arm).
    let broken = tamper::with_sections(file, |name, code| {
        name.ends_with(".code").then(|| code.chunks(2).flat_map(|_| [0x0f, 0x0b]).take(code.len()).collect())
    });
    fs::write(folder.path().join("broken.skp"), broken).unwrap();
    for args in [
        "inspect broken.skp",
        "inspect broken.skp --html html",
        "diff broken.skp m.skp",
        "verify broken.skp --no-run",
        "trace generate broken.skp --lengths 3 --density 1 -o x.trace",
    ] {
        assert_eq!(wrong(&folder, args), None);
    }
    let ran = wrong(&folder, "verify broken.skp").expect("its code traps");
    assert!(ran.contains("signal"), "{ran}");
}
