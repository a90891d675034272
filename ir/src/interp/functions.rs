//! Functions of rows that the interpreter of graphs and the one of kernels share, so that both mean the same in every
//! number domain.
//!
//! Sums run over [`Number::Wide`] and are rounded once.

use std::cmp::Ordering;

use super::number::Number;
use crate::elementwise::Unary;
use crate::ranking::Ranking;
use crate::scoring::Scoring;

/// Partial sums of [`dot`], so that the processor can work on several at once.
const LANES: usize = 8;

/// `Σ value`; zero if there is none.
fn sum<W: Number>(values: impl Iterator<Item = W>) -> W {
    values.reduce(W::add).unwrap_or(W::ZERO)
}

/// `Σ a · b` over the columns that both have.
#[inline]
pub fn dot<N: Number>(a: &[N], b: &[N]) -> N {
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [N::Wide::ZERO; LANES];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] = sums[lane].add(a[lane].widen().mul(b[lane].widen()));
        }
    }
    let rest = sum(a_rest.iter().zip(b_rest).map(|(a, b)| a.widen().mul(b.widen())));
    N::narrow(sum(sums.into_iter()).add(rest))
}

/// Whether a score is at least a threshold; in floating point, where scores round, the threshold rounds alike.
#[inline]
pub fn reaches<N: Number>(score: N, at_least: f64) -> bool {
    let bound = if N::EXACT { at_least } else { N::from_f64(at_least).to_f64() };
    score.to_f64() >= bound
}

/// `row · rsqrt(mean(row²) + eps) · gain`, in place.
pub fn rms_norm<N: Number>(row: &mut [N], eps: f64, gain: &[N]) {
    let scale = inv_rms(row, eps);
    row.iter_mut().zip(gain).for_each(|(x, gain)| *x = x.mul(scale).mul(*gain));
}

/// `(row − mean) · rsqrt(variance + eps) · gain + bias`, in place.
pub fn layer_norm<N: Number>(row: &mut [N], eps: f64, gain: &[N], bias: &[N]) {
    centre(row);
    let scale = inv_rms(row, eps);
    for ((x, gain), bias) in row.iter_mut().zip(gain).zip(bias) {
        *x = x.mul(scale).mul(*gain).add(*bias);
    }
}

/// `rsqrt(mean(row²) + eps)`.
pub fn inv_rms<N: Number>(row: &[N], eps: f64) -> N {
    let square = mean::<N>(row.len(), row.iter().map(|x| x.widen().mul(x.widen())));
    square.add(N::from_f64(eps)).rsqrt()
}

/// Which experts a row takes, and how much each counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// How many.
    pub k: usize,
    /// Scores are sigmoids of logits, not their softmax.
    pub sigmoid: bool,
    /// Those of the chosen are divided by their sum.
    pub normalise: bool,
    /// What they are multiplied with.
    pub scale: f64,
    /// What choices rank by among those of other rows, if that is given.
    pub ranks: Option<Ranking>,
}

/// The scores of the `k` chosen of a row of logits in ascending order of experts, and behind them which they are. Scores are
/// ranked with `bias` added; the lower index of equals comes first, and what is not a number last. What they rank by among those
/// of other rows comes last. Where choices are `replayed`, whole numbers in any order, they are taken in place of the highest: a
/// place without one, behind those that have one or, where all choices have places, its own, is [`NO_CHOICE`] with a weight of 0, and
/// all rank alike among other rows. Those that are missing are taken to be the highest of the others, which found no place: scores
/// are divided by the sum of all `k`.
///
/// In an exact domain the row maximum is 0, as in [`attend`].
pub fn choose<N: Number>(logits: &[N], bias: Option<&[N]>, rule: Choice, replayed: Option<&[N]>) -> Vec<N> {
    let mut scores = logits.to_vec();
    self::scores(&mut scores, rule.sigmoid);
    let ranked = |choice: usize| {
        let ranked = bias.map_or(scores[choice], |bias| scores[choice].add(bias[choice]));
        if ranked.to_f64().is_nan() { N::from_f64(f64::NEG_INFINITY) } else { ranked }
    };
    let ranks: Vec<N> = (0..scores.len()).map(ranked).collect();
    let rank = |choice: usize| ranks[choice].to_f64();
    let mut turns: Vec<usize> = (0..scores.len()).collect();
    turns.sort_by(|a, b| rank(*b).partial_cmp(&rank(*a)).unwrap_or(Ordering::Equal));
    let is_listed = |choice: usize| {
        replayed.is_some_and(|listed| listed.iter().any(|listed| listed.to_f64() == choice as f64))
    };
    turns.sort_by_key(|choice| !is_listed(*choice));
    turns.truncate(rule.k);
    let is_taken = |choice: &usize| turns.contains(choice) && (replayed.is_none() || is_listed(*choice));
    let places: Vec<Option<usize>> = if rule.k == scores.len() {
        (0..rule.k).map(|choice| Some(choice).filter(is_taken)).collect()
    } else {
        let taken = (0..scores.len()).filter(is_taken).map(Some);
        taken.chain(std::iter::repeat(None)).take(rule.k).collect()
    };
    if rule.normalise {
        let counted = (0..scores.len()).filter(|choice| turns.contains(choice));
        let total = N::narrow(sum(counted.map(|choice| scores[choice].widen())));
        N::div_all(&mut scores, total);
    }
    let scale = N::from_f64(rule.scale);
    let weight = |place: &Option<usize>| place.map_or(N::ZERO, |choice| scores[choice].mul(scale));
    let mut weights: Vec<N> = places.iter().map(weight).collect();
    let index = |place: &Option<usize>| N::from_f64(place.map_or(NO_CHOICE, |choice| choice as f64));
    weights.extend(places.iter().map(index));
    let turn = |choice: usize| turns.iter().position(|chosen| *chosen == choice).unwrap_or(0);
    let among_rows = |place: &Option<usize>| match (rule.ranks?, place.filter(|_| replayed.is_none())) {
        (_, None) => Some(N::ZERO),
        (Ranking::Score, Some(choice)) => Some(ranks[choice]),
        (Ranking::Turn, Some(choice)) => Some(N::from_f64(-(turn(choice) as f64))),
    };
    weights.extend(places.iter().filter_map(among_rows));
    weights
}

