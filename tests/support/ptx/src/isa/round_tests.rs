use proptest::prelude::*;

use super::Rounding::{NearestEven, Zero};
use super::*;

/// (bits of the f32, direction, bits of the bf16).
#[test]
fn bf16_facts() {
    let facts = [
        (0x3F80_0000, NearestEven, 0x3F80),
        (0x3F80_8000, NearestEven, 0x3F80), // A tie goes to the even neighbour,
        (0x3F81_8000, NearestEven, 0x3F82), // above or below.
        (0x3F80_8001, NearestEven, 0x3F81),
        (0x3F80_7FFF, NearestEven, 0x3F80),
        (0x3F80_FFFF, Zero, 0x3F80),
        (0xBF80_FFFF, Zero, 0xBF80),
        (0x7F7F_FFFF, NearestEven, 0x7F80), // The largest f32 is beyond the largest bf16,
        (0x7F7F_FFFF, Zero, 0x7F7F),        // which no rounding to zero leaves.
        (0xFF7F_FFFF, NearestEven, 0xFF80),
        (0xFF7F_FFFF, Zero, 0xFF7F),
        (0x7F7F_7FFF, NearestEven, 0x7F7F),
        (0x0000_8000, NearestEven, 0x0000), // Half of the least subnormal.
        (0x0000_8001, NearestEven, 0x0001),
        (0x8000_0000, NearestEven, 0x8000),
        (0x7F80_0000, Zero, 0x7F80),
        (0xFF80_0000, NearestEven, 0xFF80),
        (0xFFC0_1234, NearestEven, 0x7FFF),
        (0x7F80_0001, Zero, 0x7FFF),
    ];
    for (bits, rounding, expected) in facts {
        assert_eq!(f32_to_bf16(f32::from_bits(bits), rounding), expected, "{bits:#x} {rounding:?}");
    }
    assert_eq!(bf16_to_f32(0xC049), -3.140_625);
}

#[test]
fn f16_facts() {
    let facts = [
        (1.0, NearestEven, 0x3C00),
        (65504.0, NearestEven, 0x7BFF),
        (65519.996, NearestEven, 0x7BFF),
        (65520.0, NearestEven, 0x7C00), // Half way to 2^16.
        (65520.0, Zero, 0x7BFF),
        (-65520.0, NearestEven, 0xFC00),
        (-1e9, Zero, 0xFBFF),
        (6.103_515_6e-5, NearestEven, 0x0400), // 2^-14, the least normal.
        (6.097_555e-5, NearestEven, 0x03FF),
        (5.960_464_5e-8, NearestEven, 0x0001), // 2^-24, the least subnormal.
        (2.980_232_2e-8, NearestEven, 0x0000), // 2^-25, a tie.
        (2.980_232_6e-8, NearestEven, 0x0001),
        (5.9e-8, Zero, 0x0000),
        (-5.9e-8, Zero, 0x8000),
        (1.000_488_3, NearestEven, 0x3C00), // 1 + 2^-11, a tie.
        (1.001_464_8, NearestEven, 0x3C02), // 1 + 3 · 2^-11, a tie.
        (0.1, NearestEven, 0x2E66),
        (f32::INFINITY, Zero, 0x7C00),
        (f32::NAN, NearestEven, 0x7FFF),
    ];
    for (value, rounding, expected) in facts {
        assert_eq!(f32_to_f16(value, rounding), expected, "{value} {rounding:?}");
    }
    assert_eq!(f16_to_f32(0x0001), 2_f32.powi(-24));
    assert_eq!(f16_to_f32(0xFE00).to_bits(), 0x7FFF_FFFF);
}

