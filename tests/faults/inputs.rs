//! What commands read here: small models, made once, and a project to train.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use skipc_artifact::bundle;
use skipc_artifact::image::HostTable;
use skipc_artifact::program::SCORE;
use skipc_artifact::reader::Artifact;
use skipc_artifact::target::Target;
use skipc_testkit::tamper;
use tempfile::TempDir;

/// A model with experts, whose choices can be written.
const EXPERTS: &str = r#"[model]
name = "experts"
vocab_size = 61
d_model = 16
max_positions = 64
norm = "rmsnorm"
positions = "rope"
tie_embeddings = true

[[stack]]
blocks = ["a"]

[block.a]
skip = { router = "gumbel", density = 0.5, kv = "all" }
layers = [
  { kind = "attention", heads = 2, head_dim = 8 },
  { kind = "experts", experts = 4, top_k = 2, d_ff = 16, activation = "relu" },
]
"#;

/// The folder of all inputs.
pub(crate) fn folder() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            let folder = TempDir::new().unwrap();
            make(folder.path());
            folder
        })
        .path()
}

/// The path of an input.
pub(crate) fn input(name: &str) -> PathBuf {
    folder().join(name)
}

/// `skipc`, with nothing of its environment that would change what it says.
pub(crate) fn skipc(args: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skipc"));
    command.args(args).env("NO_COLOR", "1");
    command
}

fn make(folder: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for (from, to) in [
        ("golden/gumbel/spec.toml", "spec.toml"),
        ("golden/gumbel/weights.safetensors", "w"),
        ("golden/gumbel/tokens.npy", "t.npy"),
        ("training/text/spec.toml", "learns.toml"),
        ("training/text/text.txt", "text.txt"),
    ] {
        fs::copy(root.join(from), folder.join(to)).unwrap();
    }
    fs::write(folder.join("experts.toml"), EXPERTS).unwrap();
    let training = fs::read_to_string(root.join("training/text/train.toml")).unwrap();
    let short = training.replacen("steps = 6", "steps = 2", 1).replacen("batch = 5", "batch = 2", 1);
    assert_ne!(short, training);
    fs::write(folder.join("train.toml"), short).unwrap();
    let run = |args: &str| {
        let args: Vec<String> = args.split(' ').map(str::to_owned).collect();
        let output = skipc(&args).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let how = "--cpu-backend cranelift --cpu-levels native --max-tokens 128";
    run("init spec.toml -o w2 --seed 1");
    run("init experts.toml -o we");
    run(&format!("compile spec.toml --weights w {how} -o m.skp"));
    run(&format!("compile experts.toml --weights we {how} -o e.skp"));
    let graph = run(&format!("compile spec.toml --weights w {how} --no-steps --emit graph"));
    fs::write(folder.join("g.sir"), graph).unwrap();
    run("trace record m.skp --tokens t.npy -o x.trace");
    run("sign --new-key key.pem");
    silence_the_head(folder);
}

/// The artefact with its last kernel replaced by one that returns at once, so that it is wrong: `silenced.skp`.
fn silence_the_head(folder: &Path) {
    let file = fs::read(folder.join("m.skp")).unwrap();
    let artifact = Artifact::parse(&file).unwrap();
    let program = bundle::read_program(&artifact, &Target::Cpu).unwrap();
    let last = program.functions[SCORE].steps.last().unwrap().kernel;
    let symbol = &program.entries[last as usize].symbol;
    let table = artifact.sections().iter().find(|entry| entry.name == "cpu/baseline.json").unwrap();
    let table: HostTable =
        serde_json::from_slice(artifact.section(&table.name, table.kind).unwrap()).unwrap();
    let offset = table.entries.iter().find(|entry| entry.name == *symbol).unwrap().offset as usize;
    let silenced = tamper::with_sections(&file, |name, code| {
        const RET: u8 = 0xc3;
        let mut code = code.to_vec();
        (name == "cpu/baseline.code").then(|| {
            code[offset] = RET;
            code
        })
    });
    fs::write(folder.join("silenced.skp"), silenced).unwrap();
}
