//! Sets of sets, which no legal graph has yet and the planner can do.

use skipc_artifact::program::{Head, RowBound};
use skipc_ir::interp::{self, Datum, Env, Free, Weights};
use skipc_ir::{Graph, text};

use super::lower;
use crate::error::PlanError;
use crate::interp::{Mode, States, StepInput, Tiling, run_function};
use crate::kernel::WeightLayout;
use crate::plan::{ConstantSource, Options, Plan};
use skipc_artifact::target::DType;

const HEAD: &str = r#"graph "nested" {
  %t = input {port=tokens}
  %p = input {port=positions}
  %s = input {port=sequences}
  %table = weight {name="table", shape=[5, 4]}
  %x = embed %table, %t
  %s0 = route_random %p, %s {set=c0, seed=1, block=0, limit=3000000000}
  %p0 = gather %p, %s0
  %q0 = gather %s, %s0
  %s1 = route_random %p0, %q0 {set=c1, seed=2, block=0, limit=2000000000}
  %h0 = gather %x, %s0
  %h1 = gather %h0, %s1
"#;

fn plan(rest: &str) -> (Graph, Result<Plan, PlanError>) {
    let graph = text::parse(&format!("{HEAD}{rest}\n}}")).expect("a graph");
    let options = Options {
        dtype: DType::F32,
        layout: WeightLayout::Rows,
        max_tokens: 64,
        max_positions: 64,
        vocab_size: 5,
        head: Head::Tokens,
        class_token: false,
        logits: 5,
    };
    let plan = lower(&graph, &options, true);
    (graph, plan)
}

struct Table;

impl Weights<f64> for Table {
    fn weight(&self, _: &str) -> Option<Vec<f64>> {
        Some((0..20).map(|idx| f64::from(idx) / 8.0 - 1.0).collect())
    }
}

#[test]
fn rows_of_rows_of_a_set() {
    let (graph, plan) = plan(
        r#"  %g = gelu %h1
  %y1 = add %g, %h1
  %y0 = scatter %h0, %y1, %s1
  %y = scatter %x, %y0, %s0
  %logits = matmul %y, %table
  return logits = %logits"#,
    );
    let plan = plan.expect("a plan");
    crate::verify(&plan).unwrap_or_else(|errors| panic!("{}\n{plan}", errors[0]));
    let batch = interp::FlatBatch::from_sequences([&[0, 1, 2, 3, 4, 3, 2, 1, 0, 4, 1, 3][..]]);
    let env = Env { batch: &batch, tensors: Default::default(), weights: &Table, routing: &Free };
    let wanted = skipc_ir::run::<f64>(&graph, &env).expect("a value");
    let Some((_, Datum::Real { data: wanted, .. })) = wanted.first() else { panic!("no logits") };
    let table =
        Table.weight("").into_iter().flatten().flat_map(|value| (value as f32).to_le_bytes()).collect();
    let constants: Vec<Vec<u8>> = plan
        .constants
        .iter()
        .map(|constant| match constant.source {
            ConstantSource::Zero => vec![0; 4],
            _ => Vec::clone(&table),
        })
        .collect();
    let numbers = |values: &[i64]| values.iter().map(|value| *value as u32).collect();
    let batch = StepInput {
        tokens: numbers(&batch.tokens),
        positions: numbers(&batch.positions),
        sequences: numbers(&batch.sequences),
        ..StepInput::default()
    };
    let got = run_function(
        &plan.kernels,
        &plan.function,
        &constants,
        &mut States::default(),
        &batch,
        (Mode::Arena, Tiling::of(3)),
    );
    let got = got.unwrap_or_else(|fault| panic!("{fault}\n{plan}"));
    assert_eq!(wanted.len(), got.logits.len());
    for (wanted, got) in wanted.iter().zip(&got.logits) {
        assert!((wanted - f64::from(*got)).abs() < 1e-5, "{got} is not {wanted}\n{plan}");
    }
    // The inner rows are written over, so that they lie in a buffer of their own.
    assert!(
        plan.function
            .buffers
            .iter()
            .any(|buffer| { buffer.name.ends_with(" gather") && buffer.rows == RowBound::Tokens })
    );
}

/// A view takes one row list; the positions of a set of a set would need two.
#[test]
fn integers_of_a_set_of_a_set_are_refused() {
    let (_, plan) = plan(
        r#"  %p1 = gather %p0, %s1
  %r1 = rope %h1, %p1 {heads=1, theta=10.0}
  %y0 = scatter %h0, %r1, %s1
  %y = scatter %x, %y0, %s0
  %logits = matmul %y, %table
  return logits = %logits"#,
    );
    let error = plan.expect_err("it is refused").to_string();
    assert!(error.starts_with("no kernel can copy integers of a set of a set"), "{error}");
}
