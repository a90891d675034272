//! Floating point arithmetic with exact rounding (PTX ISA sections 9.7.3 and 9.7.4); f32, f64, and what kernels use of bf16.
//!
//! A NaN result is always the canonical one: of f32, as PTX says, and of f64, where PTX leaves it open.

use crate::isa::arithmetic::{self, Modifiers, max64, min64};
use crate::isa::round::{self, canonical64};
use crate::machine::Run;
use crate::machine::decode::{DecodeError, Decoder, Form, Kind};
use crate::op::lanes::{self, binary, has, ternary, unary};
use crate::syntax::Instruction;

const fn form(section: &'static str, syntax: &'static str, decode: super::Decode) -> Form {
    lanes::form(section, Kind::Float, syntax, decode)
}

/// The family's forms.
pub(super) const FORMS: &[Form] = &[
    form("9.7.3.2", "copysign.f32", |d, i| binary(d, i, |a: f32, b: f32| b.copysign(a))),
    form("9.7.3.2", "copysign.f64", |d, i| binary(d, i, |a: f64, b: f64| b.copysign(a))),
    form("9.7.3.3", "add.{rn,}.{ftz,}.{sat,}.f32", |d, i| modified2(d, i, arithmetic::add)),
    form("9.7.3.3", "add.{rn,}.f64", |d, i| binary(d, i, |a: f64, b: f64| canonical64(a + b))),
    form("9.7.3.4", "sub.{rn,}.{ftz,}.{sat,}.f32", |d, i| modified2(d, i, arithmetic::sub)),
    form("9.7.3.4", "sub.{rn,}.f64", |d, i| binary(d, i, |a: f64, b: f64| canonical64(a - b))),
    form("9.7.3.5", "mul.{rn,}.{ftz,}.{sat,}.f32", |d, i| modified2(d, i, arithmetic::mul)),
    form("9.7.3.5", "mul.{rn,}.f64", |d, i| binary(d, i, |a: f64, b: f64| canonical64(a * b))),
    form("9.7.3.6", "fma.rn.{ftz,}.{sat,}.f32", |d, i| modified3(d, i, arithmetic::fma)),
    form("9.7.3.6", "fma.rn.f64", |d, i| ternary(d, i, |a: f64, b, c| canonical64(a.mul_add(b, c)))),
    form("9.7.4.2", "sub.{rn,}.bf16", |d, i| {
        const MINUS_ONE: u16 = 0xbf80;
        binary(d, i, |a, b| round::fma_bf16(b, MINUS_ONE, a))
    }),
    form("9.7.4.4", "fma.rn.bf16", |d, i| ternary(d, i, round::fma_bf16)),
    form("9.7.3.8", "div.rn.{ftz,}.f32", |d, i| modified2(d, i, arithmetic::div)),
    form("9.7.3.8", "div.rn.f64", |d, i| binary(d, i, |a: f64, b: f64| canonical64(a / b))),
    form("9.7.3.9", "abs.{ftz,}.f32", |d, i| modified1(d, i, arithmetic::abs)),
    form("9.7.3.9", "abs.f64", |d, i| unary(d, i, |a: f64| canonical64(a.abs()))),
    form("9.7.3.10", "neg.{ftz,}.f32", |d, i| modified1(d, i, arithmetic::neg)),
    form("9.7.3.10", "neg.f64", |d, i| unary(d, i, |a: f64| canonical64(-a))),
    form("9.7.3.11", "min.{ftz,}.f32", |d, i| modified2(d, i, arithmetic::min)),
    form("9.7.3.11", "min.{ftz,}.NaN.f32", |d, i| modified2(d, i, arithmetic::min_nan)),
    form("9.7.3.11", "min.f64", |d, i| binary(d, i, min64)),
    form("9.7.3.12", "max.{ftz,}.f32", |d, i| modified2(d, i, arithmetic::max)),
    form("9.7.3.12", "max.{ftz,}.NaN.f32", |d, i| modified2(d, i, arithmetic::max_nan)),
    form("9.7.3.12", "max.f64", |d, i| binary(d, i, max64)),
    form("9.7.3.13", "rcp.rn.{ftz,}.f32", |d, i| modified1(d, i, |a, m| arithmetic::div(1.0, a, m))),
    form("9.7.3.13", "rcp.rn.f64", |d, i| unary(d, i, |a: f64| canonical64(1.0 / a))),
    form("9.7.3.15", "sqrt.rn.{ftz,}.f32", |d, i| modified1(d, i, arithmetic::sqrt)),
    form("9.7.3.15", "sqrt.rn.f64", |d, i| unary(d, i, |a: f64| canonical64(a.sqrt()))),
];

