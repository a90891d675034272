//! Runs of the cases in `tests/training`, and how far one may be off another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use skipc::driver::backends::CpuBackend;
use skipc::driver::training::Host;
use skipc::error::Error;
use skipc::frontend::spec;
use skipc::frontend::spec::model::Model;
use skipc::frontend::training;
use skipc::frontend::weights::Weights;
use skipc::train::engine::Build;
use skipc::train::machine::{FirstState, Graphs, Machine};
use skipc::train::ranks::Ranks;
use skipc::train::record::{Record, Replay};
use skipc::train::{Begin, Data, Run, compiled};
use skipc_artifact::target::DType;
use skipc_ir::interp::Number;
use skipc_runtime::npy;

/// Tensors by name.
type Tensors = BTreeMap<String, Vec<f32>>;

pub(crate) fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/training");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    cases.sort();
    assert!(cases.len() >= 9, "the cases are missing");
    cases
}

pub(crate) fn tensors(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let values = |data: &[u8]| data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    file.iter().map(|(name, view)| (name.to_owned(), values(view.data()))).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(list) => list.iter().flat_map(numbers).collect(),
        Value::Number(number) => number.as_f64().into_iter().collect(),
        _ => Vec::new(),
    }
}

pub(crate) fn distance(a: &[f32], b: &[f32]) -> f64 {
    let off: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let size: f64 = b.iter().map(|b| f64::from(*b).powi(2)).sum();
    match (off == 0.0, size == 0.0) {
        (true, _) => 0.0,
        (false, true) => f64::INFINITY,
        (false, false) => (off / size).sqrt(),
    }
}

/// How far a run may be off.
pub(crate) struct Bounds {
    pub(crate) loss: f64,
    pub(crate) gradient: f64,
    pub(crate) change: f64,
}

/// Runs a case as one of the ranks of a run and writes its record to `folder`.
pub(crate) fn record_on<N: Number>(
    case: &Path,
    (folder, ranks): (&Path, &dyn Ranks),
    (replay, build): (bool, Build<'_, N>),
    change: impl FnOnce(&mut training::Config),
) {
    let model = spec::load(&case.join("spec.toml")).unwrap();
    let text = std::fs::read_to_string(case.join("train.toml")).unwrap();
    let mut config = training::read("train.toml", &text, case).unwrap();
    change(&mut config);
    let data = Data::read(&config, model.stream.vocab_size).unwrap();
    let begin = Begin { model: &model, config: &config, data: &data, teacher: None, ranks };
    let file = case.join("weights.safetensors");
    let weights = begin.weights((!text.contains("[init]")).then_some(file.as_path())).unwrap();
    let mut run = Run::<N>::new(&begin, &weights, build).unwrap();
    let mut record = Record::new(run.engine.weights());
    let (steps, batch, seq) = (config.train.steps, config.train.batch, config.train.seq);
    let shape = [steps as usize, model.skips().count(), batch, seq];
    let replay = replay.then(|| Replay::read(case, shape).unwrap());
    for _ in 0..steps {
        run.advance(Some(&mut record), |step, batch| replay.as_ref().map(|it| it.step(step, batch))).unwrap();
    }
    let eval = run.evaluate().unwrap();
    record.write(folder, &run.engine.weights(), eval.as_ref(), [batch, seq]).unwrap();
}

pub(crate) fn compare(case: &Path, got: &Path, bounds: &Bounds) {
    let name = case.file_name().unwrap().to_string_lossy().into_owned();
    for (file, ranks) in [("order.npy", 2), ("wanted.npy", 4), ("gates.npy", 4)] {
        let [ours, theirs] = [got, case].map(|folder| npy::read_ints(&folder.join(file), &[ranks]).unwrap());
        assert_eq!(ours, theirs, "{name}: {file}");
    }
    let [ours, theirs] = [got, case].map(|folder| {
        serde_json::from_slice::<Value>(&std::fs::read(folder.join("steps.json")).unwrap()).unwrap()
    });
    for (idx, theirs) in theirs["steps"].as_array().unwrap().iter().enumerate() {
        for (key, value) in theirs.as_object().unwrap() {
            close(&format!("{name}: {key} of step {idx}"), &ours["steps"][idx][key], value, bounds.loss);
        }
    }
    for (key, value) in theirs["eval"].as_object().into_iter().flatten() {
        close(&format!("{name}: {key} of the evaluation"), &ours["eval"][key], value, bounds.loss);
    }
    let read = |folder: &Path, file: &str| tensors(&folder.join(file));
    let (before, first) = (read(case, "weights.safetensors"), read(got, "weights.safetensors"));
    assert_eq!(before, first, "{name}: the first weights");
    for (tensor, theirs) in read(case, "grads.safetensors") {
        let off = distance(&read(got, "grads.safetensors")[&tensor], &theirs);
        assert!(off <= bounds.gradient, "{name}: the gradient of {tensor} is off by {off:e}");
    }
    let change = |after: &[f32], tensor: &str| -> Vec<f32> {
        after.iter().zip(&before[tensor]).map(|(after, before)| after - before).collect()
    };
    let (ours, theirs) = (read(got, "after.safetensors"), read(case, "after.safetensors"));
    assert!(ours.keys().eq(theirs.keys()), "{name}: other tensors");
    for (tensor, theirs) in theirs {
        let off = distance(&change(&ours[&tensor], &tensor), &change(&theirs, &tensor));
        assert!(off <= bounds.change, "{name}: the change of {tensor} is off by {off:e}");
    }
}

fn close(what: &str, ours: &Value, theirs: &Value, bound: f64) {
    let (ours, theirs) = (numbers(ours), numbers(theirs));
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (ours, theirs) in ours.iter().zip(&theirs) {
        let off = (ours - theirs).abs() / theirs.abs().max(1.0);
        assert!(off <= bound, "{what}: {ours} instead of {theirs}");
    }
}

/// Makes what runs a model's functions.
pub(crate) trait Builds:
    Fn(&Model, Graphs, Vec<FirstState>, &Weights) -> Result<Box<dyn Machine<f32>>, Error>
{
}

impl<B: Fn(&Model, Graphs, Vec<FirstState>, &Weights) -> Result<Box<dyn Machine<f32>>, Error>> Builds for B {}

/// Compiled code in f32 on so many threads.
pub(crate) fn compiled_by(backend: CpuBackend, threads: usize) -> impl Builds {
    compiled_on(Host { backend, dtype: DType::F32, threads, max_tokens: 1 << 10 })
}

/// Compiled code on a host.
pub(crate) fn compiled_on(host: Host) -> impl Builds {
    move |model, graphs, states, weights| compiled(model, &graphs, states, (weights, host))
}
