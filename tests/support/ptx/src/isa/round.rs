//! Conversions between number formats (PTX ISA 9.7.9.21, `cvt`): to a float with fewer bits, from and to
//! integers.
//!
//! NaN results have the canonical bits, a sign of 0 and all others 1, whatever the input's. PTX names them
//! for `f32` arithmetic only and leaves those of `cvt` open; the hardware takes the same.

use half::{bf16, f16};

/// Direction of a rounding (PTX ISA 9.7.9.21: floating point and integer rounding modifiers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rounding {
    /// `.rn`, `.rni`: nearest, ties to even.
    NearestEven,
    /// `.rna`: nearest, ties away from zero.
    NearestAway,
    /// `.rz`, `.rzi`: towards zero.
    Zero,
    /// `.rm`, `.rmi`: towards negative infinity.
    Down,
    /// `.rp`, `.rpi`: towards positive infinity.
    Up,
}

impl Rounding {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::NearestEven, Self::NearestAway, Self::Zero, Self::Down, Self::Up];

    /// The whole number next to `value` in this direction; infinities and NaN stay.
    pub fn integral(self, value: f64) -> f64 {
        match self {
            Self::NearestEven => value.round_ties_even(),
            Self::NearestAway => value.round(),
            Self::Zero => value.trunc(),
            Self::Down => value.floor(),
            Self::Up => value.ceil(),
        }
    }
}

/// NaN of `f32` results (PTX ISA 9.7.3).
pub const F32_NAN: u32 = 0x7FFF_FFFF;

/// NaN of `f16` and `bf16` results (PTX ISA 9.7.4).
pub const HALF_NAN: u16 = 0x7FFF;

/// A format of IEEE 754 kind: a sign, `exponent_bits`, `fraction_bits`.
#[derive(Clone, Copy)]
struct Format {
    exponent_bits: u32,
    fraction_bits: u32,
}

const F16: Format = Format { exponent_bits: 5, fraction_bits: 10 };
const BF16: Format = Format { exponent_bits: 8, fraction_bits: 7 };
/// The upper 19 bits of a word (PTX ISA 5.2.3).
const TF32: Format = Format { exponent_bits: 8, fraction_bits: 10 };
const F32: Format = Format { exponent_bits: 8, fraction_bits: 23 };
const F64: Format = Format { exponent_bits: 11, fraction_bits: 52 };

/// `cvt.rnd.f16.f32`, as bits.
pub fn f32_to_f16(value: f32, rounding: Rounding) -> u16 {
    match rounding {
        _ if value.is_nan() => HALF_NAN,
        Rounding::NearestEven => f16::from_f32(value).to_bits(),
        _ => narrow(f64::from(value), F16, rounding) as u16,
    }
}

/// `cvt.rnd.bf16.f32`, as bits.
pub fn f32_to_bf16(value: f32, rounding: Rounding) -> u16 {
    match rounding {
        _ if value.is_nan() => HALF_NAN,
        Rounding::NearestEven => bf16::from_f32(value).to_bits(),
        _ => narrow(f64::from(value), BF16, rounding) as u16,
    }
}

/// `cvt.rnd.f16.f64`, as bits.
pub fn f64_to_f16(value: f64, rounding: Rounding) -> u16 {
    if value.is_nan() { HALF_NAN } else { narrow(value, F16, rounding) as u16 }
}

/// `cvt.rnd.bf16.f64`, as bits.
pub fn f64_to_bf16(value: f64, rounding: Rounding) -> u16 {
    if value.is_nan() { HALF_NAN } else { narrow(value, BF16, rounding) as u16 }
}

/// `cvt.{rna,rn,rz}.tf32.f32`, as the bits of a word whose lowest 13, which no instruction looks at, are
/// zero.
pub fn f32_to_tf32(value: f32, rounding: Rounding) -> u32 {
    if value.is_nan() { F32_NAN } else { (narrow(f64::from(value), TF32, rounding) as u32) << 13 }
}

/// What a tensor core sees of a word that is to be `tf32`: its upper 19 bits (PTX ISA 5.2.3).
pub fn tf32_to_f32(bits: u32) -> f32 {
    f32::from_bits(bits & !0x1FFF)
}

/// `cvt.rnd.f32.f64`.
pub fn f64_to_f32(value: f64, rounding: Rounding) -> f32 {
    match rounding {
        _ if value.is_nan() => f32::from_bits(F32_NAN),
        Rounding::NearestEven => value as f32,
        _ => f32::from_bits(narrow(value, F32, rounding) as u32),
    }
}

/// `cvt.f32.f16`: exact.
pub fn f16_to_f32(bits: u16) -> f32 {
    canonical(f16::from_bits(bits).to_f32())
}

/// `cvt.f32.bf16`: exact.
pub fn bf16_to_f32(bits: u16) -> f32 {
    canonical(bf16::from_bits(bits).to_f32())
}

/// `cvt.{rni,rzi,rmi,rpi}.f32.f32`: a whole number as a float.
pub fn f32_to_integral(value: f32, rounding: Rounding) -> f32 {
    canonical(rounding.integral(f64::from(value)) as f32)
}

/// `cvt.rnd.f32` from an integer of up to 64 bits.
pub fn integer_to_f32(value: i128, rounding: Rounding) -> f32 {
    f32::from_bits(round(value < 0, value.unsigned_abs() as u64, 0, F32, rounding) as u32)
}

