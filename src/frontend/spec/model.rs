//! The resolved model: what a spec means once every default is filled in, every name looked up and every
//! stack expanded. Nothing in here refers back to the text.
//!
//! A [`Model`] that came from the frontend is consistent (heads divide, one decision per row and
//! block, settings only where the router takes them). What it asks for may still be more than a later stage
//! can do; that stage refuses by name.
//!
//! The words of the choices are in `words.rs`, which also serialises them.

use serde::Serialize;

use super::node::Block;
use super::skip::{Generate, Skip};

/// A decoder-only language model: embedding, blocks in order, final norm, head.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Model {
    /// For readers; no meaning.
    pub name: String,
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
    /// Stacks expanded, in the order in which they run.
    pub blocks: Vec<Block>,
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

impl Model {
    /// Whether no decision or value of a token depends on later tokens, so that the model can generate.
    pub fn is_causal(&self) -> bool {
        !self.skips().any(|skip| skip.top_k().is_some() || skip.fills_by_score())
    }

    /// Whether the model can generate: it is causal, or names the causal replacement of all that is not.
    pub fn can_generate(&self) -> bool {
        !self.skips().any(|skip| skip.fills_by_score() || skip.top_k() == Some(Generate::Refuse))
    }

    /// All skips, in the order of the routers.
    pub fn skips(&self) -> impl Iterator<Item = &Skip> {
        self.blocks.iter().flat_map(Block::skips)
    }
}
