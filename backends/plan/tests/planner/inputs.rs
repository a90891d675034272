//! Inputs and results of a name of their own in the planned kernels.

use std::collections::BTreeMap;

use skipc_ir::interp::{Datum, Env, FlatBatch, Free, Gf61, Ring32};
use skipc_ir::{Legal, Role, legalize, text};
use skipc_plan::interp::{
    Constants, Element, Fault, Mode, Outcome, States, StepInput, Tensor, Tiling, run_plan_in,
};
use skipc_plan::{Plan, verify};
use skipc_testkit::input_graph::{EVERY, ROWS_OF_SET, SET, SIZES, TEXT, data, tensors};

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
    let graph = legal.graph();
    for (n, every) in SIZES.into_iter().flat_map(|n| EVERY.map(|every| (n, every))) {
        let tensors = tensors(graph, n, every);
        let batch = FlatBatch::from_sequences([&vec![0; n][..]]);
        let weights = GraphWeights(graph);
        let env =
            Env { batch: &batch, tensors: data::<N>(graph, n, &tensors), weights: &weights, routing: &Free };
        let wanted = skipc_ir::run::<N>(graph, &env).expect("values");
        let got = run::<N>(legal, plan, &step(n, tensors), mode)
            .unwrap_or_else(|fault| panic!("{n} tokens, every {every}: {fault}\n{plan}"));
        let n_results = wanted.iter().filter(|(role, _)| matches!(role, Role::Result { .. })).count();
        assert_eq!(got.results.len(), n_results);
        for (role, datum) in wanted {
            match (role, datum) {
                (Role::Logits, Datum::Real { data, .. }) => assert!(got.logits == data, "{n}, every {every}"),
                (Role::Decision { .. }, Datum::Mask(mask)) => assert_eq!(got.gates[0].mask, mask, "{n}"),
                (Role::Result { name }, datum) => {
                    let wanted = match datum {
                        Datum::Real { data, .. } => Tensor::Reals(data),
                        Datum::Ints(ints) => Tensor::Ints(ints.iter().map(|int| *int as u32).collect()),
                        Datum::Mask(mask) => Tensor::Mask(mask),
                        Datum::Set { .. } | Datum::Partition { .. } => panic!("{name} is a set"),
                    };
                    assert!(got.results[&name] == wanted, "{name}, {n}, every {every}");
                }
                (role, datum) => panic!("{role}: {datum:?}"),
            }
        }
    }
}

#[test]
fn kernels_compute_with_what_the_caller_gives() {
    for text in [TEXT, SET, ROWS_OF_SET] {
        let legal = legalized(text);
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
}

/// What the kernels say of inputs that were changed, for three tokens of which every second is chosen.
fn refused(text: &str, change: &dyn Fn(&mut BTreeMap<String, Tensor>)) -> String {
    let legal = legalized(text);
    let plan = skipc_plan::build(&legal, &options()).expect("a plan");
    let mut tensors = tensors(legal.graph(), 3, 2);
    change(&mut tensors);
    run::<f32>(&legal, &plan, &step(3, tensors), Mode::Arena).expect_err("it does not fit").to_string()
}

#[test]
fn what_is_not_given_or_does_not_fit_is_refused() {
    let missing = refused(TEXT, &|tensors| drop(tensors.remove("more")));
    assert!(missing.contains("unknown input `more`"), "{missing}");
    let short = refused(TEXT, &|tensors| drop(tensors.insert("x".into(), Tensor::Reals(vec![0.0; 8]))));
    assert!(short.contains("`input x` has 8 elements, not 12"), "{short}");
    let other = refused(TEXT, &|tensors| drop(tensors.insert("flags".into(), Tensor::Ints(vec![0; 3]))));
    assert!(other.contains("`input flags` holds u8"), "{other}");
    let order = refused(SET, &|tensors| drop(tensors.insert("set".into(), Tensor::Ints(vec![2, 0]))));
    assert!(order.contains("its rows ascend and are below the 3 tokens"), "{order}");
    let beyond = refused(SET, &|tensors| drop(tensors.insert("set".into(), Tensor::Ints(vec![0, 3]))));
    assert!(beyond.contains("its rows ascend and are below the 3 tokens"), "{beyond}");
    let few = refused(SET, &|tensors| drop(tensors.insert("set".into(), Tensor::Ints(vec![2]))));
    assert!(few.contains("`input added` has 8 elements, not 4"), "{few}");
}

fn unplanned(lines: &str) -> String {
    let head = r#"graph "g" {
  %x = input {port=input "x"} : real[n, 4]
  %w = weight {name="w", shape=[5, 4]}"#;
    let legal = legalized(&format!("{head}\n{lines}\n}}"));
    skipc_plan::build(&legal, &options()).expect_err("no plan").to_string()
}

/// How many rows it has nobody knows before the step.
#[test]
fn an_input_over_the_rows_of_a_set_that_the_step_decides_is_an_error_that_names_it() {
    let error = unplanned(
        r#"  %z = input {port=input "z"} : f32[n, 1]
  %s = route %z {set=c0, at_least=0.0}
  %e = executed %s
  %h = input {port=input "h"} : real[c0, 4]
  %o = scatter %x, %h, %s
  %logits = matmul %o, %w
  return logits = %logits, decision 0 = %e"#,
    );
    assert!(error.contains("an input over the rows of a set that the model decides"), "{error}");
    assert!(error.contains("port=input \"h\""), "{error}");
}

#[test]
fn an_input_with_rows_of_the_caches_is_an_error_that_names_it() {
    let error = unplanned(
        r#"  %h = input {port=input "h"} : real[m, 4]
  %logits = matmul %x, %w
  return logits = %logits, result "h" = %h"#,
    );
    assert!(error.contains("an input with a row for each token of the caches"), "{error}");
    assert!(error.contains("port=input \"h\""), "{error}");
}

#[test]
fn what_the_caller_chooses_is_no_decision() {
    let error = unplanned(
        r#"  %s = input {port=input "s"} : tokens<c0 <= n>
  %e = executed %s
  %logits = matmul %x, %w
  return logits = %logits, decision 0 = %e"#,
    );
    assert!(error.contains("decide by a set that the caller gives"), "{error}");
}
