//! Kernel cases as files, for a harness on another machine.
//!
//! A directory with two files. `index.json` is an [`Index`]: kernels, and for each case the parts of `data.bin` that
//! hold its operands and what is expected of them. Numbers in `data.bin` are little-endian, parts begin at multiples
//! of [`ALIGN`]. An expected output has one f64 value and one f64 allowance for each element: the distance from the
//! value must be at most the allowance; with allowance 0 the bits must be those of the value; with a negative one the
//! element must have the bits of the operand. NaN and infinities are wrong. Parameters without an expected output must
//! keep all their bytes. Cases that say `exact` have one possible result, to the bit ([`crate::exact`]), whatever their
//! allowances.
//!
//! Numbers have few significant bits, so that the files compress: what an allowance does not resolve of a value is left
//! out. An allowance grows by what its value lost, and by less than 2 % in all; no result that the case allows is wrong.

use std::io::{self, Write};
use std::path::Path;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use skipc_plan::kernel::Kernel;

use crate::kernel_cases::Case;
use crate::tolerance::{Exactness, Want};

/// Alignment of parts of `data.bin` in bytes: that of constants in an artefact.
pub const ALIGN: u64 = 256;

/// Format of `index.json` and `data.bin`; raised with each change.
pub const VERSION: u32 = 3;

/// All kernels and cases of a directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// [`VERSION`].
    pub version: u32,
    /// Each kernel once.
    pub kernels: Vec<NamedKernel>,
    /// The cases.
    pub cases: Vec<Entry>,
}

/// A kernel and its symbol in generated code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedKernel {
    /// Unique, `[a-z0-9_]+`.
    pub symbol: String,
    /// The kernel.
    pub kernel: Kernel,
}

/// One case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Index of its kernel.
    pub kernel: u32,
    /// Whether all devices have to leave the same bits.
    pub exact: bool,
    /// Upper bound of the kernel's rows under the buffers of this case, as a runtime would launch it.
    pub max_rows: u32,
    /// One for each parameter.
    pub operands: Vec<Part>,
    /// One for each parameter that the kernel writes.
    pub expected: Vec<Output>,
}

/// Bytes of `data.bin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Where they begin.
    pub offset: u64,
    /// How many they are.
    pub bytes: u64,
}

/// What an output should be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Index of the parameter.
    pub param: u32,
    /// How the allowance came about.
    pub exactness: Exactness,
    /// f64 values.
    pub values: Part,
    /// f64 allowances.
    pub allowances: Part,
}

/// Each kernel of the cases once, and for each case which.
pub fn kernels(cases: &[Case]) -> (Vec<NamedKernel>, Vec<u32>) {
    let mut indices: IndexMap<&Kernel, u32> = IndexMap::new();
    let mut of_case = Vec::with_capacity(cases.len());
    for case in cases {
        let next = indices.len() as u32;
        of_case.push(*indices.entry(&case.kernel).or_insert(next));
    }
    let named = |(kernel, idx): (&&Kernel, &u32)| NamedKernel {
        symbol: format!("{}_{idx}", kernel.describe()),
        kernel: (*kernel).clone(),
    };
    (indices.iter().map(named).collect(), of_case)
}

/// Writes cases to a directory, which is made if it is not there.
///
/// # Errors
/// Of the file system.
pub fn write(cases: &[Case], dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut data = Data { file: io::BufWriter::new(std::fs::File::create(dir.join("data.bin"))?), end: 0 };
    let (kernels, of_case) = kernels(cases);
    let mut entries = Vec::with_capacity(cases.len());
    for (case, kernel) in cases.iter().zip(of_case) {
        let operands = case.operands.iter().map(|operand| data.push(operand)).collect::<io::Result<_>>()?;
        let mut expected = Vec::with_capacity(case.expected.len());
        for output in &case.expected {
            let numbers = output.wants.iter().map(|want| as_numbers(want, case.is_exact()));
            let (values, allowances): (Vec<f64>, Vec<f64>) = numbers.unzip();
            expected.push(Output {
                param: output.param,
                exactness: output.exactness,
                values: data.push_numbers(&values)?,
                allowances: data.push_numbers(&allowances)?,
            });
        }
        let (name, exact, max_rows) = (case.name.clone(), case.is_exact(), case.max_rows());
        entries.push(Entry { name, kernel, exact, max_rows, operands, expected });
    }
    data.file.flush()?;
    let index = Index { version: VERSION, kernels, cases: entries };
    std::fs::write(dir.join("index.json"), serde_json::to_vec(&index)?)
}

