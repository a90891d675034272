use proptest::prelude::*;

use super::Approximate::{Cos, Ex2, Lg2, Rcp, Rsqrt, Sin, Sqrt, Tanh};
use super::*;

const NAN: f32 = f32::NAN;
const INF: f32 = f32::INFINITY;
/// A subnormal.
const TINY: f32 = 1e-40;

/// The tables of special values in sections 9.7.3.13 to 9.7.3.22; results hold for any seed.
#[test]
fn special_values_are_those_of_the_tables() {
    let facts = [
        (Rcp, -INF, -0.0),
        (Rcp, -0.0, -INF),
        (Rcp, 0.0, INF),
        (Rcp, INF, 0.0),
        (Rcp, NAN, NAN),
        (Sqrt, -INF, NAN),
        (Sqrt, -2.0, NAN),
        (Sqrt, -0.0, -0.0),
        (Sqrt, 0.0, 0.0),
        (Sqrt, INF, INF),
        (Sqrt, NAN, NAN),
        (Rsqrt, -INF, NAN),
        (Rsqrt, -2.0, NAN),
        (Rsqrt, -0.0, -INF),
        (Rsqrt, 0.0, INF),
        (Rsqrt, INF, 0.0),
        (Rsqrt, NAN, NAN),
        (Sin, -INF, NAN),
        (Sin, -0.0, -0.0),
        (Sin, 0.0, 0.0),
        (Sin, INF, NAN),
        (Sin, NAN, NAN),
        (Cos, -INF, NAN),
        (Cos, -0.0, 1.0),
        (Cos, 0.0, 1.0),
        (Cos, INF, NAN),
        (Cos, NAN, NAN),
        (Lg2, -INF, NAN),
        (Lg2, -2.0, NAN),
        (Lg2, -0.0, -INF),
        (Lg2, 0.0, -INF),
        (Lg2, INF, INF),
        (Lg2, NAN, NAN),
        (Ex2, -INF, 0.0),
        (Ex2, -0.0, 1.0),
        (Ex2, 0.0, 1.0),
        (Ex2, INF, INF),
        (Ex2, NAN, NAN),
        (Tanh, -INF, -1.0),
        (Tanh, -0.0, -0.0),
        (Tanh, 0.0, 0.0),
        (Tanh, INF, 1.0),
        (Tanh, NAN, NAN),
        (Tanh, TINY, TINY),
        (Tanh, -TINY, -TINY),
    ];
    for (function, argument, expected) in facts {
        let bits = if expected.is_nan() { 0x7FFF_FFFF } else { f32::to_bits(expected) };
        assert_eq!(function.value(argument, false).to_bits(), bits, "{function:?} of {argument}");
        for seed in 0..8 {
            assert_eq!(function.near(argument, false, seed).to_bits(), bits, "{function:?} of {argument}");
        }
    }
}

/// With `.ftz`, as the notes of each section say, subnormal arguments and results are zeros of their sign.
#[test]
fn subnormals_are_flushed_or_not() {
    let facts = [
        (Rcp, TINY, true, INF),
        (Rcp, -TINY, true, -INF),
        (Rcp, 2_f32.powi(127), true, 0.0),
        (Rcp, -2_f32.powi(127), true, -0.0),
        (Rcp, 2_f32.powi(127), false, 2_f32.powi(-127)),
        (Sqrt, TINY, true, 0.0),
        (Sqrt, -TINY, true, -0.0),
        (Rsqrt, TINY, true, INF),
        (Rsqrt, -TINY, true, -INF),
        (Sin, -TINY, true, -0.0),
        (Cos, TINY, true, 1.0),
        (Lg2, TINY, true, -INF),
        (Lg2, -TINY, true, -INF),
        (Ex2, TINY, true, 1.0),
        (Ex2, -127.0, true, 0.0),
        (Ex2, -127.0, false, 2_f32.powi(-127)),
        (Ex2, 128.0, false, INF),
    ];
    for (function, argument, ftz, expected) in facts {
        assert_eq!(
            function.value(argument, ftz).to_bits(),
            expected.to_bits(),
            "{function:?} of {argument:e}"
        );
    }
    assert!(Lg2.value(-TINY, false).is_nan() && Rsqrt.value(-TINY, false).is_nan());
}

#[test]
fn ordinary_values() {
    let facts = [
        (Rcp, 3.0, 0x3EAA_AAAB),
        (Sqrt, 2.0, 0x3FB5_04F3),
        (Rsqrt, 4.0, 0x3F00_0000),
        (Sin, 1.0, 0x3F57_6AA4),
        (Cos, 1.0, 0x3F0A_5140),
        (Lg2, 8.0, 0x4040_0000),
        (Lg2, 1.0, 0x0000_0000),
        (Ex2, 0.5, 0x3FB5_04F3),
        (Ex2, -3.0, 0x3E00_0000),
        (Tanh, 1.0, 0x3F42_F7D6),
    ];
    for (function, argument, bits) in facts {
        assert_eq!(function.value(argument, false).to_bits(), bits, "{function:?} of {argument}");
    }
}

