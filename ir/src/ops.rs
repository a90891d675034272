//! The table of all ops. One row defines an op: its enum variant, text form, operands, attributes, traits and
//! documentation all come from here; what it means (`infer`, `eval`) stands in `op/`, a file per family. The rows of
//! elementwise functions stand in [`crate::elementwise`], those of training in [`crate::training`].

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;

use crate::attr::{Attr, F64, Literal, Name, Shape};
use crate::elementwise::{Binary, Unary};
use crate::port::Port;
use crate::ranking::Ranking;
use crate::rope::RopeScaling;
use crate::rounding::Rounding;
use crate::training::Training;
use crate::ty::SetSym;

/// A property that passes ask for instead of listing ops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trait {
    /// Row `i` of the result depends only on row `i` of the operands that have token rows: it commutes with `gather`.
    RowWise,
    /// `RowWise`, and element `(i, j)` depends only on column `j` (or on an operand with one column).
    Pointwise,
    /// Makes a token set and with it a new dimension.
    OpensScope,
    /// Takes rows of a set back to the rows that the set selects from.
    ClosesScope,
    /// Has no operands: the host or the weights give its value.
    Leaf,
    /// Makes the next value of a state of its first operand, which it uses up.
    UpdatesState,
    /// Known when the model is compiled: a weight, or what is made of weights alone.
    Constant,
    /// Elements of the result are elements of operands as they were, of whatever kind.
    Copies,
    /// Takes of its operand how many rows it has, and nothing that they hold.
    CountsRows,
}

/// One row of the table.
#[derive(Debug)]
pub struct OpInfo {
    /// The word in the text form.
    pub name: &'static str,
    /// Names of the operands, in order.
    pub operands: &'static [&'static str],
    /// Whether the last operand may be left out.
    pub last_is_optional: bool,
    /// Names and kinds of the attributes, in order.
    pub attrs: &'static [(&'static str, &'static str)],
    /// What holds for it.
    pub traits: &'static [Trait],
    /// What it does.
    pub doc: &'static str,
}

/// Why attributes in text do not make an op.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttrError {
    /// No op has this name.
    #[error("unknown op `{0}`")]
    UnknownOp(String),
    /// The op needs this attribute.
    #[error("`{op}` needs the attribute `{attr}` ({kind})")]
    Missing {
        /// The op's name.
        op: &'static str,
        /// The attribute's name.
        attr: &'static str,
        /// What it should be.
        kind: &'static str,
    },
    /// The attribute's value is of another kind.
    #[error("the attribute `{attr}` of `{op}` should be of kind {kind}")]
    Kind {
        /// The op's name.
        op: &'static str,
        /// The attribute's name.
        attr: &'static str,
        /// What it should be.
        kind: &'static str,
    },
    /// The op has no such attribute.
    #[error("`{op}` has no attribute `{attr}`")]
    Unknown {
        /// The op's name.
        op: &'static str,
        /// The attribute's name.
        attr: String,
    },
}

