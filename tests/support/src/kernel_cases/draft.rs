//! A case in the making: parameters with their bytes, drawn from the case's own name.

use skipc_artifact::program::Extent;
use skipc_artifact::target::DType;
use skipc_plan::interp::poison;
use skipc_plan::kernel::{Access, Body, Kernel, Param, Rows, Slot, View};

use super::Case;
use crate::reference::expected;
use crate::tolerance::Exactness;

/// What the elements of an operand are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Values {
    /// Small integers without zero, so that sums are exact in f32 and no sum is −0.
    Integers,
    /// Uniform in `−size .. size`.
    Within(f64),
}

/// Which rows of a buffer make a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Set {
    None,
    /// The one in the middle.
    One,
    All,
    Alternating,
    /// Each with probability 1/4.
    Quarter,
}

impl Set {
    pub(super) const ALL: [Set; 5] = [Set::None, Set::One, Set::All, Set::Alternating, Set::Quarter];

    pub(super) fn name(self) -> &'static str {
        match self {
            Set::None => "none",
            Set::One => "one",
            Set::All => "all",
            Set::Alternating => "alternating",
            Set::Quarter => "quarter",
        }
    }

    /// The set's rows among `n`.
    pub(super) fn rows(self, n: u32, draft: &mut Draft) -> Vec<u32> {
        let mut within = |row: &u32| match self {
            Set::None => false,
            Set::One => *row == n / 2,
            Set::All => true,
            Set::Alternating => row % 2 == 1,
            Set::Quarter => draft.next().is_multiple_of(4),
        };
        (0..n).filter(|row| within(row)).collect()
    }
}

/// What results are before the run.
const UNTOUCHED: u8 = 0xDB;

pub(super) struct Draft {
    name: String,
    state: u64,
    params: Vec<Param>,
    operands: Vec<Vec<u8>>,
}

impl Draft {
    pub(super) fn new(name: String) -> Draft {
        // FNV-1a of the name: another case has other numbers, and the same case always the same.
        let hash = |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        let state = name.bytes().fold(0xCBF2_9CE4_8422_2325, hash);
        Draft { name, state, params: Vec::new(), operands: Vec::new() }
    }

    /// Gives the case another name, but no other numbers.
    pub(super) fn rename(&mut self, name: String) {
        self.name = name;
    }

    /// The next random number (SplitMix64).
    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn value(&mut self, values: Values) -> f64 {
        match values {
            Values::Integers => {
                let magnitude = (self.next() >> 32) % 3 + 1;
                if self.next() >> 63 == 0 { magnitude as f64 } else { -(magnitude as f64) }
            }
            Values::Within(size) => ((self.next() >> 11) as f64 / (1_u64 << 52) as f64 - 1.0) * size,
        }
    }

    pub(super) fn random(&mut self, n: usize, values: Values) -> Vec<f64> {
        (0..n).map(|_| self.value(values)).collect()
    }

    fn param(&mut self, name: &str, (dtype, cols): (DType, u32), access: Access, bytes: Vec<u8>) -> Slot {
        let slot = Slot(self.params.len() as u32);
        self.params.push(Param { name: name.to_owned(), dtype, cols, access });
        self.operands.push(bytes);
        slot
    }

    /// A matrix of real numbers; rows past those that `values` fill, up to `bound`, are NaN.
    pub(super) fn matrix(
        &mut self,
        name: &str,
        (dtype, bound, cols): (DType, u32, u32),
        values: &[f64],
    ) -> Slot {
        let mut bytes = encode(dtype, values);
        pad(dtype, &mut bytes, bound as usize * cols as usize);
        self.param(name, (dtype, cols), Access::Read, bytes)
    }

    /// A matrix of `live` random rows.
    pub(super) fn reals(&mut self, name: &str, shape: (DType, u32, u32), live: u32, values: Values) -> Slot {
        let values = self.random(live as usize * shape.2 as usize, values);
        self.matrix(name, shape, &values)
    }

    /// Makes 0 of the elements of a matrix that hold nothing.
    pub(super) fn keep_where(&mut self, slot: Slot, holds: &[bool]) {
        let size = self.params[slot.0 as usize].dtype.size() as usize;
        let elements = self.operands[slot.0 as usize].chunks_exact_mut(size);
        elements.zip(holds).filter(|(_, holds)| !**holds).for_each(|(element, _)| element.fill(0));
    }

