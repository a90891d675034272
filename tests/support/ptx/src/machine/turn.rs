//! One instruction of one fragment: what it can see and do.

use std::rc::Rc;

use smallvec::SmallVec;

use super::block::WARP_GROUP;
use super::clock::{AccessKind, Stamp, View};
use super::cluster::{Cluster, Visit};
use super::fault::{FaultKind, Finding};
use super::order::Order;
use super::program::PARAMS;
use super::shadow::{Access, Conflict, Missing, ReadProblem};
use super::shared;
use super::warp::{Wait, Warp};
use crate::isa::descriptor::Chunk;
use crate::registers::{Lanes64, Mask, Registers, Slot, WARP, lanes};

/// State space that an instruction names (PTX ISA section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Any: the address decides.
    Generic,
    /// Global memory.
    Global,
    /// Shared memory of the block, or of a block of the cluster.
    Shared,
    /// Parameters.
    Param,
}

/// Up to 16 bytes of each lane.
pub type LaneBytes = [[u8; 16]; WARP];

/// Where an address leads.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pointee {
    /// Buffer and offset.
    Global(usize, usize),
    /// Block of the cluster and offset.
    Shared(usize, usize),
    Param(usize),
}

/// How an atomic changes memory.
pub struct Change<'c> {
    /// What it orders.
    pub order: Order,
    /// Whether the thread gets what was there: a reduction does not.
    pub reads: bool,
    /// What is there after it, by the lane and what was there.
    pub change: &'c mut dyn FnMut(usize, u64) -> u64,
}

/// An instruction's view of the machine.
pub struct Turn<'m> {
    pub(crate) cluster: &'m mut Cluster,
    pub(crate) block: usize,
    pub(crate) warp: usize,
    /// Lanes that execute it.
    pub mask: Mask,
    /// Its index.
    pub(crate) at: u32,
}

impl<'m> Turn<'m> {
    pub(crate) fn new(cluster: &'m mut Cluster, block: usize, warp: usize, mask: Mask, at: u32) -> Self {
        Self { cluster, block, warp, mask, at }
    }

    /// The registers of the warp.
    pub fn registers(&mut self) -> &mut Registers {
        &mut self.state().registers
    }

    pub(crate) fn state(&mut self) -> &mut Warp {
        &mut self.cluster.blocks[self.block].warps[self.warp]
    }

    /// Index of the warp in the cluster.
    pub(crate) fn warp_in_cluster(&self) -> usize {
        self.block * self.cluster.n_warps() + self.warp
    }

    /// Groups of executing lanes that know the same.
    pub(crate) fn views(&self) -> SmallVec<[(Mask, Rc<View>); 2]> {
        let state = &self.cluster.blocks[self.block].warps[self.warp];
        state.views(self.mask).map(|(mask, view)| (mask, Rc::clone(view))).collect()
    }

    /// A finding of the executing lanes.
    pub fn finding(&self, kind: FaultKind, what: impl Into<String>) -> Finding {
        Finding::new(kind, self.mask, what)
    }

    /// The access that a lane makes as itself.
    fn stamp(&self, lane: usize, kind: AccessKind) -> Stamp {
        let agent = self.cluster.agents.warp(self.warp_in_cluster());
        let time = self.cluster.blocks[self.block].warps[self.warp].time;
        Stamp { agent, kind, cluster: self.cluster.number, time, lanes: 1 << lane, at: self.at }
    }