// A row is an op with a text of its own, or stands for all functions of an elementwise table.
macro_rules! ops {
    ($(
        $(#[doc = $doc:literal])+
        $Name:ident
            $(= $text:literal ($($operand:ident),* $(; $optional:ident)?) {$($attr:ident: $Attr:ty),*} [$($Trait:ident),*])?
            $(of $Function:ident)?;
    )+) => {
        /// What a node does. See the table in the source of this module.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Op {
            $(
                $(#[doc = $doc])+
                $Name
                $({
                    $(
                        #[doc = concat!("Attribute `", stringify!($attr), "`.")]
                        $attr: $Attr
                    ),*
                })?
                $(($Function))?,
            )+
        }

        const DOCS: &[&str] = &[$(concat!($($doc, "\n"),+)),+];

        /// Rows of the table by name.
        #[expect(dead_code, reason = "the lines of elementwise functions have their docs elsewhere")]
        enum Line { $($Name),+ }

        /// The ops with a text of their own, in the order of the table.
        const ROWS: &[OpInfo] = &[
            $($(OpInfo {
                name: $text,
                operands: &[$(stringify!($operand),)* $(stringify!($optional))?],
                last_is_optional: !<[&str]>::is_empty(&[$(stringify!($optional))?]),
                attrs: &[$((stringify!($attr), <$Attr as Attr>::KIND)),*],
                traits: &[$(Trait::$Trait),*],
                doc: DOCS[Line::$Name as usize],
            },)?)+
        ];

        #[expect(clippy::enum_variant_names, reason = "ops are named for what they do, also with a row")]
        enum Row { $($(#[doc = $text] $Name,)?)+ }

        /// All ops, in the order of the table.
        pub fn table() -> Vec<&'static OpInfo> {
            let mut table = Vec::new();
            let mut rows = ROWS.iter();
            $(
                $(table.extend(rows.next().filter(|row| row.name == $text));)?
                $(table.extend($Function::rows());)?
            )+
            table
        }

        impl Op {
            /// Its row of the table.
            pub fn info(&self) -> &'static OpInfo {
                match self {
                    $(
                        $(Op::$Name { $($attr: _),* } => &ROWS[Row::$Name as usize],)?
                        $(Op::$Name(function) => $Function::row(*function),)?
                    )+
                }
            }

            /// Makes an op from its name and attributes in text.
            ///
            /// # Errors
            /// If the name, an attribute's name or its kind is wrong, or an attribute is missing.
            pub fn read(name: &str, attrs: &[(String, Literal)]) -> Result<Op, AttrError> {
                match name {
                    $($($text => {
                        let info = &ROWS[Row::$Name as usize];
                        check_names(info, attrs)?;
                        return Ok(Op::$Name { $($attr: read_attr(info, stringify!($attr), attrs)?),* });
                    })?)+
                    _ => {}
                }
                $($(if let Some(function) = $Function::read(name, attrs)? {
                    return Ok(Op::$Name(function));
                })?)+
                Err(AttrError::UnknownOp(name.to_owned()))
            }

            /// The set symbol that this op brings into being.
            pub fn opens(&self) -> Option<SetSym> {
                match self {
                    $(
                        $(Op::$Name { $($attr),* } => find_set(&[$($attr),*]),)?
                        $(Op::$Name(function) => find_set(&[function as &$Function]),)?
                    )+
                }
            }

            fn set_mut(&mut self) -> Option<&mut SetSym> {
                match self {
                    $(
                        $(Op::$Name { $($attr),* } => find_set_mut([$($attr),*]),)?
                        $(Op::$Name(function) => find_set_mut([function as &mut $Function]),)?
                    )+
                }
            }

            fn print_attrs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(
                        $(Op::$Name { $($attr),* } => {
                            print_list(f, &[$((stringify!($attr), $attr as &dyn PrintAttr)),*])
                        })?
                        $(Op::$Name(function) => $Function::print_attrs(function, f),)?
                    )+
                }
            }
        }

        $($(impl From<$Function> for Op {
            fn from(function: $Function) -> Op {
                Op::$Name(function)
            }
        })?)+
    };
}

