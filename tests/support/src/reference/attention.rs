//! Softmax attention, by the definition: all keys, one after the other.

use skipc_artifact::program::PAGE_ROWS;
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Attention, CachedAttention, Rows, Scoring, View};

use super::{Approx, Eval, UNIT, gamma};

/// Keys that a streaming softmax takes at once, at least. Each such step may rescale what it has so far, which costs
/// an `exp` and two products.
const KEYS_A_STEP: usize = 8;

/// Relative error of one rescaling: two units in the last place of an `exp`, two products.
const RESCALE: f64 = 6.0 * UNIT;

/// Relative error of a softmax weight where values are bf16: tensor cores take weights in the type of the values.
const BF16_WEIGHT: f64 = 1.0 / 512.0;

impl Eval<'_> {
    pub(super) fn attention(&mut self, attention: &Attention, n_rows: usize) {
        let n_keys = self.extent(attention.kv_extent);
        for row in 0..n_rows {
            let (seq, pos) = (self.load(attention.q_seq, row, 0), self.load(attention.q_pos, row, 0));
            let (scoring, width) = (attention.scoring, attention.width as usize);
            let earliest = scoring.window.map_or(0.0, |window| pos + 1.0 - f64::from(window));
            let latest = pos + f64::from(scoring.ahead.unwrap_or(0));
            let sees = |key: &usize| {
                let at = self.load(attention.k_pos, *key, 0);
                self.load(attention.k_seq, *key, 0) == seq && (earliest..=latest).contains(&at)
            };
            let seen: Vec<usize> = (0..n_keys).filter(sees).collect();
            let Attention { heads, kv_heads, q, k, v, .. } = *attention;
            for head in 0..heads as usize {
                let group = head / (heads / kv_heads) as usize;
                let out = self.attend((q, k, v), (width, scoring), (row, head, group), &seen);
                for (col, number) in out.into_iter().enumerate() {
                    self.store_dense(attention.out, row, head * width + col, number);
                }
            }
        }
    }

    pub(super) fn cached_attention(&mut self, attention: &CachedAttention, n_rows: usize) {
        let CachedAttention { heads, kv_heads, q, k, v, pages, present, .. } = *attention;
        let (width, page_rows) = (attention.width as usize, PAGE_ROWS as usize);
        let dense = |slot| View { slot, rows: Rows::Dense, col: 0 };
        for row in 0..n_rows {
            let sequence = self.load(attention.q_seq, row, 0) as usize;
            let last = self.load(attention.q_pos, row, 0) as usize;
            let place = |position: usize| {
                self.at(pages, sequence, position / page_rows) as usize * page_rows + position % page_rows
            };
            let is_there = |key: &usize| present.is_none_or(|present| self.at(present, *key, 0) != 0.0);
            let scoring = attention.scoring;
            let first = scoring.window.map_or(0, |window| (last + 1).saturating_sub(window as usize));
            let seen: Vec<usize> = (first..=last).map(place).filter(is_there).collect();
            for head in 0..heads as usize {
                let group = head / (heads / kv_heads) as usize;
                let out = self.attend((q, dense(k), dense(v)), (width, scoring), (row, head, group), &seen);
                for (col, number) in out.into_iter().enumerate() {
                    self.store_dense(attention.out, row, head * width + col, number);
                }
            }
        }
    }

    /// What a head of a query row makes of the keys that it sees: rows of `k` and `v` at the columns of its group.
    fn attend(
        &self,
        (q, k_view, v): (View, View, View),
        (width, scoring): (usize, Scoring),
        (row, head, group): (usize, usize, usize),
        seen: &[usize],
    ) -> Vec<Approx> {
        if seen.is_empty() {
            return vec![Approx::exact(0.0); width];
        }
        let (q_col, kv_col) = (head * width, group * width);
        let scale = scoring.scale.map_or_else(|| 1.0 / libm::sqrt(width as f64), |scale| scale.0);
        let scores: Vec<Approx> = seen
            .iter()
            .map(|key| {
                let q = (0..width).map(|col| self.load(q, row, q_col + col));
                let k = (0..width).map(|col| self.load(k_view, *key, kv_col + col));
                // The factor is rounded, and so is its product with log₂ e where `exp` is an `exp2`.
                let score = Approx::dot(q, k).mul(Approx { value: scale, error: 3.0 * UNIT * scale });
                match scoring.cap {
                    Some(cap) => capped(score, cap.0, self.kernel.param(k_view.slot).dtype),
                    None => score,
                }
            })
            .collect();
        // Any maximum gives the same quotient, so that its own error does not matter; the differences are rounded.
        let max = scores.iter().map(|score| score.value).fold(f64::NEG_INFINITY, f64::max);
        let least = scores.iter().map(|score| score.value).fold(f64::INFINITY, f64::min);
        let steps = seen.len().div_ceil(KEYS_A_STEP) as f64;
        let rescaled = steps * RESCALE + UNIT * (max - least);
        let weights: Vec<Approx> = scores
            .iter()
            .map(|score| {
                let weight = score.sub(Approx::exact(max)).exp();
                Approx { value: weight.value, error: weight.error + rescaled * weight.value }
            })
            .collect();
        let total = Approx::sum(weights.iter().copied());
        let bf16_values = self.kernel.param(v.slot).dtype == DType::Bf16;
        let weight_error = gamma(seen.len()) + if bf16_values { BF16_WEIGHT } else { 0.0 };
        (0..width)
            .map(|col| {
                let (mut value, mut error) = (0.0, 0.0);
                for (key, weight) in seen.iter().zip(&weights) {
                    let v = self.load(v, *key, kv_col + col);
                    value += weight.value * v;
                    error += (weight.error + weight_error * (weight.value + weight.error)) * v.abs();
                }
                Approx { value, error }.div(total)
            })
            .collect()
    }
}

/// `cap · tanh(score / cap)`. Where operands are bf16, the tangent may be one less a quotient of approximations.
fn capped(score: Approx, cap: f64, dtype: DType) -> Approx {
    let exact = |value: f64| Approx { value, error: UNIT * value };
    let tanh = score.mul(exact(1.0 / cap)).tanh();
    let lost = if dtype == DType::Bf16 { 16.0 * UNIT } else { 0.0 };
    Approx { value: tanh.value, error: tanh.error + lost }.mul(exact(cap))
}
