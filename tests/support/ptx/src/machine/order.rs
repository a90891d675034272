//! Release and acquire through memory (PTX ISA sections 8.7 to 8.10).
//!
//! Beside a place stands what its last strong write released, and what atomics since have added to that. Who reads it there
//! knows it: at once if the read acquires, else from its next fence on. A write releases what its thread knew and did: until
//! then if it releases itself, else until the thread's last fence. Both count only as far as their scopes reach.

use std::rc::Rc;

use super::clock::{AccessKind, View};
use super::turn::{Pointee, Turn};
use crate::registers::Mask;

/// Which threads an operation is for (PTX ISA section 8.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Those of the block.
    Block,
    /// Those of the cluster.
    Cluster,
    /// All.
    Device,
}

/// What a memory operation orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Nothing: conflicts with those of other threads have to be ordered by something else.
    Weak,
    /// As `Weak`, of memory that nobody writes while the kernel runs.
    NonCoherent,
    /// It conflicts with no other strong operation.
    Strong {
        /// For which threads.
        scope: Scope,
        /// Makes known what was released where it reads.
        acquires: bool,
        /// Releases what the thread knows where it writes.
        releases: bool,
    },
}

impl Order {
    /// What conflicts with it.
    pub(crate) fn kind(self) -> AccessKind {
        match self {
            Order::Weak => AccessKind::Generic,
            Order::NonCoherent => AccessKind::NonCoherent,
            Order::Strong { .. } => AccessKind::Atomic,
        }
    }

    /// What the parts of an opcode say; `otherwise` if they say nothing.
    pub(crate) fn of_opcode(opcode: &str, otherwise: Order) -> Order {
        let has = |word: &str| opcode.split('.').any(|part| part == word);
        let acquires = has("acquire") || has("acq_rel") || has("sc");
        let releases = has("release") || has("acq_rel") || has("sc");
        if has("nc") {
            return Order::NonCoherent;
        }
        if !acquires && !releases && !has("relaxed") && !has("volatile") {
            return otherwise;
        }
        Order::Strong { scope: Scope::of_opcode(opcode), acquires, releases }
    }
}

impl Scope {
    /// What an opcode says; all threads if it says nothing.
    pub(crate) fn of_opcode(opcode: &str) -> Scope {
        let has = |word: &str| opcode.split('.').any(|part| part == word);
        match (has("cta"), has("cluster")) {
            (true, _) => Scope::Block,
            (_, true) => Scope::Cluster,
            _ => Scope::Device,
        }
    }
}

/// A block of a launch: the number of its cluster, its rank in it.
type BlockId = (u32, usize);

/// The least scope that has both.
fn around(one: BlockId, other: BlockId) -> Scope {
    match (one.0 == other.0, one.1 == other.1) {
        (true, true) => Scope::Block,
        (true, false) => Scope::Cluster,
        (false, _) => Scope::Device,
    }
}

/// What threads of a block released at a place.
#[derive(Debug, Clone)]
pub(crate) struct Release {
    by: BlockId,
    scope: Scope,
    view: Rc<View>,
}

/// What a lane has read that was released, and no fence of its own has made known yet.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    lane: usize,
    /// The least scope that a fence has to have.
    scope: Scope,
    view: Rc<View>,
}

/// The last fence of lanes: what their strong writes behind it release.
#[derive(Debug, Clone)]
pub(crate) struct Fence {
    lanes: Mask,
    scope: Scope,
    view: Rc<View>,
    /// Time of the lanes' own accesses before it.
    time: u32,
}

impl Turn<'_> {
    fn block_id(&self) -> BlockId {
        (self.cluster.number, self.block)
    }

    fn releases_mut(&mut self, place: Pointee) -> Option<&mut Vec<Release>> {
        match place {
            Pointee::Global(buffer, offset) => self.cluster.releases.get_mut(&(buffer, offset)),
            Pointee::Shared(block, offset) => self.cluster.blocks[block].shared.releases.get_mut(&offset),
            Pointee::Param(_) => None,
        }
    }

    /// A lane has read a place with a strong operation.
    pub(crate) fn observe(&mut self, place: Pointee, lane: usize, order: Order) {
        let Order::Strong { scope, acquires, .. } = order else { return };
        let own = self.block_id();
        let Some(releases) = self.releases_mut(place) else { return };
        let found: Vec<(Scope, Rc<View>)> = releases
            .iter()
            .map(|release| (around(own, release.by), release))
            .filter(|(needed, release)| scope >= *needed && release.scope >= *needed)
            .map(|(needed, release)| (needed, Rc::clone(&release.view)))
            .collect();
        for (needed, view) in found {
            if acquires {
                self.state().learn(1 << lane, |_, known| known.join(&view));
            } else {
                let seen = &mut self.state().seen;
                seen.retain(|seen| {
                    seen.lane != lane || seen.scope != needed || !Rc::ptr_eq(&seen.view, &view)
                });
                seen.push(Seen { lane, scope: needed, view });
            }
        }
    }

    /// A lane has written a place; `adds` if by an atomic, which keeps what was released there.
    pub(crate) fn publish(&mut self, place: Pointee, lane: usize, order: Order, adds: bool) {
        let mut made: Vec<(Scope, Rc<View>)> = Vec::new();
        if let Order::Strong { scope, releases, .. } = order {
            let agent = self.cluster.agents.warp(self.warp_in_cluster());
            let state = self.state();
            let fences = state.fences.iter().filter(|fence| fence.lanes >> lane & 1 == 1);
            made.extend(fences.map(|fence| {
                let mut view = View::clone(&fence.view);
                view.known.raise(agent, 1 << lane, fence.time);
                (fence.scope.min(scope), Rc::new(view))
            }));
            if releases {
                let mut view = View::default();
                state.release(1 << lane, agent, &mut view);
                made.push((scope, Rc::new(view)));
            }
        }
        if made.is_empty() && (adds || self.releases_mut(place).is_none()) {
            return;
        }
        let by = self.block_id();
        let list = match place {
            Pointee::Global(buffer, offset) => self.cluster.releases.entry((buffer, offset)).or_default(),
            Pointee::Shared(block, offset) => {
                self.cluster.blocks[block].shared.releases.entry(offset).or_default()
            }
            Pointee::Param(_) => return,
        };
        if !adds {
            list.clear();
        }
        for (scope, view) in made {
            match list.iter_mut().find(|release| (release.by, release.scope) == (by, scope)) {
                Some(release) => Rc::make_mut(&mut release.view).join(&view),
                None => list.push(Release { by, scope, view }),
            }
        }
    }

    /// The executing lanes execute a fence.
    pub(crate) fn fence(&mut self, scope: Scope, acquires: bool, releases: bool) {
        let mask = self.mask;
        let state = self.state();
        if acquires {
            let (mine, rest): (Vec<Seen>, Vec<Seen>) = std::mem::take(&mut state.seen)
                .into_iter()
                .partition(|seen| mask >> seen.lane & 1 == 1 && seen.scope <= scope);
            state.seen = rest;
            for Seen { lane, view, .. } in mine {
                state.learn(1 << lane, |_, known| known.join(&view));
            }
        }
        if releases {
            for fence in state.fences.iter_mut().filter(|fence| fence.scope <= scope) {
                fence.lanes &= !mask;
            }
            state.fences.retain(|fence| fence.lanes != 0);
            let time = state.time;
            let made: Vec<Fence> = state
                .views(mask)
                .map(|(lanes, view)| Fence { lanes, scope, view: Rc::clone(view), time })
                .collect();
            state.fences.extend(made);
            state.time += 1;
        }
    }
}
