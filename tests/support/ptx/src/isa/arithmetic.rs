//! Arithmetic of `f32` under PTX's modifiers (PTX ISA 9.7.3): roundings, `.ftz`, `.sat`, the canonical NaN.
//!
//! A result is that of infinite precision, rounded once. Sums and products of `f32` are held in an `f64`
//! rounded to odd (its last bit set where bits were lost), which a second rounding to `f32` does not spoil.

use super::round::{F32_NAN, Rounding, canonical, f64_to_f32};

/// The modifiers of an instruction on `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Modifiers {
    /// `.rn`, `.rz`, `.rm`, `.rp`.
    pub rounding: Rounding,
    /// `.ftz`: subnormal inputs and results become zeros of their sign.
    pub ftz: bool,
    /// `.sat`: results are clamped to 0 … 1, NaN to +0.
    pub sat: bool,
}

impl Modifiers {
    /// `.rn` alone.
    pub const RN: Self = Self { rounding: Rounding::NearestEven, ftz: false, sat: false };

    fn input(self, value: f32) -> f32 {
        if self.ftz { flush(value) } else { value }
    }

    fn output(self, value: f32) -> f32 {
        let value = self.input(canonical(value));
        match self.sat {
            false => value,
            true if value > 0.0 => value.min(1.0),
            // Also of NaN and -0.
            true => 0.0,
        }
    }

    /// A result from an `f64` that is exact or rounded to odd; `negative_zero` is the sign of an exact zero.
    fn round(self, value: f64, negative_zero: bool) -> f32 {
        let rounded = match value == 0.0 {
            true if negative_zero => -0.0,
            true => 0.0,
            false => f64_to_f32(value, self.rounding),
        };
        self.output(rounded)
    }
}

/// A subnormal as zero of the same sign (PTX ISA 9.7.3, "subnormal numbers").
pub fn flush(value: f32) -> f32 {
    if value.is_subnormal() { 0.0_f32.copysign(value) } else { value }
}

/// `add` (PTX ISA 9.7.3.3); `sub` (9.7.3.4) is the sum with `-b`.
pub fn add(a: f32, b: f32, modifiers: Modifiers) -> f32 {
    let (a, b) = (modifiers.input(a), modifiers.input(b));
    if modifiers.rounding == Rounding::NearestEven {
        return modifiers.output(a + b);
    }
    sum(f64::from(a), f64::from(b), modifiers)
}

/// `mul` (PTX ISA 9.7.3.5).
pub fn mul(a: f32, b: f32, modifiers: Modifiers) -> f32 {
    let (a, b) = (modifiers.input(a), modifiers.input(b));
    if modifiers.rounding == Rounding::NearestEven {
        return modifiers.output(a * b);
    }
    let product = f64::from(a) * f64::from(b);
    modifiers.round(product, product.is_sign_negative())
}

/// `fma` (PTX ISA 9.7.3.6).
pub fn fma(a: f32, b: f32, c: f32, modifiers: Modifiers) -> f32 {
    let (a, b, c) = (modifiers.input(a), modifiers.input(b), modifiers.input(c));
    if modifiers.rounding == Rounding::NearestEven {
        return modifiers.output(a.mul_add(b, c));
    }
    // A product of two `f32` is exact.
    sum(f64::from(a) * f64::from(b), f64::from(c), modifiers)
}

/// `div.rnd` (PTX ISA 9.7.3.8); `rcp.rnd` (9.7.3.13) divides 1.
pub fn div(a: f32, b: f32, modifiers: Modifiers) -> f32 {
    let (a, b) = (modifiers.input(a), modifiers.input(b));
    if modifiers.rounding == Rounding::NearestEven {
        return modifiers.output(a / b);
    }
    let (wide_a, wide_b) = (f64::from(a), f64::from(b));
    let quotient = wide_a / wide_b;
    let mut value = quotient;
    if quotient.is_finite() && quotient != 0.0 && b.is_finite() {
        // The remainder has the sign of what is missing, if the divisor is positive.
        value = to_odd(quotient, (-quotient).mul_add(wide_b, wide_a) * wide_b.signum());
    }
    modifiers.round(value, quotient.is_sign_negative())
}

/// `sqrt.rnd` (PTX ISA 9.7.3.15).
pub fn sqrt(a: f32, modifiers: Modifiers) -> f32 {
    let a = modifiers.input(a);
    if modifiers.rounding == Rounding::NearestEven {
        return modifiers.output(a.sqrt());
    }
    let root = f64::from(a).sqrt();
    let mut value = root;
    if root.is_finite() && root != 0.0 {
        value = to_odd(root, (-root).mul_add(root, f64::from(a)));
    }
    modifiers.round(value, a.is_sign_negative())
}

