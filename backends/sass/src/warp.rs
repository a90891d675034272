//! One warp going through some code alone: when each instruction issues, by the compiler's stall counts and barriers and the
//! latencies of [`rates`], and what it waits for meanwhile.

use crate::control::BARRIERS;
use crate::listing::Instruction;
use crate::mix::Work;
use crate::rates;

/// What a warp waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waits {
    /// Cycles of all.
    pub(crate) cycles: u64,
    /// How often it waits for global memory.
    pub(crate) global: u32,
    /// How often for shared memory.
    pub(crate) shared: u32,
    /// Cycles in which it waits for matmuls of its group.
    pub(crate) matmul_cycles: u64,
}

/// What a barrier of a warp stands for.
#[derive(Clone, Copy, Default)]
struct Pending {
    ready: u64,
    is_global: bool,
    is_shared: bool,
}

/// Cycles after which an instruction has read its operands.
const OPERANDS_READ: u64 = 12;

/// A warp on its way.
#[derive(Default)]
pub(crate) struct Warp {
    now: u64,
    barriers: [Pending; BARRIERS as usize],
    tensor_free: u64,
    /// When each group of matmuls is done.
    groups: Vec<u64>,
    waits: Waits,
}

impl Warp {
    /// What a warp waits for in code that it goes through once, or, where the end is followed by the beginning, from one turn to
    /// the next once loads and matmuls of earlier turns are under way.
    pub(crate) fn waits(code: &[&Instruction], repeats: bool) -> Waits {
        let mut warp = Warp::default();
        if !repeats {
            code.iter().for_each(|instruction| warp.issue(instruction));
            warp.waits.cycles = warp.now.max(warp.tensor_free);
            return warp.waits;
        }
        for _ in 0..WARM_UP {
            code.iter().for_each(|instruction| warp.issue(instruction));
        }
        let (before, begin) = (warp.waits, warp.now);
        code.iter().for_each(|instruction| warp.issue(instruction));
        let after = warp.waits;
        Waits {
            cycles: warp.now - begin,
            global: after.global - before.global,
            shared: after.shared - before.shared,
            matmul_cycles: after.matmul_cycles - before.matmul_cycles,
        }
    }

    fn issue(&mut self, instruction: &Instruction) {
        let (control, work) = (instruction.control, Work::of(instruction));
        for barrier in (0..BARRIERS).filter(|barrier| control.waits_for(*barrier)) {
            let pending = std::mem::take(&mut self.barriers[usize::from(barrier)]);
            if pending.ready > self.now {
                self.waits.global += u32::from(pending.is_global);
                self.waits.shared += u32::from(pending.is_shared);
                self.now = pending.ready;
            }
        }
        if let Work::MatmulWait(left) = work {
            let done = self.groups.len().checked_sub(left as usize + 1).map_or(0, |idx| self.groups[idx]);
            self.waits.matmul_cycles += done.saturating_sub(self.now);
            self.now = self.now.max(done);
        }
        if let Work::GroupMatmul(cycles) = work {
            self.tensor_free = self.tensor_free.max(self.now) + u64::from(cycles);
            if instruction.operands.iter().any(|operand| operand.starts_with("gsb")) {
                self.groups.push(self.tensor_free);
            }
        }
        let latency = match work {
            Work::GlobalLoad(_) => rates::GLOBAL_LATENCY,
            Work::SharedLoad(_) => rates::SHARED_LATENCY,
            _ if instruction.name() == "SHFL" => rates::SHARED_LATENCY,
            _ => rates::OTHER_LATENCY,
        };
        if let Some(barrier) = control.write_barrier.filter(|barrier| *barrier < BARRIERS) {
            self.hold(barrier, u64::from(latency), work);
        }
        if let Some(barrier) = control.read_barrier.filter(|barrier| *barrier < BARRIERS) {
            self.hold(barrier, OPERANDS_READ, Work::Other);
        }
        self.now += u64::from(control.stall.max(1));
    }

    fn hold(&mut self, barrier: u8, latency: u64, work: Work) {
        let pending = &mut self.barriers[usize::from(barrier)];
        pending.ready = pending.ready.max(self.now + latency);
        pending.is_global |= matches!(work, Work::GlobalLoad(_));
        pending.is_shared |= matches!(work, Work::SharedLoad(_));
    }
}

/// Turns of a loop before the one that is looked at.
const WARM_UP: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Control;

    fn instruction(opcode: &str, operands: &[&str], control: Control) -> Instruction {
        let operands = operands.iter().map(|operand| (*operand).to_owned()).collect();
        Instruction { address: 0, guard: None, opcode: opcode.to_owned(), operands, control }
    }

    fn after(stall: u8, writes: Option<u8>, waits: u8) -> Control {
        Control { stall, write_barrier: writes, read_barrier: None, waits }
    }

    #[test]
    fn loads_that_are_asked_for_together_are_waited_for_once() {
        let load = |barrier| instruction("LDG.E", &["R0", "[R2]"], after(1, Some(barrier), 0));
        let use_of = |waits| instruction("FADD", &["R1", "R0", "R0"], after(4, None, waits));
        let together = [load(0), load(1), use_of(0b11)];
        let waits = Warp::waits(&together.each_ref(), false);
        assert_eq!((waits.cycles, waits.global), (1 + 300 + 4, 2));
        let in_turn = [load(0), use_of(0b1), load(1), use_of(0b10)];
        let waits = Warp::waits(&in_turn.each_ref(), false);
        assert_eq!((waits.cycles, waits.global), (2 * (300 + 4), 2));
    }

    #[test]
    fn a_loop_that_leaves_one_matmul_in_flight_is_bound_by_matmuls() {
        let matmul =
            instruction("HGMMA.64x256x16.F32.BF16", &["R24", "gdesc[UR4]", "R24", "gsb0"], after(1, None, 0));
        let wait = |left| instruction("WARPGROUP.DEPBAR.LE", &["gsb0", left], after(1, None, 0));
        let rest = instruction("IADD3", &["R0", "R0", "0x1", "RZ"], after(15, None, 0));
        let overlapped = [matmul.clone(), wait("0x1"), rest.clone(), rest.clone()];
        assert_eq!(Warp::waits(&overlapped.each_ref(), true).cycles, 128);
        let exposed = [matmul, wait("0x0"), rest.clone(), rest];
        assert_eq!(Warp::waits(&exposed.each_ref(), true).cycles, 128 + 1 + 30);
    }
}
