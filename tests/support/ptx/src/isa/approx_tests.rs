use proptest::prelude::*;

use super::*;

const NAN: f32 = f32::NAN;
const INF: f32 = f32::INFINITY;
/// A subnormal.
const TINY: f32 = 1e-40;
const NONE: Modifiers = Modifiers::NONE;
const FTZ: Modifiers = Modifiers { ftz: true, sat: false };

type Function = fn(f32, Modifiers) -> f32;

fn bits(value: f32) -> u32 {
    if value.is_nan() { 0x7FFF_FFFF } else { value.to_bits() }
}

/// The tables of special values in sections 9.7.3.13 to 9.7.3.22: of -∞, -0, +0, +∞, and of -2 where it has
/// a row.
#[test]
fn special_values_are_those_of_the_tables() {
    let tables: [(Function, [f32; 4], Option<f32>); 8] = [
        (rcp, [-0.0, -INF, INF, 0.0], None),
        (sqrt, [NAN, -0.0, 0.0, INF], Some(NAN)),
        (rsqrt, [NAN, -INF, INF, 0.0], Some(NAN)),
        (sin, [NAN, -0.0, 0.0, NAN], None),
        (cos, [NAN, 1.0, 1.0, NAN], None),
        (lg2, [NAN, -INF, -INF, INF], Some(NAN)),
        (ex2, [0.0, 1.0, 1.0, INF], None),
        (tanh, [-1.0, -0.0, 0.0, 1.0], None),
    ];
    for (row, (function, expected, of_negative)) in tables.into_iter().enumerate() {
        for (argument, expected) in [-INF, -0.0, 0.0, INF].into_iter().zip(expected) {
            assert_eq!(function(argument, NONE).to_bits(), bits(expected), "row {row}, {argument}");
        }
        if let Some(expected) = of_negative {
            assert_eq!(function(-2.0, NONE).to_bits(), bits(expected), "row {row}, -2");
        }
        for nan in [0x7F80_0001, 0x7FC0_0000, 0xFFC0_1234] {
            for modifiers in [NONE, FTZ] {
                assert_eq!(function(f32::from_bits(nan), modifiers).to_bits(), bits(NAN), "row {row}");
            }
        }
    }
    assert_eq!(tanh(TINY, NONE), TINY);
    assert_eq!(tanh(-TINY, NONE), -TINY);
}

/// With `.ftz`, as the notes of each section say, subnormal arguments and results are zeros of their sign.
#[test]
fn subnormals_are_flushed_or_not() {
    let facts: [(Function, f32, Modifiers, f32); 17] = [
        (rcp, TINY, FTZ, INF),
        (rcp, -TINY, FTZ, -INF),
        (rcp, 2_f32.powi(127), FTZ, 0.0),
        (rcp, -2_f32.powi(127), FTZ, -0.0),
        (rcp, 2_f32.powi(127), NONE, 2_f32.powi(-127)),
        (sqrt, TINY, FTZ, 0.0),
        (sqrt, -TINY, FTZ, -0.0),
        (rsqrt, TINY, FTZ, INF),
        (rsqrt, -TINY, FTZ, -INF),
        (sin, -TINY, FTZ, -0.0),
        (cos, TINY, FTZ, 1.0),
        (lg2, TINY, FTZ, -INF),
        (lg2, -TINY, FTZ, -INF),
        (ex2, TINY, FTZ, 1.0),
        (ex2, -127.0, FTZ, 0.0),
        (ex2, -127.0, NONE, 2_f32.powi(-127)),
        (ex2, 128.0, NONE, INF),
    ];
    for (row, (function, argument, modifiers, expected)) in facts.into_iter().enumerate() {
        assert_eq!(function(argument, modifiers).to_bits(), bits(expected), "row {row}, {argument:e}");
    }
    assert!(lg2(-TINY, NONE).is_nan() && rsqrt(-TINY, NONE).is_nan());
}

#[test]
fn ordinary_values() {
    let facts: [(Function, f32, u32); 10] = [
        (rcp, 3.0, 0x3EAA_AAAB),
        (sqrt, 2.0, 0x3FB5_04F3),
        (rsqrt, 4.0, 0x3F00_0000),
        (sin, 1.0, 0x3F57_6AA4),
        (cos, 1.0, 0x3F0A_5140),
        (lg2, 8.0, 0x4040_0000),
        (lg2, 1.0, 0x0000_0000),
        (ex2, 0.5, 0x3FB5_04F3),
        (ex2, -3.0, 0x3E00_0000),
        (tanh, 1.0, 0x3F42_F7D6),
    ];
    for (row, (function, argument, bits)) in facts.into_iter().enumerate() {
        assert_eq!(function(argument, NONE).to_bits(), bits, "row {row}, {argument}");
    }
}

