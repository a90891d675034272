//! How exact a result has to be, and the comparison that says so.
//!
//! A bound is never one number for a whole tensor. Each element is evaluated once in f64 beside a bound on what f32
//! arithmetic may add to it ([`crate::approx::Approx`]): for a matmul γ_K · |A||B|, for `exp`, `tanh`, `rsqrt` two
//! units in the last place, for any other operation one rounding, each carried through what follows. On top comes
//! the store: one unit in the last place of an f32, half of one of a bf16, because a store rounds to nearest.

use serde::{Deserialize, Serialize};
use skipc_artifact::target::DType;

use crate::approx::Approx;

/// How exact an output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exactness {
    /// The same bits: copies, integers, and sums of small integers.
    Bitwise,
    /// So many units in the last place of the output's type.
    Ulps(u32),
    /// A matmul with this inner size and its epilogue, by the error analysis of its terms.
    Matmul {
        /// Inner size.
        k: u32,
    },
    /// A chain of operations, by the error analysis of the chain.
    Chain,
}

/// What one element should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Want {
    /// What it was before.
    Untouched,
    /// This, up to the error.
    Value {
        /// The value, exact where the error is 0; any NaN is as good as another.
        value: f64,
        /// Largest distance allowed.
        error: f64,
    },
}

impl Want {
    /// What a store of `number` to an element of this type may leave there.
    pub fn stored(number: Approx, dtype: DType, exactness: Exactness) -> Want {
        let Approx { value, error } = number;
        if value.is_nan() {
            return Want::Value { value, error: 0.0 };
        }
        let ulp = ulp(value.abs() + error, dtype);
        let (value, error) = match exactness {
            Exactness::Bitwise => (round(value, dtype), 0.0),
            Exactness::Ulps(n) => {
                // A unit may flush what is below the normal numbers.
                let least = f64::from(f32::MIN_POSITIVE);
                (value, f64::from(n) * ulp + if value.abs() < least { least } else { 0.0 })
            }
            Exactness::Matmul { .. } | Exactness::Chain if dtype == DType::Bf16 => (value, error + 0.5 * ulp),
            Exactness::Matmul { .. } | Exactness::Chain => (value, error + ulp),
        };
        Want::Value { value, error }
    }
}

/// The distance of neighbours of a type around a magnitude.
pub fn ulp(magnitude: f64, dtype: DType) -> f64 {
    let (digits, least) = match dtype {
        DType::F32 => (23, -149),
        DType::Bf16 => (7, -133),
        DType::U32 | DType::U8 | DType::I8 => return 0.0,
    };
    let exponent = if magnitude == 0.0 { -1074 } else { libm::ilogb(magnitude) };
    libm::ldexp(1.0, (exponent - digits).max(least))
}

/// The nearest number of a type.
pub fn round(value: f64, dtype: DType) -> f64 {
    match dtype {
        DType::F32 => f64::from(value as f32),
        DType::Bf16 => half::bf16::from_f32(value as f32).to_f64(),
        DType::U32 | DType::U8 | DType::I8 => value,
    }
}

/// The elements of a tensor as f64. A last part of an element is left out.
pub fn decode(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    let wide = |word: &[u8; 4]| f64::from(f32::from_le_bytes(*word));
    match dtype {
        DType::F32 => bytes.as_chunks().0.iter().map(wide).collect(),
        DType::Bf16 => {
            bytes.as_chunks().0.iter().map(|word| half::bf16::from_le_bytes(*word).to_f64()).collect()
        }
        DType::U32 => bytes.as_chunks().0.iter().map(|word| f64::from(u32::from_le_bytes(*word))).collect(),
        DType::U8 => bytes.iter().map(|byte| f64::from(*byte)).collect(),
        DType::I8 => bytes.iter().map(|byte| f64::from(byte.cast_signed())).collect(),
    }
}

/// One output of a case: what it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    /// Index of the parameter.
    pub param: u32,
    /// Type of its elements.
    pub dtype: DType,
    /// Its columns.
    pub cols: u32,
    /// How exact it is.
    pub exactness: Exactness,
    /// Its elements.
    pub wants: Vec<Want>,
}

/// The worst element of an output that is not what it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Mismatch {
    /// Physical row.
    pub row: usize,
    /// Column.
    pub col: usize,
    /// What stands there.
    pub got: f64,
    /// What should; `None` for what stood there before.
    pub want: Option<f64>,
    /// Distance allowed.
    pub error: f64,
    /// How many elements are wrong.
    pub n_wrong: usize,
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Mismatch { row, col, got, want, error, n_wrong } = self;
        match want {
            Some(want) => write!(f, "({row}, {col}) is {got:e}, should be {want:e} ± {error:e}")?,
            None => write!(f, "({row}, {col}) is {got:e}, should be untouched")?,
        }
        write!(f, "; {n_wrong} wrong in all")
    }
}

impl Expected {
    /// Compares an output with what it should be; `before` is what the output held before the run. Returns the
    /// largest share of its allowance that an element used: at most 1, and 0 if all are exact.
    ///
    /// A NaN is wrong unless one is wanted, and an infinity always, unless it stood there before in an element that stays
    /// untouched.
    ///
    /// # Errors
    /// The worst element.
    ///
    /// # Panics
    /// If the lengths differ: then the harness lost an operand.
    pub fn compare(&self, before: &[u8], after: &[u8]) -> Result<f64, Mismatch> {
        let size = self.dtype.size() as usize;
        assert_eq!(before.len(), after.len(), "an operand changed its size");
        assert_eq!(after.len(), self.wants.len() * size, "an operand is not what the case expects");
        let numbers = decode(self.dtype, after);
        let mut worst: (f64, Option<usize>) = (0.0, None);
        let mut n_wrong = 0;
        for (idx, want) in self.wants.iter().enumerate() {
            let bytes = idx * size..(idx + 1) * size;
            let used = match *want {
                Want::Untouched if before[bytes.clone()] == after[bytes] => 0.0,
                Want::Untouched => f64::INFINITY,
                Want::Value { value, error } => self.used(numbers[idx], value, error),
            };
            if used > 1.0 {
                n_wrong += 1;
            }
            if used > worst.0 {
                worst = (used, Some(idx));
            }
        }
        match worst {
            (used, Some(idx)) if used > 1.0 => Err(self.mismatch(idx, numbers[idx], n_wrong)),
            (used, _) => Ok(used),
        }
    }

    fn used(&self, got: f64, value: f64, error: f64) -> f64 {
        if value.is_nan() {
            return if got.is_nan() { 0.0 } else { f64::INFINITY };
        }
        if !got.is_finite() {
            return f64::INFINITY;
        }
        if self.exactness == Exactness::Bitwise {
            // Both are exact in f64, so that this compares bits, the sign of zero included.
            return if got.to_bits() == value.to_bits() { 0.0 } else { f64::INFINITY };
        }
        let off = (got - value).abs();
        if off == 0.0 { 0.0 } else { off / error }
    }

    fn mismatch(&self, idx: usize, got: f64, n_wrong: usize) -> Mismatch {
        let cols = self.cols as usize;
        let (want, error) = match self.wants[idx] {
            Want::Untouched => (None, 0.0),
            Want::Value { value, error } => (Some(value), error),
        };
        Mismatch { row: idx / cols, col: idx % cols, got, want, error, n_wrong }
    }
}
