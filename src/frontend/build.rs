//! What parts of a model are built from: parameters and ops.
//!
//! A layer kind, a router, the embedding and the head say their parameters and their graph in one function, over
//! [`Build`]. Lowering is that function making a graph; the list of the model's parameters
//! ([`tensors`](super::spec::tensors::tensors)) is that function with every value left out.

use skipc_ir::attr::F64;
use skipc_ir::{Binary, Op, Scoring, SetSym, Unary};

use super::spec::skip::{Scorer, Skip};
use super::spec::steps::{Step, Steps};
use super::stream::{Head, NormKind, Positions, Stream, StreamInput};

/// What a tensor of the weights is for.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a model has a few thousand of them at most, for a moment")]
pub enum TensorRole {
    /// The stream that each token begins with.
    Embedding,
    /// What is added to it at each position.
    Positions,
    /// Scale of a norm, less what the model adds to it.
    Gain {
        /// What it adds.
        offset: f64,
    },
    /// Shift of a norm, or bias of a projection.
    Shift,
    /// Weight of the router of this skip.
    Router(Skip),
    /// Bias of a router.
    RouterBias,
    /// Projection whose result is added to the stream, or its bias.
    ToStream,
    /// Any other projection.
    Projection,
}

/// Rows of tokens, with the place of each.
#[derive(Clone, Copy)]
pub struct TokenRows<V> {
    /// The stream, `[rows, D]`.
    pub stream: V,
    /// Position of each row in its sequence.
    pub positions: V,
    /// Sequence of each row; `None` of rows in a cache, which are found by the pages of their sequence.
    pub sequences: Option<V>,
    /// The set whose rows they are; `None` if they are all tokens.
    pub set: Option<V>,
}

/// Heads of an attention layer, and what it makes of their products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Of queries.
    pub queries: usize,
    /// Of keys and values.
    pub keys: usize,
    /// Which scores, of which keys.
    pub scoring: Scoring,
}

/// What a layer runs on.
#[derive(Clone, Copy)]
pub struct LayerInput<V> {
    /// The rows that it computes.
    pub rows: TokenRows<V>,
    /// The rows that these can look at, for layers that [mix tokens](super::layer::Layer::mixes_tokens).
    pub seen: TokenRows<V>,
    /// The set of the rows that count, where others are computed with them and thrown away.
    pub executed: Option<V>,
    /// Index of the block, in the order in which blocks run.
    pub block: usize,
}

/// Columns of a norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormOver {
    /// All of so many.
    Columns(usize),
    /// Each of so many heads of this width.
    Heads(usize, usize),
}

/// Where a model is built: into a graph, or into the list of its parameters.
pub trait Build {
    /// The result of an op.
    type Value: Copy + PartialEq;
    /// Why something cannot be built.
    type Error;

    /// The stream of the model that is built.
    fn stream(&self) -> Stream;

    /// The tensor of this name; weights of projections are `[out, in]`.
    fn parameter(
        &mut self,
        name: &str,
        role: TensorRole,
        shape: &[usize],
    ) -> Result<Self::Value, Self::Error>;

    /// So many tensors of this shape, one below the other, the number of each in place of the `*` in the name.
    fn stack(
        &mut self,
        name: &str,
        role: TensorRole,
        count: usize,
        shape: &[usize],
    ) -> Result<Self::Value, Self::Error>;

    /// A symbol that no set of the model has yet.
    fn fresh_set(&mut self) -> SetSym;

    /// Positions and sequences of all tokens.
    fn all_places(&self) -> [Self::Value; 2];

    /// The token ids of the rows of a set, or of all tokens.
    fn ids(&mut self, set: Option<Self::Value>) -> Result<Self::Value, Self::Error>;

    /// The result of an op.
    fn add(&mut self, op: impl Into<Op>, operands: &[Self::Value]) -> Result<Self::Value, Self::Error>;

    /// Softmax attention of queries `rows` over keys and values `seen`, by the layer `name`.
    fn attend(
        &mut self,
        name: &str,
        heads: Heads,
        qkv: [Self::Value; 3],
        input: LayerInput<Self::Value>,
    ) -> Result<Self::Value, Self::Error>;

