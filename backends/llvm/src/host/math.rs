//! Functions of numbers. Lanes do not meet and nothing is fused, so that every width and level gives the same bits.

use inkwell::FloatPredicate::{OGT, OLT};
use skipc_artifact::exponential::{
    ERFC, EXP_LOW, EXP_NORMAL, EXP_TAIL, GELU, LN_2, RECIPROCAL, ROUNDER, TANH, TANH_SMALL,
};
use skipc_plan::kernel::Scoring;
use skipc_plan::pointwise::{Binary, Unary};

use super::code::{Code, Lanes, Made};

/// An argument of the exponential without its power of two.
struct Reduced<'c> {
    /// The nearest integer to `x · log₂ e`, with [`ROUNDER`] added.
    rounded: Lanes<'c>,
    /// `x` minus that many `ln 2`.
    rest: Lanes<'c>,
    /// What `rest` lost to rounding.
    lost: Lanes<'c>,
}

impl<'c> Code<'c> {
    pub(crate) fn unary(&self, function: Unary, x: Lanes<'c>) -> Made<Lanes<'c>> {
        let lanes = x.get_type().get_size();
        match function {
            Unary::Relu => self.at_least(x, self.real(0.0, lanes)),
            Unary::Relu2 => {
                let positive = self.unary(Unary::Relu, x)?;
                self.fmul(positive, positive)
            }
            Unary::OneMinus => self.fsub(self.real(1.0, lanes), x),
            Unary::Scale(by) => self.fmul(x, self.real(by.0 as f32, lanes)),
            Unary::Gelu => self.gelu(x),
            Unary::Silu => self.logistic(x, x),
            Unary::Sigmoid => self.logistic(self.real(1.0, lanes), x),
            Unary::GeluErf => self.gelu_erf(x),
            Unary::Tanh => self.tanh(x),
        }
    }

    pub(crate) fn binary(&self, function: Binary, a: Lanes<'c>, b: Lanes<'c>) -> Made<Lanes<'c>> {
        match function {
            Binary::Add => self.fadd(a, b),
            Binary::Sub => self.fsub(a, b),
            Binary::Mul => self.fmul(a, b),
        }
    }

