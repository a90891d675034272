//! Routing traces: the decisions of a run, or made ones, with where they come from, to be replayed on any device.
//!
//! # File
//!
//! A safetensors file, which Python reads as it is:
//!
//! | array | holds |
//! | --- | --- |
//! | `lengths` | `u32 [sequences]`: length of each sequence; n is their sum |
//! | `choices` | `u32 [layers]`: how many choices each layer of experts has, in the order in which they run; not there if there is none |
//! | `choices.N` | `u8 [⌈n · choices / 8⌉]`: which choices tokens got in layer N, bits as for `gate.N`, those of a row one after the other |
//! | `gate.N` | `u8 [⌈n / 8⌉]`: decisions of router N, in model order; bit `i % 8` of byte `i / 8` is row `i` of the batch, all sequences one after the other; 1 executes; bits behind the last row are 0 |
//!
//! `__metadata__` has one entry, `skipc.trace`, the [`Provenance`] in JSON. No time, machine or path is in it: same
//! decisions of the same source, same bytes.

mod file;
pub(crate) mod format;
mod generate;

use serde::{Deserialize, Serialize};
use skipc_artifact::manifest::Manifest;
use skipc_artifact::program::Program;
use skipc_artifact::section::ContentHash;
use skipc_artifact::target::{DType, Target};

use crate::batch::Batch;
use crate::choices::Choices;
use crate::error::Error;

pub(crate) use file::FILE_LIMIT;
pub use format::FORMAT;
pub use generate::{Decider, Recipe, deciders};

/// How file names of traces end.
pub const EXTENSION: &str = "trace";

/// Decisions of all routers about all tokens of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Where they come from.
    pub provenance: Provenance,
    /// Length of each sequence.
    pub lengths: Vec<u32>,
    /// `[routers][n]` of 0 and 1, in model order.
    pub gates: Vec<Vec<u8>>,
    /// Which choices tokens got in each layer of experts, in the order in which they run; none of made decisions.
    pub choices: Vec<Choices>,
}

/// Where decisions come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// [`FORMAT`].
    pub format: u32,
    /// Version of skipc that wrote the file.
    pub skipc: String,
    /// The model's name.
    pub model: String,
    /// Hash of the resolved spec, as in an artefact's manifest.
    pub spec_hash: ContentHash,
    /// How the decisions were made.
    pub source: DecisionSource,
}

/// How decisions were made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecisionSource {
    /// By the routers in a run.
    Recorded(Recorded),
    /// By [`Trace::generated`].
    Generated(Recipe),
}

/// A run whose decisions were recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// Hash of the weights, as in an artefact's manifest.
    pub weights_hash: ContentHash,
    /// Hash of the token ids, or of the numbers in their place, each as four bytes, the lowest first, all sequences one after the
    /// other.
    pub tokens_hash: ContentHash,
    /// What the code was made for.
    pub target: Target,
    /// Precision of the layers.
    pub dtype: DType,
    /// Hash of the file whose decisions the run replayed; none if its routers decided.
    pub replayed: Option<ContentHash>,
    /// Hash of the file whose choices of experts the run replayed; none if tokens chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed_experts: Option<ContentHash>,
}

impl Trace {
    /// The decisions of a run, and the choices of its experts. `replayed` are the hashes of the files that they were taken from, if
    /// they were.
    #[must_use]
    pub fn recorded(
        (manifest, program): (&Manifest, &Program),
        batch: &Batch,
        (gates, choices): (Vec<Vec<u8>>, Vec<Choices>),
        [replayed, replayed_experts]: [Option<ContentHash>; 2],
    ) -> Self {
        let ids = batch.tokens.iter().flat_map(|token| token.to_le_bytes());
        let tokens: Vec<u8> = ids.chain(batch.rows.iter().flat_map(|number| number.to_le_bytes())).collect();
        let source = DecisionSource::Recorded(Recorded {
            weights_hash: manifest.weights_hash,
            tokens_hash: ContentHash::of(&tokens),
            target: program.target.clone(),
            dtype: program.dtype,
            replayed,
            replayed_experts,
        });
        let provenance = Provenance::of(&manifest.model, manifest.spec_hash, source);
        Self { provenance, lengths: batch.lengths.clone(), gates, choices }
    }

    /// Decisions drawn as the recipe says, for routers that decide as `deciders` say; see [`Recipe`].
    ///
    /// # Errors
    ///
    /// [`Error::Recipe`]: a recipe that does not fit the routers, or more tokens than are sensible.
    pub fn generated(
        (model, spec_hash): (&str, ContentHash),
        deciders: &[Decider],
        lengths: Vec<u32>,
        recipe: Recipe,
    ) -> Result<Self, Error> {
        let gates = generate::gates(deciders, &lengths, &recipe)?;
        let provenance = Provenance::of(model, spec_hash, DecisionSource::Generated(recipe));
        Ok(Self { provenance, lengths, gates, choices: Vec::new() })
    }

    /// How many tokens there are.
    #[must_use]
    pub fn n_tokens(&self) -> u64 {
        self.lengths.iter().map(|&length| u64::from(length)).sum()
    }
}

impl Provenance {
    fn of(model: &str, spec_hash: ContentHash, source: DecisionSource) -> Self {
        let skipc = env!("CARGO_PKG_VERSION").to_owned();
        Self { format: FORMAT, skipc, model: model.to_owned(), spec_hash, source }
    }
}
