//! `skip_config`: routers of a dense checkpoint.

use std::fs;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use skipc::frontend::source::Source;

use crate::case::{Case, array, compile, open};
use crate::copy::Copy;

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