ops! {
    /// What the caller hands to a step: token ids, positions and sequence indices, `int[n]`, and under a name a tensor of
    /// any type or a token set.
    Input = "input" () {port: Port} [Leaf];
    /// A tensor of the weights file, `real[rows]` or `real[rows, columns]`; matrices are [out, in].
    Weight = "weight" () {name: Name, shape: Shape} [Leaf, Constant];
    /// `count` tensors of the weights file, one below the other: `real[count · rows, columns]`, a vector as one row. The number
    /// of each stands for the `*` in the name.
    WeightStack = "weight_stack" () {name: Name, count: u32, shape: Shape} [Leaf, Constant];
    /// A tensor of which every element is `value`, `real[rows]` or `real[rows, columns]`, where a weight stands.
    Fill = "fill" () {value: F64, shape: Shape} [Leaf, Constant];
    /// Rows `start .. start + len` of `weight` `[o, k]`: the weight `real[len, k]`, at compile time.
    WeightRows = "weight_rows" (weight) {start: u32, len: u32} [Constant];
    /// `weight · diag(gain)`: column `j` of `weight` `[o, k]` times `gain[j]`; a weight, made at compile time in f32 and
    /// rounded once.
    FoldGain = "fold_gain" (weight, gain) {} [Constant];
    /// `weight · before`, `[o, k] × [k, i] → real[o, i]`: one weight for two matmuls in a row, made at compile time in f64 and
    /// rounded once.
    FoldLinear = "fold_linear" (weight, before) {} [Constant];
    /// `weight · bias`, `[o, k] × [k] → real[o]`, and on it a bias `on` `[o]`: one bias for two matmuls in a row, made at compile
    /// time in f64 and rounded once.
    FoldBias = "fold_bias" (weight, bias; on) {} [Constant];
    /// `gain + by`: a gain of a norm, made at compile time in f32.
    OffsetGain = "offset_gain" (gain) {by: F64} [Constant];
    /// Rows of `table` `[v, d]` by id: `real[r, d]`.
    Embed = "embed" (table, ids) {} [RowWise];

    /// `x · weightᵀ`, `[r, k] × [o, k] → real[r, o]`, summed in f32 or better.
    Matmul = "matmul" (x, weight) {} [RowWise];
    /// Router logits: as `matmul`, but accurate to f32 whatever the target's precision: `f32[r, o]`.
    RouterLogits = "router_logits" (x, weight) {} [RowWise];
    /// `x · weightᵀ`, with weight and bias of the segment that a row of the partition is in: `[c, k] × [parts · o, k] → real[c, o]`.
    /// What it is of segment `e` stands in the rows from `e · o` on; a bias is `[parts, o]`.
    GroupedMatmul = "grouped_matmul" (x, weight, partition; bias) {} [];
    /// Adds `bias` `[o]` to every row of `x` `[r, o]`.
    AddBias = "add_bias" (x, bias) {} [RowWise, Pointwise];

    /// `x · rsqrt(mean(x²) + eps) · gain`, over the columns (Zhang and Sennrich 2019), or over each of `groups` runs of them,
    /// such as heads, with a gain of that width for all.
    RmsNorm = "rms_norm" (x, gain) {eps: F64, groups: Option<u32>} [RowWise];
    /// `rsqrt(mean(x²) + eps)` over the columns of each row, `f32[r, 1]`: what `rms_norm` scales the row by.
    InvRms = "inv_rms" (x) {eps: F64} [RowWise];
    /// `(x − mean) · rsqrt(var + eps) · gain + bias`, over the columns (Ba et al. 2016). What the first mean leaves by
    /// rounding has its mean taken away as well, and the variance is that of what is left. Groups are those of `rms_norm`.
    LayerNorm = "layer_norm" (x, gain, bias) {eps: F64, groups: Option<u32>} [RowWise];
    /// Rotary embedding, half-split form: of the first `h` columns of each head (all, or as many as are `turned`) the pairs
    /// `(j, j + h/2)` turn by `position · theta^(−2j/h)` (Su et al. 2021), which `scaling` changes; the others pass.
    Rope = "rope" (x, positions) {heads: u32, theta: F64, turned: Option<u32>, scaling: Option<RopeScaling>} [RowWise];
    /// Softmax attention with grouped heads. Query row `i` sees key row `j` if both are of one sequence and
    /// `k_pos[j] ≤ q_pos[i]`; a query that sees no key gives zeros. `q` is `[r, heads · h]`, `k` and `v` are
    /// `[m, kv_heads · h]`; scores are scaled by `scale`, else by `1/√h`, and with a `cap` become `cap · tanh(score / cap)`.
    /// With a `window` a query sees keys of the positions after `q_pos[i] − window` alone; with `ahead` also those of so many
    /// positions after its own.
    Attention = "attention" (q, k, v, q_pos, q_seq, k_pos, k_seq) {heads: u32, kv_heads: u32, scale: Option<F64>, cap: Option<F64>, window: Option<u32>, ahead: Option<u32>} [];

    /// Softmax attention over a cache. `k` and `v` are `state<real[m, kv_heads · h]>`, and the key at position `j` of
    /// sequence `s` is their row `16 · pages[s, j / 16] + j % 16`. Query row `i` sees the positions `0 … q_pos[i]` of its
    /// sequence, or those of them that are in `present`, `state<mask[m]>`. Attributes are as for `attention`.
    CachedAttention = "cached_attention" (q, k, v, q_pos, q_seq, pages; present) {heads: u32, kv_heads: u32, scale: Option<F64>, cap: Option<F64>, window: Option<u32>} [];

    /// A causal convolution with a filter for each column, of `x` `[m, d]` with `weight` `[d, taps]`: row `i` of the result is
    /// `Σ_j weight[·, j] ⊙ x[p]`, where `p` is the row at position `q_pos[i] − (taps − 1) + j` of its sequence. A position without
    /// a row counts as 0, so that the result of a row that sees none is 0. Positions count, whichever rows there are.
    Conv = "conv" (x, weight, q_pos, q_seq, k_pos, k_seq) {} [];
    /// `conv` over a cache, `state<real[m, d]>`, in which tokens lie as for `cached_attention`. Those that are not in `present` count
    /// as 0.
    CachedConv = "cached_conv" (x, weight, q_pos, q_seq, pages; present) {} [];
    /// The mean of the rows of each sequence, which all of its rows become: `[r, d] → [r, d]`. Rows of a sequence follow each
    /// other. Looks at the future.
    SequenceMean = "sequence_mean" (x, sequences) {} [];

    /// A function of each element.
    Unary of Unary;
    /// A function of two elements at the same place.
    Binary of Binary;
    /// Multiplies each row of `x` `[r, d]` by `scale` `[r, 1]`, in f32; the result has the elements of `x`.
    ScaleRows = "scale_rows" (x, scale) {} [RowWise, Pointwise];
    /// Multiplies each element of `x` `[r, d]` by that of `scale` `f32[r, d]` at its place, in f32; the result has the elements
    /// of `x`.
    ScaleElements = "scale_elements" (x, scale) {} [RowWise, Pointwise];
    /// The numbers of `x` in f32: where a decider begins with what is no linear step.
    Widen = "widen" (x) {} [RowWise, Pointwise];
    /// `scores` `f32[r, 1]`, to which +∞ is added at the positions before `first`: those execute, and rank above all others.
    ForceFirst = "force_first" (scores, positions) {first: u32} [RowWise, Pointwise];
    /// `x` `[r, d]` with `class` `[1, d]` in the rows at position 0: a class token in front of each sequence.
    ClassToken = "class_token" (x, class, positions) {} [RowWise];
    /// `row` `[k]` for every row of `like`: `f32[r, k]`.
    RepeatRow = "repeat_row" (row, like) {} [RowWise, CountsRows];
    /// Columns `start … start + len` of `x`.
    Slice = "slice" (x) {start: u32, len: u32} [RowWise, Copies];

    /// Which of `n` experts each row takes, and how much each counts: of the scores that softmax (or sigmoid) makes of `logits`
    /// `f32[r, n]` the `k` highest, with `bias` `[n]` added where they are ranked, the lower index of equals. The result
    /// `f32[r, 2k]` has the scores of those, in ascending order of experts, and behind them which they are; scores are
    /// divided by their sum if they are to be normalised, and multiplied with `scale`. A score that is not a number ranks last.
    /// With `ranks` the result is `f32[r, 3k]`: last come what the choices rank by among those of other rows, higher first.
    Choose = "choose" (logits; bias) {k: u32, sigmoid: bool, normalise: bool, scale: F64, ranks: Option<Ranking>} [RowWise];
    /// As `choose`, but where choices are replayed they are those of `replayed` `f32[r, k]`, whole numbers below `n` in any order; other
    /// numbers are none. Places without a choice have the index −1 and the score 0: those behind the choices or, where `k` is `n`,
    /// those of the choices that are missing. Scores are divided by the sum of those of `k` choices: where fewer are replayed, the
    /// highest of the others found no place and count in it. Replayed choices rank all alike among other rows. A row of `replayed`
    /// that begins with −2 is not replayed; planned forms have a switch for all rows.
    ChooseOrReplay = "choose_or_replay" (logits, replayed; bias) {k: u32, sigmoid: bool, normalise: bool, scale: F64, ranks: Option<Ranking>} [RowWise];
    /// The expert of each row by a hash of its token's id, as `choose` gives a choice of weight 1: `f32[r, 2]`. It is the number
    /// that `route_random` draws for the id in sequence 0, modulo `experts`; ids are below `n_ids`.
    HashChoice = "hash_choice" (ids) {experts: u32, seed: u64, block: u32, n_ids: u32} [RowWise];
    /// A capacity of each expert below `experts`: of the choices `index` `f32[r, k]` of the rows of a group those before which fewer
    /// than `slots` others are of the same expert. Those with the higher `ranks` `f32[r, k]` come first, then those of earlier
    /// rows. What finds no place becomes −1, no choice. A group is `group_size` consecutive positions of one sequence.
    LimitChoices = "limit_choices" (index, positions, sequences; ranks) {group_size: u32, slots: u32, experts: u32} [];
    /// `limit_choices`, first come, first served, over the steps of a generation: `before`, `state<f32[m, k]>`, has the choices of the
    /// tokens so far, each at its place in the cache, those of these rows among them. Tokens that are not in `present` have none.
    LimitChoicesAfter = "limit_choices_after" (index, positions, sequences, before, pages; present) {group_size: u32, slots: u32, experts: u32} [];
    /// As `limit_choices` where every row has chosen every expert, or not at all: an expert keeps a share of `top_k / experts` of a
    /// group's tokens, rounded up, of which `all_positions` and `all_sequences` tell how many there are. Without `group_size` a
    /// sequence is a group.
    ShareChoices = "share_choices" (index, ranks, positions, sequences, all_positions, all_sequences) {top_k: u32, group_size: Option<u32>} [];
    /// The rows in segments: segment `e` has those whose `index` `f32[r, 1]` is `first + e`, in order. Rows of another index than
    /// those of the `parts` segments are in none.
    Partition = "partition" (index) {set: SetSym, first: u32, parts: u32} [OpensScope];
    /// The rows whose score `f32[n, 1]` is at least `at_least`: a token set.
    Route = "route" (scores) {set: SetSym, at_least: F64} [OpensScope];
    /// The rows for which the upper half of SplitMix64 of (`seed`, `block`, sequence, id) is below `limit`, which is
    /// density · 2³²: a token set. Ids are positions, or those of tokens; without sequences all are of sequence 0.
    RouteRandom = "route_random" (ids; sequences) {set: SetSym, seed: u64, block: u32, limit: u64} [OpensScope];
    /// In each sequence of `t` rows the `max(1, ⌈share · t⌉)` rows with the highest scores `f32[n, 1]`, or `⌊share · t⌋` of them,
    /// the earlier ones of equals: a token set. Without sequences all rows are one. A score that is not a number ranks as −∞.
    /// Looks at the future.
    RouteTopK = "route_topk" (scores; sequences) {set: SetSym, share: F64, round: Rounding} [OpensScope];
    /// As `route_topk`, of the rows in the set `among` alone; `t` counts the others, too.
    RouteTopKAmong = "route_topk_among" (scores, among; sequences) {set: SetSym, share: F64, round: Rounding} [OpensScope];
    /// A capacity, first come, first served: of the rows of the set `wanted` those before which fewer than `slots`
    /// others of their group are wanted. A group is `group_size` consecutive positions of one sequence.
    LimitFirst = "limit_first" (wanted, positions, sequences) {set: SetSym, group_size: u32, slots: u32} [OpensScope];
    /// `limit_first` over the steps of a generation: `before`, `state<mask[m]>`, says which rows earlier steps wanted, each at
    /// its place in the cache. Of the group that a sequence's first row here falls into, those before it take slots, too.
    LimitFirstAfter = "limit_first_after" (wanted, positions, sequences, before, pages) {set: SetSym, group_size: u32, slots: u32} [OpensScope];
    /// The rows of a cache that wait to be computed and may not wait longer: of each sequence with a row in `executed`, and of
    /// each with more than `most` rows that wait, those from `first` to its last position here. Row `s` of `pending`
    /// `[n, r + 1]` is of sequence `s`: `first` by router, and then `most`. Sequences that share pages may have rows in common.
    Pending = "pending" (executed, positions, sequences, pages, pending, cache) {set: SetSym, router: u32} [OpensScope];
    /// `cache` `[m, d]` with its row `places[i]` replaced by row `i` of `rows` `[r, d]`. Places are rows of the cache or the
    /// set of them that `rows` are of; rows of one place are equal.
    StoreRows = "store_rows" (cache, rows, places) {} [UpdatesState];
    /// `sum` `f32[1, d]` and on it all rows of `x` `[r, d]`.
    AddRows = "add_rows" (sum, x) {} [UpdatesState];
    /// A capacity by score: as `limit_first`, but the rows of each group with the highest scores `f32[n, 1]`, ranked as
    /// by `route_topk`. Looks at the future.
    LimitBest = "limit_best" (wanted, scores, positions, sequences) {set: SetSym, group_size: u32, slots: u32} [OpensScope];
    /// The rows that are not in `executed`, a set of tokens: the two are disjoint, and together all rows.
    Complement = "complement" (executed) {set: SetSym} [OpensScope];
    /// The rows of `chosen`, a set of tokens, and those at the positions before `first`: a token set.
    WithFirst = "with_first" (chosen, positions) {set: SetSym, first: u32} [OpensScope];
    /// The rows of the set `wanted` that are in the set `outer`, too: a subset of both.
    Within = "within" (wanted, outer) {set: SetSym} [OpensScope];
    /// The rows of `x`, a tensor or a cache, that are in `set`, in order: `[n, d] → [c, d]`.
    Gather = "gather" (x, set) {} [Copies];
    /// `base` with the rows of `set` replaced by those of `rows`: `[n, d], [c, d] → [n, d]`. Other rows keep their
    /// very bytes.
    Scatter = "scatter" (base, rows, set) {} [ClosesScope, Copies];
    /// Whether each row is in `set`: `mask[n]`.
    Executed = "executed" (set) {} [ClosesScope];
    /// The same decision for every row of `like`: `mask[n]`.
    FillMask = "fill_mask" (like) {value: bool} [RowWise, CountsRows];

    /// An op of training.
    Training of Training;
}

