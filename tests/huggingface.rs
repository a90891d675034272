//! Directories as Hugging Face has them: the logits and tokens of transformers or of a method's published rule, the same
//! artefact as from a spec, and an error of its own for each way in which a directory can be wrong.
//! `tests/huggingface/make.py` and `tests/huggingface/make_routed.py` say where they come from.
#![cfg(feature = "cranelift")]

#[path = "huggingface/case.rs"]
mod case;
#[path = "huggingface/command.rs"]
mod command;
#[path = "huggingface/configuration.rs"]
mod configuration;
#[path = "huggingface/copy.rs"]
mod copy;
#[path = "huggingface/routed.rs"]
mod routed;
#[path = "huggingface/skips.rs"]
mod skips;
#[path = "huggingface/wrong.rs"]
mod wrong;

#[cfg(feature = "llvm")]
use skipc::driver::backends::CpuBackend;
#[cfg(feature = "llvm")]
use skipc::driver::pipeline::Request;
use skipc::frontend::spec;
use skipc::frontend::weights::Weights;
#[cfg(feature = "llvm")]
use skipc_runtime::Model;

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::case::{Case, compile, names, open, request, root};

#[test]
fn every_directory_gives_its_logits_decisions_and_tokens() {
    for name in names() {
        let case = Case::of(&name);
        let (source, weights) = open(&case.folder);
        let artefact = compile(&source, &weights);
        let gates = case.check_logits(&artefact, "logits.npy");
        case.check_gates(&gates);
        case.check_tokens(&artefact);
        case.check_interpreter(&source.model, &weights);
    }
}

/// The same by LLVM, at the highest level that the processor has.
#[cfg(feature = "llvm")]
#[test]
fn every_directory_gives_its_logits_and_decisions_by_llvm() {
    for name in names() {
        let case = Case::of(&name);
        let (source, weights) = open(&case.folder);
        let request = Request { cpu_backend: CpuBackend::Llvm, steps: false, ..request() };
        let artefact = skipc::compile(&source.model, &weights, &request).unwrap();
        let gates = case.check_logits(&Model::from_bytes(&artefact).unwrap(), "logits.npy");
        case.check_gates(&gates);
    }
}

/// The spec that is printed with the tensors renamed is the same compile, byte by byte.
#[test]
fn a_spec_with_renamed_tensors_gives_the_same_artefact() {
    for name in [
        "llama3",
        "gemma3",
        "phi3",
        "gpt2",
        "qwen2-skip",
        "vit",
        "mixtral-fused",
        "flexidepth",
        "skipgpt",
        "d-llm",
        "mor",
    ] {
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
