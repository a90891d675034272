//! Arithmetic of `f32` under PTX's modifiers (PTX ISA 9.7.3): `.ftz`, `.sat`, the canonical NaN.
//!
//! A result is that of infinite precision, rounded once to the nearest number, ties to even (`.rn`).

use super::round::{F32_NAN, canonical, canonical64};

/// The modifiers of an instruction on `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Modifiers {
    /// `.ftz`: subnormal inputs and results become zeros of their sign.
    pub ftz: bool,
    /// `.sat`: results are clamped to 0 … 1, NaN to +0.
    pub sat: bool,
}

impl Modifiers {
    /// None.
    pub const NONE: Self = Self { ftz: false, sat: false };

    /// A function under these modifiers.
    #[inline(always)]
    pub fn apply<const N: usize>(self, operands: [f32; N], f: impl FnOnce([f32; N]) -> f32) -> f32 {
        let value = if self.ftz { flush(f(operands.map(flush))) } else { f(operands) };
        if self.sat { saturate(value) } else { canonical(value) }
    }
}

/// A subnormal as zero of the same sign (PTX ISA 9.7.3, "subnormal numbers").
#[inline]
pub fn flush(value: f32) -> f32 {
    if value.abs() < f32::MIN_POSITIVE { 0.0_f32.copysign(value) } else { value }
}

/// `.sat`: into 0 … 1; NaN and -0 become +0.
#[inline]
pub fn saturate(value: f32) -> f32 {
    if value >= 1.0 {
        1.0
    } else if value > 0.0 {
        value
    } else {
        0.0
    }
}

/// `add.rn` (PTX ISA 9.7.3.3).
#[inline]
pub fn add(a: f32, b: f32, modifiers: Modifiers) -> f32 {
    modifiers.apply([a, b], |[a, b]| a + b)
}

/// `sub.rn` (PTX ISA 9.7.3.4).
#[inline]
pub fn sub(a: f32, b: f32, modifiers: Modifiers) -> f32 {
    modifiers.apply([a, b], |[a, b]| a - b)
}

/// `mul.rn` (PTX ISA 9.7.3.5).
#[inline]
pub fn mul(a: f32, b: f32, modifiers: Modifiers) -> f32 {
    modifiers.apply([a, b], |[a, b]| a * b)
}

/// `fma.rn` (PTX ISA 9.7.3.6).
#[inline]
pub fn fma(a: f32, b: f32, c: f32, modifiers: Modifiers) -> f32 {
    modifiers.apply([a, b, c], |[a, b, c]| a.mul_add(b, c))
}

/// `div.rn` (PTX ISA 9.7.3.8); `rcp.rn` (9.7.3.13) divides 1.
#[inline]
pub fn div(a: f32, b: f32, modifiers: Modifiers) -> f32 {
    modifiers.apply([a, b], |[a, b]| a / b)
}

/// `sqrt.rn` (PTX ISA 9.7.3.15).
#[inline]
pub fn sqrt(a: f32, modifiers: Modifiers) -> f32 {
    modifiers.apply([a], |[a]| a.sqrt())
}

/// `abs` (PTX ISA 9.7.3.9).
#[inline]
pub fn abs(a: f32, modifiers: Modifiers) -> f32 {
    modifiers.apply([a], |[a]| a.abs())
}

/// `neg` (PTX ISA 9.7.3.10).
#[inline]
pub fn neg(a: f32, modifiers: Modifiers) -> f32 {
    modifiers.apply([a], |[a]| -a)
}

/// `min` (PTX ISA 9.7.3.11): of a number and a NaN the number; -0 is less than +0.
#[inline]
pub fn min(a: f32, b: f32, modifiers: Modifiers) -> f32 {
    modifiers.apply([a, b], |[a, b]| least(a, b))
}

/// `max` (PTX ISA 9.7.3.12): of a number and a NaN the number; +0 is more than -0.
#[inline]
pub fn max(a: f32, b: f32, modifiers: Modifiers) -> f32 {
    modifiers.apply([a, b], |[a, b]| greatest(a, b))
}

/// `min.NaN` (PTX ISA 9.7.3.11): NaN if one is.
#[inline]
pub fn min_nan(a: f32, b: f32, modifiers: Modifiers) -> f32 {
    modifiers.apply([a, b], |[a, b]| unless_nan(a, b, least(a, b)))
}

/// `max.NaN` (PTX ISA 9.7.3.12): NaN if one is.
#[inline]
pub fn max_nan(a: f32, b: f32, modifiers: Modifiers) -> f32 {
    modifiers.apply([a, b], |[a, b]| unless_nan(a, b, greatest(a, b)))
}

/// `min.f64`, as [`min`].
#[inline]
pub fn min64(a: f64, b: f64) -> f64 {
    canonical64(least64(a, b))
}

/// `max.f64`, as [`max`].
#[inline]
pub fn max64(a: f64, b: f64) -> f64 {
    canonical64(greatest64(a, b))
}

#[inline]
fn unless_nan(a: f32, b: f32, otherwise: f32) -> f32 {
    if a.is_nan() || b.is_nan() { f32::from_bits(F32_NAN) } else { otherwise }
}

/// Extremes of two values, of which a NaN loses; equal numbers have equal bits but for the signs of zeros.
macro_rules! extremes {
    ($ty:ty, $least:ident, $greatest:ident) => {
        #[inline]
        fn $least(a: $ty, b: $ty) -> $ty {
            if a == b {
                <$ty>::from_bits(a.to_bits() | b.to_bits())
            } else if a < b || b.is_nan() {
                a
            } else {
                b
            }
        }

        #[inline]
        fn $greatest(a: $ty, b: $ty) -> $ty {
            if a == b {
                <$ty>::from_bits(a.to_bits() & b.to_bits())
            } else if a > b || b.is_nan() {
                a
            } else {
                b
            }
        }
    };
}

