//! The field of integers modulo the Mersenne prime 2⁶¹ − 1.

use super::number::Number;
use super::tag::{Constant, Function, tag};

/// 2⁶¹ − 1.
const P: u64 = (1 << 61) - 1;

/// An integer modulo 2⁶¹ − 1. Division is by the true inverse; `1 / 0` is a tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Gf61(u64);

impl Gf61 {
    /// The residue of an integer.
    #[inline]
    pub fn new(integer: u64) -> Gf61 {
        Gf61::below_2p((integer & P) + (integer >> 61))
    }

    /// The residue from 0 to 2⁶¹ − 2.
    #[inline]
    pub fn residue(self) -> u64 {
        self.0
    }

    #[inline]
    fn below_2p(value: u64) -> Gf61 {
        Gf61(if value >= P { value - P } else { value })
    }

    /// The representative from −(2⁶⁰ − 1) to 2⁶⁰ − 1.
    #[inline]
    fn signed(self) -> i64 {
        if self.0 > P / 2 { self.0 as i64 - P as i64 } else { self.0 as i64 }
    }

    #[inline]
    fn tag(function: Function, argument: Gf61) -> Gf61 {
        Gf61::new(tag(function, argument.0))
    }

    /// `self` to the power 2ⁿ.
    #[inline]
    fn squared(mut self, n: u32) -> Gf61 {
        for _ in 0..n {
            self = self.mul(self);
        }
        self
    }

    /// By Fermat: `x^(P − 2)`, whose exponent is 59 ones and then `01`.
    fn recip(self) -> Gf61 {
        if self == Gf61::ZERO {
            return Gf61::tag(Function::Recip, self);
        }
        // `ones` is `x` to the power of `n` ones; `n` is 1, then 3, 7, 14, 29, 59: the prefixes of 59 in binary.
        let (mut ones, mut n) = (self, 1);
        for odd in [true, true, false, true, true] {
            ones = ones.squared(n).mul(ones);
            n *= 2;
            if odd {
                ones = ones.squared(1).mul(self);
                n += 1;
            }
        }
        ones.squared(2).mul(self)
    }
}

impl Number for Gf61 {
    type Wide = Gf61;

    const ZERO: Gf61 = Gf61(0);
    const ONE: Gf61 = Gf61(1);
    const EXACT: bool = true;

    #[inline]
    fn from_f64(value: f64) -> Gf61 {
        match Constant::of(value) {
            Constant::Integer(integer) => Gf61(integer.rem_euclid(P as i64) as u64),
            Constant::Opaque { drawn, negative: false } => Gf61::new(drawn),
            Constant::Opaque { drawn, negative: true } => Gf61::ZERO.sub(Gf61::new(drawn)),
        }
    }
    #[inline]
    fn to_f64(self) -> f64 {
        self.signed() as f64
    }
    #[inline]
    fn widen(self) -> Gf61 {
        self
    }
    #[inline]
    fn narrow(sum: Gf61) -> Gf61 {
        sum
    }
    #[inline]
    fn add(self, other: Gf61) -> Gf61 {
        Gf61::below_2p(self.0 + other.0)
    }
    #[inline]
    fn sub(self, other: Gf61) -> Gf61 {
        Gf61::below_2p(self.0 + P - other.0)
    }
    #[inline]
    fn mul(self, other: Gf61) -> Gf61 {
        let product = u128::from(self.0) * u128::from(other.0);
        // 2⁶¹ = 1, so the upper bits count as often as the lower ones.
        Gf61::below_2p((product as u64 & P) + (product >> 61) as u64)
    }
    #[inline]
    fn div(self, other: Gf61) -> Gf61 {
        self.mul(other.recip())
    }
    fn div_all(values: &mut [Gf61], by: Gf61) {
        let recip = by.recip();
        values.iter_mut().for_each(|value| *value = value.mul(recip));
    }
    #[inline]
    fn max(self, other: Gf61) -> Gf61 {
        if other.signed() > self.signed() { other } else { self }
    }
    #[inline]
    fn exp(self) -> Gf61 {
        if self == Gf61::ZERO { Gf61::ONE } else { Gf61::tag(Function::Exp, self) }
    }
    #[inline]
    fn tanh(self) -> Gf61 {
        Gf61::tag(Function::Tanh, self)
    }
    #[inline]
    fn erfc(self) -> Gf61 {
        Gf61::tag(Function::Erfc, self)
    }
    #[inline]
    fn rsqrt(self) -> Gf61 {
        Gf61::tag(Function::Rsqrt, self)
    }
}
