//! Numbers with a bound on how far an f32 evaluation may be from them.

/// Half the distance between 1 and the next f32: the relative error of one rounding.
pub const UNIT: f64 = 1.0 / (1_u64 << 24) as f64;

/// Smallest normal f32: what a unit that flushes small results to zero may lose.
const FLUSHED: f64 = f32::MIN_POSITIVE as f64;

/// `e^x` of more than this need not be finite in f32.
const EXP_LIMIT: f64 = 88.0;

/// `tanh` of more than this is 1 in f32, by a wide margin.
const SATURATED: f64 = 10.0;

/// Units of rounding in the two units in the last place that `exp`, `tanh` and `rsqrt` may be off.
const TWO_ULP: f64 = 4.0 * UNIT;

/// An exact value (up to f64 rounding, a billionth of what matters here) and a bound on the error of any evaluation
/// in f32 that follows the kernel's definition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Approx {
    /// The value.
    pub value: f64,
    /// Bound on |f32 evaluation − value|.
    pub error: f64,
}

/// `n · u / (1 − n · u)`: the relative error that `n` roundings in any order can amount to (Higham, lemma 3.1).
pub fn gamma(n: usize) -> f64 {
    let sum = n as f64 * UNIT;
    sum / (1.0 - sum)
}

#[expect(
    clippy::should_implement_trait,
    reason = "a rounding belongs to each operation; operators would hide it"
)]
impl Approx {
    /// A number without error: an operand as it is stored, or a constant that f32 holds.
    pub fn exact(value: f64) -> Approx {
        Approx { value, error: 0.0 }
    }

    /// `Σ aᵢ · bᵢ` over stored operands, in any order, with or without fused multiply-add.
    pub fn dot(a: impl Iterator<Item = f64>, b: impl Iterator<Item = f64>) -> Approx {
        let (mut value, mut magnitude, mut n) = (0.0, 0.0, 0);
        for (a, b) in a.zip(b) {
            value += a * b;
            magnitude += (a * b).abs();
            n += 1;
        }
        Approx { value, error: gamma(n) * magnitude }
    }

    /// `Σ aᵢ` in any order.
    pub fn sum(terms: impl Iterator<Item = Approx>) -> Approx {
        let (mut value, mut error, mut magnitude, mut n) = (0.0, 0.0, 0.0, 0_usize);
        for term in terms {
            value += term.value;
            error += term.error;
            magnitude += term.value.abs() + term.error;
            n += 1;
        }
        Approx { value, error: error + gamma(n.saturating_sub(1)) * magnitude }
    }

    /// One more rounding of the result, relative.
    fn rounded(self, relative: f64) -> Approx {
        Approx { value: self.value, error: self.error + relative * (self.value.abs() + self.error) }
    }

    /// `self + other`.
    pub fn add(self, other: Approx) -> Approx {
        Approx { value: self.value + other.value, error: self.error + other.error }.rounded(UNIT)
    }

    /// `self − other`.
    pub fn sub(self, other: Approx) -> Approx {
        self.add(Approx { value: -other.value, error: other.error })
    }

    /// `self · other`.
    pub fn mul(self, other: Approx) -> Approx {
        let error =
            self.value.abs() * other.error + other.value.abs() * self.error + self.error * other.error;
        Approx { value: self.value * other.value, error }.rounded(UNIT)
    }

    /// `self / other`, where `other` stays away from zero.
    pub fn div(self, other: Approx) -> Approx {
        let value = self.value / other.value;
        let least = other.value.abs() - other.error;
        Approx { value, error: (self.error + value.abs() * other.error) / least }.rounded(UNIT)
    }

    /// `e^self`, within two units in the last place.
    pub fn exp(self) -> Approx {
        let value = libm::exp(self.value);
        Approx { value, error: value * libm::expm1(self.error) + FLUSHED }.rounded(TWO_ULP)
    }

    /// Hyperbolic tangent, within two units in the last place; 1 where it is 1 in f32.
    pub fn tanh(self) -> Approx {
        if self.value.abs() - self.error > SATURATED {
            // The rest is what forms that do not round it away may keep, and what f64 itself cannot tell from 1.
            let rest = 4.0 * libm::exp(-2.0 * self.value.abs()) + 2.0 * f64::EPSILON;
            return Approx { value: self.value.signum(), error: rest };
        }
        Approx { value: libm::tanh(self.value), error: self.error }.rounded(TWO_ULP)
    }

    /// `1 / √self`, within two units in the last place.
    pub fn rsqrt(self) -> Approx {
        let value = 1.0 / libm::sqrt(self.value);
        let least = self.value - self.error;
        Approx { value, error: 1.0 / libm::sqrt(least) - value }.rounded(TWO_ULP)
    }

    /// `max(self, 0)`.
    pub fn relu(self) -> Approx {
        Approx { value: if self.value < 0.0 { 0.0 } else { self.value }, error: self.error }
    }

