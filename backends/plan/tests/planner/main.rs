//! The planner: what it fuses, which buffers it shares, and that the planned kernels compute the graph.

mod check;

mod fusion;
mod in_place;
mod inputs;
mod numbers;
mod random;
mod ranked;
mod refusals;
mod residence;
mod states;
mod text;
mod verify;

use skipc_artifact::program::Head;
use skipc_artifact::target::DType;
use skipc_ir::{Graph, Legal, legalize};
use skipc_plan::kernel::WeightLayout;
use skipc_plan::{Options, Plan};

/// A legal graph from the lines of its text form. Columns of the logits: 5.
fn legal(lines: &str) -> Legal {
    let text = format!("graph \"test\" {{\n{lines}\n}}");
    let graph: Graph = skipc_ir::text::parse(&text).unwrap_or_else(|errors| panic!("{}\n{text}", errors[0]));
    legalize(graph).unwrap_or_else(|errors| panic!("{}\n{text}", errors[0]))
}

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

/// The fused plan, verified and checked by its numbers; the unfused one as well.
fn plan(lines: &str) -> Plan {
    let legal = legal(lines);
    check::check(&legal, &skipc_plan::build_unfused(&legal, &options()).expect("a plan"));
    let plan = skipc_plan::build(&legal, &options()).expect("a plan");
    check::check(&legal, &plan);
    plan
}

/// Names of the kernels without their numbers, one a step.
fn steps(plan: &Plan) -> Vec<&str> {
    let symbol = |kernel: u32| plan.kernels[kernel as usize].0.as_str();
    plan.function.steps.iter().map(|step| symbol(step.kernel).split_once('_').expect("a number").1).collect()
}

/// Inputs, and an embedding `%x` of 4 columns.
const HEAD: &str = r#"
  %t = input {port=tokens}
  %p = input {port=positions}
  %s = input {port=sequences}
  %table = weight {name="table", shape=[5, 4]}
  %x = embed %table, %t
"#;

/// A router over `%x` with its set `%set` and gate.
const ROUTER: &str = r#"
  %wr = weight {name="router", shape=[2, 4]}
  %z = router_logits %x, %wr
  %z0 = slice %z {start=0, len=1}
  %z1 = slice %z {start=1, len=1}
  %margin = sub %z1, %z0
  %set = route %margin {set=c0, at_least=0.0}
  %gate = executed %set
"#;
