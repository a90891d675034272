//! Directories as Hugging Face has them: the logits and tokens of transformers, the same artefact as from a spec, and an error
//! of its own for each way in which a directory can be wrong. `tests/huggingface/make.py` says where they come from.
#![cfg(feature = "cranelift")]

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
#[cfg(feature = "cli")]
use std::process::Command;

use npyz::NpyFile;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use skipc::diagnostic::Diagnostics;
use skipc::driver::backends::CpuBackend;
use skipc::driver::pipeline::Request;
use skipc::frontend::lower::{Function, Skipping, lower};
use skipc::frontend::source::Source;
use skipc::frontend::spec;
use skipc::frontend::weights::Weights;
use skipc::verify::reference;
use skipc_ir::interp::FlatBatch;
use skipc_runtime::decode;
#[cfg(feature = "cli")]
use skipc_runtime::decode::LanguageFiles;
use skipc_runtime::generate::{self, Row};
use skipc_runtime::inputs::Sequences;
use skipc_runtime::npy::FloatArray;
use skipc_runtime::{Batch, Device, Model, Module, Options, Outputs, Session};
use tempfile::TempDir;

/// Largest distance of a logit from that of transformers, in f32.
const TOLERANCE: f32 = 2e-4;

/// A directory with what has to come out.
struct Case {
    name: String,
    folder: PathBuf,
    /// Rows of tokens, all of one length.
    tokens: Vec<Vec<u32>>,
    /// Patches instead, `[rows, patches, columns]`.
    patches: Option<FloatArray>,
}

impl Case {
    fn of(name: &str) -> Case {
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
    fn run(&self, artefact: &Model) -> (Vec<f32>, Vec<Vec<u8>>) {
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

    fn check_logits(&self, artefact: &Model, file: &str) -> Vec<Vec<u8>> {
        let (logits, gates) = self.run(artefact);
        let (_, wanted) = array::<f32>(&self.folder, file);
        assert_eq!(logits.len(), wanted.len(), "{}", self.name);
        let far = logits.iter().zip(&wanted).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max);
        assert!(far < TOLERANCE, "{}: a logit is {far} from {file}", self.name);
        gates
    }

    /// The logits by the reference interpreter.
    fn check_interpreter(&self, model: &spec::model::Model, weights: &Weights) {
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

    fn check_tokens(&self, artefact: &Model) {
        if self.patches.is_some() {
            return;
        }
        let (shape, wanted) = array::<i32>(&self.folder, "greedy.npy");
        let width = *shape.last().unwrap() as usize;
        let module = Module::load(artefact, Device::Cpu, Options::default()).unwrap();
        let mut decoder = decode::of_slots(&module, artefact, 1).unwrap();
        for (sequence, (tokens, wanted)) in self.tokens.iter().zip(wanted.chunks(width)).enumerate() {
            let row = Row { sequence, tokens };
            let each = &mut |_| ControlFlow::Continue(());
            let new = generate::greedy_row(decoder.as_mut(), row, wanted.len() as u32, each).unwrap();
            let wanted: Vec<u32> = wanted.iter().map(|token| *token as u32).collect();
            assert_eq!(new.tokens, wanted, "{}", self.name);
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/huggingface")
}

fn names() -> Vec<String> {
    let entries = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.path().join("config.json").is_file());
    let mut names: Vec<String> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() >= 15, "only {} directories", names.len());
    names
}

fn array<T: npyz::Deserialize>(folder: &Path, name: &str) -> (Vec<u64>, Vec<T>) {
    let bytes = fs::read(folder.join(name)).unwrap();
    let file = NpyFile::new(&bytes[..]).unwrap();
    (file.shape().to_vec(), file.into_vec().unwrap())
}

fn request() -> Request {
    Request { cpu_backend: CpuBackend::Cranelift, max_tokens: Some(64), ..Request::host() }
}

fn open(folder: &Path) -> (Source, Weights) {
    let source = Source::open(folder, None).unwrap_or_else(|found| panic!("{}: {found}", folder.display()));
    let weights = source.weights(None, None).unwrap_or_else(|found| panic!("{}: {found}", folder.display()));
    (source, weights.unwrap())
}

fn compile(source: &Source, weights: &Weights) -> Model {
    let artefact = skipc::compile(&source.model, weights, &request()).unwrap();
    Model::from_bytes(&artefact).unwrap()
}

#[test]
fn every_directory_gives_the_logits_and_tokens_of_transformers() {
    for name in names() {
        let case = Case::of(&name);
        let (source, weights) = open(&case.folder);
        let artefact = compile(&source, &weights);
        let gates = case.check_logits(&artefact, "logits.npy");
        case.check_tokens(&artefact);
        case.check_interpreter(&source.model, &weights);
        if name == "qwen2-skip" {
            let (_, wanted) = array::<u8>(&case.folder, "gates.npy");
            assert_eq!(gates.concat(), wanted, "{name}: decisions");
        }
    }
}

/// The same by LLVM, at the highest level that the processor has.
#[cfg(feature = "llvm")]
#[test]
fn every_directory_gives_the_logits_of_transformers_by_llvm() {
    for name in names() {
        let case = Case::of(&name);
        let (source, weights) = open(&case.folder);
        let request = Request { cpu_backend: CpuBackend::Llvm, steps: false, ..request() };
        let artefact = skipc::compile(&source.model, &weights, &request).unwrap();
        case.check_logits(&Model::from_bytes(&artefact).unwrap(), "logits.npy");
    }
}

/// The spec that is printed with the tensors renamed is the same compile, byte by byte.
#[test]
fn a_spec_with_renamed_tensors_gives_the_same_artefact() {
    for name in ["llama3", "gemma3", "phi3", "gpt2", "qwen2-skip", "vit"] {
        let (source, weights) = open(&root().join(name));
        let printed = source.model.to_string();
        let model = spec::model("printed.toml", &printed).unwrap();
        assert_eq!(model, source.model, "{name}: {printed}");
        let tensors: Vec<_> = weights
            .sizes()
            .map(|(tensor, _)| {
                let read = weights.tensor(tensor).unwrap();
                (tensor.to_owned(), read.shape.to_vec(), read.bytes.into_owned())
            })
            .collect();
        let views = tensors.iter().map(|(tensor, shape, bytes)| {
            (tensor.as_str(), TensorView::new(Dtype::BF16, shape.clone(), bytes).unwrap())
        });
        let renamed =
            Weights::from_bytes("renamed", safetensors::serialize(views, None).unwrap(), &model).unwrap();
        let artefact = |model, weights| skipc::compile(model, weights, &request()).unwrap();
        assert!(artefact(&model, &renamed) == artefact(&source.model, &weights), "{name}");
    }
}

/// Name, shape and bytes of a tensor.
type Stored = (String, Vec<usize>, Vec<u8>);

fn named<'t>(tensors: &'t mut [Stored], name: &str) -> &'t mut Stored {
    tensors.iter_mut().find(|(other, ..)| other == name).unwrap()
}

