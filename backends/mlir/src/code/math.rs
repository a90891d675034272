//! Functions of one number, from multiplications and additions.
//!
//! A device has no library, so these are expansions. They are written once over [`Arith`], for the
//! kernel's values and for Rust's `f32`, so that the tests measure the very formulas that kernels run.

use std::ops::{Add, Div, Mul, Sub};

use skipc_artifact::exponential::{ERFC, TANH, TANH_SMALL};
use skipc_plan::kernel::Scoring;

use super::value::{Float, Operand};

/// What the expansions need of a number.
pub(crate) trait Arith:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// A constant beside this number.
    fn constant(self, value: f32) -> Self;
    /// `self · b + c`, rounded once.
    fn fma(self, b: Self, c: Self) -> Self;
    /// `limit` where this number is below it, else the number; a NaN stays.
    fn at_least(self, limit: f32) -> Self;
    /// `limit` where this number is above it, else the number; a NaN stays.
    fn at_most(self, limit: f32) -> Self;
    /// `−|self|`.
    fn minus_abs(self) -> Self;
    /// `yes` if this number is below `limit`, else `no`.
    fn choose_below(self, limit: f32, yes: Self, no: Self) -> Self;
    /// `2^n` for a whole number `n` of −126 to 127.
    fn exp2_whole(self) -> Self;
}

/// How exact functions have to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Precision {
    /// Within 2 ulp of f32.
    Full,
    /// Within 2⁻¹⁶ of the result for arguments up to 88: for values that are rounded to bf16
    /// (2⁻⁹) afterwards. Uses the device's approximations of `2^x` and `1 / x`.
    Bf16,
}

/// Adding and taking away 1.5 · 2²³ rounds to a whole number, ties to even.
const ROUND: f32 = 12_582_912.0;

/// The upper bits of ln 2, so that their product with a small whole number is exact.
const LN2_HIGH: f32 = 0.693_145_75;
/// What `LN2_HIGH` lacks.
const LN2_LOW: f32 = 1.428_606_8e-6;

/// `(e^f − 1 − f) / f²` for |f| ≤ ln 2 / 2, by interpolation at the Chebyshev nodes, lowest power
/// first; the result is within 2⁻²⁸.
const EXP_TAIL: [f32; 5] = [0.5, 0.166_665_78, 0.041_666_556, 0.008_363_174, 0.001_392_617_7];

/// `e^x` within 1 ulp, denormal results included.
pub(crate) fn exp<A: Arith>(x: A) -> A {
    // Beyond these the result is 0 or infinite; within them the whole number below stays small.
    let x = x.at_least(-104.0).at_most(89.0);
    let round = x.constant(ROUND);
    let whole = x.fma(x.constant(std::f32::consts::LOG2_E), round) - round;
    let upper = whole.fma(x.constant(-LN2_HIGH), x);
    let rest = whole.fma(x.constant(-LN2_LOW), upper);
    let [.., last] = EXP_TAIL;
    let mut tail = x.constant(last);
    for coefficient in EXP_TAIL.iter().rev().skip(1) {
        tail = tail.fma(rest, x.constant(*coefficient));
    }
    // What rounding took from `rest` and takes from `1 + rest` is kept and added with the tail, so
    // that the last addition alone rounds by much.
    let one = x.constant(1.0);
    let lead = one + rest;
    let lost = (rest - (lead - one)) + whole.fma(x.constant(-LN2_LOW), upper - rest);
    let result = lead + tail.fma(rest * rest, lost);
    // 2^whole may lie outside the normal numbers; each half does not.
    let half = whole.fma(x.constant(0.5), round) - round;
    result * half.exp2_whole() * (whole - half).exp2_whole()
}

/// `1 / (1 + e^−x)` within 2 ulp.
pub(crate) fn sigmoid<A: Arith>(x: A) -> A {
    let one = x.constant(1.0);
    // e^−|x| never overflows, and for negative x the quotient e / (1 + e) lies as close to e as e
    // to its own rounding; 1 / (1 + e^−x) would double that error.
    let small = exp(x.minus_abs());
    let sum = one + small;
    let quotient = x.choose_below(0.0, small, one) / sum;
    // What rounding took from the sum, divided by the sum: 1 / sum is sigmoid(|x|).
    let lost = small - (sum - one);
    quotient - quotient * lost * x.choose_below(0.0, one - quotient, quotient)
}

