//! A directory with what has to come out of it.

use std::fs;
use std::path::{Path, PathBuf};

use npyz::NpyFile;
use skipc::driver::backends::CpuBackend;
use skipc::driver::pipeline::Request;
use skipc::frontend::lower::{Function, Skipping, lower};
use skipc::frontend::source::Source;
use skipc::frontend::spec;
use skipc::frontend::weights::Weights;
use skipc::verify::reference;
use skipc_ir::interp::FlatBatch;
use skipc_runtime::decode::{self, Engine, EngineOptions};
use skipc_runtime::inputs::Sequences;
use skipc_runtime::npy::FloatArray;
use skipc_runtime::{Batch, Device, Model, Module, Options, Outputs, Session};

/// Largest distance of a logit from that of transformers, in f32.
pub(crate) const TOLERANCE: f32 = 2e-4;

/// A directory with what has to come out.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    /// Rows of tokens, all of one length.
    pub(crate) tokens: Vec<Vec<u32>>,
    /// Patches instead, `[rows, patches, columns]`.
    patches: Option<FloatArray>,
}

impl Case {
    pub(crate) fn of(name: &str) -> Case {
        let folder = root().join(name);
        if folder.join("patches.npy").is_file() {
            let (shape, data) = array(&folder, "patches.npy");
            let patches = Some(FloatArray { shape, data });
            return Case { name: name.to_owned(), folder, tokens: Vec::new(), patches };
        }
        let (shape, tokens) = array::<i32>(&folder, "tokens.npy");
        let rows = tokens.chunks(shape[1] as usize);
        let tokens = rows.map(|row| row.iter().map(|token| *token as u32).collect()).collect();
        Case { name: name.to_owned(), folder, tokens, patches: None }
    }

    /// The logits of all rows, and the decisions `[routers][tokens]`.
    pub(crate) fn run(&self, artefact: &Model) -> (Vec<f32>, Vec<Vec<u8>>) {
        let mut session = Session::new(artefact, Device::Cpu, Options::default()).unwrap();
        if let Some(patches) = &self.patches {
            let patches = Sequences::of_row_arrays((Path::new("patches"), patches), None).unwrap();
            let patches = patches.for_function(session.function());
            let grid = patches.grid.clone();
            let mut outputs = session.run(&patches.into_batch(None)).unwrap();
            let (_, logits) = outputs.take_logits(session.function(), &grid);
            return (logits, outputs.gates);
        }
        let (mut logits, mut gates) = (Vec::new(), Vec::new());
        for row in &self.tokens {
            let outputs: Outputs = session.run(&Batch::of_sequence(row.clone())).unwrap();
            logits.extend(outputs.logits);
            gates.push(outputs.gates);
        }
        let routers = gates.first().map_or(0, Vec::len);
        let of_router = |router: usize| gates.iter().flat_map(|row| row[router].clone()).collect();
        (logits, (0..routers).map(of_router).collect())
    }