    /// A matrix that is read and written, with `live` random rows.
    pub(super) fn updated(
        &mut self,
        name: &str,
        shape: (DType, u32, u32),
        live: u32,
        values: Values,
    ) -> Slot {
        let slot = self.reals(name, shape, live, values);
        self.params[slot.0 as usize].access = Access::ReadWrite;
        slot
    }

    /// A column of integers; rows past them, up to `bound`, are large.
    pub(super) fn column(&mut self, name: &str, bound: u32, values: &[u32]) -> Slot {
        let mut bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        pad(DType::U32, &mut bytes, bound as usize);
        self.param(name, (DType::U32, 1), Access::Read, bytes)
    }

    /// A matrix of integers without rows that hold nothing.
    pub(super) fn words(&mut self, name: &str, cols: u32, values: &[u32]) -> Slot {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.param(name, (DType::U32, cols), Access::Read, bytes)
    }

    /// A cache of real numbers; rows that hold nothing are NaN.
    pub(super) fn cache(
        &mut self,
        name: &str,
        (dtype, cols): (DType, u32),
        holds: &[bool],
        values: Values,
    ) -> Slot {
        let mut row = |holds: &bool| match holds {
            true => self.random(cols as usize, values),
            false => vec![f64::NAN; cols as usize],
        };
        let numbers: Vec<f64> = holds.iter().flat_map(&mut row).collect();
        self.matrix(name, (dtype, holds.len() as u32, cols), &numbers)
    }

    /// A matrix of real numbers that is read and written.
    pub(super) fn updated_matrix(&mut self, name: &str, shape: (DType, u32, u32), values: &[f64]) -> Slot {
        let slot = self.matrix(name, shape, values);
        self.params[slot.0 as usize].access = Access::ReadWrite;
        slot
    }

    /// A column of decisions; rows past them, up to `bound`, are neither 0 nor 1.
    pub(super) fn decisions(&mut self, name: &str, bound: u32, values: &[u8]) -> Slot {
        let mut bytes = values.to_vec();
        pad(DType::U8, &mut bytes, bound as usize);
        self.param(name, (DType::U8, 1), Access::Read, bytes)
    }

    /// A result: in every byte the same, which is no number that arithmetic on the operands' NaNs could give.
    pub(super) fn output(&mut self, name: &str, (dtype, rows, cols): (DType, u32, u32)) -> Slot {
        let bytes = vec![UNTOUCHED; rows as usize * cols as usize * dtype.size() as usize];
        self.param(name, (dtype, cols), Access::Write, bytes)
    }

    /// A count of `rows`, as an extent below `bound`.
    pub(super) fn counted(&mut self, rows: u32, bound: u32) -> Extent {
        let name = format!("count_{}", self.params.len());
        let count = self.column(&name, 1, &[rows]).0;
        Extent::Counted { count, at_most: bound }
    }

    pub(super) fn finish(self, extent: Extent, body: Body, exactness: Exactness) -> Case {
        let Draft { name, params, operands, .. } = self;
        let kernel = Kernel { params, extent, body };
        let expected = expected(&kernel, &operands, exactness);
        Case { name, kernel, operands, expected }
    }
}

/// The rows of a dense view, all columns.
pub(super) fn dense(slot: Slot) -> View {
    View { slot, rows: Rows::Dense, col: 0 }
}

/// Rows by a list, all columns.
pub(super) fn listed(slot: Slot, list: Slot) -> View {
    View { slot, rows: Rows::Listed(list), col: 0 }
}

fn encode(dtype: DType, values: &[f64]) -> Vec<u8> {
    match dtype {
        DType::F32 => values.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect(),
        DType::Bf16 => values.iter().flat_map(|value| half::bf16::from_f64(*value).to_le_bytes()).collect(),
        DType::I8 => values.iter().map(|value| (*value as i8).cast_unsigned()).collect(),
        DType::U32 | DType::U8 => panic!("{dtype} holds no real numbers"),
    }
}

/// Lengthens an operand to `n` elements with what stands for "no value".
fn pad(dtype: DType, bytes: &mut Vec<u8>, n: usize) {
    let live = bytes.len();
    bytes.resize(n * dtype.size() as usize, 0);
    poison(dtype, &mut bytes[live..]);
}