/// The notes of sections 9.7.3.8 and 9.7.3.13 to 9.7.3.22, in powers of two.
#[test]
fn errors_are_those_of_the_notes() {
    let near = |error, log: f64| match error {
        Error::Relative(most) | Error::Absolute(most) => (libm::log2(most) - log).abs() < 1e-9,
        _ => false,
    };
    assert_eq!(Rcp.error(1.0), Error::Ulps(1));
    assert_eq!(Ex2.error(-20.0), Error::Ulps(2));
    assert_eq!(Sqrt.error(2.0), Error::Relative(2_f64.powi(-23)));
    assert!(near(Rsqrt.error(2.0), -22.9));
    assert_eq!(Tanh.error(2.0), Error::Relative(2_f64.powi(-11)));
    assert_eq!(Lg2.error(1.5), Error::Absolute(2_f64.powi(-22)));
    assert_eq!(Lg2.error(0.5), Error::Relative(2_f64.powi(-22)));
    assert_eq!(Lg2.error(2.0), Error::Relative(2_f64.powi(-22)));
    for function in [Sin, Cos] {
        assert!(near(function.error(-6.0), -20.5) && near(function.error(6.5), -14.7));
        assert!(near(function.error(-314.0), -14.7));
        assert_eq!(function.error(315.0), Error::Unbounded);
    }
    assert_eq!(Divide::Full.error(f32::MAX), Error::Ulps(2));
    assert_eq!(Divide::Approx.error(2_f32.powi(126)), Error::Ulps(2));
    assert_eq!(Divide::Approx.error(-2_f32.powi(-126)), Error::Ulps(2));
    assert_eq!(Divide::Approx.error(2_f32.powi(127)), Error::Unbounded);
    assert_eq!(Divide::Approx.error(TINY), Error::Unbounded);
}

/// Section 9.7.3.8: for divisors between 2^126 and 2^128 `div.approx` gives zero, or NaN for infinity.
#[test]
fn quotients() {
    let (large, third) = (2_f32.powi(127), f32::from_bits(0x3EAA_AAAB));
    let facts = [
        (Divide::Approx, 1.0, 3.0, false, third),
        (Divide::Full, 1.0, 3.0, false, third),
        (Divide::Approx, large, large, false, 0.0),
        (Divide::Approx, -large, large, false, -0.0),
        (Divide::Approx, 1.0, -large, false, -0.0),
        (Divide::Approx, INF, large, false, NAN),
        (Divide::Full, large, large, false, 1.0),
        (Divide::Full, INF, large, false, INF),
        (Divide::Approx, 1.0, 2_f32.powi(126), false, 2_f32.powi(-126)),
        (Divide::Approx, 1.0, INF, false, 0.0),
        (Divide::Approx, 1.0, -0.0, false, -INF),
        (Divide::Full, 0.0, 0.0, false, NAN),
        (Divide::Full, 1.0, TINY, true, INF),
        (Divide::Full, TINY, 1.0, true, 0.0),
    ];
    for (divide, a, b, ftz, expected) in facts {
        let bits = if expected.is_nan() { 0x7FFF_FFFF } else { f32::to_bits(expected) };
        assert_eq!(divide.value(a, b, ftz).to_bits(), bits, "{divide:?} {a:e} {b:e}");
    }
}

/// All results that a bound allows are chosen in time, and no others.
#[test]
fn every_allowed_result_appears() {
    let mut found: Vec<u32> = (0..64).map(|seed| Rcp.near(3.0, false, seed).to_bits()).collect();
    found.sort_unstable();
    found.dedup();
    // A third lies between ...AA and ...AB; one ulp allows each of both sides.
    assert_eq!(found, [0x3EAA_AAAA, 0x3EAA_AAAB]);
    let mut found: Vec<u32> = (0..64).map(|seed| Ex2.near(3.0, false, seed).to_bits()).collect();
    found.sort_unstable();
    found.dedup();
    assert_eq!(
        found,
        [0x40FF_FFFC, 0x40FF_FFFD, 0x40FF_FFFE, 0x40FF_FFFF, 0x4100_0000, 0x4100_0001, 0x4100_0002]
    );
    assert!((0..64).any(|seed| Lg2.near(1.0, false, seed) < 0.0));
}

proptest! {
    #[test]
    fn near_results_keep_the_error(bits: u32, other: u32, seed: u64) {
        let (a, b) = (f32::from_bits(bits), f32::from_bits(other));
        let keeps = |found: f32, exact: f64, value: f32, error: Error| match error {
            Error::Unbounded => found.to_bits() == value.to_bits(),
            _ if exact.is_nan() || value.is_infinite() => found.to_bits() == value.to_bits(),
            Error::Ulps(n) => (f64::from(found) - exact).abs() <= f64::from(n) * ulp(value),
            Error::Relative(part) => (f64::from(found) - exact).abs() <= part * exact.abs() || found == value,
            Error::Absolute(most) => (f64::from(found) - exact).abs() <= most,
        };
        for function in Approximate::ALL {
            let found = function.near(a, false, seed);
            let (exact, value) = (function.exact(f64::from(a)), function.value(a, false));
            prop_assert!(keeps(found, exact, value, function.error(a)), "{function:?} of {a:e}");
        }
        let found = Divide::Full.near(a, b, false, seed);
        let exact = f64::from(a) / f64::from(b);
        prop_assert!(keeps(found, exact, Divide::Full.value(a, b, false), Error::Ulps(2)), "{a:e} / {b:e}");
    }
}
