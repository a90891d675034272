//! What each op of the graph is to the planner. Nothing else in this crate tells all ops apart: fusion and lowering
//! match on an [`OpKind`], so that an op without one is a compile error here, and a kind without a kernel one there.

use skipc_ir::elementwise::Cost;
use skipc_ir::{Binary, F64, Frequencies, Op, Rounding, Scoring, Training, Unary};

use crate::kernel::Choice;

/// What an op is to the planner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpKind {
    /// What the host hands to a step.
    Input,
    /// Made when the model is compiled.
    Constant(Constant),
    /// A parameter that trains: a state, read where weights are.
    Parameter,
    /// Rows or columns of another value, read where that lies.
    View(View),
    /// Sums over rows of a weight, which begin a kernel.
    Matmul(Matmul),
    /// A function of elements, which can be an instruction of the kernel that makes or uses them.
    Elementwise(Elementwise),
    /// Rotary positions: part of a matmul if that fits, else a kernel.
    Rope(Rope),
    /// Rows that are written over others, by the kernel that makes them.
    Scatter,
    /// A kernel of its own.
    Single(Single),
    /// A token set, made by a kernel of its own.
    Route(Route),
    /// The next value of a state, made in its place by a kernel of its own.
    Update(Update),
    /// A decision as the host sees it.
    Decision(Decision),
}

/// How a constant is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Constant {
    /// As the weights file has it.
    Weight,
    /// So many tensors, one below the other.
    Stack { count: u32 },
    /// The same number everywhere.
    Fill { value: F64 },
    /// Some rows of a weight.
    Rows { start: u32, len: u32 },
    /// A weight times a gain.
    FoldGain,
    /// A weight times the one before it.
    FoldLinear,
    /// A weight times a bias before it, and maybe one behind it.
    FoldBias,
    /// A gain and this.
    OffsetGain { by: F64 },
}

/// Which rotary positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rope {
    /// Heads.
    pub(crate) heads: u32,
    /// Columns of a head that turn, if not all do.
    pub(crate) turned: Option<u32>,
    /// By how much.
    pub(crate) frequencies: Frequencies,
}

/// What of another value is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// Columns from this one on.
    Columns { start: u32 },
    /// Rows of a set.
    Rows,
}

/// Which matmul.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Matmul {
    /// In the target's precision.
    Plain,
    /// Accurate to f32.
    RouterLogits,
    /// In the target's precision, with a weight for each segment of a partition.
    Grouped,
    /// In the target's precision, with the rows of a weight in place of its columns: the gradient of the rows of a plain one.
    Transposed,
}

/// Which function of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Elementwise {
    /// Of one.
    Unary(Unary),
    /// Of two.
    Binary(Binary),
    /// A vector is added to every row.
    Bias,
    /// Every row is multiplied by a number of its own, or every element is.
    RowScale,
    /// The element in f32, as it is in the kernel.
    Widen,
    /// Scores, above all at the positions before this one.
    ForceFirst { first: u32 },
    /// One row in place of those at position 0.
    ClassToken,
    /// One row in every row.
    RepeatRow,
}

/// Which kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Single {
    /// Rows of a table.
    Embed,
    /// A norm by the root of the mean of squares.
    RmsNorm { eps: F64, groups: u32 },
    /// A norm by mean and variance.
    LayerNorm { eps: F64, groups: u32 },
    /// Which experts a row takes; the choices may be replayed.
    Choose { choice: Choice, replays: bool },
    /// The expert that a hash of a token's id gives.
    HashChoice { experts: u32, seed: u64, block: u32, n_ids: u32 },
    /// Which choices find one of so many places.
    LimitChoices { group_size: u32, slots: u32, experts: u32 },
    /// The same, behind the choices of earlier steps.
    LimitChoicesAfter { group_size: u32, slots: u32, experts: u32 },
    /// Which rows an expert keeps as its share of a group.
    ShareChoices { top_k: u32, group_size: Option<u32> },
    /// What a norm scales rows by.
    RowScale { eps: F64 },
    /// Attention.
    Attention { heads: u32, kv_heads: u32, scoring: Scoring },
    /// Attention over a cache.
    CachedAttention { heads: u32, kv_heads: u32, scoring: Scoring },
    /// A causal convolution.
    Conv,
    /// The same over a cache.
    CachedConv,
    /// The mean over each sequence.
    SequenceMean,
    /// An op of training, in loops.
    Training(Training),
}