#[test]
fn tf32_facts() {
    let facts = [
        (0x3F80_0FFF, 0x3F80_0000),
        (0x3F80_1000, 0x3F80_2000), // A tie: away from zero.
        (0xBF80_1000, 0xBF80_2000),
        (0x3FFF_F000, 0x4000_0000),
        (0x7F7F_FFFF, 0x7F80_0000),
        (0xFF80_0000, 0xFF80_0000),
        (0x0000_1000, 0x0000_2000),
        (0x0000_0FFF, 0x0000_0000),
        (0x7FC0_0001, 0x7FFF_FFFF),
    ];
    for (bits, expected) in facts {
        assert_eq!(f32_to_tf32(f32::from_bits(bits)), expected, "{bits:#x}");
    }
}

#[test]
fn f32_facts() {
    let facts = [
        (1.0 + 2_f64.powi(-24), NearestEven, 0x3F80_0000),
        (1.0 + 2_f64.powi(-24) + 2_f64.powi(-50), NearestEven, 0x3F80_0001),
        (1.0 + 2_f64.powi(-23) - 2_f64.powi(-50), Zero, 0x3F80_0000),
        (-1.0 - 2_f64.powi(-24) - 2_f64.powi(-50), Zero, 0xBF80_0000),
        (1e300, NearestEven, 0x7F80_0000),
        (1e300, Zero, 0x7F7F_FFFF),
        (f64::NEG_INFINITY, Zero, 0xFF80_0000),
        (2_f64.powi(-150), NearestEven, 0x0000_0000),
        (-5e-324, Zero, 0x8000_0000),
        (-f64::NAN, NearestEven, 0x7FFF_FFFF),
        (f64::NAN, Zero, 0x7FFF_FFFF),
    ];
    for (value, rounding, expected) in facts {
        assert_eq!(f64_to_f32(value, rounding).to_bits(), expected, "{value:e} {rounding:?}");
    }
    assert_eq!(f32_to_whole(-2.5, Whole::NearestEven), -2.0);
    assert_eq!(f32_to_whole(-0.25, Whole::NearestEven).to_bits(), 0x8000_0000);
    assert_eq!(f32_to_whole(2.5, Whole::Up), 3.0);
    assert_eq!(f64_to_whole(-2.5, Whole::Down), -3.0);
    assert_eq!(f64_to_whole(-f64::NAN, Whole::Zero).to_bits(), u64::MAX >> 1);
}

const U32: Integer = Integer { bits: 32, signed: false };
const S64: Integer = Integer { bits: 64, signed: true };
const U64: Integer = Integer { bits: 64, signed: false };

/// Section 9.7.9.21: `.rni` takes the even of two equidistant integers, results are clamped, NaN becomes zero
/// unless the source has 64 bits or the destination.
#[test]
fn integer_facts() {
    let facts = [
        (2.5, Whole::NearestEven, Integer::S32, 2),
        (3.5, Whole::NearestEven, Integer::S32, 4),
        (-2.5, Whole::NearestEven, Integer::S32, -2_i64 as u64),
        (2.9, Whole::Zero, Integer::S32, 2),
        (-2.9, Whole::Zero, Integer::S32, -2_i64 as u64),
        (-2.1, Whole::Down, Integer::S32, -3_i64 as u64),
        (2.1, Whole::Up, Integer::S32, 3),
        (3e9, Whole::Zero, Integer::S32, 0x7FFF_FFFF),
        (-3e9, Whole::Zero, Integer::S32, 0xFFFF_FFFF_8000_0000),
        (5e9, Whole::Zero, U32, 0xFFFF_FFFF),
        (-1.0, Whole::Zero, U32, 0),
        (-0.5, Whole::Zero, U32, 0),
        (f32::INFINITY, Whole::Zero, U32, 0xFFFF_FFFF),
        (f32::NEG_INFINITY, Whole::Zero, S64, 1 << 63),
        (1e20, Whole::Zero, U64, u64::MAX),
        (300.0, Whole::Zero, Integer { bits: 8, signed: false }, 255),
        (-300.0, Whole::Zero, Integer { bits: 8, signed: true }, -128_i64 as u64),
        (f32::NAN, Whole::Zero, Integer::S32, 0),
        (f32::NAN, Whole::Zero, U32, 0),
        (f32::NAN, Whole::NearestEven, Integer { bits: 16, signed: true }, 0),
        (f32::NAN, Whole::Zero, S64, 0x8000_0000_0000_0000),
        (f32::NAN, Whole::Zero, U64, 0x8000_0000_0000_0000),
    ];
    for (value, whole, to, expected) in facts {
        assert_eq!(f32_to_integer(value, whole, to), expected, "{value} {whole:?} {to:?}");
    }
    assert_eq!(f64_to_integer(f64::NAN, Whole::Zero, Integer::S32), 0xFFFF_FFFF_8000_0000);
    assert_eq!(f64_to_integer(f64::NAN, Whole::Zero, U32), 0x8000_0000);
    assert_eq!(f64_to_integer(f64::NAN, Whole::Zero, U64), 1 << 63);
    assert_eq!(f64_to_integer(2_147_483_647.5, Whole::NearestEven, Integer::S32), 0x7FFF_FFFF);
}

