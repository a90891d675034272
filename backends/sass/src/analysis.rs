//! What a kernel's loops, and the code before and behind them, cost at least, and what a warp waits for in them.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::flow::{self, Region};
use crate::listing::{Function, Instruction};
use crate::mix::{self, Work};
use crate::rates;
use crate::registers::{self, Register};
use crate::warp::Warp;

pub use crate::flow::Role;
pub use crate::mix::Mix;

/// How a kernel is launched, as far as its cost depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchShape {
    /// Threads of a block.
    pub threads: u32,
    /// Registers of a thread at the launch.
    pub registers: u32,
}

/// A kernel, read from its machine code.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kernel {
    /// Its symbol.
    pub name: String,
    /// Bytes of its code.
    pub code_bytes: u32,
    /// Registers that its warps share out anew, if they do.
    pub pool: Option<Pool>,
    /// Code in which nothing else repeats, in the order in which it lies.
    pub parts: Vec<Figures>,
}

/// Registers of a block whose warps give some away and take others (`setmaxnreg`). What is not there to be taken is waited for
/// without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pool {
    /// Of a thread of the warp group that gives some away.
    pub producer: u32,
    /// Of a thread of the others.
    pub consumer: u32,
    /// Of the block at the launch.
    pub launched: u32,
    /// Of the block once all have what they asked for.
    pub taken: u32,
}

impl Pool {
    /// Whether the launch has as many as are taken.
    pub fn is_covered(&self) -> bool {
        self.taken <= self.launched
    }
}

/// What holds code up, however well its instructions are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Places in the order of a scheduler.
    Issue,
    /// Special functions.
    Special,
    /// Tensor cores.
    Tensor,
    /// Bytes of shared memory.
    Shared,
    /// Bytes of the second-level cache.
    Global,
}

/// Figures of code in which nothing else repeats: for each time that it runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// The label of the innermost loop that it is in.
    pub of: Option<String>,
    /// How many loops it is in.
    pub depth: u32,
    /// Whether it is all of that loop.
    pub is_whole_loop: bool,
    /// How many inner loops lie before it.
    pub behind: u32,
    /// Which warps run it.
    pub role: Role,
    /// Warps of a block that run it.
    pub warps: u32,
    /// Its instructions.
    pub mix: Mix,
    /// Cycles that a block needs at least, its warps together.
    pub bound: u32,
    /// What they are of.
    pub limit: Limit,
    /// Cycles in which the tensor cores work for the block.
    pub tensor_cycles: u32,
    /// Cycles of one warp alone, with what it waits for.
    pub alone: u32,
    /// How often it waits for loads of global memory.
    pub global_waits: u32,
    /// How often it waits for loads of shared memory.
    pub shared_waits: u32,
    /// The longest row of loads of global memory of which each needs the one before.
    pub global_chain: u32,
    /// The same of shared memory.
    pub shared_chain: u32,
    /// The most instructions between two matmuls of a warp group.
    pub matmul_gap: u32,
    /// What the matmuls of a warp group add to, if there are any.
    pub tile: Option<MatmulTile>,
}

/// Sums of a warp group, and the terms that some code adds to each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MatmulTile {
    /// Columns of all sums, those of different registers side by side.
    pub columns: u32,
    /// Terms of each.
    pub inner: u32,
}

impl Kernel {
    /// Reads one function of a listing.
    pub fn of(function: &Function, launch: LaunchShape) -> Kernel {
        let regions = flow::regions(function);
        let has_roles = regions.iter().any(|region| region.role != Role::All);
        let warps = |role: Role| match role {
            Role::All => launch.threads.div_ceil(rates::WARP),
            Role::Producers => rates::WARP_GROUP / rates::WARP,
            Role::Consumers => launch.threads.saturating_sub(rates::WARP_GROUP).div_ceil(rates::WARP),
        };
        Kernel {
            name: function.name.clone(),
            code_bytes: function.instructions.len() as u32 * 16,
            pool: pool(function, launch).filter(|_| has_roles),
            parts: regions.iter().map(|region| Figures::of(function, region, warps(region.role))).collect(),
        }
    }

    /// The loop that computes, once for each slice of the inner extent, and what its warps do behind it for each tile: nothing
    /// of a kernel without matmuls of warp groups.
    pub fn main_loop(&self) -> Option<(&Figures, Option<&Figures>)> {
        let (at, main) = self
            .parts
            .iter()
            .enumerate()
            .find(|(_, part)| part.is_whole_loop && part.mix.group_matmuls > 0)?;
        let is_behind = |part: &&Figures| part.role == main.role && part.depth + 1 == main.depth;
        Some((main, self.parts.iter().skip(at + 1).find(is_behind)))
    }
}