/// The argument of the sigmoid that GELU multiplies with: in `x / 2 · (1 + tanh u)` the factor
/// `(1 + tanh u) / 2` is `sigmoid(2u)`, which does not cancel where tanh is near −1.
pub(crate) fn gelu_argument<A: Arith>(x: A) -> A {
    let cubic = (x * x).fma(x.constant(0.044_715), x.constant(1.0));
    x * cubic * x.constant(1.595_769)
}

/// The polynomial of these coefficients, highest power first.
fn polynomial<A: Arith>(coefficients: &[f32], x: A) -> A {
    let (first, rest) = coefficients.split_first().unwrap_or((&0.0, &[]));
    rest.iter().fold(x.constant(*first), |sum, coefficient| sum.fma(x, x.constant(*coefficient)))
}

/// Hyperbolic tangent within 3 ulp: a polynomial near zero, where the exponential would lose what `x` adds to 1.
pub(crate) fn tanh<A: Arith>(x: A) -> A {
    let (zero, one, minus) = (x.constant(0.0), x.constant(1.0), x.minus_abs());
    let square = x * x;
    let small = (x * square).fma(polynomial(&TANH, square), x);
    let t = exp(minus + minus);
    let large = one - (t + t) / (one + t);
    let large = x.choose_below(0.0, zero - large, large);
    minus.choose_below(-TANH_SMALL, large, small)
}

/// `x · ½ erfc(−x / √2)`, which is `x · ½(1 + erf(x / √2))` without its cancellation.
pub(crate) fn gelu_erf<A: Arith>(x: A) -> A {
    let (one, half) = (x.constant(1.0), x.constant(0.5));
    let z = x.minus_abs() * x.constant(-std::f32::consts::FRAC_1_SQRT_2);
    let t = one / z.fma(half, one);
    // Its root, so that what is left of a large `x` is rounded once, by the last product.
    let root = exp(half * (polynomial(&ERFC, t) - z * z));
    let tail = half * t * root;
    x.choose_below(0.0, x * tail * root, x * (one - tail * root))
}

impl<'c> Arith for Float<'c> {
    fn constant(self, value: f32) -> Self {
        value.val(self.code)
    }

    fn fma(self, b: Self, c: Self) -> Self {
        self.code.op(format_args!("llvm.intr.fma({self}, {b}, {c}) : (f32, f32, f32) -> f32"))
    }

    fn at_least(self, limit: f32) -> Self {
        self.lt(limit).select(limit, self)
    }

    fn at_most(self, limit: f32) -> Self {
        self.gt(limit).select(limit, self)
    }

    fn minus_abs(self) -> Self {
        self.lt(0.0).select(self, self.constant(0.0) - self)
    }

    fn choose_below(self, limit: f32, yes: Self, no: Self) -> Self {
        self.lt(limit).select(yes, no)
    }

    fn exp2_whole(self) -> Self {
        let whole: super::Int<'c> = self.code.op(format_args!("llvm.fptosi {self} : f32 to i32"));
        ((whole + 127) << 23).as_float()
    }
}

impl<'c> Float<'c> {
    /// `2^x` by the device's approximation: within 2⁻²² of the result.
    pub(crate) fn exp2_fast(self) -> Self {
        self.code.op(format_args!("llvm.call_intrinsic \"llvm.nvvm.ex2.approx.ftz\"({self}) : (f32) -> f32"))
    }

    /// `1 / x` by the device's approximation: within 1 ulp; 0 for results below the normal numbers.
    pub(crate) fn recip_fast(self) -> Self {
        self.code.op(format_args!("nvvm.rcp.approx.ftz.f {self} : f32"))
    }

    /// `e^x`.
    pub(crate) fn exp(self, precision: Precision) -> Self {
        match precision {
            Precision::Full => exp(self),
            Precision::Bf16 => (self * std::f32::consts::LOG2_E).exp2_fast(),
        }
    }

    /// `1 / (1 + e^−x)`.
    pub(crate) fn sigmoid(self, precision: Precision) -> Self {
        match precision {
            Precision::Full => sigmoid(self),
            Precision::Bf16 => ((self * -std::f32::consts::LOG2_E).exp2_fast() + 1.0).recip_fast(),
        }
    }

    /// `x / (1 + e^−x)`.
    pub(crate) fn silu(self, precision: Precision) -> Self {
        self * self.sigmoid(precision)
    }

    /// The tanh form of GELU.
    pub(crate) fn gelu(self, precision: Precision) -> Self {
        self * gelu_argument(self).sigmoid(precision)
    }

    /// The form of GELU with the error function.
    pub(crate) fn gelu_erf(self) -> Self {
        gelu_erf(self)
    }