/// A directory that can be changed.
struct Copy(TempDir);

impl Copy {
    fn of(name: &str) -> Copy {
        let copy = Copy(TempDir::new().unwrap());
        for entry in fs::read_dir(root().join(name)).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, copy.path(path.file_name().unwrap().to_str().unwrap())).unwrap();
        }
        copy
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn config(&self, change: impl FnOnce(&mut Value)) -> &Copy {
        self.json("config.json", change)
    }

    fn json(&self, name: &str, change: impl FnOnce(&mut Value)) -> &Copy {
        let mut value = serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap();
        change(&mut value);
        fs::write(self.path(name), serde_json::to_vec_pretty(&value).unwrap()).unwrap();
        self
    }

    /// Puts the tensors of all shards into one file.
    fn merged(self) -> Copy {
        let index = self.path("model.safetensors.index.json");
        let Ok(bytes) = fs::read(&index) else { return self };
        let names: Value = serde_json::from_slice(&bytes).unwrap();
        let shards: BTreeSet<&str> =
            names["weight_map"].as_object().unwrap().values().map(|shard| shard.as_str().unwrap()).collect();
        let shards: Vec<Vec<u8>> = shards.iter().map(|shard| fs::read(self.path(shard)).unwrap()).collect();
        let read: Vec<_> = shards.iter().map(|bytes| SafeTensors::deserialize(bytes).unwrap()).collect();
        let tensors = read.iter().flat_map(SafeTensors::tensors);
        fs::write(self.path("model.safetensors"), safetensors::serialize(tensors, None).unwrap()).unwrap();
        fs::remove_file(index).unwrap();
        self
    }

    /// Changes the tensors of its one file: name, shape, bytes.
    fn tensors(&self, change: impl Fn(&mut Vec<Stored>)) -> &Copy {
        let file = self.path("model.safetensors");
        let bytes = fs::read(&file).unwrap();
        let read = SafeTensors::deserialize(&bytes).unwrap();
        let mut tensors: Vec<_> = read
            .iter()
            .map(|(name, view)| (name.to_owned(), view.shape().to_vec(), view.data().to_vec()))
            .collect();
        change(&mut tensors);
        let views = tensors.iter().map(|(name, shape, bytes)| {
            (name.as_str(), TensorView::new(Dtype::BF16, shape.clone(), bytes).unwrap())
        });
        fs::write(file, safetensors::serialize(views, None).unwrap()).unwrap();
        self
    }

    fn found(&self) -> Result<Diagnostics, Diagnostics> {
        let source = Source::open(self.0.path(), None)?;
        source.weights(None, None)?;
        Ok(source.notes())
    }

    /// The code of the first finding, which has to name each of these words.
    #[track_caller]
    fn fails(&self, code: &str, words: &[&str]) {
        let found = self.found().expect_err("it is read in silence");
        let first = found.iter().next().unwrap();
        assert_eq!(first.code(), code, "{found}");
        words.iter().for_each(|word| assert!(first.to_string().contains(word), "no `{word}` in {first}"));
    }
}