/// Section 9.7.3.8: for divisors between 2^126 and 2^128 `div.approx` gives zero, or NaN for infinity.
#[test]
fn quotients() {
    let (large, third) = (2_f32.powi(127), f32::from_bits(0x3EAA_AAAB));
    let facts = [
        (div_approx(1.0, 3.0, NONE), third),
        (div_full(1.0, 3.0, NONE), third),
        (div_approx(large, large, NONE), 0.0),
        (div_approx(-large, large, NONE), -0.0),
        (div_approx(1.0, -large, NONE), -0.0),
        (div_approx(INF, large, NONE), NAN),
        (div_full(large, large, NONE), 1.0),
        (div_full(INF, large, NONE), INF),
        (div_approx(1.0, 2_f32.powi(126), NONE), 2_f32.powi(-126)),
        (div_approx(1.0, INF, NONE), 0.0),
        (div_approx(1.0, -0.0, NONE), -INF),
        (div_full(0.0, 0.0, NONE), NAN),
        (div_full(1.0, TINY, FTZ), INF),
        (div_full(TINY, 1.0, FTZ), 0.0),
    ];
    for (row, (found, expected)) in facts.into_iter().enumerate() {
        assert_eq!(found.to_bits(), bits(expected), "row {row}");
    }
}

/// How far a result may be from the exact one.
enum Error {
    /// Units in the last place of the exact result.
    Ulps(f64),
    /// Two to this power, times the exact result.
    Relative(f64),
    /// Two to this power.
    Absolute(f64),
}

/// A function without rounding.
type Exact = fn(f64) -> f64;

/// The stated error at an argument, as far as one is stated (the notes of sections 9.7.3.13 to 9.7.3.22).
type Bound = fn(f32) -> Option<Error>;

fn of_sine(argument: f32) -> Option<Error> {
    const TURN: f64 = 2.0 * std::f64::consts::PI;
    let magnitude = f64::from(argument.abs());
    match magnitude {
        _ if magnitude <= TURN => Some(Error::Absolute(-20.5)),
        _ if magnitude <= 50.0 * TURN => Some(Error::Absolute(-14.7)),
        _ => None,
    }
}

fn of_logarithm(argument: f32) -> Option<Error> {
    let is_near_1 = argument > 0.5 && argument < 2.0;
    Some(if is_near_1 { Error::Absolute(-22.0) } else { Error::Relative(-22.0) })
}

/// Functions with their exact ones and their stated errors.
const BOUNDS: [(Function, Exact, Bound); 8] = [
    (rcp, |a| 1.0 / a, |_| Some(Error::Ulps(1.0))),
    (sqrt, f64::sqrt, |_| Some(Error::Relative(-23.0))),
    (rsqrt, |a| 1.0 / a.sqrt(), |_| Some(Error::Relative(-22.9))),
    (sin, f64::sin, of_sine),
    (cos, f64::cos, of_sine),
    (lg2, f64::log2, of_logarithm),
    (ex2, f64::exp2, |_| Some(Error::Ulps(2.0))),
    (tanh, f64::tanh, |_| Some(Error::Relative(-11.0))),
];

/// Whether a value lies within an error of the exact result.
fn keeps(found: f32, exact: f64, error: &Error) -> bool {
    let nearest = exact as f32;
    if exact.is_nan() || nearest.is_infinite() {
        return found.to_bits() == bits(nearest);
    }
    let magnitude = nearest.abs();
    // No format has more than half of its last place.
    let least = f64::from(magnitude.next_up()) / 2.0 - f64::from(magnitude) / 2.0;
    let most = match error {
        Error::Ulps(n) => n * 2.0 * least,
        Error::Relative(power) => (power.exp2() * exact.abs()).max(least),
        Error::Absolute(power) => power.exp2().max(least),
    };
    (f64::from(found) - exact).abs() <= most
}

proptest! {
    /// Against the platform's own `f64`; arguments of any bits, and ordinary ones.
    #[test]
    fn results_keep_the_stated_errors(word: u32, ordinary in -320_f32..320.0) {
        for argument in [f32::from_bits(word), ordinary, ordinary.abs(), ordinary / 200.0] {
            for (row, (function, exact, bound)) in BOUNDS.into_iter().enumerate() {
                let exact = exact(f64::from(argument));
                let found = function(argument, NONE);
                if let Some(error) = bound(argument) {
                    prop_assert!(keeps(found, exact, &error), "row {row} of {argument:e}: {found:e}, {exact:e}");
                }
            }
        }
    }

    #[test]
    fn quotients_keep_the_stated_errors(a: u32, b: u32) {
        let (a, b) = (f32::from_bits(a), f32::from_bits(b));
        let exact = f64::from(a) / f64::from(b);
        prop_assert!(keeps(div_full(a, b, NONE), exact, &Error::Ulps(2.0)), "{a:e} / {b:e}");
        if (f32::MIN_POSITIVE..=2_f32.powi(126)).contains(&b.abs()) {
            prop_assert!(keeps(div_approx(a, b, NONE), exact, &Error::Ulps(2.0)), "{a:e} / {b:e}");
        }
    }
}
