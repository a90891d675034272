//! A cluster of blocks, and the scheduler: which warp goes on, and for how long.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Run;
use super::barrier::ClusterBarrier;
use super::block::Block;
use super::clock::Agents;
use super::counters::Counters;
use super::fault::{Fault, FaultKind, Finding};
use super::launch::Launch;
use super::memory::{GlobalShadow, Memory};
use super::order::Release;
use super::program::Program;
use super::rng::Rng;
use super::shared::Shared;
use super::special::{self, WarpPosition};
use super::turn::Turn;
use super::warp::{Wait, Warp};
use super::{Outcome, Trouble};
use crate::registers::{Mask, RegisterFault, Slot, WARP};

/// What all blocks of a launch have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Blocks of a cluster.
    pub(crate) cluster: [u32; 3],
    /// Threads of a block.
    pub(crate) threads: [u32; 3],
    pub(crate) n_threads: u32,
    /// Bytes of shared memory of a block, with those between its variables.
    pub(crate) shared: u32,
}

/// Something that will happen by itself.
#[derive(Debug, Clone)]
pub(crate) enum Pending {
    /// A bulk copy is complete: bytes for an mbarrier, in a block, at an offset; the phase in which it was issued.
    Transaction { block: usize, offset: u32, bytes: u32, phase: u32, at: u32 },
    /// The copies of a thread before `cp.async.mbarrier.arrive` are complete.
    Arrive { block: usize, offset: u32, view: Box<super::clock::View>, at: u32 },
}

/// A use of another block's shared memory, which has to come before that block's end.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    pub(crate) block: usize,
    pub(crate) stamp: super::clock::Stamp,
}

/// How long warps go on before another has its turn.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Instructions at most.
    longest: usize,
    /// A pending event happens once in so many turns.
    event_in: usize,
}

impl Pace {
    /// Schedules differ in more than the order: some change warps at each instruction, some run each as far as it goes.
    fn of(seed: u64) -> Self {
        match seed % 4 {
            0 => Self { longest: usize::MAX, event_in: 2 },
            1 => Self { longest: 4, event_in: 32 },
            2 => Self { longest: 64, event_in: 1 },
            _ => Self { longest: 16, event_in: 8 },
        }
    }
}

/// A cluster while others have their turn.
pub(crate) struct Parked {
    number: u32,
    agents: Agents,
    blocks: Vec<Block>,
    n_mbarriers: usize,
    barrier: ClusterBarrier,
    pending: Vec<Pending>,
    visits: Vec<Visit>,
    steps: u64,
}

pub(crate) struct Cluster {
    pub(crate) program: Arc<Program>,
    pub(crate) launch: Launch,
    pub(crate) shape: Shape,
    pub(crate) params: Vec<u8>,
    pub(crate) memory: Memory,
    pub(crate) global: GlobalShadow,
    pub(crate) counters: Counters,
    pub(crate) rng: Rng,
    /// What strong writes have released, by buffer and offset.
    pub(crate) releases: BTreeMap<(usize, usize), Vec<Release>>,
    /// Clusters that have begun.
    n_begun: u32,
    /// Counts clusters, from 1.
    pub(crate) number: u32,
    pub(crate) agents: Agents,
    pub(crate) blocks: Vec<Block>,
    pub(crate) n_mbarriers: usize,
    pub(crate) barrier: ClusterBarrier,
    pub(crate) pending: Vec<Pending>,
    pub(crate) visits: Vec<Visit>,
    steps: u64,
}

impl Cluster {
    pub(crate) fn new(
        program: Arc<Program>,
        launch: Launch,
        shape: Shape,
        params: Vec<u8>,
        memory: Memory,
        global: GlobalShadow,
        rng: Rng,
    ) -> Self {
        Self {
            program,
            launch,
            shape,
            params,
            memory,
            global,
            counters: Counters::default(),
            rng,
            releases: BTreeMap::new(),
            n_begun: 0,
            number: 0,
            agents: Agents::new(0),
            blocks: Vec::new(),
            n_mbarriers: 0,
            barrier: ClusterBarrier::default(),
            pending: Vec::new(),
            visits: Vec::new(),
            steps: 0,
        }
    }

    /// Warps of a block.
    pub(crate) fn n_warps(&self) -> usize {
        self.shape.n_threads.div_ceil(WARP as u32) as usize
    }