#[test]
fn a_directory_that_is_wrong_is_refused_by_name() {
    let name = "model.layers.1.mlp.up_proj.weight";
    Copy::of("llama")
        .tensors(|tensors| tensors.retain(|(other, ..)| other != name))
        .fails("weights::missing", &[name]);
    Copy::of("llama")
        .tensors(|tensors| named(tensors, name).0 = "model.layers.1.mlp.up.weight".into())
        .fails("weights::missing", &[name]);
    Copy::of("llama")
        .tensors(|tensors| named(tensors, name).1.reverse())
        .fails("weights::shape", &[name, "[16, 24]", "[24, 16]"]);
    Copy::of("llama")
        .tensors(|tensors| tensors.push(("model.extra.weight".into(), vec![1], vec![0, 0])))
        .fails("weights::extra", &["model.extra.weight"]);
    Copy::of("llama")
        .config(|config| config["num_key_value_heads"] = json!(4))
        .fails("weights::shape", &["k_proj"]);
    Copy::of("llama")
        .config(|config| config["num_key_value_heads"] = json!(3))
        .fails("spec::head_split", &["4 heads"]);
    Copy::of("llama")
        .config(|config| config["attention_bias"] = json!(false))
        .fails("weights::extra", &["bias"]);
    // A head that is not tied is never made of the embedding in silence.
    Copy::of("llama3")
        .config(|config| config["tie_word_embeddings"] = json!(false))
        .fails("weights::missing", &["lm_head.weight"]);
    Copy::of("phi3")
        .config(|config| config["intermediate_size"] = json!(25))
        .fails("weights::shape", &["gate_up_proj", "[50, 16]"]);
    Copy::of("gpt2")
        .tensors(|tensors| {
            named(tensors, "transformer.h.0.attn.c_attn.weight").1.reverse();
        })
        .fails("weights::shape", &["h.0.attn.c_attn.weight", "[48, 16]"]);
}

/// Tensors that have another shape than a matrix: as many numbers in another order are no other way to write them.
#[test]
fn patches_and_class_tokens_have_one_shape() {
    for (name, shape) in [
        ("vit.embeddings.patch_embeddings.projection.weight", vec![16, 4, 4, 3]),
        ("vit.embeddings.patch_embeddings.projection.weight", vec![16, 48]),
        ("vit.embeddings.position_embeddings", vec![1, 16, 10]),
        ("vit.embeddings.position_embeddings", vec![10, 1, 16]),
        ("vit.embeddings.cls_token", vec![16, 1, 1]),
    ] {
        Copy::of("vit")
            .tensors(|tensors| named(tensors, name).1.clone_from(&shape))
            .fails("weights::shape", &[name]);
    }
}

/// The same in every directory: a tensor dropped, renamed, turned; one too many; a number of heads that does not fit.
#[test]
fn every_directory_that_is_changed_is_refused() {
    for case in names() {
        let copy = || Copy::of(&case).merged();
        let bytes = fs::read(copy().path("model.safetensors")).unwrap();
        let read = SafeTensors::deserialize(&bytes).unwrap();
        let is_oblong = |shape: &[usize]| matches!(shape, [rows, columns] if rows != columns);
        let mut oblong = read.iter().filter(|(name, view)| name.contains(".0.") && is_oblong(view.shape()));
        let (name, _) = oblong.next().unwrap();
        // GPT-2 has names with and without what stands before them.
        let said = name.trim_start_matches("transformer.");
        copy()
            .tensors(|tensors| tensors.retain(|(other, ..)| other != name))
            .fails("weights::missing", &[said]);
        copy()
            .tensors(|tensors| named(tensors, name).0.push_str(".renamed"))
            .fails("weights::missing", &[said]);
        copy().tensors(|tensors| named(tensors, name).1.reverse()).fails("weights::shape", &[said]);
        copy()
            .tensors(|tensors| tensors.push(("extra.weight".into(), vec![1], vec![0, 0])))
            .fails("weights::extra", &["extra.weight"]);
        let other_heads = copy();
        other_heads.config(|config| {
            let text = if config["text_config"].is_object() { &mut config["text_config"] } else { config };
            let key = if case == "gpt2" { "n_head" } else { "num_attention_heads" };
            assert!(text[key].is_u64(), "{case}: {key}");
            text[key] = json!(5);
        });
        let found = other_heads.found().expect_err(&case);
        let code = found.iter().next().unwrap().code();
        assert!(["spec::head_split", "spec::heads", "weights::shape"].contains(&code), "{case}: {found}");
    }
}

