//! States over several steps: what the planned kernels leave for the next step is what the graph leaves.

use std::collections::BTreeMap;

use skipc_ir::interp::{Datum, Env, Free, Gf61, Ring32};
use skipc_ir::{Legal, Role, legalize, text};
use skipc_plan::interp::{Constants, Element, Mode, States, StepInput, Tiling, run_plan_in};
use skipc_plan::{Options, verify};
use skipc_testkit::state_graphs::{self, CACHED_ROWS, CAPACITY, PENDING, SUM, UPDATE_FIRST};

use crate::check::GraphWeights;
use crate::options;

fn legalized(body: &str) -> Legal {
    legalize(text::parse(&state_graphs::text(body)).expect("a graph")).expect("a legal graph")
}

fn keeps<N: Element>(body: &str, mode: Mode, tiling: Tiling) {
    let legal = legalized(body);
    let plan = skipc_plan::build(&legal, &Options { max_positions: 128, ..options() }).expect("a plan");
    verify(&plan).unwrap_or_else(|errors| panic!("{}\n{plan}", errors[0]));
    let weights = GraphWeights(legal.graph());
    let zeros = legal.graph().signature().states.into_iter();
    let mut graph_states: BTreeMap<Role, Datum<N>> =
        zeros.filter_map(|port| Some((port.role, Datum::zeros(&port.ty, CACHED_ROWS as usize)?))).collect();
    let mut states = States::<N>::with_cache(CACHED_ROWS);
    let constants = Constants::of(&plan, &weights).expect("all weights are there");
    for step in state_graphs::steps() {
        let mut tensors = std::mem::take(&mut graph_states);
        tensors.extend(step.tensors());
        let env = Env { batch: &step.batch, tensors, weights: &weights, routing: &Free };
        let wanted = skipc_ir::run::<N>(legal.graph(), &env).expect("the graph has a value");
        let numbers = |values: &[i64]| values.iter().map(|value| *value as u32).collect();
        let step = StepInput {
            tokens: numbers(&step.batch.tokens),
            positions: numbers(&step.batch.positions),
            sequences: numbers(&step.batch.sequences),
            cached: Some(step.cached),
            ..StepInput::default()
        };
        let got = run_plan_in(&plan, &constants, &mut states, &step, (mode, tiling));
        let got = got.unwrap_or_else(|fault| panic!("{fault}\n{plan}"));
        for (role, datum) in wanted {
            match (&role, &datum) {
                (Role::Decision { .. }, Datum::Mask(mask)) => {
                    assert_eq!(&got.gates[0].mask, mask, "{step:?}")
                }
                (Role::State { name }, Datum::Real { data, .. }) => {
                    assert_eq!(states.reals(name), Some(data.as_slice()), "{step:?}");
                }
                (Role::State { name }, Datum::Ints(ints)) => {
                    let bytes: Vec<u8> = ints.iter().flat_map(|int| (*int as u32).to_le_bytes()).collect();
                    assert_eq!(states.bytes(name), Some(bytes.as_slice()), "{step:?}");
                }
                (Role::State { name }, Datum::Mask(mask)) => {
                    let bytes: Vec<u8> = mask.iter().map(|bit| u8::from(*bit)).collect();
                    assert_eq!(states.bytes(name), Some(bytes.as_slice()), "{step:?}");
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
    for body in [SUM, CAPACITY, PENDING] {
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
    keeps::<Ring32>(UPDATE_FIRST, Mode::Arena, Tiling::of(16));
    let plan = skipc_plan::build(&legalized(UPDATE_FIRST), &Options { max_positions: 128, ..options() })
        .expect("a plan");
    let names: Vec<&str> =
        plan.function.steps.iter().map(|step| plan.kernels[step.kernel as usize].0.as_str()).collect();
    let place = |what: &str| names.iter().position(|name| name.contains(what)).expect(what);
    assert!(place("going_on") < place("store_rows"), "{names:?}");
}
