//! The threads of a block, and each on its own.

use super::Grid;
use super::instruction::{Address, Op, Source, Special};
use super::memory::{self, Global, SharedMemory};
use super::parse::Kernel;
use super::warp;

/// Instructions of one thread between two meetings, beyond which it is taken to hang.
const PATIENCE: u32 = 50_000_000;

pub(crate) struct Block<'k> {
    pub(crate) kernel: &'k Kernel,
    grid: Grid,
    at: (u32, u32),
    pub(crate) threads: Vec<Thread>,
    pub(crate) shared: SharedMemory,
}

pub(crate) struct Thread {
    pub(crate) regs: Vec<u64>,
    /// Next instruction.
    pub(crate) next: usize,
    pub(crate) done: bool,
    /// Copies under way: groups, the last of which is open.
    groups: Vec<Vec<(u64, Vec<u8>)>>,
}

impl<'k> Block<'k> {
    pub(crate) fn new(kernel: &'k Kernel, grid: Grid, at: (u32, u32)) -> Self {
        let thread = || Thread {
            regs: vec![0xDEAD_BEEF; kernel.n_regs],
            next: 0,
            done: false,
            groups: vec![Vec::new()],
        };
        let threads = (0..grid.threads).map(|_| thread()).collect();
        Self { kernel, grid, at, threads, shared: SharedMemory::new(grid.shared_bytes) }
    }

    pub(crate) fn run(&mut self, global: &mut Global<'_>) -> Result<(), String> {
        loop {
            for warp in 0..self.grid.threads / 32 {
                self.run_warp(warp * 32, global)?;
            }
            let waiting: Vec<usize> =
                (0..self.threads.len()).filter(|idx| !self.threads[*idx].done).collect();
            let Some(first) = waiting.first() else { return Ok(()) };
            let place = self.threads[*first].next;
            if waiting.len() != self.threads.len()
                || waiting.iter().any(|idx| self.threads[*idx].next != place)
            {
                return Err(format!("{} threads wait at barriers, not all at one", waiting.len()));
            }
            waiting.iter().for_each(|idx| self.threads[*idx].next += 1);
            self.shared.phase += 1;
        }
    }

    /// Runs a warp until its threads are done or at a barrier.
    fn run_warp(&mut self, first: u32, global: &mut Global<'_>) -> Result<(), String> {
        loop {
            for thread in first..first + 32 {
                self.run_thread(thread, global).map_err(|error| {
                    let text = &self.kernel.code[self.threads[thread as usize].next].text;
                    format!("thread {thread}: `{text}`: {error}")
                })?;
            }
            let lanes = &self.threads[first as usize..first as usize + 32];
            let Some(next) = lanes.iter().find(|thread| !thread.done).map(|thread| thread.next) else {
                return Ok(());
            };
            let instruction = &self.kernel.code[next];
            if instruction.op == Op::Barrier {
                return Ok(());
            }
            if lanes.iter().any(|thread| thread.done || thread.next != next) {
                return Err(format!("lanes of a warp do not meet at `{}`", instruction.text));
            }
            warp::run(self, first, &instruction.op)
                .map_err(|error| format!("`{}`: {error}", instruction.text))?;
            for thread in &mut self.threads[first as usize..first as usize + 32] {
                thread.next += 1;
            }
        }
    }

    /// Runs a thread until it is done or has to meet others.
    fn run_thread(&mut self, thread: u32, global: &mut Global<'_>) -> Result<(), String> {
        for _ in 0..PATIENCE {
            let state = &mut self.threads[thread as usize];
            if state.done {
                return Ok(());
            }
            let instruction = &self.kernel.code[state.next];
            if let Some((reg, wanted)) = instruction.guard
                && (state.regs[reg] & 1 == 1) != wanted
            {
                state.next += 1;
                continue;
            }
            match &instruction.op {
                Op::Branch(to) => {
                    state.next = *to;
                    continue;
                }
                Op::Return => state.done = true,
                Op::Barrier
                | Op::Shuffle { .. }
                | Op::Ballot { .. }
                | Op::LoadMatrix { .. }
                | Op::Mma { .. } => {
                    return Ok(());
                }
                op => self.step(thread, op, global)?,
            }
            let state = &mut self.threads[thread as usize];
            if !state.done {
                state.next += 1;
            }
        }
        Err("it does not end".to_owned())
    }

