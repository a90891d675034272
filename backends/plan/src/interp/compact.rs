//! Scores to token sets.

use skipc_ir::Rounding;
use skipc_ir::interp::functions;

use super::element::Element;
use super::fault::Fault;
use super::memory::Frame;
use crate::kernel::{Candidates, Compact, Keep, RankOrder, Ranked, Segment, Select, View};

pub(super) fn run<N: Element>(
    frame: &mut Frame<'_, '_, '_, N>,
    compact: &Compact,
    n_rows: u32,
) -> Result<(), Fault> {
    let chosen = if frame.load_u32(compact.use_forced, 0, 0)? != 0 {
        (0..n_rows).map(|row| Ok(frame.load_u8(compact.forced, u64::from(row))? != 0)).collect()
    } else {
        select(frame, &compact.select, n_rows)
    };
    let mut count = 0;
    for (row, executes) in (0..n_rows).zip(chosen?) {
        frame.store_u8(compact.mask, u64::from(row), executes.into())?;
        if executes {
            frame.store_u32(compact.rows, count, row)?;
            count += 1;
        }
    }
    frame.store_u32(compact.count, 0, count as u32)
}

/// Whether each row is in the set.
fn select<N: Element>(
    frame: &Frame<'_, '_, '_, N>,
    select: &Select,
    n_rows: u32,
) -> Result<Vec<bool>, Fault> {
    match *select {
        Select::AtLeast { scores, threshold } => {
            (0..n_rows).map(|row| Ok(functions::reaches(score(frame, scores, row)?, threshold.0))).collect()
        }
        Select::Random { ids, sequences, seed, block, limit } => (0..n_rows)
            .map(|row| {
                let sequence = sequences.map_or(Ok(0), |sequences| frame.load_index(sequences, row))?;
                let id = frame.load_index(ids, row)?;
                Ok(skipc_ir::random_score(seed, block, sequence.into(), id.into()) < limit)
            })
            .collect(),
        Select::NotIn(mask) => (0..n_rows).map(|row| Ok(frame.load_u8(mask, u64::from(row))? == 0)).collect(),
        Select::WithFirst { chosen, positions, first } => (0..n_rows)
            .map(|row| {
                let is_chosen = frame.load_u8(chosen, u64::from(row))? != 0;
                Ok(is_chosen || frame.load_index(positions, row)? < first)
            })
            .collect(),
        Select::InBoth([wanted, outer]) => (0..n_rows)
            .map(|row| {
                let is_in = |mask| Ok(frame.load_u8(mask, u64::from(row))? != 0);
                Ok(is_in(wanted)? && is_in(outer)?)
            })
            .collect(),
        Select::Ranked(ranked) => select_ranked(frame, &ranked, n_rows),
    }
}

/// Segment after segment: its candidates in the order in which they rank, cut off where the places end.
fn select_ranked<N: Element>(
    frame: &Frame<'_, '_, '_, N>,
    ranked: &Ranked,
    n_rows: u32,
) -> Result<Vec<bool>, Fault> {
    let mut chosen = vec![false; n_rows as usize];
    let mut first = 0;
    while first < n_rows {
        let segment = segment_of(frame, ranked, first)?;
        let mut end = first + 1;
        while end < n_rows && segment_of(frame, ranked, end)? == segment {
            end += 1;
        }
        let mut candidates = Vec::new();
        for row in first..end {
            if is_candidate(frame, ranked.among, row)? {
                candidates.push((rank(frame, ranked.order, row)?, row));
            }
        }
        // Stable, so that earlier rows stay before later ones of the same rank. No rank is NaN.
        candidates.sort_by(|(a, _), (b, _)| b.partial_cmp(a).unwrap_or(std::cmp::Ordering::Equal));
        let n_kept = match ranked.keep {
            Keep::Slots(slots) => slots as usize,
            Keep::Left { slots, before, pages } => {
                let Segment::Group { positions, size } = ranked.segment else {
                    return Err(Fault::Malformed("what is left of no group".to_owned()));
                };
                let (mut taken, end) = (0, frame.load_index(positions, first)?);
                for position in segment.1 * size..end {
                    let key = frame.cached(pages, segment.0, position)?;
                    taken += u32::from(frame.load_u8(before, key)? != 0);
                }
                slots.saturating_sub(taken) as usize
            }
            Keep::Share(share) => skipc_ir::top_k(share.0, Rounding::Up, (end - first) as usize),
            Keep::ShareDown(share) => skipc_ir::top_k(share.0, Rounding::Down, (end - first) as usize),
        };
        candidates.into_iter().take(n_kept).for_each(|(_, row)| chosen[row as usize] = true);
        first = end;
    }
    Ok(chosen)
}

/// The sequence of a row, and its group if groups share the places.
fn segment_of<N: Element>(
    frame: &Frame<'_, '_, '_, N>,
    ranked: &Ranked,
    row: u32,
) -> Result<(u32, u32), Fault> {
    let group = match ranked.segment {
        Segment::Sequence => 0,
        Segment::Group { positions, size } => {
            let group = frame.load_index(positions, row)?.checked_div(size);
            group.ok_or_else(|| Fault::Malformed("a group of no rows".to_owned()))?
        }
    };
    let sequence = ranked.sequences.map_or(Ok(0), |sequences| frame.load_index(sequences, row))?;
    Ok((sequence, group))
}

fn is_candidate<N: Element>(
    frame: &Frame<'_, '_, '_, N>,
    among: Candidates,
    row: u32,
) -> Result<bool, Fault> {
    match among {
        Candidates::All => Ok(true),
        Candidates::Masked(mask) => Ok(frame.load_u8(mask, u64::from(row))? != 0),
    }
}

fn rank<N: Element>(frame: &Frame<'_, '_, '_, N>, order: RankOrder, row: u32) -> Result<f64, Fault> {
    match order {
        RankOrder::Position => Ok(0.0),
        RankOrder::Score(scores) => {
            let score = score(frame, scores, row)?.to_f64();
            Ok(if score.is_nan() { f64::NEG_INFINITY } else { score })
        }
    }
}

fn score<N: Element>(frame: &Frame<'_, '_, '_, N>, scores: View, row: u32) -> Result<N, Fault> {
    Ok(frame.load(scores, row, 1)?[0])
}
