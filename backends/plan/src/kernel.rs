//! Structured kernels.

mod along;
mod operand;

pub use along::{Along, Conv, Inputs};
pub use operand::{Rows, Slot, View};

use serde::{Deserialize, Serialize};
use skipc_artifact::program::Extent;
use skipc_artifact::target::{DType, Target};
use skipc_ir::interp::functions;
pub use skipc_ir::interp::functions::NO_CHOICE;
pub use skipc_ir::{Ranking, Rounding, Scoring};

use crate::loops::{Loops, WeightGradient};
use crate::pointwise::{Pointwise, Real};

/// Columns of all sums of a narrow [`Part`], at most: their sums stay in registers side by side.
pub const NARROW_COLS: u32 = 8;

/// Sums of a [`Part`], at most: two scores of a router, each over three terms of a bf16 weight.
pub const MAX_SUMS: usize = 6;

/// Whether a kernel reads or writes a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// It is read only.
    Read,
    /// It is written only; elements that the kernel does not write keep their bytes.
    Write,
    /// It is read and written. A kernel reads an element only in the tile that writes it, and before it does; a state's
    /// [`Update`] is one tile.
    ReadWrite,
}

/// One pointer parameter: a matrix whose rows are `cols` elements apart, without gaps.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Param {
    /// What it is to the kernel, such as `x`, `gain`, `rows`: as text and for names in generated code.
    pub name: String,
    /// Type of its elements.
    pub dtype: DType,
    /// Elements of a row.
    pub cols: u32,
    /// How it is used.
    pub access: Access,
}

/// A kernel: parameters and what it does with them. Equal kernels are one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// Parameters, in the order of the kernel ABI.
    pub params: Vec<Param>,
    /// Rows that it works on.
    pub extent: Extent,
    /// What it does.
    pub body: Body,
}

/// What a kernel does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// Matmul with prologue and epilogue.
    Gemm(Gemm),
    /// The same, with weights of its own for each segment of the rows.
    Grouped(Grouped),
    /// Softmax attention.
    Attention(Attention),
    /// Softmax attention over a cache.
    CachedAttention(CachedAttention),
    /// Work along sequences.
    Along(Along),
    /// Row-wise work.
    Rowwise(Rowwise),
    /// Scores to a token set.
    Compact(Compact),
    /// Rows in segments.
    Partition(Partition),
    /// The rows of a cache that wait and may not wait longer.
    Pending(Pending),
    /// A state's next value, in its place.
    Update(Update),
    /// Loops over rows and columns.
    Loops(Loops),
    /// The weight gradient of a matmul.
    WeightGradient(WeightGradient),
}

/// Matmuls of one left operand. Its parts have columns and results of their own; rows of the left operand are loaded
/// for all of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gemm {
    /// Left operand, `[extent, k]`.
    pub a: View,
    /// Inner size.
    pub k: u32,
    /// At least one.
    pub parts: Vec<Part>,
}

/// A matmul over the segments of a partition. Rows of segment `e` are those from `ends[e − 1]` (0 for the first) up to `ends[e]`,
/// and what they take of a constant that has rows for each segment begins at its row `e · rows`. Row lists ascend within a
/// segment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grouped {
    /// What is done to the rows of a segment.
    pub gemm: Gemm,
    /// How many segments there are.
    pub segments: u32,
    /// `u32`, one column: for each segment how many rows it and those before it have.
    pub ends: Slot,
    /// Constants of which each segment has rows of its own.
    pub shifts: Vec<Shift>,
}

/// A constant of which each segment has rows of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shift {
    /// The constant.
    pub slot: Slot,
    /// How many.
    pub rows: u32,
}

impl Grouped {
    /// Rows of a constant that each segment has for itself, if it has.
    pub fn rows_of(&self, slot: Slot) -> Option<u32> {
        self.shifts.iter().find(|shift| shift.slot == slot).map(|shift| shift.rows)
    }
}

