//! What a store does to a number.

use half::bf16;
use skipc_artifact::target::DType;
use skipc_ir::interp::{Gf61, Number, Ring32};

/// The largest level of a weight in 8 bits; the smallest is as far from zero.
const LARGEST_LEVEL: f32 = 127.0;

/// A number domain with what a store does to a number: in f32 it rounds to the parameter's type, elsewhere nothing does.
pub trait Stored: Number {
    /// The number as an element of this type.
    fn stored_as(self, _dtype: DType) -> Self {
        self
    }

    /// What the elements of a block of a weight are multiples of, about; see [`crate::recipe::RecipeStep::Scales`].
    fn scale_of(_block: &[Self]) -> Self {
        Self::ONE
    }

    /// The whole number that this element of a block is of its scale.
    fn level_of(self, _scale: Self) -> Self {
        self
    }
}

impl Stored for f32 {
    fn stored_as(self, dtype: DType) -> f32 {
        match dtype {
            DType::Bf16 => bf16::from_f32(self).to_f32(),
            DType::F32 | DType::U32 | DType::U8 | DType::I8 => self,
        }
    }

    fn scale_of(block: &[f32]) -> f32 {
        // A NaN stays the largest.
        let larger = |largest: f32, x: &f32| if x.abs() <= largest { largest } else { x.abs() };
        (block.iter().fold(0.0, larger) / LARGEST_LEVEL).stored_as(DType::Bf16)
    }

    fn level_of(self, scale: f32) -> f32 {
        let level = (self / scale).round_ties_even();
        // Zeros over a scale of zero, and whatever has a scale that is no number.
        if level.is_nan() { 0.0 } else { level.clamp(-LARGEST_LEVEL, LARGEST_LEVEL) }
    }
}

impl Stored for f64 {}

impl Stored for Ring32 {}

impl Stored for Gf61 {}
