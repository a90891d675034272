//! Inputs of a name of their own in the planned kernels.

use std::collections::BTreeMap;

use skipc_ir::interp::{Datum, Env, FlatBatch, Free, Gf61, Ring32};
use skipc_ir::{Legal, Role, legalize, text};
use skipc_plan::interp::{
    Constants, Element, Fault, Mode, Outcome, States, StepInput, Tensor, Tiling, run_plan_in,
};
use skipc_plan::{Plan, verify};
use skipc_testkit::input_graph::{EVERY, SIZES, TEXT, data, tensors};

use crate::check::GraphWeights;
use crate::options;

fn legalized(text: &str) -> Legal {
    legalize(text::parse(text).expect("a graph")).expect("a legal graph")
}

fn step(n: usize, tensors: BTreeMap<String, Tensor>) -> StepInput {
    let positions: Vec<u32> = (0..n as u32).collect();
    StepInput { tokens: vec![0; n], positions, sequences: vec![0; n], tensors, ..StepInput::default() }
}

fn run<N: Element>(legal: &Legal, plan: &Plan, step: &StepInput, mode: Mode) -> Result<Outcome<N>, Fault> {
    let places = (mode, Tiling { rows: 7, reversed: true });
    let constants = Constants::of(plan, &GraphWeights(legal.graph())).expect("all weights are there");
    run_plan_in::<N>(plan, &constants, &mut States::default(), step, places)
}

fn takes<N: Element>(legal: &Legal, plan: &Plan, mode: Mode) {
    for (n, every) in SIZES.into_iter().flat_map(|n| EVERY.map(|every| (n, every))) {
        let tensors = tensors(n, every);
        let batch = FlatBatch::from_sequences([&vec![0; n][..]]);
        let weights = GraphWeights(legal.graph());
        let env = Env { batch: &batch, tensors: data::<N>(&tensors), weights: &weights, routing: &Free };
        let wanted = skipc_ir::run::<N>(legal.graph(), &env).expect("values");
        let got = run::<N>(legal, plan, &step(n, tensors), mode)
            .unwrap_or_else(|fault| panic!("{n} tokens, every {every}: {fault}\n{plan}"));
        for (role, datum) in wanted {
            match (role, datum) {
                (Role::Logits, Datum::Real { data, .. }) => assert!(got.logits == data, "{n}, every {every}"),
                (Role::Decision { .. }, Datum::Mask(mask)) => assert_eq!(got.gates[0].mask, mask, "{n}"),
                (role, datum) => panic!("{role}: {datum:?}"),
            }
        }
    }
}

#[test]
fn kernels_compute_with_what_the_caller_gives() {
    let legal = legalized(TEXT);
    let plans = [skipc_plan::build(&legal, &options()), skipc_plan::build_unfused(&legal, &options())];
    for plan in plans {
        let plan = plan.expect("a plan");
        verify(&plan).unwrap_or_else(|errors| panic!("{}\n{plan}", errors[0]));
        for mode in [Mode::Separate, Mode::Arena] {
            takes::<Ring32>(&legal, &plan, mode);
            takes::<Gf61>(&legal, &plan, mode);
        }
    }
}

#[test]
fn what_is_not_given_or_does_not_fit_is_refused() {
    let legal = legalized(TEXT);
    let plan = skipc_plan::build(&legal, &options()).expect("a plan");
    let refused = |change: &dyn Fn(&mut BTreeMap<String, Tensor>)| {
        let mut tensors = tensors(3, 2);
        change(&mut tensors);
        run::<f32>(&legal, &plan, &step(3, tensors), Mode::Arena).expect_err("it does not fit").to_string()
    };
    let missing = refused(&|tensors| drop(tensors.remove("more")));
    assert!(missing.contains("unknown input `more`"), "{missing}");
    let short = refused(&|tensors| drop(tensors.insert("x".into(), Tensor::Reals(vec![0.0; 8]))));
    assert!(short.contains("`input x` has 8 elements, not 12"), "{short}");
    let other = refused(&|tensors| drop(tensors.insert("flags".into(), Tensor::Ints(vec![0; 3]))));
    assert!(other.contains("`input flags` holds u8"), "{other}");
}

/// Rows of a set that the caller chooses have no place in a function's interface.
#[test]
fn an_input_over_the_rows_of_a_set_is_an_error_that_names_it() {
    let legal = legalized(
        r#"graph "g" {
  %x = input {port=input "x"} : real[n, 4]
  %s = input {port=input "s"} : tokens<c0 <= n>
  %h = input {port=input "h"} : real[c0, 4]
  %w = weight {name="w", shape=[5, 4]}
  %o = scatter %x, %h, %s
  %logits = matmul %o, %w
  return logits = %logits
}"#,
    );
    let error = skipc_plan::build(&legal, &options()).expect_err("rows of a set").to_string();
    assert!(
        error.contains("a set, or the rows of a set, as an input") && error.contains("port=input"),
        "{error}"
    );
}
