use proptest::prelude::*;

use super::Rounding::{Down, NearestAway, NearestEven, Up, Zero};
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
        (0x3F80_0001, Up, 0x3F81),
        (0xBF80_0001, Up, 0xBF80),
        (0xBF80_0001, Down, 0xBF81),
        (0x7F7F_FFFF, NearestEven, 0x7F80), // The largest f32 is beyond the largest bf16,
        (0x7F7F_FFFF, Zero, 0x7F7F),        // which no rounding to zero leaves.
        (0xFF7F_FFFF, NearestEven, 0xFF80),
        (0xFF7F_FFFF, Zero, 0xFF7F),
        (0x7F7F_7FFF, NearestEven, 0x7F7F),
        (0x0000_8000, NearestEven, 0x0000), // Half of the least subnormal.
        (0x0000_8001, NearestEven, 0x0001),
        (0x0000_0001, Up, 0x0001),
        (0x8000_0000, NearestEven, 0x8000),
        (0x7F80_0000, Zero, 0x7F80),
        (0xFF80_0000, NearestEven, 0xFF80),
        (0xFFC0_1234, NearestEven, 0x7FFF),
        (0x7F80_0001, Zero, 0x7FFF),
    ];
    for (bits, rounding, expected) in facts {
        let value = f32::from_bits(bits);
        assert_eq!(f32_to_bf16(value, rounding), expected, "{bits:#x} {rounding:?}");
        assert_eq!(f64_to_bf16(f64::from(value), rounding), expected, "{bits:#x} {rounding:?}");
    }
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
        (-1e9, Up, 0xFBFF),
        (-1e9, Down, 0xFC00),
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
        (0.1, Up, 0x2E67),
        (f32::INFINITY, Zero, 0x7C00),
        (f32::NAN, NearestEven, 0x7FFF),
    ];
    for (value, rounding, expected) in facts {
        assert_eq!(f32_to_f16(value, rounding), expected, "{value} {rounding:?}");
        assert_eq!(f64_to_f16(f64::from(value), rounding), expected, "{value} {rounding:?}");
    }
}

#[test]
fn tf32_facts() {
    let facts = [
        (0x3F80_0FFF, NearestAway, 0x3F80_0000),
        (0x3F80_1000, NearestAway, 0x3F80_2000), // A tie: away from zero,
        (0xBF80_1000, NearestAway, 0xBF80_2000),
        (0x3F80_1000, NearestEven, 0x3F80_0000), // to even,
        (0x3F80_3000, NearestEven, 0x3F80_4000),
        (0x3F80_1000, Zero, 0x3F80_0000), // to zero.
        (0x3F80_1FFF, Zero, 0x3F80_0000),
        (0x3FFF_F000, NearestAway, 0x4000_0000),
        (0x7F7F_FFFF, NearestAway, 0x7F80_0000),
        (0x7F7F_FFFF, Zero, 0x7F7F_E000),
        (0x0000_1000, NearestAway, 0x0000_2000),
        (0x0000_0FFF, NearestAway, 0x0000_0000),
        (0x7FC0_0001, NearestAway, 0x7FFF_FFFF),
    ];
    for (bits, rounding, expected) in facts {
        assert_eq!(f32_to_tf32(f32::from_bits(bits), rounding), expected, "{bits:#x} {rounding:?}");
    }
    assert_eq!(tf32_to_f32(0x3F80_3FFF).to_bits(), 0x3F80_2000);
}

#[test]
fn f32_facts() {
    let facts = [
        (1.0 + 2_f64.powi(-24), NearestEven, 0x3F80_0000),
        (1.0 + 2_f64.powi(-24) + 2_f64.powi(-50), NearestEven, 0x3F80_0001),
        (1.0 + 2_f64.powi(-50), Up, 0x3F80_0001),
        (1.0 + 2_f64.powi(-23) - 2_f64.powi(-50), Zero, 0x3F80_0000),
        (-1.0 - 2_f64.powi(-50), Down, 0xBF80_0001),
        (1e300, NearestEven, 0x7F80_0000),
        (1e300, Down, 0x7F7F_FFFF),
        (2_f64.powi(-150), NearestEven, 0x0000_0000),
        (2_f64.powi(-150), NearestAway, 0x0000_0001),
        (5e-324, Up, 0x0000_0001),
        (-5e-324, Zero, 0x8000_0000),
        (-f64::NAN, NearestEven, 0x7FFF_FFFF),
    ];
    for (value, rounding, expected) in facts {
        assert_eq!(f64_to_f32(value, rounding).to_bits(), expected, "{value:e} {rounding:?}");
    }
    // Twice rounded, by way of f32, this would be a tie and become 0x3F80.
    assert_eq!(f64_to_bf16(1.0 + 2_f64.powi(-8) + 2_f64.powi(-40), NearestEven), 0x3F81);
    assert_eq!(f64_to_f16(1.0 + 2_f64.powi(-11) + 2_f64.powi(-40), NearestEven), 0x3C01);
    assert_eq!(f16_to_f32(0x0001), 2_f32.powi(-24));
    assert_eq!(f16_to_f32(0xFE00).to_bits(), 0x7FFF_FFFF);
    assert_eq!(bf16_to_f32(0xC049), -3.140_625);
    assert_eq!(f32_to_integral(-2.5, NearestEven), -2.0);
    assert_eq!(f32_to_integral(-0.25, NearestEven).to_bits(), 0x8000_0000);
    assert_eq!(f32_to_integral(2.5, Up), 3.0);
}