/// `cvt.rnd.f64` from an integer of up to 64 bits.
pub fn integer_to_f64(value: i128, rounding: Rounding) -> f64 {
    f64::from_bits(round(value < 0, value.unsigned_abs() as u64, 0, F64, rounding))
}

/// An integer type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Integer {
    /// 8, 16, 32 or 64.
    pub bits: u32,
    /// Whether there are negative ones.
    pub signed: bool,
}

impl Integer {
    /// `.s32`.
    pub const S32: Self = Self { bits: 32, signed: true };
    /// `.u32`.
    pub const U32: Self = Self { bits: 32, signed: false };
    /// `.s64`.
    pub const S64: Self = Self { bits: 64, signed: true };
    /// `.u64`.
    pub const U64: Self = Self { bits: 64, signed: false };

    /// The number of this type next to `value`, which is whole.
    fn clamp(self, value: f64) -> u64 {
        let (least, most) = match self.signed {
            true => (-(1_i128 << (self.bits - 1)), (1_i128 << (self.bits - 1)) - 1),
            false => (0, (1_i128 << self.bits) - 1),
        };
        (value as i128).clamp(least, most) as u64
    }
}

/// `cvt.{rni,rzi,rmi,rpi}` from f32 to an integer: clamped to the type's range; NaN gives 0, but the highest
/// bit alone for 64 bits. Signed results are extended to 64 bits.
pub fn f32_to_integer(value: f32, rounding: Rounding, to: Integer) -> u64 {
    match (value.is_nan(), to.bits) {
        (true, 64) => 1 << 63,
        (true, _) => 0,
        _ => to.clamp(rounding.integral(f64::from(value))),
    }
}

/// `cvt.{rni,rzi,rmi,rpi}` from f64 to an integer: as [`f32_to_integer`], but NaN gives the highest bit alone
/// for any type.
pub fn f64_to_integer(value: f64, rounding: Rounding, to: Integer) -> u64 {
    if value.is_nan() {
        return if to.signed { (-1_i64 << (to.bits - 1)) as u64 } else { 1 << (to.bits - 1) };
    }
    to.clamp(rounding.integral(value))
}

/// The value, or the canonical NaN.
///
/// Bits are compared: an optimiser may take the payload of a NaN for free, and a choice between a NaN and another
/// for none.
pub(super) fn canonical(value: f32) -> f32 {
    let is_nan = value.to_bits() & 0x7FFF_FFFF > 0x7F80_0000;
    if is_nan { f32::from_bits(F32_NAN) } else { value }
}

/// Bits of the number of `format` next to `value`, which is no NaN, in a direction.
fn narrow(value: f64, format: Format, rounding: Rounding) -> u64 {
    let bits = value.to_bits();
    let (exponent, fraction) = ((bits >> 52) as i32 & 0x7FF, bits & ((1 << 52) - 1));
    if exponent == 0x7FF {
        return sign(value < 0.0, format) | infinity(format);
    }
    let (significand, exponent) = if exponent == 0 { (fraction, 1) } else { (fraction | 1 << 52, exponent) };
    round(value.is_sign_negative(), significand, exponent - 1075, format, rounding)
}

/// Bits of the number of `format` next to ± `significand` · 2^`exponent` in a direction.
fn round(negative: bool, significand: u64, exponent: i32, format: Format, rounding: Rounding) -> u64 {
    let signed = sign(negative, format);
    if significand == 0 {
        return signed;
    }
    // The last place of the result: so that the significand fills the format, but not below the subnormals'.
    let bias = (1 << (format.exponent_bits - 1)) - 1;
    let lowest = 1 - bias - format.fraction_bits as i32;
    let highest_bit = exponent + 63 - significand.leading_zeros() as i32;
    let place = lowest.max(highest_bit - format.fraction_bits as i32);
    let shift = place - exponent;
    let (kept, rest) = match shift {
        ..=0 => (significand << -shift, 0_u128),
        1..=63 => (significand >> shift, u128::from(significand & ((1 << shift) - 1)) << (64 - shift)),
        64 => (0, u128::from(significand)),
        // Less than half of the last place, more than nothing.
        _ => (0, 1),
    };
    // `rest` counts in 2^-64 of the last place.
    let half = 1_u128 << 63;
    let up = match rounding {
        Rounding::NearestEven => rest > half || rest == half && kept & 1 == 1,
        Rounding::NearestAway => rest >= half,
        Rounding::Zero => false,
        Rounding::Down => rest != 0 && negative,
        Rounding::Up => rest != 0 && !negative,
    };
    // A carry out of the fraction runs into the exponent, as it should.
    let binade = ((place - lowest) as u64) << format.fraction_bits;
    let magnitude = binade + kept + u64::from(up);
    let largest = infinity(format) - 1;
    if magnitude <= largest {
        return signed | magnitude;
    }
    let to_largest = match rounding {
        Rounding::NearestEven | Rounding::NearestAway => false,
        Rounding::Zero => true,
        Rounding::Down => !negative,
        Rounding::Up => negative,
    };
    signed | if to_largest { largest } else { infinity(format) }
}

/// The bit of the sign.
fn sign(negative: bool, format: Format) -> u64 {
    u64::from(negative) << (format.exponent_bits + format.fraction_bits)
}

/// The bits of infinity.
fn infinity(format: Format) -> u64 {
    ((1 << format.exponent_bits) - 1) << format.fraction_bits
}

#[cfg(test)]
#[path = "round_tests.rs"]
mod tests;
