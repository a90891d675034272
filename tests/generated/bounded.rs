//! Numbers that carry a bound on what rounding to f32 may have added to them: running error analysis.
//!
//! A graph evaluated over [`Bounded`] gives for each element its value in f64 and how far any f32 evaluation of the same
//! graph may be off, whatever the order of its sums. A sum of terms may be off by one rounding of the sum of their
//! magnitudes at each addition, so each number carries the magnitude of the terms that were added up to it. Functions
//! are off by two units in the last place, as `skipc_testkit::tolerance` has it. Where operands are exact and the
//! result (and the magnitude of its terms) is an f32 itself, there is no rounding and no error: small integers are
//! checked exactly.
//!
//! Such a bound assumes that all roundings conspire, and a few layers later it says nothing any more. So it is
//! tightened by [`Noisy`] numbers: evaluations in f64 in which each operation is off at random by as much as f32 may be
//! (Monte Carlo arithmetic, Parker 1997). How far several of them are from f64 is how far rounding goes in this very
//! model; [`TYPICAL`] times that is allowed, if the bound allows it.

use skipc_ir::Domain;
use skipc_ir::interp::Number;
use skipc_testkit::approx::{Approx, UNIT};
use skipc_testkit::random::Rng;

/// Smallest normal f32: what flushing a small result to zero may lose.
const FLUSHED: f64 = f32::MIN_POSITIVE as f64;

/// How much farther an f32 evaluation may be off than the farthest noisy one of its row.
const TYPICAL: f64 = 32.0;

/// Bounds up to this, relative to the number or 1, are not tightened: 32 roundings.
const TIGHT: f64 = 32.0 * UNIT;

/// Noise that moves a row by more than this, relative to its largest number or 1, is too much for small errors to stay
/// in proportion: such a row is ill-conditioned, and nothing is said about it in f32. A norm over
/// numbers that are equal but for rounding does it.
const SHAKY: f64 = 1.0 / (1 << 14) as f64;

/// A value, and how far an f32 evaluation of it may be off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bounded {
    /// The value.
    pub(crate) value: f64,
    /// Largest distance of an f32 evaluation. Infinite where nothing is known.
    pub(crate) error: f64,
    /// Sum of the magnitudes of all terms added up to `value`.
    magnitude: f64,
}

fn is_f32(value: f64) -> bool {
    f64::from(value as f32) == value
}

impl Bounded {
    /// A value without error.
    pub(crate) fn exact(value: f64) -> Bounded {
        Bounded { value, error: 0.0, magnitude: value.abs() }
    }

    fn of(approx: Approx) -> Bounded {
        // Nothing times an unknown error is unknown, not a NaN, which the larger of two errors would lose.
        let error = if approx.error.is_nan() { f64::INFINITY } else { approx.error + FLUSHED };
        Bounded { value: approx.value, error, magnitude: approx.value.abs() }
    }

    fn approx(self) -> Approx {
        Approx { value: self.value, error: self.error }
    }

    /// Whether the bound says enough by itself.
    pub(crate) fn is_tight(&self) -> bool {
        self.error <= TIGHT * self.value.abs().max(1.0)
    }

    /// The number with one added that is an f32 itself.
    pub(crate) fn plus(self, other: f64) -> Bounded {
        self.add(Bounded::exact(other))
    }

    /// Whether both are the same number in every evaluation.
    pub(crate) fn is_exactly(&self, other: &Bounded) -> bool {
        self.is_exact() && other.is_exact() && self.value == other.value
    }

    fn is_exact(self) -> bool {
        self.error == 0.0
    }
}

impl Domain for Bounded {}

impl Number for Bounded {
    // Bounds have to hold for sums in f32.
    type Wide = Self;

    const ZERO: Self = Bounded { value: 0.0, error: 0.0, magnitude: 0.0 };
    const ONE: Self = Bounded { value: 1.0, error: 0.0, magnitude: 1.0 };
    const EXACT: bool = false;

    fn widen(self) -> Self {
        self
    }

    fn narrow(sum: Self) -> Self {
        sum
    }

    fn from_f64(value: f64) -> Self {
        let error = if is_f32(value) { 0.0 } else { UNIT * value.abs() };
        Bounded { value, error, magnitude: value.abs() }
    }

    fn to_f64(self) -> f64 {
        self.value
    }

    fn add(self, other: Self) -> Self {
        let value = self.value + other.value;
        let magnitude = self.magnitude + other.magnitude;
        if self.is_exact() && other.is_exact() && is_f32(value) && is_f32(magnitude) {
            return Bounded { value, error: 0.0, magnitude };
        }
        let error = self.error + other.error;
        Bounded { value, error: error + UNIT * (magnitude + error), magnitude }
    }

    fn sub(self, other: Self) -> Self {
        self.add(Bounded { value: -other.value, ..other })
    }

    fn mul(self, other: Self) -> Self {
        let value = self.value * other.value;
        if self.is_exact() && other.is_exact() && is_f32(value) {
            return Bounded::exact(value);
        }
        Bounded::of(self.approx().mul(other.approx()))
    }

    fn div(self, other: Self) -> Self {
        if other.value.abs() <= other.error {
            return Bounded {
                value: self.value / other.value,
                error: f64::INFINITY,
                magnitude: f64::INFINITY,
            };
        }
        Bounded::of(self.approx().div(other.approx()))
    }