/// Columns of a matmul: `acc_s[i, j] = Σ_k a[i, k] · weight_s[row_s + j, k]` for each sum `s` (for weights in rows; of
/// others [`WeightLayout::place`] says where output `row_s + j` has factor `k`), then the epilogue on every element `(i, j)`. Sums are f32 (f32 operands: no tf32; bf16 operands: exact products).
///
/// The sums of a narrow part ([`Part::is_narrow`]) add up in one order whatever the extent: decisions of a router do not
/// depend on how many rows there are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Columns of each sum.
    pub n: u32,
    /// How the weights of all sums lie in memory.
    pub layout: WeightLayout,
    /// The sums, at most [`MAX_SUMS`]: several for a gated pair, a difference of scores, or the terms of a weight.
    pub sums: Vec<Sum>,
    /// What becomes of the sums; it has `n` columns, and [`crate::pointwise::Inst::Acc`] `s` is sum `s`.
    pub epilogue: Pointwise,
}

/// How the weight of a sum lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightLayout {
    /// `[outputs, k]`: what makes one column of the sum is a row.
    Rows,
    /// `[k, outputs]`: what makes one column of the sum is a column, so that a processor finds neighbouring columns'
    /// factors side by side.
    Columns,
    /// `[⌈outputs / c⌉ · ⌈k / t⌉, c · t]` with `c` [`PANEL_COLS`] and `t` 1 for f32, 2 for bf16, 4 for i8: a panel for each `c`
    /// outputs, a row of which has `t` factors of each of them, output by output, or those of i8 factor by factor, since a
    /// processor widens bytes that lie side by side in one instruction. A sum begins with a panel. What is past the last output or
    /// factor is 0. A register tile of a processor finds all that it needs in one run.
    Panels,
    /// `[⌈k / t⌉, t · outputs]` with `t` [`SWIZZLE_TERMS`]: a row has `t` factors of each output, output by output. Pieces
    /// of eight of them stand at their place xor the output's place in its group of eight. What is past the last factor
    /// is 0. What a tile of tensor cores takes of a row is one run of memory, which lies there as they want it in shared
    /// memory: of bf16 this is the 128-byte swizzle (PTX ISA 9.0, section 5.5.6), by which the same piece of eight outputs
    /// lies in eight different banks.
    Swizzled,
    /// [`WeightLayout::Panels`] of whole numbers of 8 bits, with a scale for each [`BLOCK_TERMS`] factors of an output in
    /// panels of their own, see [`Sum::scales`].
    Levels,
}

/// Outputs of a panel of weights.
pub const PANEL_COLS: u32 = 32;

/// Neighbouring factors of an output that have one scale, see [`WeightLayout::Levels`].
pub const BLOCK_TERMS: u32 = 32;

/// Factors of an output in a row of [`WeightLayout::Swizzled`]: 128 bytes of bf16.
pub const SWIZZLE_TERMS: u32 = 64;

impl WeightLayout {
    /// Whether factors lie in rows or columns and nothing else: only then may they have another type than the left operand.
    pub(crate) fn is_plain(self) -> bool {
        matches!(self, WeightLayout::Rows | WeightLayout::Columns)
    }

    /// The layout for matmuls of a type on a target, if its generator has no wish of its own: vectors of a processor hold
    /// neighbouring columns of a result, tensor cores take both operands with `k` along their rows, and Hopper's copies
    /// want runs of memory. All of CUDA has one, so that its targets share plans and constants.
    pub fn on(target: &Target, dtype: DType) -> WeightLayout {
        match target {
            Target::Cpu => WeightLayout::Columns,
            Target::Cuda(_) if dtype == DType::Bf16 => WeightLayout::Swizzled,
            Target::Cuda(_) => WeightLayout::Rows,
        }
    }