/// `min{.ftz}.f32` (PTX ISA 9.7.3.11): of a number and a NaN the number; -0 is less than +0.
pub fn min(a: f32, b: f32, ftz: bool) -> f32 {
    select(a, b, ftz, |a, b| if a.total_cmp(&b).is_lt() { a } else { b })
}

/// `max{.ftz}.f32` (PTX ISA 9.7.3.12): of a number and a NaN the number; +0 is more than -0.
pub fn max(a: f32, b: f32, ftz: bool) -> f32 {
    select(a, b, ftz, |a, b| if a.total_cmp(&b).is_gt() { a } else { b })
}

/// `min{.ftz}.NaN.f32` (PTX ISA 9.7.3.11): NaN if one is.
pub fn min_nan(a: f32, b: f32, ftz: bool) -> f32 {
    if a.is_nan() || b.is_nan() { f32::from_bits(F32_NAN) } else { min(a, b, ftz) }
}

/// `max{.ftz}.NaN.f32` (PTX ISA 9.7.3.12): NaN if one is.
pub fn max_nan(a: f32, b: f32, ftz: bool) -> f32 {
    if a.is_nan() || b.is_nan() { f32::from_bits(F32_NAN) } else { max(a, b, ftz) }
}

fn select(a: f32, b: f32, ftz: bool, of_numbers: impl FnOnce(f32, f32) -> f32) -> f32 {
    let value = match (a.is_nan(), b.is_nan()) {
        (true, true) => f32::from_bits(F32_NAN),
        (true, false) => b,
        (false, true) => a,
        (false, false) if ftz => of_numbers(flush(a), flush(b)),
        (false, false) => of_numbers(a, b),
    };
    if ftz { flush(value) } else { value }
}

/// The sum of two numbers that are products of `f32`, or `f32`.
fn sum(x: f64, y: f64, modifiers: Modifiers) -> f32 {
    let sum = x + y;
    if !sum.is_finite() {
        return modifiers.round(sum, false);
    }
    // Knuth's error of a sum, exact: no exponent comes near the ends of an `f64`'s range.
    let of_y = sum - x;
    let error = (x - (sum - of_y)) + (y - of_y);
    // IEEE 754, 6.3: an exact zero of unlike signs is negative only in roundings down.
    let negative_zero = match x.is_sign_negative() == y.is_sign_negative() {
        true => x.is_sign_negative(),
        false => modifiers.rounding == Rounding::Down,
    };
    modifiers.round(to_odd(sum, error), negative_zero)
}