    /// `1 / (1 + e^−self)`. Where the exponential leaves f32, zero is as good as the value; where the result is below the
    /// smallest normal, a unit may flush it.
    pub fn sigmoid(self) -> Approx {
        if self.value - self.error < -EXP_LIMIT {
            let value = libm::exp(self.value);
            return Approx { value, error: value + FLUSHED };
        }
        let exp = Approx { value: -self.value, error: self.error }.exp();
        let Approx { value, error } = Approx::exact(1.0).div(Approx::exact(1.0).add(exp));
        Approx { value, error: error + FLUSHED }
    }

    /// `self / (1 + e^−self)`; its other form, `self · sigmoid(self)`, has a rounding more, and may lose what is left
    /// of a very small sigmoid.
    pub fn silu(self) -> Approx {
        let lost = self.value.abs() * FLUSHED;
        if self.value - self.error < -EXP_LIMIT {
            let value = self.value * libm::exp(self.value);
            return Approx { value, error: value.abs() + lost };
        }
        let exp = Approx { value: -self.value, error: self.error }.exp();
        let Approx { value, error } = self.div(Approx::exact(1.0).add(exp)).rounded(UNIT);
        Approx { value, error: error + lost }
    }

    /// `1 − erf(self)`, as exact as an approximation within `1.2e-7` and, in the tail, an exponential of a square that is
    /// rounded.
    pub fn erfc(self) -> Approx {
        let Approx { value: z, error } = self;
        let value = libm::erfc(z);
        let relative = UNIT * (16.0 + if z > 0.0 { 4.0 * z * z } else { 0.0 });
        // It falls by at most 1.13 of what its argument grows by.
        Approx { value, error: 1.13 * error + 1.2e-7 * value + FLUSHED }.rounded(relative)
    }

    /// `self · ½ erfc(−self / √2)`.
    pub fn gelu_erf(self) -> Approx {
        let root = Approx::exact(-std::f64::consts::FRAC_1_SQRT_2).rounded(UNIT);
        Approx::exact(0.5).mul(self).mul(self.mul(root).erfc())
    }

    /// The tanh form of GELU. Its other form, `self · sigmoid(2 · inner)`, has the error of a sigmoid instead: hence
    /// two units in the last place more.
    pub fn gelu(self) -> Approx {
        let cube = Approx::exact(0.044_715).rounded(UNIT).mul(self).mul(self).mul(self);
        let root = Approx::exact((2.0 / std::f64::consts::PI).sqrt()).rounded(UNIT);
        let tanh = root.mul(self.add(cube)).tanh();
        Approx::exact(0.5).mul(self).mul(Approx::exact(1.0).add(tanh)).rounded(TWO_ULP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f32_evaluations_stay_inside() {
        let xs = (0..4000).map(|step| (step as f32 - 2000.0) / 150.0);
        for x in xs {
            let at = Approx::exact(f64::from(x));
            let inside = |what: &str, got: f32, want: Approx| {
                let off = (f64::from(got) - want.value).abs();
                assert!(off <= want.error, "{what}({x}) = {got}, off by {off}, allowed {}", want.error);
            };
            inside("exp", libm::expf(x), at.exp());
            inside("tanh", libm::tanhf(x), at.tanh());
            inside("sigmoid", 1.0 / (1.0 + libm::expf(-x)), at.sigmoid());
            inside("silu", x / (1.0 + libm::expf(-x)), at.silu());
            inside("silu", x * (1.0 / (1.0 + libm::expf(-x))), at.silu());
            let inner = 0.797_884_6 * (x + 0.044_715 * x * x * x);
            inside("gelu", 0.5 * x * (1.0 + libm::tanhf(inner)), at.gelu());
            inside("gelu", x / (1.0 + libm::expf(-2.0 * inner)), at.gelu());
            inside("gelu_erf", x * (0.5 * libm::erfcf(-x * std::f32::consts::FRAC_1_SQRT_2)), at.gelu_erf());
        }
    }

    #[test]
    fn f32_sums_stay_inside_in_any_order() {
        let a: Vec<f32> = (0..257).map(|i| libm::sinf(i as f32)).collect();
        let b: Vec<f32> = (0..257).map(|i| libm::cosf(1.7 * i as f32)).collect();
        let wide = |xs: &[f32]| xs.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
        let want = Approx::dot(wide(&a).into_iter(), wide(&b).into_iter());
        let forward = a.iter().zip(&b).fold(0.0_f32, |sum, (a, b)| sum + a * b);
        let backward = a.iter().zip(&b).rev().fold(0.0_f32, |sum, (a, b)| libm::fmaf(*a, *b, sum));
        for got in [forward, backward] {
            assert!((f64::from(got) - want.value).abs() <= want.error, "{got} against {want:?}");
        }
        assert!(want.error < 1e-2, "the bound does not hold: {want:?}");
    }

    #[test]
    fn a_bound_is_not_loose() {
        // Four units in the last place off are always seen where the definition allows two and a rounding.
        let sigmoid = Approx::exact(0.3).sigmoid();
        assert!(sigmoid.error < 4.0 * 2.0 * UNIT * sigmoid.value, "{sigmoid:?}");
    }
}
