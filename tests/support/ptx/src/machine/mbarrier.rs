//! An mbarrier object (PTX ISA section 9.7.13.15): arrivals and transactions of a phase, and what completing it makes
//! known.

use std::rc::Rc;

use super::clock::{Agent, Stamp, View};

/// Largest count that an mbarrier takes (PTX ISA section 9.7.13.15.2).
pub(crate) const MAX_COUNT: u32 = (1 << 20) - 1;

#[derive(Debug, Clone)]
pub(crate) struct Mbarrier {
    pub(crate) agent: Agent,
    /// Arrivals that a phase needs.
    pub(crate) count: u32,
    /// Arrivals that this phase still needs.
    pub(crate) pending: u32,
    /// Bytes that this phase still waits for; below 0 while more came than were announced.
    pub(crate) transactions: i64,
    /// Phases that completed.
    pub(crate) phase: u32,
    /// The initialisation, and whether it has been fenced for the async proxy.
    pub(crate) init: Stamp,
    pub(crate) fenced: bool,
    /// What arrivals of this phase release, and what completed phases have made known.
    arriving: View,
    pub(crate) completed: Rc<View>,
}

impl Mbarrier {
    pub(crate) fn new(agent: Agent, count: u32, init: Stamp) -> Self {
        Self {
            agent,
            count,
            pending: count,
            transactions: 0,
            phase: 0,
            init,
            fenced: false,
            arriving: View::default(),
            completed: Rc::default(),
        }
    }

    /// Whether the phase of this parity is over; that before the first counts as one of parity 1.
    pub(crate) fn is_over(&self, parity: u32) -> bool {
        self.phase & 1 != parity & 1
    }

    /// Takes arrivals that release `view`. Says whether the phase is complete.
    pub(crate) fn arrive(&mut self, count: u32, view: &View) -> bool {
        self.pending -= count;
        self.arriving.join(view);
        self.complete()
    }

    /// Changes the bytes waited for. Says whether the phase is complete.
    pub(crate) fn transact(&mut self, bytes: i64) -> bool {
        self.transactions += bytes;
        self.complete()
    }

    fn complete(&mut self) -> bool {
        if self.pending != 0 || self.transactions != 0 {
            return false;
        }
        self.phase += 1;
        self.pending = self.count;
        let arriving = std::mem::take(&mut self.arriving);
        let completed = Rc::make_mut(&mut self.completed);
        completed.join(&arriving);
        // Copies that completed on this phase are known to all that wait for it, in every proxy.
        completed.known.raise(self.agent, 1, self.phase);
        completed.fenced.raise(self.agent, 1, self.phase);
        true
    }

    /// Time of a copy that completes on the current phase.
    pub(crate) fn time(&self) -> u32 {
        self.phase + 1
    }
}
