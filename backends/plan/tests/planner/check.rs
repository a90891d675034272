//! The oracle: a plan, run by the kernel interpreter, against its graph in f64.

use std::collections::BTreeMap;

use skipc_artifact::target::DType;
use skipc_ir::interp::{self, Datum, Env, Free, Gf61, Number, Ring32, Routing, Weights};
use skipc_ir::{Frequencies, Graph, Legal, Op, Role, SetSym};
use skipc_plan::interp::{
    Constants, Element, Mode, Outcome, States, StepInput, Tiling, run_function, run_plan_in,
};
use skipc_plan::{ConstantSource, Plan, PlanConstant, recipe};

/// Lengths of the sequences of the batches: none, one token, a few sequences.
const BATCHES: [&[usize]; 4] = [&[], &[1], &[3, 1, 7], &[40, 29]];

/// Numbers in [-1, 1) from the name of a weight and the place in it.
struct Noise;

impl Noise {
    fn at(name: &str, idx: usize) -> f64 {
        let seed = name.bytes().fold(17, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        // Steps of 2⁻⁸, so that the same numbers are exact in bf16.
        (skipc_ir::random_score(seed, 0, 0, idx as u64) >> 23) as f64 / 256.0 - 1.0
    }
}

pub(crate) struct GraphWeights<'a>(pub(crate) &'a Graph);

impl<N: Number> Weights<N> for GraphWeights<'_> {
    fn weight(&self, name: &str) -> Option<Vec<N>> {
        let shapes = self.0.order().into_iter().filter_map(|value| {
            let Op::Weight { name: known, shape } = self.0.op(value) else { return None };
            (&*known.0 == name).then(|| shape.0.iter().product::<u32>())
        });
        shapes.max().map(|len| (0..len as usize).map(|idx| N::from_f64(Noise::at(name, idx))).collect())
    }
}

/// Every set with a gate executes the rows whose number this divides.
struct Every<'a> {
    graph: &'a Graph,
    n: usize,
    every: usize,
}

impl Routing for Every<'_> {
    fn forced(&self, set: SetSym, _: usize) -> Option<Vec<bool>> {
        let graph = self.graph;
        let is_gate = |value| {
            matches!(graph.op(value), Op::Executed {})
                && graph.operands(value).first().is_some_and(|of| graph.op(*of).opens() == Some(set))
        };
        graph.decisions().any(|(_, value)| is_gate(value)).then(|| mask(self.n, self.every))
    }
}

fn mask(n: usize, every: usize) -> Vec<bool> {
    (0..n).map(|row| every != 0 && row % every == 0).collect()
}

/// The bytes of a constant.
fn bytes(constant: &PlanConstant, graph: &Graph) -> Vec<u8> {
    let PlanConstant { source, constant } = constant;
    let len = (constant.rows * constant.cols) as usize;
    let table = |frequencies: Frequencies, half: usize, function: fn(f64) -> f64| {
        let angle = |idx: usize| frequencies.angle((idx / half) as i64, idx % half, half);
        (0..len).map(|idx| function(f64::from(angle(idx))) as f32).collect::<Vec<f32>>()
    };
    let values = match source {
        ConstantSource::Zero => vec![0.0; len],
        ConstantSource::Weight { name } => (0..len).map(|idx| Noise::at(name, idx) as f32).collect(),
        ConstantSource::Recipe { steps } => {
            recipe::elements(steps, |name| GraphWeights(graph).weight(name)).expect("weights of the graph")
        }
        ConstantSource::RopeCos { frequencies, half, .. } => table(*frequencies, *half as usize, f64::cos),
        ConstantSource::Forced { first, .. } => {
            (0..len).map(|position| if position < *first as usize { f32::INFINITY } else { 0.0 }).collect()
        }
        ConstantSource::HashChoice { experts, seed, block, n_ids } => {
            let expert = |id: u32| skipc_ir::hash_expert(*seed, *block, id.into(), *experts);
            (0..*n_ids).flat_map(|id| [1.0, expert(id) as f32]).collect()
        }
        ConstantSource::Beginning { .. } => {
            (0..len).map(|position| f32::from(u8::from(position == 0))).collect()
        }
        ConstantSource::RopeSin { frequencies, half, .. } => table(*frequencies, *half as usize, f64::sin),
    };
    let store = |value: &f32| match constant.dtype {
        DType::Bf16 => value.to_le_bytes()[2..].to_vec(),
        _ => value.to_le_bytes().to_vec(),
    };
    values.iter().flat_map(store).collect()
}

/// The plan is well-formed and computes the graph, whatever the tiles, with reuse of memory and without.
pub(crate) fn check(legal: &Legal, plan: &Plan) {
    assert_well_formed(plan);
    for lengths in BATCHES {
        for every in [None, Some(0), Some(1), Some(2)] {
            run(legal, plan, lengths, every, &[Tiling::of(64), Tiling { rows: 3, reversed: true }]);
        }
    }
}