    /// Hyperbolic tangent; in [`Precision::Bf16`] within 2⁻²² of 1.
    pub(crate) fn tanh(self, precision: Precision) -> Self {
        match precision {
            Precision::Full => tanh(self),
            Precision::Bf16 => self.constant(1.0) - ((self * 2.0).exp(precision) + 1.0).recip_fast() * 2.0,
        }
    }

    /// Scores of a product of a query and a key of this width.
    pub(crate) fn score(self, scoring: Scoring, width: u32, precision: Precision) -> Self {
        let scale = scoring.scale(width);
        match scoring.cap {
            None => self * scale as f32,
            Some(cap) => (self * (scale / cap.0) as f32).tanh(precision) * cap.0 as f32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Arith for f32 {
        fn constant(self, value: f32) -> Self {
            value
        }
        fn fma(self, b: Self, c: Self) -> Self {
            self.mul_add(b, c)
        }
        fn at_least(self, limit: f32) -> Self {
            if self < limit { limit } else { self }
        }
        fn at_most(self, limit: f32) -> Self {
            if self > limit { limit } else { self }
        }
        fn minus_abs(self) -> Self {
            -self.abs()
        }
        fn choose_below(self, limit: f32, yes: Self, no: Self) -> Self {
            if self < limit { yes } else { no }
        }
        fn exp2_whole(self) -> Self {
            let exponent = self as i32 + 127;
            assert!((1..=254).contains(&exponent), "2^{self} is not a normal number");
            f32::from_bits(exponent.cast_unsigned() << 23)
        }
    }

    /// Distance in units of the last place of the nearest f32 (of the smallest normal, below it).
    fn ulps(value: f32, exact: f64) -> f64 {
        if f64::from(value) == exact || (value.is_infinite() && exact > f64::from(f32::MAX)) {
            return 0.0;
        }
        let near = (exact.abs() as f32).max(f32::MIN_POSITIVE);
        let unit = f64::from(f32::from_bits(near.to_bits() + 1)) - f64::from(near);
        (f64::from(value) - exact).abs() / unit
    }

    fn worst(function: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64, range: (f32, f32)) -> f64 {
        const SAMPLES: u32 = 400_000;
        let (from, to) = range;
        (0..=SAMPLES)
            .map(|sample| from + (to - from) * (sample as f32 / SAMPLES as f32))
            .map(|x| ulps(function(x), exact(f64::from(x))))
            .fold(0.0, f64::max)
    }

    #[test]
    fn exp_is_within_one_ulp() {
        for range in [(-1.0, 1.0), (-20.0, 20.0), (-104.0, 89.0), (-200.0, 200.0)] {
            let error = worst(exp, f64::exp, range);
            assert!(error < 1.0, "{error} ulp in {range:?}");
        }
        assert_eq!(exp(0.0_f32), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn sigmoid_is_within_two_ulp() {
        let exact = |x: f64| 1.0 / (1.0 + (-x).exp());
        for range in [(-1.0, 1.0), (-30.0, 30.0), (-85.0, 100.0)] {
            let error = worst(sigmoid, exact, range);
            assert!(error < 2.0, "{error} ulp in {range:?}");
        }
    }

    #[test]
    fn tanh_is_within_three_ulp() {
        for range in [(-1.0, 1.0), (-1e-3, 1e-3), (-12.0, 12.0), (-200.0, 200.0)] {
            let error = worst(tanh, f64::tanh, range);
            assert!(error < 3.0, "{error} ulp in {range:?}");
        }
        assert_eq!([tanh(f32::INFINITY), tanh(f32::NEG_INFINITY)], [1.0, -1.0]);
        assert!(tanh(f32::NAN).is_nan());
    }

    #[test]
    fn gelu_erf_is_as_exact_as_its_argument_allows() {
        let exact = |x: f64| x * 0.5 * libm::erfc(-x / 2f64.sqrt());
        // A rounding of the square in the exponential is as many times as large in the result.
        for (range, ulps) in [((-1.0, 10.0), 8.0), ((-4.0, -1.0), 40.0), ((-13.0, -4.0), 400.0)] {
            let error = worst(gelu_erf, exact, range);
            assert!(error < ulps, "{error} ulp in {range:?}");
        }
    }

    #[test]
    fn gelu_is_the_tanh_form() {
        let exact = |x: f64| {
            x * 0.5 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
        };
        let error = worst(|x| x * sigmoid(gelu_argument(x)), exact, (-1.0, 10.0));
        assert!(error < 4.5, "{error} ulp");
    }
}
