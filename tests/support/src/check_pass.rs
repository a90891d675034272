//! Passes checked by the interpreter: the same graph before and after, on the same step, bit for bit in f64 and equal in
//! the exact domains, under decisions that routers take and under forced ones.

use std::collections::BTreeMap;

use skipc_artifact::program::PAGE_ROWS;
use skipc_ir::attr::Shape;
use skipc_ir::interp::{self, Datum, Env, FlatBatch, Free, Gf61, Number, Ring32, Routing, Weights};
use skipc_ir::{Dim, Domain, Elem, Graph, Op, Role, SetSym, Type, random_score, stacked_name};

use crate::random::Rng;
use crate::random_graph::VOCAB;

/// Lengths of the sequences of the steps that a pass is checked on: no token, one, several sequences, an empty one.
const STEPS: [&[usize]; 4] = [&[], &[1], &[5, 0, 2], &[9]];

/// Weights for all names of a graph, in `[-1, 1)`. A weight depends on its name only, so that a graph has the same
/// before and after a pass.
pub struct RandomWeights(BTreeMap<String, Vec<f64>>);

impl RandomWeights {
    /// For this graph.
    pub fn of(graph: &Graph) -> RandomWeights {
        let mut weights = BTreeMap::new();
        let mut draw = |name: &str, shape: &Shape| {
            let seed = name.bytes().fold(17u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
            let n_elements = shape.0.iter().map(|size| *size as usize).product();
            let mut rng = Rng::new(seed);
            weights.insert(name.to_owned(), (0..n_elements).map(|_| rng.signed_unit()).collect());
        };
        for value in graph.values() {
            if let Op::Weight { name, shape } = graph.op(value) {
                draw(&name.0, shape);
            } else if let Op::WeightStack { name, count, shape } = graph.op(value) {
                (0..*count).for_each(|number| draw(&stacked_name(&name.0, number), shape));
            }
        }
        RandomWeights(weights)
    }
}

impl<N: Number> Weights<N> for RandomWeights {
    fn weight(&self, name: &str) -> Option<Vec<N>> {
        Some(self.0.get(name)?.iter().map(|value| N::from_f64(*value)).collect())
    }
}

/// Forces these sets; other routers decide.
#[derive(Clone, Debug, Default)]
pub struct Masks(pub BTreeMap<SetSym, Vec<bool>>);

impl Routing for Masks {
    fn forced(&self, set: SetSym, _: usize) -> Option<Vec<bool>> {
        self.0.get(&set).cloned()
    }
}

/// Forces every set to execute a random share of the rows that it selects from: this many in four. Which rows those
/// are depends on their number alone, so that routers that a pass makes one decide alike before it.
#[derive(Clone, Copy, Debug)]
pub struct Quarters(pub u64);

impl Routing for Quarters {
    fn forced(&self, _: SetSym, n_rows: usize) -> Option<Vec<bool>> {
        Some((0..n_rows).map(|row| random_score(3, 0, 0, row as u64) % 4 < self.0).collect())
    }
}

/// Sequences of these lengths with random tokens.
pub fn random_batch(seed: u64, lengths: &[usize]) -> FlatBatch {
    let mut rng = Rng::new(seed);
    let sequences: Vec<Vec<i64>> = lengths
        .iter()
        .map(|length| (0..*length).map(|_| rng.below(VOCAB as usize) as i64).collect())
        .collect();
    FlatBatch::from_sequences(sequences.iter().map(Vec::as_slice))
}

/// Pages that a sequence can have, in graphs with a cache: more than the steps of a check need.
pub const PAGES: u32 = 4;

/// Numbers in `[-1, 1)` for the named inputs of a graph.
///
/// # Panics
/// If an input is no tensor of numbers with rows that the batch or its type gives.
fn random_inputs<N: Number>(graph: &Graph, batch: &FlatBatch) -> BTreeMap<Role, Datum<N>> {
    let mut inputs = BTreeMap::new();
    let signature = graph.signature();
    let n_tokens = batch.tokens.len();
    // Each sequence has pages of its own, one after the other; rows are stored from the cache's first on.
    let pages: Vec<i64> = (0..n_tokens as i64 * i64::from(PAGES)).collect();
    let n_cached = n_tokens * (PAGES * PAGE_ROWS) as usize;
    for port in signature.states {
        // Not zero, so that what looks at a state finds something.
        let cols = port.ty.cols() as usize;
        let datum = match Datum::<N>::zeros(&port.ty, n_cached) {
            Some(Datum::Ints(zeros)) => Datum::Ints((1..).take(zeros.len()).collect()),
            Some(Datum::Real { data, .. }) => {
                let ones = (1..).take(data.len()).map(|idx| N::from_f64(f64::from(idx)));
                Datum::Real { cols, data: ones.collect() }
            }
            Some(Datum::Mask(none)) => Datum::Mask((0..none.len()).map(|row| row % 3 == 0).collect()),
            _ => panic!("no values for {}", port.role),
        };
        inputs.insert(port.role, datum);
    }
    for port in signature.inputs {
        let name = match &port.role {
            Role::Input { name } => name,
            Role::Places => {
                inputs.insert(port.role, Datum::Ints((0..n_tokens as i64).collect()));
                continue;
            }
            Role::Pages => {
                inputs.insert(port.role, Datum::Ints(Vec::clone(&pages)));
                continue;
            }
            _ => continue,
        };
        let rows = match (&port.ty, port.ty.rows()) {
            (Type::Tensor { elem: Elem::Real | Elem::F32, .. }, Dim::Tokens) => n_tokens,
            (Type::Tensor { elem: Elem::Real | Elem::F32, .. }, Dim::Fixed(rows)) => rows as usize,
            _ => panic!("no random values for the input {name}: {}", port.ty),
        };
        let seed = name.bytes().fold(29u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        let (mut rng, cols) = (Rng::new(seed), port.ty.cols() as usize);
        let data = (0..rows * cols).map(|_| N::from_f64(rng.signed_unit())).collect();
        inputs.insert(port.role, Datum::Real { cols, data });
    }
    inputs
}

/// The results of a graph on random weights and inputs.
///
/// # Panics
/// If it cannot be evaluated.
pub fn outputs<N: Domain>(graph: &Graph, batch: &FlatBatch, routing: &dyn Routing) -> interp::Results<N> {
    let weights = RandomWeights::of(graph);
    let env = Env { batch, tensors: random_inputs(graph, batch), weights: &weights, routing };
    skipc_ir::run(graph, &env).unwrap_or_else(|error| panic!("{error}\n{graph}"))
}

/// Runs a pass over a graph and compares all results on several steps. Returns the graph after it.
///
/// # Panics
/// If an output differs.
pub fn check_pass(before: &Graph, pass: impl FnOnce(Graph) -> Graph) -> Graph {
    check_within(before, pass, same_bits)
}

/// As [`check_pass`] for passes that round differently: in f64 values are [`close`], in the exact domains equal.
///
/// # Panics
/// If an output differs.
pub fn check_rounding_pass(before: &Graph, pass: impl FnOnce(Graph) -> Graph) -> Graph {
    check_within(before, pass, close)
}

fn check_within(
    before: &Graph,
    pass: impl FnOnce(Graph) -> Graph,
    same: fn(&Datum<f64>, &Datum<f64>) -> bool,
) -> Graph {
    let after = pass(before.clone());
    for (idx, lengths) in STEPS.iter().enumerate() {
        let batch = random_batch(idx as u64, lengths);
        for routing in [&Free as &dyn Routing, &Quarters(0), &Quarters(1), &Quarters(4)] {
            compare::<f64>(before, &after, &batch, routing, same);
            compare::<Ring32>(before, &after, &batch, routing, Datum::eq);
            compare::<Gf61>(before, &after, &batch, routing, Datum::eq);
        }
    }
    after
}

fn compare<N: Domain>(
    before: &Graph,
    after: &Graph,
    batch: &FlatBatch,
    routing: &dyn Routing,
    same: fn(&Datum<N>, &Datum<N>) -> bool,
) {
    let (wanted, got) = (outputs(before, batch, routing), outputs(after, batch, routing));
    assert_eq!(wanted.len(), got.len(), "number of results\nbefore: {before}\nafter: {after}");
    for ((role, wanted), (got_role, got)) in wanted.iter().zip(&got) {
        assert_eq!(role, got_role, "order of results\nbefore: {before}\nafter: {after}");
        assert!(same(wanted, got), "{role} of {batch:?}\nbefore: {before}{wanted:?}\nafter: {after}{got:?}");
    }
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

/// Whether two values differ by rounding in f64 only: by 1e-9 of the largest element of the first, or of 1.
pub fn close(a: &Datum<f64>, b: &Datum<f64>) -> bool {
    match (a, b) {
        (Datum::Real { cols, data }, Datum::Real { cols: other_cols, data: other }) => {
            let largest = data.iter().fold(1.0, |largest: f64, x| largest.max(x.abs()));
            let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-9 * largest || a.to_bits() == b.to_bits();
            cols == other_cols && data.len() == other.len() && data.iter().zip(other).all(near)
        }
        _ => a == b,
    }
}
