//! The approximate functions of `f32` (PTX ISA 9.7.3).
//!
//! Results are computed in `f64`, whose functions have the special values of PTX's tables, and rounded once:
//! they are the numbers next to the exact results, up to the doubt of an `f64` of `libm`, and so within the
//! errors that PTX states, which stand beside each function.

use super::arithmetic::{Modifiers, div};

/// `div.approx{.ftz}.f32` (9.7.3.8): 2 ulp for a divisor from 2^-126 to 2^126.
///
/// It multiplies with a reciprocal that is zero for a finite divisor beyond 2^126.
#[inline]
pub fn div_approx(a: f32, b: f32, modifiers: Modifiers) -> f32 {
    modifiers.apply([a, b], |[a, b]| {
        let beyond = b.is_finite() && b.abs() > f32::from_bits((126 + 127) << 23);
        if beyond { a * 0.0_f32.copysign(b) } else { a / b }
    })
}

/// `div.full{.ftz}.f32` (9.7.3.8): 2 ulp.
#[inline]
pub fn div_full(a: f32, b: f32, modifiers: Modifiers) -> f32 {
    div(a, b, modifiers)
}

/// `rcp.approx{.ftz}.f32` (9.7.3.13): 1 ulp.
#[inline]
pub fn rcp(a: f32, modifiers: Modifiers) -> f32 {
    wide(a, modifiers, |a| 1.0 / a)
}

/// `sqrt.approx{.ftz}.f32` (9.7.3.15): 2^-23, relative.
#[inline]
pub fn sqrt(a: f32, modifiers: Modifiers) -> f32 {
    wide(a, modifiers, f64::sqrt)
}

/// `rsqrt.approx{.ftz}.f32` (9.7.3.16): 2^-22.9, relative.
#[inline]
pub fn rsqrt(a: f32, modifiers: Modifiers) -> f32 {
    wide(a, modifiers, |a| 1.0 / a.sqrt())
}

/// `sin.approx{.ftz}.f32` (9.7.3.18): 2^-20.5 up to 2π, 2^-14.7 up to 100π.
pub fn sin(a: f32, modifiers: Modifiers) -> f32 {
    wide(a, modifiers, libm::sin)
}

/// `cos.approx{.ftz}.f32` (9.7.3.19): 2^-20.5 up to 2π, 2^-14.7 up to 100π.
pub fn cos(a: f32, modifiers: Modifiers) -> f32 {
    wide(a, modifiers, libm::cos)
}

/// `lg2.approx{.ftz}.f32` (9.7.3.20): 2^-22, absolute between 0.5 and 2 and else relative.
pub fn lg2(a: f32, modifiers: Modifiers) -> f32 {
    wide(a, modifiers, libm::log2)
}

/// `ex2.approx{.ftz}.f32` (9.7.3.21): 2 ulp.
pub fn ex2(a: f32, modifiers: Modifiers) -> f32 {
    wide(a, modifiers, libm::exp2)
}

/// `tanh.approx.f32` (9.7.3.22): 2^-11, relative.
pub fn tanh(a: f32, modifiers: Modifiers) -> f32 {
    wide(a, modifiers, libm::tanh)
}

#[inline]
fn wide(a: f32, modifiers: Modifiers, f: impl Fn(f64) -> f64) -> f32 {
    modifiers.apply([a], |[a]| f(f64::from(a)) as f32)
}

#[cfg(test)]
#[path = "approx_tests.rs"]
mod tests;
