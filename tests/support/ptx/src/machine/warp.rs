//! A warp: registers, what its lanes know, and where they stand.
//!
//! Lanes that stand at one place form a fragment. A branch that divides a fragment makes two, which are scheduled on their
//! own and meet again at the branch's immediate post-dominator.

use std::rc::Rc;

use smallvec::SmallVec;

use super::clock::{Agent, View};
use super::order::{Fence, Seen};
use super::wgmma::Wgmma;
use crate::registers::{Mask, Registers, WARP, lanes};

/// What a fragment waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// A barrier for threads.
    Barrier(u32),
    /// All blocks of the cluster.
    Cluster,
    /// The phase of a parity of an mbarrier, in a block of the cluster, at an offset.
    Mbarrier {
        /// Rank of the block.
        block: u32,
        /// Where in its shared memory.
        offset: u32,
        /// Parity of the phase.
        parity: u32,
    },
    /// All warps of a warp group of the block, to have executed so many instructions together.
    WarpGroup {
        /// Which group.
        group: u32,
        /// How many.
        position: u32,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct Fragment {
    pub(crate) at: u32,
    pub(crate) mask: Mask,
    /// Meetings on the way, the next one last.
    pub(crate) joins: SmallVec<[u32; 4]>,
    pub(crate) wait: Option<Wait>,
}

/// Where lanes meet again.
#[derive(Debug, Clone)]
struct Join {
    at: u32,
    expected: Mask,
    arrived: Mask,
}

/// Copies that run beside their thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copying {
    /// `cp.async`
    Threads,
    /// Bulk copies from shared memory.
    Bulk,
}

/// Groups whose closing is remembered: no wait for all but more than these can be told apart, so none completes.
const REMEMBERED: usize = 16;

/// Asynchronous copies of one thread, in groups.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Groups {
    /// Grows whenever copies before and after have to be told apart.
    time: u32,
    /// Time of the last copy.
    issued: u32,
    /// Time up to which copies are known to be complete.
    completed: u32,
    closed: u32,
    closings: [u32; REMEMBERED],
}

impl Groups {
    /// Time of a copy that is issued now.
    pub(crate) fn issue(&mut self) -> u32 {
        self.issued = self.time + 1;
        self.issued
    }

    /// Whether a copy has been issued that no wait has covered.
    pub(crate) fn is_busy(&self) -> bool {
        self.issued > self.completed
    }

    /// Tells the copies so far from later ones, and returns their time.
    pub(crate) fn mark(&mut self) -> u32 {
        self.time += 1;
        self.time
    }

    /// Closes the open group.
    pub(crate) fn commit(&mut self) {
        let time = self.mark();
        self.closings[self.closed as usize % REMEMBERED] = time;
        self.closed += 1;
    }

    /// Time up to which copies are complete when all but the last `left` groups are.
    pub(crate) fn complete(&mut self, left: u32) -> u32 {
        if self.closed > left && (left as usize) < REMEMBERED {
            let time = self.closings[(self.closed - left - 1) as usize % REMEMBERED];
            self.completed = self.completed.max(time);
        }
        self.completed
    }
}

#[derive(Debug)]
pub(crate) struct Warp {
    pub(crate) registers: Registers,
    /// Time of the lanes' own accesses; goes on at each release.
    pub(crate) time: u32,
    /// What lanes know, by groups that know the same.
    views: SmallVec<[(Mask, Rc<View>); 2]>,
    pub(crate) fragments: SmallVec<[Fragment; 2]>,
    joins: Vec<Join>,
    /// Copies of each lane, by their kind.
    copies: Box<[Groups; WARP]>,
    bulks: Box<[Groups; WARP]>,
    /// Arrivals of each lane at the barrier of the cluster.
    pub(crate) cluster_arrivals: [u32; WARP],
    pub(crate) wgmma: Wgmma,
    /// What lanes have read that was released and that a fence of theirs makes known.
    pub(crate) seen: Vec<Seen>,
    /// Fences of lanes.
    pub(crate) fences: Vec<Fence>,
    /// Instructions of its warp group that it has executed.
    pub(crate) collective: usize,
}