#[test]
fn values_that_are_not_known_are_refused_with_their_place() {
    let wrong = |key: &str, value: Value, code: &str| {
        let copy = Copy::of("llama");
        copy.config(|config| config[key] = value).fails(code, &[key]);
        let found = copy.found().err().unwrap();
        let labels = found.iter().next().unwrap().labels();
        let text = fs::read_to_string(copy.path("config.json")).unwrap();
        let line = text[..labels[0].span.start].lines().last().unwrap();
        assert!(line.contains(key), "{key}: the label is at `{line}`");
    };
    wrong("hidden_act", json!("mish"), "spec::bad_value");
    wrong("hidden_size", json!("16"), "spec::wrong_type");
    wrong("rope_theta", json!(null), "spec::wrong_type");
    wrong("num_hidden_layers", json!(0), "spec::out_of_range");
    wrong("quantization_config", json!({"bits": 4}), "config::unsupported");
    wrong("is_encoder_decoder", json!(true), "config::unsupported");
    let scaling = |kind: &str| {
        let copy = Copy::of("llama");
        copy.config(|config| config["rope_parameters"] = json!({"rope_type": kind, "factor": 2.0}));
        copy
    };
    for kind in ["yarn", "dynamic", "longrope", "su", "proportional"] {
        scaling(kind).fails("config::unsupported", &["rope_type"]);
    }
    scaling("mine").fails("spec::bad_value", &["mine"]);
    Copy::of("llama")
        .config(|config| config["model_type"] = json!("lama"))
        .fails("config::family", &["lama"]);
    for (case, key, value, code) in [
        ("olmoe", "clip_qkv", json!(8.0), "config::unsupported"),
        ("qwen3-moe", "use_sliding_window", json!(true), "config::unsupported"),
        ("qwen2-moe", "qkv_bias", json!(false), "config::unsupported"),
        ("qwen2-moe", "mlp_only_layers", json!([2]), "spec::limit"),
        ("qwen2-moe", "mlp_only_layers", json!([]), "weights::missing"),
        ("qwen3-moe", "decoder_sparse_step", json!(0), "spec::out_of_range"),
        ("mixtral", "num_experts_per_tok", json!(5), "spec::limit"),
        ("mixtral", "num_local_experts", json!(3), "weights::shape"),
        ("mixtral", "num_local_experts", json!(5), "weights::shape"),
        ("vit", "image_size", json!(16), "weights::shape"),
        ("vit", "image_size", json!(3), "spec::out_of_range"),
        ("vit", "patch_size", json!(2), "weights::shape"),
        ("vit", "num_channels", json!(1), "weights::shape"),
        ("vit", "qkv_bias", json!(false), "config::unsupported"),
        ("vit", "id2label", json!({"0": "cat"}), "weights::shape"),
        ("vit", "id2label", json!(5), "spec::wrong_type"),
        ("vit", "hidden_act", json!("mish"), "spec::bad_value"),
    ] {
        Copy::of(case).config(|config| config[key] = value).fails(code, &[]);
    }
    let without = Copy::of("llama");
    without
        .config(|config| drop(config.as_object_mut().unwrap().remove("hidden_size")))
        .fails("spec::missing_key", &["hidden_size"]);
    Copy::of("qwen2-window")
        .config(|config| config["layer_types"] = json!(["full_attention"]))
        .fails("spec::out_of_range", &["layer_types"]);
    let twice = Copy::of("llama");
    let text = fs::read_to_string(twice.path("config.json")).unwrap();
    fs::write(twice.path("config.json"), text.replacen('{', "{\"hidden_size\": 16,", 1)).unwrap();
    twice.fails("spec::duplicate_key", &["hidden_size"]);
}

/// Keys that mean nothing are no error; those that the family does not have are listed, once.
#[test]
fn keys_that_mean_nothing_are_listed_once() {
    let copy = Copy::of("llama");
    assert!(copy.found().unwrap().is_empty());
    copy.config(|config| {
        config["initializer_range"] = json!(0.5);
        config["my_key"] = json!([1]);
        config["clip_qkv"] = json!(null);
    });
    let notes = copy.found().unwrap();
    let [note] = &notes.iter().collect::<Vec<_>>()[..] else { panic!("{notes}") };
    assert_eq!(note.code(), "config::ignored");
    assert!(
        note.to_string().contains("`my_key`") && !note.to_string().contains("initializer_range"),
        "{note}"
    );
}

