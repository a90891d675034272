//! How far results are from those of a reference, and how far they may be.
//!
//! Bounds are relative to the root mean square of the reference's numbers: rounding grows with the numbers that are rounded, so an
//! absolute bound would accept anything where they are small, and refuse what is right where they are large.

use skipc_artifact::target::DType;

/// The distance of numbers from a reference's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Distance {
    compared: usize,
    max_error: f64,
    squared_errors: f64,
    squares: f64,
}

impl Distance {
    /// Of numbers that stand at the same places.
    pub fn between(got: &[f32], wanted: &[f32]) -> Self {
        let mut distance = Self::default();
        for (&got, &wanted) in got.iter().zip(wanted) {
            distance.add((f64::from(got) - f64::from(wanted)).abs(), f64::from(wanted));
        }
        distance
    }

    /// Counts a number that is `error` away from the reference's.
    pub fn add(&mut self, error: f64, wanted: f64) {
        self.compared += 1;
        // A NaN is the worst of all errors, and stays.
        self.max_error = if error <= self.max_error { self.max_error } else { error };
        self.squared_errors += error * error;
        self.squares += wanted * wanted;
    }

    /// The largest distance of a number.
    #[must_use]
    pub fn max_error(&self) -> f64 {
        self.max_error
    }

    /// Root mean square distance, relative to the reference's numbers; infinite where those are all 0 and the others are not.
    #[must_use]
    pub fn relative_rms(&self) -> f64 {
        if self.squared_errors == 0.0 { 0.0 } else { (self.squared_errors / self.squares).sqrt() }
    }

    /// Whether numbers were compared at all and are within the bound. A reference that is not finite is not reached by anything.
    #[must_use]
    pub fn is_within(&self, bound: Bound) -> bool {
        let reference = (self.squares / self.compared as f64).sqrt();
        let holds = match bound {
            Bound::Exact => self.max_error == 0.0,
            Bound::Largest(bound) => self.max_error <= bound * reference,
            Bound::RootMeanSquare(bound) => self.relative_rms() <= bound,
        };
        self.compared > 0 && reference.is_finite() && holds
    }
}

/// How far results may be from a reference, relative to the root mean square of its numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// Not at all.
    Exact,
    /// No number further than this.
    Largest(f64),
    /// All together no further than this, as root mean square.
    RootMeanSquare(f64),
}

impl Bound {
    /// What the type of a program's layers allows its logits. In f32 it is the bound of whole models against PyTorch. In bf16 it is 16
    /// times the unit roundoff, a coarse net for wrong code: the sharp bound needs PyTorch's own error, which golden cases
    /// carry.
    #[must_use]
    pub fn of(dtype: DType) -> Self {
        match dtype {
            DType::Bf16 => Bound::RootMeanSquare(16.0 / 256.0),
            DType::F32 | DType::U32 | DType::U8 | DType::I8 => Bound::Largest(2e-4),
        }
    }

    /// The bound as a number; 0 where nothing may differ.
    #[must_use]
    pub fn size(self) -> f64 {
        match self {
            Bound::Exact => 0.0,
            Bound::Largest(size) | Bound::RootMeanSquare(size) => size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [1.0, -2.0, 0.5, 3.0];

    fn scaled(by: f32) -> Vec<f32> {
        LOGITS.iter().map(|logit| logit * by).collect()
    }

    #[test]
    fn zeros_are_wrong_and_rounding_is_right_at_every_scale() {
        for dtype in [DType::F32, DType::Bf16] {
            for by in [1e-30, 1e-6, 1.0, 1e6, 1e8, 1e30] {
                let wanted = scaled(by);
                let zeros = Distance::between(&[0.0; 4], &wanted);
                assert!(!zeros.is_within(Bound::of(dtype)), "{dtype} accepts zeros for logits × {by}");
                let rounded: Vec<f32> = wanted.iter().map(|logit| logit * (1.0 + 6e-8)).collect();
                let rounding = Distance::between(&rounded, &wanted);
                assert!(rounding.is_within(Bound::of(dtype)), "{dtype} refuses rounding of logits × {by}");
            }
        }
    }

    #[test]
    fn nothing_compared_is_not_right() {
        for bound in [Bound::Exact, Bound::Largest(1.0), Bound::RootMeanSquare(1.0)] {
            assert!(!Distance::between(&[], &[]).is_within(bound), "{bound:?}");
            assert!(Distance::between(&[0.0; 2], &[0.0; 2]).is_within(bound), "{bound:?}");
        }
    }

    #[test]
    fn what_is_not_finite_is_wrong_on_either_side() {
        for bad in [f32::NAN, f32::INFINITY] {
            for bound in [Bound::Exact, Bound::of(DType::F32), Bound::of(DType::Bf16)] {
                assert!(!Distance::between(&[1.0, bad], &[1.0, 1.0]).is_within(bound), "{bad} {bound:?}");
                assert!(!Distance::between(&[1.0, 1.0], &[1.0, bad]).is_within(bound), "{bad} {bound:?}");
                assert!(!Distance::between(&[bad], &[bad]).is_within(bound), "{bad} {bound:?}");
            }
        }
    }

    #[test]
    fn a_reference_of_zeros_takes_nothing_else() {
        let bound = Bound::of(DType::F32);
        assert!(!Distance::between(&[1e-30, 0.0], &[0.0; 2]).is_within(bound));
        assert!(!Distance::between(&[1e-30, 0.0], &[0.0; 2]).is_within(Bound::of(DType::Bf16)));
    }
}
