//! Passes judged by the interpreter: the same graph before and after, on the same step, bit for bit.

use std::collections::BTreeMap;

use skipc_ir::interp::{self, Batch, Datum, Env, Free, Routing, Weights};
use skipc_ir::{Graph, Op, SetSym};

use crate::random::Rng;
use crate::random_graph::VOCAB;

/// Lengths of the sequences of the steps that a pass is judged on: no token, one, several sequences, an empty one.
const STEPS: [&[usize]; 4] = [&[], &[1], &[5, 0, 2], &[9]];

/// Weights for all names of a graph, in `[-1, 1)`. A weight depends on its name only, so that a graph has the same
/// before and after a pass.
pub struct RandomWeights(BTreeMap<String, Vec<f64>>);

impl RandomWeights {
    /// For this graph.
    pub fn of(graph: &Graph) -> RandomWeights {
        let weights = graph.values().filter_map(|value| match graph.op(value) {
            Op::Weight { name, shape } => {
                let seed =
                    name.0.bytes().fold(17u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
                let n_elements = shape.0.iter().map(|size| *size as usize).product();
                let mut rng = Rng::new(seed);
                Some((name.0.to_string(), (0..n_elements).map(|_| rng.signed_unit()).collect()))
            }
            _ => None,
        });
        RandomWeights(weights.collect())
    }
}

impl Weights<f64> for RandomWeights {
    fn weight(&self, name: &str) -> Option<Vec<f64>> {
        self.0.get(name).cloned()
    }
}

/// Forces these sets; other routers decide.
#[derive(Clone, Debug, Default)]
pub struct Masks(pub BTreeMap<SetSym, Vec<bool>>);

impl Routing for Masks {
    fn forced(&self, set: SetSym) -> Option<Vec<bool>> {
        self.0.get(&set).cloned()
    }
}

/// Sequences of these lengths with random tokens.
pub fn random_batch(seed: u64, lengths: &[usize]) -> Batch {
    let mut rng = Rng::new(seed);
    let sequences: Vec<Vec<i64>> = lengths
        .iter()
        .map(|length| (0..*length).map(|_| rng.below(VOCAB as usize) as i64).collect())
        .collect();
    Batch::from_sequences(sequences.iter().map(Vec::as_slice))
}

/// The outputs of a graph on random weights.
///
/// # Panics
/// If it cannot be evaluated.
pub fn outputs(graph: &Graph, batch: &Batch, routing: &dyn Routing) -> Vec<(String, Datum<f64>)> {
    let weights = RandomWeights::of(graph);
    let env = Env { batch, weights: &weights, routing };
    interp::run(graph, &env).unwrap_or_else(|error| panic!("{error}\n{graph}"))
}

/// Runs a pass over a graph and compares all outputs on several steps bit for bit. Returns the graph after it.
///
/// # Panics
/// If an output differs.
pub fn check_pass(before: &Graph, pass: impl FnOnce(Graph) -> Graph) -> Graph {
    let after = pass(before.clone());
    for (idx, lengths) in STEPS.iter().enumerate() {
        let batch = random_batch(idx as u64, lengths);
        let (wanted, got) = (outputs(before, &batch, &Free), outputs(&after, &batch, &Free));
        assert_eq!(wanted.len(), got.len(), "number of outputs\nbefore: {before}\nafter: {after}");
        for ((name, wanted), (got_name, got)) in wanted.iter().zip(&got) {
            assert_eq!(name, got_name, "order of outputs\nbefore: {before}\nafter: {after}");
            assert!(
                same_bits(wanted, got),
                "output `{name}`, sequences {lengths:?}\nbefore: {before}{wanted:?}\nafter: {after}{got:?}"
            );
        }
    }
    after
}

/// Whether two values are equal to the bit; a NaN equals itself.
pub fn same_bits(a: &Datum<f64>, b: &Datum<f64>) -> bool {
    match (a, b) {
        (Datum::Real { cols, data }, Datum::Real { cols: other_cols, data: other }) => {
            cols == other_cols
                && data.len() == other.len()
                && data.iter().zip(other).all(|(a, b)| a.to_bits() == b.to_bits())
        }
        _ => a == b,
    }
}
