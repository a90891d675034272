//! How a model is trained: the file of `skipc train --config`, and what is wrong with it.

mod pattern;
mod ranks;
mod read;

use std::path::PathBuf;

use serde::Serialize;

use super::language::words::words;

pub use pattern::Patterns;
pub use ranks::check_shares;
pub use read::read;

/// All settings of a training run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// `[train]`.
    pub train: Train,
    /// `[optimizer]`.
    pub optimizer: Optimizer,
    /// `[schedule]`.
    pub schedule: Schedule,
    /// `[data]`.
    pub data: Data,
    /// `[init]`.
    pub init: Init,
    /// `[distill]`, if there is a teacher.
    pub distill: Option<Distill>,
}

/// `[train]`: steps and what is computed in each.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Train {
    /// Updates of the weights.
    pub steps: u64,
    /// Rows of a step.
    pub batch: usize,
    /// Inputs of a row.
    pub seq: usize,
    /// Of noise, order and first weights.
    pub seed: u64,
    /// Rows of one forward and backward pass; 0: all.
    pub microbatch: usize,
    /// What the layers compute in.
    pub dtype: Dtype,
    /// What a router's gradient is made of.
    pub ste: Ste,
    /// Weight of the loss that draws rates to their densities.
    pub aux_weight: f64,
    /// Factor of the Gumbel noise.
    pub noise: Ramp,
    /// Of the probability that stands for a noisy decision.
    pub temperature: Ramp,
    /// Largest norm of the gradient; 0: any.
    pub clip: f64,
    /// Tensors that train …
    pub train: Patterns,
    /// … minus these.
    pub freeze: Patterns,
}

/// Precision of a training run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// f32 throughout.
    F32,
    /// bf16 with weights, moments and gradients of weights in f32.
    Bf16,
}

/// What stands for the derivative of a decision (straight-through estimators).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ste {
    /// What executing changes, or would change, of every token.
    Dense,
    /// What executing changes of executed tokens, and the stream that skipped ones would lose.
    Sparse,
    /// What executing changes of executed tokens alone.
    ActiveOnly,
}

/// A number that changes over the first steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ramp {
    /// At step 0.
    pub from: f64,
    /// From step `steps` on.
    pub to: f64,
    /// At least 1.
    pub steps: u64,
}

/// `[optimizer]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Optimizer {
    /// Learning rate, before the schedule.
    pub lr: f64,
    /// What a weight loses at each step, times the learning rate.
    pub weight_decay: f64,
    /// Tensors that lose nothing.
    pub no_decay: Patterns,
    /// Which, with its own settings.
    #[serde(flatten)]
    pub kind: OptimizerKind,
}

/// The optimisers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Loshchilov and Hutter 2019.
    AdamW {
        /// Decay of the mean and of the mean square of gradients.
        betas: [f64; 2],
        /// Added to the root of the mean square.
        eps: f64,
    },
    /// Shazeer and Stern 2018, algorithm 4, without a moment and without relative steps.
    Adafactor {
        /// Decay of the mean square, corrected as Adam's.
        beta2: f64,
        /// Added to squares.
        eps1: f64,
        /// Least size of a tensor, where steps are shares of it.
        eps2: f64,
        /// Largest root mean square of an update.
        update_clip: f64,
        /// Steps are shares of a tensor's size.
        scale_parameter: bool,
        /// Sides from which on mean squares of a matrix are factored.
        factor_from: usize,
    },
}

/// `[schedule]`: the learning rate over steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Schedule {
    /// Steps over which the rate rises.
    pub warmup: u64,
    /// What it does then.
    #[serde(flatten)]
    pub kind: ScheduleKind,
}

/// What a learning rate does behind its warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ScheduleKind {
    /// Stays.
    Constant,
    /// Falls along half a cosine to this share.
    Cosine {
        /// Of the rate.
        floor: f64,
    },
    /// Falls as `1 / √step` from this step on.
    InverseSqrt {
        /// First step of the decay.
        hold: u64,
    },
}

/// `[data]`. Paths are relative to the file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Data {
    /// Where tokens come from.
    #[serde(flatten)]
    pub from: From,
    /// Sequence of windows; `None`: shuffled for a stream, given for rows.
    pub order: Option<Order>,
    /// Share of a stream that is held out.
    pub validation: f64,
}

/// Where tokens come from.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// A text: its bytes, or the ids that a tokenizer makes of it.
    Text {
        /// The text.
        text: PathBuf,
        /// A tokenizer.json.
        tokenizer: Option<PathBuf>,
    },
    /// Ids: one stream, or rows with their lengths.
    Tokens {
        /// `[n]` or `[rows, seq + 1]`.
        tokens: PathBuf,
        /// `[rows]`.
        lengths: Option<PathBuf>,
    },
}

/// Sequence of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Another one in each epoch.
    Shuffled,
    /// As they stand.
    Given,
}

/// `[init]`: tensors that no weight file gives.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Init {
    /// Deviation of matrices.
    pub std: f64,
    /// Tensors that the weight file may lack.
    pub missing: Patterns,
}

/// `[distill]`: a teacher.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Distill {
    /// Its spec.
    pub spec: PathBuf,
    /// Its weights.
    pub weights: PathBuf,
    /// Share of its loss.
    pub weight: f64,
    /// Of both distributions.
    pub temperature: f64,
}

words! {
    Dtype { F32 = "f32", Bf16 = "bf16" }
    Ste { Dense = "dense_ste", Sparse = "sparse_ste", ActiveOnly = "active_only" }
    Order { Shuffled = "shuffled", Given = "given" }
}

impl Ramp {
    /// A number that stays.
    pub const fn constant(value: f64) -> Ramp {
        Ramp { from: value, to: value, steps: 1 }
    }

    /// The number at a step.
    pub fn at(self, step: u64) -> f64 {
        self.from + (self.to - self.from) * (step as f64 / self.steps as f64).min(1.0)
    }
}

impl Schedule {
    /// What the learning rate is multiplied by at a step of so many.
    pub fn factor(self, step: u64, steps: u64) -> f64 {
        let warm = match self.warmup {
            0 => 1.0,
            warmup => ((step + 1) as f64 / warmup as f64).min(1.0),
        };
        match self.kind {
            ScheduleKind::Constant => warm,
            ScheduleKind::Cosine { floor } => {
                let decay = steps.saturating_sub(self.warmup).max(1) as f64;
                let part = (step.saturating_sub(self.warmup) as f64 / decay).min(1.0);
                warm * (floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * part).cos()))
            }
            ScheduleKind::InverseSqrt { hold } => warm * (hold as f64 / (step + 1).max(hold) as f64).sqrt(),
        }
    }
}

impl Config {
    /// Rows of one forward and backward pass of a rank, of so many ranks that the batch can be shared among.
    pub fn rows_at_once(&self, ranks: usize) -> usize {
        let own = self.train.batch / ranks.max(1);
        match self.train.microbatch {
            0 => own,
            rows => rows.min(own),
        }
    }

    /// Whether a tensor of this name trains.
    pub fn trains(&self, name: &str) -> bool {
        self.train.train.matches(name) && !self.train.freeze.matches(name)
    }

    /// Whether a tensor of this name loses some of its size at each step.
    pub fn decays(&self, name: &str) -> bool {
        self.optimizer.weight_decay > 0.0 && !self.optimizer.no_decay.matches(name)
    }
}
