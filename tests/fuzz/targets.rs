//! What reads inputs of others, each with real ones and with how they are changed.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use skipc::cost::bucketing::tuning::Tuning;
use skipc::diagnostic::Diagnostics;
use skipc::driver::pipeline;
use skipc::frontend::huggingface::Directory;
use skipc::frontend::lint;
use skipc::frontend::source::Source;
use skipc::frontend::spec::tensors::tensors;
use skipc::frontend::training::read;
use skipc::frontend::weights::Weights;
use skipc_artifact::bundle;
use skipc_ir::text;
use skipc_runtime::Model;
use skipc_runtime::Trace;
use skipc_runtime::decode::LanguageFiles;
use skipc_runtime::inputs::{Room, Sequences};
use tempfile::TempDir;

use super::driver::Target;
use super::mutations::{Mutation, OF_ARTEFACT, OF_BYTES, OF_JSON, OF_TENSORS, OF_TEXT};
use super::seeds::{files, folder, made};
use super::server;

/// Parameters up to which a model is lowered: what is larger is only checked.
const PARAMETERS: usize = 1 << 24;

fn target(
    seeds: Vec<Vec<u8>>,
    mutations: &'static [Mutation],
    read: impl Fn(&[u8]) -> String + Send + 'static,
) -> Target {
    Target { seeds, mutations, read: Box::new(read) }
}

/// What reads a file of this name, in a folder of its own that is gone at the end.
fn of_file(
    name: &'static str,
    seeds: Vec<Vec<u8>>,
    mutations: &'static [Mutation],
    read: impl Fn(&Path) -> String + Send + 'static,
) -> Target {
    let folder = TempDir::new().unwrap();
    target(seeds, mutations, move |input| {
        let path = folder.path().join(name);
        fs::write(&path, input).unwrap();
        read(&path)
    })
}

/// The codes of all findings, and that each names a place or a file in words that are not too many.
fn codes(found: &Diagnostics) -> String {
    found.iter().fold(String::new(), |mut codes, finding| {
        assert!(finding.to_string().len() < 1 << 16, "a message of {} bytes", finding.to_string().len());
        let _ = write!(codes, "{} ", finding.code());
        codes
    })
}

pub(crate) fn specs() -> Target {
    let seeds = [files("models", ".toml"), files("tests/golden", "spec.toml")].concat();
    target(seeds, OF_TEXT, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return "not text".into() };
        match Source::of_text("spec.toml", text) {
            Err(found) => codes(&found),
            Ok(source) => accepted(&source),
        }
    })
}

/// What is said of a model, which has to be lowered if it is not too large.
fn accepted(source: &Source) -> String {
    let found = codes(&lint::run(&source.ast, &source.model));
    let parameters = tensors(&source.model)
        .iter()
        .map(|tensor| tensor.shape.iter().product::<usize>())
        .fold(0, usize::saturating_add);
    if parameters > PARAMETERS || source.model.blocks.len() > 32 {
        return format!("{found}large");
    }
    pipeline::check(&source.model).expect("what was accepted has a graph");
    format!("{found}{} blocks", source.model.blocks.len())
}

pub(crate) fn configurations() -> Target {
    of_file("config.json", files("tests/huggingface", "config.json"), OF_JSON, |path| {
        match Source::open(path.parent().unwrap(), None) {
            Err(found) => codes(&found),
            Ok(source) => accepted(&source),
        }
    })
}

pub(crate) fn overlays() -> Target {
    let folder = TempDir::new().unwrap();
    fs::copy("tests/huggingface/llama/config.json", folder.path().join("config.json")).unwrap();
    let texts = [
        "version = 1\ngranularity = \"mlp\"\nlayers = [1]\nrouter = { type = \"sigmoid\", bias = true }\n",
        "version = 1\ngranularity = \"block\"\nlayers = [0, 1]\nrouter = { type = \"topk\", density = 0.5 }\n",
    ];
    let seeds = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    target(seeds, OF_TEXT, move |input| {
        let overlay = folder.path().join("skip.toml");
        fs::write(&overlay, input).unwrap();
        match Directory::open(folder.path(), Some(&overlay)) {
            Err(found) => codes(&found),
            Ok(directory) => match Source::of_text("spec.toml", directory.spec()) {
                Err(found) => codes(&found),
                Ok(source) => accepted(&source),
            },
        }
    })
}

pub(crate) fn weights() -> Target {
    let source = Source::of_text("small.toml", std::str::from_utf8(&made("small.toml")).unwrap()).unwrap();
    target(vec![made("small.safetensors")], OF_TENSORS, move |input| {
        match Weights::from_bytes("w.safetensors", input.to_vec(), &source.model) {
            Err(found) => codes(&found),
            Ok(_) => "accepted".into(),
        }
    })
}

pub(crate) fn graphs() -> Target {
    let seeds = [files("tests/golden", ".sir"), files("tests/cases", ".case")].concat();
    target(seeds, OF_TEXT, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return "not text".into() };
        let graph = match text::parse(text) {
            Ok(graph) => graph,
            Err(found) => return words(&found[0].to_string()),
        };
        // What was read is printed so that it is read as the same.
        let printed = graph.to_string();
        let again = text::parse(&printed).unwrap_or_else(|found| panic!("{}\n{printed}", found[0]));
        assert_eq!(again.to_string(), printed);
        match skipc_ir::verify(&graph) {
            Ok(_) => format!("{} nodes", graph.len()),
            Err(found) => words(&found[0].to_string()),
        }
    })
}

/// A message without what is the input's own: what it is about, not which number or name.
fn words(message: &str) -> String {
    let is_plain = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase());
    message.split(' ').filter(is_plain).collect::<Vec<_>>().join(" ")
}

