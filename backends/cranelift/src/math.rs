//! Functions of numbers, for one or four lanes with the same bits.
//!
//! The exponential is computed in place rather than through the helper table: four lanes cost little more than one,
//! and a call would spill every vector. `tests/functions.rs` holds all of them to their bounds.

use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::{InstBuilder, Value};
use skipc_plan::pointwise::{Binary, Unary};

use crate::emit::{Emitter, Lanes};

/// `1.5 · 2²³`: a number of this size has a last place of 1, so adding it rounds to an integer, whose two's
/// complement then stands in the low bits.
const ROUNDER: f32 = 12_582_912.0;

/// `ln 2` in two parts: nine bits, so that products with exponents are exact, and the rest.
const LN_2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];

/// Minimax polynomial for `(eʳ − 1 − r) / r²` with weight `r² / eʳ` on `|r| ≤ 0.5025 · ln 2`; the error of `eʳ` stays
/// below `2⁻²⁸` of its value. Highest power first.
const EXP_TAIL: [f32; 5] = [0.001_381_388, 0.008_369_064, 0.041_668_423, 0.166_665_18, 0.499_999_94];

/// Below, `|x| · e^x` is 0 in f32; further down, exponents would no longer fit.
const EXP_LOW: f32 = -110.0;

/// Down to here `e^x` is a normal number with some room.
const EXP_NORMAL: f32 = -86.5;

/// Above, `e^x` is infinite in f32.
const EXP_HIGH: f32 = 89.0;

/// `e^x = mantissa · scale`, where the mantissa is a normal number and the product rounds once, if at all.
struct Exp {
    mantissa: Value,
    /// What rounding took from the mantissa.
    lost: Value,
    scale: Value,
}

