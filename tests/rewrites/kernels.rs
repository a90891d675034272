//! What rules and planner together make of whole models: how many kernels there are of a kind.

use skipc::driver::backends::{self, CpuBackend};
use skipc::driver::pipeline;
use skipc::frontend::lower::{Function, Skipping, lower};
use skipc::frontend::spec;
use skipc_artifact::target::{DType, Target};
use skipc_passes::{Options, default_pipeline, run_reported};

/// Names of the kernels of a model of 8 columns with these blocks, one a step.
fn steps(blocks: &str) -> Vec<String> {
    let text = format!(
        r#"
[model]
name = "pinned"
vocab_size = 13
d_model = 8
max_positions = 32
{blocks}
[[stack]]
blocks = ["a"]
"#
    );
    let model = spec::model("pinned.toml", &text).unwrap_or_else(|found| panic!("{found:?}"));
    let graph = lower(&model, Skipping::Gathered, Function::Score).expect("it lowers");
    let ran = run_reported(graph, &default_pipeline(), &Options::default(), &mut |_, _| {});
    let legal = skipc_ir::legalize(ran.expect("the passes run").0).expect("legal");
    let layout = backends::layout(&Target::Cpu, CpuBackend::default(), DType::F32);
    let options = pipeline::plan_options(&model, (DType::F32, layout), 64);
    let plan = skipc_plan::build(&legal, &options).expect("a plan");
    let symbol = |kernel: u32| plan.kernels[kernel as usize].0.as_str();
    let name = |kernel: u32| symbol(kernel).split_once('_').expect("a number").1.to_owned();
    plan.function.steps.iter().map(|step| name(step.kernel)).collect()
}

/// How many of these kernels are matmuls, of experts or of all rows.
fn n_matmuls(steps: &[String]) -> usize {
    steps.iter().filter(|name| name.contains("gemm")).count()
}

/// How many take the root mean square of a row.
fn n_norms(steps: &[String]) -> usize {
    steps.iter().filter(|name| name.contains("rms")).count()
}

const EXPERTS: &str = r#"{ kind = "experts", experts = 3, d_ff = 5, activation = "swiglu" }"#;

/// A layer of experts beside attention that reads the same norm takes no matmul for its router: that is in the kernel of keys and
/// values, whether queries are there, too, or the router of a skip. Where all of the block is skipped it is with the queries.
#[test]
fn a_router_of_experts_joins_the_matmul_of_keys_and_values() {
    let skip = r#"skip = { router = "gumbel", density = 0.5 }"#;
    let attention = r#"kind = "attention", heads = 2, kv_heads = 1"#;
    for (of_block, of_attention, joined) in [
        ("", String::new(), &["gemm_8x4_8_4_3"][..]),
        ("", format!(", {skip}"), &["gemm_8x4_4_1_by_2_3"]),
        (skip, String::new(), &["gemm_8x4_4_1_by_2", "gemm_8x3_8"]),
    ] {
        let block = |layers: &str| {
            steps(&format!(
                "[block.a]\nlayout = \"parallel_one_norm\"\n{of_block}\nlayers = [{{ {attention}{of_attention} }}{layers}]"
            ))
        };
        let (alone, both) = (block(""), block(&format!(", {EXPERTS}")));
        assert!(joined.iter().all(|joined| both.iter().any(|name| name == joined)), "{both:?}");
        // The layer's own two matmuls are all that it costs; the block has one norm, as the head has.
        assert_eq!(n_matmuls(&both), n_matmuls(&alone) + 2, "{both:?} {alone:?}");
        assert_eq!(n_norms(&both), 2, "{both:?}");
    }
}

/// A light branch, a heavy one and their router have norms with gains of their own, of one root mean square.
#[test]
fn light_and_heavy_branches_take_one_root_mean_square() {
    let ffn = |d_ff: usize, more: &str| {
        format!(r#"{{ kind = "ffn", d_ff = {d_ff}, activation = "swiglu"{more} }}"#)
    };
    for combine in ["either", "sum", "add"] {
        let otherwise = match combine {
            "add" => String::new(),
            _ => format!(", otherwise = [{}]", ffn(3, "")),
        };
        let skip =
            format!(r#", skip = {{ router = "sigmoid", density = 0.5, combine = "{combine}"{otherwise} }}"#);
        let steps = steps(&format!("[block.a]\nlayers = [{}]", ffn(12, &skip)));
        // One for all of them and one for the head.
        assert_eq!(n_norms(&steps), 2, "{combine}: {steps:?}");
    }
}

/// Tokens that take a copy of their row are in no list of a matmul, and a choice that gives nothing is in none at all.
#[test]
fn choices_that_are_no_experts_cost_no_matmul() {
    let of = |more: &str| {
        steps(&format!(
            r#"[block.a]
layers = [{{ kind = "experts", experts = 3, d_ff = 5, activation = "gelu"{more} }}]"#
        ))
    };
    let (alone, copies, zeros) = (of(""), of(", copy = 2"), of(", zero = 2"));
    assert_eq!(n_matmuls(&copies), n_matmuls(&alone), "{copies:?}");
    let of_experts = |steps: &[String]| {
        steps.iter().filter(|name| name.starts_with("grouped") || name.starts_with("partition_3")).count()
    };
    // The lists and weights of experts are those of three.
    assert_eq!(of_experts(&copies), of_experts(&alone), "{copies:?}");
    assert_eq!(zeros.len(), alone.len(), "{zeros:?}");
    assert_eq!(n_matmuls(&zeros), n_matmuls(&alone), "{zeros:?}");
}

/// Linear steps one behind the other, and the router's weight behind them, are one matrix: no step of such a decider costs a
/// matmul.
#[test]
fn linear_steps_of_a_decider_are_one_matmul() {
    let of = |decider: &str| {
        steps(&format!(
            r#"[block.a]
skip = {{ router = "sigmoid", density = 0.5, decider = [{decider}] }}
layers = [{{ kind = "ffn", d_ff = 12, activation = "gelu" }}]"#
        ))
    };
    let one = of("{ linear = 7 }");
    assert!(one.iter().any(|name| name == "gemm_8x1"), "{one:?}");
    assert_eq!(of("{ linear = 7 }, { linear = 5 }"), one);
    let behind = of(r#"{ activation = "tanh" }"#);
    assert!(behind.iter().any(|name| name == "gemm_8x1"), "{behind:?}");
    assert_eq!(of(r#"{ activation = "tanh" }, { linear = 7 }, { linear = 5 }"#), behind);
    // What stands between two linear steps keeps them apart.
    let apart = of(r#"{ linear = 7 }, { activation = "tanh" }, { linear = 5 }"#);
    assert_eq!(n_matmuls(&apart), n_matmuls(&one) + 1, "{apart:?}");
}
