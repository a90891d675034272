//! Faults of what survives a step.

use skipc_plan::kernel::{Body, CachedAttention, Compact, Keep, Ranked, Select, Slot, Update};

use super::{Fault, Victim};

pub(super) const FAULTS: [Fault; 7] = [
    Fault { name: "rows stored where they stand", plant: stored_in_order, least: 27 },
    Fault { name: "keys read where they stand", plant: pages_in_order, least: 34 },
    Fault { name: "pages of the last sequence", plant: pages_of_the_last, least: 12 },
    Fault { name: "the last key is not seen", plant: last_key_unseen, least: 37 },
    Fault { name: "keys that are not there are seen", plant: absent_keys_seen, least: 7 },
    Fault { name: "what earlier steps wanted is ignored", plant: earlier_ignored, least: 10 },
    Fault { name: "state begun anew", plant: begun_anew, least: 18 },
];

fn update(victim: &mut Victim) -> Option<&mut Update> {
    if let Body::Update(update) = &mut victim.kernel.body { Some(update) } else { None }
}

fn cached(victim: &mut Victim) -> Option<&mut CachedAttention> {
    if let Body::CachedAttention(attention) = &mut victim.kernel.body { Some(attention) } else { None }
}

/// Makes the words of an operand others.
fn set_words(victim: &mut Victim, Slot(slot): Slot, word: impl Fn(u32, u32) -> u32) {
    let words = victim.operands[slot as usize].as_chunks_mut().0;
    (0..).zip(words).for_each(|(idx, bytes)| *bytes = word(idx, u32::from_le_bytes(*bytes)).to_le_bytes());
}

fn stored_in_order(victim: &mut Victim) -> bool {
    let Some(Update::StoreRows { places, .. }) = update(victim).copied() else { return false };
    set_words(victim, places.slot, |row, _| row);
    true
}

fn pages_in_order(victim: &mut Victim) -> bool {
    let Some(pages) = cached(victim).map(|attention| attention.pages) else { return false };
    let cols = victim.kernel.param(pages).cols;
    set_words(victim, pages, |idx, page| if page == u32::MAX { page } else { idx % cols });
    true
}

fn pages_of_the_last(victim: &mut Victim) -> bool {
    let Some((q_seq, pages)) = cached(victim).map(|attention| (attention.q_seq, attention.pages)) else {
        return false;
    };
    let rows = victim.operands[pages.0 as usize].len() as u32 / 4 / victim.kernel.param(pages).cols;
    set_words(victim, q_seq.slot, |_, _| rows - 1);
    true
}

fn last_key_unseen(victim: &mut Victim) -> bool {
    let Some(q_pos) = cached(victim).map(|attention| attention.q_pos) else { return false };
    set_words(victim, q_pos.slot, |_, position| position.saturating_sub(1));
    true
}

fn absent_keys_seen(victim: &mut Victim) -> bool {
    cached(victim).is_some_and(|attention| attention.present.take().is_some())
}

fn earlier_ignored(victim: &mut Victim) -> bool {
    let Body::Compact(Compact { select: Select::Ranked(Ranked { keep, .. }), .. }) = &mut victim.kernel.body
    else {
        return false;
    };
    let Keep::Left { slots, .. } = *keep else { return false };
    *keep = Keep::Slots(slots);
    true
}

fn begun_anew(victim: &mut Victim) -> bool {
    let Some(Update::AddRows { sum: Slot(state), .. }) = update(victim).copied() else { return false };
    victim.operands[state as usize].fill(0);
    true
}
