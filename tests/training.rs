//! Training against PyTorch in float64, on the cases of `tests/training`, and the forms of a gradient against each other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use skipc::frontend::lower::{Counting, Skipping, Train, Trained, gradient_graph};
use skipc::frontend::spec;
use skipc::frontend::spec::model::Model;
use skipc::frontend::training;
use skipc::train::record::{Record, Replay};
use skipc::train::{Begin, Data, Part, Run};
use skipc_ir::interp::{self, Datum, Env, Gf61, Number, Ring32, Routing, Weights};
use skipc_ir::{Role, SetSym};
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
fn record<N: Number>(case: &Path, folder: &Path, replay: bool, change: impl FnOnce(&mut training::Config)) {
    let model = spec::load(&case.join("spec.toml")).unwrap();
    let text = std::fs::read_to_string(case.join("train.toml")).unwrap();
    let mut config = training::read("train.toml", &text, case).unwrap();
    change(&mut config);
    let data = Data::read(&config, model.stream.vocab_size).unwrap();
    let begin = Begin { model: &model, config: &config, data: &data, teacher: None };
    let file = case.join("weights.safetensors");
    let weights = begin.weights((!text.contains("[init]")).then_some(file.as_path())).unwrap();
    let mut run = Run::<N>::new(&begin, &weights).unwrap();
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
        record::<f32>(&case, folder.path(), false, |_| ());
        compare(&case, folder.path(), &Bounds { loss: 2e-5, gradient: 2e-5, change: 1e-3 });
    }
}

#[test]
fn runs_in_f64_are_those_of_the_reference_to_the_rounding_of_its_files() {
    for case in cases() {
        let folder = tempfile::tempdir().unwrap();
        record::<f64>(&case, folder.path(), false, |_| ());
        compare(&case, folder.path(), &Bounds { loss: 2e-8, gradient: 2e-7, change: 2e-4 });
    }
}

#[test]
fn replayed_decisions_are_those_of_the_record() {
    let case = cases().into_iter().find(|case| case.ends_with("sparse-micro")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    // With other noise the routers would decide otherwise.
    record::<f32>(&case, folder.path(), true, |config| config.train.seed = 99);
    let [ours, theirs] =
        [folder.path(), &case].map(|folder| npy::read_ints(&folder.join("gates.npy"), &[4]).unwrap());
    assert_eq!(ours, theirs);
}

#[test]
fn parts_of_a_batch_give_what_the_whole_gives() {
    for case in cases() {
        for rows in [1, 2] {
            let folder = tempfile::tempdir().unwrap();
            record::<f64>(&case, folder.path(), false, |config| config.train.microbatch = rows);
            compare(&case, folder.path(), &Bounds { loss: 2e-8, gradient: 2e-7, change: 2e-4 });
        }
    }
}

/// The same decisions for every router.
struct Forced(fn(usize, usize) -> bool);

impl Routing for Forced {
    fn forced(&self, _: SetSym, n_rows: usize) -> Option<Vec<bool>> {
        Some((0..n_rows).map(|row| self.0(row, n_rows)).collect())
    }
}

struct Drawn<'a>(&'a skipc::train::Tensors);

impl<N: Number> Weights<N> for Drawn<'_> {
    fn weight(&self, name: &str) -> Option<Vec<N>> {
        Some(self.0.get(name)?.values.iter().map(|value| N::from_f64(f64::from(*value))).collect())
    }
}

/// Gradients of a case's model under forced decisions, by the states that hold them.
fn gradients<N: Number>(
    (model, config): (&Model, &training::Config),
    (weights, batch): (&skipc::train::Tensors, &Part),
    skipping: Skipping,
    routing: &dyn Routing,
) -> Vec<(Role, Datum<N>)> {
    let trained: Vec<Trained> =
        weights.iter().map(|(name, tensor)| Trained::new(name, &tensor.shape)).collect();
    let train = Train {
        seed: config.train.seed,
        ste: config.train.ste,
        aux_weight: config.train.aux_weight,
        distill: None,
        counting: Counting::Here,
    };
    let graph = gradient_graph(model, skipping, &train, &trained).unwrap();
    let number = |value: f64| Datum::Real { cols: 1, data: vec![N::from_f64(value)] };
    let mut given = BTreeMap::from([
        ("step".to_owned(), Datum::Ints(vec![0])),
        ("noise".to_owned(), number(1.0)),
        ("inverse temperature".to_owned(), number(2.0)),
        ("tokens".to_owned(), number(batch.n_live() as f64)),
        ("targets".to_owned(), Datum::Ints(batch.targets.clone())),
    ])
    .into_iter()
    .map(|(name, datum)| (Role::Input { name }, datum))
    .collect::<BTreeMap<_, _>>();
    for own in &trained {
        let (rows, cols) = (own.size().0 as usize, own.size().1 as usize);
        let state = |name: String| Role::State { name };
        given.insert(state(own.gradient()), Datum::Real { cols, data: vec![N::ZERO; rows * cols] });
        let values = Drawn(weights).weight(&own.name).unwrap();
        given.insert(state(own.name.clone()), Datum::Real { cols, data: values });
    }
    let env = Env { batch: &batch.inputs, tensors: given, weights: &Drawn(weights), routing };
    let results = interp::run(&graph, &env).unwrap();
    results.into_iter().filter(|(role, _)| matches!(role, Role::State { .. })).collect()
}

/// Whether a token executes, by its row among so many.
type Rule = fn(usize, usize) -> bool;

const RULES: [(&str, Rule); 6] = [
    ("none", |_, _| false),
    ("the first", |row, _| row == 0),
    ("the last", |row, n| row + 1 == n),
    ("every third", |row, _| row % 3 == 1),
    ("all but one", |row, _| row != 2),
    ("all", |_, _| true),
];

fn compare_forms<N: Number>() {
    for case in cases() {
        let model = spec::load(&case.join("spec.toml")).unwrap();
        let text = std::fs::read_to_string(case.join("train.toml")).unwrap();
        let mut config = training::read("train.toml", &text, &case).unwrap();
        config.init.std = 0.5;
        let data = Data::read(&config, model.stream.vocab_size).unwrap();
        let weights =
            Begin { model: &model, config: &config, data: &data, teacher: None }.weights(None).unwrap();
        let batch = data.step(0);
        for (name, rule) in RULES {
            let of =
                |skipping| gradients::<N>((&model, &config), (&weights, &batch), skipping, &Forced(rule));
            let (gathered, masked) = (of(Skipping::Gathered), of(Skipping::Masked));
            // Blocks that never run are in neither.
            assert!(gathered.len() == masked.len() && gathered.len() > weights.len());
            for ((role, ours), (_, theirs)) in gathered.iter().zip(&masked) {
                assert!(ours == theirs, "{}, {name} executes: {role:?}", case.display());
            }
        }
    }
}

#[test]
fn gathered_and_masked_gradients_are_equal_where_nothing_rounds() {
    compare_forms::<Gf61>();
    compare_forms::<Ring32>();
}