    /// Where an address of a space leads, for an access of so many bytes.
    pub(crate) fn place(
        &self,
        space: Space,
        lane: usize,
        address: u64,
        bytes: u32,
    ) -> Result<Pointee, Finding> {
        let lane = lane as u32;
        let is_shared = address < 1 << 32;
        let is_param = (PARAMS..2 * PARAMS).contains(&address);
        match space {
            Space::Shared | Space::Generic if is_shared => {
                let (block, within) = self.shared_block(lane, address)?;
                let offset = self.cluster.blocks[block].shared.place(lane, within, bytes, bytes)?;
                Ok(Pointee::Shared(block, offset))
            }
            Space::Param | Space::Generic if is_param => {
                let offset = (address - PARAMS) as usize;
                let size = self.cluster.params.len();
                if offset + bytes as usize > size {
                    let what = format!(
                        "bytes {offset}..{} of the parameters, which have {size}",
                        offset + bytes as usize
                    );
                    return Err(Finding { kind: FaultKind::OutOfBounds, lane, what });
                }
                Ok(Pointee::Param(offset))
            }
            Space::Global | Space::Generic if !is_shared && !is_param => self
                .cluster
                .memory
                .place(lane, address, bytes, bytes)
                .map(|(buffer, offset)| Pointee::Global(buffer, offset)),
            _ => {
                let what =
                    format!("address {address:#x} is not in the state space that the instruction names");
                Err(Finding { kind: FaultKind::OutOfBounds, lane, what })
            }
        }
    }

    /// The block that a shared address belongs to, and the address within it.
    pub(crate) fn shared_block(&self, lane: u32, address: u64) -> Result<(usize, u64), Finding> {
        let within = address & ((1 << shared::WINDOW) - 1);
        match (address >> shared::WINDOW) as usize {
            0 => Ok((self.block, within)),
            rank if rank <= self.cluster.blocks.len() => Ok((rank - 1, within)),
            rank => {
                let what = format!("shared address {address:#x} names block {} of the cluster", rank - 1);
                Err(Finding { kind: FaultKind::OutOfBounds, lane, what })
            }
        }
    }

    /// Loads up to 16 bytes for each lane.
    ///
    /// # Errors
    /// What is wrong with one of the accesses.
    pub fn load(
        &mut self,
        space: Space,
        addresses: &Lanes64,
        bytes: u32,
        order: Order,
    ) -> Result<LaneBytes, Finding> {
        let mut data = [[0; 16]; WARP];
        let mut kind = None;
        for (group, view) in self.views() {
            for lane in lanes(group) {
                let place = self.place(space, lane, addresses[lane], bytes)?;
                kind = Some(place);
                let to = &mut data[lane][..bytes as usize];
                self.read(place, lane, to, &self.access(lane, order.kind(), &view))?;
                self.observe(place, lane, order);
            }
        }
        self.count(kind, addresses, bytes, true);
        Ok(data)
    }

    fn read(
        &mut self,
        place: Pointee,
        lane: usize,
        to: &mut [u8],
        access: &Access<'_>,
    ) -> Result<(), Finding> {
        let n = to.len();
        match place {
            Pointee::Param(offset) => to.copy_from_slice(&self.cluster.params[offset..offset + n]),
            Pointee::Global(buffer, offset) => {
                self.note_read((buffer, offset), lane, n, access)?;
                to.copy_from_slice(&self.cluster.memory.buffer(buffer).bytes[offset..offset + n]);
            }
            Pointee::Shared(block, offset) => {
                self.note_visit(block, access);
                let shared = &mut self.cluster.blocks[block].shared;
                shared.spare_mbarriers(lane as u32, offset, n)?;
                let noted = shared.shadow.read_initialised(offset, n, access);
                to.copy_from_slice(&shared.bytes[offset..offset + n]);
                noted.map_err(|problem| self.read_problem(lane, &problem))?;
            }
        }
        Ok(())
    }

    /// Notes a read of global memory. What no thread may write needs no notes.
    pub(crate) fn note_read(
        &mut self,
        (buffer, offset): (usize, usize),
        lane: usize,
        bytes: usize,
        access: &Access<'_>,
    ) -> Result<(), Finding> {
        if !self.cluster.memory.buffer(buffer).writable {
            return Ok(());
        }
        let noted = self.cluster.global.read((buffer, offset), bytes, access);
        noted.map_err(|conflict| self.conflict(lane, "read", self.buffer(buffer), &conflict))
    }

