//! Experts. The rank of a choice is counted against every other, within a row and within a group; the segment of a row is looked
//! for in the ends.

use std::cmp::Ordering::{Greater, Less};

use skipc_artifact::program::{Extent, PAGE_ROWS};
use skipc_plan::kernel::{
    Choice, Grouped, KeepChoices, Limit, Partition, Ranking, Replay, Rowwise, Shift, Slot,
};

use super::Eval;
use crate::approx::Approx;

impl Eval<'_> {
    pub(super) fn choose(&mut self, rowwise: &Rowwise, row: usize) {
        let Rowwise::Choose { n, choice, logits, bias, replay, out } = *rowwise else { return };
        let Choice { k, sigmoid, normalise, scale, ranks: by } = choice;
        let logits: Vec<f64> = (0..n as usize).map(|col| self.load(logits, row, col)).collect();
        let scores: Vec<Approx> = match sigmoid {
            true => logits.iter().map(|z| Approx::exact(*z).sigmoid()).collect(),
            false => softmax(&logits),
        };
        let bias: Vec<f64> =
            (0..n as usize).map(|col| bias.map_or(0.0, |bias| self.at(bias, 0, col))).collect();
        let ranks: Vec<f64> = (0..n as usize).map(|col| scores[col].value + bias[col]).collect();
        let is_before = |a: usize, b: usize| ranks[a] > ranks[b] || (ranks[a] == ranks[b] && a < b);
        let taken =
            |col: &usize| (0..n as usize).filter(|other| is_before(*other, *col)).count() < k as usize;
        let mut taken: Vec<usize> = (0..n as usize).filter(taken).collect();
        let mut counted = taken.clone();
        let replayed = replay.filter(|replay| self.at(replay.use_forced, 0, 0) != 0.0);
        if let Some(Replay { choices, .. }) = replayed {
            let listed: Vec<f64> = (0..k as usize).map(|place| self.load(choices, row, place)).collect();
            let is_listed = |col: &usize| listed.contains(&(*col as f64));
            taken = (0..n as usize).filter(is_listed).collect();
            // The highest of the others are taken to have found no place.
            let mut others: Vec<usize> = (0..n as usize).filter(|col| !is_listed(col)).collect();
            others.sort_by(|a, b| if is_before(*a, *b) { Less } else { Greater });
            others.truncate(k as usize - taken.len());
            counted = [taken.clone(), others].concat();
            counted.sort_unstable();
        }
        let blocks = 2 + usize::from(by.is_some());
        for place in 0..blocks * k as usize {
            let none = if place / k as usize == 1 { -1.0 } else { 0.0 };
            self.store_dense(out, row, place, Approx::exact(none));
        }
        let sum = counted.iter().map(|col| scores[*col]).reduce(Approx::add);
        for (place, col) in taken.into_iter().enumerate() {
            let place = if k == n { col } else { place };
            let mut score = scores[col];
            if let Some(sum) = sum.filter(|_| normalise) {
                score = score.div(sum);
            }
            let counted = score.mul(Approx::exact(f64::from(scale.0 as f32)));
            self.store_dense(out, row, place, counted);
            self.store_dense(out, row, k as usize + place, Approx::exact(col as f64));
            let rank = match by {
                _ if replayed.is_some() => continue,
                None => continue,
                Some(Ranking::Score) => scores[col].add(Approx::exact(bias[col])),
                Some(Ranking::Turn) => {
                    let before = (0..n as usize).filter(|other| is_before(*other, col)).count();
                    Approx::exact(-(before as f64))
                }
            };
            self.store_dense(out, row, 2 * k as usize + place, rank);
        }
    }

    /// As [`Eval::limit`], with the choices of earlier tokens of the group in a cache.
    fn limit_after(&mut self, limit: &Limit, row: usize) {
        let Limit { k, index, positions, sequences, group_size: Some(size), keep, out, .. } = *limit else {
            panic!("slots are of a group")
        };
        let KeepChoices::Left { slots, experts, before, pages, present } = keep else { return };
        let (sequence, position) =
            (self.load(sequences, row, 0) as usize, self.load(positions, row, 0) as usize);
        let page_rows = PAGE_ROWS as usize;
        let place = |position: usize| {
            self.at(pages, sequence, position / page_rows) as usize * page_rows + position % page_rows
        };
        let first = position / size as usize * size as usize;
        let is_there = |key: &usize| present.is_none_or(|present| self.at(present, *key, 0) != 0.0);
        let earlier: Vec<usize> = (first..position).map(place).filter(is_there).collect();
        let kept = (0..k as usize).map(|place| {
            let choice = self.load(index, row, place);
            let has = |key: &&usize| (0..k as usize).any(|col| self.at(before, **key, col) == choice);
            let is_limited = choice >= 0.0 && choice < f64::from(experts);
            let is_full = earlier.iter().filter(has).count() >= slots as usize;
            if is_limited && is_full { -1.0 } else { choice }
        });
        for (place, kept) in kept.collect::<Vec<f64>>().into_iter().enumerate() {
            self.store_dense(out, row, place, Approx::exact(kept));
        }
    }

    pub(super) fn limit(&mut self, limit: &Limit, row: usize) {
        if let KeepChoices::Left { .. } = limit.keep {
            return self.limit_after(limit, row);
        }
        let Limit { k, index, ranks, positions, sequences, group_size, keep, out } = *limit;
        let group = |eval: &Self, (positions, sequences), row| {
            let position = eval.load(positions, row, 0);
            let group = group_size.map_or(0.0, |size| (position / f64::from(size)).floor());
            (eval.load(sequences, row, 0), group)
        };
        let rows_of = |eval: &Self, extent: Extent| match extent {
            Extent::Fixed(rows) => rows as usize,
            Extent::Counted { count, .. } => eval.at(Slot(count), 0, 0) as usize,
        };
        let own = group(self, (positions, sequences), row);
        let n_rows = rows_of(self, self.kernel.extent);
        let rows: Vec<usize> =
            (0..n_rows).filter(|other| group(self, (positions, sequences), *other) == own).collect();
        let (slots, experts) = match keep {
            KeepChoices::Slots { slots, experts } | KeepChoices::Left { slots, experts, .. } => {
                (slots as usize, experts)
            }
            KeepChoices::Share { top_k, extent, positions, sequences } => {
                let tokens = 0..rows_of(self, extent);
                let tokens =
                    tokens.filter(|token| group(self, (positions, sequences), *token) == own).count();
                (((tokens * top_k as usize) as f64 / f64::from(k)).ceil().max(1.0) as usize, k)
            }
        };
        for place in 0..k as usize {
            let choice = self.load(index, row, place);
            // Of all choices of this expert in the group, the row's own among them, in the order in which they find places.
            let mut wanted: Vec<(f64, usize)> = Vec::new();
            for other in &rows {
                for col in (0..k as usize).filter(|col| self.load(index, *other, *col) == choice) {
                    let rank = ranks.map_or(0.0, |ranks| self.load(ranks, *other, col));
                    wanted.push((-rank, *other));
                }
            }
            wanted.sort_by(|a, b| a.partial_cmp(b).expect("ranks are numbers"));
            let finds_place = wanted.iter().take(slots).any(|(_, other)| *other == row);
            let is_limited = choice >= 0.0 && choice < f64::from(experts);
            let kept = if finds_place || !is_limited { choice } else { -1.0 };
            self.store_dense(out, row, place, Approx::exact(kept));
        }
    }

    pub(super) fn partition(&mut self, partition: &Partition, n_rows: usize) {
        let mut count = 0;
        for segment in 0..partition.parts as usize {
            for row in 0..n_rows {
                if self.load(partition.index, row, 0) == (partition.first as usize + segment) as f64 {
                    self.store_dense(partition.rows, count, 0, Approx::exact(row as f64));
                    count += 1;
                }
            }
            self.store_dense(partition.ends, segment, 0, Approx::exact(count as f64));
        }
        self.store_dense(partition.count, 0, 0, Approx::exact(count as f64));
    }

    /// The matmul of each segment, over operands in which its constants stand alone.
    pub(super) fn grouped(&mut self, grouped: &Grouped, n_rows: usize) {
        let all = self.operands.clone();
        let mut begin = 0;
        for segment in 0..grouped.segments as usize {
            let end = (self.at(grouped.ends, segment, 0) as usize).min(n_rows);
            for Shift { slot, rows } in &grouped.shifts {
                let elements = *rows as usize * self.kernel.param(*slot).cols as usize;
                self.operands[slot.0 as usize] =
                    all[slot.0 as usize][segment * elements..][..elements].to_vec();
            }
            self.gemm_over(&grouped.gemm, begin..end);
            begin = end;
        }
        self.operands = all;
    }
}

fn softmax(logits: &[f64]) -> Vec<Approx> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<Approx> =
        logits.iter().map(|z| Approx::exact(*z).sub(Approx::exact(largest)).exp()).collect();
    let total = weights.iter().copied().reduce(Approx::add);
    weights.into_iter().map(|weight| total.map_or(weight, |total| weight.div(total))).collect()
}
