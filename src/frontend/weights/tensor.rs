//! A tensor and how its elements are stored.

use std::borrow::Cow;

use half::{bf16, f16};
use safetensors::Dtype;
use skipc_ir::interp::Number;

/// How elements are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    /// IEEE single.
    F32,
    /// The upper half of an IEEE single.
    Bf16,
    /// IEEE half.
    F16,
}

impl DType {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::Bf16 | DType::F16 => 2,
        }
    }

    /// As the format safetensors calls it.
    pub fn stored(self) -> Dtype {
        match self {
            DType::F32 => Dtype::F32,
            DType::Bf16 => Dtype::BF16,
            DType::F16 => Dtype::F16,
        }
    }

    /// The bytes of elements, little endian, each rounded to the nearest that this type has.
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(values.len() * self.size());
        for value in values {
            match self {
                DType::F32 => bytes.extend_from_slice(&value.to_le_bytes()),
                DType::Bf16 => bytes.extend_from_slice(&bf16::from_f32(*value).to_le_bytes()),
                DType::F16 => bytes.extend_from_slice(&f16::from_f32(*value).to_le_bytes()),
            }
        }
        bytes
    }
}

/// Type and shape of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// How its elements are stored, as the source calls it where it is none of the types that weights can have.
    pub dtype: Result<DType, String>,
    /// Its extents, outermost first.
    pub shape: Vec<usize>,
}

/// One tensor with its elements.
#[derive(Clone, Debug)]
pub struct Tensor<'s> {
    /// How elements are stored.
    pub dtype: DType,
    /// Its extents, outermost first.
    pub shape: &'s [usize],
    /// Elements in row-major order, little endian.
    pub bytes: Cow<'s, [u8]>,
}

impl Tensor<'_> {
    /// The elements in f32, exactly.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut values = Vec::with_capacity(self.bytes.len() / self.dtype.size());
        self.each(|value| values.push(value));
        values
    }

    /// The elements in a number domain, without a copy in between.
    pub(super) fn numbers<N: Number>(&self) -> Vec<N> {
        let mut values = Vec::with_capacity(self.bytes.len() / self.dtype.size());
        self.each(|value| values.push(N::from_f64(f64::from(value))));
        values
    }

    /// The first element that is not finite, with its index. Looks at bits, without an f32 copy of what may be gigabytes.
    pub(super) fn first_not_finite(&self) -> Option<(usize, f32)> {
        let exponent = match self.dtype {
            DType::F32 => return find(self.words().map(f32::from_le_bytes), |value| !value.is_finite()),
            DType::Bf16 => 0x7f80,
            DType::F16 => 0x7c00,
        };
        let (idx, bits) = find(self.halves(), |bits| bits & exponent == exponent)?;
        Some((idx, self.of_half(bits)))
    }

    #[inline]
    fn each(&self, mut take: impl FnMut(f32)) {
        match self.dtype {
            DType::F32 => self.words().map(f32::from_le_bytes).for_each(take),
            DType::Bf16 => self.halves().for_each(|bits| take(bf16::from_bits(bits).to_f32())),
            DType::F16 => self.halves().for_each(|bits| take(f16::from_bits(bits).to_f32())),
        }
    }

    fn of_half(&self, bits: u16) -> f32 {
        match self.dtype {
            DType::F16 => f16::from_bits(bits).to_f32(),
            DType::F32 | DType::Bf16 => bf16::from_bits(bits).to_f32(),
        }
    }

    fn words(&self) -> impl Iterator<Item = [u8; 4]> {
        self.bytes.as_chunks().0.iter().copied()
    }

    fn halves(&self) -> impl Iterator<Item = u16> {
        self.bytes.as_chunks().0.iter().map(|bytes| u16::from_le_bytes(*bytes))
    }
}

fn find<T: Copy>(values: impl Iterator<Item = T>, is: impl Fn(T) -> bool) -> Option<(usize, T)> {
    values.enumerate().find(|(_, value)| is(*value))
}