    /// `x · Wᵀ` with `W` `[out, in]`, the parameter `name.weight`.
    fn project(
        &mut self,
        x: Self::Value,
        name: &str,
        role: TensorRole,
        shape: [usize; 2],
    ) -> Result<Self::Value, Self::Error> {
        let weight = self.parameter(&format!("{name}.weight"), role, &shape)?;
        self.add(Op::Matmul {}, &[x, weight])
    }

    /// The stream behind the norm in front of a layer, if there is one.
    fn pre_norm(&mut self, x: Self::Value, norm: Option<&str>) -> Result<Self::Value, Self::Error> {
        norm.map_or(Ok(x), |name| self.norm(x, name))
    }

    /// As [`Build::project`], and on it the parameter `name.bias` if there is one.
    fn project_with_bias(
        &mut self,
        x: Self::Value,
        name: &str,
        (role, has_bias): (TensorRole, bool),
        shape: [usize; 2],
    ) -> Result<Self::Value, Self::Error> {
        let y = self.project(x, name, role, shape)?;
        if !has_bias {
            return Ok(y);
        }
        let role = if role == TensorRole::ToStream { role } else { TensorRole::Shift };
        let bias = self.parameter(&format!("{name}.bias"), role, &[shape[0]])?;
        self.add(Op::AddBias {}, &[y, bias])
    }

    /// The model's norm over the stream `x` with the parameters `name.weight` and, for layernorm, `name.bias`.
    fn norm(&mut self, x: Self::Value, name: &str) -> Result<Self::Value, Self::Error> {
        let d = self.stream().d_model;
        self.norm_over(x, name, NormOver::Columns(d))
    }

    /// The model's norm over `x`, or over each of its heads, with parameters as for [`Build::norm`].
    fn norm_over(&mut self, x: Self::Value, name: &str, over: NormOver) -> Result<Self::Value, Self::Error> {
        let norm = self.stream().norm;
        let (eps, offset) = (F64::from(norm.eps), norm.offset);
        let (width, groups) = match over {
            NormOver::Columns(columns) => (columns, None),
            NormOver::Heads(heads, width) => (width, Some(heads as u32)),
        };
        let gain = self.parameter(&format!("{name}.weight"), TensorRole::Gain { offset }, &[width])?;
        let gain = match offset {
            0.0 => gain,
            by => self.add(Op::OffsetGain { by: F64::from(by) }, &[gain])?,
        };
        match norm.kind {
            NormKind::RmsNorm => self.add(Op::RmsNorm { eps, groups }, &[x, gain]),
            NormKind::LayerNorm => {
                let bias = self.parameter(&format!("{name}.bias"), TensorRole::Shift, &[width])?;
                self.add(Op::LayerNorm { eps, groups }, &[x, gain, bias])
            }
        }
    }
}

/// The stream `[rows, D]` that tokens at these positions begin with. `input` are their ids, or rows as the stream has them.
pub(super) fn embedding<B: Build>(
    b: &mut B,
    input: B::Value,
    positions: B::Value,
) -> Result<B::Value, B::Error> {
    let Stream { d_model: d, vocab_size, max_positions, embed_scale, .. } = b.stream();
    let mut x = input;
    if b.stream().input == StreamInput::Tokens {
        let table = b.parameter("embed.weight", TensorRole::Embedding, &[vocab_size, d])?;
        x = b.add(Op::Embed {}, &[table, x])?;
    }
    if embed_scale != 1.0 {
        x = b.add(Unary::Scale(F64::from(embed_scale)), &[x])?;
    }
    if b.stream().positions != Positions::Learned {
        return Ok(x);
    }
    let table = b.parameter("positions.weight", TensorRole::Positions, &[max_positions, d])?;
    let positions = b.add(Op::Embed {}, &[table, positions])?;
    b.add(Binary::Add, &[x, positions])
}

