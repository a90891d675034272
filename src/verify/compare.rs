//! When two forms of a model agree.

use skipc_artifact::target::DType;
use skipc_ir::interp::{Batch, Number};

use super::judge::{Judge, Verdict};
use crate::verify::reference::Outcome;

/// How far a form may be from the judge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bounds {
    /// Not at all.
    Exact,
    /// No logit further than this; scores within as much of a border may fall on either side.
    Absolute(f64),
    /// Root mean square relative to the logits' own, and likewise for scores.
    Relative(f64),
}

impl Bounds {
    /// Another order of summation in f64.
    pub(super) const F64: Bounds = Bounds::Absolute(1e-9);

    /// What the type of a program's layers allows. In f32 it is the bound of whole models against the reference. In bf16
    /// 16 times its unit roundoff, a coarse net for wrong code: the sharp bound needs PyTorch's own error, which
    /// golden cases carry.
    pub(super) fn of(dtype: DType) -> Bounds {
        match dtype {
            DType::Bf16 => Bounds::Relative(16.0 / 256.0),
            _ => Bounds::Absolute(2e-4),
        }
    }

    /// How near to a border a score may fall on the other side.
    fn band(self) -> f64 {
        match self {
            Bounds::Exact => 0.0,
            Bounds::Absolute(band) | Bounds::Relative(band) => band,
        }
    }
}

/// What a comparison found.
pub(super) struct Found {
    pub(super) decisions: usize,
    pub(super) flips: usize,
    pub(super) near_ties: usize,
    pub(super) max_error: f64,
    pub(super) relative_rms: f64,
    pub(super) ok: bool,
}

/// Compares what a form gave with the judge under the form's own decisions. `forced` are those it should have taken.
pub(super) fn compare<N: Number>(
    judge: &Judge,
    wanted: &Verdict<N>,
    got: &Outcome<N>,
    forced: Option<&[Vec<bool>]>,
    batch: &Batch,
    bounds: &Bounds,
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
                let near = forced.is_none() && judge.is_near_tie(wanted, router, row, batch, bounds.band());
                near_ties += usize::from(near);
            }
        }
    }
    let (mut max_error, mut squares, mut size) = (0.0f64, 0.0, 0.0);
    for (got, wanted) in got.logits.iter().zip(&wanted.logits) {
        let error = distance(*got, *wanted);
        // A NaN is the worst of all errors, and stays.
        max_error = if error <= max_error { max_error } else { error };
        squares += error * error;
        size += wanted.to_f64() * wanted.to_f64();
    }
    let relative_rms = if size > 0.0 { (squares / size).sqrt() } else { squares.sqrt() };
    let values_ok = match *bounds {
        Bounds::Exact => max_error == 0.0,
        Bounds::Absolute(bound) => max_error <= bound,
        Bounds::Relative(bound) => relative_rms <= bound,
    };
    let shapes_ok = got.logits.len() == wanted.logits.len() && got.gates.len() == wanted.own.len();
    Found {
        decisions,
        flips,
        near_ties,
        max_error,
        relative_rms,
        ok: values_ok && shapes_ok && flips == near_ties,
    }
}

/// How far two numbers are apart; infinite where only equality counts.
fn distance<N: Number>(a: N, b: N) -> f64 {
    match N::EXACT {
        true if a == b => 0.0,
        true => f64::INFINITY,
        false => (a.to_f64() - b.to_f64()).abs(),
    }
}