#[test]
fn files_that_contradict_each_other_are_refused() {
    let index = "model.safetensors.index.json";
    let map = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let copy = Copy::of("llama3");
        copy.json(index, |index| change(index["weight_map"].as_object_mut().unwrap()));
        copy
    };
    let norm = "model.norm.weight";
    map(&|map| drop(map.insert(norm.into(), json!("../w.safetensors"))))
        .fails("weights::index", &["../w.safetensors"]);
    map(&|map| drop(map.insert("other.weight".into(), map[norm].clone())))
        .fails("weights::index", &["other.weight"]);
    map(&|map| drop(map.remove(norm))).fails("weights::index", &[norm]);
    let both = Copy::of("llama3");
    fs::copy(root().join("llama/model.safetensors"), both.path("model.safetensors")).unwrap();
    both.fails("weights::twice", &[index]);
    let pickled = Copy::of("llama");
    fs::rename(pickled.path("model.safetensors"), pickled.path("pytorch_model.bin")).unwrap();
    pickled.fails("weights::pickle", &["pytorch_model.bin"]);
    fs::remove_file(pickled.path("pytorch_model.bin")).unwrap();
    pickled.fails("weights::read", &["model.safetensors"]);
    // Masks and frequencies that published files have are no weights; a tied head may stand in the file.
    Copy::of("gpt2")
        .tensors(|tensors| {
            tensors.push(("transformer.h.0.attn.bias".into(), vec![1, 1, 2, 2], vec![0; 8]));
            tensors.push(("lm_head.weight".into(), vec![61, 16], vec![0; 61 * 16 * 2]));
        })
        .found()
        .unwrap();
    // The published file has nothing in front of its names.
    let bare = Copy::of("gpt2");
    bare.tensors(|tensors| {
        tensors.iter_mut().for_each(|(name, ..)| *name = name.trim_start_matches("transformer.").into())
    });
    let case = Case::of("gpt2");
    let (source, weights) = open(bare.0.path());
    case.check_logits(&compile(&source, &weights), "logits.npy");
}

