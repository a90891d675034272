//! The command line over directories, and what an artefact has of their tokenizers.
#![cfg(feature = "cli")]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use skipc_runtime::Model;
use skipc_runtime::decode::LanguageFiles;
use tempfile::TempDir;

use crate::case::{Case, root};
use crate::copy::Copy;

/// Templates give what transformers makes of them.
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
#[track_caller]
fn skipc(folder: &Path, args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_skipc")).args(args).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "skipc {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// An artefact has its tokenizer, template and end ids in itself; nothing of the directory is needed any more.
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
