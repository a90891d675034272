//! What the functions are in f64, and how far from it f32 code is.

use ordered_float::OrderedFloat;
use skipc_ir::interp::functions;
use skipc_plan::pointwise::Unary;

/// A function, and the bound that its code keeps.
pub(crate) struct Function {
    /// What people call it.
    pub(crate) name: &'static str,
    /// The instruction.
    pub(crate) unary: Unary,
    /// In f64.
    pub(crate) exact: fn(f64) -> f64,
    /// Largest error in units in the last place of the f32 result.
    pub(crate) ulps: f64,
}

/// All of them. GELU's error grows towards its left tail, where the exponential magnifies the rounding of its argument; in
/// the form with `tanh`, f32 has no digit left there.
pub(crate) const FUNCTIONS: [Function; 6] = [
    Function { name: "gelu", unary: Unary::Gelu, exact: gelu, ulps: 220.0 },
    Function { name: "silu", unary: Unary::Silu, exact: functions::silu, ulps: 3.0 },
    Function { name: "sigmoid", unary: Unary::Sigmoid, exact: functions::sigmoid, ulps: 2.0 },
    Function { name: "relu", unary: Unary::Relu, exact: functions::relu, ulps: 0.0 },
    Function { name: "one_minus", unary: Unary::OneMinus, exact: functions::one_minus, ulps: 0.5 },
    Function {
        name: "scale",
        unary: Unary::Scale(OrderedFloat(SCALE as f64)),
        exact: |x| x * f64::from(SCALE),
        ulps: 0.5,
    },
];

/// The factor of a head of 128 columns.
const SCALE: f32 = 0.088_388_35;

/// The tanh form of GELU as `x · σ(2u)`, which loses nothing to cancellation.
fn gelu(x: f64) -> f64 {
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
    x * functions::sigmoid(2.0 * inner)
}

/// Each function of each number, in f64.
pub(crate) fn expected(inputs: &[f32]) -> Vec<Vec<f64>> {
    let of = |function: &Function| inputs.iter().map(|x| (function.exact)(f64::from(*x))).collect();
    FUNCTIONS.iter().map(of).collect()
}

/// The largest error of a function.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Worst {
    /// In units in the last place of the f32 nearest to the exact result; below the normal numbers in theirs.
    pub(crate) ulps: f64,
    /// Where it is.
    pub(crate) at: f32,
    /// Numbers whose result is 0 where the exact one is not yet, but below the normal numbers.
    pub(crate) flushed: u64,
    /// Numbers for which one of both is not a number and the other is, the infinities apart.
    pub(crate) lost_nan: u64,
}

impl Worst {
    /// Takes more results into account.
    pub(crate) fn judge(&mut self, inputs: &[f32], expected: &[f64], found: &[f32]) {
        for ((x, exact), found) in inputs.iter().zip(expected).zip(found) {
            if x.is_infinite() {
                continue;
            }
            if exact.is_nan() || found.is_nan() {
                self.lost_nan += u64::from(exact.is_nan() != found.is_nan());
                continue;
            }
            if *found == 0.0 && exact.abs() < f64::from(f32::MIN_POSITIVE) {
                // From half a unit on it is more than rounding.
                self.flushed += u64::from(exact.abs() > UNIT_OF_SUBNORMALS / 2.0);
                continue;
            }
            let ulps = error(*exact, *found);
            if ulps > self.ulps {
                (self.ulps, self.at) = (ulps, *x);
            }
        }
    }

    /// Takes what another found into account.
    pub(crate) fn add(&mut self, other: &Worst) {
        if other.ulps > self.ulps {
            (self.ulps, self.at) = (other.ulps, other.at);
        }
        self.flushed += other.flushed;
        self.lost_nan += other.lost_nan;
    }
}

/// `2⁻¹⁴⁹`.
const UNIT_OF_SUBNORMALS: f64 = f32::from_bits(1) as f64;

/// Distance in units in the last place of the exact result. Past the largest f32, infinity is what rounding gives.
fn error(exact: f64, found: f32) -> f64 {
    if found.is_infinite() {
        return if exact as f32 == found { 0.0 } else { f64::INFINITY };
    }
    (exact - f64::from(found)).abs() / unit(exact)
}

/// One unit in the last place of an f32 of this size.
fn unit(exact: f64) -> f64 {
    let exponent = (exact.abs().to_bits() >> 52) as i32 - 1023;
    f64::from_bits(((exponent.clamp(-126, 127) - 23 + 1023) as u64) << 52)
}