/// The number rounded to odd of which `value` is the nearest and `value` + `missing` the exact one.
fn to_odd(value: f64, missing: f64) -> f64 {
    if missing == 0.0 || value.to_bits() & 1 == 1 {
        return value;
    }
    let away_from_zero = (missing > 0.0) == (value > 0.0);
    let bits = value.to_bits();
    f64::from_bits(if away_from_zero { bits + 1 } else { bits - 1 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Rounding::{Down, NearestEven, Up, Zero};
    use super::*;

    fn with(rounding: Rounding) -> Modifiers {
        Modifiers { rounding, ..Modifiers::RN }
    }

    const FTZ: Modifiers = Modifiers { ftz: true, ..Modifiers::RN };
    const SAT: Modifiers = Modifiers { sat: true, ..Modifiers::RN };
    const ULP: f32 = f32::EPSILON;
    const LEAST: f32 = f32::MIN_POSITIVE;
    const INF: f32 = f32::INFINITY;

    #[test]
    fn sums() {
        let facts = [
            (1.0, ULP / 2.0, with(NearestEven), 1.0),
            (1.0, ULP / 2.0, with(Zero), 1.0),
            (1.0, ULP / 2.0, with(Up), 1.0 + ULP),
            (1.0, 1e-30, with(Up), 1.0 + ULP),
            (1.0, -1e-30, with(Zero), 1.0 - ULP / 2.0),
            (1.0, -1e-30, with(Down), 1.0 - ULP / 2.0),
            (-1.0, -1e-30, with(Zero), -1.0),
            (-1.0, -1e-30, with(Down), -1.0 - ULP),
            (f32::MAX, f32::MAX, with(NearestEven), INF),
            (f32::MAX, f32::MAX, with(Zero), f32::MAX),
            (f32::MAX, 1e-30, with(Up), INF),
            (-f32::MAX, -1e-30, with(Up), -f32::MAX),
            (3.0, -3.0, with(NearestEven), 0.0),
            (3.0, -3.0, with(Down), -0.0),
            (0.0, -0.0, with(Down), -0.0),
            (0.0, -0.0, with(Up), 0.0),
            (-0.0, -0.0, with(Zero), -0.0),
            (INF, -1.0, with(Down), INF),
            (LEAST, -LEAST / 2.0, with(NearestEven), LEAST / 2.0),
            (LEAST, -LEAST / 2.0, FTZ, LEAST),
            (1.5 * LEAST, -LEAST, FTZ, 0.0),
            (-1.5 * LEAST, LEAST, FTZ, -0.0),
            (0.75, 0.5, SAT, 1.0),
            (-0.75, 0.5, SAT, 0.0),
            (-0.0, -0.0, SAT, 0.0),
            (INF, -INF, SAT, 0.0),
        ];
        for (a, b, modifiers, expected) in facts {
            let found = add(a, b, modifiers);
            assert_eq!(found.to_bits(), f32::to_bits(expected), "{a:e} + {b:e}, {modifiers:?}: {found:e}");
        }
        for modifiers in [Modifiers::RN, with(Zero), FTZ] {
            assert_eq!(add(INF, -INF, modifiers).to_bits(), 0x7FFF_FFFF);
            assert_eq!(add(f32::from_bits(0xFFC0_1234), 1.0, modifiers).to_bits(), 0x7FFF_FFFF);
        }
    }

    #[test]
    fn products_quotients_roots() {
        let facts = [
            (mul(1.0 + ULP, 1.0 + ULP, with(NearestEven)), 1.0 + 2.0 * ULP),
            (mul(1.0 + ULP, 1.0 + ULP, with(Up)), 1.0 + 3.0 * ULP),
            (mul(-1.0 - ULP, 1.0 + ULP, with(Down)), -1.0 - 3.0 * ULP),
            (mul(LEAST, LEAST, with(Up)), f32::from_bits(1)),
            (mul(-LEAST, LEAST, with(Zero)), -0.0),
            (mul(-1.0, 0.0, with(Up)), -0.0),
            (mul(LEAST, 0.5, FTZ), 0.0),
            (mul(LEAST / 2.0, 4.0, FTZ), 0.0),
            (mul(2.0, 3.0, SAT), 1.0),
            (fma(1.0 + ULP, 1.0 - ULP, -1.0, with(NearestEven)), -ULP * ULP),
            (fma(1.0 + ULP, 1.0 + ULP, -1.0 - 2.0 * ULP, with(Zero)), ULP * ULP),
            (fma(1.0, 1.0, 1e-30, with(Up)), 1.0 + ULP),
            (fma(1e-30, 1e-30, 1.0, with(Down)), 1.0),
            (fma(1e-30, -1e-30, 1.0, with(Down)), 1.0 - ULP / 2.0),
            (fma(2.0, 0.5, -1.0, with(Down)), -0.0),
            (fma(-0.0, 1.0, -0.0, with(Up)), -0.0),
            (fma(1.0, 1.0, LEAST / 2.0, FTZ), 1.0),
            (fma(0.0, INF, 1.0, SAT), 0.0),
            (div(1.0, 3.0, with(NearestEven)), f32::from_bits(0x3EAA_AAAB)),
            (div(1.0, 3.0, with(Zero)), f32::from_bits(0x3EAA_AAAA)),
            (div(-1.0, 3.0, with(Down)), f32::from_bits(0xBEAA_AAAB)),
            (div(1.0, -3.0, with(Up)), f32::from_bits(0xBEAA_AAAA)),
            (div(1.0, 4.0, with(Up)), 0.25),
            (div(-1.0, 0.0, with(Zero)), -INF),
            (div(1.0, -INF, with(Down)), -0.0),
            (sqrt(2.0, with(NearestEven)), f32::from_bits(0x3FB5_04F3)),
            (sqrt(2.0, with(Up)), f32::from_bits(0x3FB5_04F4)),
            (sqrt(4.0, with(Up)), 2.0),
            (sqrt(-0.0, with(Down)), -0.0),
            (sqrt(INF, with(Zero)), INF),
        ];
        for (at, (found, expected)) in facts.iter().enumerate() {
            assert_eq!(found.to_bits(), expected.to_bits(), "fact {at}: {found:e} is not {expected:e}");
        }
        for found in [mul(0.0, INF, with(Zero)), div(0.0, 0.0, with(Up)), sqrt(-1.0, Modifiers::RN)] {
            assert_eq!(found.to_bits(), 0x7FFF_FFFF);
        }
    }

    /// The semantics and notes of sections 9.7.3.11 and 9.7.3.12.
    #[test]
    fn least_and_most() {
        let nan = f32::from_bits(0x7FC0_0001);
        let facts = [
            (min(1.0, 2.0, false), 1.0),
            (max(1.0, 2.0, false), 2.0),
            (min(0.0, -0.0, false), -0.0),
            (min(-0.0, 0.0, false), -0.0),
            (max(0.0, -0.0, false), 0.0),
            (max(-0.0, 0.0, false), 0.0),
            (min(nan, 3.0, false), 3.0),
            (max(-INF, nan, false), -INF),
            (min(INF, -INF, false), -INF),
            (max(LEAST / 2.0, -1.0, true), 0.0),
            (min(-LEAST / 2.0, nan, true), -0.0),
            (min_nan(-1.0, 2.0, false), -1.0),
            (max_nan(-1.0, 2.0, false), 2.0),
        ];
        for (at, (found, expected)) in facts.iter().enumerate() {
            assert_eq!(found.to_bits(), expected.to_bits(), "fact {at}: {found:e} is not {expected:e}");
        }
        for found in
            [min(nan, nan, false), max(nan, nan, true), min_nan(nan, 1.0, false), max_nan(1.0, nan, false)]
        {
            assert_eq!(found.to_bits(), 0x7FFF_FFFF);
        }
    }

    /// A finite float times 2^`scale`, as a whole number.
    fn whole(value: f32, scale: i32) -> i128 {
        (f64::from(value) * 2_f64.powi(scale)) as i128
    }

    /// Whether `found` is the neighbour of `exact` · 2^-`scale` that the direction asks for.
    fn is_rounded(found: f32, exact: i128, scale: i32, rounding: Rounding) -> bool {
        let (below, above) = (whole(found.next_down(), scale), whole(found.next_up(), scale));
        let found = whole(found, scale);
        match rounding {
            Down => found <= exact && exact < above,
            Up => below < exact && exact <= found,
            Zero if exact < 0 => below < exact && exact <= found,
            Zero => found <= exact && exact < above,
            _ => (found - exact).abs() <= (above - exact).abs().min((below - exact).abs()),
        }
    }

    proptest! {
        /// Exact arithmetic on whole numbers: 30 fraction bits of `a`, `b`, 60 of `c` and of the product.
        #[test]
        fn results_are_neighbours_of_the_exact_ones(
            a in -0x00FF_FFFF..0x00FF_FFFF_i32,
            b in -0x00FF_FFFF..0x00FF_FFFF_i32,
            c in -0x00FF_FFFF..0x00FF_FFFF_i32,
            down_b in 0..30_i32,
            down_c in 30..60_i32,
        ) {
            let (x, y) = (a as f32, b as f32 * 2_f32.powi(-down_b));
            let z = c as f32 * 2_f32.powi(-down_c);
            let (whole_x, whole_y, whole_z) = (whole(x, 60), whole(y, 60), whole(z, 60));
            for rounding in [NearestEven, Zero, Down, Up] {
                let found = add(x, z, with(rounding));
                prop_assert!(is_rounded(found, whole_x + whole_z, 60, rounding), "{x} + {z} = {found}");
                let found = mul(x, y, with(rounding));
                let product = i128::from(a) * whole_y;
                prop_assert!(is_rounded(found, product, 60, rounding), "{x} * {y} = {found}");
                let found = fma(x, y, z, with(rounding));
                prop_assert!(is_rounded(found, product + whole_z, 60, rounding), "{x} * {y} + {z} = {found}");
            }
        }

        #[test]
        fn nearest_even_is_rusts(a: u32, b: u32, c: u32) {
            let [a, b, c] = [a, b, c].map(f32::from_bits);
            let pairs = [
                (sum(f64::from(a) * f64::from(b), f64::from(c), Modifiers::RN), a.mul_add(b, c)),
                (sum(f64::from(a), f64::from(b), Modifiers::RN), a + b),
                (Modifiers::RN.round(f64::from(a) * f64::from(b), (a * b).is_sign_negative()), a * b),
            ];
            for (found, expected) in pairs {
                prop_assert_eq!(found.to_bits(), canonical(expected).to_bits());
            }
        }

        /// Quotients and roots enclose the exact ones.
        #[test]
        fn quotients_and_roots_are_enclosed(a: u32, b: u32) {
            let (a, b) = (f32::from_bits(a), f32::from_bits(b));
            let (down, up) = (div(a, b, with(Down)), div(a, b, with(Up)));
            let nearest = a / b;
            if !nearest.is_nan() {
                prop_assert!(nearest == down || nearest == up);
                prop_assert!(down == up || down.next_up() == up, "{a:e} / {b:e}: {down:e} {up:e}");
                let zero = div(a, b, with(Zero));
                prop_assert_eq!(zero, if nearest.is_sign_negative() { up } else { down });
            }
            let a = a.abs();
            let (down, up) = (sqrt(a, with(Down)), sqrt(a, with(Up)));
            if a.is_finite() {
                let square = |root: f32| f64::from(root).powi(2);
                prop_assert!(square(down) <= f64::from(a) && f64::from(a) <= square(up));
                prop_assert!(down == up || down.next_up() == up);
            }
        }
    }
}
