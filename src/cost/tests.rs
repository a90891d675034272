//! One price for an op when forms are chosen and for the kernel that is made of it.

use skipc_artifact::program::Head;
use skipc_artifact::target::DType;
use skipc_ir::text::parse;
use skipc_ir::{Graph, Op, Type, Value, legalize};
use skipc_passes::rewrite::cost::{CPU, Poly, matmul_kernel, time};
use skipc_plan::kernel::WeightLayout;
use skipc_plan::{Options, build_unfused};

use super::{Even, PlanCost};

/// Widths are small, so that what a kernel pays once for an element is not lost beside its multiply-adds.
const GRAPH: &str = r#"graph "prices" {
  %t = input {port=tokens}
  %p = input {port=positions}
  %s = input {port=sequences}
  %table = weight {name="table", shape=[5, 8]}
  %x = embed %table, %t @"embed"
  %gain = weight {name="gain", shape=[8]}
  %w = weight {name="w", shape=[8, 8]}
  %filter = weight {name="filter", shape=[8, 3]}
  %router = weight {name="router", shape=[3, 8]}
  %experts = weight_stack {name="e.*", count=3, shape=[9, 8]}
  %back = weight {name="back", shape=[5, 9]}
  %wide = weight {name="wide", shape=[9, 8]}
  %rms = rms_norm %x, %gain {eps=1e-5} @"rms_norm"
  %layer = layer_norm %rms, %gain, %gain {eps=1e-5} @"layer_norm"
  %linear = matmul %layer, %w
  %attended = attention %linear, %linear, %linear, %p, %s, %p, %s {heads=2, kv_heads=2} @"attention"
  %conv = conv %attended, %filter, %p, %s, %p, %s @"conv"
  %mean = sequence_mean %conv, %s @"sequence_mean"
  %logits = router_logits %mean, %router @"router_logits"
  %choice = choose %logits {k=1, sigmoid=false, normalise=false, scale=1.0} @"choose"
  %index = slice %choice {start=1, len=1}
  %parts = partition %index {set=c0, first=0, parts=3} @"partition"
  %rows = gather %mean, %parts @"grouped_matmul"
  %given = grouped_matmul %rows, %experts, %parts @"grouped_matmul"
  %base = matmul %mean, %wide
  %y = scatter %base, %given, %parts
  %head = matmul %y, %back
  return logits = %head
}"#;

/// The origins of ops that are a kernel each. A grouped matmul's operand is a view, which is in its kernel.
const KERNELS: [&str; 10] = [
    "embed",
    "rms_norm",
    "layer_norm",
    "attention",
    "conv",
    "sequence_mean",
    "router_logits",
    "choose",
    "partition",
    "grouped_matmul",
];

/// How far the two may be apart: a kernel counts the instructions of its epilogue, where an op has only what is moved.
const TOLERANCE: f64 = 0.05;

fn options() -> Options {
    Options {
        dtype: DType::F32,
        layout: WeightLayout::Rows,
        max_tokens: 256,
        max_positions: 64,
        vocab_size: 5,
        head: Head::Tokens,
        class_token: false,
        logits: 5,
    }
}

/// What an op takes as forms are chosen, with the kernel that a matmul shares with others.
fn of_op(graph: &Graph, value: Value) -> Poly {
    let operands = graph.operands(value);
    let types: Vec<&Type> = operands.iter().map(|operand| graph.ty(*operand)).collect();
    let op = graph.op(value);
    let own = time(&CPU, op, &types, graph.ty(value));
    if matches!(op, Op::Matmul {} | Op::RouterLogits {}) { own + matmul_kernel(&CPU, types[0]) } else { own }
}

#[test]
fn an_op_costs_what_its_kernel_does() {
    let legal = legalize(parse(GRAPH).unwrap()).unwrap_or_else(|errors| panic!("{}", errors[0]));
    let graph = legal.graph();
    let plan = build_unfused(&legal, &options()).unwrap();
    let cost = PlanCost::of(&plan, &CPU);
    // All sets have all rows, of a size at which no matmul waits for its weights.
    let counts = Even { tokens: 200.0, density: 1.0 };
    for name in KERNELS {
        let ops = graph.values().filter(|value| graph.origin(*value).to_string() == name);
        let of_ops = ops.fold(0.0, |sum, value| sum + of_op(graph, value).at(&counts));
        let steps = cost.steps.iter().filter(|(origin, _)| origin == name);
        let of_steps: Vec<f64> = steps.map(|(_, step)| cost.step_time(step, &counts)).collect();
        let [of_kernel] = of_steps[..] else { panic!("{name}: {} kernels", of_steps.len()) };
        assert!((of_ops / of_kernel - 1.0).abs() < TOLERANCE, "{name}: {of_ops} and {of_kernel}");
    }
}