    /// Rows and columns of a weight of so many outputs over `k` factors; `None` if they are too many.
    pub fn shape(self, (outputs, k): (u32, u32), dtype: DType) -> Option<(u32, u32)> {
        match self {
            WeightLayout::Rows => Some((outputs, k)),
            WeightLayout::Columns => Some((k, outputs)),
            WeightLayout::Panels | WeightLayout::Levels => {
                let terms = panel_terms(dtype);
                let rows = outputs.div_ceil(PANEL_COLS).checked_mul(k.div_ceil(terms))?;
                Some((rows, PANEL_COLS * terms))
            }
            WeightLayout::Swizzled => Some((k.div_ceil(SWIZZLE_TERMS), outputs.checked_mul(SWIZZLE_TERMS)?)),
        }
    }

    /// Row and column of the factor number `inner` of an output, of `k` factors.
    pub fn place(self, (output, inner): (u64, u64), k: u32, dtype: DType) -> (u64, u64) {
        match self {
            WeightLayout::Rows => (output, inner),
            WeightLayout::Columns => (inner, output),
            WeightLayout::Panels | WeightLayout::Levels => {
                let (cols, terms) = (u64::from(PANEL_COLS), u64::from(panel_terms(dtype)));
                let row = output / cols * u64::from(k).div_ceil(terms) + inner / terms;
                (row, place_in_panel((output % cols, inner % terms), terms))
            }
            WeightLayout::Swizzled => {
                let terms = u64::from(SWIZZLE_TERMS);
                let piece = (inner % terms / 8) ^ (output % 8);
                (inner / terms, output * terms + piece * 8 + inner % 8)
            }
        }
    }
}

/// Where a row of a panel that has so many factors of each output has one of them: bytes lie factor by factor, see
/// [`WeightLayout::Panels`].
pub(crate) fn place_in_panel((output, factor): (u64, u64), terms: u64) -> u64 {
    match terms == u64::from(panel_terms(DType::I8)) {
        true => factor * u64::from(PANEL_COLS) + output,
        false => output * terms + factor,
    }
}

/// Factors of an output in a row of a panel: as many as fill four bytes.
pub fn panel_terms(dtype: DType) -> u32 {
    (4 / dtype.size()).max(1)
}

/// The weight of a sum: as many of its outputs as the part has columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sum {
    /// A constant of the type of the left operand, or of i8 in [`WeightLayout::Levels`].
    pub weight: Slot,
    /// The output that is the first column.
    pub row: u32,
    /// What the factors of [`WeightLayout::Levels`] are multiplied with, and no others: a matrix with the outputs of the weight
    /// and one factor for each [`BLOCK_TERMS`] of its own, of bf16 in [`WeightLayout::Panels`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scales: Option<Slot>,
}

impl Sum {
    /// A sum over a weight without scales.
    pub fn of(weight: Slot, row: u32) -> Sum {
        Sum { weight, row, scales: None }
    }
}

impl Part {
    /// A part whose sums are over the first `n` rows of these weights.
    pub fn of(n: u32, weights: &[Slot], epilogue: Pointwise) -> Part {
        let sums = weights.iter().map(|weight| Sum::of(*weight, 0)).collect();
        Part { n, layout: WeightLayout::Rows, sums, epilogue }
    }

    /// Whether the part makes a few numbers a row, such as the scores of a router.
    pub fn is_narrow(&self) -> bool {
        self.n.saturating_mul(self.sums.len() as u32) <= NARROW_COLS
    }

    /// Whether its columns are few, each with its factors side by side: code for a host makes them by dot products, since a panel of
    /// them would be nearly empty.
    pub fn takes_dots(&self) -> bool {
        self.is_narrow() && self.layout == WeightLayout::Rows
    }
}

