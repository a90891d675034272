//! What commands answer: with `--json` one JSON value whatever happens, no option that is ignored, whole words.
#![cfg(feature = "cranelift")]

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

/// A model of bytes with 16 positions: one router that decides, one that does not.
const SPEC: &str = r#"[model]
name = "small"
vocab_size = 256
d_model = 16
max_positions = 16
norm = "rmsnorm"
positions = "none"
tie_embeddings = true

[[stack]]
blocks = ["free", "always"]

[block.free]
skip = { router = "gumbel", density = 0.5, kv = "all" }
layers = [{ kind = "attention", heads = 2, head_dim = 8 }]

[block.always]
layers = [{ kind = "ffn", d_ff = 16, activation = "relu" }]
"#;

/// A folder whose name is no UTF-8, with everything that commands read.
struct Folder(TempDir);

impl Folder {
    fn shared() -> &'static Folder {
        static MADE: OnceLock<Folder> = OnceLock::new();
        MADE.get_or_init(|| {
            let folder = Folder(TempDir::new().unwrap());
            fs::create_dir(folder.path("")).unwrap();
            fs::write(folder.path("spec.toml"), SPEC).unwrap();
            fs::write(folder.path("bad.toml"), "[model]\nname = 3\n").unwrap();
            fs::write(folder.path("text"), "In the beginning God").unwrap();
            array(&folder.path("t.npy"), &[2, 3], &[1u8, 2, 3, 4, 5, 6]);
            array(&folder.path("one.npy"), &[1], &[7u8]);
            for args in [
                "init spec.toml -o w",
                "compile spec.toml --weights w --cpu-backend cranelift -o m.skp",
                "trace record m.skp --tokens t.npy -o x.trace",
            ] {
                let output = folder.run(args);
                assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
            }
            let graph = folder.run("inspect m.skp --section ir/score/legal.sir");
            fs::write(folder.path("g.sir"), graph.stdout).unwrap();
            folder
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(std::ffi::OsStr::from_bytes(b"d\xff")).join(name)
    }

    fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skipc"));
        command.args(args.split(' ')).current_dir(self.path("")).env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }

    fn run(&self, args: &str) -> Output {
        self.command(args).output().unwrap()
    }

    /// What a command says that ends well.
    #[track_caller]
    fn says(&self, args: &str) -> String {
        let output = self.run(args);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert!(output.status.success(), "{args}: {said}");
        said
    }
}

fn array<T: npyz::AutoSerialize + Copy>(path: &Path, shape: &[u64], data: &[T]) {
    skipc_runtime::npy::write(path, shape, data).unwrap();
}

