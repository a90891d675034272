//! The resolved model: what a spec means once every default is filled in, every name looked up and every
//! stack expanded. Nothing in here refers back to the text.
//!
//! A [`Model`] that came from the frontend is consistent (heads divide, one decision per row and
//! block, settings only where the router takes them). What it asks for may still be more than a later stage
//! can do; that stage refuses by name.

use serde::Serialize;

use super::node::{Block, Part};
use super::skip::{Generate, Skip};
use super::stack::Stack;
use crate::frontend::layer::{Layer, Mask};
use crate::frontend::stream::{Head, Stream};

/// A transformer: embedding of tokens or patches, blocks in order, final norm, head of tokens or of sequences; or a part of
/// one, from rows to rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Model {
    /// For readers; no meaning.
    pub name: String,
    /// Its residual stream and the two ends of it.
    #[serde(flatten)]
    pub stream: Stream,
    /// Stacks expanded, in the order in which they run.
    pub blocks: Vec<Block>,
    /// How they repeat: all stacks, whose blocks are those of the model, if one of them shares weights or decides; else none,
    /// because where a stack ends means nothing then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stacks: Vec<Stack>,
}

impl Model {
    /// Whether no decision or value of a token depends on later tokens, so that the model can generate.
    pub fn is_causal(&self) -> bool {
        let sees_later = |skip: &Skip| skip.top_k().is_some() || skip.fills_by_score() || skip.is_pooled();
        !self.looks_ahead() && !self.skips().any(sees_later)
    }

    /// Whether the model can generate: it has a head, and is causal or names the causal replacement of all that is not.
    pub fn can_generate(&self) -> bool {
        self.stream.head == Head::Tokens
            && !self.looks_ahead()
            && !self.skips().any(|skip| {
                let is_of_whole = skip.is_pooled() && !skip.keeps_prompts();
                skip.fills_by_score() || is_of_whole || skip.top_k() == Some(Generate::Refuse)
            })
    }

    /// Whether it generates by going on with sequences alone: of a sequence that is run again, nothing says where its prompt
    /// ended.
    pub fn keeps_prompts(&self) -> bool {
        self.skips().any(Skip::keeps_prompts)
    }

    /// Whether the layers themselves, or the head, look at later tokens, whatever routers decide.
    pub fn looks_ahead(&self) -> bool {
        let sees_later = |layer: &Layer| {
            matches!(layer, Layer::Attention(of) if of.mask == Mask::Full) || layer.looks_ahead().is_some()
        };
        self.stream.head == Head::Pooled || self.layers().any(sees_later)
    }

    /// All layers, those of other branches among them.
    pub fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.blocks.iter().flat_map(Block::parts).filter_map(|part| match part {
            Part::Layer(_, _, layer) => Some(&layer.layer),
            Part::Route(..) => None,
        })
    }

    /// All skips, in the order of the routers.
    pub fn skips(&self) -> impl Iterator<Item = &Skip> {
        self.routers().into_iter().map(|(_, skip)| skip)
    }
}
