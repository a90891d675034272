//! The ring of integers modulo 2³².

use super::number::Number;
use super::tag::{Constant, Function, tag};

/// An integer modulo 2³². It has no division: reciprocals are tags. Tags that stand for positive numbers are odd, so
/// that multiplying by them loses no difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ring32(pub u32);

impl Ring32 {
    fn unit(function: Function, argument: Ring32) -> Ring32 {
        Ring32(tag(function, argument.0.into()) as u32 | 1)
    }

    fn recip(self) -> Ring32 {
        if self == Ring32::ONE { self } else { Ring32::unit(Function::Recip, self) }
    }
}

impl Number for Ring32 {
    type Wide = Ring32;

    const ZERO: Ring32 = Ring32(0);
    const ONE: Ring32 = Ring32(1);
    const EXACT: bool = true;

    #[inline]
    fn from_f64(value: f64) -> Ring32 {
        match Constant::of(value) {
            Constant::Integer(integer) => Ring32(integer as u32),
            Constant::Opaque { drawn, negative: false } => Ring32(drawn as u32),
            Constant::Opaque { drawn, negative: true } => Ring32((drawn as u32).wrapping_neg()),
        }
    }
    #[inline]
    fn to_f64(self) -> f64 {
        f64::from(self.0 as i32)
    }
    #[inline]
    fn widen(self) -> Ring32 {
        self
    }
    #[inline]
    fn narrow(sum: Ring32) -> Ring32 {
        sum
    }
    #[inline]
    fn add(self, other: Ring32) -> Ring32 {
        Ring32(self.0.wrapping_add(other.0))
    }
    #[inline]
    fn sub(self, other: Ring32) -> Ring32 {
        Ring32(self.0.wrapping_sub(other.0))
    }
    #[inline]
    fn mul(self, other: Ring32) -> Ring32 {
        Ring32(self.0.wrapping_mul(other.0))
    }
    #[inline]
    fn div(self, other: Ring32) -> Ring32 {
        self.mul(other.recip())
    }
    #[inline]
    fn max(self, other: Ring32) -> Ring32 {
        if other.0 as i32 > self.0 as i32 { other } else { self }
    }
    #[inline]
    fn exp(self) -> Ring32 {
        if self == Ring32::ZERO { Ring32::ONE } else { Ring32::unit(Function::Exp, self) }
    }
    #[inline]
    fn tanh(self) -> Ring32 {
        Ring32(tag(Function::Tanh, self.0.into()) as u32)
    }
    #[inline]
    fn erfc(self) -> Ring32 {
        Ring32(tag(Function::Erfc, self.0.into()) as u32)
    }
    #[inline]
    fn rsqrt(self) -> Ring32 {
        Ring32::unit(Function::Rsqrt, self)
    }
}