    pub(crate) fn value(&self, thread: u32, source: &Source) -> u64 {
        match source {
            Source::Reg(reg) => self.threads[thread as usize].regs[*reg],
            Source::Const(bits) => *bits,
            Source::Special(Special::ThreadX) => u64::from(thread),
            Source::Special(Special::BlockX) => u64::from(self.at.0),
            Source::Special(Special::BlockY) => u64::from(self.at.1),
            Source::Special(Special::GridX) => u64::from(self.grid.x),
            Source::Shared => memory::shared_address(),
            Source::Param(index) => memory::operand_address(*index),
        }
    }

    pub(crate) fn address(&self, thread: u32, address: &Address) -> u64 {
        self.value(thread, &address.base).wrapping_add_signed(address.offset)
    }

    fn step(&mut self, thread: u32, op: &Op, global: &mut Global<'_>) -> Result<(), String> {
        match op {
            Op::Compute { function, to, from } => {
                let mut values = [0; 4];
                for (value, source) in values.iter_mut().zip(from) {
                    *value = self.value(thread, source);
                }
                self.threads[thread as usize].regs[*to] = function.apply(&values);
            }
            Op::Load { shared, bytes, to, at } => {
                let address = self.address(thread, at);
                let size = bytes * to.len() as u32;
                let data = if *shared {
                    self.shared.read(thread, address, size)?
                } else {
                    global.read(address, size)?
                };
                for (reg, item) in to.iter().zip(data.chunks_exact(*bytes as usize)) {
                    let mut bits = [0; 8];
                    bits[..item.len()].copy_from_slice(item);
                    self.threads[thread as usize].regs[*reg] = u64::from_le_bytes(bits);
                }
            }
            Op::Store { shared, bytes, from, at } => {
                let address = self.address(thread, at);
                let data: Vec<u8> = from
                    .iter()
                    .flat_map(|source| self.value(thread, source).to_le_bytes()[..*bytes as usize].to_vec())
                    .collect();
                if *shared {
                    self.shared.write(thread, address, &data)?
                } else {
                    global.write(address, &data)?
                }
            }
            Op::CopyAsync { to, from, bytes, present } => {
                self.copy(thread, (to, from), (*bytes, present), global)?
            }
            Op::CopyCommit => self.threads[thread as usize].groups.push(Vec::new()),
            Op::CopyWait(left) => self.wait(thread, *left as usize)?,
            op => return Err(format!("{op:?} is not for one thread")),
        }
        Ok(())
    }

    fn copy(
        &mut self,
        thread: u32,
        (to, from): (&Address, &Address),
        (bytes, present): (u32, &Source),
        global: &mut Global<'_>,
    ) -> Result<(), String> {
        let (to, from) = (self.address(thread, to), self.address(thread, from));
        let present = self.value(thread, present) as u32;
        let mut data = vec![0; bytes as usize];
        if present > 0 {
            data[..present as usize].copy_from_slice(&global.read(from, bytes)?[..present as usize]);
        }
        self.shared.poison(thread, to, bytes)?;
        if let Some(group) = self.threads[thread as usize].groups.last_mut() {
            group.push((to, data));
        }
        Ok(())
    }

    /// Completes all but the last `left` groups that are closed.
    fn wait(&mut self, thread: u32, left: usize) -> Result<(), String> {
        let groups = &mut self.threads[thread as usize].groups;
        let complete = (groups.len() - 1).saturating_sub(left);
        let done: Vec<(u64, Vec<u8>)> = groups.drain(..complete).flatten().collect();
        done.iter().try_for_each(|(to, data)| self.shared.write(thread, *to, data))
    }
}
