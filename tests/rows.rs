//! Models from rows to rows: a layer alone, or a part of a model, without embedding and head.
#![cfg(feature = "cranelift")]

use std::path::Path;
use std::process::{Command, Output};

use skipc::driver::backends::CpuBackend;
use skipc::driver::pipeline::Request;
use skipc::frontend::lower::{Function, Skipping, lower};
use skipc::frontend::spec;
use skipc::frontend::spec::model::Model;
use skipc::frontend::weights::Weights;
use skipc::verify::reference;
use skipc_artifact::target::{DType, Target};
use skipc_ir::interp::FlatBatch;
use skipc_runtime::distance::{Bound, Distance};
use skipc_runtime::{Batch, Device, Options, Session};
use tempfile::TempDir;

/// Columns of the stream.
const D: usize = 32;

/// Token ids of the model that has some.
const IDS: usize = 16;

/// Tokens: two sequences and a tail behind tiles of 32.
const LENGTHS: [u32; 2] = [37, 4];

const BLOCKS: &str = r#"
[block.sparse]
skip = { router = "sigmoid", density = 0.5 }
layers = [
  { kind = "attention", heads = 4, kv_heads = 2 },
  { kind = "ffn", d_ff = 48, activation = "swiglu" },
]

[block.layers]
layers = [{ kind = "ffn", d_ff = 40, activation = "gelu", skip = { router = "gumbel", density = 0.25 } }]

[[stack]]
blocks = ["sparse", "layers"]
"#;

fn spec_of(model: &str) -> String {
    format!("[model]\nname = \"part\"\nd_model = {D}\nmax_positions = 64\n{model}{BLOCKS}")
}

fn model(text: &str) -> Model {
    spec::model("spec.toml", text).expect("a model")
}

fn session(model: &Model, weights: &Weights, (cpu_backend, dtype): (CpuBackend, DType)) -> Session {
    let targets = vec![(Target::Cpu, dtype)];
    let request = Request { targets, cpu_backend, ..Request::here() };
    let artifact = skipc::compile(model, weights, &request).expect("it compiles");
    let artifact = skipc_runtime::Model::from_bytes(&artifact).expect("an artefact");
    Session::new(&artifact, Device::Cpu, Options { checked: true, ..Options::default() }).expect("a session")
}

/// The rows of the embedding of these ids.
fn embedded(weights: &Weights, ids: &[u32]) -> Vec<f32> {
    let table = weights.tensor("embed.weight").expect("it has one").to_f32();
    ids.iter().flat_map(|id| &table[*id as usize * D..][..D]).copied().collect()
}

/// What a model makes of token ids, and its blocks alone of the rows that those embed to, are the same, whoever executes.
#[test]
fn blocks_alone_compute_what_they_do_in_a_model() {
    let whole = model(&spec_of(&format!("vocab_size = {IDS}\nhead = \"rows\"\nfinal_norm = false\n")));
    let part = model(&spec_of("input = \"rows\"\nfinal_norm = false\n"));
    let of_whole = Weights::drawn(&whole, 5).expect("weights");
    let names = spec::tensors::tensors(&part).into_iter();
    let of_part = Weights::from_tensors(
        names.map(|tensor| {
            let values = of_whole.tensor(&tensor.name).expect("the whole has it").to_f32();
            (tensor.name, tensor.shape, values)
        }),
        &part,
    )
    .expect("weights");
    let n: u32 = LENGTHS.iter().sum();
    let ids: Vec<u32> = (0..n).map(|idx| (idx * 7 + idx / 5) % IDS as u32).collect();
    let rows = embedded(&of_whole, &ids);
    let batch = FlatBatch::of_rows(embedded(&of_whole, &ids), LENGTHS.map(|length| length as usize));
    let with_ids = FlatBatch {
        tokens: ids.iter().map(|id| i64::from(*id)).collect(),
        rows: Vec::new(),
        ..batch.clone()
    };
    let interpreted = |model: &Model, weights: &Weights, batch: &FlatBatch| {
        let graph = lower(model, Skipping::Gathered, Function::Score).expect("a graph");
        reference::run::<f64>(&graph, weights, batch, None).expect("it runs")
    };
    assert_eq!(interpreted(&part, &of_part, &batch), interpreted(&whole, &of_whole, &with_ids));
    let forms = [(CpuBackend::Cranelift, DType::F32)];
    #[cfg(feature = "llvm")]
    let forms = [forms[0], (CpuBackend::Llvm, DType::F32), (CpuBackend::Llvm, DType::Bf16)];
    for form in forms {
        let mut whole = session(&whole, &of_whole, form);
        let mut part = session(&part, &of_part, form);
        let executes = |count: u32| {
            vec![(0..n).map(|row| u8::from(row * count / n.max(1) != (row + 1) * count / n)).collect(); 2]
        };
        let forced = [0, 1, n / 2, n - 1, n].map(|count| Some(executes(count)));
        for routing in forced.into_iter().chain([None]) {
            let with_ids =
                Batch { tokens: ids.clone(), lengths: LENGTHS.to_vec(), routing, ..Batch::default() };
            let with_rows = Batch { tokens: Vec::new(), rows: rows.clone(), ..with_ids.clone() };
            let (wanted, got) = (whole.run(&with_ids).expect("a run"), part.run(&with_rows).expect("a run"));
            assert_eq!(got.logits.len(), n as usize * D);
            assert_eq!(got.gates, wanted.gates, "{form:?}");
            // What is fused with the embedding is summed in another order.
            let distance = Distance::between(&got.logits, &wanted.logits);
            assert!(distance.is_within(Bound::of(form.1)), "{form:?}: {}", distance.max_error());
        }
    }
}

