//! Kernel cases as files, for a harness on another machine.
//!
//! A directory with two files. `index.json` is an [`Index`]: kernels, and for each case the parts of `data.bin` that
//! hold its operands and what is expected of them. Numbers in `data.bin` are little-endian, parts begin at multiples
//! of [`ALIGN`]. An expected output has one f64 value and one f64 allowance for each element: the distance from the
//! value must be at most the allowance; with allowance 0 the bits must be those of the value; with a negative one the
//! element must have the bits of the operand. NaN and infinities are wrong. Parameters without an expected output must
//! keep all their bytes. Cases that say `exact` have one possible result, to the bit ([`crate::exact`]), whatever their
//! allowances.

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
            let (values, allowances): (Vec<f64>, Vec<f64>) = output.wants.iter().map(as_numbers).unzip();
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

fn as_numbers(want: &Want) -> (f64, f64) {
    match *want {
        Want::Untouched => (0.0, -1.0),
        Want::Value { value, error } => (value, error),
    }
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
