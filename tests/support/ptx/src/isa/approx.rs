//! The approximate functions of `f32` (PTX ISA 9.7.3): special values, documented errors, and results
//! anywhere within these.
//!
//! [`Approximate::value`] is the number next to the exact result (up to the doubt of an `f64` of `libm`).
//! [`Approximate::near`] is one of the others that the documentation allows, so that a test can show that a
//! kernel does not live on exact results.

use super::arithmetic::flush;
use super::round::canonical;

/// How far a result may be from the exact one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Error {
    /// Units in the last place of the exact result.
    Ulps(u32),
    /// Part of the exact result.
    Relative(f64),
    /// A difference.
    Absolute(f64),
    /// Nothing is promised.
    Unbounded,
}

/// A function of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Approximate {
    /// `rcp.approx{.ftz}.f32` (9.7.3.13).
    Rcp,
    /// `sqrt.approx{.ftz}.f32` (9.7.3.15).
    Sqrt,
    /// `rsqrt.approx{.ftz}.f32` (9.7.3.16).
    Rsqrt,
    /// `sin.approx{.ftz}.f32` (9.7.3.18).
    Sin,
    /// `cos.approx{.ftz}.f32` (9.7.3.19).
    Cos,
    /// `lg2.approx{.ftz}.f32` (9.7.3.20).
    Lg2,
    /// `ex2.approx{.ftz}.f32` (9.7.3.21).
    Ex2,
    /// `tanh.approx.f32` (9.7.3.22).
    Tanh,
}

/// A division.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Divide {
    /// `div.approx{.ftz}.f32` (9.7.3.8).
    Approx,
    /// `div.full{.ftz}.f32` (9.7.3.8).
    Full,
}

/// 2^-20.5 and 2^-14.7: errors of `sin` and `cos` up to 2π and 100π (9.7.3.18, 9.7.3.19).
const SINE_ERRORS: [(f64, f64); 2] = [
    (2.0 * std::f64::consts::PI, 6.743_495_761_743_046e-7),
    (100.0 * std::f64::consts::PI, 3.757_154_581_741_079_6e-5),
];

/// 2^-22.9 (9.7.3.16).
const RSQRT_ERROR: f64 = 1.277_653_530_283_325e-7;

impl Approximate {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Rcp, Self::Sqrt, Self::Rsqrt, Self::Sin, Self::Cos, Self::Lg2, Self::Ex2, Self::Tanh];

    /// The number next to the exact result.
    pub fn value(self, argument: f32, ftz: bool) -> f32 {
        let value = canonical(self.exact(f64::from(input(argument, ftz))) as f32);
        if ftz { flush(value) } else { value }
    }

    /// The documented error at this argument, which `.ftz` has flushed.
    pub fn error(self, argument: f32) -> Error {
        let magnitude = f64::from(argument.abs());
        match self {
            Self::Rcp => Error::Ulps(1),
            Self::Sqrt => Error::Relative(2_f64.powi(-23)),
            Self::Rsqrt => Error::Relative(RSQRT_ERROR),
            Self::Sin | Self::Cos => SINE_ERRORS
                .iter()
                .find(|(most, _)| magnitude <= *most)
                .map_or(Error::Unbounded, |(_, error)| Error::Absolute(*error)),
            Self::Lg2 if argument > 0.5 && argument < 2.0 => Error::Absolute(2_f64.powi(-22)),
            Self::Lg2 => Error::Relative(2_f64.powi(-22)),
            Self::Ex2 => Error::Ulps(2),
            Self::Tanh => Error::Relative(2_f64.powi(-11)),
        }
    }

    /// A result that the documented error allows, chosen by `seed`; special arguments have their one result.
    pub fn near(self, argument: f32, ftz: bool, seed: u64) -> f32 {
        let argument = input(argument, ftz);
        let exact = self.exact(f64::from(argument));
        // What the tables of special values list is exact.
        let special = argument == 0.0 || !argument.is_finite() || exact.is_nan();
        let value = match self.error(argument) {
            _ if special => canonical(exact as f32),
            // A subnormal argument is its own result (9.7.3.22, note).
            _ if self == Self::Tanh && argument.is_subnormal() => argument,
            error => within(exact, error, seed ^ u64::from(argument.to_bits())),
        };
        if ftz { flush(value) } else { value }
    }

    /// In `f64`, whose functions have the special values of PTX's tables.
    fn exact(self, argument: f64) -> f64 {
        match self {
            Self::Rcp => 1.0 / argument,
            Self::Sqrt => argument.sqrt(),
            Self::Rsqrt => 1.0 / argument.sqrt(),
            Self::Sin => libm::sin(argument),
            Self::Cos => libm::cos(argument),
            Self::Lg2 => libm::log2(argument),
            Self::Ex2 => libm::exp2(argument),
            Self::Tanh => libm::tanh(argument),
        }
    }
}