/// How a token set is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Into so many segments, from an index on.
    Partition { first: u32, parts: u32 },
    /// By a threshold of scores.
    AtLeast { threshold: F64 },
    /// By the place of a token.
    Random { seed: u64, block: u32, limit: u64 },
    /// The best share of each sequence.
    TopK {
        /// Of all rows of a sequence.
        share: F64,
        round: Rounding,
        /// Those of a set alone take part.
        is_among: bool,
    },
    /// The first of each group of a set.
    First { group_size: u32, slots: u32 },
    /// The first of each group of a set, behind those of earlier steps.
    FirstAfter { group_size: u32, slots: u32 },
    /// The best of each group of a set.
    Best { group_size: u32, slots: u32 },
    /// The tokens that another set leaves out.
    Complement,
    /// Those of another set, and the first of each sequence.
    WithFirst { first: u32 },
    /// The tokens of one set that another has, too.
    Within,
    /// Rows of a cache that wait for this router.
    Pending { router: u32 },
}

/// What becomes of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Update {
    /// Rows are stored at their places.
    StoreRows,
    /// Rows are added to their sum.
    AddRows,
    /// What training makes of it, in loops.
    Training(TrainingUpdate),
}

/// What training makes of a state; the ops of these names in [`Training`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrainingUpdate {
    /// An element is added to each of its elements.
    Accumulate,
    /// Zeros.
    Clear,
    /// Its mean with another tensor.
    MovingAverage,
    /// A step of AdamW.
    AdamW { eps: F64 },
    /// A step of Adafactor.
    Adafactor { clip: F64, least: Option<F64> },
}

/// Where a decision comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// A token set.
    Set,
    /// The same for all rows.
    Always(bool),
}

