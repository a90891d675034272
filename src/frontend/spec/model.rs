//! The resolved model: what a spec means once every default is filled in, every name looked up and every
//! stack expanded. Nothing in here refers back to the text.
//!
//! A [`Model`] that came from the frontend is consistent (heads divide, one decision per row and
//! block, settings only where the router takes them). What it asks for may still be more than a later stage
//! can do; that stage refuses by name.
//!
//! The words of the choices are in `words.rs`, which also serialises them.

use serde::Serialize;

/// A decoder-only language model: embedding, blocks in order, final norm, head.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Model {
    /// For people; no meaning.
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

/// Sub-layers that run in order, each with its own pre-norm and residual.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Block {
    /// Name in the spec; blocks of one name in one model are equal.
    pub name: String,
    /// One decision over the whole block. Present only if no sub-layer has one.
    pub skip: Option<Skip>,
    /// At least one.
    pub layers: Vec<Layer>,
}

/// One sub-layer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Layer {
    /// What it computes.
    #[serde(flatten)]
    pub kind: LayerKind,
    /// A decision over this sub-layer alone.
    pub skip: Option<Skip>,
}

/// What a sub-layer computes, without norm and residual.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum LayerKind {
    /// Causal self-attention with grouped heads, no biases.
    Attention {
        /// Query heads; a multiple of `kv_heads`.
        heads: usize,
        /// Key and value heads.
        kv_heads: usize,
        /// Width of one head.
        head_dim: usize,
    },
    /// Up (and gate) projection, activation, down projection, no biases.
    Ffn {
        /// Inner width.
        d_ff: usize,
        /// Between the projections.
        activation: Activation,
    },
}

/// Activation of a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `gelu(up)`, tanh form.
    Gelu,
    /// `max(up, 0)`.
    Relu,
    /// `silu(gate) · up`.
    SwiGlu,
    /// `gelu(gate) · up`, tanh form.
    GeGlu,
}

/// When and how a block or sub-layer is skipped. A setting that the router does not take holds its default.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Skip {
    /// Who decides.
    pub router: Router,
    /// Wanted share of executed tokens, in `[0, 1]`. A soft target for learned routers.
    pub density: f64,
    /// What the router reads.
    pub input: Input,
    /// From which stream a sub-layer's decision is taken. `Here` for a block.
    pub decide: Decide,
    /// The router has a bias.
    pub bias: bool,
    /// Which tokens offer keys and values. No meaning if nothing wrapped is attention.
    pub kv: Kv,
    /// Whether the router's probability scales the executed branch.
    pub gate: Gate,
    /// Probability from which a token executes, in `(0, 1)`: `sigmoid`, and `topk` with `Generate::Threshold`.
    pub threshold: f64,
    /// What `topk` does when it cannot see the future.
    pub generate: Generate,
    /// Consecutive tokens of one sequence that share slots; 0: no capacity. See [`Skip::capacity`].
    pub group_size: usize,
    /// Slots of a group over `group_size · density`.
    pub capacity_factor: f64,
    /// Who gets the slots.
    pub overflow: Overflow,
    /// Of the `random` router.
    pub seed: u64,
}

/// Who decides whether a token executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Router {
    /// Weight `[2, D]`, argmax, ties execute.
    Gumbel,
    /// Weight `[1, D]`, `σ(z) ≥ threshold`.
    Sigmoid,
    /// Weight `[1, D]`, the `max(1, ⌈density · T⌉)` highest of each sequence.
    TopK,
    /// SplitMix64 of (seed, block index, sequence, position).
    Random,
    /// Weight `[1, D]`, `y = σ(z)·F(x) + (1−σ(z))·x`; always dense.
    Highway,
    /// Every token.
    Always,
    /// No token.
    Never,
}

/// What a router reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The stream through the pre-norm of the (first) wrapped sub-layer.
    Normed,
    /// The stream itself.
    Raw,
}

/// From which stream a sub-layer's decision is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decide {
    /// The stream as it reaches the sub-layer.
    Here,
    /// The stream as it enters the block.
    Entry,
}