    /// Leaves the cluster as it is, for [`Cluster::resume`].
    pub(crate) fn park(&mut self) -> Parked {
        Parked {
            number: self.number,
            agents: self.agents,
            blocks: std::mem::take(&mut self.blocks),
            n_mbarriers: self.n_mbarriers,
            barrier: std::mem::take(&mut self.barrier),
            pending: std::mem::take(&mut self.pending),
            visits: std::mem::take(&mut self.visits),
            steps: self.steps,
        }
    }

    /// Makes a cluster the one that goes on.
    pub(crate) fn resume(&mut self, parked: Parked) {
        let Parked { number, agents, blocks, n_mbarriers, barrier, pending, visits, steps } = parked;
        (self.number, self.agents, self.blocks, self.n_mbarriers) = (number, agents, blocks, n_mbarriers);
        (self.barrier, self.pending, self.visits, self.steps) = (barrier, pending, visits, steps);
    }

    /// Goes on for about so many instructions of warps. Says whether the cluster has ended.
    pub(crate) fn go_on(&mut self, instructions: u64) -> Result<bool, Box<Fault>> {
        let pace = Pace::of(self.launch.seed);
        let until = self.steps.saturating_add(instructions);
        loop {
            if self.steps >= until {
                return Ok(false);
            }
            if !self.pending.is_empty() && self.rng.once_in(pace.event_in) {
                self.event()?;
            }
            let Some((block, warp, fragment)) = self.choose() else {
                if self.blocks.iter().all(|block| block.warps.iter().all(|warp| warp.registers.alive == 0)) {
                    return self.finish().map(|()| true);
                }
                if self.pending.is_empty() {
                    return Err(self.deadlock());
                }
                self.event()?;
                continue;
            };
            let longest =
                if pace.longest == usize::MAX { usize::MAX } else { 1 + self.rng.below(pace.longest) };
            let left = usize::try_from(until - self.steps).unwrap_or(usize::MAX);
            self.turn(block, warp, fragment, longest.min(left))?;
        }
    }

    /// Begins the cluster at a place in the grid of clusters.
    pub(crate) fn start(&mut self, at: [u32; 3]) {
        let [cx, cy, cz] = self.shape.cluster;
        let n_blocks = (cx * cy * cz) as usize;
        let n_warps = self.n_warps();
        self.n_begun += 1;
        self.number = self.n_begun;
        self.agents = Agents::new(n_blocks * n_warps);
        (self.n_mbarriers, self.steps) = (0, 0);
        self.barrier = ClusterBarrier::default();
        self.pending.clear();
        self.visits.clear();
        let mut blocks = Vec::with_capacity(n_blocks);
        for rank in 0..n_blocks as u32 {
            let within = [rank % cx, rank / cx % cy, rank / cx / cy];
            let block: [u32; 3] = std::array::from_fn(|dim| at[dim] * self.shape.cluster[dim] + within[dim]);
            let warps = (0..n_warps).map(|warp| self.warp(block, rank, warp as u32)).collect();
            let rooms = Arc::clone(&self.program.rooms);
            let shared = Shared::new(self.shape.shared as usize, self.program.granules.0, rooms);
            blocks.push(Block::new(block, warps, shared));
        }
        self.counters.blocks += n_blocks as u64;
        self.blocks = blocks;
    }

    fn warp(&self, block: [u32; 3], rank: u32, warp: u32) -> Warp {
        let first = warp * WARP as u32;
        let n = (self.shape.n_threads - first).min(WARP as u32);
        let mask = if n == WARP as u32 { Mask::MAX } else { (1 << n) - 1 };
        let mut registers = self.program.registers();
        let Shape { threads, cluster, .. } = self.shape;
        let place = WarpPosition { launch: &self.launch, block, rank, threads, cluster, warp };
        for (name, slot) in &self.program.specials {
            if let Slot::Word(slot) = slot {
                registers.set32(*slot, mask, &special::value(name, &place));
            }
        }
        Warp::new(registers, mask, self.number)
    }

    /// A fragment that can go on.
    fn choose(&mut self) -> Option<(usize, usize, usize)> {
        let n_warps = self.n_warps();
        let n = self.blocks.len() * n_warps;
        let start = if self.launch.seed == 0 { 0 } else { self.rng.below(n) };
        for step in 0..n {
            let idx = (start + step) % n;
            let (block, warp) = (idx / n_warps, idx % n_warps);
            let fragments = &self.blocks[block].warps[warp].fragments;
            if let Some(fragment) = fragments.iter().position(|fragment| fragment.wait.is_none()) {
                return Some((block, warp, fragment));
            }
        }
        None
    }