impl OpKind {
    /// What this op is.
    #[expect(clippy::too_many_lines, reason = "an arm for each op, and nothing else")]
    pub(crate) fn of(op: &Op) -> OpKind {
        match *op {
            Op::Input { .. } => OpKind::Input,
            Op::Weight { .. } => OpKind::Constant(Constant::Weight),
            Op::WeightStack { count, .. } => OpKind::Constant(Constant::Stack { count }),
            Op::Fill { value, .. } => OpKind::Constant(Constant::Fill { value }),
            Op::WeightRows { start, len } => OpKind::Constant(Constant::Rows { start, len }),
            Op::FoldLinear {} => OpKind::Constant(Constant::FoldLinear),
            Op::FoldBias {} => OpKind::Constant(Constant::FoldBias),
            Op::FoldGain {} => OpKind::Constant(Constant::FoldGain),
            Op::OffsetGain { by } => OpKind::Constant(Constant::OffsetGain { by }),
            Op::Slice { start, .. } => OpKind::View(View::Columns { start }),
            Op::Gather {} => OpKind::View(View::Rows),
            Op::Matmul {} => OpKind::Matmul(Matmul::Plain),
            Op::RouterLogits {} => OpKind::Matmul(Matmul::RouterLogits),
            Op::GroupedMatmul {} => OpKind::Matmul(Matmul::Grouped),
            Op::Choose { k, sigmoid, normalise, scale, ranks } => {
                let choice = Choice { k, sigmoid, normalise, scale, ranks };
                OpKind::Single(Single::Choose { choice, replays: false })
            }
            Op::ChooseOrReplay { k, sigmoid, normalise, scale, ranks } => {
                let choice = Choice { k, sigmoid, normalise, scale, ranks };
                OpKind::Single(Single::Choose { choice, replays: true })
            }
            Op::HashChoice { experts, seed, block, n_ids } => {
                OpKind::Single(Single::HashChoice { experts, seed, block, n_ids })
            }
            Op::LimitChoices { group_size, slots, experts } => {
                OpKind::Single(Single::LimitChoices { group_size, slots, experts })
            }
            Op::LimitChoicesAfter { group_size, slots, experts } => {
                OpKind::Single(Single::LimitChoicesAfter { group_size, slots, experts })
            }
            Op::ShareChoices { top_k, group_size } => {
                OpKind::Single(Single::ShareChoices { top_k, group_size })
            }
            Op::Partition { first, parts, .. } => OpKind::Route(Route::Partition { first, parts }),
            Op::Unary(function) => OpKind::Elementwise(Elementwise::Unary(function)),
            Op::Binary(function) => OpKind::Elementwise(Elementwise::Binary(function)),
            Op::AddBias {} => OpKind::Elementwise(Elementwise::Bias),
            Op::ScaleRows {} | Op::ScaleElements {} => OpKind::Elementwise(Elementwise::RowScale),
            Op::Rope { heads, theta, turned, scaling } => {
                OpKind::Rope(Rope { heads, turned, frequencies: Frequencies { theta, scaling } })
            }
            Op::Scatter {} => OpKind::Scatter,
            Op::Embed {} => OpKind::Single(Single::Embed),
            Op::RmsNorm { eps, groups } => {
                OpKind::Single(Single::RmsNorm { eps, groups: groups.unwrap_or(1) })
            }
            Op::LayerNorm { eps, groups } => {
                OpKind::Single(Single::LayerNorm { eps, groups: groups.unwrap_or(1) })
            }
            Op::InvRms { eps } => OpKind::Single(Single::RowScale { eps }),
            Op::Attention { heads, kv_heads, scale, cap, window, ahead } => {
                let scoring = Scoring { scale, cap, window, ahead };
                OpKind::Single(Single::Attention { heads, kv_heads, scoring })
            }
            Op::CachedAttention { heads, kv_heads, scale, cap, window } => {
                let scoring = Scoring { scale, cap, window, ahead: None };
                OpKind::Single(Single::CachedAttention { heads, kv_heads, scoring })
            }
            Op::Conv {} => OpKind::Single(Single::Conv),
            Op::CachedConv {} => OpKind::Single(Single::CachedConv),
            Op::SequenceMean {} => OpKind::Single(Single::SequenceMean),
            Op::Route { at_least, .. } => OpKind::Route(Route::AtLeast { threshold: at_least }),
            Op::RouteRandom { seed, block, limit, .. } => OpKind::Route(Route::Random { seed, block, limit }),
            Op::RouteTopK { share, round, .. } => {
                OpKind::Route(Route::TopK { share, round, is_among: false })
            }
            Op::RouteTopKAmong { share, round, .. } => {
                OpKind::Route(Route::TopK { share, round, is_among: true })
            }
            Op::LimitFirst { group_size, slots, .. } => OpKind::Route(Route::First { group_size, slots }),
            Op::LimitFirstAfter { group_size, slots, .. } => {
                OpKind::Route(Route::FirstAfter { group_size, slots })
            }
            Op::Widen {} => OpKind::Elementwise(Elementwise::Widen),
            Op::ForceFirst { first } => OpKind::Elementwise(Elementwise::ForceFirst { first }),
            Op::ClassToken {} => OpKind::Elementwise(Elementwise::ClassToken),
            Op::RepeatRow {} => OpKind::Elementwise(Elementwise::RepeatRow),
            Op::Complement { .. } => OpKind::Route(Route::Complement),
            Op::WithFirst { first, .. } => OpKind::Route(Route::WithFirst { first }),
            Op::Within { .. } => OpKind::Route(Route::Within),
            Op::Pending { router, .. } => OpKind::Route(Route::Pending { router }),
            Op::StoreRows {} => OpKind::Update(Update::StoreRows),
            Op::AddRows {} => OpKind::Update(Update::AddRows),
            Op::LimitBest { group_size, slots, .. } => OpKind::Route(Route::Best { group_size, slots }),
            Op::Training(op) => OpKind::of_training(op),
            Op::Executed {} => OpKind::Decision(Decision::Set),
            Op::FillMask { value } => OpKind::Decision(Decision::Always(value)),
        }
    }
}