/// Rows of skipped tokens come out as they went in.
#[test]
fn what_skips_everything_gives_its_rows_back() {
    let text = "[model]\nname = \"layer\"\nd_model = 32\nmax_positions = 64\ninput = \"rows\"\nfinal_norm = false\n\
                [block.a]\nskip = { router = \"sigmoid\", density = 0.5 }\nlayers = [{ kind = \"ffn\", d_ff = 48 }]\n\
                [[stack]]\nblocks = [\"a\"]\n";
    let model = model(text);
    let weights = Weights::drawn(&model, 1).expect("weights");
    let mut session = session(&model, &weights, (CpuBackend::Cranelift, DType::F32));
    let rows: Vec<f32> = (0..3 * D).map(|idx| idx as f32 / 7.0 - 2.0).collect();
    let batch = |gates: [u8; 3]| Batch {
        routing: Some(vec![gates.to_vec()]),
        ..Batch::of_rows(rows.clone(), vec![3])
    };
    let none = session.run(&batch([0; 3])).expect("a run").logits;
    assert_eq!(none, rows);
    let some = session.run(&batch([0, 1, 0])).expect("a run").logits;
    assert_eq!((&some[..D], &some[2 * D..]), (&rows[..D], &rows[2 * D..]));
    assert_ne!(some[D..2 * D], rows[D..2 * D]);
}

fn skipc(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_skipc")).args(args).env("NO_COLOR", "1").output().expect("skipc starts")
}

#[track_caller]
fn succeeds(args: &[&str]) -> String {
    let output = skipc(args);
    assert!(output.status.success(), "skipc {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn fails(args: &[&str], exit: i32, code: &str) {
    let output = skipc(args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(exit), "skipc {args:?}: {text}");
    assert!(text.contains(code), "skipc {args:?} should say `{code}`: {text}");
}

/// A part of a model through the commands as users call them.
#[test]
fn a_part_goes_through_the_command_line() {
    let dir = TempDir::new().expect("a folder");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (spec, weights, artifact) = (path("part.toml"), path("w.safetensors"), path("part.skp"));
    std::fs::write(&spec, spec_of("input = \"rows\"\nfinal_norm = false\n")).expect("written");
    succeeds(&["init", &spec, "-o", &weights]);
    let printed = succeeds(&["check", &spec, "--weights", &weights]);
    assert!(printed.contains("input = \"rows\"") && !printed.contains("vocab_size"), "{printed}");
    succeeds(&["compile", "--cpu-levels", "native", &spec, "--weights", &weights, "-o", &artifact]);
    succeeds(&["verify", &artifact, "--weights", &weights]);
    succeeds(&["run", &artifact, "--self-test"]);
    let array = |name: &str, cols: usize, data: &dyn Fn(usize) -> f32| {
        let (path, numbers) = (path(name), (0..2 * 5 * cols).map(data).collect::<Vec<f32>>());
        skipc_runtime::npy::write(Path::new(&path), &[2, 5, cols as u64], &numbers).expect("written");
        path
    };
    let rows = array("rows.npy", D, &|idx| (idx % 11) as f32 / 4.0 - 1.0);
    let (out, trace) = (path("out.npy"), path("d.trace"));
    succeeds(&["run", &artifact, "--rows", &rows, "--logits", &out, "--routing-out", &trace]);
    let given = skipc_runtime::npy::read_floats(Path::new(&out), &[3]).expect("what was written");
    assert_eq!(given.shape, [2, 5, D as u64]);
    let again = path("again.npy");
    succeeds(&["run", &artifact, "--rows", &rows, "--routing", &trace, "--logits", &again]);
    assert!(std::fs::read(&out).expect("there") == std::fs::read(&again).expect("there"));
    let recorded = path("r.trace");
    succeeds(&["trace", "record", &artifact, "--rows", &rows, "-o", &recorded]);
    succeeds(&["verify", &artifact, "--rows", &rows, "--routing", &recorded]);
    succeeds(&["bench", &artifact, "--density", "0.5", "--tokens", "64", "--rounds", "2"]);

    let ids = path("ids.npy");
    skipc_runtime::npy::write(Path::new(&ids), &[3], &[1i32, 2, 3]).expect("written");
    fails(&["run", &artifact, "--tokens", &ids], 1, "run::input");
    fails(&["verify", &artifact, "--tokens", &ids], 1, "run::input");
    fails(&["run", &artifact, "--rows", &array("narrow.npy", D - 1, &|_| 0.5)], 1, "run::input");
    let with_nan = array("nan.npy", D, &|idx| if idx == 40 { f32::NAN } else { 0.0 });
    fails(&["run", &artifact, "--rows", &with_nan], 1, "run::row-value");
    fails(&["run", &artifact, "--rows", &ids], 1, "npy::dtype");
    fails(&["eval", &artifact, "--tokens", &ids], 1, "run::no-head");
    fails(&["generate", &artifact, "--prompt", "a"], 1, "run::no-head");
    fails(&["run", "target/none.skp", "--rows", &rows], 1, "run::io");

    let example = path("example.skp");
    let golden = "tests/golden/gumbel";
    let (spec, weights) = (format!("{golden}/spec.toml"), format!("{golden}/weights.safetensors"));
    succeeds(&["compile", "--cpu-levels", "native", &spec, "--weights", &weights, "-o", &example]);
    fails(&["run", &example, "--rows", &rows], 1, "run::input");
}
