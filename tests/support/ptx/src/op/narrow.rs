//! Roundings to floating point formats of fewer bits than f32 (PTX ISA section 5.2.3), and back.

use half::{bf16, f16};

use crate::op::float::{NAN, canonical};
use crate::op::lanes::has;
use crate::syntax::Instruction;

/// The NaN that conversions to 16 bits give, in either format.
const NAN16: u16 = 0x7fff;

/// A conversion of f32 to 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Narrow {
    is_bf16: bool,
    /// Towards zero rather than to nearest even.
    rz: bool,
    /// A negative result becomes +0.
    relu: bool,
}

impl Narrow {
    /// To f16, with the modifiers of the instruction.
    pub(super) fn f16(i: &Instruction) -> Self {
        Self { is_bf16: false, rz: has(i, "rz"), relu: has(i, "relu") }
    }

    /// To bf16, with the modifiers of the instruction.
    pub(super) fn bf16(i: &Instruction) -> Self {
        Self { is_bf16: true, ..Self::f16(i) }
    }

    /// Whether it is [`bf16_nearest`].
    pub(super) fn is_plain_bf16(self) -> bool {
        self == Self { is_bf16: true, rz: false, relu: false }
    }

    #[inline]
    pub(super) fn of(self, value: f32) -> u16 {
        if value.is_nan() {
            return NAN16;
        }
        if self.relu && value.is_sign_negative() {
            return 0;
        }
        match (self.is_bf16, self.rz) {
            (true, false) => bf16_nearest(value),
            (true, true) => (value.to_bits() >> 16) as u16,
            (false, false) => f16::from_f32(value).to_bits(),
            (false, true) => f16_toward_zero(value),
        }
    }
}

/// Nearest even; a carry out of the fraction makes the next exponent, up to infinity.
#[inline]
pub(super) fn bf16_nearest(value: f32) -> u16 {
    let bits = value.to_bits();
    let is_odd = bits >> 16 & 1;
    let rounded = (bits.wrapping_add(0x7fff + is_odd) >> 16) as u16;
    if value.is_nan() { NAN16 } else { rounded }
}

fn f16_toward_zero(value: f32) -> u16 {
    let nearest = f16::from_f32(value);
    let is_farther = nearest.to_f32().abs() > value.abs();
    nearest.to_bits() - u16::from(is_farther)
}

/// One step back if rounding went away from zero.
pub(super) fn toward_zero(exact: f64, nearest: f32) -> f32 {
    let is_farther = f64::from(nearest).abs() > exact.abs();
    f32::from_bits(nearest.to_bits() - u32::from(is_farther))
}

pub(super) fn f16_to_f32(bits: u16) -> f32 {
    canonical(f16::from_bits(bits).to_f32())
}

pub(super) fn bf16_to_f32(bits: u16) -> f32 {
    canonical(bf16::from_bits(bits).to_f32())
}

/// Eleven bits of precision, ties away from zero; the low bits of the result are zeros.
pub(super) fn tf32(value: f32) -> u32 {
    if value.is_nan() {
        NAN.to_bits()
    } else if value.is_infinite() {
        value.to_bits()
    } else {
        (value.to_bits() + 0x1000) & !0x1fff
    }
}
