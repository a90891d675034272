//! The table of ops of training: what the backward pass and the update of weights need and other ops cannot say. One row
//! defines an op, as in [`crate::ops`]; what it means stands in `op/training/`.
//!
//! A gradient of a row has the type of what it is the gradient of, that of a weight is f32: it is a sum over rows, which nothing
//! rounds before the weight changes. `dy` is the gradient of an op's result.

use std::fmt;

use crate::attr::{Attr, F64, Literal};
use crate::elementwise::Unary;
use crate::ops::{AttrError, OpInfo, PrintAttr, Trait, check_names, print_list, read_attr};
use crate::rope::RopeScaling;

macro_rules! training {
    ($(
        $(#[doc = $doc:literal])+
        $Name:ident = $text:literal ($($operand:ident),* $(; $optional:ident)?) {$($attr:ident: $Attr:ty),*} [$($Trait:ident),*];
    )+) => {
        /// Ops of training. See the table in the source of this module.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Training {
            $(
                $(#[doc = $doc])+
                $Name {
                    $(
                        #[doc = concat!("Attribute `", stringify!($attr), "`.")]
                        $attr: $Attr
                    ),*
                },
            )+
        }

        const ROWS: &[OpInfo] = &[
            $(OpInfo {
                name: $text,
                operands: &[$(stringify!($operand),)* $(stringify!($optional))?],
                last_is_optional: !<[&str]>::is_empty(&[$(stringify!($optional))?]),
                attrs: &[$((stringify!($attr), <$Attr as Attr>::KIND)),*],
                traits: &[$(Trait::$Trait),*],
                doc: concat!($($doc, "\n"),+),
            },)+
        ];

        /// Rows of the table by name.
        enum Line { $($Name),+ }

        impl Training {
            /// The table.
            pub fn rows() -> impl Iterator<Item = &'static OpInfo> {
                ROWS.iter()
            }

            /// Its row of the table.
            pub(crate) fn row(self) -> &'static OpInfo {
                match self { $(Training::$Name { .. } => &ROWS[Line::$Name as usize],)+ }
            }

            /// The op of this name with these attributes, if there is one of the name.
            pub(crate) fn read(name: &str, attrs: &[(String, Literal)]) -> Result<Option<Training>, AttrError> {
                match name {
                    $($text => {
                        let info = &ROWS[Line::$Name as usize];
                        check_names(info, attrs)?;
                        Ok(Some(Training::$Name { $($attr: read_attr::<$Attr>(info, stringify!($attr), attrs)?),* }))
                    })+
                    _ => Ok(None),
                }
            }

            pub(crate) fn print_attrs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Training::$Name { $($attr),* } => {
                        print_list(f, &[$((stringify!($attr), $attr as &dyn PrintAttr)),*])
                    })+
                }
            }
        }
    };
}

