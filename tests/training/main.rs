//! Training against PyTorch in float64, on the cases of `tests/training`, and the forms of a gradient against each other.

mod call;
mod faults;
mod forms;
mod steps;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use skipc::driver::backends::CpuBackend;
use skipc::driver::training::Host;
use skipc::frontend::spec;
use skipc::frontend::spec::model::Model;
use skipc::frontend::training;
use skipc::train::engine::Build;
use skipc::train::record::{Record, Replay};
use skipc::train::{Begin, Data, Run, compiled, interpreted};
use skipc_artifact::target::DType;
use skipc_ir::interp::Number;
use skipc_runtime::npy;

/// Tensors by name.
type Tensors = BTreeMap<String, Vec<f32>>;

fn cases() -> Vec<PathBuf> {
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

fn tensors(path: &Path) -> Tensors {
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

fn distance(a: &[f32], b: &[f32]) -> f64 {
    let off: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let size: f64 = b.iter().map(|b| f64::from(*b).powi(2)).sum();
    match (off == 0.0, size == 0.0) {
        (true, _) => 0.0,
        (false, true) => f64::INFINITY,
        (false, false) => (off / size).sqrt(),
    }
}

/// How far a run may be off.
struct Bounds {
    loss: f64,
    gradient: f64,
    change: f64,
}

/// Runs a case and writes its record to `folder`.
fn record<N: Number>(
    case: &Path,
    folder: &Path,
    (replay, build): (bool, Build<'_, N>),
    change: impl FnOnce(&mut training::Config),
) {
    let model = spec::load(&case.join("spec.toml")).unwrap();
    let text = std::fs::read_to_string(case.join("train.toml")).unwrap();
    let mut config = training::read("train.toml", &text, case).unwrap();
    change(&mut config);
    let data = Data::read(&config, model.stream.vocab_size).unwrap();
    let begin = Begin { model: &model, config: &config, data: &data, teacher: None };
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

fn compare(case: &Path, got: &Path, bounds: &Bounds) {
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

#[test]
fn runs_in_f32_are_those_of_the_reference() {
    for case in cases() {
        let folder = tempfile::tempdir().unwrap();
        record::<f32>(&case, folder.path(), (false, &interpreted), |_| ());
        compare(&case, folder.path(), &Bounds { loss: 2e-5, gradient: 2e-5, change: 1e-3 });
    }
}

/// Runs a case by compiled code and writes its record to `folder`.
fn record_by(backend: CpuBackend, threads: usize, case: &Path, folder: &Path) {
    let host = Host { backend, dtype: DType::F32, threads, max_tokens: 1 << 10 };
    record_on(host, false, case, folder);
}

fn record_on(host: Host, replay: bool, case: &Path, folder: &Path) {
    let build = |model: &Model, graphs, states, weights: &skipc::frontend::weights::Weights| {
        compiled(model, &graphs, states, (weights, host))
    };
    record::<f32>(case, folder, (replay, &build), |_| ());
}

/// Runs all cases by compiled code; those of these names on one thread, too, which has to give the same bytes.
fn runs_of(backend: CpuBackend, on_one_thread: impl Fn(&Path) -> bool) {
    for case in cases() {
        let [two, one] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        record_by(backend, 2, &case, two.path());
        compare(&case, two.path(), &Bounds { loss: 2e-5, gradient: 2e-5, change: 1e-3 });
        if !on_one_thread(&case) {
            continue;
        }
        record_by(backend, 1, &case, one.path());
        for file in ["steps.json", "grads.safetensors", "after.safetensors"] {
            let [one, two] = [&one, &two].map(|folder| std::fs::read(folder.path().join(file)).unwrap());
            assert!(one == two, "{}: {file} depends on the number of threads", case.display());
        }
    }
}

#[test]
fn runs_by_cranelift_are_those_of_the_reference() {
    runs_of(CpuBackend::Cranelift, |_| true);
}

#[test]
fn runs_by_llvm_are_those_of_the_reference() {
    runs_of(CpuBackend::Llvm, |case| case.ends_with("sparse-micro"));
}

/// How far gradients in bf16 may be off: three times as far as those of PyTorch, or as its median of a case.
const BF16_SHARE: f64 = 3.0;

/// Rows in bf16 and weights, gradients of weights and moments in f32, under the decisions of the reference.
#[test]
fn gradients_in_bf16_are_as_near_to_the_reference_as_those_of_pytorch() {
    for case in cases() {
        let of = |folder: &Path| tensors(&folder.join("grads.safetensors"));
        let on = |threads| {
            let folder = tempfile::tempdir().unwrap();
            let host = Host { backend: CpuBackend::Llvm, dtype: DType::Bf16, threads, max_tokens: 1 << 10 };
            record_on(host, true, &case, folder.path());
            of(folder.path())
        };
        let (ours, theirs) = (on(2), of(&case));
        if case.ends_with("sparse-micro") {
            assert!(ours == on(1), "a gradient depends on the number of threads");
        }
        // A model without scores has no nearest decision, which Python writes as a word that JSON lacks.
        let text = std::fs::read_to_string(case.join("case.json")).unwrap().replace("Infinity", "null");
        let figures: Value = serde_json::from_str(&text).unwrap();
        let figures = figures["bf16_grads"].as_object().unwrap();
        let mut sorted: Vec<f64> = figures.values().filter_map(Value::as_f64).collect();
        sorted.sort_by(f64::total_cmp);
        let median = sorted[sorted.len() / 2];
        let mut largest = 0f64;
        for (tensor, theirs) in &theirs {
            let off = distance(&ours[tensor], theirs);
            let figure = figures.get(tensor).and_then(Value::as_f64).unwrap_or(0.0);
            assert!(
                off <= BF16_SHARE * figure.max(median),
                "{}: the gradient of {tensor} is off by {off:e}, that of PyTorch by {figure:e}",
                case.display()
            );
            largest = largest.max(off);
        }
        assert!(largest > 1e-4, "{}: nothing was rounded", case.display());
    }
}

#[test]
fn runs_in_f64_are_those_of_the_reference_to_the_rounding_of_its_files() {
    for case in cases() {
        let folder = tempfile::tempdir().unwrap();
        record::<f64>(&case, folder.path(), (false, &interpreted), |_| ());
        compare(&case, folder.path(), &Bounds { loss: 2e-8, gradient: 2e-7, change: 2e-4 });
    }
}

#[test]
fn replayed_decisions_are_those_of_the_record() {
    let case = cases().into_iter().find(|case| case.ends_with("sparse-micro")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    // With other noise the routers would decide otherwise.
    record::<f32>(&case, folder.path(), (true, &interpreted), |config| config.train.seed = 99);
    let [ours, theirs] =
        [folder.path(), &case].map(|folder| npy::read_ints(&folder.join("gates.npy"), &[4]).unwrap());
    assert_eq!(ours, theirs);
}

#[test]
fn parts_of_a_batch_give_what_the_whole_gives() {
    for case in cases() {
        for rows in [1, 2] {
            let folder = tempfile::tempdir().unwrap();
            record::<f64>(&case, folder.path(), (false, &interpreted), |config| {
                config.train.microbatch = rows
            });
            compare(&case, folder.path(), &Bounds { loss: 2e-8, gradient: 2e-7, change: 2e-4 });
        }
    }
}