    /// Scores of products of queries and keys of this width.
    pub(crate) fn score(&self, scoring: Scoring, width: u32, products: Lanes<'c>) -> Made<Lanes<'c>> {
        let (lanes, scale) = (products.get_type().get_size(), scoring.scale(width));
        let scaled = |by: f64| self.fmul(products, self.real(by as f32, lanes));
        match scoring.cap {
            None => scaled(scale),
            Some(cap) => self.fmul(self.tanh(scaled(scale / cap.0)?)?, self.real(cap.0 as f32, lanes)),
        }
    }

    /// `e^x` for `x` that is not above 0, within 1 ulp; below [`EXP_NORMAL`] it is that of [`EXP_NORMAL`], which next to
    /// the largest weight of a softmax is nothing.
    pub(crate) fn exp_below_zero(&self, x: Lanes<'c>) -> Made<Lanes<'c>> {
        let lanes = x.get_type().get_size();
        let x = self.reduce(self.at_least(x, self.real(EXP_NORMAL, lanes))?)?;
        let above_one = self.fadd(x.rest, self.exp_tail(x.rest)?)?;
        let mantissa = self.fadd(self.real(1.0, lanes), above_one)?;
        self.fmul(mantissa, self.power_of_two(self.exponent(x.rounded)?)?)
    }

    /// `x · σ(2u)` with `u = √(2/π) · (x + 0.044715 x³)`, which is `x/2 · (1 + tanh u)` without its cancellation.
    fn gelu(&self, x: Lanes<'c>) -> Made<Lanes<'c>> {
        let lanes = x.get_type().get_size();
        let [constant, cubic] = GELU.map(|number| self.real(number, lanes));
        let slope = self.fadd(self.fmul(self.fmul(x, x)?, cubic)?, constant)?;
        self.logistic(x, self.fmul(x, slope)?)
    }

    /// `x · ½ erfc(−x / √2)`.
    fn gelu_erf(&self, x: Lanes<'c>) -> Made<Lanes<'c>> {
        let lanes = x.get_type().get_size();
        let [zero, half, one] = [0.0, 0.5, 1.0].map(|number| self.real(number, lanes));
        let z = self.fmul(self.abs(x)?, self.real(std::f32::consts::FRAC_1_SQRT_2, lanes))?;
        let t = self.fdiv(one, self.fadd(one, self.fmul(half, z)?)?)?;
        let exponent = self.fsub(self.polynomial(&ERFC, t)?, self.fmul(z, z)?)?;
        // Its root, so that what is left of a large `x` is rounded once, by the last product.
        let root = self.exp_below_zero(self.fmul(half, exponent)?)?;
        let tail = self.fmul(self.fmul(half, t)?, root)?;
        let below = self.fmul(self.fmul(x, tail)?, root)?;
        let above = self.fmul(x, self.fsub(one, self.fmul(tail, root)?)?)?;
        self.fselect(self.fis(OGT, zero, x)?, below, above)
    }

    /// A polynomial near zero, where the exponential would lose what `x` adds to 1.
    pub(crate) fn tanh(&self, x: Lanes<'c>) -> Made<Lanes<'c>> {
        let lanes = x.get_type().get_size();
        let [zero, one] = [0.0, 1.0].map(|number| self.real(number, lanes));
        let (square, size) = (self.fmul(x, x)?, self.abs(x)?);
        let small = self.fmul(x, self.fmul(square, self.polynomial(&TANH, square)?)?)?;
        let small = self.fadd(x, small)?;
        let t = self.exp_below_zero(self.fmul(self.real(-2.0, lanes), size)?)?;
        let large = self.fsub(one, self.fdiv(self.fadd(t, t)?, self.fadd(one, t)?)?)?;
        let negative = self.fsub(self.real(-0.0, lanes), large)?;
        let large = self.fselect(self.fis(OGT, zero, x)?, negative, large)?;
        self.fselect(self.fis(OLT, size, self.real(TANH_SMALL, lanes))?, small, large)
    }

    /// The polynomial of these coefficients, highest power first.
    pub(crate) fn polynomial(&self, coefficients: &[f32], x: Lanes<'c>) -> Made<Lanes<'c>> {
        let lanes = x.get_type().get_size();
        let mut sum = self.real(coefficients[0], lanes);
        for coefficient in &coefficients[1..] {
            sum = self.fadd(self.fmul(sum, x)?, self.real(*coefficient, lanes))?;
        }
        Ok(sum)
    }

    /// `y / (1 + e^−x)`: with `t = e^−|x|`, which cannot overflow, `y / (1 + t)` or `y · t / (1 + t)`. The product
    /// with the scale of `t` comes last, so that no bits are lost to underflow before.
    fn logistic(&self, y: Lanes<'c>, x: Lanes<'c>) -> Made<Lanes<'c>> {
        let lanes = x.get_type().get_size();
        let (zero, one) = (self.real(0.0, lanes), self.real(1.0, lanes));
        let size = self.abs(x)?;
        let argument = self.at_least(self.fsub(self.real(-0.0, lanes), size)?, self.real(EXP_LOW, lanes))?;
        let reduced = self.reduce(argument)?;
        let above_one = self.fadd(reduced.rest, self.fadd(self.exp_tail(reduced.rest)?, reduced.lost)?)?;
        let mantissa = self.fadd(one, above_one)?;
        let lost = self.fsub(above_one, self.fsub(mantissa, one)?)?;
        // Two factors, because exponents down to −159 are more than one can hold.
        let n = self.exponent(reduced.rounded)?;
        let half = self.builder.build_right_shift(n, self.word(1, lanes), true, "")?;
        let factor = self.power_of_two(half)?;
        let scale = self.power_of_two(self.builder.build_int_sub(n, half, "")?)?;
        let (mantissa, lost) = (self.fmul(mantissa, factor)?, self.fmul(lost, factor)?);
        let t = self.fmul(mantissa, scale)?;
        let below = self.fadd(one, t)?;
        // Where the exponential stops following its argument, a large `y` would show it.
        let in_range = self.fis(OLT, size, self.real(-EXP_LOW, lanes))?;
        let scale = self.fselect(in_range, scale, zero)?;
        // Half a unit in the last place of a dividend or a divisor can be most of one in the quotient, so what both
        // have lost goes into the dividend, rounded once.
        let share = self.fmul(mantissa, self.lost_share(below, t)?)?;
        let mantissa = self.fadd(mantissa, self.fsub(lost, share)?)?;
        let is_negative = self.fis(OGT, zero, x)?;
        let mantissa = self.fselect(is_negative, mantissa, one)?;
        let scale = self.fselect(is_negative, scale, one)?;
        self.fmul(self.fdiv(self.fmul(y, mantissa)?, below)?, scale)
    }

    /// What `below = 1 + t` lost to rounding, as a share of it.
    fn lost_share(&self, below: Lanes<'c>, t: Lanes<'c>) -> Made<Lanes<'c>> {
        let lanes = t.get_type().get_size();
        let lost = self.fsub(t, self.fsub(below, self.real(1.0, lanes))?)?;
        let [one, slope] = RECIPROCAL.map(|number| self.real(number, lanes));
        let line = self.fsub(one, self.fmul(slope, below)?)?;
        self.fmul(lost, line)
    }

    fn reduce(&self, x: Lanes<'c>) -> Made<Reduced<'c>> {
        let lanes = x.get_type().get_size();
        let [log, rounder, high, low] =
            [std::f32::consts::LOG2_E, ROUNDER, LN_2[0], LN_2[1]].map(|number| self.real(number, lanes));
        let rounded = self.fadd(self.fmul(x, log)?, rounder)?;
        let n = self.fsub(rounded, rounder)?;
        let (near, small) = (self.fsub(x, self.fmul(n, high)?)?, self.fmul(n, low)?);
        let rest = self.fsub(near, small)?;
        // This difference is not exact, but its error is.
        let lost = self.fsub(self.fsub(near, rest)?, small)?;
        Ok(Reduced { rounded, rest, lost })
    }

    /// The integer that stands in a number with [`ROUNDER`] added.
    fn exponent(&self, rounded: Lanes<'c>) -> Made<Lanes<'c>> {
        let lanes = rounded.get_type().get_size();
        Ok(self.builder.build_int_sub(self.bits(rounded)?, self.word(ROUNDER.to_bits(), lanes), "")?)
    }

    fn power_of_two(&self, exponent: Lanes<'c>) -> Made<Lanes<'c>> {
        let lanes = exponent.get_type().get_size();
        let biased = self.builder.build_int_add(exponent, self.word(127, lanes), "")?;
        self.of_bits(self.builder.build_left_shift(biased, self.word(23, lanes), "")?)
    }

    /// `eʳ − 1 − r` near zero.
    fn exp_tail(&self, r: Lanes<'c>) -> Made<Lanes<'c>> {
        self.fmul(self.polynomial(&EXP_TAIL, r)?, self.fmul(r, r)?)
    }
}