impl Op {
    /// The word in the text form.
    pub fn name(&self) -> &'static str {
        self.info().name
    }

    /// Whether the table gives it this trait.
    pub fn has(&self, wanted: Trait) -> bool {
        self.info().traits.contains(&wanted)
    }

    /// Gives the sets that this op names (the one that it opens, those of its port's type) other symbols.
    pub fn rename_sets(&mut self, renames: &BTreeMap<SetSym, SetSym>) {
        if let Op::Input { port } = self {
            port.ty.rename_sets(renames);
        } else if let Some(set) = self.set_mut()
            && let Some(new) = renames.get(set)
        {
            *set = *new;
        }
    }

    /// The op with this symbol for the set that it opens, if it opens one.
    pub fn with_set(&self, set: SetSym) -> Op {
        let mut op = self.clone();
        if let Some(old) = op.set_mut() {
            *old = set;
        }
        op
    }

    /// The op with its set symbol left out of account, for comparing what routes decide.
    pub fn without_set(&self) -> Op {
        self.with_set(SetSym(0))
    }
}

/// Prints the attributes only, as ` {eps=1e-5}`, or nothing if there are none.
pub struct Attrs<'a>(pub &'a Op);

impl fmt::Display for Attrs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.print_attrs(f)
    }
}

pub(crate) trait PrintAttr {
    fn print_attr(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    fn is_absent(&self) -> bool;
}

impl<A: Attr> PrintAttr for A {
    fn print_attr(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.print(f)
    }

