//! Faults in the choice of rows by their rank.

use skipc_plan::interp::{Tiling, run_kernel};
use skipc_plan::kernel::{Body, Candidates, Compact, Keep, RankOrder, Ranked, Segment, Select, Slot, View};
use skipc_plan::pointwise::Real;

use super::{Fault, Victim};

pub(super) const FAULTS: [Fault; 9] = [
    Fault { name: "of equal scores the later row is kept", plant: later_of_equals, least: 19 },
    Fault { name: "what is not a number ranks first", plant: nan_first, least: 2 },
    Fault { name: "negative zero ranks below zero", plant: zeros_apart, least: 2 },
    Fault { name: "scores rank upwards", plant: upwards, least: 31 },
    Fault { name: "a share of rows is rounded down", plant: rounded_down, least: 7 },
    Fault { name: "a share is kept in f32", plant: share_in_f32, least: 10 },
    Fault { name: "the border of a group is off by one", plant: border_off, least: 16 },
    Fault { name: "groups of other sequences are one", plant: sequences_mixed, least: 17 },
    Fault { name: "rows that were not wanted take slots", plant: unwanted_take_slots, least: 22 },
];

fn compact(victim: &mut Victim) -> Option<&mut Compact> {
    if let Body::Compact(compact) = &mut victim.kernel.body { Some(compact) } else { None }
}

fn ranked(victim: &mut Victim) -> Option<&mut Ranked> {
    match &mut compact(victim)?.select {
        Select::Ranked(ranked) => Some(ranked),
        Select::AtLeast { .. }
        | Select::Random { .. }
        | Select::NotIn(_)
        | Select::InBoth(_)
        | Select::WithFirst { .. } => None,
    }
}

/// Gives a ranking other scores; those of a wider matrix are left alone.
fn rescore(victim: &mut Victim, of: impl Fn(&[f32]) -> Vec<f32>) -> bool {
    let Some(RankOrder::Score(view)) = ranked(victim).map(|ranked| ranked.order) else { return false };
    if victim.kernel.param(view.slot).cols != 1 {
        return false;
    }
    let words = victim.operands[view.slot.0 as usize].as_chunks::<4>().0;
    let old: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
    let bytes = of(&old).into_iter().flat_map(f32::to_le_bytes).collect();
    let slot = victim.add(view.slot, bytes);
    ranked(victim).is_some_and(|ranked| {
        ranked.order = RankOrder::Score(View { slot, ..view });
        true
    })
}

fn each(victim: &mut Victim, of: fn(f32) -> f32) -> bool {
    rescore(victim, |old| old.iter().map(|score| of(*score)).collect())
}

fn later_of_equals(victim: &mut Victim) -> bool {
    rescore(victim, |old| {
        let rank = |score: f32| if score.is_nan() { f32::NEG_INFINITY } else { score };
        let mut rows: Vec<usize> = (0..old.len()).collect();
        // Stable: of equals the later row comes later, and so gets the higher number.
        rows.sort_by(|a, b| rank(old[*a]).partial_cmp(&rank(old[*b])).expect("no rank is NaN"));
        let mut new = vec![0.0; old.len()];
        for (number, row) in (0_u16..).zip(rows) {
            new[row] = f32::from(number);
        }
        new
    })
}

fn nan_first(victim: &mut Victim) -> bool {
    each(victim, |score| if score.is_nan() { f32::INFINITY } else { score })
}

fn zeros_apart(victim: &mut Victim) -> bool {
    each(victim, |score| if score.to_bits() == 1 << 31 { -f32::from_bits(1) } else { score })
}

fn upwards(victim: &mut Victim) -> bool {
    each(victim, |score| -score)
}

fn share(victim: &mut Victim) -> Option<&mut Real> {
    match &mut ranked(victim)?.keep {
        Keep::Share(share) => Some(share),
        Keep::ShareDown(_) | Keep::Slots(_) | Keep::Left { .. } => None,
    }
}

/// In cases of one sequence, whose rows are known here.
fn rounded_down(victim: &mut Victim) -> bool {
    let Some(share) = share(victim).map(|share| share.0) else { return false };
    let Some(sequences) = ranked(victim).and_then(|ranked| ranked.sequences) else { return false };
    let skipc_artifact::program::Extent::Counted { count, .. } = victim.kernel.extent else { return false };
    let n_rows = victim.word(count) as usize;
    let sequences = victim.operands[sequences.slot.0 as usize].as_chunks::<4>().0;
    if !sequences.iter().take(n_rows).all(|sequence| *sequence == [0; 4]) {
        return false;
    }
    let slots = ((share * n_rows as f64).floor() as u32).max(1);
    ranked(victim).is_some_and(|ranked| {
        ranked.keep = Keep::Slots(slots);
        true
    })
}

fn share_in_f32(victim: &mut Victim) -> bool {
    share(victim).is_some_and(|share| {
        share.0 = f64::from(share.0 as f32);
        true
    })
}

/// Another column of integers for a view.
fn renumber(victim: &mut Victim, view: View, of: fn(u32) -> u32) -> View {
    let words = victim.operands[view.slot.0 as usize].as_chunks::<4>().0;
    let new = words.iter().map(|word| of(u32::from_le_bytes(*word)));
    let bytes = new.flat_map(u32::to_le_bytes).collect();
    View { slot: victim.add(view.slot, bytes), ..view }
}

fn border_off(victim: &mut Victim) -> bool {
    let Some(Segment::Group { positions, .. }) = ranked(victim).map(|ranked| ranked.segment) else {
        return false;
    };
    let moved = renumber(victim, positions, |position| position.saturating_add(1));
    ranked(victim).is_some_and(|ranked| match &mut ranked.segment {
        Segment::Group { positions, .. } => {
            *positions = moved;
            true
        }
        Segment::Sequence => false,
    })
}

fn sequences_mixed(victim: &mut Victim) -> bool {
    ranked(victim).is_some_and(|ranked| ranked.sequences.take().is_some())
}

/// Every row takes part, and of those that are kept the wanted ones are: what that gives is planted as a replay.
fn unwanted_take_slots(victim: &mut Victim) -> bool {
    let Some(Candidates::Masked(wanted)) = ranked(victim).map(|ranked| ranked.among) else { return false };
    let Some((use_forced, forced, Slot(mask))) =
        compact(victim).map(|compact| (compact.use_forced, compact.forced, compact.mask))
    else {
        return false;
    };
    let (mut all, mut operands) = (victim.kernel.clone(), victim.operands.clone());
    if let Body::Compact(Compact { select: Select::Ranked(ranked), .. }) = &mut all.body {
        ranked.among = Candidates::All;
    }
    if victim.word(use_forced.0) != 0 || run_kernel(&all, &mut operands, Tiling::of(16)).is_err() {
        return false;
    }
    let kept = operands[mask as usize].iter().zip(&victim.operands[wanted.0 as usize]);
    let decisions = kept.map(|(kept, wanted)| u8::from(*kept == 1 && *wanted == 1)).collect();
    victim.operands[forced.0 as usize] = decisions;
    victim.operands[use_forced.0 as usize].fill(1);
    true
}
