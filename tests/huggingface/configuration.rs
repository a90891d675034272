//! What stands in a configuration: values, keys without a meaning, both ways of writing rotations.

use std::fs;

use serde_json::{Value, json};
use skipc::frontend::source::Source;

use crate::case::{Case, compile, names, open};
use crate::copy::Copy;

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
