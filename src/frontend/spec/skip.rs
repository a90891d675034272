//! What a skip means: who decides, by what, and what becomes of the decision. Each kind of router has the settings that it
//! takes and no others; how a spec writes them is in [`skip_table`](super::skip_table).

use skipc_ir::Rounding;

use super::steps::Steps;
use crate::frontend::language::words::{Word, words};

/// When and how a block or sub-layer is skipped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Skip {
    /// Wanted share of executed tokens, in `[0, 1]`. A soft target for learned routers.
    pub density: f64,
    /// What a token gets.
    pub combine: Combine,
}

/// What a token gets of the executed branch and of the stream as it was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Combine {
    /// One of the two.
    Either(Either),
    /// `y = T·F(x) + C·x`; always dense, so every token is a key.
    Highway(Highway),
}

/// How much of F(x) and of x a token gets, `T` and `C`: `σ(z − carry_bias)` and one minus that, or what a weight of its own
/// says of C.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Highway {
    /// What makes z: one for a token, or one for each of its channels.
    pub scorer: Scorer,
    /// What makes C.
    pub carry: Carry,
    /// Taken from z, or added to what C is made of.
    pub carry_bias: f64,
}

/// What makes the share of the stream that a highway carries on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carry {
    /// What is left of the share of the branch.
    Coupled,
    /// `σ(z_c + carry_bias)`, z_c by a weight of its own behind the same steps.
    Own,
}

/// How a token gets one of the two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Either {
    /// Who decides.
    pub decider: Decider,
    /// Which tokens offer keys and values. No meaning if nothing wrapped is attention.
    pub kv: Kv,
    /// What the change of a branch is multiplied by.
    pub scale: BranchScale,
    /// And by this; 1 for [`BranchScale::One`].
    pub factor: f64,
    /// How the branches become one stream.
    pub branches: Branches,
    /// The first so many tokens of a sequence execute: they rank above every score.
    pub force_first: usize,
    /// Of a stack: only tokens that executed the last repetition may execute this one.
    pub nested: bool,
    /// A limit on how many tokens execute.
    pub capacity: Option<Capacity>,
}

/// Who decides whether a token executes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decider {
    /// Weight `[2, D]`, argmax, ties execute.
    Gumbel(Scorer),
    /// Weight `[1, D]`, `σ(z) ≥ threshold`.
    Sigmoid {
        /// What makes z.
        scorer: Scorer,
        /// Probability from which a token executes, in `(0, 1)`.
        threshold: f64,
    },
    /// Weight `[1, D]`, the `max(1, ⌈density · T⌉)` highest of each sequence, or `⌊density · T⌋` of them.
    TopK {
        /// What makes z.
        scorer: Scorer,
        /// What it does when it cannot see the future.
        generate: Generate,
        /// Which tokens compete.
        scope: Scope,
        /// Which way their number is rounded.
        round: Rounding,
    },
    /// SplitMix64 of (seed, block index, sequence index, position).
    Random {
        /// The seed.
        seed: u64,
    },
    /// SplitMix64 of (seed, block index, token id): the bits of `Random` in sequence 0, the id in place of the position.
    Hash {
        /// The seed.
        seed: u64,
    },
    /// Weight `[R, D]` over the R repetitions of a stack, once, at its entry: those up to the one of the highest logit, the
    /// lowest of equals. The probability is that which softmax gives it.
    Depth {
        /// What makes the logits.
        scorer: Scorer,
        /// How many repetitions there are.
        repetitions: usize,
        /// Which of them this is.
        repetition: usize,
    },
    /// Every token.
    Always,
    /// No token.
    Never,
}

/// A map from a token to its score: steps, then a linear one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scorer {
    /// What it reads.
    pub input: Input,
    /// From which stream a sub-layer's decision is taken. `Here` for a block.
    pub decide: Decide,
    /// What stands before the weight.
    pub steps: Steps,
    /// The last step has a bias.
    pub bias: bool,
    /// A token has a logit for each channel, `[D, width]` in place of `[1, width]`: the mean of their sigmoids decides, and
    /// each scales its own.
    pub channels: bool,
    /// Of pooled steps: later tokens of a sequence keep the decision of its prompt.
    pub prefill: bool,
}