/// Rotations as transformers 4 wrote them give the same model as those of version 5.
#[test]
fn both_ways_of_writing_rotations_are_read() {
    let mut converted = 0;
    for name in names() {
        let copy = Copy::of(&name);
        let model = Source::open(copy.0.path(), None).unwrap().model;
        copy.config(|config| {
            let config = config.as_object_mut().unwrap();
            if name == "gemma3" {
                let full = json!({"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6});
                let sliding = json!({"rope_type": "default", "rope_theta": 1e4});
                config.insert(
                    "rope_parameters".into(),
                    json!({"full_attention": full, "sliding_attention": sliding}),
                );
                for key in ["rope_theta", "rope_local_base_freq", "rope_scaling"] {
                    config.remove(key).unwrap();
                }
                let period = config.remove("sliding_window_pattern").unwrap();
                config.insert("_sliding_window_pattern".into(), period);
                converted += 1;
            } else if let Some(Value::Object(mut rope)) = config.remove("rope_parameters") {
                for key in ["layer_types", "no_rope_layers"] {
                    config.remove(key);
                }
                for key in ["rope_theta", "partial_rotary_factor"] {
                    config.extend(rope.remove(key).map(|value| (key.to_owned(), value)));
                }
                if rope["rope_type"] != "default" {
                    rope.insert("type".into(), rope["rope_type"].clone());
                    rope.remove("rope_type");
                    config.insert("rope_scaling".into(), rope.into());
                }
                converted += 1;
            }
        });
        let other = Source::open(copy.0.path(), None).unwrap_or_else(|found| panic!("{name}: {found}")).model;
        assert_eq!(other, model, "{name}");
    }
    assert!(converted >= 11, "{converted}");
}

/// The part that reads text, of a model that also sees.
#[test]
fn the_text_part_of_a_larger_model_is_read() {
    let case = Case::of("gemma3");
    for front in ["language_model.", "model.language_model."] {
        let copy = Copy::of("gemma3");
        copy.config(|config| {
            *config = json!({"model_type": "gemma3", "vision_config": {}, "text_config": config})
        });
        copy.tensors(|tensors| {
            for (name, ..) in tensors.iter_mut() {
                *name = match front {
                    "language_model." => format!("{front}{name}"),
                    _ => name.replacen("model.", front, 1),
                };
            }
            tensors.push(("vision_tower.patch.weight".into(), vec![1], vec![0, 0]));
        });
        let (source, weights) = open(copy.0.path());
        case.check_logits(&compile(&source, &weights), "logits.npy");
    }
}

/// Any value of any key is read or refused; none is a fault.
#[test]
fn strange_configurations_never_panic() {
    let strange = [
        json!(null),
        json!(-1),
        json!(0),
        json!(1e300),
        json!("x"),
        json!([1, "a"]),
        json!({"a": {}}),
        json!(true),
    ];
    for name in ["gemma3", "qwen2-skip", "gpt2"] {
        let copy = Copy::of(name);
        let text = fs::read_to_string(copy.path("config.json")).unwrap();
        let whole: Value = serde_json::from_str(&text).unwrap();
        for key in whole.as_object().unwrap().keys() {
            for value in &strange {
                let mut changed = whole.clone();
                changed[key] = value.clone();
                fs::write(copy.path("config.json"), changed.to_string()).unwrap();
                let _ = Source::open(copy.0.path(), None).map(|source| source.model.to_string());
            }
        }
        for end in (0..text.len()).step_by(41) {
            fs::write(copy.path("config.json"), &text[..end]).unwrap();
            assert!(Source::open(copy.0.path(), None).is_err());
        }
    }
    // Files of the first gemma say one thing and mean another.
    let gemma = Copy::of("gemma");
    let model = Source::open(gemma.0.path(), None).unwrap().model;
    gemma.config(|config| {
        drop(config.as_object_mut().unwrap().remove("hidden_activation"));
        config["hidden_act"] = json!("gelu");
    });
    let source = Source::open(gemma.0.path(), None).unwrap();
    assert!(source.model == model && source.notes().iter().next().unwrap().code() == "config::alias");
}

/// Routers that execute every token make the dense model of a directory with skips.
#[test]
fn routers_begin_as_the_dense_model() {
    let case = Case::of("qwen2-skip");
    for router in [
        json!({"type": "gumbel"}),
        json!({"type": "gumbel", "bias": true, "execute_index": 0}),
        json!({"type": "sigmoid", "bias": true, "threshold": 0.9}),
        json!({"type": "topk"}),
        json!({"type": "gumbel", "bias": true, "steps": [{"linear": 8, "bias": true}, {"norm": "rmsnorm"}, {"activation": "silu"}]}),
    ] {
        let copy = Copy::of("qwen2-skip");
        copy.tensors(|tensors| tensors.retain(|(name, ..)| !name.contains("skip_router")));
        copy.config(|config| {
            config["skip_config"] =
                json!({"version": 1, "granularity": "both", "router": router, "density": 1.0});
        });
        let source = Source::open(copy.0.path(), None).unwrap();
        let made = source.directory.as_ref().unwrap().executing_routers(&source.model).unwrap();
        let bytes: Vec<Vec<u8>> = made
            .iter()
            .map(|tensor| tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect())
            .collect();
        let views = made.iter().zip(&bytes).map(|(tensor, bytes)| {
            (tensor.name.as_str(), TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).unwrap())
        });
        let file = copy.path("routers.safetensors");
        fs::write(&file, safetensors::serialize(views, None).unwrap()).unwrap();
        let weights = source.weights(None, Some(&file)).unwrap().unwrap();
        let gates = case.check_logits(&compile(&source, &weights), "dense_logits.npy");
        assert!(gates.len() == 8 && gates.concat().iter().all(|gate| *gate == 1), "{router}");
        // Without the file there are none; with the model's own as well there are two.
        copy.fails("weights::missing", &["self_attn.skip_router."]);
        let found = source.weights(None, Some(&copy.path("model.safetensors"))).err().unwrap();
        assert_eq!(found.iter().next().unwrap().code(), "weights::twice");
    }
}

/// Rows are swapped where the first of them means execution.
#[test]
fn the_row_that_executes_may_be_the_first() {
    let case = Case::of("qwen2-skip");
    let copy = Copy::of("qwen2-skip");
    copy.config(|config| config["skip_config"]["router"]["execute_index"] = json!(0));
    copy.tensors(|tensors| {
        for (_, shape, bytes) in tensors.iter_mut().filter(|(name, ..)| name.contains("skip_router")) {
            assert_eq!(shape[0], 2);
            let half = bytes.len() / 2;
            bytes.rotate_left(half);
        }
    });
    let (source, weights) = open(copy.0.path());
    case.check_logits(&compile(&source, &weights), "logits.npy");
}

/// Steps that turn the columns which the router reads around, and another branch that adds nothing, change nothing; one that
/// adds something does.
#[test]
fn deciders_and_adapters_are_read_under_their_names() {
    const D: usize = 32;
    let case = Case::of("qwen2-skip");
    let bf16 = |values: &[f32]| -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()[2..].to_vec()).collect()
    };
    let with_adapter = |down: f32| {
        let copy = Copy::of("qwen2-skip");
        copy.config(|config| {
            let skip = &mut config["skip_config"];
            skip["router"]["steps"] = json!([{"linear": D, "bias": true}, {"activation": "none"}]);
            skip["adapter_size"] = json!(3);
        });
        copy.tensors(|tensors| {
            let is_router = |name: &str| name.ends_with("skip_router.weight");
            for (_, _, bytes) in tensors.iter_mut().filter(|(name, ..)| is_router(name)) {
                bytes.chunks_exact_mut(2 * D).for_each(|row| row.rotate_right(2));
            }
            // Row i of the step is column i - 1 of what it reads.
            let turned: Vec<f32> = (0..D * D).map(|at| f32::from((at / D + D - 1) % D == at % D)).collect();
            for layer in [1, 3] {
                let mut add = |name: &str, shape: &[usize], values: &[f32]| {
                    tensors.push((format!("model.layers.{layer}.{name}"), shape.to_vec(), bf16(values)));
                };
                add("skip_router.steps.0.weight", &[D, D], &turned);
                add("skip_router.steps.0.bias", &[D], &[0.0; D]);
                add("skip_adapter.norm.weight", &[D], &[1.0; D]);
                add("skip_adapter.gate_proj.weight", &[3, D], &[0.5; 3 * D]);
                add("skip_adapter.up_proj.weight", &[3, D], &[0.25; 3 * D]);
                add("skip_adapter.down_proj.weight", &[D, 3], &[down; 3 * D]);
            }
        });
        copy
    };
    let copy = with_adapter(0.0);
    let (source, weights) = open(copy.0.path());
    let gates = case.check_logits(&compile(&source, &weights), "logits.npy");
    assert!(gates.concat().contains(&0) && gates.concat().contains(&1));
    let copy = with_adapter(1.0);
    let (source, weights) = open(copy.0.path());
    let (logits, with_other_branch) = case.run(&compile(&source, &weights));
    let (_, without) = array::<f32>(&case.folder, "logits.npy");
    let far = logits.iter().zip(&without).map(|(got, other)| (got - other).abs()).fold(0.0, f32::max);
    assert!(far > 0.1, "the other branch is not read: {far}");
    assert_eq!(with_other_branch.len(), gates.len());
}