impl Divide {
    /// The number next to the exact quotient, or what `div.approx` gives for large divisors.
    pub fn value(self, a: f32, b: f32, ftz: bool) -> f32 {
        let (a, b) = (input(a, ftz), input(b, ftz));
        let value = self.beyond_range(a, b).unwrap_or_else(|| canonical(a / b));
        if ftz { flush(value) } else { value }
    }

    /// The documented error at these arguments, which `.ftz` has flushed.
    pub fn error(self, b: f32) -> Error {
        let normal = f32::MIN_POSITIVE..=2_f32.powi(126);
        match self {
            Self::Approx if !normal.contains(&b.abs()) => Error::Unbounded,
            _ => Error::Ulps(2),
        }
    }

    /// As [`Approximate::near`].
    pub fn near(self, a: f32, b: f32, ftz: bool, seed: u64) -> f32 {
        let (a, b) = (input(a, ftz), input(b, ftz));
        let special = [a, b].iter().any(|value| *value == 0.0 || !value.is_finite());
        if special || self.beyond_range(a, b).is_some() {
            return self.value(a, b, ftz);
        }
        let seed = seed ^ u64::from(a.to_bits()) ^ u64::from(b.to_bits()) << 32;
        let value = within(f64::from(a) / f64::from(b), self.error(b), seed);
        if ftz { flush(value) } else { value }
    }

    /// `div.approx` multiplies with a reciprocal that is flushed for a divisor between 2^126 and 2^128.
    fn beyond_range(self, a: f32, b: f32) -> Option<f32> {
        let beyond = self == Self::Approx && b.is_finite() && b.abs() > 2_f32.powi(126);
        let sign = if a.is_sign_negative() == b.is_sign_negative() { 1.0 } else { -1.0 };
        beyond.then(|| if a.is_finite() { 0.0_f32.copysign(sign) } else { canonical(f32::NAN) })
    }
}

fn input(value: f32, ftz: bool) -> f32 {
    if ftz { flush(value) } else { value }
}

/// A float no farther from `exact`, a number, than `error`, any with the same chance; the nearest one if
/// nothing is promised.
fn within(exact: f64, error: Error, seed: u64) -> f32 {
    let nearest = exact as f32;
    let most = match error {
        Error::Ulps(n) => f64::from(n) * ulp(nearest),
        Error::Relative(part) => part * exact.abs(),
        Error::Absolute(difference) => difference,
        Error::Unbounded => 0.0,
    };
    let mut first = (exact - most) as f32;
    if exact - f64::from(first) > most {
        first = first.next_up();
    }
    let mut last = (exact + most) as f32;
    if f64::from(last) - exact > most {
        last = last.next_down();
    }
    let n_choices = i64::from(order(last)) - i64::from(order(first)) + 1;
    // Nothing lies within half an ulp of a number that is no float.
    if n_choices < 1 || nearest.is_infinite() {
        return nearest;
    }
    let chosen = i64::from(order(first)) + (mixed(seed) % n_choices as u64) as i64;
    from_order(chosen as i32)
}

/// Distance to the next float away from zero.
fn ulp(value: f32) -> f64 {
    let value = value.abs().min(f32::MAX.next_down());
    f64::from(value.next_up()) - f64::from(value)
}

/// A float's place among all, ±0 at 0.
fn order(value: f32) -> i32 {
    let magnitude = (value.to_bits() & 0x7FFF_FFFF) as i32;
    if value.is_sign_negative() { -magnitude } else { magnitude }
}

/// The float in this place.
fn from_order(place: i32) -> f32 {
    f32::from_bits(place.unsigned_abs() | if place < 0 { 1 << 31 } else { 0 })
}

/// Bits that look random (the finaliser of SplitMix64).
fn mixed(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ bits >> 31
}

#[cfg(test)]
#[path = "approx_tests.rs"]
mod tests;