/// Section 9.7.9.21: `.rni` takes the even of two equidistant integers, results are clamped, NaN becomes zero
/// unless the source has 64 bits or the destination.
#[test]
fn integer_facts() {
    let facts = [
        (2.5, NearestEven, Integer::S32, 2),
        (3.5, NearestEven, Integer::S32, 4),
        (-2.5, NearestEven, Integer::S32, -2_i64 as u64),
        (2.9, Zero, Integer::S32, 2),
        (-2.9, Zero, Integer::S32, -2_i64 as u64),
        (-2.1, Down, Integer::S32, -3_i64 as u64),
        (2.1, Up, Integer::S32, 3),
        (3e9, Zero, Integer::S32, 0x7FFF_FFFF),
        (-3e9, Zero, Integer::S32, 0xFFFF_FFFF_8000_0000),
        (5e9, Zero, Integer::U32, 0xFFFF_FFFF),
        (-1.0, Zero, Integer::U32, 0),
        (-0.5, Zero, Integer::U32, 0),
        (f32::INFINITY, Zero, Integer::U32, 0xFFFF_FFFF),
        (f32::NEG_INFINITY, Zero, Integer::S64, 1 << 63),
        (1e20, Zero, Integer::U64, u64::MAX),
        (300.0, Zero, Integer { bits: 8, signed: false }, 255),
        (-300.0, Zero, Integer { bits: 8, signed: true }, -128_i64 as u64),
        (f32::NAN, Zero, Integer::S32, 0),
        (f32::NAN, Zero, Integer::U32, 0),
        (f32::NAN, NearestEven, Integer { bits: 16, signed: true }, 0),
        (f32::NAN, Zero, Integer::S64, 0x8000_0000_0000_0000),
        (f32::NAN, Zero, Integer::U64, 0x8000_0000_0000_0000),
    ];
    for (value, rounding, to, expected) in facts {
        assert_eq!(f32_to_integer(value, rounding, to), expected, "{value} {rounding:?} {to:?}");
    }
    assert_eq!(f64_to_integer(f64::NAN, Zero, Integer::S32), 0xFFFF_FFFF_8000_0000);
    assert_eq!(f64_to_integer(f64::NAN, Zero, Integer::U32), 0x8000_0000);
    assert_eq!(f64_to_integer(f64::NAN, Zero, Integer::U64), 1 << 63);
    assert_eq!(f64_to_integer(2_147_483_647.5, NearestEven, Integer::S32), 0x7FFF_FFFF);
}

#[test]
fn integers_become_floats() {
    let facts = [
        (16_777_217, NearestEven, 16_777_216.0), // 2^24 + 1, a tie.
        (16_777_219, NearestEven, 16_777_220.0),
        (16_777_217, Up, 16_777_218.0),
        (-16_777_217, Up, -16_777_216.0),
        (i128::from(u64::MAX), NearestEven, 18_446_744_073_709_551_616.0),
        (i128::from(u64::MAX), Zero, 18_446_742_974_197_923_840.0),
        (0, Down, 0.0),
    ];
    for (value, rounding, expected) in facts {
        assert_eq!(integer_to_f32(value, rounding).to_bits(), f32::to_bits(expected), "{value} {rounding:?}");
    }
    assert_eq!(integer_to_f64((1 << 53) + 1, NearestEven), 9_007_199_254_740_992.0);
    assert_eq!(integer_to_f64((1 << 53) + 1, Up), 9_007_199_254_740_994.0);
    assert_eq!(integer_to_f64(-7, Zero), -7.0);
}

proptest! {
    /// Rust's own conversions, and those of `half`, round to nearest even.
    #[test]
    fn nearest_even_is_rusts(bits: u32, wide: u64, integer: u64) {
        let value = f32::from_bits(bits);
        if !value.is_nan() {
            let generic = narrow(f64::from(value), F16, NearestEven) as u16;
            prop_assert_eq!(generic, f16::from_f32(value).to_bits());
            let generic = narrow(f64::from(value), BF16, NearestEven) as u16;
            prop_assert_eq!(generic, bf16::from_f32(value).to_bits());
        }
        let value = f64::from_bits(wide);
        if !value.is_nan() {
            prop_assert_eq!(narrow(value, F32, NearestEven) as u32, (value as f32).to_bits());
            prop_assert_eq!(narrow(value, F64, NearestEven), wide);
        }
        prop_assert_eq!(integer_to_f32(i128::from(integer), NearestEven), integer as f32);
        prop_assert_eq!(integer_to_f64(i128::from(integer as i64), NearestEven), integer as i64 as f64);
    }

    /// Down and up are neighbours with the value between them; the others are one of the two.
    #[test]
    fn directions_enclose_the_value(bits: u32) {
        let value = f32::from_bits(bits);
        prop_assume!(value.is_finite());
        let rounded = |rounding| f64::from(bf16_to_f32(f32_to_bf16(value, rounding)));
        let (down, up, value) = (rounded(Down), rounded(Up), f64::from(value));
        prop_assert!(down <= value && value <= up);
        if down == up {
            prop_assert_eq!(down, value);
        } else {
            let (below, above) = (f32_to_bf16(down as f32, Zero), f32_to_bf16(up as f32, Zero));
            let steps = bf16::from_bits(below).total_cmp(&bf16::from_bits(above));
            prop_assert!(steps.is_lt() && below.abs_diff(above) == 1);
        }
        prop_assert_eq!(rounded(Zero), if value < 0.0 { up } else { down });
        for nearest in [rounded(NearestEven), rounded(NearestAway)] {
            prop_assert!(nearest == down || nearest == up);
            if up.is_finite() && down.is_finite() {
                prop_assert!((nearest - value).abs() <= (up - value).min(value - down));
            }
        }
    }
}
