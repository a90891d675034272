//! Functions of many numbers: what kernels call for the exponentials of a row.
//!
//! The same code is made for every level of vector instructions, without fused multiply-adds, so that every processor
//! gives the same bits; [`pulp`] picks the level.

use pulp::Arch;
use skipc_artifact::abi::Function;
use skipc_artifact::exponential::{
    ERFC, EXP_LOW, EXP_NORMAL, EXP_TAIL, GELU, LN_2, RECIPROCAL, ROUNDER, TANH, TANH_SMALL,
};

/// Sums of weights side by side: their order does not depend on the level of instructions.
const SUMS: usize = 16;

/// Applies a function to each number.
pub(crate) fn map(function: Function, numbers: &mut [f32]) {
    let arch = Arch::new();
    match function {
        Function::Gelu => arch.dispatch(|| each(numbers, gelu)),
        Function::Silu => arch.dispatch(|| each(numbers, |x| logistic(x, x))),
        Function::Sigmoid => arch.dispatch(|| each(numbers, |x| logistic(1.0, x))),
        Function::GeluErf => arch.dispatch(|| each(numbers, gelu_erf)),
        Function::Tanh => arch.dispatch(|| each(numbers, tanh)),
    }
}

/// Turns scores into `e^(score · scale − largest)`, none of which is above 1; returns their sum.
pub(crate) fn softmax_weights(scores: &mut [f32], scale: f32, largest: f32) -> f32 {
    Arch::new().dispatch(|| weights(scores, scale, largest))
}

#[inline(always)]
fn each(numbers: &mut [f32], function: impl Fn(f32) -> f32) {
    numbers.iter_mut().for_each(|x| *x = function(*x));
}

#[inline(always)]
fn weights(scores: &mut [f32], scale: f32, largest: f32) -> f32 {
    each(scores, |score| exp_below_zero(score * scale - largest));
    let mut sums = [0.0f32; SUMS];
    let (chunks, rest) = scores.as_chunks::<SUMS>();
    for chunk in chunks {
        for (sum, weight) in sums.iter_mut().zip(chunk) {
            *sum += weight;
        }
    }
    let mut width = SUMS / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    rest.iter().fold(sums[0], |sum, weight| sum + weight)
}

/// The nearest integer to `x · log₂ e`, with [`ROUNDER`] added, and `x` minus that many `ln 2` in two parts: the first
/// is subtracted, exactly, the second is not yet.
#[inline(always)]
fn reduce(x: f32) -> (f32, f32, f32) {
    let rounded = x * std::f32::consts::LOG2_E + ROUNDER;
    let n = rounded - ROUNDER;
    (rounded, x - n * LN_2[0], n * LN_2[1])
}

/// The integer that stands in a number with [`ROUNDER`] added.
#[inline(always)]
fn exponent(rounded: f32) -> i32 {
    (rounded.to_bits() as i32).wrapping_sub(ROUNDER.to_bits() as i32)
}

#[inline(always)]
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits((exponent.wrapping_add(127) as u32) << 23)
}

/// `eʳ − 1 − r` near zero.
#[inline(always)]
fn exp_tail(r: f32) -> f32 {
    let tail = EXP_TAIL[1..].iter().fold(EXP_TAIL[0], |tail, coefficient| tail * r + coefficient);
    tail * (r * r)
}

/// `max(x, low)`; a NaN stays.
#[inline(always)]
fn at_least(x: f32, low: f32) -> f32 {
    if x < low { low } else { x }
}

/// `e^x` for `x` that is not above 0, within 1 ulp; below [`EXP_NORMAL`] it is that of [`EXP_NORMAL`], which next to the
/// largest weight of a softmax is nothing.
#[inline(always)]
fn exp_below_zero(x: f32) -> f32 {
    let (rounded, near, small) = reduce(at_least(x, EXP_NORMAL));
    let r = near - small;
    let mantissa = 1.0 + (r + exp_tail(r));
    mantissa * power_of_two(exponent(rounded))
}

/// `x · σ(2u)` with `u = √(2/π) · (x + 0.044715 x³)`, which is `x/2 · (1 + tanh u)` without its cancellation.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    let slope = x * x * GELU[1] + GELU[0];
    logistic(x, x * slope)
}

/// The polynomial of these coefficients, highest power first.
#[inline(always)]
fn polynomial(coefficients: &[f32], x: f32) -> f32 {
    coefficients[1..].iter().fold(coefficients[0], |sum, coefficient| sum * x + coefficient)
}

