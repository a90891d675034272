//! Approximate functions (PTX ISA section 9.7.3).

use crate::isa::approx;
use crate::machine::decode::{Form, Kind};
use crate::op::float::{modified1, modified2};
use crate::op::lanes;

const fn form(section: &'static str, syntax: &'static str, decode: super::Decode) -> Form {
    lanes::form(section, Kind::Special, syntax, decode)
}

/// The family's forms.
pub(super) const FORMS: &[Form] = &[
    form("9.7.3.8", "div.full.{ftz,}.f32", |d, i| modified2(d, i, approx::div_full)),
    form("9.7.3.8", "div.approx.{ftz,}.f32", |d, i| modified2(d, i, approx::div_approx)),
    form("9.7.3.13", "rcp.approx.{ftz,}.f32", |d, i| modified1(d, i, approx::rcp)),
    form("9.7.3.15", "sqrt.approx.{ftz,}.f32", |d, i| modified1(d, i, approx::sqrt)),
    form("9.7.3.16", "rsqrt.approx.{ftz,}.f32", |d, i| modified1(d, i, approx::rsqrt)),
    form("9.7.3.18", "sin.approx.{ftz,}.f32", |d, i| modified1(d, i, approx::sin)),
    form("9.7.3.19", "cos.approx.{ftz,}.f32", |d, i| modified1(d, i, approx::cos)),
    form("9.7.3.20", "lg2.approx.{ftz,}.f32", |d, i| modified1(d, i, approx::lg2)),
    form("9.7.3.21", "ex2.approx.{ftz,}.f32", |d, i| modified1(d, i, approx::ex2)),
    form("9.7.3.22", "tanh.approx.f32", |d, i| modified1(d, i, approx::tanh)),
];

#[cfg(test)]
mod tests {
    use crate::op::trial::{Value::B32, b32};

    const NAN: u32 = 0x7fff_ffff;

    fn call(name: &str, a: f32) -> f32 {
        f32::from_bits(b32(name, &[B32(a.to_bits())]))
    }

    #[test]
    fn exact_values_are_exact() {
        assert_eq!(call("ex2.approx.ftz.f32", 10.0), 1024.0);
        assert_eq!(call("ex2.approx.f32", -0.0), 1.0);
        assert_eq!(call("lg2.approx.f32", 0.125), -3.0);
        assert_eq!(call("rcp.approx.ftz.f32", -4.0), -0.25);
        assert_eq!(call("rsqrt.approx.f32", 16.0), 0.25);
        assert_eq!(call("sqrt.approx.f32", 9.0), 3.0);
        assert_eq!(call("tanh.approx.f32", 0.0), 0.0);
        assert_eq!(call("sin.approx.f32", 0.0), 0.0);
        assert_eq!(call("cos.approx.ftz.f32", 0.0), 1.0);
        assert_eq!(b32("ex2.approx.f32", &[B32(0.5_f32.to_bits())]), 0x3fb5_04f3);
    }

    #[test]
    fn special_values_are_those_of_the_tables() {
        let inf = f32::INFINITY;
        assert_eq!(call("ex2.approx.f32", -inf).to_bits(), 0);
        assert_eq!(call("ex2.approx.f32", inf), inf);
        assert_eq!(call("ex2.approx.f32", 128.0), inf);
        assert_eq!(call("lg2.approx.f32", -0.0), -inf);
        assert_eq!(call("lg2.approx.f32", -1.0).to_bits(), NAN);
        assert_eq!(call("lg2.approx.f32", inf), inf);
        assert_eq!(call("rcp.approx.f32", -0.0), -inf);
        assert_eq!(call("rcp.approx.f32", -inf).to_bits(), 0x8000_0000);
        assert_eq!(call("rsqrt.approx.f32", -0.0), -inf);
        assert_eq!(call("rsqrt.approx.f32", -1.0).to_bits(), NAN);
        assert_eq!(call("rsqrt.approx.f32", inf), 0.0);
        assert_eq!(call("sqrt.approx.f32", -0.0).to_bits(), 0x8000_0000);
        assert_eq!(call("tanh.approx.f32", -inf), -1.0);
        assert_eq!(call("sin.approx.f32", inf).to_bits(), NAN);
        assert_eq!(call("cos.approx.f32", f32::NAN).to_bits(), NAN);
    }

    #[test]
    fn subnormal_numbers_are_flushed_on_demand() {
        assert_eq!(call("ex2.approx.f32", -140.0).to_bits(), 1 << 9);
        assert_eq!(call("ex2.approx.ftz.f32", -140.0).to_bits(), 0);
        assert_eq!(call("rcp.approx.ftz.f32", f32::from_bits(1)), f32::INFINITY);
        assert_eq!(call("lg2.approx.f32", f32::from_bits(1)), -149.0);
        assert_eq!(call("lg2.approx.ftz.f32", f32::from_bits(1)), f32::NEG_INFINITY);
        assert_eq!(call("rsqrt.approx.ftz.f32", f32::from_bits(0x8000_0001)), f32::NEG_INFINITY);
        assert_eq!(call("rcp.approx.ftz.f32", -f32::MAX).to_bits(), 0x8000_0000);
    }

    #[test]
    fn division_by_a_very_large_number_is_zero_only_if_approximate() {
        let two = |name: &str, a: f32, b: f32| b32(name, &[B32(a.to_bits()), B32(b.to_bits())]);
        assert_eq!(two("div.approx.f32", 1e38, -1e38), 0x8000_0000);
        assert_eq!(two("div.approx.f32", f32::INFINITY, 1e38), NAN);
        assert_eq!(two("div.full.f32", 1e38, -1e38), (-1_f32).to_bits());
        assert_eq!(two("div.approx.f32", 6.0, 3.0), 2_f32.to_bits());
        assert_eq!(two("div.full.ftz.f32", 1e-40, 1e-40), NAN);
    }
}