/// Significant bits of an allowance, and bits of a value below those that its allowance resolves.
const EXTRA_BITS: u32 = 7;

/// Bits of the mantissa of an f64.
const MANTISSA: u32 = f64::MANTISSA_DIGITS - 1;

fn as_numbers(want: &Want, is_exact: bool) -> (f64, f64) {
    match *want {
        Want::Untouched => (0.0, -1.0),
        Want::Value { value, error } if error == 0.0 || !value.is_finite() => (value, error),
        // The one possible result is this value, rounded once.
        Want::Value { value, error } if is_exact => (value, round_up(error)),
        Want::Value { value, error } => {
            let kept = shorten(value, error / f64::from(1_u32 << EXTRA_BITS));
            (kept, round_up(error + (value - kept).abs()))
        }
    }
}

/// The value without bits that count for less than `step`.
fn shorten(value: f64, step: f64) -> f64 {
    if value.abs() < step {
        return 0.0;
    }
    let resolved = libm::ilogb(value) - libm::ilogb(step);
    let dropped = MANTISSA.saturating_sub(resolved.unsigned_abs());
    f64::from_bits(value.to_bits() >> dropped << dropped)
}

/// The next number with [`EXTRA_BITS`] bits of mantissa that is not below a positive one.
fn round_up(number: f64) -> f64 {
    let dropped = (1 << (MANTISSA - EXTRA_BITS)) - 1;
    f64::from_bits((number.to_bits() + dropped) & !dropped)
}

struct Data {
    file: io::BufWriter<std::fs::File>,
    end: u64,
}

impl Data {
    fn push(&mut self, bytes: &[u8]) -> io::Result<Part> {
        let offset = self.end.next_multiple_of(ALIGN);
        self.file.write_all(&vec![0; (offset - self.end) as usize])?;
        self.file.write_all(bytes)?;
        self.end = offset + bytes.len() as u64;
        Ok(Part { offset, bytes: bytes.len() as u64 })
    }

    fn push_numbers(&mut self, numbers: &[f64]) -> io::Result<Part> {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.push(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_numbers_allow_what_the_long_ones_do_and_little_more() {
        for value in [0.0, 1.0, -2.345_678_9, 1e-30, 7.2e8, f64::from(f32::MAX)] {
            for error in [1e-40, 1.2345e-7, 0.33, 1e9] {
                let (kept, allowed) = as_numbers(&Want::Value { value, error }, false);
                let moved = (value - kept).abs();
                assert!(allowed >= error + moved, "{value} ± {error}: {kept} ± {allowed}");
                assert!(allowed + moved <= error * 1.03, "{value} ± {error}: {kept} ± {allowed}");
                assert!(allowed.to_bits().trailing_zeros() >= MANTISSA - EXTRA_BITS);
            }
        }
        // What is 2⁻²⁰ of a number takes 20 bits of it, and a few.
        let (kept, _) = as_numbers(&Want::Value { value: std::f64::consts::PI, error: 3e-6 }, false);
        assert!(kept.to_bits().trailing_zeros() >= MANTISSA - 30, "{kept:e}");
    }

    #[test]
    fn values_that_have_to_be_met_stay_as_they_are() {
        let value = std::f64::consts::PI;
        assert_eq!(as_numbers(&Want::Value { value, error: 0.0 }, false), (value, 0.0));
        assert_eq!(as_numbers(&Want::Value { value, error: 1.5 }, true), (value, 1.5));
        assert!(as_numbers(&Want::Value { value: f64::NAN, error: 1.0 }, false).0.is_nan());
        assert_eq!(as_numbers(&Want::Untouched, false), (0.0, -1.0));
    }
}