/// `x · ½ erfc(−x / √2)`.
#[inline(always)]
fn gelu_erf(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * z);
    // Its root, so that what is left of a large `x` is rounded once, by the last product.
    let root = exp_below_zero(0.5 * (polynomial(&ERFC, t) - z * z));
    let tail = 0.5 * t * root;
    if x < 0.0 { x * tail * root } else { x * (1.0 - tail * root) }
}

/// A polynomial near zero, where the exponential would lose what `x` adds to 1.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let square = x * x;
    let small = x + x * (square * polynomial(&TANH, square));
    let t = exp_below_zero(-2.0 * x.abs());
    let large = 1.0 - (t + t) / (1.0 + t);
    let large = if x < 0.0 { -large } else { large };
    if x.abs() < TANH_SMALL { small } else { large }
}

/// `y / (1 + e^−x)`: with `t = e^−|x|`, which cannot overflow, `y / (1 + t)` or `y · t / (1 + t)`. The product
/// with the scale of `t` comes last, so that no bits are lost to underflow before.
#[inline(always)]
fn logistic(y: f32, x: f32) -> f32 {
    let size = x.abs();
    let argument = at_least(-size, EXP_LOW);
    // The next difference is not exact, but its error is.
    let (rounded, near, small) = reduce(argument);
    let r = near - small;
    let lost = (near - r) - small;
    let above_one = r + (exp_tail(r) + lost);
    let mantissa = 1.0 + above_one;
    let lost = above_one - (mantissa - 1.0);
    // Two factors, because exponents down to −159 are more than one can hold.
    let n = exponent(rounded);
    let half = n >> 1;
    let (factor, scale) = (power_of_two(half), power_of_two(n.wrapping_sub(half)));
    let (mantissa, lost) = (mantissa * factor, lost * factor);
    let t = mantissa * scale;
    let below = 1.0 + t;
    // Where the exponential stops following its argument, a large `y` would show it.
    let scale = if size < -EXP_LOW { scale } else { 0.0 };
    // Half a unit in the last place of a dividend or a divisor can be most of one in the quotient, so what both
    // have lost goes into the dividend, rounded once.
    let mantissa = mantissa + (lost - mantissa * lost_share(below, t));
    let mantissa = if x < 0.0 { mantissa } else { 1.0 };
    let scale = if x < 0.0 { scale } else { 1.0 };
    y * mantissa / below * scale
}

