//! The residual stream of a model and its two ends, embedding and head: what every layer is built around.

use serde::Serialize;

use skipc_artifact::program;
pub use skipc_artifact::program::Pool;
use skipc_ir::RopeScaling;

use super::language::words::{Word, words};

/// What a spec's table `[model]` says, but for the name.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Stream {
    /// What the stream begins with.
    #[serde(skip_serializing_if = "StreamInput::is_default")]
    pub input: StreamInput,
    /// Of a model that takes patches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patches: Option<Patches>,
    /// Rows of the embedding; 0 of a model that takes no ids.
    pub vocab_size: usize,
    /// Width D of the residual stream.
    pub d_model: usize,
    /// Longest sequence, and rows of the position table if positions are learned.
    pub max_positions: usize,
    /// The one kind of norm, used around every sub-layer and before the head.
    pub norm: Norm,
    /// How positions enter.
    pub positions: Positions,
    /// The norm `norm.…` stands behind the last block.
    #[serde(skip_serializing_if = "is_true")]
    pub final_norm: bool,
    /// What is made of the stream.
    #[serde(skip_serializing_if = "Head::is_default")]
    pub head: Head,
    /// What is scored, if it is the sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pooled: Option<Pooled>,
    /// The head uses the embedding's weights; otherwise `lm_head.weight` exists.
    pub tie_embeddings: bool,
    /// What the embedding is multiplied with, before positions are added.
    pub embed_scale: f64,
    /// The head has a bias, `lm_head.bias`, also if it is tied; `head.bias` where it scores the sequence.
    pub head_bias: bool,
    /// The bound `c` of logits that become `c · tanh(logit / c)`, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logit_softcap: Option<f64>,
}

impl Stream {
    /// Columns of what the model gives: scores over the vocabulary or of classes, or the stream.
    pub fn n_logits(&self) -> usize {
        match self.output() {
            program::Head::Tokens => self.vocab_size,
            program::Head::Rows => self.d_model,
            program::Head::Pooled(_) => self.pooled.map_or(0, |pooled| pooled.classes),
        }
    }

    /// Columns of the rows that it takes in place of token ids, if it does.
    pub fn row_columns(&self) -> Option<usize> {
        match self.input {
            StreamInput::Tokens => None,
            StreamInput::Rows => Some(self.d_model),
            StreamInput::Patches => self.patches.map(|patches| patches.dim),
        }
    }

    /// Tokens of a step at most, unless somebody asks for others: the longest sequence, or 16 of them for a model that scores
    /// whole sequences, which come in batches.
    pub fn usual_step(&self) -> usize {
        match self.head {
            Head::Tokens | Head::Rows => self.max_positions,
            Head::Pooled => self.max_positions.saturating_mul(16),
        }
    }

    /// Whether a class token stands in front of each sequence.
    pub fn has_class_token(&self) -> bool {
        self.patches.is_some_and(|patches| patches.class_token)
    }

    /// What it gives, as an artefact says it.
    pub fn output(&self) -> program::Head {
        match (self.head, self.pooled) {
            (Head::Tokens, _) => program::Head::Tokens,
            (Head::Pooled, Some(pooled)) => program::Head::Pooled(pooled.pool),
            (Head::Rows | Head::Pooled, _) => program::Head::Rows,
        }
    }
}

/// What the stream of a model begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamInput {
    /// The rows of an embedding, by token ids.
    #[default]
    Tokens,
    /// Rows `[n, D]` of numbers that the caller gives: a part of a model, or one layer alone.
    Rows,
    /// Patches of images, `[n, patch_dim]`, of which a projection makes rows.
    Patches,
}

/// What a model takes in place of token ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Patches {
    /// Numbers of a patch.
    pub dim: usize,
    /// A learned row stands in front of each sequence, at position 0.
    pub class_token: bool,
}

/// How a sequence is scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pooled {
    /// What of it.
    pub pool: Pool,
    /// How many scores it gets.
    pub classes: usize,
}

/// What a model makes of its stream at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Head {
    /// Scores over the vocabulary.
    #[default]
    Tokens,
    /// Nothing: the caller gets its rows `[n, D]`.
    Rows,
    /// Scores of each sequence, `[B, classes]`.
    Pooled,
}

impl StreamInput {
    fn is_default(&self) -> bool {
        *self == StreamInput::default()
    }
}

impl Head {
    fn is_default(&self) -> bool {
        *self == Head::default()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
fn is_true(flag: &bool) -> bool {
    *flag
}

/// Norm over the last dimension.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Norm {
    /// Which norm.
    pub kind: NormKind,
    /// Added to the mean square (or variance) before the square root; greater than 0.
    pub eps: f64,
    /// What is added to every gain, in f32 (Gemma stores gains less 1).
    pub offset: f64,
}

/// Kinds of norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// `x · rsqrt(mean(x²) + eps) · weight`.
    RmsNorm,
    /// `(x − mean) · rsqrt(var + eps) · weight + bias`.
    LayerNorm,
}

/// How positions enter the model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Positions {
    /// Half-split rotation of queries and keys, an even number of columns of each head.
    Rope(Rope),
    /// A table `[max_positions, D]` added to the embedding.
    Learned,
    /// Not at all.
    None,
}

/// Frequencies of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// How a longer context changes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaling: Option<RopeScaling>,
}

/// Kinds of positions, without their settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PositionKind {
    Rope,
    Learned,
    None,
}

words! {
    StreamInput { Tokens = "tokens", Rows = "rows", Patches = "patches" }
    Head { Tokens = "tokens", Rows = "rows", Pooled = "pooled" }
    NormKind { RmsNorm = "rmsnorm", LayerNorm = "layernorm" }
    PositionKind { Rope = "rope", Learned = "learned", None = "none" }
}

impl Word for Pool {
    const WORDS: &'static [(&'static str, Pool)] =
        &[("mean", Pool::Mean), ("first", Pool::First), ("last", Pool::Last)];
}