    fn access<'v>(&self, lane: usize, kind: AccessKind, view: &'v View) -> Access<'v> {
        self.access_as(self.stamp(lane, kind), 1 << lane, view)
    }

    /// The access of a stamp that these lanes issue, knowing this.
    pub(crate) fn access_as<'v>(&self, stamp: Stamp, lanes: Mask, view: &'v View) -> Access<'v> {
        let issuer = (self.cluster.agents.warp(self.warp_in_cluster()), lanes);
        Access { stamp, issuer, view }
    }

    pub(crate) fn read_problem(&self, lane: usize, problem: &ReadProblem) -> Finding {
        match problem {
            ReadProblem::Conflict(conflict) => self.conflict_in_shared(lane, "read", conflict),
            ReadProblem::Uninitialised { offset } => {
                let offset = self.own(*offset as u64);
                let what =
                    format!("byte {offset} of shared memory is read, and nothing has been written there");
                Finding { kind: FaultKind::UninitialisedShared, lane: lane as u32, what }
            }
        }
    }

    /// Stores up to 16 bytes of each lane.
    ///
    /// # Errors
    /// What is wrong with one of the accesses.
    pub fn store(
        &mut self,
        space: Space,
        addresses: &Lanes64,
        bytes: u32,
        (data, order): (&LaneBytes, Order),
    ) -> Result<(), Finding> {
        let mut kind = None;
        for (group, view) in self.views() {
            for lane in lanes(group) {
                let place = self.place(space, lane, addresses[lane], bytes)?;
                kind = Some(place);
                self.note_write(place, lane, bytes as usize, &self.access(lane, order.kind(), &view))?;
                self.publish(place, lane, order, false);
                let from = &data[lane][..bytes as usize];
                self.bytes_mut(place, bytes as usize).copy_from_slice(from);
            }
        }
        self.count(kind, addresses, bytes, false);
        Ok(())
    }

    /// Changes up to 8 bytes of each lane's place, one lane after the other, as atomics do; returns what was there.
    ///
    /// # Errors
    /// What is wrong with one of the accesses.
    pub fn change(
        &mut self,
        space: Space,
        addresses: &Lanes64,
        bytes: u32,
        how: Change<'_>,
    ) -> Result<Lanes64, Finding> {
        let Change { order, reads, change } = how;
        let mut before = [0; WARP];
        let mut kind = None;
        for (group, view) in self.views() {
            for lane in lanes(group) {
                let place = self.place(space, lane, addresses[lane], bytes)?;
                kind = Some(place);
                self.note_write(place, lane, bytes as usize, &self.access(lane, order.kind(), &view))?;
                if reads {
                    self.observe(place, lane, order);
                }
                self.publish(place, lane, order, true);
                let there = self.bytes_mut(place, bytes as usize);
                let mut word = [0; 8];
                word[..bytes as usize].copy_from_slice(there);
                before[lane] = u64::from_le_bytes(word);
                let after = change(lane, before[lane]).to_le_bytes();
                there.copy_from_slice(&after[..bytes as usize]);
            }
        }
        self.count(kind, addresses, bytes, false);
        Ok(before)
    }

    /// Notes a write, and checks that it is allowed.
    pub(crate) fn note_write(
        &mut self,
        place: Pointee,
        lane: usize,
        bytes: usize,
        access: &Access<'_>,
    ) -> Result<(), Finding> {
        match place {
            Pointee::Param(offset) => {
                let what = format!("byte {offset} of the parameters is written");
                Err(Finding { kind: FaultKind::ReadOnly, lane: lane as u32, what })
            }
            Pointee::Global(buffer, offset) => {
                if !self.cluster.memory.buffer(buffer).writable {
                    let what = format!(
                        "byte {offset} of `{}` is written, which is only to be read",
                        self.buffer(buffer)
                    );
                    return Err(Finding { kind: FaultKind::ReadOnly, lane: lane as u32, what });
                }
                let noted = self.cluster.global.write((buffer, offset), bytes, access);
                noted.map_err(|conflict| self.conflict(lane, "written", self.buffer(buffer), &conflict))
            }
            Pointee::Shared(block, offset) => {
                self.note_visit(block, access);
                let shared = &mut self.cluster.blocks[block].shared;
                shared.spare_mbarriers(lane as u32, offset, bytes)?;
                let noted = shared.shadow.write(offset, bytes, access);
                noted.map_err(|conflict| self.conflict_in_shared(lane, "written", &conflict))
            }
        }
    }

    /// Notes that a thread uses shared memory of another block. Bulk copies need no note: the other block waits for them.
    fn note_visit(&mut self, block: usize, access: &Access<'_>) {
        let stamp = access.stamp;
        if block == self.block || !matches!(stamp.kind, AccessKind::Generic | AccessKind::Atomic) {
            return;
        }
        match self.cluster.visits.last_mut() {
            Some(last)
                if last.block == block
                    && (last.stamp.agent, last.stamp.time, last.stamp.at)
                        == (stamp.agent, stamp.time, stamp.at) =>
            {
                last.stamp.lanes |= stamp.lanes;
            }
            _ => self.cluster.visits.push(Visit { block, stamp }),
        }
    }

    pub(crate) fn bytes_mut(&mut self, place: Pointee, bytes: usize) -> &mut [u8] {
        match place {
            Pointee::Global(buffer, offset) => {
                &mut self.cluster.memory.bytes_mut(buffer)[offset..offset + bytes]
            }
            Pointee::Shared(block, offset) => {
                &mut self.cluster.blocks[block].shared.bytes[offset..offset + bytes]
            }
            Pointee::Param(offset) => &mut self.cluster.params[offset..offset + bytes],
        }
    }

    pub(crate) fn buffer(&self, index: usize) -> String {
        self.cluster.memory.buffer(index).name.clone()
    }

    fn count(&mut self, kind: Option<Pointee>, addresses: &Lanes64, bytes: u32, loaded: bool) {
        let total = u64::from(self.mask.count_ones() * bytes);
        let counters = &mut self.cluster.counters;
        match kind {
            Some(Pointee::Global(..)) => {
                let to = if loaded { &mut counters.global_loaded } else { &mut counters.global_stored };
                *to += total;
                counters.global_request(lanes(self.mask).map(|lane| addresses[lane]), bytes);
            }
            Some(Pointee::Shared(..)) => {
                let to = if loaded { &mut counters.shared_loaded } else { &mut counters.shared_stored };
                *to += total;
                counters.shared_request(&chosen(self.mask, addresses), bytes);
            }
            _ => {}
        }
    }

    fn conflict_in_shared(&self, lane: usize, done: &str, conflict: &Conflict) -> Finding {
        let offset = self.own(conflict.offset as u64) as usize;
        self.conflict(lane, done, "shared memory".to_owned(), &Conflict { offset, ..*conflict })
    }

    /// An offset in shared memory as the kernel knows it.
    pub(crate) fn own(&self, offset: u64) -> u64 {
        self.cluster.program.rooms.own(offset)
    }

    /// Says what is wrong with two accesses.
    pub(crate) fn conflict(&self, lane: usize, done: &str, space: String, conflict: &Conflict) -> Finding {
        let Conflict { offset, earlier, wrote, elsewhere, missing } = conflict;
        let kind = match earlier.kind {
            _ if *missing == Missing::Coherence => FaultKind::NonCoherentLoad,
            _ if *elsewhere => FaultKind::RaceBetweenBlocks,
            _ if *missing == Missing::ProxyFence => FaultKind::MissingProxyFence,
            AccessKind::AsyncCopy | AccessKind::Bulk | AccessKind::Wgmma => FaultKind::MissingWait,
            AccessKind::Generic | AccessKind::Atomic | AccessKind::NonCoherent => FaultKind::Race,
        };
        let step = self.cluster.program.steps.get(earlier.at as usize);
        let (line, text) = step.map_or((0, ""), |step| (step.line, step.text.as_str()));
        let verb = if *wrote { "wrote" } else { "read" };
        let who = self.who(earlier, *elsewhere);
        let why = match kind {
            FaultKind::RaceBetweenBlocks => "no barrier joins the blocks, nor a release that was acquired",
            FaultKind::NonCoherentLoad => {
                "ld.global.nc is for memory that no thread writes while the kernel runs"
            }
            FaultKind::MissingProxyFence => "no fence.proxy.async lies between",
            FaultKind::MissingWait => "nothing has waited for its completion",
            _ => "nothing orders the two",
        };
        let what = format!(
            "byte {offset} of {space} is {done} after {who} {verb} it at line {line} ({text}), and {why}"
        );
        Finding { kind, lane: lane as u32, what }
    }

    fn who(&self, stamp: &Stamp, elsewhere: bool) -> String {
        if elsewhere {
            return "a thread of another block".to_owned();
        }
        let Some(warp) = self.cluster.agents.warp_of(stamp.agent) else {
            return "a bulk copy".to_owned();
        };
        let (block, warp) = (warp / self.cluster.n_warps(), warp % self.cluster.n_warps());
        let thread = warp as u32 * WARP as u32 + stamp.lanes.trailing_zeros().min(31);
        let of =
            if block == self.block { String::new() } else { format!(" of block {block} of the cluster") };
        match stamp.kind {
            AccessKind::Generic | AccessKind::Atomic | AccessKind::NonCoherent => {
                format!("thread {thread}{of}")
            }
            AccessKind::AsyncCopy => format!("a copy of thread {thread}{of}"),
            AccessKind::Bulk => format!("a bulk copy of thread {thread}{of}"),
            AccessKind::Wgmma => format!("a wgmma of warp {warp}{of}"),
        }
    }

    /// What the executing lanes release; their later accesses are not in it.
    pub(crate) fn release(&mut self) -> View {
        let mut view = View::default();
        let agent = self.cluster.agents.warp(self.warp_in_cluster());
        let mask = self.mask;
        self.state().release(mask, agent, &mut view);
        view
    }

    /// Lets the executing lanes know what was released.
    pub(crate) fn acquire(&mut self, view: &View) {
        let mask = self.mask;
        self.state().learn(mask, |_, known| known.join(view));
    }
}