/// Logits `[rows, vocab_size]` of the stream `x`, or its rows if the model has no head.
pub(super) fn head<B: Build>(b: &mut B, x: B::Value) -> Result<B::Value, B::Error> {
    let (d, vocab_size) = (b.stream().d_model, b.stream().vocab_size);
    let x = b.pre_norm(x, b.stream().final_norm.then_some("norm"))?;
    if b.stream().head == Head::Rows {
        return Ok(x);
    }
    let (name, role) = match b.stream().tie_embeddings {
        true => ("embed", TensorRole::Embedding),
        false => ("lm_head", TensorRole::Projection),
    };
    let mut logits = b.project(x, name, role, [vocab_size, d])?;
    if b.stream().head_bias {
        let bias = b.parameter("lm_head.bias", TensorRole::Shift, &[vocab_size])?;
        logits = b.add(Op::AddBias {}, &[logits, bias])?;
    }
    if let Some(cap) = b.stream().logit_softcap {
        logits = b.add(Unary::Scale(F64::from(1.0 / cap)), &[logits])?;
        logits = b.add(Unary::Tanh, &[logits])?;
        logits = b.add(Unary::Scale(F64::from(cap)), &[logits])?;
    }
    Ok(logits)
}

/// The logits `f32[rows, R]` of the router of a skip over what it reads.
pub(super) fn router<B: Build>(
    b: &mut B,
    skip: &Skip,
    scorer: Scorer,
    name: &str,
    seen: B::Value,
) -> Result<B::Value, B::Error> {
    let seen = steps(b, &scorer.steps, name, seen)?;
    let (width, rows) = (scorer.steps.width(b.stream().d_model), skip.n_logits());
    let weight = b.parameter(&format!("{name}.weight"), TensorRole::Router(*skip), &[rows, width])?;
    let logits = b.add(Op::RouterLogits {}, &[seen, weight])?;
    if !scorer.bias {
        return Ok(logits);
    }
    let bias = b.parameter(&format!("{name}.bias"), TensorRole::RouterBias, &[rows])?;
    b.add(Op::AddBias {}, &[logits, bias])
}

/// The score `f32[rows, 1]` by which the router `name` selects where it cannot see the future, over what it reads.
pub(super) fn predictor<B: Build>(
    b: &mut B,
    of: &Steps,
    name: &str,
    seen: B::Value,
) -> Result<B::Value, B::Error> {
    let name = format!("{name}.predictor");
    let seen = steps(b, of, &name, seen)?;
    let width = of.width(b.stream().d_model);
    let weight = b.parameter(&format!("{name}.weight"), TensorRole::Projection, &[1, width])?;
    b.add(Op::RouterLogits {}, &[seen, weight])
}

/// What stands before the last weight of a decider, over what it reads; in f32 if there is any step.
fn steps<B: Build>(b: &mut B, steps: &Steps, name: &str, seen: B::Value) -> Result<B::Value, B::Error> {
    let (mut x, mut width) = (seen, b.stream().d_model);
    for (idx, step) in steps.iter().enumerate() {
        let name = format!("{name}.steps.{idx}");
        if idx == 0 && !matches!(step, Step::Linear { .. }) {
            x = b.add(Op::Widen {}, &[x])?;
        }
        match step {
            Step::Linear { linear, bias } => {
                let weight =
                    b.parameter(&format!("{name}.weight"), TensorRole::Projection, &[linear, width])?;
                x = b.add(Op::RouterLogits {}, &[x, weight])?;
                if bias {
                    let bias = b.parameter(&format!("{name}.bias"), TensorRole::Shift, &[linear])?;
                    x = b.add(Op::AddBias {}, &[x, bias])?;
                }
                width = linear;
            }
            Step::Norm { norm } => {
                let eps = F64::from(b.stream().norm.eps);
                let role = TensorRole::Gain { offset: 0.0 };
                let gain = b.parameter(&format!("{name}.weight"), role, &[width])?;
                x = match norm {
                    NormKind::RmsNorm => b.add(Op::RmsNorm { eps, groups: None }, &[x, gain])?,
                    NormKind::LayerNorm => {
                        let bias = b.parameter(&format!("{name}.bias"), TensorRole::Shift, &[width])?;
                        b.add(Op::LayerNorm { eps, groups: None }, &[x, gain, bias])?
                    }
                };
            }
            Step::Activation { activation } => {
                if let Some(function) = activation.unary() {
                    x = b.add(function, &[x])?;
                }
            }
        }
    }
    Ok(x)
}