pub(crate) fn artefacts() -> Target {
    target(vec![made("small.skp")], OF_ARTEFACT, |input| {
        let model = match Model::from_bytes(input) {
            Ok(model) => model,
            Err(error) => return error.code().into(),
        };
        let mut found = String::new();
        for target in model.targets() {
            let program = bundle::read_program(&model, &target).and_then(|program| {
                bundle::read_constants(model.artifact(), &program)?;
                for table in bundle::read_host_tables(&model, &program)? {
                    bundle::read_host_code(model.artifact(), &program, table.level)?;
                }
                Ok(program.functions.len())
            });
            let _ = match program {
                Ok(count) => write!(found, "{count} functions "),
                Err(error) => write!(found, "{} {}", error.code(), words(&error.to_string())),
            };
        }
        found
    })
}

pub(crate) fn arrays() -> Target {
    of_file("x.npy", files("tests/golden", ".npy"), OF_BYTES, |path| {
        let mut found = String::new();
        for read in [Sequences::read, Sequences::read_rows] {
            let _ = match read(path, None, Room::Corpus) {
                Ok(sequences) => write!(found, "{} ", sequences.is_batch),
                Err(error) => write!(found, "{} {}", error.code(), words(&error.to_string())),
            };
        }
        found
    })
}

pub(crate) fn traces() -> Target {
    target(vec![made("drawn.trace")], OF_TENSORS, |input| match Trace::parse("x.trace".as_ref(), input) {
        Ok(trace) => format!("{} routers, {} sequences", trace.gates.len(), trace.lengths.len()),
        Err(error) => format!("{} {}", error.code(), words(&error.to_string())),
    })
}

pub(crate) fn tunings() -> Target {
    of_file("t.json", vec![made("tuned.json")], OF_JSON, |path| match Tuning::read(path) {
        Ok(tuning) => format!("{} kernels", tuning.kernels.len()),
        Err(error) => words(&error.to_string()),
    })
}

pub(crate) fn trainings() -> Target {
    let seeds = [files("models/training", ".toml"), files("tests/training", "train.toml")].concat();
    target(seeds, OF_TEXT, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return "not text".into() };
        match read("train.toml", text, folder()) {
            Ok(_) => "accepted".into(),
            Err(found) => codes(&found),
        }
    })
}

pub(crate) fn ptx() -> Target {
    target(files("tests/support/ptx/tests/kernels", ".ptx"), OF_TEXT, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return "not text".into() };
        match skipc_ptx::syntax::parse(text) {
            Ok(module) => format!("{} kernels", module.kernels.len()),
            Err(error) => words(&error.to_string()),
        }
    })
}

/// Files of the tokenizers library, whose vocabulary and steps are anyone's.
pub(crate) fn tokenizers() -> Target {
    of_file("tokenizer.json", files("tests/huggingface", "tokenizer.json"), OF_JSON, |path| {
        let files = LanguageFiles {
            model: PathBuf::from("m.skp"),
            tokenizer: Some(path.into()),
            chat_template: None,
        };
        let tokenizer = match files.tokenizer(64) {
            Ok(tokenizer) => tokenizer,
            Err(error) => return words(&error.to_string()),
        };
        match tokenizer.encode("In the beginning, 1611 — God") {
            Ok(tokens) => format!("{} tokens", tokens.len()),
            Err(error) => words(&error.to_string()),
        }
    })
}

pub(crate) fn templates() -> Target {
    let chats: Vec<Value> =
        serde_json::from_slice(&fs::read("tests/huggingface/chat.json").unwrap()).unwrap();
    let text = |chat: &Value| chat["template"].as_str().unwrap().as_bytes().to_vec();
    let messages = chats[0]["messages"].as_array().unwrap().clone();
    of_file("chat_template.jinja", chats.iter().map(text).collect(), OF_TEXT, move |path| {
        let files = LanguageFiles {
            model: PathBuf::from("m.skp"),
            tokenizer: None,
            chat_template: Some(path.into()),
        };
        match files.chat_template() {
            Ok(Some(template)) => match template.render(&messages) {
                Ok(text) => format!("{} lines", text.lines().count()),
                Err(error) => words(&error.to_string()),
            },
            Ok(None) => "none".into(),
            Err(error) => words(&error.to_string()),
        }
    })
}

pub(crate) fn requests() -> Target {
    let server = server::start(&folder().join("small.skp"));
    let bodies = [
        (
            "completions",
            r#"{"prompt": "God", "max_tokens": 2, "temperature": 0.5, "seed": 1, "stop": ["x"]}"#,
        ),
        (
            "completions",
            r#"{"prompt": [71, 111, 100], "max_tokens": 1, "logprobs": 2, "n": 2, "stream": true}"#,
        ),
        (
            "chat/completions",
            r#"{"messages": [{"role": "user", "content": "God"}], "max_tokens": 1, "user": "me"}"#,
        ),
    ];
    let request = |(path, body): &(&str, &str)| {
        let head = "content-type: application/json\r\nconnection: close";
        format!(
            "POST /v1/{path} HTTP/1.1\r\nhost: x\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let read = ["/health", "/v1/models", "/metrics"]
        .map(|path| format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"));
    let seeds = bodies.iter().map(request).chain(read).map(String::into_bytes).collect();
    target(seeds, OF_REQUESTS, move |input| server.answer(input))
}

/// Of texts, and of the JSON behind the head with a length that fits.
const OF_REQUESTS: &[Mutation] =
    &[server::body, server::body, server::body, OF_TEXT[0], OF_TEXT[2], OF_TEXT[3], OF_TEXT[4]];
