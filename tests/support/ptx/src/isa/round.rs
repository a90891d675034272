//! Conversions between number formats (PTX ISA 9.7.9.21, `cvt`): to a float with fewer bits, from and to
//! integers.
//!
//! NaN results have the canonical bits, a sign of 0 and all others 1, whatever the input's. PTX names them
//! for `f32` arithmetic only and leaves those of `cvt` and of `f64` open; the hardware's conversions take the
//! same.

use half::{bf16, f16};

/// Direction of a rounding to a number of some format (PTX ISA 9.7.9.21, floating point rounding modifiers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rounding {
    /// `.rn`: nearest, ties to even.
    NearestEven,
    /// `.rz`: towards zero.
    Zero,
}

/// Direction of a rounding to a whole number (PTX ISA 9.7.9.21, integer rounding modifiers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Whole {
    /// `.rni`: nearest, ties to even.
    NearestEven,
    /// `.rzi`: towards zero.
    Zero,
    /// `.rmi`: towards negative infinity.
    Down,
    /// `.rpi`: towards positive infinity.
    Up,
}

impl Whole {
    /// The whole number next to `value` in this direction; infinities and NaN stay.
    #[inline]
    fn of(self, value: f64) -> f64 {
        match self {
            Self::NearestEven => value.round_ties_even(),
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

/// The value, or the canonical NaN.
///
/// On the bits: LLVM takes `sqrt` for a function whose NaN has no particular bits, and drops a choice between
/// floats.
#[inline]
pub fn canonical(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits(if bits & 0x7FFF_FFFF > f32::INFINITY.to_bits() { F32_NAN } else { bits })
}

/// As [`canonical`], for `f64`.
#[inline]
pub fn canonical64(value: f64) -> f64 {
    let bits = value.to_bits();
    let is_nan = bits & (u64::MAX >> 1) > f64::INFINITY.to_bits();
    f64::from_bits(if is_nan { u64::MAX >> 1 } else { bits })
}

/// `cvt.{rn,rz}.f16.f32`, as bits.
#[inline]
pub fn f32_to_f16(value: f32, rounding: Rounding) -> u16 {
    if value.is_nan() {
        return HALF_NAN;
    }
    let nearest = f16::from_f32(value);
    let is_farther = rounding == Rounding::Zero && nearest.to_f32().abs() > value.abs();
    nearest.to_bits() - u16::from(is_farther)
}

/// `cvt.{rn,rz}.bf16.f32`, as bits.
#[inline]
pub fn f32_to_bf16(value: f32, rounding: Rounding) -> u16 {
    let bits = value.to_bits();
    let rounded = match rounding {
        // A carry out of the fraction makes the next exponent, up to infinity.
        Rounding::NearestEven => bits.wrapping_add(0x7FFF + (bits >> 16 & 1)),
        Rounding::Zero => bits,
    };
    if value.is_nan() { HALF_NAN } else { (rounded >> 16) as u16 }
}

/// `fma.rn.bf16`, as bits: one rounding. A product of two is exact in `f64`; the sum is rounded to odd there and again to
/// `f32`, so that ties and what lies beside them are still told apart when bf16 rounds.
#[inline]
pub fn fma_bf16(a: u16, b: u16, c: u16) -> u16 {
    let [a, b, c] = [a, b, c].map(|bits| bf16::from_bits(bits).to_f64());
    let product = a * b;
    let sum = product + c;
    let added = sum - product;
    let lost = (product - (sum - added)) + (c - added);
    let odd = match sum.is_finite() && lost != 0.0 && sum.to_bits() & 1 == 0 {
        true if (lost > 0.0) == (sum > 0.0) => f64::from_bits(sum.to_bits() + 1),
        true => f64::from_bits(sum.to_bits() - 1),
        false => sum,
    };
    let near = odd as f32;
    let lies_beyond = f64::from(near).abs() < odd.abs();
    let odd = match near.is_finite() && f64::from(near) != odd && near.to_bits() & 1 == 0 {
        true if lies_beyond => f32::from_bits(near.to_bits() + 1),
        true => f32::from_bits(near.to_bits() - 1),
        false => near,
    };
    f32_to_bf16(odd, Rounding::NearestEven)
}

/// `cvt.rna.tf32.f32`: eleven bits of precision, ties away from zero, as the bits of a word whose lowest 13,
/// which no instruction looks at, are zero.
#[inline]
pub fn f32_to_tf32(value: f32) -> u32 {
    let bits = value.to_bits();
    if value.is_nan() {
        F32_NAN
    } else if value.is_infinite() {
        bits
    } else {
        (bits + 0x1000) & !0x1FFF
    }
}

/// `cvt.{rn,rz}.f32.f64`.
#[inline]
pub fn f64_to_f32(value: f64, rounding: Rounding) -> f32 {
    let nearest = canonical(value as f32);
    let is_farther = rounding == Rounding::Zero && f64::from(nearest).abs() > value.abs();
    f32::from_bits(nearest.to_bits() - u32::from(is_farther))
}

/// `cvt.f32.f16`: exact.
#[inline]
pub fn f16_to_f32(bits: u16) -> f32 {
    canonical(f16::from_bits(bits).to_f32())
}

/// `cvt.f32.bf16`: exact.
#[inline]
pub fn bf16_to_f32(bits: u16) -> f32 {
    canonical(bf16::from_bits(bits).to_f32())
}

/// `cvt.{rni,rzi,rmi,rpi}.f32.f32`: a whole number as a float.
#[inline]
pub fn f32_to_whole(value: f32, whole: Whole) -> f32 {
    canonical(whole.of(f64::from(value)) as f32)
}

/// `cvt.{rni,rzi,rmi,rpi}.f64.f64`.
#[inline]
pub fn f64_to_whole(value: f64, whole: Whole) -> f64 {
    canonical64(whole.of(value))
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

    /// The low bits of a value, extended to 64 by sign or with zeros.
    #[inline]
    pub fn extend(self, value: u64) -> u64 {
        let shift = 64 - self.bits;
        if self.signed { ((value << shift) as i64 >> shift) as u64 } else { value << shift >> shift }
    }

    /// The number of this type next to `value`, which is whole.
    #[inline]
    fn clamp(self, value: f64) -> u64 {
        let (least, most) = match self.signed {
            true => (-(1_i128 << (self.bits - 1)), (1_i128 << (self.bits - 1)) - 1),
            false => (0, (1_i128 << self.bits) - 1),
        };
        (value as i128).clamp(least, most) as u64
    }

    /// Sign and magnitude of the low bits of a value.
    #[inline]
    fn parts(self, value: u64) -> (bool, u64) {
        let value = self.extend(value);
        let negative = self.signed && (value as i64) < 0;
        (negative, if negative { value.wrapping_neg() } else { value })
    }
}

/// `cvt.{rni,rzi,rmi,rpi}` from f32 to an integer: clamped to the type's range; NaN gives 0, but the highest
/// bit alone for 64 bits. Signed results are extended to 64 bits.
#[inline]
pub fn f32_to_integer(value: f32, whole: Whole, to: Integer) -> u64 {
    match (value.is_nan(), to.bits) {
        // What Rust's own conversion does.
        _ if (whole, to) == (Whole::Zero, Integer::S32) => i64::from(value as i32) as u64,
        (true, 64) => 1 << 63,
        (true, _) => 0,
        _ => to.clamp(whole.of(f64::from(value))),
    }
}

/// `cvt.{rni,rzi,rmi,rpi}` from f64 to an integer: as [`f32_to_integer`], but NaN gives the highest bit alone
/// for any type.
#[inline]
pub fn f64_to_integer(value: f64, whole: Whole, to: Integer) -> u64 {
    if value.is_nan() { to.extend(1 << (to.bits - 1)) } else { to.clamp(whole.of(value)) }
}

/// `cvt.{rn,rz}.f32` from the low bits of `value`.
#[inline]
pub fn integer_to_f32(value: u64, from: Integer, rounding: Rounding) -> f32 {
    let (negative, magnitude) = from.parts(value);
    let result = kept(magnitude, rounding, f32::MANTISSA_DIGITS) as f32;
    if negative { -result } else { result }
}

/// `cvt.{rn,rz}.f64` from the low bits of `value`.
#[inline]
pub fn integer_to_f64(value: u64, from: Integer, rounding: Rounding) -> f64 {
    let (negative, magnitude) = from.parts(value);
    let result = kept(magnitude, rounding, f64::MANTISSA_DIGITS) as f64;
    if negative { -result } else { result }
}

/// For a rounding towards zero, the number with only the highest `precision` bits from its first one on.
#[inline]
fn kept(magnitude: u64, rounding: Rounding, precision: u32) -> u64 {
    if rounding == Rounding::NearestEven {
        return magnitude;
    }
    let n_lost = (64 - magnitude.leading_zeros()).saturating_sub(precision);
    magnitude >> n_lost << n_lost
}

#[cfg(test)]
#[path = "round_tests.rs"]
mod tests;
