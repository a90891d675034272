//! Files and streams of the command line: outputs destroy nothing, and messages that nobody reads stop nothing.
#![cfg(all(feature = "cranelift", unix))]

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const GOLDEN: &str = "tests/golden/gumbel";

/// How long a command may take that has nothing to do, on a machine that does other things, too.
const PATIENCE: Duration = Duration::from_secs(20);

fn skipc(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skipc"));
    command.args(args).env("NO_COLOR", "1");
    command
}

#[track_caller]
fn succeeds(args: &[&str]) -> Output {
    let output = skipc(args).output().unwrap();
    assert!(output.status.success(), "skipc {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// A folder with all that commands read, under the names by which the tests give it.
struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = Folder(TempDir::new().unwrap());
        for (from, to) in [("spec.toml", "spec.toml"), ("weights.safetensors", "w"), ("tokens.npy", "t.npy")]
        {
            fs::copy(format!("{GOLDEN}/{from}"), folder.path(to)).unwrap();
        }
        let (spec, weights) = (folder.named("spec.toml"), folder.named("w"));
        let compile = ["compile", &spec, "--weights", &weights, "--cpu-backend", "cranelift"];
        succeeds(&[&compile[..], &["-o", &folder.named("m.skp"), "--max-tokens", "128"]].concat());
        let graph = succeeds(&[&compile[..], &["--emit", "graph"]].concat());
        fs::write(folder.path("g.sir"), graph.stdout).unwrap();
        let (model, tokens) = (folder.named("m.skp"), folder.named("t.npy"));
        succeeds(&["run", &model, "--tokens", &tokens, "--routing-out", &folder.named("r.npy")]);
        succeeds(&["trace", "record", &model, "--tokens", &tokens, "-o", &folder.named("x.trace")]);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn named(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

const TRAIN: [&str; 4] = ["train", "spec.toml", "--config", "c.toml"];

/// Arguments before an output's option; the option; the inputs that are among the arguments.
const OUTPUTS: &[(&[&str], &str, &[&str])] = &[
    (&["init", "spec.toml"], "-o", &["spec.toml"]),
    (&["compile", "spec.toml", "--weights", "w"], "-o", &["spec.toml", "w"]),
    (&["run", "m.skp", "--tokens", "t.npy"], "--logits", &["m.skp", "t.npy"]),
    (&["run", "m.skp", "--tokens", "t.npy", "--routing", "r.npy"], "--routing-out", &["m.skp", "r.npy"]),
    (&["generate", "m.skp", "--tokens", "t.npy"], "--out", &["m.skp", "t.npy"]),
    (&["sign", "m.skp", "--key", "k.pem"], "-o", &["m.skp", "k.pem"]),
    (&["bench", "spec.toml", "--weights", "w", "--rounds", "1"], "--svg", &["spec.toml", "w"]),
    (&["profile", "m.skp"], "--perfetto", &["m.skp"]),
    (&["profile", "m.skp"], "--lines", &["m.skp"]),
    (&["profile", "m.skp"], "--svg", &["m.skp"]),
    (&["tune", "spec.toml", "--weights", "w", "--rounds", "1"], "-o", &["spec.toml", "w"]),
    (&[TRAIN[0], TRAIN[1], TRAIN[2], TRAIN[3], "-o", "d"], "--svg", &["spec.toml", "c.toml"]),
    (&["opt", "g.sir"], "-o", &["g.sir"]),
    (&["trace", "record", "m.skp", "--tokens", "t.npy"], "-o", &["m.skp", "t.npy"]),
    (&["trace", "generate", "m.skp", "--lengths", "3", "--density", "1"], "-o", &["m.skp"]),
];

/// The same for an option that names a folder, `d`, of which one file is among the arguments. `eval` and `serve` write nothing.
const FOLDERS: &[(&[&str], &str, &str)] = &[
    (
        &[TRAIN[0], TRAIN[1], TRAIN[2], TRAIN[3], "--weights", "d/weights.safetensors"],
        "-o",
        "weights.safetensors",
    ),
    (
        &[TRAIN[0], TRAIN[1], TRAIN[2], TRAIN[3], "--weights", "d/after.safetensors", "-o", "run"],
        "--record",
        "after.safetensors",
    ),
    (&["inspect", "d/index.html"], "--html", "index.html"),
    (&["diff", "m.skp", "d/index.html"], "--html", "index.html"),
];

/// Every output of every command as the file that each of its inputs is, directly and through a link.
#[test]
fn an_output_is_no_input_and_no_other_output() {
    let folder = Folder::new();
    let batch = ["--tokens", "t.npy"];
    // What is in these files is not looked at.
    for name in ["c.toml", "k.pem"] {
        fs::write(folder.path(name), name).unwrap();
    }
    let in_folder = |args: &[&str]| skipc(args).current_dir(folder.0.path()).output().unwrap();
    fs::create_dir(folder.path("d")).unwrap();
    for (args, option, file) in FOLDERS {
        let path = folder.path("d").join(file);
        fs::write(&path, file).unwrap();
        let output = in_folder(&[*args, &[*option, "./d"][..]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?} {option}: {said}");
        assert!(said.contains("run::same-file"), "{args:?} {option}: {said}");
        assert_eq!(fs::read_to_string(&path).unwrap(), *file, "{args:?} {option}");
    }
    for (args, option, inputs) in OUTPUTS {
        for input in *inputs {
            let link = format!("link-{input}");
            if !folder.path(&link).is_symlink() {
                symlink(input, folder.path(&link)).unwrap();
            }
            for name in [input, link.as_str()] {
                let before = fs::read(folder.path(input)).unwrap();
                let output = in_folder(&[args, &[*option, name][..]].concat());
                let said = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(2), "{args:?} {option} {name}: {said}");
                assert!(said.contains("run::same-file"), "{args:?} {option} {name}: {said}");
                assert!(fs::read(folder.path(input)).unwrap() == before, "{args:?} {option} {name}");
            }
        }
    }
    let both = |logits: &str, gates: &str| {
        let outs = ["--logits", logits, "--routing-out", gates];
        in_folder(&[&["run", "m.skp"][..], &batch, &outs].concat()).status.code()
    };
    assert_eq!(both("new.npy", "./new.npy"), Some(2));
    assert!(!folder.path("new.npy").exists());
    assert_eq!(both("/dev/null", "/dev/null"), Some(0));
    assert_eq!(both("one.npy", "two.npy"), Some(0));
    fs::copy(folder.path("t.npy"), folder.path("tokens.npy")).unwrap();
    let kept = in_folder(&["verify", "m.skp", "--tokens", "./tokens.npy", "--keep", "."]);
    assert_eq!(kept.status.code(), Some(2));
}

/// Standard output as a file and as a pipe: the artefact alone is in it, and the summary goes to standard error.
#[test]
fn nothing_else_goes_where_an_artefact_goes() {
    let folder = Folder::new();
    let (spec, weights) = (folder.named("spec.toml"), folder.named("w"));
    let base = ["compile", &spec, "--weights", &weights, "--cpu-backend", "cranelift"];
    succeeds(&[&base[..], &["-o", &folder.named("plain.skp")]].concat());
    let wanted = fs::read(folder.path("plain.skp")).unwrap();
    let to_stdout = [&base[..], &["-o", "/proc/self/fd/1"]].concat();
    for args in [to_stdout.clone(), [&to_stdout[..], &["--json"]].concat()] {
        let piped = succeeds(&args);
        assert!(piped.stdout == wanted, "a pipe");
        assert!(String::from_utf8_lossy(&piped.stderr).contains("KiB constants"), "a summary");
        let file = File::create(folder.path("redirected.skp")).unwrap();
        assert!(skipc(&args).stdout(file).stderr(Stdio::null()).status().unwrap().success());
        assert!(fs::read(folder.path("redirected.skp")).unwrap() == wanted, "a file");
    }
}

#[test]
fn messages_that_nobody_reads_stop_nothing() {
    let folder = Folder::new();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let (weights, artifact) = (folder.named("topk.w"), folder.named("topk.skp"));
    succeeds(&["init", "models/mod-topk.toml", "-o", &weights]);
    // It has a warning.
    let compile =
        ["compile", "models/mod-topk.toml", "--weights", &weights, "-o", &artifact, "--emit", "model"];
    let compiled = skipc(&compile).stderr(full()).output().unwrap();
    assert_eq!(compiled.status.code(), Some(0), "{}", String::from_utf8_lossy(&compiled.stdout));
    assert!(folder.path("topk.skp").exists());

    let bad = folder.named("bad.toml");
    fs::write(&bad, "[model]\nname = 3\n").unwrap();
    for args in [&["check", &bad, "--json"][..], &["check", &bad]] {
        assert_eq!(skipc(args).stdout(full()).stderr(full()).status().unwrap().code(), Some(1), "{args:?}");
        assert_eq!(to_nobody(args), Some(1), "{args:?}");
    }
    let (model, tokens) = (folder.named("m.skp"), folder.named("t.npy"));
    let run = ["run", &model, "--tokens", &tokens];
    let list: [&[&str]; 11] = [
        &["ops"],
        &["rules", "--json"],
        &["passes"],
        &["targets"],
        &["doctor"],
        &["explain"],
        &["inspect", &model],
        &["check", "models/mod-topk.toml"],
        &run,
        &["generate", &model, "--tokens", &tokens, "--max-new-tokens", "5"],
        &["run", &model, "--self-test"],
    ];
    for args in list {
        assert_eq!(to_nobody(args), Some(0), "{args:?}");
        // What cannot be written for another reason is an error, and no panic.
        assert_eq!(skipc(args).stdout(full()).stderr(full()).status().unwrap().code(), Some(1), "{args:?}");
    }
}

/// The exit code of a command whose standard output and error have no reader any more.
fn to_nobody(args: &[&str]) -> Option<i32> {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    skipc(args).stdout(writer.try_clone().unwrap()).stderr(writer).status().unwrap().code()
}

/// A router that draws by the number of the sequence decides in a batch that is continued as in one that is scored.
#[test]
fn rows_are_continued_as_what_they_are() {
    let folder = Folder(TempDir::new().unwrap());
    let spec = fs::read_to_string(format!("{GOLDEN}/spec.toml")).unwrap();
    let spec = spec.replace(
        r#"router = "gumbel", density = 0.25, kv = "all""#,
        r#"router = "random", density = 0.5, seed = 7"#,
    );
    fs::write(folder.path("spec.toml"), &spec).unwrap();
    let (model, weights) = (folder.named("m.skp"), folder.named("w"));
    succeeds(&["init", &folder.named("spec.toml"), "-o", &weights]);
    succeeds(&["compile", &folder.named("spec.toml"), "--weights", &weights, "-o", &model]);
    // Equal rows, so that only the router's draws tell them apart, and an empty one.
    let (n_rows, width) = (8usize, 4usize);
    let (tokens, lengths) = (folder.named("t.npy"), folder.named("l.npy"));
    let row: Vec<i32> = (0..width as i32).map(|at| 7 * at + 1).collect();
    skipc_runtime::npy::write(tokens.as_ref(), &[n_rows as u64, width as u64], &row.repeat(n_rows)).unwrap();
    let mut length = vec![width as i32; n_rows];
    length[3] = 0;
    skipc_runtime::npy::write(lengths.as_ref(), &[n_rows as u64], &length).unwrap();
    let batch = [&model, "--tokens", &tokens, "--lengths", &lengths];
    succeeds(&[&["run"], &batch[..], &["--logits", &folder.named("logits.npy")]].concat());
    let logits = fs::read(folder.path("logits.npy")).unwrap();
    let vocab = 61;
    let logits = &logits[logits.len() - n_rows * width * vocab * 4..];
    let likeliest = |row: usize| {
        let at = (row * width + width - 1) * vocab * 4;
        let numbers = logits[at..at + vocab * 4].as_chunks().0.iter().map(|word| f32::from_le_bytes(*word));
        let best = numbers.enumerate().max_by(|(_, one), (_, other)| one.total_cmp(other));
        best.unwrap().0.to_string()
    };
    let continued = succeeds(&[&["generate"], &batch[..], &["--max-new-tokens", "3"]].concat());
    let said = String::from_utf8(continued.stdout).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    let wanted: Vec<String> = (0..n_rows).map(likeliest).collect();
    for (row, line) in lines.iter().take(n_rows).enumerate() {
        match row {
            3 => assert_eq!(*line, "", "{said}"),
            _ => assert_eq!(line.split(' ').next(), Some(wanted[row].as_str()), "row {row}: {said}"),
        }
    }
    assert!(wanted.iter().any(|token| *token != wanted[0]), "the draws should tell rows apart: {wanted:?}");
}

/// Every argument that names a file, as a pipe that nobody writes to, as a device without an end, and as a folder: refused at
/// once, before anything is read.
#[test]
fn what_is_no_file_is_not_waited_for() {
    let folder = Folder::new();
    let fifo = folder.named("pipe");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    fs::create_dir(folder.path("folder")).unwrap();
    let cases: &[&[&str]] = &[
        &["check", "?"],
        &["init", "?", "-o", "out"],
        &["compile", "?", "--weights", "w", "-o", "out"],
        &["compile", "spec.toml", "--weights", "?", "-o", "out"],
        &["compile", "spec.toml", "--weights", "w", "--tuning", "?", "-o", "out"],
        &["inspect", "?"],
        &["inspect", "?", "--html", "out"],
        &["inspect", "m.skp", "--html", "out", "--tuning", "?"],
        &["inspect", "?", "--cost"],
        &["inspect", "m.skp", "--tokens", "?"],
        &["diff", "?", "m.skp"],
        &["diff", "g.sir", "?"],
        &["opt", "?"],
        &["verify", "?", "--weights", "w"],
        &["verify", "m.skp", "--weights", "?"],
        &["verify", "m.skp", "--weights", "w", "--tokens", "?"],
        &["run", "?", "--tokens", "t.npy"],
        &["run", "m.skp", "--tokens", "?"],
        &["run", "m.skp", "--tokens", "t.npy", "--lengths", "?"],
        &["run", "m.skp", "--tokens", "t.npy", "--routing", "?"],
        &["run", "m.skp", "--tokens", "t.npy", "--experts", "?"],
        &["generate", "?", "--tokens", "t.npy"],
        &["generate", "m.skp", "--tokens", "?"],
        &["generate", "m.skp", "--prompt-file", "?"],
        &["eval", "?", "--tokens", "t.npy"],
        &["eval", "m.skp", "--tokens", "?"],
        &["eval", "m.skp", "--text", "?"],
        &["serve", "?", "--port", "0"],
        &["serve", "m.skp", "--port", "0", "--api-keys", "?"],
        &["bench", "?", "--rounds", "1"],
        &["bench", "spec.toml", "--weights", "?", "--rounds", "1"],
        &["tune", "?", "-o", "out"],
        &["profile", "?"],
        &["trace", "record", "?", "--tokens", "t.npy", "-o", "out"],
        &["trace", "record", "m.skp", "--tokens", "?", "-o", "out"],
        &["trace", "generate", "?", "--lengths", "3", "--density", "1", "-o", "out"],
        &["trace", "show", "?"],
        &["trace", "show", "x.trace", "--html", "out", "--tokens", "?"],
        &["trace", "show", "x.trace", "--html", "out", "--model", "?"],
    ];
    for args in cases {
        for what in [fifo.as_str(), "/dev/zero", "folder"] {
            let given: Vec<&str> = args.iter().map(|arg| if *arg == "?" { what } else { arg }).collect();
            let begun = Instant::now();
            let mut child = skipc(&given)
                .current_dir(folder.0.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let status = loop {
                match child.try_wait().unwrap() {
                    Some(status) => break status,
                    None if begun.elapsed() > PATIENCE => {
                        child.kill().unwrap();
                        panic!("skipc {given:?} waits");
                    }
                    None => std::thread::sleep(Duration::from_millis(5)),
                }
            };
            assert!(matches!(status.code(), Some(1 | 2)), "skipc {given:?}: {status}");
        }
    }
}

/// A command without memory says so, in JSON if it was asked for, and is not aborted.
#[test]
fn memory_that_there_is_not_is_an_error() {
    let folder = Folder::new();
    // An embedding of 16 GB.
    let spec = "[model]\nname = \"large\"\nvocab_size = 1048576\nd_model = 4096\nmax_positions = 64\nnorm = \"rmsnorm\"\npositions = \"none\"\ntie_embeddings = true\n\n[[stack]]\nblocks = [\"a\"]\n\n[block.a]\nlayers = [{ kind = \"ffn\", d_ff = 64, activation = \"relu\" }]\n";
    fs::write(folder.path("large.toml"), spec).unwrap();
    let limited = |args: &str| {
        let command = format!("ulimit -v 4000000; exec {} {args}", env!("CARGO_BIN_EXE_skipc"));
        let output = Command::new("sh").args(["-c", &command]).current_dir(folder.0.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args}: {}", String::from_utf8_lossy(&output.stderr));
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (_, said) = limited("init large.toml -o out");
    assert!(said.starts_with("memory::exhausted"), "{said}");
    let (json, _) = limited("init large.toml -o out --json");
    let found: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(found["errors"][0]["code"], "memory::exhausted");
}

/// Killed at any moment, a command leaves the old file or the new one, and nothing else after the next that ends.
#[test]
fn what_a_killed_command_leaves_is_gone_after_the_next() {
    let folder = Folder::new();
    let (spec, out) = (folder.named("spec.toml"), folder.named("made/w"));
    fs::create_dir(folder.path("made")).unwrap();
    let init = ["init", &spec, "-o", &out];
    succeeds(&init);
    let wanted = fs::read(&out).unwrap();
    let mut killed = 0;
    for moment in 0..40 {
        let mut child = skipc(&init).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(500 * moment));
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        assert!(fs::read(&out).unwrap() == wanted, "after {moment}");
    }
    assert!(killed > 0, "each was faster");
    succeeds(&init);
    let names: Vec<_> =
        fs::read_dir(folder.path("made")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["w"]);
}
