//! Checkpoints of published methods: how each is known, what is said of what its own code does otherwise, and what is refused.

use serde_json::{Value, json};
use skipc::frontend::source::Source;

use crate::case::{Case, compile, open};
use crate::copy::{Copy, named};

/// What a method makes of a directory, as a spec has it.
#[track_caller]
fn check_spec(name: &str, settings: &[&str]) {
    let source =
        Source::open(Copy::of(name).0.path(), None).unwrap_or_else(|found| panic!("{name}: {found}"));
    let spec = source.model.to_string();
    settings.iter().for_each(|setting| assert!(spec.contains(setting), "{name}: no `{setting}` in\n{spec}"));
}

#[test]
fn methods_are_known_settings_of_a_spec() {
    // Their comparison is strict: the least probability above a half executes.
    let flexidepth =
        ["threshold = 0.5000000596046448", "gate = \"scaled_last\"", "input = \"normed\"", "d_ff = 4"];
    check_spec("flexidepth", &flexidepth);
    check_spec("flexidepth-qwen3", &["qk_norm = \"head\"", "bias = true", "gate = \"scaled_last\""]);
    check_spec("skipgpt", &["decide = \"entry\"", "{ linear = 4, bias = true }", "input = \"raw\""]);
    check_spec(
        "mindskip",
        &["{ pool = \"mean\" }", "threshold = 0.45", "generate = \"prefill\"", "density = 0.5"],
    );
    check_spec("router-tuning-mlp", &["decide = \"entry\"", "{ norm = \"rmsnorm\" }"]);
    check_spec("d-llm", &["force_first = 2", "kv = \"active\"", "d_ff = 48", "{ linear = 6, bias = true }"]);
    check_spec(
        "mor",
        &["share = true", "round = \"down\"", "nested = true", "gate_factor = 0.1", "kv = \"active\""],
    );
    check_spec("mor-shared-kv", &["kv = \"first\"", "density = [1.0, 0.55]", "predictor = [{ linear = 32 }"]);
}

/// What a checkpoint's own code does otherwise is said, once, with its place; of the others nothing is.
#[test]
fn what_differs_is_said() {
    for (name, words) in [
        ("flexidepth", &[][..]),
        ("flexidepth-qwen3", &[]),
        ("skipgpt", &["SkipGPT", "noise"]),
        ("skipgpt-gemma2", &["SkipGPT", "noise"]),
        ("mindskip", &["Router-Tuning", "prompt"]),
        ("router-tuning-mlp", &[]),
        ("router-tuning-block", &[]),
        ("d-llm", &[]),
        ("mor", &["MoR", "every recursion"]),
        ("mor-shared-kv", &["MoR", "every recursion"]),
    ] {
        let notes = Copy::of(name).found().unwrap_or_else(|found| panic!("{name}: {found}"));
        let notes: Vec<_> = notes.iter().collect();
        assert_eq!(notes.len(), usize::from(!words.is_empty()), "{name}: {notes:?}");
        for note in notes {
            assert_eq!(note.code(), "config::differs", "{name}");
            assert!(words.iter().all(|word| note.to_string().contains(word)), "{note}");
            assert_eq!(note.labels().len(), 1, "{name}");
        }
    }
}

/// By `model_type`, by `architectures`, by a key, or by tensors, whichever there is.
#[test]
fn methods_are_known_by_any_of_their_marks() {
    let check = |name: &str, change: &dyn Fn(&mut Value)| {
        let copy = Copy::of(name);
        let model = Source::open(copy.0.path(), None).unwrap().model;
        copy.config(change);
        let source = Source::open(copy.0.path(), None).unwrap_or_else(|found| panic!("{name}: {found}"));
        assert!(source.model == model, "{name}");
    };
    let without =
        |key: &'static str| move |config: &mut Value| drop(config.as_object_mut().unwrap().remove(key));
    check("flexidepth", &|config| config["model_type"] = json!("llama"));
    check("flexidepth", &without("architectures"));
    check("skipgpt", &|config| config["architectures"] = json!(["LlamaMoDForCausalLM"]));
    check("skipgpt-gemma2", &without("architectures"));
    check("mor", &without("architectures"));
    check("mor", &|config| config["kv_sharing"] = json!(null));
    check("mindskip", &without("granularity"));
    // Without its marks it is the family alone, and the method's tensors are left over.
    let bare = Copy::of("router-tuning-block");
    bare.config(without("is_mod")).fails("weights::extra", &["router.weight"]);
}

