//! Number domains: the arithmetic in which a graph is evaluated.

/// A number domain. The interpreter uses no other arithmetic on elements than this.
pub trait Number: Copy + Send + Sync + std::fmt::Debug + 'static {
    /// The neutral element of addition.
    const ZERO: Self;

    /// The nearest number of the domain.
    fn from_f64(value: f64) -> Self;
    /// The number as f64, for thresholds and comparison.
    fn to_f64(self) -> f64;
    /// `self + other`.
    fn add(self, other: Self) -> Self;
    /// `self − other`.
    fn sub(self, other: Self) -> Self;
    /// `self · other`.
    fn mul(self, other: Self) -> Self;
    /// `self / other`.
    fn div(self, other: Self) -> Self;
    /// The larger of two.
    fn max(self, other: Self) -> Self;
    /// `e^self`.
    fn exp(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// `1 / √self`.
    fn rsqrt(self) -> Self;
}

macro_rules! float {
    ($N:ty, $exp:path, $tanh:path, $sqrt:path) => {
        impl Number for $N {
            const ZERO: Self = 0.0;

            #[inline]
            fn from_f64(value: f64) -> Self {
                value as $N
            }
            #[inline]
            fn to_f64(self) -> f64 {
                self.into()
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
            fn rsqrt(self) -> Self {
                1.0 / $sqrt(self)
            }
        }
    };
}

float!(f32, libm::expf, libm::tanhf, libm::sqrtf);
float!(f64, libm::exp, libm::tanh, libm::sqrt);
