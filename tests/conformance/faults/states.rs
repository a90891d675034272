//! Faults of what survives a step.

use skipc_plan::kernel::{Body, Compact, Keep, Ranked, Select, Slot, Update};

use super::{Fault, Victim};

pub(super) const FAULTS: [Fault; 4] = [
    Fault { name: "counts of earlier steps ignored", plant: counts_ignored, least: 10 },
    Fault { name: "state begun anew", plant: begun_anew, least: 28 },
    Fault { name: "groups begin a position late", plant: groups_late, least: 5 },
    Fault { name: "rows counted that are not wanted", plant: all_counted, least: 5 },
];

fn update(victim: &mut Victim) -> Option<&mut Update> {
    if let Body::Update(update) = &mut victim.kernel.body { Some(update) } else { None }
}

fn counts_ignored(victim: &mut Victim) -> bool {
    let Body::Compact(Compact { select: Select::Ranked(Ranked { keep, .. }), .. }) = &mut victim.kernel.body
    else {
        return false;
    };
    let Keep::Left { slots, .. } = *keep else { return false };
    *keep = Keep::Slots(slots);
    true
}

fn begun_anew(victim: &mut Victim) -> bool {
    let Some(Update::AddRows { sum: Slot(state), .. } | Update::CountGroups { counts: Slot(state), .. }) =
        update(victim).copied()
    else {
        return false;
    };
    victim.operands[state as usize].fill(0);
    true
}

fn groups_late(victim: &mut Victim) -> bool {
    let Some(Update::CountGroups { size, .. }) = update(victim) else { return false };
    *size = size.saturating_add(1);
    true
}

fn all_counted(victim: &mut Victim) -> bool {
    let Some(Update::CountGroups { wanted: Slot(wanted), .. }) = update(victim).copied() else {
        return false;
    };
    victim.operands[wanted as usize].fill(1);
    true
}