    pub(crate) fn check_logits(&self, artefact: &Model, file: &str) -> Vec<Vec<u8>> {
        let (logits, gates) = self.run(artefact);
        let (_, wanted) = array::<f32>(&self.folder, file);
        assert_eq!(logits.len(), wanted.len(), "{}", self.name);
        let far = logits.iter().zip(&wanted).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max);
        assert!(far < TOLERANCE, "{}: a logit is {far} from {file}", self.name);
        gates
    }

    /// Decisions, exactly, of a directory that has some.
    pub(crate) fn check_gates(&self, gates: &[Vec<u8>]) {
        if self.folder.join("gates.npy").is_file() {
            let (_, wanted) = array::<u8>(&self.folder, "gates.npy");
            assert_eq!(gates.concat(), wanted, "{}: decisions", self.name);
        }
    }

    /// The logits by the reference interpreter.
    pub(crate) fn check_interpreter(&self, model: &spec::model::Model, weights: &Weights) {
        let graph = lower(model, Skipping::Gathered, Function::Score).unwrap();
        if let Some(FloatArray { shape, data }) = &self.patches {
            let (n_patches, cols) = (shape[1] as usize, shape[2] as usize);
            let behind = data.chunks(n_patches * cols).map(|image| [&vec![0.0; cols], image].concat());
            let rows: Vec<f32> = behind.flatten().collect();
            let batch = FlatBatch::of_rows(rows, vec![n_patches + 1; shape[0] as usize]);
            let outcome = reference::run::<f64>(&graph, weights, &batch, None).unwrap();
            let (wanted_shape, wanted) = array::<f32>(&self.folder, "logits.npy");
            let classes = wanted_shape[1] as usize;
            // The class token is what is scored.
            let first = outcome.logits.chunks((n_patches + 1) * classes).flat_map(|image| &image[..classes]);
            let far = first.zip(&wanted).map(|(got, want)| (got - f64::from(*want)).abs());
            assert!(far.fold(0.0, f64::max) < f64::from(TOLERANCE), "{}", self.name);
            return;
        }
        let rows = self.tokens.iter().map(|row| row.iter().map(|token| i64::from(*token)).collect());
        let rows: Vec<Vec<i64>> = rows.collect();
        let batch = FlatBatch::from_sequences(rows.iter().map(Vec::as_slice));
        let outcome = reference::run::<f64>(&graph, weights, &batch, None).unwrap();
        let (_, wanted) = array::<f32>(&self.folder, "logits.npy");
        let far = outcome.logits.iter().zip(&wanted).map(|(got, want)| (got - f64::from(*want)).abs());
        assert_eq!(outcome.logits.len(), wanted.len(), "{}", self.name);
        assert!(
            far.clone().all(|far| far < f64::from(TOLERANCE)),
            "{}: {:?}",
            self.name,
            far.reduce(f64::max)
        );
    }

    pub(crate) fn check_tokens(&self, artefact: &Model) {
        if self.patches.is_some() {
            return;
        }
        let (shape, wanted) = array::<i32>(&self.folder, "greedy.npy");
        let width = *shape.last().unwrap() as usize;
        let module = Module::load(artefact, Device::Cpu, Options::default()).unwrap();
        let decoder = decode::of_slots(&module, artefact, 1).unwrap();
        let mut engine = Engine::on(decoder, EngineOptions::default()).unwrap();
        for (sequence, (tokens, wanted)) in (0..).zip(self.tokens.iter().zip(wanted.chunks(width))) {
            let greedy = decode::Request::greedy(tokens.clone(), wanted.len() as u32);
            let new = engine.complete(decode::Request { sequence, ..greedy }).unwrap();
            let wanted: Vec<u32> = wanted.iter().map(|token| *token as u32).collect();
            assert_eq!(new.tokens, wanted, "{}", self.name);
        }
    }
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/huggingface")
}

pub(crate) fn names() -> Vec<String> {
    let entries = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| configuration(&entry.path()).is_some());
    let mut names: Vec<String> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() >= 15, "only {} directories", names.len());
    names
}

/// The file of a directory's configuration.
pub(crate) fn configuration(folder: &Path) -> Option<&'static str> {
    ["config.json", "model_args.json"].into_iter().find(|name| folder.join(name).is_file())
}

pub(crate) fn array<T: npyz::Deserialize>(folder: &Path, name: &str) -> (Vec<u64>, Vec<T>) {
    let bytes = fs::read(folder.join(name)).unwrap();
    let file = NpyFile::new(&bytes[..]).unwrap();
    (file.shape().to_vec(), file.into_vec().unwrap())
}

pub(crate) fn request() -> Request {
    Request { cpu_backend: CpuBackend::Cranelift, max_tokens: Some(64), ..Request::here() }
}

pub(crate) fn open(folder: &Path) -> (Source, Weights) {
    let source = Source::open(folder, None).unwrap_or_else(|found| panic!("{}: {found}", folder.display()));
    let weights = source.weights(None, None).unwrap_or_else(|found| panic!("{}: {found}", folder.display()));
    (source, weights.unwrap())
}

pub(crate) fn compile(source: &Source, weights: &Weights) -> Model {
    let artefact = skipc::compile(&source.model, weights, &request()).unwrap();
    Model::from_bytes(&artefact).unwrap()
}
