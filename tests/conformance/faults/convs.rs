//! Faults of convolutions.

use skipc_plan::kernel::{Along, Body, Conv, Inputs, Slot};

use super::{Fault, Victim};

pub(super) const FAULTS: [Fault; 6] = [
    Fault { name: "taps in the other order", plant: taps_reversed, least: 72 },
    Fault { name: "the earliest tap is dropped", plant: first_tap_dropped, least: 66 },
    Fault { name: "a token's own input is not seen", plant: own_unseen, least: 72 },
    Fault { name: "inputs of other sequences are seen", plant: sequences_mixed, least: 48 },
    Fault { name: "inputs read where they stand", plant: pages_in_order, least: 21 },
    Fault { name: "inputs that are not there are seen", plant: absent_seen, least: 7 },
];

fn conv(victim: &mut Victim) -> Option<&mut Conv> {
    if let Body::Along(Along::Conv(conv)) = &mut victim.kernel.body { Some(conv) } else { None }
}

/// Makes the words of an operand others.
fn set_words(victim: &mut Victim, Slot(slot): Slot, word: impl Fn(u32, u32) -> u32) {
    let words = victim.operands[slot as usize].as_chunks_mut().0;
    (0..).zip(words).for_each(|(idx, bytes)| *bytes = word(idx, u32::from_le_bytes(*bytes)).to_le_bytes());
}

/// The filters, a row for each tap, and how many bytes a row has.
fn filters(victim: &mut Victim) -> Option<(&mut Vec<u8>, usize)> {
    let Conv { filters, cols, .. } = *conv(victim)?;
    Some((&mut victim.operands[filters.0 as usize], cols as usize * 4))
}

fn taps_reversed(victim: &mut Victim) -> bool {
    let Some((filters, row)) = filters(victim) else { return false };
    *filters = filters.chunks_exact(row).rev().flatten().copied().collect();
    filters.len() > row
}

fn first_tap_dropped(victim: &mut Victim) -> bool {
    let Some((filters, row)) = filters(victim) else { return false };
    filters[..row].fill(0);
    true
}

fn own_unseen(victim: &mut Victim) -> bool {
    let Some(positions) = conv(victim).map(|conv| conv.positions) else { return false };
    // Where the rows are the inputs they share the column.
    let bytes = victim.operands[positions.slot.0 as usize].clone();
    let other = victim.add(positions.slot, bytes);
    set_words(victim, other, |_, position| position.saturating_sub(1));
    if let Some(conv) = conv(victim) {
        conv.positions.slot = other;
    }
    true
}

fn sequences_mixed(victim: &mut Victim) -> bool {
    let Some(sequences) = conv(victim).map(|conv| conv.sequences) else { return false };
    let bytes = victim.operands[sequences.slot.0 as usize].clone();
    let other = victim.add(sequences.slot, bytes);
    set_words(victim, other, |_, sequence| sequence.saturating_sub(1));
    if let Some(conv) = conv(victim) {
        conv.sequences.slot = other;
    }
    true
}

fn pages_in_order(victim: &mut Victim) -> bool {
    let Some(Inputs::Cached { pages, .. }) = conv(victim).map(|conv| conv.inputs) else { return false };
    let cols = victim.kernel.param(pages).cols;
    set_words(victim, pages, |idx, page| if page == u32::MAX { page } else { idx % cols });
    true
}

fn absent_seen(victim: &mut Victim) -> bool {
    match conv(victim).map(|conv| &mut conv.inputs) {
        Some(Inputs::Cached { present, .. }) => present.take().is_some(),
        Some(Inputs::Rows { .. }) | None => false,
    }
}