/// Which tokens offer keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kv {
    /// All, from the stream as it stands.
    All,
    /// Executed ones only.
    Active,
}

/// What an executed token gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// `F(x)`.
    Binary,
    /// `x + p · (F(x) − x)`.
    Scaled,
}

/// What `topk` does when generating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generate {
    /// Generation is refused; the empty string in a spec.
    Refuse,
    /// `σ(z) ≥ threshold` replaces the selection.
    Threshold,
}

/// Who gets the slots of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// First come, first served; causal.
    Position,
    /// The highest scores, earlier tokens on ties; looks at the future.
    Score,
}

/// A limit on executed tokens of each group of consecutive tokens of one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Capacity {
    /// Tokens of a group.
    pub group_size: usize,
    /// How many of them may execute, at most `group_size`; the same for a short last group.
    pub slots: usize,
    /// Who gets the slots.
    pub overflow: Overflow,
}

impl Model {
    /// Whether no decision or value of a token depends on later tokens, so that the model can generate.
    pub fn is_causal(&self) -> bool {
        !self.skips().any(|skip| skip.router == Router::TopK || skip.fills_by_score())
    }

    /// Whether the model can generate: it is causal, or names the causal replacement of all that is not.
    pub fn can_generate(&self) -> bool {
        let refuses = |skip: &Skip| {
            skip.fills_by_score() || (skip.router == Router::TopK && skip.generate == Generate::Refuse)
        };
        !self.skips().any(refuses)
    }

    /// All skips, in the order of the routers.
    pub fn skips(&self) -> impl Iterator<Item = &Skip> {
        self.blocks.iter().flat_map(|block| {
            block.skip.iter().chain(block.layers.iter().filter_map(|layer| layer.skip.as_ref()))
        })
    }
}

impl Skip {
    /// What a skip is if only its router is named.
    pub fn of(router: Router) -> Skip {
        Skip {
            router,
            density: 0.5,
            input: Input::Normed,
            decide: Decide::Here,
            bias: false,
            kv: Kv::All,
            gate: Gate::Binary,
            threshold: 0.5,
            generate: Generate::Refuse,
            group_size: 0,
            capacity_factor: 1.25,
            overflow: Overflow::Position,
            seed: 0,
        }
    }

    /// Whether the scores of later tokens decide who gets the slots of a group. Scores of routers without a weight are
    /// all equal, so that the earliest tokens get the slots; and where every token has a slot, or none has, nothing is
    /// compared.
    pub fn fills_by_score(&self) -> bool {
        let scored = self.router.weight_rows().is_some() && self.router.is_hard();
        let contested = |capacity: Capacity| {
            capacity.overflow == Overflow::Score && (1..capacity.group_size).contains(&capacity.slots)
        };
        scored && self.capacity().is_some_and(contested)
    }

    /// The capacity, if there is one: `⌈group_size · density · capacity_factor⌉` slots, products in f64 from
    /// left to right.
    pub fn capacity(&self) -> Option<Capacity> {
        if self.group_size == 0 {
            return None;
        }
        let slots = (self.group_size as f64 * self.density * self.capacity_factor).ceil();
        // `as` saturates; more slots than tokens are as good as all.
        let slots = (slots as usize).min(self.group_size);
        Some(Capacity { group_size: self.group_size, slots, overflow: self.overflow })
    }
}

impl Router {
    /// Rows R of the router's weight `[R, D]`; `None` for routers without a weight.
    pub fn weight_rows(self) -> Option<usize> {
        match self {
            Router::Gumbel => Some(2),
            Router::Sigmoid | Router::TopK | Router::Highway => Some(1),
            Router::Random | Router::Always | Router::Never => None,
        }
    }

    /// Whether it splits tokens into executed and skipped ones. `Highway` mixes instead.
    pub fn is_hard(self) -> bool {
        self != Router::Highway
    }
}

impl Activation {
    /// Whether there is a gate projection.
    pub fn is_gated(self) -> bool {
        matches!(self, Activation::SwiGlu | Activation::GeGlu)
    }
}