/// What only somebody who knows the training can say is asked for, with what to write.
#[test]
fn missing_facts_are_asked_for() {
    let without = |name: &str, key: &str| {
        let copy = Copy::of(name);
        copy.config(|config| drop(config.as_object_mut().unwrap().remove(key)));
        copy
    };
    for key in ["mor", "recursive"] {
        let copy = without("mor", key);
        copy.fails("spec::missing_key", &["MoR", key]);
        let found = serde_json::to_value(copy.found().err().unwrap().iter().next().unwrap()).unwrap();
        let help = found["help"].as_str().unwrap();
        assert!(help.contains("conf/pretrain") && help.contains("\"num_recursion\": 3"), "{help}");
    }
    without("flexidepth", "routing_layers").fails("spec::missing_key", &["routing_layers"]);
    without("d-llm", "dim").fails("spec::missing_key", &["dim"]);
}

#[test]
fn settings_of_methods_are_refused_by_name() {
    let wrong = |name: &str, path: &[&str], value: Value, code: &str, word: &str| {
        let copy = Copy::of(name);
        copy.config(|config| {
            let (last, front) = path.split_last().unwrap();
            front.iter().fold(config, |table, key| &mut table[*key])[*last] = value;
        });
        copy.fails(code, &[word]);
    };
    for (name, path, value, code, word) in [
        ("flexidepth", &["routing_layers"][..], json!([4]), "spec::limit", "routing_layers"),
        ("flexidepth", &["routing_layers"], json!([]), "spec::empty", "routing_layers"),
        ("flexidepth", &["routing_layers"], json!([1, 2]), "weights::extra", "layers.3.router"),
        ("flexidepth", &["router_reduction_factor"], json!(2), "weights::shape", "router_enc"),
        ("flexidepth", &["router_reduction_factor"], json!(17), "spec::out_of_range", "hidden_size"),
        ("flexidepth", &["proj_reduction_factor"], json!(4), "weights::shape", "router_proj."),
        ("flexidepth", &["mlp_bias"], json!(true), "weights::missing", "bias"),
        ("flexidepth", &["router_head_bias_init"], json!(0.0), "weights::missing", "router_head.bias"),
        ("flexidepth", &["router_gate_mode"], json!("soft"), "spec::bad_value", "soft"),
        ("flexidepth", &["skip_config"], json!({"version": 1}), "config::unsupported", "skip_config"),
        ("flexidepth", &["model_type"], json!("ddlama"), "config::family", "ddlama"),
        ("flexidepth", &["model_type"], json!("mistral"), "config::unsupported", "mistral as FlexiDepth"),
        ("skipgpt", &["model_type"], json!("qwen3"), "config::unsupported", "qwen3 as SkipGPT"),
        ("mindskip", &["is_mod"], json!([true]), "spec::out_of_range", "is_mod"),
        ("mindskip", &["is_mod"], json!([0, 1, 1]), "spec::wrong_type", "is_mod"),
        ("mindskip", &["is_mod"], json!([true, true, true]), "weights::missing", "layers.0.router"),
        ("mindskip", &["threshold"], json!(1.0), "spec::out_of_range", "threshold"),
        ("mindskip", &["mod_capacity"], json!([0.5, 1.5, 0.5]), "spec::out_of_range", "mod_capacity"),
        ("d-llm", &["multiple_of"], json!(32), "weights::shape", "feed_forward"),
        ("d-llm", &["dynamic_router_hdim"], json!(5), "weights::shape", "router.linear_1"),
        ("d-llm", &["dynamic_start_layer"], json!(2), "weights::extra", "layers.1.router"),
        ("d-llm", &["dynamic_start_layer"], json!(0), "weights::missing", "layers.0.router"),
        ("d-llm", &["vocab_size"], json!(-1), "spec::out_of_range", "vocab_size"),
        ("mor", &["mor", "type"], json!("token"), "config::unsupported", "depth"),
        ("mor", &["mor", "temp"], json!(2.0), "config::unsupported", "temp"),
        ("mor", &["mor", "rand_router"], json!(true), "config::unsupported", "rand_router"),
        ("mor", &["mor", "router_type"], json!("wide"), "spec::bad_value", "wide"),
        ("mor", &["mor", "router_type"], json!("mlp"), "weights::missing", "mor_router.router.0"),
        ("mor", &["mor", "capacity"], json!("1.0,0.5"), "spec::bad_value", "3 shares"),
        ("mor", &["mor", "capacity"], json!("0.5,0.6,0.1"), "spec::bad_value", "above"),
        ("mor", &["mor", "capacity"], json!(0.5), "spec::wrong_type", "capacity"),
        ("mor", &["mor", "expert", "router_func"], json!("tanh"), "config::unsupported", "tanh"),
        ("mor", &["mor", "expert", "sampling"], json!("aux_router"), "weights::missing", "mlp_router"),
        ("mor", &["kv_sharing", "update_cache"], json!(true), "", ""),
        (
            "mor",
            &["kv_sharing"],
            json!({"enable": true, "update_cache": true}),
            "config::unsupported",
            "update_cache",
        ),
        ("mor-shared-kv", &["mor", "capacity"], json!("0.9,0.55"), "config::unsupported", "enable"),
        ("mor", &["recursive", "enable"], json!(false), "config::unsupported", "enable"),
        ("mor", &["recursive", "sharing"], json!("sequence"), "spec::bad_value", "sequence"),
        ("mor", &["recursive", "num_recursion"], json!(2), "weights::missing", "model.layers."),
        ("mor", &["num_hidden_layers"], json!(4), "spec::out_of_range", "too few"),
    ] {
        if code.is_empty() {
            // Without sharing it says nothing.
            let copy = Copy::of(name);
            copy.config(|config| config[path[0]][path[1]] = value);
            copy.found().unwrap();
            continue;
        }
        wrong(name, path, value, code, word);
    }
}