/// For each query row and head: softmax over the key rows of its sequence with `k_pos ≤ q_pos`, and within the window if
/// there is one, of the scores that [`Scoring`] makes of `q · k`, times `v`; zeros if there is no such key. Key rows are ordered by (sequence, position), so the
/// keys that a query sees are one range. Scores, softmax and sums are f32.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attention {
    /// Query heads.
    pub heads: u32,
    /// Key and value heads; query head `h` uses `h / (heads / kv_heads)`.
    pub kv_heads: u32,
    /// Columns of a head.
    pub width: u32,
    /// Which scores.
    #[serde(default, skip_serializing_if = "Scoring::is_plain")]
    pub scoring: Scoring,
    /// Queries, `[extent, heads · width]`; dense.
    pub q: View,
    /// Position and sequence of each query row, `u32`.
    pub q_pos: View,
    /// Sequence of each query row.
    pub q_seq: View,
    /// How many key rows there are.
    pub kv_extent: Extent,
    /// Keys, `[kv_extent, kv_heads · width]`; dense.
    pub k: View,
    /// Values, as the keys.
    pub v: View,
    /// Position of each key row, `u32`.
    pub k_pos: View,
    /// Sequence of each key row.
    pub k_seq: View,
    /// Result, `[extent, heads · width]`; dense.
    pub out: Slot,
}

/// As [`Attention`], over the rows of a cache that the pages of a sequence name: key `j` of sequence `s` is row
/// `16 · pages[s, j / 16] + j % 16`, and a query sees the keys 0 to its position that are present. All of them have to be
/// there: what pages say of positions past a query's is not read.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CachedAttention {
    /// Query heads.
    pub heads: u32,
    /// Key and value heads; query head `h` uses `h / (heads / kv_heads)`.
    pub kv_heads: u32,
    /// Columns of a head.
    pub width: u32,
    /// Which scores.
    #[serde(default, skip_serializing_if = "Scoring::is_plain")]
    pub scoring: Scoring,
    /// Queries, `[extent, heads · width]`; dense.
    pub q: View,
    /// Position of each query row, `u32`.
    pub q_pos: View,
    /// Sequence of each query row: its row of the pages.
    pub q_seq: View,
    /// Keys, `[rows of the cache, kv_heads · width]`.
    pub k: Slot,
    /// Values, as the keys.
    pub v: Slot,
    /// `u32`, a row for each sequence, with a column for each page that it can have.
    pub pages: Slot,
    /// `u8`, one column and a row for each of the cache: not 0 where there is a key; without it there is one everywhere.
    pub present: Option<Slot>,
    /// Result, `[extent, heads · width]`; dense.
    pub out: Slot,
}

/// Which norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// `x · rsqrt(mean(x²) + eps) · gain`.
    Rms,
    /// `(x − mean) · rsqrt(var + eps) · gain + bias`, with this bias.
    Layer {
        /// `f32`, one row.
        bias: Slot,
    },
}

