//! Host code as the runtime maps it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::program::{Entry, Program};

/// The instruction set of host code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostArch {
    /// 64-bit x86, System V calling convention.
    X86_64,
    /// 64-bit Arm, AAPCS64 calling convention.
    Aarch64,
}

impl HostArch {
    /// The instruction set that this very code was compiled for; `None` if it is one that is never generated.
    #[must_use]
    pub fn of_this_process() -> Option<Self> {
        if cfg!(all(target_arch = "x86_64", target_os = "linux")) {
            Some(Self::X86_64)
        } else if cfg!(all(target_arch = "aarch64", target_os = "linux")) {
            Some(Self::Aarch64)
        } else {
            None
        }
    }
}

/// Which extensions of its instruction set host code uses. Higher levels include lower ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostLevel {
    /// None: any processor of the architecture runs it.
    Baseline,
    /// AVX2, FMA, F16C, BMI1 and BMI2 (`x86-64-v3`).
    Avx2,
    /// AVX-512 F, BW, CD, DQ and VL besides (`x86-64-v4`).
    Avx512,
    /// Dot products of bf16 (AVX-512 BF16) besides.
    #[serde(rename = "avx512-bf16")]
    Avx512Bf16,
}

impl HostLevel {
    /// All levels, highest first: the order in which a runtime tries them.
    pub const DESCENDING: [HostLevel; 4] =
        [HostLevel::Avx512Bf16, HostLevel::Avx512, HostLevel::Avx2, HostLevel::Baseline];

    /// Its name, in the sections of an artefact and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            HostLevel::Baseline => "baseline",
            HostLevel::Avx2 => "avx2",
            HostLevel::Avx512 => "avx512",
            HostLevel::Avx512Bf16 => "avx512-bf16",
        }
    }
}

/// A position-independent piece of host code: it runs at any address that is a multiple of 4096, needs no
/// relocation and refers to nothing outside of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostImage {
    /// Instructions and read-only data, mapped together for reading and execution.
    pub code: Vec<u8>,
    /// The functions in it.
    pub table: HostTable,
}

/// What is where in a host image; the part of it that is stored beside the code, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostTable {
    /// Instruction set of the code.
    pub arch: HostArch,
    /// Which extensions of it the code uses.
    pub level: HostLevel,
    /// Functions, in order of their offsets.
    pub entries: Vec<HostEntry>,
}

/// A function of a host image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostEntry {
    /// The symbol's name.
    pub name: String,
    /// Where its first instruction is, in bytes from the start of the image.
    pub offset: u64,
}

impl HostTable {
    /// Checks that every entry lies in an image of `size` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Entry`] with the first that does not.
    pub fn check(&self, size: usize) -> Result<(), Error> {
        let size = size as u64;
        match self.entries.iter().find(|entry| entry.offset >= size) {
            Some(HostEntry { name, offset }) => {
                Err(Error::Entry { entry: name.clone(), offset: *offset, size })
            }
            None => Ok(()),
        }
    }

    /// Where the first instruction of each kernel of `program` is, in the order of its entries.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] with the first kernel that is missing.
    pub fn offsets(&self, program: &Program) -> Result<Vec<u64>, Error> {
        let known: BTreeMap<&str, u64> =
            self.entries.iter().map(|entry| (entry.name.as_str(), entry.offset)).collect();
        let offset = |Entry { symbol, .. }: &Entry| {
            let missing = || Error::Program { reason: format!("its code has no entry `{symbol}`") };
            known.get(symbol.as_str()).copied().ok_or_else(missing)
        };
        program.entries.iter().map(offset).collect()
    }
}