    fn is_absent(&self) -> bool {
        Attr::is_absent(self)
    }
}

/// The set among attributes: of all ops that have one, what they bring into being.
fn find_set(attrs: &[&dyn Any]) -> Option<SetSym> {
    attrs.iter().find_map(|attr| match attr.downcast_ref::<Port>() {
        Some(port) => port.set(),
        None => attr.downcast_ref().copied(),
    })
}

fn find_set_mut<const N: usize>(attrs: [&mut dyn Any; N]) -> Option<&mut SetSym> {
    attrs.into_iter().find_map(|attr| match attr.is::<Port>() {
        true => attr.downcast_mut().and_then(Port::set_mut),
        false => attr.downcast_mut(),
    })
}

pub(crate) fn print_list(f: &mut fmt::Formatter<'_>, attrs: &[(&str, &dyn PrintAttr)]) -> fmt::Result {
    let mut is_first = true;
    for (name, attr) in attrs.iter().filter(|(_, attr)| !attr.is_absent()) {
        f.write_str(if is_first { " {" } else { ", " })?;
        write!(f, "{name}=")?;
        attr.print_attr(f)?;
        is_first = false;
    }
    f.write_str(if is_first { "" } else { "}" })
}

pub(crate) fn check_names(info: &'static OpInfo, attrs: &[(String, Literal)]) -> Result<(), AttrError> {
    match attrs.iter().find(|(name, _)| !info.attrs.iter().any(|(known, _)| known == name)) {
        Some((name, _)) => Err(AttrError::Unknown { op: info.name, attr: name.clone() }),
        None => Ok(()),
    }
}

pub(crate) fn read_attr<A: Attr>(
    info: &'static OpInfo,
    attr: &'static str,
    attrs: &[(String, Literal)],
) -> Result<A, AttrError> {
    let Some((_, literal)) = attrs.iter().find(|(name, _)| name == attr) else {
        return A::absent().ok_or(AttrError::Missing { op: info.name, attr, kind: A::KIND });
    };
    let kind = A::KIND.trim_end_matches('?');
    A::read(literal).ok_or(AttrError::Kind { op: info.name, attr, kind })
}