extremes!(f32, least, greatest);
extremes!(f64, least64, greatest64);

#[cfg(test)]
mod tests {
    use super::*;

    const FTZ: Modifiers = Modifiers { ftz: true, sat: false };
    const SAT: Modifiers = Modifiers { ftz: false, sat: true };
    const NONE: Modifiers = Modifiers::NONE;
    const ULP: f32 = f32::EPSILON;
    const LEAST: f32 = f32::MIN_POSITIVE;
    const INF: f32 = f32::INFINITY;
    const NAN: f32 = f32::from_bits(0xFFC0_1234);

    fn check(facts: &[(f32, f32)]) {
        for (at, (found, expected)) in facts.iter().enumerate() {
            assert_eq!(found.to_bits(), expected.to_bits(), "fact {at}: {found:e} is not {expected:e}");
        }
    }

    #[test]
    fn sums_products_quotients_roots() {
        check(&[
            (add(1.0, ULP / 2.0, NONE), 1.0),
            (add(1.0 + ULP, ULP / 2.0, NONE), 1.0 + 2.0 * ULP),
            (add(f32::MAX, f32::MAX, NONE), INF),
            (add(3.0, -3.0, NONE), 0.0),
            (add(-0.0, -0.0, NONE), -0.0),
            (sub(0.0, 0.0, NONE), 0.0),
            (add(LEAST, -LEAST / 2.0, NONE), LEAST / 2.0),
            (mul(1.0 + ULP, 1.0 + ULP, NONE), 1.0 + 2.0 * ULP),
            (mul(-1.0, 0.0, NONE), -0.0),
            (fma(1.0 + ULP, 1.0 - ULP, -1.0, NONE), -ULP * ULP),
            (div(1.0, 3.0, NONE), f32::from_bits(0x3EAA_AAAB)),
            (div(-1.0, 0.0, NONE), -INF),
            (sqrt(2.0, NONE), f32::from_bits(0x3FB5_04F3)),
            (sqrt(-0.0, NONE), -0.0),
            (abs(-0.0, NONE), 0.0),
            (neg(0.0, NONE), -0.0),
        ]);
    }

    #[test]
    fn subnormals_are_flushed_and_results_saturate() {
        check(&[
            (add(LEAST, -LEAST / 2.0, FTZ), LEAST),
            (add(1.5 * LEAST, -LEAST, FTZ), 0.0),
            (add(-1.5 * LEAST, LEAST, FTZ), -0.0),
            (mul(LEAST, 0.5, FTZ), 0.0),
            (mul(LEAST / 2.0, 4.0, FTZ), 0.0),
            (fma(1.0, 1.0, LEAST / 2.0, FTZ), 1.0),
            (neg(LEAST / 2.0, FTZ), -0.0),
            (add(0.75, 0.5, SAT), 1.0),
            (add(-0.75, 0.5, SAT), 0.0),
            (add(-0.0, -0.0, SAT), 0.0),
            (add(INF, -INF, SAT), 0.0),
            (mul(2.0, 3.0, SAT), 1.0),
            (fma(0.0, INF, 1.0, SAT), 0.0),
            (add(LEAST / 2.0, 0.0, Modifiers { ftz: true, sat: true }), 0.0),
        ]);
    }

    /// The roots above all: there LLVM takes liberties with NaN.
    #[test]
    fn nan_is_canonical() {
        for modifiers in [NONE, FTZ] {
            let found = [
                add(INF, -INF, modifiers),
                add(NAN, 1.0, modifiers),
                mul(0.0, INF, modifiers),
                fma(NAN, 0.0, 1.0, modifiers),
                div(0.0, 0.0, modifiers),
                sqrt(-1.0, modifiers),
                sqrt(NAN, modifiers),
                sqrt(f32::from_bits(0x7F80_0001), modifiers),
                abs(NAN, modifiers),
                neg(NAN, modifiers),
                min(NAN, NAN, modifiers),
                max(NAN, NAN, modifiers),
                min_nan(NAN, 1.0, modifiers),
                max_nan(1.0, NAN, modifiers),
            ];
            assert_eq!(found.map(f32::to_bits), [0x7FFF_FFFF; 14]);
        }
        assert_eq!(min64(f64::NAN, -f64::NAN).to_bits(), u64::MAX >> 1);
    }

    /// The semantics and notes of sections 9.7.3.11 and 9.7.3.12.
    #[test]
    fn least_and_most() {
        check(&[
            (min(1.0, 2.0, NONE), 1.0),
            (max(1.0, 2.0, NONE), 2.0),
            (min(0.0, -0.0, NONE), -0.0),
            (min(-0.0, 0.0, NONE), -0.0),
            (max(0.0, -0.0, NONE), 0.0),
            (max(-0.0, 0.0, NONE), 0.0),
            (min(NAN, 3.0, NONE), 3.0),
            (max(-INF, NAN, NONE), -INF),
            (min(INF, -INF, NONE), -INF),
            (max(LEAST / 2.0, -1.0, FTZ), 0.0),
            (min(-LEAST / 2.0, NAN, FTZ), -0.0),
            (min_nan(-1.0, 2.0, NONE), -1.0),
            (max_nan(-1.0, 2.0, NONE), 2.0),
        ]);
        let wide = [min64(0.0, -0.0), max64(-0.0, 0.0), min64(f64::NAN, 3.0), max64(-1.0, f64::NAN)];
        assert_eq!(wide.map(f64::to_bits), [-0.0, 0.0, 3.0, -1.0_f64].map(f64::to_bits));
    }
}
