//! Token sets. A row's rank is counted against every other row, without segments or sorting.

use skipc_artifact::program::PAGE_ROWS;
use skipc_plan::kernel::{Candidates, Compact, Keep, RankOrder, Ranked, Segment, Select};

use super::Eval;
use crate::approx::Approx;

impl Eval<'_> {
    pub(super) fn compact(&mut self, compact: &Compact, n_rows: usize) {
        let forced = self.at(compact.use_forced, 0, 0) != 0.0;
        let mask: Vec<bool> = if forced {
            (0..n_rows).map(|row| self.at(compact.forced, row, 0) != 0.0).collect()
        } else {
            self.selected(&compact.select, n_rows)
        };
        let mut count = 0;
        for (row, executes) in mask.into_iter().enumerate() {
            self.store_dense(compact.mask, row, 0, Approx::exact(f64::from(u8::from(executes))));
            if executes {
                self.store_dense(compact.rows, count, 0, Approx::exact(row as f64));
                count += 1;
            }
        }
        self.store_dense(compact.count, 0, 0, Approx::exact(count as f64));
    }

    fn selected(&self, select: &Select, n_rows: usize) -> Vec<bool> {
        match *select {
            Select::AtLeast { scores, threshold } => {
                let threshold = f64::from(threshold.0 as f32);
                (0..n_rows).map(|row| self.load(scores, row, 0) >= threshold).collect()
            }
            Select::WithFirst { chosen, positions, first } => (0..n_rows)
                .map(|row| self.at(chosen, row, 0) != 0.0 || self.load(positions, row, 0) < f64::from(first))
                .collect(),
            Select::NotIn(mask) => (0..n_rows).map(|row| self.at(mask, row, 0) == 0.0).collect(),
            Select::InBoth(masks) => {
                (0..n_rows).map(|row| masks.iter().all(|mask| self.at(*mask, row, 0) != 0.0)).collect()
            }
            Select::Random { ids, sequences, seed, block, limit } => {
                let below = |row| {
                    let sequence = sequences.map_or(0.0, |sequences| self.load(sequences, row, 0));
                    let id = self.load(ids, row, 0);
                    skipc_ir::random_score(seed, block, sequence as u64, id as u64) < limit
                };
                (0..n_rows).map(below).collect()
            }
            Select::Ranked(ranked) => {
                let rows: Vec<Row> = (0..n_rows).map(|row| self.row(&ranked, row)).collect();
                let taken = |row: usize| match (ranked.keep, ranked.segment) {
                    // Positions of the group that no row here has come from earlier steps.
                    (Keep::Left { before, pages, .. }, Segment::Group { positions, size }) => {
                        let (sequence, group) = rows[row].segment;
                        let first = rows.iter().position(|other| other.segment == (sequence, group));
                        let end = self.load(positions, first.unwrap_or(row), 0) as usize;
                        let was_wanted = |position: &usize| {
                            let page = self.at(pages, sequence as usize, position / PAGE_ROWS as usize);
                            let key = page as usize * PAGE_ROWS as usize + position % PAGE_ROWS as usize;
                            self.at(before, key, 0) != 0.0
                        };
                        (group as usize * size as usize..end).filter(was_wanted).count()
                    }
                    _ => 0,
                };
                (0..n_rows).map(|row| is_kept(&rows, row, (ranked.keep, taken(row)))).collect()
            }
        }
    }

    fn row(&self, ranked: &Ranked, row: usize) -> Row {
        let group = match ranked.segment {
            Segment::Sequence => 0,
            Segment::Group { positions, size } => self.load(positions, row, 0) as u64 / u64::from(size),
        };
        let rank = match ranked.order {
            RankOrder::Position => 0.0,
            RankOrder::Score(scores) => self.load(scores, row, 0),
        };
        let takes_part = match ranked.among {
            Candidates::All => true,
            Candidates::Masked(mask) => self.at(mask, row, 0) != 0.0,
        };
        Row {
            segment: (ranked.sequences.map_or(0, |sequences| self.load(sequences, row, 0) as u64), group),
            rank: if rank.is_nan() { f64::NEG_INFINITY } else { rank },
            takes_part,
        }
    }
}

struct Row {
    /// Sequence and group.
    segment: (u64, u64),
    rank: f64,
    takes_part: bool,
}

fn is_kept(rows: &[Row], row: usize, (keep, taken): (Keep, usize)) -> bool {
    let own = &rows[row];
    let (mut n_mates, mut n_before) = (0_usize, 0);
    for (idx, other) in rows.iter().enumerate().filter(|(_, other)| other.segment == own.segment) {
        n_mates += 1;
        let is_before = other.rank > own.rank || (other.rank == own.rank && idx < row);
        n_before += usize::from(other.takes_part && is_before);
    }
    let n_kept = match keep {
        Keep::Slots(slots) | Keep::Left { slots, .. } => (slots as usize).saturating_sub(taken),
        Keep::Share(share) => (share.0 * n_mates as f64).ceil().max(1.0) as usize,
        Keep::ShareDown(share) => (share.0 * n_mates as f64).floor().max(1.0) as usize,
    };
    own.takes_part && n_before < n_kept
}