    fn max(self, other: Self) -> Self {
        let value = self.value.max(other.value);
        Bounded { value, error: self.error.max(other.error), magnitude: value.abs() }
    }

    fn exp(self) -> Self {
        if self.is_exact() && self.value == 0.0 {
            return Bounded::exact(1.0);
        }
        Bounded::of(self.approx().exp())
    }

    fn tanh(self) -> Self {
        let approx = self.approx().tanh();
        // The slope is largest where the argument is nearest to zero.
        let flat = libm::tanh((self.value.abs() - self.error).max(0.0));
        let error = (1.0 - flat * flat) * self.error + 4.0 * UNIT * approx.value.abs() + 2.0 * f64::EPSILON;
        // Where f32 saturates, `Approx` does too, by more than f64 rounds.
        let value = libm::tanh(self.value);
        let error = approx.error.min(error) + (approx.value - value).abs();
        Bounded::of(Approx { value, error })
    }

    fn erfc(self) -> Self {
        Bounded::of(self.approx().erfc())
    }

    fn rsqrt(self) -> Self {
        let least = self.value - self.error;
        if least > 0.0 {
            Bounded::of(self.approx().rsqrt())
        } else {
            let value = 1.0 / libm::sqrt(self.value);
            Bounded { value, error: f64::INFINITY, magnitude: value }
        }
    }
}

/// An f64 that is off at random by what f32 may be off, by noise of this kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Noisy<const KIND: u64>(f64);

impl<const KIND: u64> Noisy<KIND> {
    /// The result of an operation that may be off by so many roundings. The noise depends on the result alone, so
    /// that what is computed twice is twice the same.
    fn rounded(value: f64, roundings: f64) -> Self {
        if is_f32(value) {
            return Noisy(value);
        }
        let noise = Rng::new(value.to_bits() ^ KIND.wrapping_mul(0xD6E8_FEB8_6659_FD93)).signed_unit();
        Noisy(value * (1.0 + roundings * UNIT * noise))
    }
}

impl<const KIND: u64> Domain for Noisy<KIND> {}

impl<const KIND: u64> Number for Noisy<KIND> {
    type Wide = Self;

    const ZERO: Self = Noisy(0.0);
    const ONE: Self = Noisy(1.0);
    const EXACT: bool = false;

    fn widen(self) -> Self {
        self
    }

    fn narrow(sum: Self) -> Self {
        sum
    }

    fn from_f64(value: f64) -> Self {
        Self::rounded(value, 1.0)
    }

    fn to_f64(self) -> f64 {
        self.0
    }

    fn add(self, other: Self) -> Self {
        Self::rounded(self.0 + other.0, 1.0)
    }

    fn sub(self, other: Self) -> Self {
        Self::rounded(self.0 - other.0, 1.0)
    }

    fn mul(self, other: Self) -> Self {
        Self::rounded(self.0 * other.0, 1.0)
    }

    fn div(self, other: Self) -> Self {
        Self::rounded(self.0 / other.0, 1.0)
    }

    fn max(self, other: Self) -> Self {
        if other.0 > self.0 { other } else { self }
    }

    fn exp(self) -> Self {
        Self::rounded(libm::exp(self.0), 4.0)
    }

    fn tanh(self) -> Self {
        Self::rounded(libm::tanh(self.0), 4.0)
    }

    fn erfc(self) -> Self {
        Self::rounded(libm::erfc(self.0), 16.0)
    }

    fn rsqrt(self) -> Self {
        Self::rounded(1.0 / libm::sqrt(self.0), 4.0)
    }
}

/// Lowers the errors of `bounds` to what noise makes of these numbers, `cols` of them a row.
pub(crate) fn tighten(bounds: &mut [Bounded], noisy: &[Vec<f64>], cols: usize) {
    for (row, bounds) in bounds.chunks_mut(cols.max(1)).enumerate() {
        let begin = row * cols;
        let off = |numbers: &Vec<f64>| {
            let pairs = bounds.iter().zip(&numbers[begin..]);
            pairs.map(|(bound, number)| (bound.value - number).abs()).fold(0.0, f64::max)
        };
        let farthest = noisy.iter().map(off).fold(0.0, f64::max);
        let largest = bounds.iter().map(|bound| bound.value.abs()).fold(1.0, f64::max);
        for bound in bounds {
            // A NaN is near nothing.
            let near = |distance: f64| distance <= SHAKY * largest;
            if !near(farthest) && !near(bound.error) {
                bound.error = f64::INFINITY;
                continue;
            }
            let typical = TYPICAL * farthest + 4.0 * UNIT * bound.value.abs() + FLUSHED;
            bound.error = if bound.error <= typical { bound.error } else { typical };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_stays_unknown() {
        let near_zero = Bounded { value: 1e-9, error: 1e-8, magnitude: 1e-9 };
        let unknown = near_zero.rsqrt();
        assert!(unknown.error.is_infinite());
        assert!((unknown.value * unknown.value * 1e-9 - 1.0).abs() < 1e-12, "{}", unknown.value);
        let squared = |x: Bounded| x.max(Bounded::ZERO).mul(x.max(Bounded::ZERO));
        for of_it in [
            unknown.mul(Bounded::ZERO),
            squared(unknown),
            squared(unknown.mul(Bounded::ZERO)),
            unknown.tanh(),
        ] {
            assert!(of_it.error > 0.1, "{of_it:?}");
        }
        assert!(squared(unknown.mul(Bounded::ZERO)).error.is_infinite());
    }
}
