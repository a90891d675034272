//! Batches of more tokens than a step takes: cut between sequences by whatever runs them, with the results of one step.
#![cfg(feature = "cranelift")]

use std::path::Path;
use std::process::{Command, Output};

use skipc_runtime::npy;
use tempfile::TempDir;

const SPEC: &str = r#"
[model]
name = "cut"
vocab_size = 32
d_model = 16
max_positions = 32
norm = "rmsnorm"
norm_eps = 1e-5
positions = "learned"
tie_embeddings = true

[block.a]
skip = { ROUTER, density = 0.5 }
layers = [
  { kind = "attention", heads = 2, kv_heads = 2, head_dim = 8 },
  { kind = "ffn", d_ff = 24, activation = "gelu" },
]

[[stack]]
blocks = ["a", "a"]
"#;

/// Of these, one draws by the number of the sequence in its batch.
const ROUTERS: [&str; 3] = [r#"router = "gumbel""#, r#"router = "random", seed = 5"#, r#"router = "topk""#];

const WHOLE_BATCH: &str = r#"router = "topk", scope = "batch""#;

/// Lengths of sequences, some of them empty; together 139 tokens, of which a step takes 32.
const LENGTHS: [i32; 12] = [7, 0, 32, 1, 12, 20, 11, 0, 8, 25, 3, 20];

struct Folder(TempDir);

impl Folder {
    /// The model with this router, compiled for steps of many and of few tokens, and a batch for it.
    fn new(router: &str) -> Folder {
        let folder = Folder(TempDir::new().unwrap());
        std::fs::write(folder.0.path().join("spec.toml"), SPEC.replace("ROUTER", router)).unwrap();
        folder.says("init spec.toml -o w");
        for (name, tokens) in [("wide", 1024), ("narrow", 32)] {
            let compile = "compile spec.toml --weights w --cpu-backend cranelift";
            folder.says(&format!("{compile} --max-tokens {tokens} -o {name}.skp"));
        }
        let tokens: Vec<i32> = (0..12 * 32).map(|idx| idx * 11 % 31).collect();
        folder.array("t.npy", &[12, 32], &tokens);
        folder.array("l.npy", &[12], &LENGTHS);
        folder
    }

    fn array(&self, name: &str, shape: &[u64], data: &[i32]) {
        npy::write(&self.0.path().join(name), shape, data).unwrap();
    }

    fn run(&self, args: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skipc"));
        command.args(args.split(' ')).current_dir(self.0.path()).env("NO_COLOR", "1").output().unwrap()
    }

    #[track_caller]
    fn says(&self, args: &str) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn fails(&self, args: &str, code: &str) -> String {
        let output = self.run(args);
        let said = String::from_utf8_lossy(&output.stderr).replace("\n  │ ", " ");
        assert!(output.status.code() == Some(1) && said.contains(code), "{args}: {said}");
        said
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        npy::read_floats(Path::new(&self.0.path().join(name)), &[3]).unwrap().data
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.path().join(name)).unwrap()
    }
}

/// Same decisions, and logits that are the same up to the order of sums, which the number of rows may change.
#[test]
fn steps_of_whole_sequences_give_what_one_step_gives() {
    for router in ROUTERS {
        let folder = Folder::new(router);
        for name in ["wide", "narrow"] {
            let run = format!("run {name}.skp --tokens t.npy --lengths l.npy --checked");
            let said = folder.says(&format!("{run} --logits {name}.l --routing-out {name}.npy"));
            assert!(said.starts_with("139 tokens in 12 sequences"), "{router}: {said}");
        }
        assert!(folder.bytes("wide.npy") == folder.bytes("narrow.npy"), "{router}: decisions");
        let [wide, narrow] = ["wide.l", "narrow.l"].map(|name| folder.floats(name));
        let far = wide.iter().zip(&narrow).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(wide.len() == narrow.len() && far < 1e-5, "{router}: {far}");
        folder.says("trace record narrow.skp --tokens t.npy --lengths l.npy -o r.trace");
        folder.says("run narrow.skp --tokens t.npy --lengths l.npy --routing r.trace --logits again.l");
        assert!(folder.bytes("again.l") == folder.bytes("narrow.l"), "{router}: decisions replayed");
        let timed = folder.says("run narrow.skp --tokens t.npy --lengths l.npy --timing");
        assert!(timed.contains("ms for 7 steps"), "{timed}");
    }
}

/// All forms see the batch cut, those in steps too, under forced decisions and free ones.
#[test]
fn forms_are_compared_on_batches_of_several_steps() {
    for router in &ROUTERS[..2] {
        let folder = Folder::new(router);
        let said = folder.says("verify narrow.skp --tokens t.npy --lengths l.npy --weights w");
        assert!(said.contains("16 a step") && !said.contains("WRONG"), "{said}");
    }
}

#[test]
fn what_cannot_be_cut_is_refused() {
    let folder = Folder::new(ROUTERS[0]);
    folder.says("compile spec.toml --weights w --cpu-backend cranelift --max-tokens 16 -o short.skp");
    folder.says("trace generate wide.skp --lengths 20,20 --density 0.5 -o x.trace");
    for command in [
        "run short.skp --tokens t.npy --lengths l.npy",
        "verify short.skp --tokens t.npy --lengths l.npy --weights w",
        "trace record short.skp --tokens t.npy --lengths l.npy -o x.trace",
        "trace generate short.skp --lengths 7,0,32 --density 0.5 -o x.trace",
    ] {
        let said = folder.fails(command, "run::long-sequence");
        assert!(
            said.contains("sequence 2 has 32 tokens, a step takes 16") && said.contains("--max-tokens"),
            "{said}"
        );
    }
    let folder = Folder::new(WHOLE_BATCH);
    folder.says("run wide.skp --tokens t.npy --lengths l.npy");
    for command in [
        "run narrow.skp --tokens t.npy --lengths l.npy",
        "verify narrow.skp --tokens t.npy --lengths l.npy --weights w",
        "trace record narrow.skp --tokens t.npy --lengths l.npy -o x.trace",
        "trace generate narrow.skp --lengths 20,20 --density 0.5 -o x.trace",
    ] {
        let said = folder.fails(command, "run::whole-batch");
        assert!(said.contains("tokens of all sequences") && said.contains("--max-tokens"), "{said}");
    }
}