/// Work in which a row of the result depends on one row of each operand.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rowwise {
    /// A pointwise program over `[extent, cols]`.
    Map {
        /// Columns.
        cols: u32,
        /// The program; it has no [`crate::pointwise::Inst::Acc`].
        program: Pointwise,
    },
    /// A norm over the columns, or over each of several groups of them; statistics in f32.
    Norm {
        /// Which.
        kind: NormKind,
        /// Added under the root.
        eps: Real,
        /// Columns.
        cols: u32,
        /// Groups of them, such as heads, each with a norm of its own.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        groups: u32,
        /// Operand.
        x: View,
        /// `f32`, one row, which all groups share.
        gain: Slot,
        /// Result, `[extent, cols]`; dense.
        out: Slot,
    },
    /// What [`NormKind::Rms`] scales each row by: `out[i] = rsqrt(mean(x[i]²) + eps)`, in f32.
    RowScale {
        /// Added under the root.
        eps: Real,
        /// Columns.
        cols: u32,
        /// Operand.
        x: View,
        /// Result, `f32 [extent, 1]`; dense.
        out: Slot,
    },
    /// Rows of a table by id; an id that is not below `n_ids` gives zeros (the host refuses such ids beforehand).
    Embed {
        /// Columns.
        cols: u32,
        /// `u32`, one column.
        ids: View,
        /// Rows of the table.
        n_ids: u32,
        /// Table, `[n_ids, cols]`.
        table: Slot,
        /// Result, `[extent, cols]`; dense.
        out: Slot,
    },
    /// The `k` of `n` experts with the highest scores: their scores in ascending order of experts, and behind those which they
    /// are. See [`skipc_ir::interp::functions::choose`].
    Choose {
        /// Of how many.
        n: u32,
        /// How.
        choice: Choice,
        /// `f32 [extent, n]`.
        logits: View,
        /// `f32`, one row of `n`: added to scores where they are ranked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bias: Option<Slot>,
        /// What replaces them, if choices can be replayed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replay: Option<Replay>,
        /// Result, `f32 [extent, 2k]`, or `3k` with what choices rank by; dense.
        out: Slot,
    },
    /// Which choices of a row find a place at their expert, and −1 for those that do not. The one kind that looks at other rows:
    /// those of its group. See [`Limit`].
    Limit(Limit),
    /// Rotary embedding, half-split: within the columns of each head that turn `(a, b) → (a·cos − b·sin, b·cos + a·sin)`.
    Rope {
        /// Heads.
        heads: u32,
        /// Columns of a head; even.
        width: u32,
        /// How many of them turn, if not all do: the first so many, an even number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        turned: Option<u32>,
        /// Operand, `[extent, heads · width]`.
        x: View,
        /// `u32`, one column; below the rows of the tables.
        positions: View,
        /// `f32 [max_positions, pairs that turn]`.
        cos: Slot,
        /// `f32 [max_positions, pairs that turn]`.
        sin: Slot,
        /// Result, `[extent, heads · width]`; dense. May be the same buffer as a dense `x`.
        out: Slot,
    },
}

/// Which experts a row takes, and how much each counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// How many.
    pub k: u32,
    /// Scores are sigmoids of logits, not their softmax.
    pub sigmoid: bool,
    /// Those of the chosen are divided by their sum.
    pub normalise: bool,
    /// What they are multiplied with.
    pub scale: Real,
    /// What choices rank by among those of other rows, if that is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranks: Option<Ranking>,
}

/// Choices that are replayed in place of those with the highest scores: see [`skipc_ir::Op::ChooseOrReplay`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// `u32 [1, 1]`: if not 0, choices are replayed.
    pub use_forced: Slot,
    /// `f32 [extent, k]`: whole numbers, of which those below 0 are no choices.
    pub choices: View,
}

/// Of the choices of the rows of a group each expert keeps so many: those with the higher rank, then those of earlier rows. Rows
/// are ordered by (sequence, position), so that a group is a range of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Choices of a row; no two of them are one, but for those that are −1, none.
    pub k: u32,
    /// `f32 [extent, k]`: whole numbers.
    pub index: View,
    /// `f32 [extent, k]`, higher first; without it earlier rows come first alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranks: Option<View>,
    /// Position of each row: `u32`, one column.
    pub positions: View,
    /// Sequence of each row: `u32`, one column.
    pub sequences: View,
    /// Positions of a group, counted from 0; without it a sequence is a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_size: Option<u32>,
    /// How many choices an expert keeps.
    pub keep: KeepChoices,
    /// Result, `f32 [extent, k]`; dense.
    pub out: Slot,
}

/// How many choices of a group an expert keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeepChoices {
    /// This many, if it is one of the first `experts`; others keep all.
    Slots {
        /// How many.
        slots: u32,
        /// Which have a limit.
        experts: u32,
    },
    /// This many, less those of earlier tokens of the group, whose choices are found in a cache: those of earlier steps, and of this
    /// one, which are stored there before. Choices have no ranks.
    Left {
        /// How many if none are taken.
        slots: u32,
        /// Which have a limit.
        experts: u32,
        /// `f32`, `k` columns and a row for each of the cache: the choices of each token.
        before: Slot,
        /// `u32`, a row for each sequence: the pages of the cache in which its tokens lie.
        pages: Slot,
        /// `u8`, one column and a row for each of the cache: not 0 where a token has choices; without it all have.
        present: Option<Slot>,
    },
    /// [`functions::share_of`] the tokens of the group. The choice at place `p` of a row is `p`, or none.
    Share {
        /// Experts that a token gets on average.
        top_k: u32,
        /// How many tokens there are.
        extent: Extent,
        /// Position of each: `u32`, one column.
        positions: View,
        /// Sequence of each: `u32`, one column.
        sequences: View,
    },
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_one(number: &u32) -> bool {
    *number == 1
}