impl Warp {
    pub(crate) fn new(mut registers: Registers, mask: Mask, cluster: u32) -> Self {
        registers.alive = mask;
        let start = Fragment { at: 0, mask, joins: SmallVec::new(), wait: None };
        Self {
            registers,
            time: 1,
            views: SmallVec::from_iter([(Mask::MAX, Rc::new(View::of(cluster)))]),
            fragments: SmallVec::from_iter([start]),
            joins: Vec::new(),
            copies: Box::default(),
            bulks: Box::default(),
            cluster_arrivals: [0; WARP],
            wgmma: Wgmma::default(),
            seen: Vec::new(),
            fences: Vec::new(),
            collective: 0,
        }
    }

    /// Groups of lanes that know the same, as far as they are in `mask`.
    pub(crate) fn views(&self, mask: Mask) -> impl Iterator<Item = (Mask, &Rc<View>)> {
        self.views.iter().map(move |(lanes, view)| (lanes & mask, view)).filter(|(lanes, _)| *lanes != 0)
    }

    /// What one lane knows.
    pub(crate) fn view(&self, lane: usize) -> Rc<View> {
        let group = self.views.iter().find(|(lanes, _)| lanes >> lane & 1 == 1);
        group.map_or_else(Rc::default, |(_, view)| Rc::clone(view))
    }

    /// Changes what the lanes of a mask know.
    pub(crate) fn learn(&mut self, mask: Mask, change: impl Fn(Mask, &mut View)) {
        let mut next: SmallVec<[(Mask, Rc<View>); 2]> = SmallVec::new();
        for (group, mut view) in std::mem::take(&mut self.views) {
            let (inside, outside) = (group & mask, group & !mask);
            if outside != 0 {
                next.push((outside, Rc::clone(&view)));
            }
            if inside != 0 {
                change(inside, Rc::make_mut(&mut view));
                next.push((inside, view));
            }
        }
        self.views = next;
    }

    /// Lets the lanes of a mask know exactly this, which includes what they knew.
    pub(crate) fn share(&mut self, mask: Mask, view: &Rc<View>) {
        for group in &mut self.views {
            group.0 &= !mask;
        }
        self.views.retain(|(lanes, _)| *lanes != 0);
        match self.views.iter_mut().find(|(_, known)| Rc::ptr_eq(known, view)) {
            Some(group) => group.0 |= mask,
            None => self.views.push((mask, Rc::clone(view))),
        }
    }

    /// What the lanes of a mask release: all that they know and did, as agent `agent`. Their later accesses are not in it.
    pub(crate) fn release(&mut self, mask: Mask, agent: Agent, into: &mut View) {
        for (_, view) in self.views(mask) {
            into.join(view);
        }
        into.known.raise(agent, mask, self.time);
        self.time += 1;
    }

    /// Copies of each lane.
    pub(crate) fn groups(&mut self, of: Copying) -> &mut [Groups; WARP] {
        match of {
            Copying::Threads => &mut self.copies,
            Copying::Bulk => &mut self.bulks,
        }
    }

    /// A lane with bulk copies that it has not waited for.
    pub(crate) fn bulk_copying(&self) -> Option<usize> {
        self.bulks.iter().position(Groups::is_busy)
    }

    /// Closes the open groups of the lanes of a mask.
    pub(crate) fn commit(&mut self, of: Copying, mask: Mask) {
        lanes(mask).for_each(|lane| self.groups(of)[lane].commit());
    }

    /// Lets lanes know that all but the last `left` of their groups are complete, which are accesses of these agents.
    pub(crate) fn complete(&mut self, of: Copying, mask: Mask, left: u32, agents: &[Agent]) {
        let groups = self.groups(of);
        let mut times = [0; WARP];
        lanes(mask).for_each(|lane| times[lane] = groups[lane].complete(left));
        self.learn(mask, |group, view| {
            let mut rest = group;
            while rest != 0 {
                let time = times[rest.trailing_zeros() as usize];
                let same = lanes(rest).filter(|lane| times[*lane] == time);
                let same = same.fold(0, |mask, lane| mask | 1 << lane);
                agents.iter().for_each(|agent| view.known.raise(*agent, same, time));
                rest &= !same;
            }
        });
    }