#[test]
fn tensors_of_methods_are_refused_by_name() {
    // The two of the projector have changed places, and another shape in them.
    let swapped = Copy::of("flexidepth");
    swapped.tensors(|tensors| {
        let at = "model.layers.2.router_proj.";
        let up = format!("{at}up_proj.weight");
        named(tensors, &format!("{at}down_proj.weight")).0 = format!("{at}other.weight");
        named(tensors, &up).0 = format!("{at}down_proj.weight");
        named(tensors, &format!("{at}other.weight")).0 = up;
    });
    swapped.fails("weights::shape", &["router_proj.down_proj"]);
    let drop_one = |name: &str, tensor: &str| {
        let copy = Copy::of(name);
        copy.tensors(|tensors| tensors.retain(|(other, ..)| other != tensor));
        copy.fails("weights::missing", &[tensor]);
        let copy = Copy::of(name);
        copy.tensors(|tensors| named(tensors, tensor).1.push(1));
        copy.fails("weights::shape", &[tensor]);
    };
    drop_one("flexidepth", "model.layers.1.router.router_norm.weight");
    drop_one("flexidepth", "model.layers.3.post_attention_layernorm.weight");
    drop_one("skipgpt", "model.layers.2.router_mlp.weight_predictor.bias");
    drop_one("mindskip", "model.layers.2.router.weight");
    drop_one("d-llm", "layers.3.router.linear_2.bias");
    drop_one("d-llm", "layers.0.attention.wq.weight");
    drop_one("mor", "model.layers.3.mor_router.router.weight");
    drop_one("mixtral-fused", "model.layers.1.mlp.experts.gate_up_proj");
    drop_one("qwen2-moe-fused", "model.layers.0.mlp.experts.down_proj");
    let turned = Copy::of("mixtral-fused");
    turned.tensors(|tensors| named(tensors, "model.layers.0.mlp.experts.gate_up_proj").1.swap(1, 2));
    turned.fails("weights::shape", &["gate_up_proj", "[4, 48, 16]"]);
    let lora = Copy::of("d-llm");
    lora.tensors(|tensors| {
        tensors.push(("layers.0.attention.lora_q.linear_A.weight".into(), vec![8, 16], vec![0; 8 * 16 * 2]));
    });
    lora.fails("weights::lora", &["lora_q"]);
}

/// Blocks of later recursions may be left out of a file; if they are there, they are those of the first.
#[test]
fn recursions_share_their_blocks() {
    let case = Case::of("mor");
    for kept in 1..=3 {
        let copy = Copy::of("mor");
        let is_other =
            |name: &str| name.contains(".block.") && !name.starts_with(&format!("model.layers.{kept}."));
        copy.tensors(|tensors| tensors.retain(|(name, ..)| !is_other(name)));
        let (source, weights) = open(copy.0.path());
        case.check_logits(&compile(&source, &weights), "logits.npy");
    }
    let copy = Copy::of("mor");
    copy.tensors(|tensors| named(tensors, "model.layers.3.block.1.mlp.up_proj.weight").2[5] ^= 1);
    copy.fails(
        "weights::shared",
        &["model.layers.1.block.1.mlp.up_proj", "model.layers.3.block.1.mlp.up_proj"],
    );
}

/// A checkpoint with routers of its own takes no others.
#[test]
fn other_routers_are_refused() {
    let folder = Copy::of("skipgpt");
    let overlay = folder.path("skip.toml");
    std::fs::write(&overlay, "version = 1\n").unwrap();
    let found = Source::open(folder.0.path(), Some(&overlay)).err().unwrap();
    assert!(found.to_string().contains("SkipGPT"), "{found}");
    let source = Source::open(folder.0.path(), None).unwrap();
    let made = source.directory.as_ref().unwrap().executing_routers(&source.model);
    assert_eq!(made.err().unwrap().code(), "usage::init");
}
