//! The residual stream of a model and its two ends, embedding and head: what every layer is built around.

use serde::Serialize;

use super::language::words::words;

/// What a spec's table `[model]` says, but for the name.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Stream {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width D of the residual stream.
    pub d_model: usize,
    /// Longest sequence, and rows of the position table if positions are learned.
    pub max_positions: usize,
    /// The one kind of norm, used before every sub-layer and before the head.
    pub norm: Norm,
    /// How positions enter.
    pub positions: Positions,
    /// The head uses the embedding's weights; otherwise `lm_head.weight` exists.
    pub tie_embeddings: bool,
}

/// Norm over the last dimension.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Norm {
    /// Which norm.
    pub kind: NormKind,
    /// Added to the mean square (or variance) before the square root; greater than 0.
    pub eps: f64,
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
    /// Half-split rotation of queries and keys; every `head_dim` is even.
    Rope {
        /// Base of the frequencies.
        theta: f64,
    },
    /// A table `[max_positions, D]` added to the embedding.
    Learned,
    /// Not at all.
    None,
}

/// Kinds of positions, without their settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PositionKind {
    Rope,
    Learned,
    None,
}

words! {
    NormKind { RmsNorm = "rmsnorm", LayerNorm = "layernorm" }
    PositionKind { Rope = "rope", Learned = "learned", None = "none" }
}
