//! Number domains in which kernels are interpreted.

use half::bf16;
use skipc_artifact::target::DType;
use skipc_ir::interp::{Gf61, Number, Ring32};

/// A number domain with what a store does to a number: in f32 it rounds to the parameter's type, elsewhere nothing does.
pub trait Element: Number {
    /// The number as an element of this type.
    fn stored_as(self, _dtype: DType) -> Self {
        self
    }
}

impl Element for f32 {
    fn stored_as(self, dtype: DType) -> f32 {
        match dtype {
            DType::Bf16 => bf16::from_f32(self).to_f32(),
            DType::F32 | DType::U32 | DType::U8 => self,
        }
    }
}

impl Element for f64 {}
impl Element for Ring32 {}
impl Element for Gf61 {}