/// An f32 instruction with the modifiers `.ftz` and `.sat` that it has; the loop of each is compiled for
/// itself.
macro_rules! modified {
    ($name:ident, $lanes:ident, $($operand:ident)+) => {
        pub(super) fn $name(
            d: &mut Decoder<'_>,
            i: &Instruction,
            f: impl Fn($(modified!(@f32 $operand),)+ Modifiers) -> f32 + Send + Sync + 'static,
        ) -> Result<Run, DecodeError> {
            macro_rules! with {
                ($ftz:literal, $sat:literal) => {
                    $lanes(d, i, move |$($operand: f32),+| f($($operand,)+ Modifiers { ftz: $ftz, sat: $sat }))
                };
            }
            match (has(i, "ftz"), has(i, "sat")) {
                (false, false) => with!(false, false),
                (false, true) => with!(false, true),
                (true, false) => with!(true, false),
                (true, true) => with!(true, true),
            }
        }
    };
    (@f32 $operand:ident) => { f32 };
}

modified!(modified1, unary, a);
modified!(modified2, binary, a b);
modified!(modified3, ternary, a b c);

#[cfg(test)]
mod tests {
    use crate::op::trial::{Value::*, b16, b32, b64, refused};

    const NAN: u32 = 0x7fff_ffff;
    const NEGATIVE_ZERO: u32 = 0x8000_0000;

