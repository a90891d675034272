//! Starting a kernel.

use std::collections::VecDeque;
use std::sync::Arc;

use super::cluster::{Cluster, Shape};
use super::counters::Counters;
use super::fault::{Fault, FaultKind};
use super::memory::{GlobalShadow, Memory};
use super::program::Program;
use super::rng::Rng;

/// Most threads of a block (PTX ISA section 11.4.3, compute capability 8.0 and later).
const MAX_THREADS: u32 = 1024;

/// Most dynamic and fixed shared memory of a block together, in bytes, on sm_90.
const MAX_SHARED: u32 = 227 * 1024;

/// Most blocks of a cluster that every device takes.
const MAX_CLUSTER: u32 = 8;

/// Most clusters that go on side by side: as many as an H100 has multiprocessors.
const SIDE_BY_SIDE: usize = 132;

/// Most instructions of warps after which another cluster has its turn; a part of the patience if that is small.
const SLICE: u64 = 1 << 16;

/// An argument of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arg {
    /// A number or an address of 32 bits.
    U32(u32),
    /// A number or an address of 64 bits.
    U64(u64),
    /// Bytes, such as a tensor map.
    Bytes(Vec<u8>),
}

impl Arg {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::U32(value) => value.to_le_bytes().to_vec(),
            Self::U64(value) => value.to_le_bytes().to_vec(),
            Self::Bytes(bytes) => bytes.clone(),
        }
    }
}

/// How a kernel is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Blocks of the grid.
    pub grid: [u32; 3],
    /// Threads of a block; has to be what `.reqntid` says, if it says anything.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory of a block.
    pub dynamic_shared: u32,
    /// Arguments, in order.
    pub args: Vec<Arg>,
    /// Which of the possible schedules is tried: order of blocks, warps, copies, and how soon each goes on. 0 goes on
    /// as long as it can and never lets a wait fail in vain, so that its counters are always the same.
    pub seed: u64,
    /// Instructions of warps after which a block is taken to have no end.
    pub patience: u64,
}

impl Launch {
    /// A launch of one-dimensional blocks with schedule 0.
    pub fn new(grid: [u32; 3], threads: u32, args: Vec<Arg>) -> Self {
        Self { grid, block: [threads, 1, 1], dynamic_shared: 0, args, seed: 0, patience: 200_000_000 }
    }
}

/// Runs a kernel. What it wrote before a fault is in the memory.
///
/// # Errors
/// The first fault.
pub fn run(program: &Arc<Program>, launch: &Launch, memory: &mut Memory) -> Result<Counters, Box<Fault>> {
    let fault = |what: String| {
        Box::new(Fault {
            kind: FaultKind::Launch,
            kernel: program.name.clone(),
            line: 0,
            text: String::new(),
            block: [0; 3],
            thread: 0,
            what,
            seed: launch.seed,
        })
    };
    let shape = check(program, launch).map_err(fault)?;
    let params = params(program, launch).map_err(fault)?;
    let mut clusters: Vec<[u32; 3]> = Vec::new();
    let [gx, gy, gz] = [0, 1, 2].map(|dim| launch.grid[dim] / shape.cluster[dim]);
    for z in 0..gz {
        for y in 0..gy {
            clusters.extend((0..gx).map(|x| [x, y, z]));
        }
    }
    let mut rng = Rng::new(launch.seed);
    if launch.seed != 0 {
        for last in (1..clusters.len()).rev() {
            clusters.swap(last, rng.below(last + 1));
        }
    }
    let global = GlobalShadow::new(memory, program.granules.1);
    let mut cluster =
        Cluster::new(Arc::clone(program), launch.clone(), shape, params, std::mem::take(memory), global, rng);
    let result = run_all(&mut cluster, clusters);
    *memory = std::mem::take(&mut cluster.memory);
    result.map(|()| cluster.counters)
}

/// Runs clusters side by side: each as long as it is its turn, so that one may wait for what another does.
fn run_all(cluster: &mut Cluster, clusters: Vec<[u32; 3]>) -> Result<(), Box<Fault>> {
    let seed = cluster.launch.seed;
    let mut rng = Rng::new(seed);
    let longest = SLICE.min(cluster.launch.patience / 16).max(1);
    let mut slice = || if seed == 0 { longest } else { (longest >> rng.below(5)).max(1) };
    let (mut waiting, mut parked) = (clusters.into_iter(), VecDeque::new());
    loop {
        let new = if parked.len() < SIDE_BY_SIDE { waiting.next() } else { None };
        match (new, parked.is_empty()) {
            (Some(at), _) => cluster.start(at),
            (None, true) => return Ok(()),
            (None, false) => parked.pop_front().into_iter().for_each(|next| cluster.resume(next)),
        }
        if !cluster.go_on(slice())? {
            parked.push_back(cluster.park());
        }
    }
}

fn check(program: &Program, launch: &Launch) -> Result<Shape, String> {
    let n_threads = launch.block.iter().try_fold(1_u32, |n, dim| n.checked_mul(*dim)).unwrap_or(u32::MAX);
    if n_threads == 0 || n_threads > MAX_THREADS {
        return Err(format!(
            "{:?} are {n_threads} threads a block; 1 to {MAX_THREADS} are possible",
            launch.block
        ));
    }
    if let Some(threads) = program.threads
        && threads != launch.block
    {
        return Err(format!(
            "the kernel wants blocks of {threads:?} threads (.reqntid), not {:?}",
            launch.block
        ));
    }
    let shared = program.static_shared.saturating_add(launch.dynamic_shared);
    if shared > MAX_SHARED {
        return Err(format!("{shared} bytes of shared memory; a block has at most {MAX_SHARED}"));
    }
    let cluster = program.cluster.unwrap_or([1; 3]);
    let n_blocks = cluster.iter().try_fold(1_u32, |n, dim| n.checked_mul(*dim)).unwrap_or(u32::MAX);
    if n_blocks == 0 || n_blocks > MAX_CLUSTER {
        return Err(format!(
            "a cluster of {cluster:?} blocks; at most {MAX_CLUSTER} are possible everywhere"
        ));
    }
    if (0..3).any(|dim| launch.grid[dim] == 0 || !launch.grid[dim].is_multiple_of(cluster[dim])) {
        return Err(format!("a grid of {:?} blocks is not made of clusters of {cluster:?}", launch.grid));
    }
    // What is between variables is no memory of the kernel's.
    let shared = program.rooms.dynamic as u32 + launch.dynamic_shared;
    Ok(Shape { cluster, threads: launch.block, n_threads, shared })
}

fn params(program: &Program, launch: &Launch) -> Result<Vec<u8>, String> {
    if program.params.len() != launch.args.len() {
        return Err(format!("{} parameters, {} arguments", program.params.len(), launch.args.len()));
    }
    let mut bytes = Vec::new();
    for (idx, ((offset, size), arg)) in program.params.iter().zip(&launch.args).enumerate() {
        let arg = arg.bytes();
        if arg.len() != *size as usize {
            return Err(format!("parameter {idx} has {size} bytes, its argument {}", arg.len()));
        }
        bytes.resize(*offset as usize, 0);
        bytes.extend(arg);
    }
    Ok(bytes)
}
