//! Faults in the choice of rows and columns.

use skipc_artifact::program::Extent;
use skipc_plan::kernel::{
    Along, Attention, Body, CachedAttention, Conv, Grouped, Inputs, Limit, Pending, RankOrder, Ranked, Rows,
    Rowwise, Segment, Select, Update, View,
};

use super::{Fault, Victim, views};

pub(super) const FAULTS: [Fault; 8] = [
    Fault { name: "the last row is dropped", plant: |victim| change_count(victim, -1), least: 561 },
    Fault { name: "a row too many is written", plant: |victim| change_count(victim, 1), least: 382 },
    Fault { name: "rows of a last tile that is not full are dropped", plant: last_tile_dropped, least: 511 },
    Fault { name: "a listed row is replaced by the one before", plant: neighbour_listed, least: 102 },
    Fault { name: "row lists are ignored", plant: lists_ignored, least: 108 },
    Fault { name: "all rows are found through the list", plant: lists_everywhere, least: 64 },
    Fault { name: "the first column of a view is ignored", plant: columns_ignored, least: 22 },
    Fault { name: "a row list is shifted by one", plant: list_shifted, least: 140 },
];

fn set_count(victim: &mut Victim, of: impl Fn(u32) -> i64) -> bool {
    let Extent::Counted { count, .. } = victim.kernel.extent else { return false };
    let before = victim.word(count);
    let Ok(after) = u32::try_from(of(before)) else { return false };
    if after == before {
        return false;
    }
    // A parameter of its own: what a kernel does with its own count is not to change how it counts keys.
    let slot = victim.add(skipc_plan::kernel::Slot(count), after.to_le_bytes().to_vec());
    victim.kernel.extent = Extent::Counted { count: slot.0, at_most: after };
    true
}

fn change_count(victim: &mut Victim, by: i64) -> bool {
    set_count(victim, |count| i64::from(count) + by)
}

fn last_tile_dropped(victim: &mut Victim) -> bool {
    set_count(victim, |count| i64::from(count / 16 * 16))
}

/// All views of a kernel.
fn all_views(victim: &mut Victim) -> Vec<&mut View> {
    match &mut victim.kernel.body {
        Body::Gemm(gemm) | Body::Grouped(Grouped { gemm, .. }) => {
            let mut all: Vec<&mut View> =
                gemm.parts.iter_mut().flat_map(|part| views(&mut part.epilogue)).collect();
            all.push(&mut gemm.a);
            all
        }
        Body::Rowwise(Rowwise::Map { program, .. }) => views(program),
        Body::Rowwise(
            Rowwise::Norm { x, .. }
            | Rowwise::RowScale { x, .. }
            | Rowwise::Rope { positions: x, .. }
            | Rowwise::Choose { logits: x, .. }
            | Rowwise::Limit(Limit { index: x, .. })
            | Rowwise::Embed { ids: x, .. },
        ) => vec![x],
        Body::Partition(partition) => vec![&mut partition.index],
        Body::Along(Along::Mean { x, sequences, .. }) => vec![x, sequences],
        Body::Along(Along::Conv(Conv { positions, sequences, inputs, .. })) => {
            let mut all = vec![positions, sequences];
            if let Inputs::Rows { x, positions, sequences, .. } = inputs {
                all.extend([x, positions, sequences]);
            }
            all
        }
        Body::Attention(attention) => {
            let Attention { q, k, v, q_pos, q_seq, k_pos, k_seq, .. } = attention;
            vec![q, k, v, q_pos, q_seq, k_pos, k_seq]
        }
        Body::CachedAttention(CachedAttention { q, q_pos, q_seq, .. }) => vec![q, q_pos, q_seq],
        Body::Pending(Pending { positions, sequences, .. }) => vec![positions, sequences],
        Body::Update(Update::StoreRows { rows, places, .. }) => vec![rows, places],
        Body::Update(Update::AddRows { x, .. }) => vec![x],
        Body::WeightGradient(gradient) => vec![&mut gradient.x, &mut gradient.dy],
        Body::Loops(_) => Vec::new(),
        Body::Compact(compact) => match &mut compact.select {
            Select::AtLeast { scores, .. } => vec![scores],
            Select::NotIn(_) | Select::InBoth(_) => Vec::new(),
            Select::WithFirst { positions, .. } => vec![positions],
            Select::Random { ids, sequences, .. } => std::iter::once(ids).chain(sequences).collect(),
            Select::Ranked(Ranked { sequences, segment, order, .. }) => {
                let mut all: Vec<&mut View> = sequences.iter_mut().collect();
                if let Segment::Group { positions, .. } = segment {
                    all.push(positions);
                }
                if let RankOrder::Score(scores) = order {
                    all.push(scores);
                }
                all
            }
        },
    }
}

fn list_of(victim: &mut Victim) -> Option<skipc_plan::kernel::Slot> {
    all_views(victim).into_iter().find_map(|view| match view.rows {
        Rows::Listed(list) => Some(list),
        Rows::Dense => None,
    })
}

/// Changes the live entries of the row list.
fn edit_list(victim: &mut Victim, edit: impl Fn(&mut [[u8; 4]]) -> bool) -> bool {
    let Extent::Counted { count, .. } = victim.kernel.extent else { return false };
    let n_rows = victim.word(count) as usize;
    let Some(list) = list_of(victim) else { return false };
    let words = victim.operands[list.0 as usize].as_chunks_mut::<4>().0;
    words.get_mut(..n_rows).is_some_and(edit)
}

fn neighbour_listed(victim: &mut Victim) -> bool {
    edit_list(victim, |words| {
        let rows: Vec<i64> = words.iter().map(|word| i64::from(u32::from_le_bytes(*word))).collect();
        let room = |idx: &usize| rows[*idx] - idx.checked_sub(1).map_or(-1, |before| rows[before]) > 1;
        let Some(idx) = (0..rows.len()).rev().find(room) else { return false };
        words[idx] = (rows[idx] as u32 - 1).to_le_bytes();
        true
    })
}

fn list_shifted(victim: &mut Victim) -> bool {
    edit_list(victim, |words| {
        for word in &mut *words {
            *word = (u32::from_le_bytes(*word) + 1).to_le_bytes();
        }
        !words.is_empty()
    })
}

fn lists_ignored(victim: &mut Victim) -> bool {
    change_views(victim, |view| {
        let listed = view.rows != Rows::Dense;
        view.rows = Rows::Dense;
        listed
    })
}

fn lists_everywhere(victim: &mut Victim) -> bool {
    let Some(list) = list_of(victim) else { return false };
    if matches!(victim.kernel.body, Body::Attention(_)) {
        return false;
    }
    let mut any = false;
    for view in all_views(victim) {
        any |= view.rows == Rows::Dense;
        view.rows = Rows::Listed(list);
    }
    any
}

fn columns_ignored(victim: &mut Victim) -> bool {
    change_views(victim, |view| {
        let later = view.col != 0;
        view.col = 0;
        later
    })
}

fn change_views(victim: &mut Victim, change: fn(&mut View) -> bool) -> bool {
    // Each view is changed: `any` would stop at the first.
    all_views(victim).into_iter().filter_map(|view| change(view).then_some(())).count() > 0
}