fn pool(function: &Function, launch: LaunchShape) -> Option<Pool> {
    let to = |is_taken: bool| {
        let found = function.instructions.iter().find(|instruction| {
            instruction.name() == "USETMAXREG" && instruction.has("DEALLOC") != is_taken
        })?;
        u32::from_str_radix(found.operands.last()?.strip_prefix("0x")?, 16).ok()
    };
    let (producer, consumer) = (to(false)?, to(true)?);
    let consumers = launch.threads.saturating_sub(rates::WARP_GROUP);
    Some(Pool {
        producer,
        consumer,
        launched: launch.registers.saturating_mul(launch.threads),
        taken: (producer * rates::WARP_GROUP).saturating_add(consumer.saturating_mul(consumers)),
    })
}

impl Figures {
    fn of(function: &Function, region: &Region, warps: u32) -> Figures {
        let code: Vec<&Instruction> =
            region.instructions.iter().map(|at| &function.instructions[*at]).collect();
        let code: Vec<&Instruction> = code.into_iter().filter(|instruction| !instruction.is_idle()).collect();
        let mut mix = Mix::default();
        let (mut group_cycles, mut warp_cycles, mut copied) = (0, 0, 0);
        for instruction in &code {
            let work = Work::of(instruction);
            mix.add(work);
            match work {
                Work::GroupMatmul(cycles) => group_cycles += cycles,
                Work::WarpMatmul(cycles) => warp_cycles += cycles,
                Work::Copy(bytes) => copied += bytes,
                _ => {}
            }
        }
        let waits = Warp::waits(&code, region.is_whole_loop);
        let a_scheduler = warps.div_ceil(rates::SCHEDULERS);
        let tensor_cycles =
            group_cycles * warps.div_ceil(rates::WARP_GROUP / rates::WARP) + warp_cycles * a_scheduler;
        let bytes = |of_thread: u32, a_cycle: u32| (of_thread * rates::WARP * warps).div_ceil(a_cycle);
        let limits = [
            (mix.instructions * a_scheduler, Limit::Issue),
            (mix.special * rates::SPECIAL * a_scheduler, Limit::Special),
            (tensor_cycles, Limit::Tensor),
            (bytes(mix.shared_bytes + copied, rates::SHARED_BYTES), Limit::Shared),
            (
                bytes(mix.global_load_bytes + mix.global_store_bytes + copied, rates::GLOBAL_BYTES),
                Limit::Global,
            ),
        ];
        // The first of equals.
        let (bound, limit) =
            limits.into_iter().rev().max_by_key(|(cycles, _)| *cycles).unwrap_or((0, Limit::Issue));
        let (global_chain, shared_chain) = chains(&code);
        Figures {
            of: region.of.clone(),
            depth: region.depth,
            is_whole_loop: region.is_whole_loop,
            behind: region.behind,
            role: region.role,
            warps,
            mix,
            bound,
            limit,
            tensor_cycles,
            alone: u32::try_from(waits.cycles).unwrap_or(u32::MAX),
            global_waits: waits.global,
            shared_waits: waits.shared,
            global_chain,
            shared_chain,
            matmul_gap: gap(&code),
            tile: tile(&code),
        }
    }
}

fn tile(code: &[&Instruction]) -> Option<MatmulTile> {
    let mut sums: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for instruction in code.iter().filter(|found| matches!(Work::of(found), Work::GroupMatmul(_))) {
        let (sum, [_, columns, inner]) = (instruction.operands.first()?, mix::shape(instruction)?);
        let of = sums.entry(sum.as_str()).or_insert((columns, 0));
        of.1 += inner;
    }
    let inner = sums.values().map(|(_, inner)| *inner).max()?;
    Some(MatmulTile { columns: sums.values().map(|(columns, _)| columns).sum(), inner })
}

/// The longest rows of loads of which each needs what the one before has loaded: of global and of shared memory.
fn chains(code: &[&Instruction]) -> (u32, u32) {
    let mut behind: BTreeMap<Register, (u32, u32)> = BTreeMap::new();
    let mut longest = (0, 0);
    for instruction in code {
        let operands = registers::read(instruction);
        let before = operands.iter().filter_map(|register| behind.get(register)).copied();
        let mut depth = before.fold((0, 0), |most: (u32, u32), one| (most.0.max(one.0), most.1.max(one.1)));
        match Work::of(instruction) {
            Work::GlobalLoad(_) => depth.0 += 1,
            Work::SharedLoad(_) => depth.1 += 1,
            _ => {}
        }
        longest = (longest.0.max(depth.0), longest.1.max(depth.1));
        behind.extend(registers::written(instruction).into_iter().map(|register| (register, depth)));
    }
    longest
}

/// The most instructions between two matmuls of a warp group.
fn gap(code: &[&Instruction]) -> u32 {
    let is_matmul = |instruction: &&Instruction| matches!(Work::of(instruction), Work::GroupMatmul(_));
    let places: Vec<usize> =
        code.iter().enumerate().filter(|(_, found)| is_matmul(found)).map(|(at, _)| at).collect();
    places.windows(2).map(|pair| (pair[1] - pair[0] - 1) as u32).max().unwrap_or(0)
}
