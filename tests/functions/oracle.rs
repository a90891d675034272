//! What the functions are in f64, and how far from it f32 code is.

use skipc_ir::Unary;

/// What code should give, but for rounding.
fn exact(function: Unary, x: f64) -> f64 {
    match function {
        // As `x · σ(2u)`, which loses nothing to cancellation.
        Unary::Gelu => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            x * Unary::Sigmoid.eval(2.0 * inner)
        }
        // Kernels have the factor in f32.
        Unary::Scale(by) => x * f64::from(by.0 as f32),
        _ => function.eval(x),
    }
}

/// Each function of each number, in f64.
pub(crate) fn expected(functions: &[Unary], inputs: &[f32]) -> Vec<Vec<f64>> {
    let of = |function: &Unary| inputs.iter().map(|x| exact(*function, f64::from(*x))).collect();
    functions.iter().map(of).collect()
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
    pub(crate) fn compare(&mut self, inputs: &[f32], expected: &[f64], found: &[f32]) {
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
