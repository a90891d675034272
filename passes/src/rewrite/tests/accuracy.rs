//! Every rule on rows that are hard in floating point: of one value, far from zero with little spread, huge and tiny. What
//! holds in exact domains may still lose all digits there.

use std::collections::BTreeMap;

use skipc_ir::interp::{Datum, Env, FlatBatch, Number, Routing, Weights};
use skipc_ir::{Binary, Domain, Graph, Op, SetSym};

use super::instances::{body_of, pairs, with_sizes};
use super::{graph, whole};
use crate::rewrite::rules::{self, Find, Rule, op};
use crate::rewrite::saturate::{self, Limits};

/// `D`, `O` and `K`: sums of some length, and no weight with as many rows as a table of tokens.
const SIZES: [usize; 3] = [32, 3, 5];

/// Errors of a form, in those of the form that it stands for.
const FACTOR: f64 = 4.0;

/// Errors that are as good as none, in units of a row's largest element: what a few roundings of a short sum are.
const FEW_ROUNDINGS: f64 = 16.0 * f32::EPSILON as f64;

/// A kind of hard row: its elements by a number within 1.
type Row = (&'static str, fn(f64) -> f64);

/// The rows of the two tokens, in turn; a rule is tried on each two that follow one another.
const ROWS: [Row; 6] = [
    ("constant 1234.1", |_| 1234.1),
    ("1000 ± 1", |noise| 1000.0 + noise),
    ("constant 7.1", |_| 7.1),
    ("-3 ± 1e-3", |noise| 1e-3 * noise - 3.0),
    ("± 1e15", |noise| 1e15 * noise),
    ("± 1e-9", |noise| 1e-9 * noise),
];

/// Tables of two tokens with these rows; small numbers for all other weights.
struct Hard<'a> {
    graph: &'a Graph,
    rows: [Row; 2],
}

impl<N: Number> Weights<N> for Hard<'_> {
    fn weight(&self, wanted: &str) -> Option<Vec<N>> {
        let shape = self.graph.values().find_map(|value| {
            let Op::Weight { name, shape } = self.graph.op(value) else { return None };
            (*name.0 == *wanted).then(|| shape.0.clone())
        })?;
        let (rows, cols) = (shape[0] as usize, shape.get(1).map_or(1, |cols| *cols as usize));
        let is_table = shape == [2, SIZES[0] as u32];
        let mut word = wanted.bytes().fold(7u64, |hash, byte| hash * 31 + u64::from(byte));
        let mut noise = || {
            word = word.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
            (word >> 40) as f64 / f64::from(1 << 23) - 1.0
        };
        let element = |row: usize| if is_table { self.rows[row].1(noise()) } else { noise() };
        let all = (0..rows * cols).map(|idx| idx / cols).map(element);
        Some(all.map(|number| N::from_f64(f64::from(number as f32))).collect())
    }
}

/// Every other row.
struct EveryOther;

impl Routing for EveryOther {
    fn forced(&self, _: SetSym, n_rows: usize) -> Option<Vec<bool>> {
        Some((0..n_rows).map(|row| row % 2 == 0).collect())
    }
}

/// The rows of each root.
fn values<N: Domain>(graph: &Graph, rows: [Row; 2]) -> Vec<Vec<Vec<f64>>> {
    let batch = FlatBatch::from_sequences([&[0, 1, 1][..], &[1, 0][..]]);
    let (tensors, weights) = (BTreeMap::new(), Hard { graph, rows });
    let env = Env { batch: &batch, tensors, weights: &weights, routing: &EveryOther };
    let outputs = skipc_ir::run::<N>(graph, &env).expect("it can be evaluated");
    let numbers = |datum: &Datum<N>| {
        let Ok((cols, data)) = datum.real() else { return Vec::new() };
        data.chunks_exact(cols).map(|row| row.iter().map(|x| x.to_f64()).collect()).collect()
    };
    outputs.iter().map(|(_, datum)| numbers(datum)).collect()
}

fn largest(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.fold(0.0, |largest, number| largest.max(number.abs()))
}

/// The worst that any form does that the rule finds, in errors of the form that it stands for, for each two kinds of rows.
fn worst(rule: &Rule, body: &str) -> Vec<(String, f64)> {
    let source = whole(&graph(&with_sizes(body, SIZES)));
    let limits = Limits { nodes: 10_000, rounds: 4 };
    let pairs = pairs(&saturate::saturate(&source, &[rule], limits).expect("types are kept"));
    let on = |rows: [Row; 2]| {
        let (rounded, exact) = (values::<f32>(pairs.graph(), rows), values::<f64>(pairs.graph(), rows));
        let ratio = |first: usize, row: usize| {
            let error =
                |root: usize| largest(rounded[root][row].iter().zip(&exact[root][row]).map(|(a, b)| a - b));
            let least = FEW_ROUNDINGS * largest(exact[first][row].iter().copied());
            error(first + 1) / error(first).max(least).max(f64::MIN_POSITIVE)
        };
        let roots = (0..exact.len()).step_by(2);
        let ratios = roots.flat_map(|first| (0..exact[first].len()).map(move |row| (first, row)));
        let worst = ratios.map(|(first, row)| ratio(first, row)).fold(0.0, f64::max);
        (format!("{}, {}", rows[0].0, rows[1].0), worst)
    };
    (0..ROWS.len()).map(|first| on([ROWS[first], ROWS[(first + 1) % ROWS.len()]])).collect()
}

#[test]
fn no_rule_loses_digits_on_hard_rows() {
    for rule in rules::all() {
        for (rows, worst) in worst(rule, body_of(rule.name)) {
            println!("{}: {worst:.2} on {rows}", rule.name);
            assert!(
                worst <= FACTOR,
                "`{}` is {worst} times as far off as what it replaces on {rows}",
                rule.name
            );
        }
    }
}

/// Exact, and of no use: two matmuls of rows far from zero, whose difference is small.
#[test]
fn a_rule_that_loses_digits_is_found() {
    let find: Find = |view, matmul, operands, found| {
        let (Op::Matmul {}, &[difference, weight]) = (matmul, operands) else { return };
        for (_, of) in view.nodes(difference).filter(|(inner, _)| matches!(inner, Op::Binary(Binary::Sub))) {
            let [a, b] = [of[0], of[1]].map(|x| op(matmul.clone(), [x.into(), weight.into()]));
            found.push(op(Op::Binary(Binary::Sub), [a, b]));
        }
    };
    let rule = rules::all().next().expect("there are rules");
    let careless = Rule { find, name: "careless", ..*rule };
    let found = worst(&careless, "%m = sub %x, %y\n %out = matmul %m, %a");
    assert!(found.iter().any(|(_, worst)| *worst > 2.0 * FACTOR), "{found:?}");
}
