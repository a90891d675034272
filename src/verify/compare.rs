//! When two forms of a model agree.

use skipc_ir::interp::{FlatBatch, Number};
use skipc_runtime::distance::{Bound, Distance};

use super::oracle::{Oracle, Verdict};
use crate::verify::reference::Outcome;

/// Another order of summation in f64.
pub(super) const F64: Bound = Bound::Largest(1e-9);

/// What a comparison found.
pub(super) struct Found {
    pub(super) decisions: usize,
    pub(super) flips: usize,
    pub(super) near_ties: usize,
    pub(super) max_error: f64,
    pub(super) relative_rms: f64,
    pub(super) ok: bool,
}

/// Compares what a form gave with the oracle under the form's own decisions, and choices of experts. `forced` are those decisions that
/// it should have taken; choices are always free.
pub(super) fn compare<N: Number>(
    oracle: &Oracle,
    wanted: &Verdict<N>,
    got: &Outcome<N>,
    forced: Option<&[Vec<bool>]>,
    batch: &FlatBatch,
    bound: Bound,
) -> Found {
    let (mut decisions, mut flips, mut near_ties) = (0, 0, 0);
    for (router, gate) in got.gates.iter().enumerate() {
        let own = match forced {
            Some(masks) => masks.get(router),
            None => wanted.own.get(router),
        };
        for (row, executes) in gate.iter().enumerate() {
            decisions += 1;
            if own.and_then(|own| own.get(row)) != Some(executes) {
                flips += 1;
                let near = forced.is_none() && oracle.is_near_tie(wanted, router, row, batch, bound.size());
                near_ties += usize::from(near);
            }
        }
    }
    let n_layers = got.choices.len();
    for (layer, (choices, own)) in got.choices.iter().zip(&wanted.own_choices).enumerate() {
        for row in 0..choices.n_tokens() {
            decisions += 1;
            if choices.of != own.of || choices.rows(row..row + 1) != own.rows(row..row + 1) {
                flips += 1;
                let near = oracle.is_near_choice(wanted, (layer, row, choices), batch, bound.size());
                near_ties += usize::from(near);
            }
        }
    }
    let mut distance = Distance::default();
    for (got, wanted) in got.logits.iter().zip(&wanted.logits) {
        distance.add(apart(*got, *wanted), wanted.to_f64());
    }
    let shapes_ok = got.logits.len() == wanted.logits.len()
        && got.gates.len() == wanted.own.len()
        && n_layers == wanted.own_choices.len();
    Found {
        decisions,
        flips,
        near_ties,
        max_error: distance.max_error(),
        relative_rms: distance.relative_rms(),
        ok: distance.is_within(bound) && shapes_ok && flips == near_ties,
    }
}

/// How far two numbers are apart; infinite where only equality counts.
fn apart<N: Number>(a: N, b: N) -> f64 {
    match N::EXACT {
        true if a == b => 0.0,
        true => f64::INFINITY,
        false => (a.to_f64() - b.to_f64()).abs(),
    }
}