/// A choice that found no place, or none at all.
pub const NO_CHOICE: f64 = -1.0;

/// What a row of choices to replay begins with that chooses freely.
pub const NOT_REPLAYED: f64 = -2.0;

/// How many rows an expert keeps of a group of so many tokens, if that is a share of `top_k` of `experts`: one at least.
pub fn share_of(tokens: usize, top_k: usize, experts: usize) -> usize {
    (tokens * top_k).div_ceil(experts.max(1)).max(1)
}

/// The sigmoid of each logit, or the softmax over all, in place.
pub fn scores<N: Number>(logits: &mut [N], sigmoid: bool) {
    if sigmoid {
        logits.iter_mut().for_each(|z| *z = Unary::Sigmoid.eval(*z));
        return;
    }
    let max = logits.iter().copied().reduce(N::max).filter(|_| !N::EXACT).unwrap_or(N::ZERO);
    logits.iter_mut().for_each(|z| *z = z.sub(max).exp());
    let total = N::narrow(sum(logits.iter().map(|weight| weight.widen())));
    N::div_all(logits, total);
}

/// The segment that an index means, of so many of which one is the first; if it is one.
pub fn segment<N: Number>(index: N, (first, parts): (u32, u32)) -> Option<usize> {
    let index = index.to_f64() - f64::from(first);
    (index >= 0.0 && index < f64::from(parts)).then_some(index as usize)
}

/// Each column of a weight times the gain of that column, in place.
pub fn fold_gain<N: Number>(rows: &mut [N], gain: &[N]) {
    for row in rows.chunks_mut(gain.len().max(1)) {
        row.iter_mut().zip(gain).for_each(|(x, gain)| *x = x.mul(*gain));
    }
}

/// `weight · before` of `[o, inner]` and `[inner, cols]`, row by row; sums are wide and rounded once.
pub fn fold_linear<N: Number>(weight: &[N], before: &[N], (inner, cols): (usize, usize)) -> Vec<N> {
    let element = |row: &[N], col: usize| {
        let factors = before.iter().skip(col).step_by(cols.max(1));
        let products = row.iter().zip(factors).map(|(a, b)| a.widen().mul(b.widen()));
        N::narrow(sum(products))
    };
    let rows = weight.chunks_exact(inner.max(1));
    rows.flat_map(|row| (0..cols).map(move |col| element(row, col))).collect()
}

/// `weight · bias` of `[o, k]` and `[k]`, and on it `on` `[o]` if there is one; sums are wide and rounded once.
pub fn fold_bias<N: Number>(weight: &[N], bias: &[N], on: Option<&[N]>) -> Vec<N> {
    let rows = weight.chunks_exact(bias.len().max(1)).enumerate();
    let element = |(output, row): (usize, &[N])| {
        let products = row.iter().zip(bias).map(|(a, b)| a.widen().mul(b.widen()));
        let own = on.and_then(|on| on.get(output)).map(|on| on.widen());
        N::narrow(sum(products.chain(own)))
    };
    rows.map(element).collect()
}