    /// Lets a fragment execute instructions until it waits, ends, divides or has had enough.
    fn turn(&mut self, block: usize, warp: usize, fragment: usize, longest: usize) -> Result<(), Box<Fault>> {
        let program = Arc::clone(&self.program);
        for _ in 0..longest {
            let state = &mut self.blocks[block].warps[warp];
            let (at, mask) = (state.fragments[fragment].at, state.fragments[fragment].mask);
            let Some(step) = program.steps.get(at as usize) else {
                state.end(fragment, mask);
                return Ok(());
            };
            self.steps += 1;
            if self.steps > self.launch.patience {
                let what = format!("{} instructions of warps, and the block has no end", self.steps - 1);
                return Err(self.fault(block, warp, at, Finding::new(FaultKind::Livelock, mask, what)));
            }
            let active = match step.guard {
                None => mask,
                Some(guard) => match state.registers.get_predicate(guard, mask) {
                    Ok(value) => value & mask,
                    Err(unset) => return Err(self.trouble(block, warp, at, Trouble::from(unset))),
                },
            };
            if active != 0 {
                self.counters.thread_instructions += u64::from(active.count_ones());
                self.counters.warp_instructions[step.form.kind as usize] += 1;
            }
            let state = &mut self.blocks[block].warps[warp];
            let outcome = match &step.run {
                Run::Branch(target) => {
                    let target = *target as u32;
                    if active == mask {
                        state.fragments[fragment].at = target;
                    } else if active == 0 {
                        state.fragments[fragment].at += 1;
                    } else {
                        let join = step.join.filter(|join| (*join as usize) < program.steps.len());
                        state.diverge(fragment, active, target, join);
                        return Ok(());
                    }
                    if state.meet(fragment) {
                        continue;
                    }
                    return Ok(());
                }
                _ if active == 0 => Ok(Outcome::Next),
                Run::Exit => {
                    state.end(fragment, active);
                    return Ok(());
                }
                Run::Registers(run) => match run(&mut state.registers, active) {
                    Ok(()) => Ok(Outcome::Next),
                    Err(unset) => Err(Trouble::from(unset)),
                },
                Run::Turn(run) => run(&mut Turn::new(self, block, warp, active, at)),
            };
            let outcome = outcome.map_err(|trouble| self.trouble(block, warp, at, trouble))?;
            let state = &mut self.blocks[block].warps[warp];
            let here = &mut state.fragments[fragment];
            match outcome {
                Outcome::Next => here.at += 1,
                Outcome::Wait(wait) => {
                    here.wait = Some(wait);
                    return Ok(());
                }
            }
            if !state.meet(fragment) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Lets those go on that wait for this, at the next instruction or, if they have to ask `again`, at the same.
    pub(crate) fn wake(
        &mut self,
        blocks: std::ops::Range<usize>,
        again: bool,
        is_over: impl Fn(Wait) -> bool,
    ) {
        for warp in self.blocks[blocks].iter_mut().flat_map(|block| &mut block.warps) {
            let mut idx = 0;
            while idx < warp.fragments.len() {
                let fragment = &mut warp.fragments[idx];
                let mut stays = true;
                if fragment.wait.is_some_and(&is_over) {
                    fragment.wait = None;
                    if !again {
                        fragment.at += 1;
                        stays = warp.meet(idx);
                    }
                }
                idx += usize::from(stays);
            }
        }
    }

    /// Lets those go on that wait for a phase of this mbarrier that is over.
    fn wake_mbarrier(&mut self, block: usize, offset: u32) {
        self.counters.mbarrier_phases += 1;
        let Some(phase) = self.blocks[block].shared.mbarriers.get(&offset).map(|mbarrier| mbarrier.phase)
        else {
            return;
        };
        let n = self.blocks.len();
        self.wake(0..n, true, |wait| match wait {
            Wait::Mbarrier { block: of, offset: at, parity } => {
                (of as usize, at) == (block, offset) && phase & 1 != parity & 1
            }
            _ => false,
        });
    }

    /// Lets one of the pending events happen.
    fn event(&mut self) -> Result<(), Box<Fault>> {
        let idx = if self.launch.seed == 0 { 0 } else { self.rng.below(self.pending.len()) };
        match self.pending.remove(idx) {
            Pending::Transaction { block, offset, bytes, phase, at } => self
                .transaction(block, offset, i64::from(bytes), phase)
                .map_err(|finding| self.fault(block, 0, at, finding)),
            Pending::Arrive { block, offset, view, at } => {
                self.arrive(block, offset, 1, &view, 0).map_err(|finding| self.fault(block, 0, at, finding))
            }
        }
    }

    fn transaction(&mut self, block: usize, offset: u32, bytes: i64, phase: u32) -> Result<(), Finding> {
        let shown = self.program.rooms.own(offset.into());
        let Some(mbarrier) = self.blocks[block].shared.mbarriers.get_mut(&offset) else {
            let what = format!("a copy completes on the mbarrier at {shown}, which no longer exists");
            return Err(Finding::new(FaultKind::Barrier, 1, what));
        };
        if mbarrier.phase != phase {
            let what = format!(
                "the copy was issued in phase {phase} of the mbarrier at {shown} and completes in phase {}: \
                 its bytes were not announced by expect_tx",
                mbarrier.phase
            );
            return Err(Finding::new(FaultKind::Barrier, 1, what));
        }
        if mbarrier.transact(-bytes) {
            self.wake_mbarrier(block, offset);
        }
        Ok(())
    }

    /// Takes arrivals at an mbarrier and then announces bytes.
    pub(crate) fn arrive(
        &mut self,
        block: usize,
        offset: u32,
        count: u32,
        view: &super::clock::View,
        expect: u32,
    ) -> Result<(), Finding> {
        let Some(mbarrier) = self.blocks[block].shared.mbarriers.get_mut(&offset) else {
            let offset = self.program.rooms.own(offset.into());
            let what = format!("there is no mbarrier at byte {offset} of shared memory");
            return Err(Finding::new(FaultKind::Barrier, 1, what));
        };
        if count > mbarrier.pending {
            let what = format!("{count} arrivals where the phase waits for {} more", mbarrier.pending);
            return Err(Finding::new(FaultKind::Barrier, 1, what));
        }
        mbarrier.transactions += i64::from(expect);
        if mbarrier.arrive(count, view) {
            self.wake_mbarrier(block, offset);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Box<Fault>> {
        for block in 0..self.blocks.len() {
            if let Some((warp, at)) = self.blocks[block].left_behind() {
                let what =
                    "a warp of the group has ended without this instruction, which the others executed";
                return Err(self.fault(block, warp, at, Finding::new(FaultKind::Divergence, 1, what)));
            }
            for (warp, state) in self.blocks[block].warps.iter().enumerate() {
                let copying = state.bulk_copying();
                let (lane, what) = match copying {
                    Some(lane) => (
                        lane,
                        "the block ends while bulk copies read its shared memory: wait for their groups",
                    ),
                    None if state.wgmma.is_busy() => {
                        (0, "the block ends while matrix operations are under way: wait for their groups")
                    }
                    None => continue,
                };
                let last = self.program.steps.len().saturating_sub(1) as u32;
                return Err(self.fault(
                    block,
                    warp,
                    last,
                    Finding::new(FaultKind::MissingWait, 1 << lane, what),
                ));
            }
        }
        while !self.pending.is_empty() {
            self.event()?;
        }
        self.check_visits()
    }

    /// Fails unless some thread of each block knew, when it ended, of all that others did in its shared memory.
    fn check_visits(&self) -> Result<(), Box<Fault>> {
        for Visit { block, stamp } in &self.visits {
            let mut views = self.blocks[*block].warps.iter().flat_map(|warp| warp.views(Mask::MAX));
            if !views.any(|(_, view)| view.known.covers(stamp)) {
                let what = format!(
                    "shared memory of block {block} of the cluster is used, and nothing orders it before the end of that block"
                );
                let (of, warp) =
                    (stamp.agent as usize / self.n_warps(), stamp.agent as usize % self.n_warps());
                return Err(self.fault(of, warp, stamp.at, Finding::new(FaultKind::Race, stamp.lanes, what)));
            }
        }
        Ok(())
    }

    pub(crate) fn fault(&self, block: usize, warp: usize, at: u32, finding: Finding) -> Box<Fault> {
        let step = self.program.steps.get(at as usize);
        Box::new(Fault {
            kind: finding.kind,
            kernel: self.program.name.clone(),
            line: step.map_or(0, |step| step.line),
            text: step.map_or_else(String::new, |step| step.text.clone()),
            block: self.blocks[block].at,
            thread: warp as u32 * WARP as u32 + finding.lane,
            what: finding.what,
            seed: self.launch.seed,
        })
    }

    fn trouble(&self, block: usize, warp: usize, at: u32, trouble: Trouble) -> Box<Fault> {
        let finding = match trouble {
            Trouble::Found(finding) => finding,
            Trouble::Register(RegisterFault::Membermask { lane, wanted, executing }) => {
                let what = format!("the members are {wanted:#010x}, and lanes {executing:#010x} execute it");
                Finding { kind: FaultKind::Divergence, lane: lane as u32, what }
            }
            Trouble::Register(RegisterFault::SourceLane { lane, source }) => {
                let what = format!("a value of lane {source} is wanted, which does not execute it");
                Finding { kind: FaultKind::Divergence, lane: lane as u32, what }
            }
            Trouble::Unset(unset) | Trouble::Register(RegisterFault::Unset(unset)) => {
                let state = &self.blocks[block].warps[warp];
                let name = self.program.names.get(&unset.slot).map_or("a register", String::as_str);
                if matches!(unset.slot, Slot::Word(slot) if state.wgmma.owns(slot)) {
                    let what = format!("{name} belongs to a wgmma.mma_async that has not been waited for");
                    Finding::new(FaultKind::RegisterInFlight, unset.lanes, what)
                } else {
                    let what =
                        format!("{name} is read before it was written, in lanes {:#010x}", unset.lanes);
                    Finding::new(FaultKind::UninitialisedRegister, unset.lanes, what)
                }
            }
        };
        self.fault(block, warp, at, finding)
    }

    fn deadlock(&self) -> Box<Fault> {
        let (mut lines, mut first) = (Vec::new(), None);
        for (block_idx, block) in self.blocks.iter().enumerate() {
            for (warp_idx, warp) in block.warps.iter().enumerate() {
                let waits = warp.fragments.iter().filter_map(|fragment| Some((fragment, fragment.wait?)));
                for (fragment, wait) in waits {
                    first.get_or_insert((block_idx, warp_idx, fragment.at, fragment.mask));
                    let line = self.program.steps.get(fragment.at as usize).map_or(0, |step| step.line);
                    let count = fragment.mask.count_ones();
                    let place = format!("block {:?} warp {warp_idx}, {count} lanes, line {line}", block.at);
                    lines.push(format!("{place}: {}", self.describe(block_idx, wait)));
                }
                for (at, mask) in warp.meetings() {
                    let line = self.program.steps.get(at as usize).map_or(0, |step| step.line);
                    lines.push(format!(
                        "block {:?} warp {warp_idx}, {} lanes wait at line {line} for the rest of their warp",
                        block.at,
                        mask.count_ones()
                    ));
                }
            }
        }
        const SHOWN: usize = 16;
        let more = lines.len().saturating_sub(SHOWN);
        lines.truncate(SHOWN);
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
        let lines = lines.join("\n    ");
        for (block_idx, block) in self.blocks.iter().enumerate() {
            let waits =
                block.warps.iter().flat_map(|warp| &warp.fragments).filter_map(|fragment| fragment.wait);
            if waits.into_iter().any(|wait| matches!(wait, Wait::WarpGroup { .. }))
                && let Some((warp, at)) = block.left_behind()
            {
                let what = format!(
                    "a warp of the group does not come to this instruction, which the others executed\n    {lines}"
                );
                return self.fault(block_idx, warp, at, Finding::new(FaultKind::Divergence, 1, what));
            }
        }
        let what = format!("every thread waits, and nothing will wake any\n    {lines}");
        let (block, warp, at, mask) = first.unwrap_or((0, 0, 0, 1));
        self.fault(block, warp, at, Finding::new(FaultKind::Deadlock, mask, what))
    }

    fn describe(&self, block: usize, wait: Wait) -> String {
        match wait {
            Wait::Barrier(id) => {
                let barrier = &self.blocks[block].barriers[id as usize];
                format!("at barrier {id}, where {} of {} threads are", barrier.arrived, barrier.expected)
            }
            Wait::Cluster => format!("for the cluster, of which {} threads arrived", self.barrier.arrived),
            Wait::WarpGroup { .. } => "for the other warps of its warp group".to_owned(),
            Wait::Mbarrier { block, offset, parity } => {
                let shown = self.program.rooms.own(offset.into());
                match self.blocks[block as usize].shared.mbarriers.get(&offset) {
                    None => format!("for an mbarrier at {shown} that no longer exists"),
                    Some(mbarrier) => format!(
                        "for parity {parity} of the mbarrier at {shown}, which is in phase {} and waits for {} of {} arrivals and {} bytes",
                        mbarrier.phase, mbarrier.pending, mbarrier.count, mbarrier.transactions
                    ),
                }
            }
        }
    }
}