/// Which rows of the extent make the set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Select {
    /// Those whose score is at least the threshold (compared in f32).
    AtLeast {
        /// `f32`, one column from `col` on.
        scores: View,
        /// The threshold.
        #[serde(with = "crate::real")]
        threshold: Real,
    },
    /// Those for which [`skipc_ir::random_score`] is below `limit`.
    Random {
        /// What is drawn for, a position or a token id: `u32`, one column.
        ids: View,
        /// In which sequence, if that matters: `u32`, one column.
        sequences: Option<View>,
        /// Seed of the router.
        seed: u64,
        /// Index of the block in the model.
        block: u32,
        /// density · 2³², at most 2³².
        limit: u64,
    },
    /// Those that are not in another set: `u8`, one column, not 0 where the row is in it.
    NotIn(Slot),
    /// Those that are in another set or at a position before `first`.
    WithFirst {
        /// `u8`, one column, not 0 where the row is in the other set.
        chosen: Slot,
        /// `u32`, one column.
        positions: View,
        /// How many positions of each sequence.
        first: u32,
    },
    /// Those that are in both of two sets, each as for [`Select::NotIn`].
    InBoth([Slot; 2]),
    /// Those that take part and that rank among the first of their segment.
    Ranked(Ranked),
}

/// Rows of which each segment keeps the first so many. Rows are ordered by (sequence, position), so that a segment is
/// a range of rows; no row of another stands between two of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ranked {
    /// Which rows take part.
    pub among: Candidates,
    /// Sequence of each row: `u32`, one column. Without it all rows are of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequences: Option<View>,
    /// What shares the places that are kept.
    pub segment: Segment,
    /// Which candidates come first.
    pub order: RankOrder,
    /// How many candidates are kept, at most.
    pub keep: Keep,
}

/// Which rows take part in a ranking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Candidates {
    /// Every row.
    All,
    /// Those of another set: `u8`, one column, not 0 where the row is in it.
    Masked(Slot),
}

/// Rows that share the places that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Segment {
    /// All of one sequence.
    Sequence,
    /// Those of one sequence whose positions are in one group of `size`, counted from 0.
    Group {
        /// `u32`, one column.
        positions: View,
        /// Positions of a group, at least 1.
        size: u32,
    },
}

/// Which candidates of a segment come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RankOrder {
    /// The earlier ones.
    Position,
    /// Those with the higher score, earlier ones of equals. A score that is not a number counts as −∞.
    Score(View),
}

/// How many candidates of a segment are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// This many.
    Slots(u32),
    /// This many, less those that earlier steps wanted of a group that goes on in this one: of the positions from where the
    /// group begins to that of its first row here.
    Left {
        /// How many if none are taken.
        slots: u32,
        /// `u8`, one column and a row for each of the cache: not 0 where earlier steps wanted the token.
        before: Slot,
        /// `u32`, a row for each sequence: the pages of the cache in which its tokens lie.
        pages: Slot,
    },
    /// [`skipc_ir::top_k`] of this share and of the segment's rows, whether they take part or not, rounded up.
    Share(Real),
    /// The same, rounded down.
    ShareDown(Real),
}