/// As [`check`], over one batch that depends on the seed.
pub(crate) fn check_once(legal: &Legal, plan: &Plan, seed: u64) {
    assert_well_formed(plan);
    let every = [None, Some(0), Some(1), Some(2), Some(3)][(seed % 5) as usize];
    let lengths: &[usize] = [&[3, 1, 7][..], &[1], &[9]][(seed % 3) as usize];
    run(legal, plan, lengths, every, &[Tiling { rows: 3, reversed: true }]);
}

fn assert_well_formed(plan: &Plan) {
    if let Err(errors) = skipc_plan::verify(plan) {
        panic!("{}\n{plan}", errors.iter().map(|error| format!("{error}\n")).collect::<String>());
    }
}

/// Runs sequences of these lengths; each set executes the rows that `every` divides, or those that it chooses itself.
fn run(legal: &Legal, plan: &Plan, lengths: &[usize], every: Option<usize>, tilings: &[Tiling]) {
    let constants: Vec<Vec<u8>> =
        plan.constants.iter().map(|constant| bytes(constant, legal.graph())).collect();
    let sequences: Vec<Vec<i64>> =
        lengths.iter().map(|len| (0..*len as i64).map(|idx| idx * idx % 5).collect()).collect();
    let batch = interp::FlatBatch::from_sequences(sequences.iter().map(Vec::as_slice));
    let n = batch.tokens.len();
    let forced = Every { graph: legal.graph(), n, every: every.unwrap_or(0) };
    let routing: &dyn Routing = if every.is_some() { &forced } else { &Free };
    let env = Env { batch: &batch, tensors: BTreeMap::new(), weights: &GraphWeights(legal.graph()), routing };
    let wanted = skipc_ir::run::<f64>(legal.graph(), &env).expect("the graph has a value");
    let numbers = |values: &[i64]| values.iter().map(|value| *value as u32).collect();
    let planned = StepInput {
        tokens: numbers(&batch.tokens),
        positions: numbers(&batch.positions),
        sequences: numbers(&batch.sequences),
        forced: every.map(|every| vec![mask(n, every); plan.function.interface.routers().len()]),
        ..StepInput::default()
    };
    for mode in [Mode::Separate, Mode::Arena] {
        for tiling in tilings {
            let got = run_function(
                &plan.kernels,
                &plan.function,
                &constants,
                &mut States::default(),
                &planned,
                (mode, *tiling),
            );
            let got = got
                .unwrap_or_else(|fault| panic!("{fault}\n{}\n{plan}", skipc_ir::text::print(legal.graph())));
            compare(&wanted, &got, plan);
        }
        compare_exactly::<Ring32>(legal, plan, routing, &batch, &planned, (mode, tilings[0]));
        compare_exactly::<Gf61>(legal, plan, routing, &batch, &planned, (mode, tilings[0]));
    }
}

/// Where nothing rounds, the plan computes the very numbers of its graph.
fn compare_exactly<N: Element>(
    legal: &Legal,
    plan: &Plan,
    routing: &dyn Routing,
    batch: &interp::FlatBatch,
    planned: &StepInput,
    places: (Mode, Tiling),
) {
    let weights = &GraphWeights(legal.graph());
    let env = Env { batch, tensors: BTreeMap::new(), weights, routing };
    let wanted = skipc_ir::run::<N>(legal.graph(), &env).expect("a value");
    let constants = Constants::<N>::of(plan, weights).expect("all weights are there");
    let got = run_plan_in(plan, &constants, &mut States::default(), planned, places)
        .unwrap_or_else(|fault| panic!("{fault}\n{plan}"));
    for (role, datum) in wanted {
        match (&role, datum) {
            (Role::Logits, Datum::Real { data, .. }) => {
                assert!(data == got.logits, "{role} in an exact domain\n{plan}");
            }
            (Role::Decision { router }, Datum::Mask(mask)) => {
                assert!(mask == got.gates[*router as usize].mask, "{role} in an exact domain\n{plan}");
            }
            _ => {}
        }
    }
}

fn compare(wanted: &interp::Results<f64>, got: &Outcome, plan: &Plan) {
    let tolerance = if plan.dtype == DType::Bf16 { 0.05 } else { 1e-4 };
    for (role, datum) in wanted {
        match (role, datum) {
            (Role::Logits, Datum::Real { data, .. }) => {
                assert_eq!(data.len(), got.logits.len(), "{role}");
                for (idx, (wanted, got)) in data.iter().zip(&got.logits).enumerate() {
                    let error = (wanted - f64::from(*got)).abs() / wanted.abs().max(1.0);
                    assert!(error <= tolerance, "{role}[{idx}] is {got}, not {wanted}\n{plan}");
                }
            }
            (Role::Wanted { router }, Datum::Mask(mask)) => {
                let n_wanted = mask.iter().filter(|wanted| **wanted).count();
                assert_eq!(got.gates[*router as usize].wanted, Some(n_wanted as u32), "{role}");
            }
            (Role::Decision { router }, Datum::Mask(mask)) => {
                assert_eq!(&got.gates[*router as usize].mask, mask, "{role}");
            }
            _ => panic!("the plan has no {role}"),
        }
    }
}