/// A row minus its mean, in place. The mean of a row far from zero rounds by more than the row may spread, so what it
/// leaves has its mean taken away, too.
pub(crate) fn centre<N: Number>(row: &mut [N]) {
    for _ in 0..2 {
        let centre = mean_of(row);
        row.iter_mut().for_each(|x| *x = x.sub(centre));
    }
}

/// The mean of a row.
fn mean_of<N: Number>(row: &[N]) -> N {
    mean::<N>(row.len(), row.iter().map(|x| x.widen()))
}

/// The mean of each column of some rows.
pub fn column_means<N: Number>(rows: &[N], cols: usize) -> Vec<N> {
    let column = |col: usize| rows.iter().skip(col).step_by(cols);
    (0..cols).map(|col| mean::<N>(rows.len() / cols, column(col).map(|x| x.widen()))).collect()
}

/// A row of a causal convolution: the sum over these inputs, each with its tap, of the input times the tap's factor of each column.
pub fn convolved<N: Number>(
    cols: usize,
    factor: impl Fn(usize, usize) -> N,
    inputs: &[(usize, &[N])],
) -> Vec<N> {
    let of_column =
        |col: usize| sum(inputs.iter().map(|(tap, row)| factor(*tap, col).widen().mul(row[col].widen())));
    (0..cols).map(|col| N::narrow(of_column(col))).collect()
}

fn mean<N: Number>(n: usize, values: impl Iterator<Item = N::Wide>) -> N {
    N::narrow(sum(values).div(N::Wide::from_f64(n as f64)))
}

/// Turns each pair `(a, b) = (head[j], head[half + j])` of a head: `(a·cos − b·sin, b·cos + a·sin)`, in place.
pub fn turn<N: Number>(head: &mut [N], cos: &[N], sin: &[N]) {
    let (a, b) = head.split_at_mut(head.len() / 2);
    for ((a, b), (cos, sin)) in a.iter_mut().zip(b).zip(cos.iter().zip(sin)) {
        (*a, *b) = (a.mul(*cos).sub(b.mul(*sin)), b.mul(*cos).add(a.mul(*sin)));
    }
}

/// How the columns of queries, keys and values are split into heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads, a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads, at least 1; query head `h` uses `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Columns of a head, at least 1.
    pub width: usize,
}

impl Heads {
    /// Heads of queries of so many columns.
    pub fn of(heads: u32, kv_heads: u32, q_cols: usize) -> Heads {
        Heads { heads: heads as usize, kv_heads: kv_heads as usize, width: q_cols / heads as usize }
    }

    /// Columns of a row of queries.
    pub fn q_cols(&self) -> usize {
        self.heads * self.width
    }

    /// Columns of a row of keys or values.
    pub fn kv_cols(&self) -> usize {
        self.kv_heads * self.width
    }
}

/// Softmax attention of one query row over the rows `seen` of `keys` and `values`: for each head the mix of values by the
/// softmax of its scores, appended to `out`; zeros if no key is seen. `scores` is scratch space.
///
/// In an exact domain the row maximum is 0, as it is in every form of a model there: rescaling is by `exp(0) = 1`.
pub fn attend<N: Number>(
    (shape, scoring): (Heads, Scoring),
    query: &[N],
    (keys, values): (&[N], &[N]),
    seen: impl Iterator<Item = usize> + Clone,
    (scores, out): (&mut Vec<N>, &mut Vec<N>),
) {
    let Heads { heads, kv_heads, width } = shape;
    let scale = N::from_f64(scoring.scale(width as u32));
    let cap = scoring.cap.map(|cap| [1.0 / cap.0, cap.0].map(N::from_f64));
    for head in 0..heads {
        let query = &query[head * width..][..width];
        let begin = head / (heads / kv_heads) * width;
        let at = |row: usize| row * shape.kv_cols() + begin;
        scores.clear();
        scores.extend(seen.clone().map(|row| {
            let score = dot(query, &keys[at(row)..][..width]).mul(scale);
            cap.map_or(score, |[inverse, cap]| score.mul(inverse).tanh().mul(cap))
        }));
        let Some(max) = scores.iter().copied().reduce(N::max) else {
            out.extend(std::iter::repeat_n(N::ZERO, width));
            continue;
        };
        let max = if N::EXACT { N::ZERO } else { max };
        scores.iter_mut().for_each(|score| *score = score.sub(max).exp());
        let total = N::narrow(sum(scores.iter().map(|weight| weight.widen())));
        let first = out.len();
        out.extend((0..width).map(|col| {
            let products = seen.clone().zip(scores.iter());
            N::narrow(sum(products.map(|(row, weight)| values[at(row) + col].widen().mul(weight.widen()))))
        }));
        N::div_all(&mut out[first..], total);
    }
}