/// What `below = 1 + t` lost to rounding, as a share of it.
#[inline(always)]
fn lost_share(below: f32, t: f32) -> f32 {
    let lost = t - (below - 1.0);
    lost * (RECIPROCAL[0] - RECIPROCAL[1] * below)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every 4,099th number, both zeros, the infinities, and what lies around the ends of the exponential's range.
    fn inputs() -> Vec<f32> {
        let all = (0..=u32::MAX / 4099).map(|idx| f32::from_bits(idx * 4099));
        let ends = (0..70_000).map(|idx| -120.0 + idx as f32 / 300.0);
        let special = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1e-45];
        all.chain(ends).chain(special).collect()
    }

    fn apply(function: Function, inputs: &[f32]) -> Vec<f32> {
        let mut numbers = inputs.to_vec();
        map(function, &mut numbers);
        numbers
    }

    /// The largest distance from `exact` in units of the last place, which below normal numbers is `2⁻¹⁴⁹`.
    fn largest_error(function: Function, exact: impl Fn(f64) -> f64) -> (f64, f32) {
        let inputs = inputs();
        let mut largest = (0.0, 0.0);
        for (x, found) in inputs.iter().zip(apply(function, &inputs)) {
            let exact = exact(f64::from(*x));
            if exact.is_nan() || (exact as f32).is_infinite() {
                let same = if exact.is_nan() { found.is_nan() } else { found == exact as f32 };
                assert!(same, "{function:?}({x:e}) is {found:e}, expected {exact:e}");
                continue;
            }
            let last_place = f64::from(2.0f32).powi((exact.abs().log2().floor() as i32).max(-126) - 23);
            let error = (f64::from(found) - exact).abs() / last_place;
            assert!(!error.is_nan(), "{function:?}({x:e}) is {found:e}, expected {exact:e}");
            if error > largest.0 {
                largest = (error, *x);
            }
        }
        largest
    }

    fn sigmoid(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }

    #[test]
    fn sigmoid_is_within_2_ulp() {
        let (error, at) = largest_error(Function::Sigmoid, sigmoid);
        println!("sigmoid: {error} ulp at {at:e}");
        assert!(error <= 2.0, "{error} ulp at {at:e}");
    }

    #[test]
    fn silu_is_within_3_ulp() {
        // One rounding more than the sigmoid.
        let (error, at) =
            largest_error(Function::Silu, |x| if x < -800.0 { x * 0.0 } else { x * sigmoid(x) });
        println!("silu: {error} ulp at {at:e}");
        assert!(error <= 3.0, "{error} ulp at {at:e}");
    }

    #[test]
    fn tanh_is_within_3_ulp() {
        let (error, at) = largest_error(Function::Tanh, f64::tanh);
        println!("tanh: {error} ulp at {at:e}");
        assert!(error <= 3.0, "{error} ulp at {at:e}");
    }

    /// The argument of the exponential is rounded where it may be −86, and below that nothing is left.
    #[test]
    fn gelu_erf_is_as_exact_as_its_argument_allows() {
        let inputs = inputs();
        for (x, found) in inputs.iter().zip(apply(Function::GeluErf, &inputs)) {
            let x64 = f64::from(*x);
            let exact = if x64 < -40.0 { x64 * 0.0 } else { x64 * 0.5 * libm::erfc(-x64 / 2f64.sqrt()) };
            if exact.is_nan() || exact.is_infinite() {
                assert!(found.is_nan() == exact.is_nan() && (exact.is_nan() || f64::from(found) == exact));
                continue;
            }
            let amplified = if x64 < 0.0 { x64 * x64 } else { 0.0 };
            let last_place = (exact.abs() * f64::from(f32::EPSILON)).max(f64::from(2.0f32).powi(-149));
            let error = (f64::from(found) - exact).abs() / last_place;
            assert!(
                error <= 4.0 + amplified,
                "gelu_erf({x:e}) is {found:e}, expected {exact:e}: {error} ulp"
            );
        }
    }

    #[test]
    fn gelu_is_as_exact_as_its_argument_allows() {
        let inputs = inputs();
        for (x, found) in inputs.iter().zip(apply(Function::Gelu, &inputs)) {
            let x64 = f64::from(*x);
            let twice_u = (8.0 / std::f64::consts::PI).sqrt() * (x64 + 0.044_715 * x64 * x64 * x64);
            let exact = if twice_u < -700.0 { x64 * 0.0 } else { x64 * sigmoid(twice_u) };
            if exact.is_nan() {
                assert!(found.is_nan(), "gelu({x:e}) is {found:e}");
                continue;
            }
            if exact.is_infinite() {
                assert_eq!(f64::from(found), exact);
                continue;
            }
            // Where the exponential rules, a rounding of its argument is `|2u|` of the result.
            let amplified = if twice_u < 0.0 { 4.0 * twice_u.abs().min(200.0) } else { 0.0 };
            let last_place = (exact.abs() * f64::from(f32::EPSILON)).max(f64::from(2.0f32).powi(-149));
            let error = (f64::from(found) - exact).abs() / last_place;
            assert!(error <= 4.0 + amplified, "gelu({x:e}) is {found:e}, expected {exact:e}: {error} ulp");
        }
    }

    #[test]
    fn weights_are_within_1_ulp_and_their_sum_is_theirs() {
        let inputs: Vec<f32> = (0..200_000).map(|idx| idx as f32 / -2_300.0).collect();
        for n in [0, 1, 15, 16, 17, 33, 4096, inputs.len()] {
            let mut weights = inputs[..n].to_vec();
            let sum = softmax_weights(&mut weights, 0.5, 0.25);
            for (x, found) in inputs.iter().zip(&weights) {
                let exact = f64::from(*x * 0.5 - 0.25).exp();
                let error = (f64::from(*found) - exact).abs() / (exact * f64::from(f32::EPSILON));
                assert!(error <= 1.0, "{x}: {found}, not {exact}");
            }
            let exact: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            assert!((f64::from(sum) - exact).abs() <= exact * 1e-5, "{n}: {sum}, not {exact}");
        }
        let mut far = [f32::NEG_INFINITY, f32::NAN];
        softmax_weights(&mut far, 1.0, 0.0);
        assert!(far[0] < 1e-37 && far[1].is_nan());
    }

    /// Where a number stands among others makes no difference.
    #[test]
    fn vectors_and_single_numbers_give_the_same_bits() {
        let inputs: Vec<f32> = (0..1003).map(|idx| (idx as f32 - 500.0) / 37.0).collect();
        for function in Function::ALL {
            let together = apply(function, &inputs);
            for (x, found) in inputs.iter().zip(together) {
                assert_eq!(apply(function, &[*x])[0].to_bits(), found.to_bits(), "{function:?}({x})");
            }
        }
    }
}