impl Emitter<'_> {
    pub(crate) fn unary(&mut self, function: Unary, x: Value, lanes: Lanes) -> Value {
        match function {
            Unary::Gelu => self.gelu(x, lanes),
            Unary::Relu => {
                let zero = self.real(0.0, lanes);
                self.at_least(x, zero, lanes)
            }
            Unary::Silu => self.silu(x, lanes),
            Unary::Sigmoid => self.sigmoid(x, lanes),
            Unary::OneMinus => {
                let one = self.real(1.0, lanes);
                self.ins().fsub(one, x)
            }
            Unary::Scale(by) => {
                let by = self.real(by.0 as f32, lanes);
                self.ins().fmul(x, by)
            }
        }
    }

    pub(crate) fn binary(&mut self, function: Binary, a: Value, b: Value) -> Value {
        match function {
            Binary::Add => self.ins().fadd(a, b),
            Binary::Sub => self.ins().fsub(a, b),
            Binary::Mul => self.ins().fmul(a, b),
        }
    }

    /// `max(x, low)`; a NaN in `x` stays.
    pub(crate) fn at_least(&mut self, x: Value, low: Value, lanes: Lanes) -> Value {
        self.lesser_first(x, low, low, x, lanes)
    }

    /// `min(x, high)`; a NaN in `x` stays.
    fn at_most(&mut self, x: Value, high: Value, lanes: Lanes) -> Value {
        self.lesser_first(high, x, high, x, lanes)
    }

    /// `if a < b { then } else { otherwise }`.
    fn lesser_first(&mut self, a: Value, b: Value, then: Value, otherwise: Value, lanes: Lanes) -> Value {
        let less = self.ins().fcmp(FloatCC::LessThan, a, b);
        match lanes {
            Lanes::One => self.ins().select(less, then, otherwise),
            Lanes::Four => {
                let mask = self.recast(less, lanes.real());
                self.ins().bitselect(mask, then, otherwise)
            }
        }
    }

    /// `e^x` for `x` that is not above 0, within 1 ulp; below [`EXP_NORMAL`] it is that of [`EXP_NORMAL`], which next to the
    /// largest weight of a softmax is nothing.
    pub(crate) fn exp_below_zero(&mut self, x: Value, lanes: Lanes) -> Value {
        let low = self.real(EXP_NORMAL, lanes);
        let x = self.at_least(x, low, lanes);
        let (rounded, near, small) = self.reduce(x, lanes);
        let r = self.ins().fsub(near, small);
        let tail = self.exp_tail(r, lanes);
        let above_one = self.ins().fadd(r, tail);
        let one = self.real(1.0, lanes);
        let mantissa = self.ins().fadd(one, above_one);
        let n = self.exponent(rounded, lanes);
        let scale = self.power_of_two(n, lanes);
        self.ins().fmul(mantissa, scale)
    }

    /// The nearest integer to `x · log₂ e`, with [`ROUNDER`] added, and `x` minus that many `ln 2` in two parts: the first
    /// is subtracted, exactly, the second is not yet.
    fn reduce(&mut self, x: Value, lanes: Lanes) -> (Value, Value, Value) {
        let (log2_e, rounder) = (self.real(std::f32::consts::LOG2_E, lanes), self.real(ROUNDER, lanes));
        let exponent = self.ins().fmul(x, log2_e);
        let rounded = self.ins().fadd(exponent, rounder);
        let n = self.ins().fsub(rounded, rounder);
        let [large, small] = LN_2.map(|part| {
            let part = self.real(part, lanes);
            self.ins().fmul(n, part)
        });
        (rounded, self.ins().fsub(x, large), small)
    }

    /// The integer that stands in a number with [`ROUNDER`] added.
    fn exponent(&mut self, rounded: Value, lanes: Lanes) -> Value {
        let bits = self.recast(rounded, lanes.bits());
        let zero = self.bits(ROUNDER.to_bits(), lanes);
        self.ins().isub(bits, zero)
    }

    fn exp_parts(&mut self, x: Value, lanes: Lanes) -> Exp {
        let (low, high) = (self.real(EXP_LOW, lanes), self.real(EXP_HIGH, lanes));
        let x = self.at_least(x, low, lanes);
        let x = self.at_most(x, high, lanes);

        // The next difference is not exact, but its error is.
        let (rounded, near, small) = self.reduce(x, lanes);
        let r = self.ins().fsub(near, small);
        let lost = self.ins().fsub(near, r);
        let lost = self.ins().fsub(lost, small);
        let (mantissa, lost) = self.exp_near_zero(r, lost, lanes);

        // Two factors, because exponents from −159 to 128 are more than one can hold.
        let n = self.exponent(rounded, lanes);
        let half = self.ins().sshr_imm_u(n, 1);
        let rest = self.ins().isub(n, half);
        let factor = self.power_of_two(half, lanes);
        Exp {
            mantissa: self.ins().fmul(mantissa, factor),
            lost: self.ins().fmul(lost, factor),
            scale: self.power_of_two(rest, lanes),
        }
    }

    /// `e^(r + lost)`, where `lost` is below the last place of `r`, and what rounding took from it.
    fn exp_near_zero(&mut self, r: Value, lost: Value, lanes: Lanes) -> (Value, Value) {
        let tail = self.exp_tail(r, lanes);
        let tail = self.ins().fadd(tail, lost);
        let above_one = self.ins().fadd(r, tail);
        let one = self.real(1.0, lanes);
        let mantissa = self.ins().fadd(one, above_one);
        let kept = self.ins().fsub(mantissa, one);
        (mantissa, self.ins().fsub(above_one, kept))
    }

    /// `eʳ − 1 − r` near zero.
    fn exp_tail(&mut self, r: Value, lanes: Lanes) -> Value {
        let mut tail = self.real(EXP_TAIL[0], lanes);
        for coefficient in &EXP_TAIL[1..] {
            let coefficient = self.real(*coefficient, lanes);
            tail = self.ins().fmul(tail, r);
            tail = self.ins().fadd(tail, coefficient);
        }
        let square = self.ins().fmul(r, r);
        self.ins().fmul(tail, square)
    }

    fn power_of_two(&mut self, exponent: Value, lanes: Lanes) -> Value {
        let bias = self.bits(127, lanes);
        let biased = self.ins().iadd(exponent, bias);
        let bits = self.ins().ishl_imm_u(biased, 23);
        self.recast(bits, lanes.real())
    }

    fn sigmoid(&mut self, x: Value, lanes: Lanes) -> Value {
        let one = self.real(1.0, lanes);
        self.logistic(one, x, lanes)
    }

    fn silu(&mut self, x: Value, lanes: Lanes) -> Value {
        self.logistic(x, x, lanes)
    }

    /// `x · σ(2u)` with `u = √(2/π) · (x + 0.044715 x³)`, which is `x/2 · (1 + tanh u)` without its cancellation.
    fn gelu(&mut self, x: Value, lanes: Lanes) -> Value {
        let root = f64::sqrt(8.0 / std::f64::consts::PI);
        let linear = self.real(root as f32, lanes);
        let cubic = self.real((root * 0.044_715) as f32, lanes);
        let square = self.ins().fmul(x, x);
        let slope = self.ins().fmul(square, cubic);
        let slope = self.ins().fadd(slope, linear);
        let twice_u = self.ins().fmul(x, slope);
        self.logistic(x, twice_u, lanes)
    }

    /// `y / (1 + e^−x)`: with `t = e^−|x|`, which cannot overflow, `y / (1 + t)` or `y · t / (1 + t)`. The product
    /// with the scale of `t` comes last, so that no bits are lost to underflow before.
    fn logistic(&mut self, y: Value, x: Value, lanes: Lanes) -> Value {
        let size = self.ins().fabs(x);
        let minus = self.ins().fneg(size);
        let Exp { mantissa, lost, scale } = self.exp_parts(minus, lanes);
        let t = self.ins().fmul(mantissa, scale);
        let (zero, one) = (self.real(0.0, lanes), self.real(1.0, lanes));
        let below = self.ins().fadd(one, t);
        // Where the exponential stops following its argument, a large `y` would show it.
        let end = self.real(-EXP_LOW, lanes);
        let scale = self.lesser_first(size, end, scale, zero, lanes);
        // Half a unit in the last place of a dividend or a divisor can be most of one in the quotient, so what both
        // have lost goes into the dividend, rounded once.
        let share = self.lost_share(below, t, lanes);
        let correction = self.ins().fmul(mantissa, share);
        let correction = self.ins().fsub(lost, correction);
        let mantissa = self.ins().fadd(mantissa, correction);
        let mantissa = self.lesser_first(x, zero, mantissa, one, lanes);
        let scale = self.lesser_first(x, zero, scale, one, lanes);
        let above = self.ins().fmul(y, mantissa);
        let quotient = self.ins().fdiv(above, below);
        self.ins().fmul(quotient, scale)
    }

    /// What `below = 1 + t` lost to rounding, as a share of it.
    fn lost_share(&mut self, below: Value, t: Value, lanes: Lanes) -> Value {
        let one = self.real(1.0, lanes);
        let taken = self.ins().fsub(below, one);
        let lost = self.ins().fsub(t, taken);
        // `1 / below` from 1 to 2, within 0.05.
        let (first, slope) = (self.real(1.457, lanes), self.real(0.5, lanes));
        let slope = self.ins().fmul(below, slope);
        let reciprocal = self.ins().fsub(first, slope);
        self.ins().fmul(lost, reciprocal)
    }
}