    fn f(value: f32) -> crate::op::trial::Value<'static> {
        B32(value.to_bits())
    }

    #[test]
    fn arithmetic_rounds_to_nearest_even() {
        let ulp = f32::EPSILON;
        assert_eq!(b32("add.rn.f32", &[f(1.0), f(ulp / 2.0)]), 1_f32.to_bits());
        assert_eq!(b32("add.f32", &[f(1.0 + ulp), f(ulp / 2.0)]), (1.0 + 2.0 * ulp).to_bits());
        assert_eq!(b32("sub.rn.f32", &[f(1.0), f(1.0)]), 0);
        assert_eq!(b32("mul.rn.f32", &[f(-1.0), f(0.0)]), NEGATIVE_ZERO);
        assert_eq!(b32("div.rn.f32", &[f(1.0), f(3.0)]), 0x3eaa_aaab);
        assert_eq!(b32("rcp.rn.f32", &[f(-0.0)]), f32::NEG_INFINITY.to_bits());
        assert_eq!(b32("sqrt.rn.f32", &[f(2.0)]), 0x3fb5_04f3);
        assert_eq!(b32("sqrt.rn.f32", &[f(-0.0)]), NEGATIVE_ZERO);
        assert_eq!(b64("add.rn.f64", &[B64(1_f64.to_bits()), Float64(2.0)]), 3_f64.to_bits());
        assert_eq!(b64("div.rn.f64", &[Float64(1.0), Float64(3.0)]), 0x3fd5_5555_5555_5555);
    }

    #[test]
    fn nan_is_canonical() {
        assert_eq!(b32("add.rn.f32", &[B32(0xffc0_1234), f(1.0)]), NAN);
        assert_eq!(b32("sub.rn.f32", &[f(f32::INFINITY), f(f32::INFINITY)]), NAN);
        assert_eq!(b32("sqrt.rn.f32", &[f(-1.0)]), NAN);
        assert_eq!(b32("fma.rn.f32", &[f(0.0), f(f32::INFINITY), f(1.0)]), NAN);
        assert_eq!(b32("neg.f32", &[B32(0x7fc0_0000)]), NAN);
        assert_eq!(b64("mul.f64", &[Float64(0.0), Float64(f64::INFINITY)]), 0x7fff_ffff_ffff_ffff);
        assert_eq!(b64("sqrt.rn.f64", &[Float64(-1.0)]), 0x7fff_ffff_ffff_ffff);
    }

    #[test]
    fn subnormal_numbers_stay_unless_flushed() {
        let tiny = 0x0000_0001;
        assert_eq!(b32("add.rn.f32", &[B32(tiny), B32(tiny)]), 2);
        assert_eq!(b32("add.rn.ftz.f32", &[B32(tiny), B32(0x8000_0000 | tiny)]), 0);
        assert_eq!(b32("add.ftz.f32", &[B32(tiny), f(1.0)]), 1_f32.to_bits());
        assert_eq!(b32("mul.rn.ftz.f32", &[f(-f32::MIN_POSITIVE), f(0.5)]), NEGATIVE_ZERO);
        assert_eq!(b32("mul.rn.f32", &[f(-f32::MIN_POSITIVE), f(0.5)]), 0x8040_0000);
        assert_eq!(b32("neg.ftz.f32", &[B32(tiny)]), NEGATIVE_ZERO);
        assert_eq!(b32("fma.rn.ftz.f32", &[B32(tiny), f(1e30), f(0.0)]), 0);
        assert_eq!(b32("rcp.rn.ftz.f32", &[B32(tiny)]), f32::INFINITY.to_bits());
    }

    #[test]
    fn saturation_is_into_zero_to_one() {
        assert_eq!(b32("add.sat.f32", &[f(0.75), f(0.75)]), 1_f32.to_bits());
        assert_eq!(b32("add.rn.sat.f32", &[f(0.25), f(0.25)]), 0.5_f32.to_bits());
        assert_eq!(b32("mul.sat.f32", &[f(-1.0), f(3.0)]), 0);
        assert_eq!(b32("mul.sat.f32", &[f(-1.0), f(0.0)]), 0);
        assert_eq!(b32("fma.rn.ftz.sat.f32", &[B32(NAN), f(0.0), f(0.0)]), 0);
    }

    #[test]
    fn extremes_ignore_nan_and_order_zeros() {
        assert_eq!(b32("max.f32", &[B32(NAN), f(-5.0)]), (-5_f32).to_bits());
        assert_eq!(b32("min.f32", &[f(-5.0), B32(0xff80_0001)]), (-5_f32).to_bits());
        assert_eq!(b32("max.f32", &[B32(0xffff_ffff), B32(0x7f80_0001)]), NAN);
        assert_eq!(b32("max.f32", &[f(-0.0), f(0.0)]), 0);
        assert_eq!(b32("max.f32", &[f(0.0), f(-0.0)]), 0);
        assert_eq!(b32("min.f32", &[f(0.0), f(-0.0)]), NEGATIVE_ZERO);
        assert_eq!(b32("max.NaN.f32", &[B32(NAN), f(1.0)]), NAN);
        assert_eq!(b32("min.NaN.f32", &[f(2.0), f(1.0)]), 1_f32.to_bits());
        assert_eq!(b32("max.ftz.f32", &[B32(1), B32(0x8000_0001)]), 0);
        assert_eq!(b64("min.f64", &[Float64(-0.0), Float64(0.0)]), 1 << 63);
    }

    #[test]
    fn signs_are_copied_from_the_first_operand() {
        assert_eq!(b32("copysign.f32", &[f(-1.0), f(2.0)]), (-2_f32).to_bits());
        assert_eq!(b32("abs.f32", &[f(-0.0)]), 0);
    }

    #[test]
    fn an_integer_constant_is_no_float() {
        assert!(refused("add.rn.f32", &[f(1.0), Integer(1)]).contains("`add.rn.f32`"));
        assert!(refused("add.rn.f64", &[Float64(1.0), Integer(1)]).contains("`add.rn.f64`"));
    }

    #[test]
    fn fma_of_bf16_rounds_once() {
        let fma = |a: u16, b: u16, c: u16| b16("fma.rn.bf16", &[B16(a), B16(b), B16(c)]);
        let bf16 = |value: f64| half::bf16::from_f64(value).to_bits();
        // 1.5 · (1 + 2^-7) is the middle of two; what is added decides, though f64 cannot see it.
        let product = (bf16(1.5), bf16(1.0 + 2_f64.powi(-7)));
        let with = |added: f64| fma(product.0, product.1, bf16(added));
        assert_eq!([with(0.0), with(2_f64.powi(-60)), with(-2_f64.powi(-60))], [0x3fc2, 0x3fc2, 0x3fc1]);
        // 1 − x, which fits f32.
        for bits in 0x3c00..0x4080 {
            let exact = 1.0 - half::bf16::from_bits(bits).to_f32();
            let wanted = u64::from(half::bf16::from_f32(exact).to_bits());
            assert_eq!(fma(bits, bf16(-1.0), bf16(1.0)), wanted);
            assert_eq!(b16("sub.rn.bf16", &[B16(bf16(1.0)), B16(bits)]), wanted);
        }
        // Below the smallest number, and beyond the largest.
        assert_eq!([fma(1, 0x3f00, 0), fma(1, 0x3f00, 1), fma(1, 0x8001, 0)], [0, 2, 0x8000]);
        assert_eq!(fma(0x7f7f, 0x4000, 0), 0x7f80);
        assert_eq!(fma(0x7fc1, 0, 0), 0x7fff);
    }

    #[test]
    fn fma_rounds_once() {
        let fma = |a: f32, b: f32, c: f32| b32("fma.rn.f32", &[f(a), f(b), f(c)]);
        // The product is 1 + 2^-22 + 2^-46; f32 alone would lose the last term.
        let x = 1.0 + f32::EPSILON;
        assert_eq!(fma(x, x, -1.0 - 2.0 * f32::EPSILON), 0x2880_0000);
        // The product is 1 + 2^-11 + 2^-24, the middle of two f32; the sum lies above it by less than f64 can
        // see.
        let x = 1.0 + 2_f32.powi(-12);
        assert_eq!(fma(x, x, 0.0), 0x3f80_1000);
        assert_eq!(fma(x, x, 2_f32.powi(-60)), 0x3f80_1001);
        assert_eq!(fma(f32::MAX, 2.0, f32::NEG_INFINITY), f32::NEG_INFINITY.to_bits());
        assert_eq!(fma(f32::MAX, 2.0, -f32::MAX), f32::MAX.to_bits());
        assert_eq!(fma(-0.0, 1.0, -0.0), NEGATIVE_ZERO);
        assert_eq!(fma(1.0, 1.0, -1.0), 0);
    }
}