#[test]
fn integers_become_floats() {
    let facts = [
        (16_777_217, Integer::S32, NearestEven, 16_777_216.0), // 2^24 + 1, a tie.
        (16_777_219, Integer::S32, NearestEven, 16_777_220.0),
        (16_777_219, Integer::S32, Zero, 16_777_218.0),
        (-16_777_219_i64 as u64, Integer::S32, Zero, -16_777_218.0),
        (0x1_FFFF_FFFF, U32, Zero, 4_294_967_040.0),
        (u64::MAX, U64, NearestEven, 18_446_744_073_709_551_616.0),
        (u64::MAX, U64, Zero, 18_446_742_974_197_923_840.0),
        (u64::MAX, S64, Zero, -1.0),
        (1 << 63, S64, NearestEven, -9_223_372_036_854_775_808.0),
        (0, S64, Zero, 0.0),
    ];
    for (value, from, rounding, expected) in facts {
        let found = integer_to_f32(value, from, rounding);
        assert_eq!(found.to_bits(), f32::to_bits(expected), "{value} {from:?} {rounding:?}");
    }
    assert_eq!(integer_to_f64((1 << 53) + 1, U64, NearestEven), 9_007_199_254_740_992.0);
    assert_eq!(integer_to_f64((1 << 53) + 3, U64, Zero), 9_007_199_254_740_994.0);
    assert_eq!(integer_to_f64(-7_i64 as u64, S64, Zero), -7.0);
}

proptest! {
    /// The conversions of `half` round to nearest even.
    #[test]
    fn nearest_even_is_that_of_others(bits: u32) {
        let value = f32::from_bits(bits);
        if !value.is_nan() {
            prop_assert_eq!(f32_to_f16(value, NearestEven), f16::from_f32(value).to_bits());
            prop_assert_eq!(f32_to_bf16(value, NearestEven), bf16::from_f32(value).to_bits());
        }
    }

    /// Towards zero is the last number on the way from zero that does not pass the value.
    #[test]
    fn towards_zero_does_not_pass_the_value(bits: u32, wide: u64, integer: u64) {
        let value = f32::from_bits(bits);
        prop_assume!(value.is_finite());
        let (exact, found) = (f64::from(value), f32_to_f16(value, Zero));
        let magnitude = |bits: u16| f16::from_bits(bits).to_f64().abs();
        prop_assert!(magnitude(found) <= exact.abs() && exact.abs() < magnitude(found + 1));
        let found = f32_to_bf16(value, Zero);
        let magnitude = |bits: u16| bf16::from_bits(bits).to_f64().abs();
        prop_assert!(magnitude(found) <= exact.abs() && exact.abs() < magnitude(found + 1));
        let exact = f64::from_bits(wide);
        if exact.is_finite() {
            let found = f64_to_f32(exact, Zero).abs();
            let beyond = f64::from(found.next_up());
            prop_assert!(f64::from(found) <= exact.abs() && exact.abs() < beyond);
        }
        let found = integer_to_f32(integer, U64, Zero);
        prop_assert!(found as u128 <= u128::from(integer) && u128::from(integer) < found.next_up() as u128);
    }
}
