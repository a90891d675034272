//! The plan: what every backend compiles and the runtime runs.

use serde::{Deserialize, Serialize};
use skipc_artifact::program::{Constant, Layout};
use skipc_artifact::target::DType;

use crate::kernel::Kernel;
use crate::pointwise::Real;

/// What the compile chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Type of activations, of matmul weights and of embedding tables: [`DType::F32`] or [`DType::Bf16`].
    pub dtype: DType,
    /// Largest number of tokens of a step.
    pub max_tokens: u32,
    /// Largest length of a sequence; rows of the rotary tables.
    pub max_positions: u32,
    /// Token ids are below this; columns of the logits.
    pub vocab_size: u32,
}

/// Kernels, constants, buffers and steps of one model in one precision; independent of the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Type of activations.
    pub dtype: DType,
    /// Kernels with their symbols, in the order of `Step::kernel`. No two are equal.
    pub kernels: Vec<(String, Kernel)>,
    /// Constants, in the order of `Arg::Constant`.
    pub constants: Vec<PlanConstant>,
    /// Buffers and steps.
    pub layout: Layout,
    /// What each step computes, in the order of the steps, for people.
    pub sources: Vec<StepSource>,
}

/// A constant and where its elements come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanConstant {
    /// Where from.
    pub source: ConstantSource,
    /// Name, type, shape, place.
    pub constant: Constant,
}

/// Where the elements of a constant come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ConstantSource {
    /// Zeros, such as the switch that would replay decisions of a router without a gate.
    Zero,
    /// A tensor of the weights file, rounded to the constant's type.
    Weight {
        /// Its name.
        name: String,
    },
    /// `cos` of [`skipc_ir::rope_angle`], `[positions, half]`.
    RopeCos {
        /// Base of the frequencies.
        theta: Real,
        /// Half the columns of a head.
        half: u32,
        /// Rows.
        positions: u32,
    },
    /// `sin` of [`skipc_ir::rope_angle`], `[positions, half]`.
    RopeSin {
        /// Base of the frequencies.
        theta: Real,
        /// Half the columns of a head.
        half: u32,
        /// Rows.
        positions: u32,
    },
}

/// Which values of the graph a step computes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepSource {
    /// The nodes as the text form of the graph prints them, operands before users.
    pub nodes: Vec<String>,
}

impl Plan {
    /// Bytes of all constants together.
    pub fn constant_bytes(&self) -> u64 {
        let ends = self.constants.iter().map(|constant| &constant.constant);
        ends.map(|constant| constant.offset.saturating_add(constant.bytes())).max().unwrap_or(0)
    }
}