/// Which tokens compete for the places of a top-k router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of a sequence.
    Sequence,
    /// Those of all sequences of a batch, in their order.
    Batch,
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
    /// Of a stack that shares weights: all, as its first repetition made them, in every repetition.
    First,
}

/// What the change of an executed token is multiplied by: it gets `x + s · (F(x) − x)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BranchScale {
    /// 1: it gets `F(x)`, without rounding.
    One,
    /// The router's probability p of executing; the change of the other branch is multiplied by `1 − p`.
    Probability,
    /// The same, of the change of the branch's last layer alone: `h + p · (F(x) − h)`, `h` the state before it.
    ProbabilityLast,
    /// The router's one logit.
    Score,
}

/// How the branch of executed tokens and that of the others become one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Branches {
    /// A token gets one of the two.
    Either,
    /// Every token gets the other branch, and an executed one the change of its own, both made of `x`.
    Sum,
    /// An executed token gets `x + s · F(x)`, with the residuals of F; the others are left alone.
    Add,
}

/// What `topk` does when generating.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Generate {
    /// Generation is refused.
    Refuse,
    /// `σ(z) ≥` this replaces the selection; in `(0, 1)`.
    Threshold(f64),
    /// The same of a score of its own: these steps of the router's input and a weight `[1, width]`.
    Predictor {
        /// Probability from which a token executes.
        threshold: f64,
        /// What stands before the weight.
        steps: Steps,
    },
}

impl Generate {
    /// Probability from which a token executes.
    pub fn threshold(self) -> Option<f64> {
        match self {
            Generate::Refuse => None,
            Generate::Threshold(threshold) | Generate::Predictor { threshold, .. } => Some(threshold),
        }
    }
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
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Capacity {
    /// Tokens of a group, at least one.
    pub group_size: usize,
    /// Slots of a group over `group_size · density`.
    pub factor: f64,
    /// Who gets the slots.
    pub overflow: Overflow,
}

words! {
    Input { Normed = "normed", Raw = "raw" }
    Decide { Here = "here", Entry = "entry" }
    Kv { All = "all", Active = "active", First = "first" }
    BranchScale { One = "binary", Probability = "scaled", ProbabilityLast = "scaled_last", Score = "raw" }
    Branches { Either = "either", Sum = "sum", Add = "add" }
    Carry { Coupled = "coupled", Own = "own" }
    Scope { Sequence = "sequence", Batch = "batch" }
    Overflow { Position = "position", Score = "score" }
}

impl Word for Rounding {
    const WORDS: &'static [(&'static str, Rounding)] = &[("up", Rounding::Up), ("down", Rounding::Down)];
}

impl Skip {
    /// Who decides; `None` where no token is left out.
    pub fn decider(&self) -> Option<Decider> {
        match self.combine {
            Combine::Either(either) => Some(either.decider),
            Combine::Highway(_) => None,
        }
    }

    /// Whether a loss of training draws what it wants to its density.
    pub fn has_rate(&self) -> bool {
        matches!(self.decider(), Some(Decider::Gumbel(_) | Decider::Sigmoid { .. }))
    }

    /// Whether the density means something: who executes all tokens or none wants no share of them.
    pub fn has_density(&self) -> bool {
        match self.decider() {
            None | Some(Decider::Never | Decider::Depth { .. }) => false,
            // Then slots are counted by it.
            Some(Decider::Always) => self.capacity().is_some(),
            Some(
                Decider::Gumbel(_)
                | Decider::Sigmoid { .. }
                | Decider::TopK { .. }
                | Decider::Random { .. }
                | Decider::Hash { .. },
            ) => true,
        }
    }