training! {
    /// A number that is known when the program is compiled, `f32[1, 1]`.
    Constant = "constant" () {value: F64} [Leaf];
    /// What a state `state<f32[r, c]>` holds of a parameter that is trained, as the weight `real[r, c]` (`rank` 2) or, with
    /// one row, `real[c]` (`rank` 1). Where rows are computed in bf16, matrices are rounded for matmuls and embeddings, and
    /// neither the weights of routers nor vectors are.
    Parameter = "parameter" (state) {rank: u32} [];
    /// Every element of `x` times the number `factor`, `f32[1, 1]`.
    Times = "times" (x, factor) {} [];
    /// `by_a · a + by_b · b` for tensors whose rows are no tokens, of one type.
    Combine = "combine" (a, b) {by_a: F64, by_b: F64} [];
    /// `y` as it is. In the backward pass `probability` `f32[r, 1]` has the gradient `⟨dy, value⟩` of its row, in place of
    /// that of the decision that `y` came from, and `value` has none.
    StraightThrough = "straight_through" (y, probability, value) {} [RowWise];
    /// How many rows a set has, `f32[1, 1]`.
    SetSize = "set_size" (set) {} [CountsRows];
    /// `(count / tokens − target)²`, where `count` is how many tokens a router wants to execute. In the backward pass the
    /// sum of `probability` `f32[n, 1]` stands for the count.
    RateLoss = "rate_loss" (count, probability, tokens) {target: F64} [];
    /// `−(1 / tokens) Σ ln softmax(logits)[target]` over the rows, `f32[1, 1]`.
    CrossEntropy = "cross_entropy" (logits, targets, tokens) {} [];
    /// `(1 / tokens) Σ q · (ln q − ln p)` over the rows, `f32[1, 1]`, with `p` the softmax of `logits / temperature` and `q`
    /// that of `goal / temperature`, which has no gradient.
    Divergence = "divergence" (logits, goal, tokens) {temperature: F64} [];

    /// Of `matmul`, by its weight: `dyᵀ · x`, `[r, k], [r, o] → f32[o, k]`, summed over the rows in order.
    WeightGradient = "weight_gradient" (x, dy) {} [];
    /// Of `matmul`, by its rows: `dy · weight`, `[r, o], [o, k] → real[r, k]`.
    InputGradient = "input_gradient" (dy, weight) {} [RowWise];
    /// Of `add_bias` by its bias: the sum of all rows and, if there are groups of columns, of all groups: `f32[d / groups]`.
    ColumnSums = "column_sums" (dy) {groups: Option<u32>} [];
    /// Of `embed` by its table of so many rows: row `i` is the sum of the rows of `dy` whose id is `i`, in order.
    EmbedGradient = "embed_gradient" (dy, ids) {rows: u32} [];
    /// `dy` times the derivative of a function without attributes at `x`.
    Derivative = "derivative" (x, dy) {of: Unary} [RowWise, Pointwise];
    /// Of `rms_norm` by `x`.
    RmsNormGradient = "rms_norm_gradient" (x, gain, dy) {eps: F64, groups: Option<u32>} [RowWise];
    /// Of `rms_norm` by its gain.
    RmsGainGradient = "rms_gain_gradient" (x, dy) {eps: F64, groups: Option<u32>} [];
    /// Of `layer_norm` by `x`.
    LayerNormGradient = "layer_norm_gradient" (x, gain, dy) {eps: F64, groups: Option<u32>} [RowWise];
    /// Of `layer_norm` by its gain.
    LayerGainGradient = "layer_gain_gradient" (x, dy) {eps: F64, groups: Option<u32>} [];
    /// Of `rope`: each pair turns back.
    RopeGradient = "rope_gradient" (dy, positions) {heads: u32, theta: F64, turned: Option<u32>, scaling: Option<RopeScaling>} [RowWise];
    /// Of `attention`: for each query and head, as three neighbouring columns, its largest score, the sum of `e` to the scores
    /// less that, and those times `⟨dy, v⟩`: `f32[r, 3 · heads]`.
    AttentionSums = "attention_sums" (q, k, v, q_pos, q_seq, k_pos, k_seq, dy) {heads: u32, kv_heads: u32, scale: Option<F64>, cap: Option<F64>, window: Option<u32>, ahead: Option<u32>} [];
    /// Of `attention` by `q`; a query that sees no key has the gradient 0.
    QueryGradient = "query_gradient" (q, k, v, q_pos, q_seq, k_pos, k_seq, dy, sums) {heads: u32, kv_heads: u32, scale: Option<F64>, cap: Option<F64>, window: Option<u32>, ahead: Option<u32>} [];
    /// Of `attention` by `k` and, in the columns behind, by `v`, summed over queries in order.
    KeyValueGradient = "key_value_gradient" (q, k, v, q_pos, q_seq, k_pos, k_seq, dy, sums) {heads: u32, kv_heads: u32, scale: Option<F64>, cap: Option<F64>, window: Option<u32>, ahead: Option<u32>} [];
    /// `Σ a · b` over the columns of each row, `f32[r, 1]`.
    RowDot = "row_dot" (a, b) {} [RowWise];
    /// Of `slice`: `cols` columns, of which those from `start` on are those of `dy` and the others 0.
    PlaceColumns = "place_columns" (dy) {start: u32, cols: u32} [RowWise];
    /// As many zeros as `x` has elements.
    ZerosLike = "zeros_like" (x) {} [RowWise, Pointwise];
    /// Of `rate_loss` by each row of `probability`: `2 · (count / tokens − target) / tokens · dy`.
    RateLossGradient = "rate_loss_gradient" (count, probability, tokens, dy) {target: F64} [];
    /// Of `cross_entropy`: `(softmax(logits) − one at the target) / tokens · dy`.
    CrossEntropyGradient = "cross_entropy_gradient" (logits, targets, tokens, dy) {} [RowWise];
    /// Of `divergence` by `logits`: `(p − q) / (temperature · tokens) · dy`.
    DivergenceGradient = "divergence_gradient" (logits, goal, tokens, dy) {temperature: F64} [RowWise];

    /// A state `state<f32[r, c]>` and on it a gradient `f32[r, c]` or, with one row, `f32[c]`.
    Accumulate = "accumulate" (state, x) {} [UpdatesState];
    /// A state of numbers with all of them 0.
    Clear = "clear" (state) {} [UpdatesState];
    /// The sum of the squares of a state's elements, `f32[1, 1]`.
    SumSquares = "sum_squares" (state) {} [];
    /// What a state holds, times the number `factor`.
    ReadScaled = "read_scaled" (state, factor) {} [];
    /// `x² + plus`.
    Squares = "squares" (x) {plus: F64} [];
    /// The mean of each row of a matrix of fixed size, `f32[r, 1]`.
    RowMeans = "row_means" (x) {} [];
    /// The mean of each column of a matrix of fixed size, `f32[1, c]`.
    ColumnMeans = "column_means" (x) {} [];
    /// `w₀ · state + w₁ · x` with the two numbers `weights`, `f32[1, 2]`.
    MovingAverage = "moving_average" (state, x, weights) {} [UpdatesState];
    /// AdamW (Loshchilov and Hutter 2019): `r₀ · weight − r₁ · mean / (√square / r₂ + eps)` with the three numbers `rates`,
    /// `f32[1, 3]`: what decay leaves, the rate over `1 − β₁ᵗ`, and `√(1 − β₂ᵗ)`.
    AdamW = "adamw" (weight, mean, square, rates) {eps: F64} [UpdatesState];
    /// Adafactor (Shazeer and Stern 2018, algorithm 4): with `u` the `gradient` over the root of `square`, or of the product of
    /// its means by row and by column over their mean, and at most `clip` in root mean square, `r₀ · weight − r₁ · s · u` with the
    /// two numbers `rates`, `f32[1, 2]`; `s` is the root mean square of `weight`, not below `least`, or 1 without it.
    Adafactor = "adafactor" (weight, gradient, rates, square; columns) {clip: F64, least: Option<F64>} [UpdatesState];
}

/// A function of one number as an attribute: its word; those with attributes of their own are none.
impl Attr for Unary {
    const KIND: &'static str = "function";

    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }

    fn read(literal: &Literal) -> Option<Unary> {
        match literal {
            Literal::Word(word) => Unary::read(word, &[]).ok().flatten(),
            _ => None,
        }
    }
}