impl Turn<'_> {
    /// Counts copies of threads from global to shared memory.
    pub(crate) fn count_copies(&mut self, from: &Lanes64, to: &Lanes64, bytes: u32, present: &[u32; WARP]) {
        let mask = self.mask;
        let counters = &mut self.cluster.counters;
        counters.copied_in += lanes(mask).map(|lane| u64::from(present[lane])).sum::<u64>();
        counters.global_request(lanes(mask).filter(|lane| present[*lane] > 0).map(|lane| from[lane]), bytes);
        counters.shared_request(&chosen(mask, to), bytes);
    }

    /// Checks that a lane may use an mbarrier: it is there, and its initialisation is known.
    pub(crate) fn use_mbarrier(&self, lane: usize, block: usize, offset: u32) -> Result<(), Finding> {
        let lane_idx = lane as u32;
        let Some(mbarrier) = self.cluster.blocks[block].shared.mbarriers.get(&offset) else {
            let offset = self.own(offset.into());
            let what =
                format!("there is no mbarrier at byte {offset} of shared memory: mbarrier.init comes first");
            return Err(Finding { kind: FaultKind::Barrier, lane: lane_idx, what });
        };
        let own = (self.cluster.agents.warp(self.warp_in_cluster()), 1 << lane);
        let state = &self.cluster.blocks[self.block].warps[self.warp];
        let known = state.view(lane).known.covers(&mbarrier.init);
        if (mbarrier.init.agent, mbarrier.init.lanes) != own && !known {
            let offset = self.own(offset.into());
            let what = format!("nothing orders the initialisation of the mbarrier at {offset} before this");
            return Err(Finding { kind: FaultKind::Race, lane: lane_idx, what });
        }
        Ok(())
    }
}