    /// What makes scores; `None` for routers without a weight.
    pub fn scorer(&self) -> Option<Scorer> {
        match self.combine {
            Combine::Highway(highway) => Some(highway.scorer),
            Combine::Either(either) => either.decider.scorer(),
        }
    }

    /// Rows R of the weight `[R, D]` of a router that has one, over a stream of so many channels.
    pub fn n_logits(&self, d_model: usize) -> usize {
        match self.decider() {
            Some(Decider::Gumbel(_)) => 2,
            Some(Decider::Depth { repetitions, .. }) => repetitions,
            _ if self.has_channels() => d_model,
            _ => 1,
        }
    }

    /// Whether a token has a logit for each of its channels.
    pub fn has_channels(&self) -> bool {
        self.scorer().is_some_and(|scorer| scorer.channels)
    }

    /// Whether all tokens of a sequence get one decision, by the mean of all of them.
    pub fn is_pooled(&self) -> bool {
        self.scorer().is_some_and(|scorer| scorer.steps.is_pooled())
    }

    /// Whether later tokens keep the decision of their prompt.
    pub fn keeps_prompts(&self) -> bool {
        self.scorer().is_some_and(|scorer| scorer.prefill)
    }

    /// Whether decisions depend on the other sequences of a batch, or on the number of a sequence among them.
    pub fn depends_on_batch(&self) -> bool {
        match self.decider() {
            // At density 0 and 1 nothing is drawn.
            Some(Decider::Random { .. }) => self.density > 0.0 && self.density < 1.0,
            Some(Decider::TopK { scope, .. }) => scope == Scope::Batch,
            _ => false,
        }
    }

    /// The limit on executed tokens, if there is one.
    pub fn capacity(&self) -> Option<Capacity> {
        match self.combine {
            Combine::Either(either) => either.capacity,
            Combine::Highway(_) => None,
        }
    }

    /// What a token gets, if it gets one of two branches.
    pub fn either(&self) -> Option<Either> {
        match self.combine {
            Combine::Either(either) => Some(either),
            Combine::Highway(_) => None,
        }
    }

    /// Whether a token has one score, which is a logit.
    pub fn has_one_score(&self) -> bool {
        let has_scores = matches!(self.decider(), Some(Decider::Sigmoid { .. } | Decider::TopK { .. }));
        has_scores && !self.has_channels()
    }

    /// What a top-k router does when it cannot see the future; `None` for other routers.
    pub fn top_k(&self) -> Option<Generate> {
        match self.decider() {
            Some(Decider::TopK { generate, .. }) => Some(generate),
            _ => None,
        }
    }

    /// Whether the scores of later tokens decide who gets the slots of a group. Scores of routers without a weight are
    /// all equal, so that the earliest tokens get the slots; and where every token has a slot, or none has, nothing is
    /// compared.
    pub fn fills_by_score(&self) -> bool {
        let contested = |capacity: Capacity| {
            capacity.overflow == Overflow::Score
                && (1..capacity.group_size).contains(&capacity.slots(self.density))
        };
        self.scorer().is_some() && self.capacity().is_some_and(contested)
    }
}

impl Decider {
    /// What makes scores; `None` for routers without a weight.
    pub fn scorer(&self) -> Option<Scorer> {
        match *self {
            Decider::Gumbel(scorer)
            | Decider::Sigmoid { scorer, .. }
            | Decider::TopK { scorer, .. }
            | Decider::Depth { scorer, .. } => Some(scorer),
            Decider::Random { .. } | Decider::Hash { .. } | Decider::Always | Decider::Never => None,
        }
    }
}

impl Capacity {
    /// How many tokens of a group may execute: `⌈group_size · density · factor⌉`, products in f64 from left to right, and
    /// at most `group_size`; the same for a short last group.
    pub fn slots(&self, density: f64) -> usize {
        let slots = (self.group_size as f64 * density * self.factor).ceil();
        // `as` saturates; more slots than tokens are as good as all.
        (slots as usize).min(self.group_size)
    }
}