/// Changes a state in place. One task: order matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Update {
    /// Row `places[i]` of the cache becomes `rows[i]`. Rows of one place are equal.
    StoreRows {
        /// Columns.
        cols: u32,
        /// The rows, `[extent, cols]`, of the cache's type.
        rows: View,
        /// `u32`, one column.
        places: View,
        /// The cache.
        cache: Slot,
    },
    /// `sum[j] += Σ_i x[i, j]`, in f32, rows in order.
    AddRows {
        /// Columns.
        cols: u32,
        /// The rows, `[extent, cols]`.
        x: View,
        /// `f32`, one row.
        sum: Slot,
    },
}

/// Makes a token set: a mask, the ascending list of its rows and their count. One task: order matters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compact {
    /// Which rows.
    pub select: Select,
    /// `u32 [1, 1]`: if not 0, `forced` decides instead of `select`.
    pub use_forced: Slot,
    /// `u8`, one column: decisions to replay.
    pub forced: Slot,
    /// `u32`, one column: the row list; rows past the count are left alone.
    pub rows: Slot,
    /// `u32 [1, 1]`: how many rows.
    pub count: Slot,
    /// `u8`, one column: 1 where the row is in the set, 0 elsewhere within the extent.
    pub mask: Slot,
}

/// Lists rows by segment: those whose index is `first`, then those whose index is the next, and so on, each in order. Rows with
/// an index of none of the `parts` segments are left out. One task: order matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// `f32`, one column: whole numbers.
    pub index: View,
    /// The index of the first segment.
    pub first: u32,
    /// How many segments there are.
    pub parts: u32,
    /// `u32`, one column: the row list; rows past the count are left alone.
    pub rows: Slot,
    /// `u32 [parts, 1]`: for each segment how many rows it and those before it have.
    pub ends: Slot,
    /// `u32 [1, 1]`: how many rows all have.
    pub count: Slot,
}

/// Lists rows of a cache: for each sequence that has a row in `executed`, and for each with more rows that wait than may,
/// those of its positions from the first that waits to its last in this step. Rows of a sequence follow each other, by
/// position; places of its cache are found as by [`CachedAttention`]. One task: order matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// `u8`, one column: not 0 where the token executes.
    pub executed: Slot,
    /// Position of each token: `u32`, one column.
    pub positions: View,
    /// Sequence of each token: `u32`, one column.
    pub sequences: View,
    /// `u32`, a row for each sequence: the pages of the cache in which its tokens lie.
    pub pages: Slot,
    /// `u32`, a row for each sequence: the first position that waits, by router, and in the last column how many may wait.
    pub pending: Slot,
    /// The column of the router.
    pub router: u32,
    /// `u32`, one column: the list; what is past the count is left alone.
    pub rows: Slot,
    /// `u32 [1, 1]`: how many rows.
    pub count: Slot,
}

impl Choice {
    /// The same for the interpreters.
    pub fn rule(&self) -> functions::Choice {
        let Choice { k, sigmoid, normalise, scale, ranks } = *self;
        functions::Choice { k: k as usize, sigmoid, normalise, scale: scale.0, ranks }
    }
}

impl Kernel {
    /// Which parameters it writes to, by index.
    pub fn writes(&self) -> Vec<u32> {
        let written = (0..).zip(&self.params).filter(|(_, param)| param.access != Access::Read);
        written.map(|(idx, _)| idx).collect()
    }

