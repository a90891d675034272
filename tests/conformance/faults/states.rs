//! Faults of what survives a step.

use skipc_plan::kernel::{
    Body, CachedAttention, Compact, Keep, KeepChoices, Pending, Ranked, Rowwise, Select, Slot, Update,
};

use super::{Fault, Victim};

pub(super) const FAULTS: [Fault; 12] = [
    Fault { name: "rows stored where they stand", plant: stored_in_order, least: 27 },
    Fault { name: "keys read where they stand", plant: pages_in_order, least: 34 },
    Fault { name: "pages of the last sequence", plant: pages_of_the_last, least: 12 },
    Fault { name: "the last key is not seen", plant: last_key_unseen, least: 37 },
    Fault { name: "keys that are not there are seen", plant: absent_keys_seen, least: 7 },
    Fault { name: "what earlier steps wanted is ignored", plant: earlier_ignored, least: 10 },
    Fault { name: "choices of earlier tokens are ignored", plant: earlier_choices_ignored, least: 8 },
    Fault { name: "state begun anew", plant: begun_anew, least: 18 },
    Fault { name: "what waits is never computed", plant: never_computed, least: 10 },
    Fault { name: "what waits is computed whoever executes", plant: always_computed, least: 5 },
    Fault { name: "what waits is computed again", plant: computed_again, least: 5 },
    Fault { name: "what waits of another router", plant: of_another_router, least: 10 },
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

fn earlier_choices_ignored(victim: &mut Victim) -> bool {
    let Body::Rowwise(Rowwise::Limit(limit)) = &mut victim.kernel.body else { return false };
    let KeepChoices::Left { slots, experts, .. } = limit.keep else { return false };
    limit.keep = KeepChoices::Slots { slots, experts };
    true
}

fn begun_anew(victim: &mut Victim) -> bool {
    let Some(Update::AddRows { sum: Slot(state), .. }) = update(victim).copied() else { return false };
    victim.operands[state as usize].fill(0);
    true
}

fn pending(victim: &mut Victim) -> Option<&mut Pending> {
    if let Body::Pending(pending) = &mut victim.kernel.body { Some(pending) } else { None }
}

/// Makes the column of how many rows may wait another.
fn set_most(victim: &mut Victim, most: u32) -> bool {
    let Some(table) = pending(victim).map(|pending| pending.pending) else { return false };
    let cols = victim.kernel.param(table).cols;
    set_words(victim, table, |idx, word| if idx % cols == cols - 1 { most } else { word });
    true
}

fn never_computed(victim: &mut Victim) -> bool {
    let Some(executed) = pending(victim).map(|pending| pending.executed) else { return false };
    victim.operands[executed.0 as usize].fill(0);
    set_most(victim, 1000)
}

fn always_computed(victim: &mut Victim) -> bool {
    set_most(victim, 0)
}

fn computed_again(victim: &mut Victim) -> bool {
    let Some(Pending { pending: table, router, .. }) = pending(victim).copied() else { return false };
    let cols = victim.kernel.param(table).cols;
    set_words(victim, table, |idx, word| if idx % cols == router { word.saturating_sub(1) } else { word });
    true
}

fn of_another_router(victim: &mut Victim) -> bool {
    pending(victim).map(|pending| pending.router = 0).is_some()
}