/// Commands with how they end, in a folder that JSON cannot name.
#[test]
fn every_answer_in_json_is_one_value() {
    const ALL: &[(&str, i32)] = &[
        ("check spec.toml", 0),
        ("check bad.toml", 1),
        ("check nothere", 1),
        ("init spec.toml -o w2", 0),
        ("compile spec.toml --weights w --cpu-backend cranelift -o m2.skp --timing", 0),
        ("compile spec.toml --weights w --cpu-backend cranelift -o m2.skp --emit plan", 0),
        ("compile spec.toml --weights w --cpu-backend cranelift --emit clif", 0),
        ("compile spec.toml --weights w --emit nonsense", 2),
        ("compile spec.toml --weights nothere --emit model", 1),
        ("run m.skp --tokens t.npy --logits l.npy --routing-out r.trace", 0),
        ("run m.skp --tokens t.npy --timing --checked", 0),
        ("run m.skp --tokens t.npy --max-new-tokens 2", 2),
        ("run m.skp --self-test", 0),
        ("run m.skp", 2),
        ("run m.skp --tokens nothere", 1),
        ("run nothere --tokens t.npy", 1),
        ("generate m.skp --tokens t.npy --max-new-tokens 2", 0),
        ("generate m.skp --prompt abc --max-new-tokens 2 --beams 2", 0),
        ("generate m.skp --tokens nothere", 1),
        ("eval m.skp --text text", 0),
        ("eval m.skp --tokens one.npy", 1),
        ("inspect m.skp", 0),
        ("inspect m.skp --section", 0),
        ("inspect m.skp --section spec.toml", 0),
        ("inspect m.skp --section cpu/constants", 0),
        ("inspect m.skp --section nonsense", 1),
        ("inspect m.skp --rewrites", 0),
        ("inspect m.skp --cost", 0),
        ("inspect m.skp --dot plan", 0),
        ("inspect m.skp --dot nonsense", 2),
        ("inspect m.skp --html html", 0),
        ("inspect m.skp --tokens t.npy", 0),
        ("inspect m.skp --assert kernels<1", 4),
        ("inspect m.skp --assert nonsense<1", 2),
        ("diff m.skp spec.toml", 0),
        ("diff m.skp nothere", 1),
        ("opt g.sir", 0),
        ("opt g.sir -o g2.sir", 0),
        ("opt g.sir --print-each --report", 0),
        ("opt g.sir --explain all", 0),
        ("opt spec.toml", 1),
        ("trace show x.trace --html traced --tokens t.npy", 0),
        ("trace generate m.skp --lengths 3 --density 1 -o y.trace", 0),
        ("trace show spec.toml", 1),
        ("explain spec", 0),
        ("explain nonsense", 2),
        ("completions bash", 0),
        ("man pages", 0),
        ("serve nothere --port 0", 1),
        ("serve m.skp --port 70000", 2),
        ("train spec.toml --config nothere -o run", 1),
        ("nonsense", 2),
        ("verify m.skp --threads 0", 1),
    ];
    let folder = Folder::shared();
    let mut wrong = Vec::new();
    for (args, exit) in ALL {
        let output = folder.run(&format!("--json {args}"));
        if output.status.code() != Some(*exit) || serde_json::from_slice::<Value>(&output.stdout).is_err() {
            let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
            wrong.push(format!("{args}: {}, {out:.300} {err:.300}", output.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What failed in a self-test is told in JSON as well, and nothing else.
#[test]
fn a_self_test_that_fails_says_so_once() {
    let folder = Folder::shared();
    // Known answers of other weights, under the hash that they have then.
    let (path, broken) = (folder.path("m.skp"), folder.path("broken.skp"));
    let artifact = skipc_artifact::reader::Artifact::parse(fs::read(path).unwrap()).unwrap();
    let mut writer = skipc_artifact::writer::Writer::new(artifact.manifest().clone());
    for entry in artifact.sections() {
        let mut bytes = artifact.section(&entry.name, entry.kind).unwrap().to_vec();
        if entry.kind == skipc_artifact::section::SectionKind::Constants {
            bytes.iter_mut().skip(3).step_by(4).for_each(|byte| *byte ^= 1);
        }
        writer.section(entry.name.clone(), entry.kind, bytes).unwrap();
    }
    fs::write(&broken, writer.to_bytes().unwrap()).unwrap();
    let output = folder.run("run broken.skp --self-test --json");
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).expect("one value");
    assert!(answer.to_string().contains("run::self-test"), "{answer}");
}

/// Options that would do nothing beside others are refused where they are read.
#[test]
fn no_option_is_ignored() {
    const REFUSED: [&str; 18] = [
        "generate m.skp --prompt a --lengths nothere",
        "generate m.skp --prompt-file text --lengths nothere",
        "run m.skp --prompt a --lengths nothere",
        "eval m.skp --text text --lengths nothere",
        "verify m.skp --lengths nothere",
        "verify m.skp --routing nothere",
        "inspect m.skp --cost --tokens nothere",
        "inspect m.skp --cost --rewrites",
        "inspect m.skp --cost --buffers",
        "inspect m.skp --cost --section",
        "inspect m.skp --section --buffers",
        "inspect m.skp --section --rewrites",
        "inspect m.skp --section --tokens nothere",
        "inspect m.skp --rewrites --buffers",
        "inspect m.skp --rewrites --tokens nothere",
        "inspect m.skp --html h --tokens nothere",
        "trace show x.trace --model nothere",
        "init spec.toml -o w3 --skip nothere",
    ];
    let folder = Folder::shared();
    let taken = REFUSED.iter().filter(|args| folder.run(args).status.code() != Some(2));
    assert_eq!(taken.collect::<Vec<_>>(), [&""; 0]);
}

#[test]
fn counts_are_words() {
    let folder = Folder::shared();
    let one = folder.says("run m.skp --tokens one.npy");
    assert!(one.starts_with("1 token in 1 sequence on cpu"), "{one}");
    assert!(one.contains(" of 1 token (gumbel"), "{one}");
    let six = folder.says("run m.skp --tokens t.npy");
    assert!(six.starts_with("6 tokens in 2 sequences on cpu"), "{six}");
    let generated = folder.says("generate m.skp --tokens one.npy --max-new-tokens 1");
    assert!(generated.contains("prompt: 1 token, "), "{generated}");
    assert!(generated.contains("continuation: 1 token;"), "nothing was timed: {generated}");
    let generated = folder.says("generate m.skp --prompt ab --max-new-tokens 1");
    assert!(generated.contains("prompt: 2 tokens, "), "{generated}");
    assert!(!generated.contains("touched"), "no step was metered: {generated}");
    let page = folder.says("trace show x.trace --html words --tokens t.npy");
    assert!(page.contains("6 tokens in 2 sequences"), "{page}");
    let page = fs::read_to_string(folder.path("words/index.html")).unwrap();
    assert!(page.contains("6 tokens in 2 sequences, 1 router; "), "{page}");
}

/// What is said of a file that cannot be written, and that generation has come to its end.
#[test]
fn reasons_name_what_is_missing() {
    let folder = Folder::shared();
    for args in [
        "compile spec.toml --weights w --cpu-backend cranelift -o nodir/m.skp",
        "init spec.toml -o nodir/w",
        "run m.skp --tokens t.npy --logits nodir/l.npy",
        "run m.skp --tokens t.npy --routing-out nodir/r.trace",
        "trace generate m.skp --lengths 3 --density 1 -o nodir/x",
        "opt g.sir -o nodir/g.sir",
    ] {
        let output = folder.run(args);
        let said = String::from_utf8_lossy(&output.stderr).replace("\n  │ ", " ");
        assert_eq!(output.status.code(), Some(1), "{args}: {said}");
        assert!(said.contains("there is no folder nodir"), "{args}: {said}");
        assert_eq!(said.matches("nodir/").count(), 1, "{args}: {said}");
    }
    let said = folder.says("generate m.skp --prompt abcdefghijklmn --max-new-tokens 9");
    assert!(said.contains("it ends at the model's last position"), "{said}");
    let clif = folder.run("compile spec.toml --weights w --cpu-backend cranelift --emit ptx");
    let said = String::from_utf8_lossy(&clif.stderr);
    assert!(said.contains("unknown stage `ptx`") && said.contains("cuda:sm_90a"), "{said}");
    fs::write(folder.path("index.json"), r#"{"metadata":{},"weight_map":{"a":"b.safetensors"}}"#).unwrap();
    let index = folder.run("compile spec.toml --weights index.json --emit model");
    let said = String::from_utf8_lossy(&index.stderr);
    assert!(said.contains("b.safetensors") && !said.contains("bytes"), "{said}");
}

/// Sizes that no kernel can be made for are the caller's fault, not ours.
#[test]
fn sizes_that_are_too_large_are_refused_as_arguments() {
    let folder = Folder::shared();
    for n in ["0", "300000000", "1073741825", "4294967295"] {
        let args =
            format!("compile spec.toml --weights w --cpu-backend cranelift -o large.skp --max-tokens {n}");
        let output = folder.run(&args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{n}: {said}");
        assert!(said.contains("max") && !folder.path("large.skp").exists(), "{n}: {said}");
    }
    fs::write(folder.path("empty.toml"), SPEC.replace("vocab_size = 256", "vocab_size = 0")).unwrap();
    for command in ["check empty.toml", "init empty.toml -o v", "bench empty.toml --rounds 1"] {
        let output = folder.run(command);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command}: {said}");
        assert!(said.contains("spec::out_of_range"), "{command}: {said}");
    }
}

/// Of an artefact only what is shown is read: its constants may be gigabytes. Here they are damaged.
#[test]
fn what_is_not_shown_is_not_read() {
    let folder = Folder::shared();
    let mut file = fs::read(folder.path("m.skp")).unwrap();
    let artifact = skipc_artifact::reader::Artifact::parse(file.clone()).unwrap();
    let constants = artifact.sections().iter().find(|entry| entry.name == "cpu/constants").unwrap();
    file[constants.offset as usize + 3] ^= 1;
    fs::write(folder.path("damaged.skp"), file).unwrap();
    for args in [
        "inspect damaged.skp",
        "inspect damaged.skp --cost",
        "inspect damaged.skp --rewrites",
        "inspect damaged.skp --dot plan",
        "inspect damaged.skp --html damaged",
        "inspect damaged.skp --section cpu/constants",
        "diff damaged.skp m.skp",
        "trace generate damaged.skp --lengths 3 --density 1 -o z.trace",
        "trace show x.trace --html whose --model damaged.skp",
    ] {
        folder.says(args);
    }
    for args in ["run damaged.skp --tokens t.npy", "inspect damaged.skp --tokens t.npy"] {
        let output = folder.run(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains("artifact::hash"), "{args}: {said}");
    }
}

/// Token ids that have no room in a step are refused by the header of their file: 3 GB of them, of which the file has none.
#[test]
fn too_many_tokens_take_no_memory() {
    let folder = Folder::shared();
    let sparse = |name: &str, shape: &str, bytes: u64, dtype: &str| {
        let header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        let begin = [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes()].concat();
        fs::write(folder.path(name), &begin).unwrap();
        let file = fs::File::options().write(true).open(folder.path(name)).unwrap();
        file.set_len(begin.len() as u64 + bytes).unwrap();
    };
    let n: u64 = 3 << 30;
    sparse("many.npy", &format!("({n},)"), n, "|u1");
    sparse("rows.npy", &format!("({}, 16)", n / 16), n, "|u1");
    sparse("lengths.npy", &format!("({n},)"), n, "|u1");
    sparse("gates.npy", &format!("(1, 2, {})", n / 2), n, "|u1");
    sparse("floats.npy", &format!("({}, 4)", n / 16), n, "<f4");
    for (args, code) in [
        ("run m.skp --tokens many.npy", "run::sequence-too-long"),
        ("run m.skp --tokens rows.npy", "npy::shape"),
        ("run m.skp --tokens t.npy --lengths lengths.npy", "npy::shape"),
        ("run m.skp --tokens t.npy --routing gates.npy", "npy::shape"),
        ("run m.skp --rows floats.npy", "run::input"),
        ("generate m.skp --tokens many.npy", "run::sequence-too-long"),
        ("verify m.skp --tokens many.npy", "run::sequence-too-long"),
        ("inspect m.skp --tokens many.npy", "run::sequence-too-long"),
        ("eval m.skp --tokens many.npy", "npy::shape"),
        ("trace record m.skp --tokens many.npy -o none", "run::sequence-too-long"),
        ("trace show x.trace --html many --tokens many.npy", "npy::shape"),
    ] {
        let limited = format!("ulimit -v 2500000; exec {} {args}", env!("CARGO_BIN_EXE_skipc"));
        let output = Command::new("sh")
            .args(["-c", &limited])
            .current_dir(folder.path(""))
            .env("NO_COLOR", "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args}: {said}");
        assert!(said.contains(code), "{args} should say {code}: {said}");
    }
}

/// On a terminal commands that take long show where they are.
#[test]
fn long_commands_show_progress_on_a_terminal() {
    let folder = Folder::shared();
    let program = env!("CARGO_BIN_EXE_skipc");
    for (args, word) in [
        ("compile spec.toml --weights w --cpu-backend cranelift -o p.skp", "passes"),
        ("verify m.skp", "compared; "),
    ] {
        // A terminal of its own, of which `script` copies what is shown.
        let output = Command::new("script")
            .args(["-qec", &format!("{program} {args}"), "/dev/null"])
            .current_dir(folder.path(""))
            .env("TERM", "xterm")
            .stdin(Stdio::null())
            .output()
            .expect("script(1), of Debian's bsdutils");
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && shown.contains(word), "{args}: {shown}");
    }
}
