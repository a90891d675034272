//! Who knows of which accesses: vector clocks over everything in a cluster that touches memory.
//!
//! A warp's lanes are 32 clocks of one agent, and so are the copies that its lanes have in flight. A barrier that counts
//! transactions is an agent too: its time is the number of phases that completed, and a copy that completes on it carries
//! the phase's number. An access is *known* where the clock of its agent has reached its time; knowledge travels with
//! release and acquire, as base causality order does in the memory model (PTX ISA section 8.9). Of other clusters something
//! is known only through places in memory that are released and acquired ([`super::order`]).

use std::collections::BTreeMap;

use crate::registers::{Mask, WARP, lanes};

/// Something of a cluster that touches memory: an index into the tables of [`Knowledge`].
pub(crate) type Agent = u16;

/// What kind of instruction made an access; decides what orders it before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AccessKind {
    /// Loads, stores, matrix loads: the generic proxy.
    Generic,
    /// `cp.async`: the generic proxy, later.
    AsyncCopy,
    /// `cp.async.bulk`, which an mbarrier or a bulk group completes: the async proxy.
    Bulk,
    /// `wgmma`: the async proxy.
    Wgmma,
    /// Atomics and reductions, and strong loads and stores, which do not conflict with each other.
    Atomic,
    /// `ld.global.nc`: reads what no thread writes while the kernel runs.
    NonCoherent,
}

impl AccessKind {
    /// Whether the access goes through the async proxy (PTX ISA section 8.6).
    pub(crate) fn is_async_proxy(self) -> bool {
        matches!(self, Self::Bulk | Self::Wgmma)
    }
}

/// An access: who, when, at which instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) agent: Agent,
    pub(crate) kind: AccessKind,
    /// The cluster that the agent is of; counted from 1.
    pub(crate) cluster: u32,
    /// Time of the agent; 0 means that there was no access.
    pub(crate) time: u32,
    /// Which of the agent's lanes.
    pub(crate) lanes: Mask,
    /// Index of the instruction.
    pub(crate) at: u32,
}

impl Stamp {
    pub(crate) const NEVER: Self =
        Self { agent: 0, kind: AccessKind::Generic, cluster: 0, time: 0, lanes: 0, at: 0 };
}

/// For each agent and lane, the time up to which its accesses are known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Knowledge {
    /// The cluster that `here` is of; 0 while nothing is known.
    cluster: u32,
    here: Times,
    /// What is known of other clusters.
    elsewhere: BTreeMap<u32, Times>,
}

impl Knowledge {
    fn of(cluster: u32) -> Self {
        Self { cluster, ..Self::default() }
    }

    #[inline]
    pub(crate) fn covers(&self, stamp: &Stamp) -> bool {
        match stamp.cluster == self.cluster {
            true => self.here.covers(stamp),
            false => self.elsewhere.get(&stamp.cluster).is_some_and(|times| times.covers(stamp)),
        }
    }

    pub(crate) fn join(&mut self, other: &Self) {
        if other.cluster == 0 {
            return;
        }
        if self.cluster == 0 {
            self.cluster = other.cluster;
        }
        self.times(other.cluster).join(&other.here);
        for (cluster, times) in &other.elsewhere {
            self.times(*cluster).join(times);
        }
    }

    fn times(&mut self, cluster: u32) -> &mut Times {
        match cluster == self.cluster {
            true => &mut self.here,
            false => self.elsewhere.entry(cluster).or_default(),
        }
    }

    /// Notes that the accesses of these lanes of an agent of the own cluster are known up to `time`.
    pub(crate) fn raise(&mut self, agent: Agent, mask: Mask, time: u32) {
        debug_assert!(self.cluster != 0, "of no cluster");
        self.here.raise(agent, mask, time);
    }
}

/// The clocks of the agents of a cluster.
#[derive(Debug, Clone, Default)]
struct Times {
    times: Vec<[u32; WARP]>,
    /// The least of each agent's lanes.
    least: Vec<u32>,
}

impl Times {
    #[inline]
    fn covers(&self, stamp: &Stamp) -> bool {
        let agent = stamp.agent as usize;
        match self.least.get(agent) {
            Some(least) if *least >= stamp.time => true,
            Some(_) => {
                let times = &self.times[agent];
                lanes(stamp.lanes).all(|lane| times[lane] >= stamp.time)
            }
            None => false,
        }
    }

    fn join(&mut self, other: &Self) {
        self.reserve(other.times.len());
        for (agent, theirs) in other.times.iter().enumerate() {
            let ours = &mut self.times[agent];
            if ours == theirs {
                continue;
            }
            for (ours, theirs) in ours.iter_mut().zip(theirs) {
                *ours = (*ours).max(*theirs);
            }
            self.least[agent] = ours.iter().copied().fold(u32::MAX, u32::min);
        }
    }

    fn raise(&mut self, agent: Agent, mask: Mask, time: u32) {
        self.reserve(agent as usize + 1);
        let times = &mut self.times[agent as usize];
        for lane in lanes(mask) {
            times[lane] = times[lane].max(time);
        }
        self.least[agent as usize] = times.iter().copied().fold(u32::MAX, u32::min);
    }

    fn reserve(&mut self, n: usize) {
        if self.times.len() < n {
            self.times.resize(n, [0; WARP]);
            self.least.resize(n, 0);
        }
    }
}

/// What a thread knows, and what of it holds for the async proxy too.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    /// Accesses that happened before.
    pub(crate) known: Knowledge,
    /// Those of them that a proxy fence lies behind (PTX ISA section 9.7.13.4, `fence.proxy.async`).
    pub(crate) fenced: Knowledge,
}

impl View {
    /// What a thread of a cluster knows at first.
    pub(crate) fn of(cluster: u32) -> Self {
        Self { known: Knowledge::of(cluster), fenced: Knowledge::of(cluster) }
    }

    pub(crate) fn join(&mut self, other: &Self) {
        self.known.join(&other.known);
        self.fenced.join(&other.fenced);
    }
}

/// The agents of a cluster: a row for each warp, its copies, its bulk groups and its matrix operations, then one for each
/// mbarrier in the order of their initialisation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Agents {
    n_warps: u16,
}

impl Agents {
    /// For all warps of all blocks of a cluster.
    pub(crate) fn new(n_warps: usize) -> Self {
        Self { n_warps: n_warps as u16 }
    }

    pub(crate) fn warp(self, warp: usize) -> Agent {
        warp as u16
    }

    pub(crate) fn async_copies(self, warp: usize) -> Agent {
        self.n_warps + warp as u16
    }

    pub(crate) fn bulk_groups(self, warp: usize) -> Agent {
        2 * self.n_warps + warp as u16
    }

    /// Writes of bulk groups, which complete later than their reads.
    pub(crate) fn bulk_writes(self, warp: usize) -> Agent {
        3 * self.n_warps + warp as u16
    }

    /// Matrix operations of the warp group that begins with this warp.
    pub(crate) fn wgmma(self, first_warp: usize) -> Agent {
        4 * self.n_warps + first_warp as u16
    }

    /// None if mbarriers were initialised too often for all to be told apart.
    pub(crate) fn mbarrier(self, index: usize) -> Option<Agent> {
        Agent::try_from(5 * usize::from(self.n_warps) + index).ok()
    }

    /// The warp that an agent belongs to; none for mbarriers.
    pub(crate) fn warp_of(self, agent: Agent) -> Option<usize> {
        (agent < 5 * self.n_warps).then(|| (agent % self.n_warps) as usize)
    }
}