impl Turn<'_> {
    /// Notes that the warp executes an instruction that its whole warp group has to, agreeing on `key`. Tells how many it
    /// had executed before.
    pub(crate) fn collective(&mut self, key: u64) -> Result<usize, Finding> {
        let (block, warp) = (self.block, self.warp);
        let position = self.cluster.blocks[block].collective(warp, self.mask, self.at, key)?;
        let own = warp / WARP_GROUP;
        let reached = self.cluster.blocks[block].reached(own);
        self.cluster.wake(block..block + 1, true, |wait| match wait {
            Wait::WarpGroup { group, position } => group as usize == own && position as usize <= reached,
            _ => false,
        });
        Ok(position)
    }

    /// The agent of the warp group's matrix operations.
    pub(crate) fn wgmma_agent(&self) -> super::clock::Agent {
        let first = self.warp / WARP_GROUP * WARP_GROUP;
        self.cluster.agents.wgmma(self.block * self.cluster.n_warps() + first)
    }

    /// Reads an operand in shared memory, as a matrix operation does: calls `take` with each chunk, its eight elements of
    /// 16 bits, and the write that they are of with its offset.
    pub(crate) fn operand(
        &mut self,
        chunks: impl Iterator<Item = Chunk>,
        mut take: impl FnMut(Chunk, [u16; 8], (usize, Stamp)),
    ) -> Result<(), Finding> {
        let stamp = self.wgmma_stamp();
        let views = self.views();
        for chunk in chunks {
            let shared = &self.cluster.blocks[self.block].shared;
            let offset = shared.place(0, u64::from(chunk.address), 16, 16).map_err(|finding| {
                let what = format!("the descriptor leads to {}", finding.what);
                Finding { kind: FaultKind::Descriptor, what, ..finding }
            })?;
            for (group, view) in &views {
                let access = self.access_as(stamp, *group, view);
                let shadow = &mut self.cluster.blocks[self.block].shared.shadow;
                if let Err(problem) = shadow.read_initialised(offset, 16, &access) {
                    return Err(self.read_problem(group.trailing_zeros() as usize, &problem));
                }
            }
            let shared = &self.cluster.blocks[self.block].shared;
            let bytes = &shared.bytes[offset..offset + 16];
            let elements =
                std::array::from_fn(|idx| u16::from_le_bytes([bytes[2 * idx], bytes[2 * idx + 1]]));
            take(chunk, elements, (offset, shared.shadow.last_write(offset)));
        }
        Ok(())
    }

    fn wgmma_stamp(&self) -> Stamp {
        let time = self.cluster.blocks[self.block].warps[self.warp].wgmma.group();
        Stamp {
            agent: self.wgmma_agent(),
            kind: AccessKind::Wgmma,
            cluster: self.cluster.number,
            time,
            lanes: 1,
            at: self.at,
        }
    }

    /// Checks that these writes of an operand, which another warp has read for the whole group, are known to this one too.
    pub(crate) fn know_writes(&self, writes: &[(usize, Stamp)]) -> Result<(), Finding> {
        let stamp = self.wgmma_stamp();
        let warp = &self.cluster.blocks[self.block].warps[self.warp];
        for (group, view) in warp.views(self.mask) {
            let access = self.access_as(stamp, group, view);
            for (offset, earlier) in writes {
                if let Some(missing) = access.unordered(earlier) {
                    let (offset, earlier) = (*offset, *earlier);
                    let conflict = Conflict { offset, earlier, wrote: true, elsewhere: false, missing };
                    let lane = group.trailing_zeros() as usize;
                    return Err(self.conflict_in_shared(lane, "read", &conflict));
                }
            }
        }
        Ok(())
    }

    /// The name of a register, as reports show it.
    pub(crate) fn register_name(&self, slot: Slot) -> &str {
        self.cluster.program.names.get(&slot).map_or("a register", String::as_str)
    }
}

/// The addresses of the lanes of a mask.
fn chosen(mask: Mask, addresses: &Lanes64) -> SmallVec<[u64; WARP]> {
    lanes(mask).map(|lane| addresses[lane]).collect()
}