#[test]
fn settings_of_skips_are_refused_by_name() {
    let wrong = |change: &dyn Fn(&mut Value), code: &str, word: &str| {
        let copy = Copy::of("qwen2-skip");
        copy.config(|config| change(&mut config["skip_config"])).fails(code, &[word]);
    };
    wrong(&|skip| skip["densty"] = json!(0.5), "spec::unknown_key", "densty");
    wrong(&|skip| skip["router"]["tpye"] = json!("gumbel"), "spec::unknown_key", "tpye");
    wrong(&|skip| drop(skip.as_object_mut().unwrap().remove("version")), "spec::missing_key", "version");
    wrong(&|skip| skip["version"] = json!(2), "spec::limit", "version");
    wrong(&|skip| skip["layers"] = json!([4]), "spec::limit", "layers");
    wrong(&|skip| skip["granularity"] = json!("head"), "spec::bad_value", "head");
    wrong(&|skip| skip["adapter_size"] = json!(8), "weights::missing", "skip_adapter.norm");
    let of_mlp = |skip: &mut Value| {
        skip["granularity"] = json!("mlp");
        skip["adapter_size"] = json!(8);
    };
    wrong(&of_mlp, "config::unsupported", "adapter_size");
    wrong(&|skip| skip["output_scale"] = json!("last"), "spec::bad_value", "last");
    wrong(&|skip| skip["force_first"] = json!(-1), "spec::out_of_range", "force_first");
    wrong(
        &|skip| skip["router"]["steps"] = json!([{"linear": 4}]),
        "weights::missing",
        "skip_router.steps.0",
    );
    wrong(&|skip| skip["router"]["steps"] = json!([{"linaer": 4}]), "spec::unknown_key", "linaer");
    wrong(&|skip| skip["router"]["outputs"] = json!(1), "spec::out_of_range", "outputs");
    wrong(&|skip| skip["router"]["dtype"] = json!("bfloat16"), "config::unsupported", "dtype");
    wrong(&|skip| *skip = json!(null), "weights::extra", "skip_router");
}

/// Settings and tensors under the names of other code, each said as it is read.
#[test]
fn other_names_are_said_as_they_are_read() {
    let case = Case::of("qwen2-skip");
    let copy = Copy::of("qwen2-skip");
    copy.config(|config| {
        drop(config.as_object_mut().unwrap().remove("skip_config"));
        config["mod_capacity_factor"] = json!(1.0);
        config["mod_routing_type"] = json!("learned");
        config["mod_start_layer"] = json!(1);
        config["mod_end_layer"] = json!(2);
    });
    copy.tensors(|tensors| {
        tensors.retain(|(name, ..)| !name.contains("skip_router"));
        tensors.push(("model.layers.1.mod_router.weight".into(), vec![1, 32], vec![0; 64]));
    });
    let (source, weights) = open(copy.0.path());
    assert!(source.model.to_string().contains("router = \"topk\""), "{}", source.model);
    let said = source.notes();
    assert!(said.iter().all(|note| note.code() == "config::alias") && said.iter().count() == 3, "{said}");
    let gates = case.check_logits(&compile(&source, &weights), "dense_logits.npy");
    assert_eq!(gates.len(), 1);
    copy.config(|config| config["mod_routing_type"] = json!("static")).fails("spec::bad_value", &["static"]);
    copy.config(|config| {
        config["skip_config"] = json!({"version": 1, "density": 0.5, "mod_capacity_factor": 0.5})
    })
    .fails("spec::duplicate_key", &["density"]);
}