impl OpKind {
    fn of_training(op: Training) -> OpKind {
        match op {
            Training::Parameter { .. } => OpKind::Parameter,
            Training::InputGradient {} => OpKind::Matmul(Matmul::Transposed),
            // What stands for a decision in the backward pass changes nothing in the forward pass.
            Training::StraightThrough {} => OpKind::View(View::Columns { start: 0 }),
            Training::Accumulate {} => OpKind::Update(Update::Training(TrainingUpdate::Accumulate)),
            Training::Clear {} => OpKind::Update(Update::Training(TrainingUpdate::Clear)),
            Training::MovingAverage {} => OpKind::Update(Update::Training(TrainingUpdate::MovingAverage)),
            Training::AdamW { eps } => OpKind::Update(Update::Training(TrainingUpdate::AdamW { eps })),
            Training::Adafactor { clip, least } => {
                OpKind::Update(Update::Training(TrainingUpdate::Adafactor { clip, least }))
            }
            Training::Constant { .. }
            | Training::Times {}
            | Training::Combine { .. }
            | Training::SetSize {}
            | Training::RateLoss { .. }
            | Training::RateLossGradient { .. }
            | Training::CrossEntropy {}
            | Training::CrossEntropyGradient {}
            | Training::Divergence { .. }
            | Training::DivergenceGradient { .. }
            | Training::WeightGradient {}
            | Training::ColumnSums { .. }
            | Training::EmbedGradient { .. }
            | Training::Derivative { .. }
            | Training::RmsNormGradient { .. }
            | Training::RmsGainGradient { .. }
            | Training::LayerNormGradient { .. }
            | Training::LayerGainGradient { .. }
            | Training::RopeGradient { .. }
            | Training::AttentionSums { .. }
            | Training::QueryGradient { .. }
            | Training::KeyValueGradient { .. }
            | Training::RowDot {}
            | Training::PlaceColumns { .. }
            | Training::ZerosLike {}
            | Training::SumSquares {}
            | Training::ReadScaled {}
            | Training::Squares { .. }
            | Training::RowMeans {}
            | Training::ColumnMeans {} => OpKind::Single(Single::Training(op)),
        }
    }

    /// Whether an element of the result needs no element of a matrix operand but that at its own place.
    pub(crate) fn reads_by_element(self) -> bool {
        match self {
            OpKind::View(_) | OpKind::Elementwise(_) | OpKind::Scatter => true,
            OpKind::Input
            | OpKind::Constant(_)
            | OpKind::Parameter
            | OpKind::Matmul(_)
            | OpKind::Rope(_)
            | OpKind::Single(_)
            | OpKind::Route(_)
            | OpKind::Update(_)
            | OpKind::Decision(_) => false,
        }
    }
}

impl Elementwise {
    /// Whether computing it again for every column, where its operands are one number a row, costs next to nothing.
    pub(crate) fn is_cheap(self) -> bool {
        match self {
            Elementwise::Unary(function) => function.cost() == Cost::Arithmetic,
            Elementwise::Binary(_) => true,
            Elementwise::Bias
            | Elementwise::RowScale
            | Elementwise::Widen
            | Elementwise::ForceFirst { .. }
            | Elementwise::ClassToken
            | Elementwise::RepeatRow => false,
        }
    }
}
