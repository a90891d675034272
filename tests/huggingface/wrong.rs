//! Files that are wrong: an error of its own for each way.

use std::fs;

use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::case::{Case, compile, names, open, root};
use crate::copy::{Copy, named};

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
        // Blocks that run several times may stand in a file once, and are another test's.
        let is_one =
            |name: &str| name.contains(".0.") && !name.contains(".block.0.") && !name.contains(".block.1.");
        let mut oblong = read.iter().filter(|(name, view)| is_one(name) && is_oblong(view.shape()));
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
            let key = match case.as_str() {
                "gpt2" => "n_head",
                "d-llm" => "n_heads",
                _ => "num_attention_heads",
            };
            assert!(text[key].is_u64(), "{case}: {key}");
            text[key] = json!(5);
        });
        let found = other_heads.found().expect_err(&case);
        let code = found.iter().next().unwrap().code();
        assert!(["spec::head_split", "spec::heads", "weights::shape"].contains(&code), "{case}: {found}");
    }
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