    /// Divides a fragment at a branch: lanes of `taken` go to `target`, the others to the next instruction.
    pub(crate) fn diverge(&mut self, idx: usize, taken: Mask, target: u32, join: Option<u32>) {
        let fragment = &mut self.fragments[idx];
        let mask = fragment.mask;
        if let Some(at) = join
            && fragment.joins.last().is_none_or(|last| self.joins[*last as usize].at != at)
        {
            self.joins.push(Join { at, expected: mask, arrived: 0 });
            fragment.joins.push(self.joins.len() as u32 - 1);
        }
        let mut other = fragment.clone();
        fragment.mask = mask & !taken;
        fragment.at += 1;
        other.mask = taken;
        other.at = target;
        self.fragments.push(other);
        self.meet(idx);
        let last = self.fragments.len() - 1;
        self.meet(last);
    }

    /// Lets a fragment meet the others if it stands where they do. Says whether it is still there.
    pub(crate) fn meet(&mut self, idx: usize) -> bool {
        let Some(fragment) = self.fragments.get(idx) else { return false };
        let Some(join) = fragment.joins.last().copied() else { return true };
        if self.joins[join as usize].at != fragment.at {
            return true;
        }
        self.joins[join as usize].arrived |= fragment.mask;
        if !self.is_met(join) {
            self.fragments.remove(idx);
            return false;
        }
        let arrived = self.joins[join as usize].arrived;
        let fragment = &mut self.fragments[idx];
        fragment.mask = arrived & self.registers.alive;
        fragment.joins.pop();
        self.tidy_joins();
        self.meet(idx)
    }

    fn is_met(&self, join: u32) -> bool {
        let Join { expected, arrived, .. } = self.joins[join as usize];
        expected & self.registers.alive & !arrived == 0
    }

    fn tidy_joins(&mut self) {
        if self.fragments.iter().all(|fragment| fragment.joins.is_empty()) && self.waiting_at_joins() == 0 {
            self.joins.clear();
        }
    }

    /// Lanes that wait for others to meet them.
    fn waiting_at_joins(&self) -> Mask {
        self.registers.alive & !self.standing()
    }

    /// Ends the lanes of a fragment that are in `mask`; those that waited only for them go on.
    pub(crate) fn end(&mut self, idx: usize, mask: Mask) {
        self.registers.alive &= !mask;
        let joins = self.fragments[idx].joins.clone();
        self.fragments[idx].mask &= !mask;
        if self.fragments[idx].mask != 0 {
            self.fragments[idx].at += 1;
            self.meet(idx);
            return;
        }
        self.fragments.remove(idx);
        // The innermost meeting of which some are left, if all of them are there.
        for (depth, join) in joins.iter().enumerate().rev() {
            let Join { at, arrived, .. } = self.joins[*join as usize];
            let there = arrived & self.registers.alive;
            if there == 0 {
                continue;
            }
            if self.is_met(*join) && self.standing() & there == 0 {
                let outer = joins[..depth].iter().copied().collect();
                self.fragments.push(Fragment { at, mask: there, joins: outer, wait: None });
                let last = self.fragments.len() - 1;
                self.meet(last);
            }
            break;
        }
        self.tidy_joins();
    }

    fn standing(&self) -> Mask {
        self.fragments.iter().fold(0, |mask, fragment| mask | fragment.mask)
    }

    /// Where lanes wait for others to meet them: instruction and lanes.
    pub(crate) fn meetings(&self) -> Vec<(u32, Mask)> {
        let waiting = self.waiting_at_joins();
        let open = self.joins.iter().filter(|join| join.arrived & waiting != 0);
        open.map(|join| (join.at, join.arrived & waiting)).collect()
    }
}
