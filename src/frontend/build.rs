//! What parts of a model are built from: parameters and ops.
//!
//! A layer kind, a router, the embedding and the head say their parameters and their graph in one function, over
//! [`Build`]. Lowering is that function making a graph; the list of the model's parameters
//! ([`tensors`](super::spec::tensors::tensors)) is that function with every value left out.

use skipc_ir::attr::{F64, Shape};
use skipc_ir::{Binary, Op, Scoring, SetSym, Unary};

use super::spec::skip::{Carry, Highway, Scorer, Skip};
use super::spec::steps::{Step, Steps};
use super::stream::{Head, NormKind, Patches, Pool, Pooled, Positions, Stream, StreamInput};

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

    /// The head's sums as a loss takes them, where there is one: in f32.
    fn scored(&mut self, sums: Self::Value) -> Result<Self::Value, Self::Error> {
        Ok(sums)
    }

    /// Keys and values that the layer `name` made in an earlier repetition and that stand for those of this one.
    fn kept(&self, name: &str) -> Option<[Self::Value; 2]>;

    /// Softmax attention of queries `rows` over keys and values `seen`, by the layer `name`.
    fn attend(
        &mut self,
        name: &str,
        heads: Heads,
        qkv: [Self::Value; 3],
        input: LayerInput<Self::Value>,
    ) -> Result<Self::Value, Self::Error>;

    /// The choices of the rows of a layer in a cache, where the graph goes on with sequences: the cache with those of these rows, the
    /// pages of each sequence, and which tokens have choices, if not all have. `set` are the tokens of the rows, if not all.
    fn choices_so_far(
        &mut self,
        index: Self::Value,
        set: Option<Self::Value>,
    ) -> Result<Option<Vec<Self::Value>>, Self::Error>;

    /// Choices to replay in the layer of experts whose choices are made known next, for the rows of a set or all tokens: a column
    /// for each that a token can have at once, of so many in all.
    fn replayed_choices(
        &mut self,
        of: usize,
        places: usize,
        set: Option<Self::Value>,
    ) -> Result<Self::Value, Self::Error>;

    /// Makes known which of so many choices the rows of a layer got: their `index` from this column on, a column for each that a
    /// token can have at once. Rows that do not count, and tokens without a row, have none.
    fn report_choices(
        &mut self,
        of: usize,
        index: (Self::Value, u32, u32),
        input: LayerInput<Self::Value>,
    ) -> Result<(), Self::Error>;

    /// The causal convolution, by filters `[D, taps]`, of `x`, which are rows of what `input` sees: for each of its rows the sum
    /// over its last positions.
    fn convolve(
        &mut self,
        operands: [Self::Value; 2],
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

    /// The mean of the rows of `x` of each sequence, in each of these rows; `x` has a row for every token.
    fn sequence_mean(&mut self, x: Self::Value) -> Result<Self::Value, Self::Error>;

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
    let mut x = match (b.stream().input, b.stream().patches) {
        (StreamInput::Tokens, _) => {
            let table = b.parameter("embed.weight", TensorRole::Embedding, &[vocab_size, d])?;
            b.add(Op::Embed {}, &[table, input])?
        }
        (StreamInput::Patches, Some(patches)) => embedded_patches(b, patches, input, positions)?,
        (StreamInput::Rows | StreamInput::Patches, _) => input,
    };
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

/// The stream that patches begin with, and the class token in the row in front of them.
fn embedded_patches<B: Build>(
    b: &mut B,
    Patches { dim, class_token }: Patches,
    patches: B::Value,
    positions: B::Value,
) -> Result<B::Value, B::Error> {
    let d = b.stream().d_model;
    let x = b.project(patches, "patch_embed", TensorRole::Projection, [d, dim])?;
    let bias = b.parameter("patch_embed.bias", TensorRole::Embedding, &[d])?;
    let x = b.add(Op::AddBias {}, &[x, bias])?;
    if !class_token {
        return Ok(x);
    }
    let class = b.parameter("cls.weight", TensorRole::Embedding, &[1, d])?;
    b.add(Op::ClassToken {}, &[x, class, positions])
}

/// Logits `[rows, vocab_size]` of the stream `x`, or its rows if the model has no head. Where it scores sequences, whose index
/// each row has, the logits of a sequence are those of one of its rows.
pub(super) fn head<B: Build>(b: &mut B, x: B::Value, sequences: B::Value) -> Result<B::Value, B::Error> {
    let (d, vocab_size) = (b.stream().d_model, b.stream().vocab_size);
    let x = b.pre_norm(x, b.stream().final_norm.then_some("norm"))?;
    match (b.stream().head, b.stream().pooled) {
        (Head::Tokens, _) => {}
        (Head::Pooled, Some(pooled)) => return pooled_scores(b, pooled, x, sequences),
        (Head::Rows | Head::Pooled, _) => return Ok(x),
    }
    let (name, role) = match b.stream().tie_embeddings {
        true => ("embed", TensorRole::Embedding),
        false => ("lm_head", TensorRole::Projection),
    };
    let logits = b.project(x, name, role, [vocab_size, d])?;
    let mut logits = b.scored(logits)?;
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

/// Scores `[rows, classes]` of what is made of the sequence of each row.
fn pooled_scores<B: Build>(
    b: &mut B,
    Pooled { pool, classes }: Pooled,
    x: B::Value,
    sequences: B::Value,
) -> Result<B::Value, B::Error> {
    let x = match pool {
        Pool::Mean => b.add(Op::SequenceMean {}, &[x, sequences])?,
        Pool::First | Pool::Last => x,
    };
    let (d, role) = (b.stream().d_model, (TensorRole::Projection, b.stream().head_bias));
    b.project_with_bias(x, "head", role, [classes, d])
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
    logits(b, (skip, scorer), name, [TensorRole::Router(*skip), TensorRole::RouterBias], seen)
}

/// The last step of a decider, over what the steps before it made.
fn logits<B: Build>(
    b: &mut B,
    (skip, scorer): (&Skip, Scorer),
    name: &str,
    [weight, bias]: [TensorRole; 2],
    seen: B::Value,
) -> Result<B::Value, B::Error> {
    let d = b.stream().d_model;
    let (width, rows) = (scorer.steps.width(d), skip.n_logits(d));
    let weight = b.parameter(&format!("{name}.weight"), weight, &[rows, width])?;
    let logits = b.add(Op::RouterLogits {}, &[seen, weight])?;
    if !scorer.bias {
        return Ok(logits);
    }
    let bias = b.parameter(&format!("{name}.bias"), bias, &[rows])?;
    b.add(Op::AddBias {}, &[logits, bias])
}

/// What the sigmoids of a highway are taken of, `f32[rows, R]`: the share of the branch and, if that has a weight of its own,
/// the share of the stream.
pub(super) type Shares<V> = (V, Option<V>);

/// The shares of a highway, over what its router reads.
pub(super) fn highway<B: Build>(
    b: &mut B,
    (skip, of): (&Skip, &Highway),
    name: &str,
    seen: B::Value,
) -> Result<Shares<B::Value>, B::Error> {
    let scorer = of.scorer;
    let seen = steps(b, &scorer.steps, name, seen)?;
    let roles = [TensorRole::Router(*skip), TensorRole::RouterBias];
    let z = logits(b, (skip, scorer), name, roles, seen)?;
    let rows = skip.n_logits(b.stream().d_model);
    match of.carry {
        Carry::Coupled => Ok((shifted(b, z, -of.carry_bias, rows)?, None)),
        Carry::Own => {
            let roles = [TensorRole::Projection, TensorRole::Shift];
            let carry = logits(b, (skip, scorer), &format!("{name}.carry"), roles, seen)?;
            Ok((z, Some(shifted(b, carry, of.carry_bias, rows)?)))
        }
    }
}

/// `x + by`.
fn shifted<B: Build>(b: &mut B, x: B::Value, by: f64, cols: usize) -> Result<B::Value, B::Error> {
    if by == 0.0 {
        return Ok(x);
    }
    let by = fill(b, by, &[cols])?;
    b.add(Op::AddBias {}, &[x, by])
}

/// A constant of one number.
fn fill<B: Build>(b: &mut B, value: f64, shape: &[usize]) -> Result<B::Value, B::Error> {
    let shape = Shape(shape.iter().map(|size| u32::try_from(*size).unwrap_or(0)).collect());
    b.add(Op::Fill { value: F64::from(value), shape }, &[])
}

/// The mean of the columns of `x` `f32[rows, cols]`, `f32[rows, 1]`, summed in f32 or better.
pub(super) fn mean<B: Build>(b: &mut B, x: B::Value, cols: usize) -> Result<B::Value, B::Error> {
    let ones = fill(b, 1.0, &[1, cols])?;
    let sum = b.add(Op::RouterLogits {}, &[x, ones])?;
    b.add(Unary::Scale(F64::from((cols as f64).recip())), &[sum])
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
            Step::Pool { .. } => x = b.sequence_mean(x)?,
            Step::Activation { activation } => {
                if let Some(function) = activation.unary() {
                    x = b.add(function, &[x])?;
                }
            }
        }
    }
    Ok(x)
}
