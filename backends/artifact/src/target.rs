//! Names of targets and of element types, as users write them and as artefacts carry them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How one element is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// The upper half of an f32.
    Bf16,
    /// Unsigned 32-bit integer: token ids, positions, sequence indices, row lists, counts.
    U32,
    /// One byte, 0 or 1: a decision.
    U8,
    /// Signed byte: a whole number from −127 to 127, which a scale makes a factor of a weight.
    I8,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> u32 {
        match self {
            DType::F32 | DType::U32 => 4,
            DType::Bf16 => 2,
            DType::U8 | DType::I8 => 1,
        }
    }
}

impl DType {
    /// Its word on the command line and in names of sections.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::Bf16 => "bf16",
            DType::U32 => "u32",
            DType::U8 => "u8",
            DType::I8 => "i8",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What code is made for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Target {
    /// The host's processor.
    Cpu,
    /// An NVIDIA GPU of this architecture, such as `sm_90a`.
    Cuda(String),
}

impl Target {
    /// The word before the colon: targets of one kind take the same plans.
    pub fn kind(&self) -> &'static str {
        match self {
            Target::Cpu => "cpu",
            Target::Cuda(_) => "cuda",
        }
    }
}

/// The text names no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown target `{0}`: write `cpu` or `cuda:` and an architecture, such as `cuda:sm_90a`")]
pub struct BadTarget(pub String);

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Target, BadTarget> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(Target::Cpu),
            Some(("cuda", arch)) if arch.starts_with("sm_") && arch.len() <= 8 => {
                Ok(Target::Cuda(arch.to_owned()))
            }
            _ => Err(BadTarget(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = BadTarget;

    fn try_from(text: String) -> Result<Target, BadTarget> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> String {
        target.to_string()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Cpu => f.write_str("cpu"),
            Target::Cuda(arch) => write!(f, "cuda:{arch}"),
        }
    }
}
