//! Number domains: the arithmetic in which a graph is evaluated.

/// A number domain. The interpreters use no other arithmetic on elements than this.
///
/// Two kinds: floating point (f32, f64), where two forms of a model differ by rounding, and exact domains, where they
/// must not differ at all. An exact domain has no exponential, root or order of its own: those are fixed functions of
/// their argument that keep the few laws that forms of a model rely on (`exp(0) = 1`, `max(x, x) = x`,
/// `a / b = a · (1 / b)`), and nothing else.
pub trait Number: Copy + PartialEq + Send + Sync + std::fmt::Debug + 'static {
    /// What sums of products are accumulated in.
    type Wide: Number<Wide = Self::Wide>;

    /// The neutral element of addition.
    const ZERO: Self;
    /// The neutral element of multiplication.
    const ONE: Self;
    /// Whether sums may be taken in any order, and any difference between two forms is a fault.
    const EXACT: bool;

    /// The nearest number of the domain; in an exact one the number itself if it is a small integer, else an element
    /// drawn from its value.
    fn from_f64(value: f64) -> Self;
    /// The number as f64, for thresholds and comparison; in an exact domain its signed representative.
    fn to_f64(self) -> f64;
    /// The same number as a summand.
    fn widen(self) -> Self::Wide;
    /// A finished sum, rounded once.
    fn narrow(sum: Self::Wide) -> Self;
    /// `self + other`.
    fn add(self, other: Self) -> Self;
    /// `self − other`.
    fn sub(self, other: Self) -> Self;
    /// `self · other`.
    fn mul(self, other: Self) -> Self;
    /// `self / other`.
    fn div(self, other: Self) -> Self;
    /// Divides each of the values by the same number.
    fn div_all(values: &mut [Self], by: Self) {
        values.iter_mut().for_each(|value| *value = value.div(by));
    }
    /// The larger of two.
    fn max(self, other: Self) -> Self;
    /// One if it is above zero, else zero.
    fn step(self) -> Self {
        if self.to_f64() > 0.0 { Self::ONE } else { Self::ZERO }
    }
    /// `e^self`.
    fn exp(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// Complementary error function, `1 − erf`.
    fn erfc(self) -> Self;
    /// `1 / √self`.
    fn rsqrt(self) -> Self;
}

macro_rules! float {
    ($N:ty, $exp:path, $tanh:path, $erfc:path, $sqrt:path) => {
        impl Number for $N {
            type Wide = f64;

            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const EXACT: bool = false;

            #[inline]
            fn from_f64(value: f64) -> Self {
                value as $N
            }
            #[inline]
            fn to_f64(self) -> f64 {
                self.into()
            }
            #[inline]
            fn widen(self) -> f64 {
                self.into()
            }
            #[inline]
            fn narrow(sum: f64) -> Self {
                sum as $N
            }
            #[inline]
            fn add(self, other: Self) -> Self {
                self + other
            }
            #[inline]
            fn sub(self, other: Self) -> Self {
                self - other
            }
            #[inline]
            fn mul(self, other: Self) -> Self {
                self * other
            }
            #[inline]
            fn div(self, other: Self) -> Self {
                self / other
            }
            #[inline]
            fn max(self, other: Self) -> Self {
                if other > self { other } else { self }
            }
            #[inline]
            fn exp(self) -> Self {
                $exp(self)
            }
            #[inline]
            fn tanh(self) -> Self {
                $tanh(self)
            }
            #[inline]
            fn erfc(self) -> Self {
                $erfc(self)
            }
            #[inline]
            fn rsqrt(self) -> Self {
                1.0 / $sqrt(self)
            }
        }
    };
}

float!(f32, libm::expf, libm::tanhf, libm::erfcf, libm::sqrtf);
float!(f64, libm::exp, libm::tanh, libm::erfc, libm::sqrt);