/// Templates give what transformers makes of them.
#[cfg(feature = "cli")]
#[test]
fn chats_are_rendered_as_transformers_renders_them() {
    let cases: Vec<Value> = serde_json::from_slice(&fs::read(root().join("chat.json")).unwrap()).unwrap();
    assert!(cases.len() >= 10);
    for case in &cases {
        let folder = TempDir::new().unwrap();
        let config = json!({"bos_token": "<s>", "eos_token": "</s>", "chat_template": case["template"]});
        fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        let files =
            LanguageFiles { model: folder.path().join("m.skp"), tokenizer: None, chat_template: None };
        let template = files.chat_template().unwrap().unwrap();
        let text = template.render(case["messages"].as_array().unwrap()).unwrap();
        assert_eq!(text, case["text"].as_str().unwrap(), "{}", case["name"]);
    }
}

/// Runs the command line, which has to succeed.
#[cfg(feature = "cli")]
#[track_caller]
fn skipc(folder: &Path, args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_skipc")).args(args).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "skipc {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// An artefact has its tokenizer, template and end ids in itself; nothing of the directory is needed any more.
#[cfg(feature = "cli")]
#[test]
fn an_artefact_of_a_directory_takes_and_gives_text() {
    let folder = TempDir::new().unwrap();
    let copy = Copy::of("llama3");
    let template = "{% for m in messages %}{{ m.content | trim }}{% endfor %}";
    fs::write(copy.path("tokenizer_config.json"), json!({"chat_template": template}).to_string()).unwrap();
    let given = copy.0.path().to_str().unwrap();
    skipc(folder.path(), &["check", given]);
    let options = ["--max-tokens", "64", "--cpu-backend", "cranelift"];
    skipc(folder.path(), &[&["compile", given, "-o", "m.skp"][..], &options].concat());
    let prompt: Value = serde_json::from_slice(&fs::read(copy.path("prompt.json")).unwrap()).unwrap();
    drop(copy);
    let model = folder.path().join("m.skp");
    let files = LanguageFiles { model: model.clone(), tokenizer: None, chat_template: None };
    let tokenizer = files.tokenizer(290).unwrap();
    let ids: Vec<u32> = serde_json::from_value(prompt["ids"].clone()).unwrap();
    let text = prompt["text"].as_str().unwrap();
    assert_eq!(tokenizer.encode(text).unwrap(), ids);
    assert_eq!(tokenizer.decode(&ids), text.as_bytes());
    // config.json has a list of them, and there is no generation_config.json.
    assert_eq!(tokenizer.ends(), [1, 2]);
    let said = files.chat_template().unwrap().unwrap().render(&[json!({"role": "user", "content": " hi "})]);
    assert_eq!(said.unwrap(), "hi");
    let of_text = skipc(folder.path(), &["generate", "m.skp", "--prompt", text, "--max-new-tokens", "6"]);
    assert!(of_text.starts_with(text), "{of_text}");
    let of_chat =
        skipc(folder.path(), &["generate", "m.skp", "--prompt", text, "--chat", "--max-new-tokens", "6"]);
    assert_eq!(
        of_text.trim_end(),
        format!("{text}{}", of_chat.trim_end()),
        "the template is the text itself"
    );
}

/// The way of a user who makes a dense checkpoint skip.
#[cfg(feature = "cli")]
#[test]
fn a_dense_checkpoint_is_made_to_skip() {
    let folder = TempDir::new().unwrap();
    let dense = root().join("llama");
    let dense = dense.to_str().unwrap();
    let overlay =
        "version = 1\ngranularity = \"mlp\"\nlayers = [1]\nrouter = { type = \"sigmoid\", bias = true }\n";
    fs::write(folder.path().join("skip.toml"), overlay).unwrap();
    let run = |args: &[&str]| skipc(folder.path(), args);
    run(&["init", dense, "--skip", "skip.toml", "-o", "r.safetensors", "--dtype", "bf16"]);
    let options = ["--cpu-backend", "cranelift", "--max-tokens", "64"];
    let skips = ["--skip", "skip.toml", "--router-weights", "r.safetensors"];
    run(&[&["compile", dense, "-o", "m.skp"][..], &skips, &options].concat());
    run(&[&["verify", "m.skp", "--weights", dense][..], &skips].concat());
    let case = Case::of("llama");
    let gates = case.check_logits(&Model::open(&folder.path().join("m.skp")).unwrap(), "logits.npy");
    assert!(gates.len() == 1 && gates[0].iter().all(|gate| *gate == 1));
}

/// Options of directories beside a spec, and a spec without weights, are wrong usage.
#[cfg(feature = "cli")]
#[test]
fn options_of_directories_are_for_directories() {
    let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gumbel/spec.toml");
    let spec = spec.to_str().unwrap();
    for (args, word) in [
        (&["check", spec, "--skip", "s.toml"][..], "usage::directory"),
        (&["check", spec, "--router-weights", "r"], "usage::directory"),
        (&["compile", spec, "-o", "m.skp"], "usage::compile"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_skipc")).args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && text.contains(word), "{args:?}: {text}");
    }
}