    /// A name that says what it does, such as `gemm_128x384`; unique only within a plan that numbers its kernels.
    pub fn describe(&self) -> String {
        match &self.body {
            Body::Gemm(gemm) => gemm.describe(),
            Body::Grouped(grouped) => format!("grouped_{}_{}", grouped.segments, grouped.gemm.describe()),
            Body::Attention(attention) => {
                format!("attention_{}x{}x{}", attention.heads, attention.kv_heads, attention.width)
            }
            Body::CachedAttention(CachedAttention { heads, kv_heads, width, present, .. }) => {
                let some = if present.is_some() { "_of_some" } else { "" };
                format!("cached_attention_{heads}x{kv_heads}x{width}{some}")
            }
            Body::Along(along) => along.describe(),
            Body::Rowwise(Rowwise::Map { cols, .. }) => format!("map_{cols}"),
            Body::Rowwise(Rowwise::Norm { kind, cols, groups, .. }) => {
                let word = match kind {
                    NormKind::Rms => "rms_norm",
                    NormKind::Layer { .. } => "layer_norm",
                };
                match groups {
                    1 => format!("{word}_{cols}"),
                    _ => format!("{word}_{groups}x{}", cols / groups.max(&1)),
                }
            }
            Body::Rowwise(Rowwise::RowScale { cols, .. }) => format!("inv_rms_{cols}"),
            Body::Rowwise(Rowwise::Embed { cols, .. }) => format!("embed_{cols}"),
            Body::Rowwise(Rowwise::Choose { n, choice, .. }) => format!("choose_{}_of_{n}", choice.k),
            Body::Rowwise(Rowwise::Limit(limit)) => format!("limit_{}", limit.k),
            Body::Partition(partition) => format!("partition_{}", partition.parts),
            Body::Rowwise(Rowwise::Rope { heads, width, .. }) => format!("rope_{heads}x{width}"),
            Body::Compact(Compact { select: Select::AtLeast { .. }, .. }) => "compact_at_least".to_owned(),
            Body::Compact(Compact { select: Select::Random { .. }, .. }) => "compact_random".to_owned(),
            Body::Compact(Compact { select: Select::NotIn(_), .. }) => "compact_not_in".to_owned(),
            Body::Compact(Compact { select: Select::WithFirst { .. }, .. }) => {
                "compact_with_first".to_owned()
            }
            Body::Compact(Compact { select: Select::InBoth(_), .. }) => "compact_in_both".to_owned(),
            Body::Compact(Compact { select: Select::Ranked(ranked), .. }) => ranked.describe(),
            Body::Pending(_) => "pending".to_owned(),
            Body::Update(Update::StoreRows { cols, .. }) => format!("store_rows_{cols}"),
            Body::Update(Update::AddRows { cols, .. }) => format!("add_rows_{cols}"),
            Body::Loops(loops) => loops.name.clone(),
            Body::WeightGradient(gradient) => format!("weight_gradient_{}", gradient.cols),
        }
    }

    /// The parameter that a slot names.
    pub fn param(&self, slot: Slot) -> &Param {
        &self.params[slot.0 as usize]
    }
}

impl Gemm {
    /// Such as `gemm_128x64_64_1_by_2_gathered`: inner size, columns of the parts, the last of which has two sums.
    fn describe(&self) -> String {
        let columns: Vec<String> = self
            .parts
            .iter()
            .map(|part| match part.sums.len() {
                1 => part.n.to_string(),
                n_sums => format!("{}_by_{n_sums}", part.n),
            })
            .collect();
        let gathered = if matches!(self.a.rows, Rows::Listed(_)) { "_gathered" } else { "" };
        let mut stores = self.parts.iter().flat_map(|part| &part.epilogue.stores);
        let scattered =
            if stores.any(|store| matches!(store.to.rows, Rows::Listed(_))) { "_scattered" } else { "" };
        format!("gemm_{}x{}{gathered}{scattered}", self.k, columns.join("_"))
    }
}

impl Ranked {
    /// Such as `compact_best_of_sequence`.
    fn describe(&self) -> String {
        let order = match self.order {
            RankOrder::Position => "first",
            RankOrder::Score(_) => "best",
        };
        let segment = match (self.segment, self.sequences) {
            (Segment::Sequence, None) => "batch",
            (Segment::Sequence, Some(_)) => "sequence",
            (Segment::Group { .. }, _) => "group",
        };
        let going_on = match self.keep {
            Keep::Left { .. } => "_going_on",
            Keep::Slots(_) | Keep::Share(_) | Keep::ShareDown(_) => "",
        };
        format!("compact_{order}_of_{segment}{going_on}")
    }
}
