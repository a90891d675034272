//! States over several steps: what the planned kernels leave for the next step is what the graph leaves.

use std::collections::BTreeMap;

use skipc_ir::Role;
use skipc_ir::interp::{self, Batch as GraphBatch, Datum, Env, Free, Gf61, Ring32};
use skipc_plan::interp::{Batch, Element, Mode, States, Tiling, run_plan_on};
use skipc_plan::verify;

use crate::judge::GraphWeights;
use crate::{HEAD, legal, options};

/// A running sum of what the model makes of tokens.
const SUM: &str = r#"
  %sum = input {port=state "sum"} : state<f32[1, 4]>
  %after = add_rows %sum, %x
  %logits = matmul %x, %table
  return logits = %logits, state "sum" = %after"#;

/// Two of each three positions, whichever step they came in.
const CAPACITY: &str = r#"
  %counts = input {port=state "counts"} : state<int[3]>
  %rw = weight {name="rw", shape=[1, 4]}
  %z = router_logits %x, %rw
  %wanted = route %z {set=c0, at_least=0.0}
  %set = limit_first_after %wanted, %p, %s, %counts {set=c1, group_size=3, slots=1}
  %after = count_groups %counts, %wanted, %p, %s {group_size=3}
  %gate = executed %set
  %all = executed %wanted
  %logits = matmul %x, %table
  return logits = %logits, decision 0 = %gate, wanted 0 = %all, state "counts" = %after"#;

/// Lengths of the sequences of each step: none, one, and those around a tile of 16 rows.
const STEPS: [&[usize]; 7] = [&[17], &[], &[1, 0, 2], &[15, 15, 1], &[16, 0, 16], &[0, 1], &[33, 2, 17]];

fn batch(lengths: &[usize], before: &mut [i64]) -> GraphBatch {
    let sequences: Vec<Vec<i64>> =
        lengths.iter().map(|len| (0..*len as i64).map(|idx| (idx * idx + 1) % 5).collect()).collect();
    let batch = GraphBatch::from_sequences(sequences.iter().map(Vec::as_slice)).behind(before);
    before.iter_mut().zip(lengths).for_each(|(before, len)| *before += *len as i64);
    batch
}

fn keeps<N: Element>(body: &str, mode: Mode, tiling: Tiling) {
    let text = format!("{HEAD}{body}");
    let legal = legal(&text);
    let plan = skipc_plan::build(&legal, &options()).expect("a plan");
    verify(&plan).unwrap_or_else(|errors| panic!("{}\n{plan}", errors[0]));
    let weights = GraphWeights(legal.graph());
    let zeros = legal.graph().signature().states.into_iter();
    let mut graph_states: BTreeMap<Role, Datum<N>> =
        zeros.filter_map(|port| Some((port.role, Datum::zeros(&port.ty)?))).collect();
    let (mut states, mut before) = (States::<N>::default(), [0; 3]);
    for lengths in STEPS {
        let step = batch(lengths, &mut before);
        let tensors = std::mem::take(&mut graph_states);
        let env = Env { batch: &step, tensors, weights: &weights, routing: &Free };
        let wanted = interp::run::<N>(legal.graph(), &env).expect("the graph has a value");
        let numbers = |values: &[i64]| values.iter().map(|value| *value as u32).collect();
        let step = Batch {
            tokens: numbers(&step.tokens),
            positions: numbers(&step.positions),
            sequences: numbers(&step.sequences),
            ..Batch::default()
        };
        let got = run_plan_on(&plan, &weights, &mut states, &step, (mode, tiling));
        let got = got.unwrap_or_else(|fault| panic!("{fault}\n{plan}"));
        for (role, datum) in wanted {
            match (&role, &datum) {
                (Role::Decision { .. }, Datum::Mask(mask)) => {
                    assert_eq!(&got.gates[0].mask, mask, "{lengths:?}")
                }
                (Role::State { name }, Datum::Real { data, .. }) => {
                    assert_eq!(states.reals(name), Some(data.as_slice()), "{lengths:?}");
                }
                (Role::State { name }, Datum::Ints(counts)) => {
                    let bytes: Vec<u8> =
                        counts.iter().flat_map(|count| (*count as u32).to_le_bytes()).collect();
                    assert_eq!(states.bytes(name), Some(bytes.as_slice()), "{lengths:?}");
                }
                _ => {}
            }
            if let Role::State { .. } = role {
                graph_states.insert(role, datum);
            }
        }
    }
}

#[test]
fn states_survive_steps_in_the_planned_kernels() {
    for body in [SUM, CAPACITY] {
        for mode in [Mode::Separate, Mode::Arena] {
            for tiling in [Tiling::of(1), Tiling::of(16), Tiling { rows: 7, reversed: true }] {
                keeps::<Ring32>(body, mode, tiling);
                keeps::<Gf61>(body, mode, tiling);
            }
        }
    }
}

#[test]
fn what_looks_at_a_state_runs_before_what_updates_it() {
    // The update stands first in the text.
    let body = r#"
  %counts = input {port=state "counts"} : state<int[3]>
  %rw = weight {name="rw", shape=[1, 4]}
  %z = router_logits %x, %rw
  %wanted = route %z {set=c0, at_least=0.0}
  %after = count_groups %counts, %wanted, %p, %s {group_size=3}
  %set = limit_first_after %wanted, %p, %s, %counts {set=c1, group_size=3, slots=1}
  %gate = executed %set
  %logits = matmul %x, %table
  return logits = %logits, decision 0 = %gate, state "counts" = %after"#;
    keeps::<Ring32>(body, Mode::Arena, Tiling::of(16));
    let plan = skipc_plan::build(&legal(&format!("{HEAD}{body}")), &options()).expect("a plan");
    let names: Vec<&str> =
        plan.function.steps.iter().map(|step| plan.kernels[step.kernel as usize].0.as_str()).collect();
    let place = |what: &str| names.iter().position(|name| name.contains(what)).expect(what);
    assert!(place("going_on") < place("count_groups"), "{names:?}");
}
