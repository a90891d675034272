//! The plan: what every backend compiles and the runtime runs.

use serde::{Deserialize, Serialize};
use skipc_artifact::program::{Constant, Function, Head, RowBound, State};
use skipc_artifact::target::DType;
use skipc_ir::Frequencies;

use crate::kernel::{Kernel, WeightLayout};
use crate::recipe::RecipeStep;

/// What the compile chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Type of activations, of matmul weights and of embedding tables: [`DType::F32`] or [`DType::Bf16`].
    pub dtype: DType,
    /// How the weights of matmuls lie, see [`WeightLayout::on`]; in [`WeightLayout::Levels`] they are not of that type. Those of
    /// narrow parts and terms of weights lie in rows anyway.
    pub layout: WeightLayout,
    /// Largest number of tokens of a step.
    pub max_tokens: u32,
    /// Largest length of a sequence; rows of the rotary tables.
    pub max_positions: u32,
    /// Token ids are below this; 0 for a model that takes none.
    pub vocab_size: u32,
    /// What the logits are.
    pub head: Head,
    /// A class token stands in front of each sequence.
    pub class_token: bool,
    /// Columns of the logits.
    pub logits: u32,
}

/// Kernels, constants, states, buffers and steps of one function of a model, in one precision and for one kind of target
/// ([`Options::layout`] is what kinds differ in). [`link`](crate::link()) puts those of one program together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Type of activations.
    pub dtype: DType,
    /// Kernels with their symbols, in the order of `Step::kernel`. No two are equal.
    pub kernels: Vec<(String, Kernel)>,
    /// Constants, in the order of `Arg::Constant`.
    pub constants: Vec<PlanConstant>,
    /// States, in the order of `Storage::State`.
    pub states: Vec<State>,
    /// Buffers, steps, and what the caller gives and gets.
    pub function: Function,
    /// What each step computes, in the order of the steps, human-readable.
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
    /// Made of several tensors of the weights file, then rounded to the constant's type.
    Recipe {
        /// What is done, operands first.
        steps: Vec<RecipeStep>,
    },
    /// `cos` of [`Frequencies::angle`], `[positions, half]`.
    RopeCos {
        /// By how much each pair turns.
        frequencies: Frequencies,
        /// How many pairs of a head turn.
        half: u32,
        /// Rows.
        positions: u32,
    },
    /// What lifts the scores of the first tokens above all others: +∞ for so many positions and 0 for the rest,
    /// `[positions, 1]`.
    Forced {
        /// How many positions are forced.
        first: u32,
        /// Rows.
        positions: u32,
    },
    /// The expert of each token id, as [`skipc_ir::Op::HashChoice`] has it, behind a weight of 1: `[n_ids, 2]`.
    HashChoice {
        /// Of how many.
        experts: u32,
        /// Seed of the layer.
        seed: u64,
        /// Index of the block in the model.
        block: u32,
        /// Rows.
        n_ids: u32,
    },
    /// 1 at position 0, and 0 at all others, `[positions, 1]`.
    Beginning {
        /// Rows.
        positions: u32,
    },
    /// `sin` of [`Frequencies::angle`], `[positions, half]`.
    RopeSin {
        /// By how much each pair turns.
        frequencies: Frequencies,
        /// How many pairs of a head turn.
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
        constant_bytes(&self.constants)
    }

    /// Bytes for each row of the bound that are in use at once, at the worst step: what no layout could go below.
    /// `Function::row_bytes` is what this one takes.
    pub fn peak_row_bytes(&self) -> u64 {
        // How much more or less is in use from each step on.
        let mut changes = vec![0i128; self.function.steps.len() + 1];
        let in_arena = self.function.buffers.iter().filter(|buffer| buffer.place().is_some());
        for buffer in in_arena.filter(|buffer| buffer.rows == RowBound::Tokens) {
            let bytes = i128::from(buffer.cols) * i128::from(buffer.dtype.size());
            let (first, last) = buffer.live.unwrap_or((0, u32::MAX));
            if let Some(change) = changes.get_mut(first as usize) {
                *change += bytes;
            }
            if let Some(change) = changes.get_mut((last as usize).saturating_add(1)) {
                *change -= bytes;
            }
        }
        let in_use = changes.into_iter().scan(0i128, |in_use, change| {
            *in_use += change;
            Some(*in_use)
        });
        u64::try_from(in_use.max().unwrap_or(0)).unwrap_or(u64::MAX)
    }
}

/// Where the last constant ends.
pub(crate) fn constant_bytes(constants: &[PlanConstant]) -> u64 {
    let constants = constants.iter().map(|constant| &constant.constant);
    constants.map(|constant| constant.offset.saturating_add(constant.bytes())).max().unwrap_or(0)
}
