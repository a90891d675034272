//! Special registers (PTX ISA section 10) that kernels read.

use super::launch::Launch;
use crate::registers::{Lanes32, WARP};

const NAMES: [&str; 23] = [
    "%tid.x",
    "%tid.y",
    "%tid.z",
    "%ntid.x",
    "%ntid.y",
    "%ntid.z",
    "%ctaid.x",
    "%ctaid.y",
    "%ctaid.z",
    "%nctaid.x",
    "%nctaid.y",
    "%nctaid.z",
    "%laneid",
    "%warpid",
    "%nwarpid",
    "%cluster_ctarank",
    "%cluster_nctarank",
    "%cluster_ctaid.x",
    "%cluster_nctaid.x",
    "%clusterid.x",
    "%nclusterid.x",
    "%lanemask_lt",
    "%dynamic_smem_size",
];

/// Whether the machine has this special register.
pub fn is_special(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Where a warp stands.
pub(crate) struct WarpPosition<'l> {
    pub(crate) launch: &'l Launch,
    pub(crate) block: [u32; 3],
    /// Rank of the block in its cluster.
    pub(crate) rank: u32,
    /// Threads of a block, in x, y, z.
    pub(crate) threads: [u32; 3],
    /// Blocks of a cluster, in x, y, z.
    pub(crate) cluster: [u32; 3],
    pub(crate) warp: u32,
}

/// The value of a special register in each lane.
pub(crate) fn value(name: &str, place: &WarpPosition<'_>) -> Lanes32 {
    let WarpPosition { launch, block, rank, threads, cluster, warp } = *place;
    let [nx, ny, nz] = threads;
    let grid = launch.grid;
    let linear = |lane: usize| warp * WARP as u32 + lane as u32;
    let each = |f: &dyn Fn(usize) -> u32| std::array::from_fn(f);
    let same = |value: u32| [value; WARP];
    match name {
        "%tid.x" => each(&|lane| linear(lane) % nx),
        "%tid.y" => each(&|lane| linear(lane) / nx % ny),
        "%tid.z" => each(&|lane| linear(lane) / nx / ny % nz),
        "%ntid.x" => same(nx),
        "%ntid.y" => same(ny),
        "%ntid.z" => same(nz),
        "%ctaid.x" => same(block[0]),
        "%ctaid.y" => same(block[1]),
        "%ctaid.z" => same(block[2]),
        "%nctaid.x" => same(grid[0]),
        "%nctaid.y" => same(grid[1]),
        "%nctaid.z" => same(grid[2]),
        "%laneid" => each(&|lane| lane as u32),
        "%warpid" => same(warp),
        "%nwarpid" => same((nx * ny * nz).div_ceil(WARP as u32)),
        "%cluster_ctarank" => same(rank),
        "%cluster_nctarank" => same(cluster.iter().product()),
        "%cluster_ctaid.x" => same(block[0] % cluster[0]),
        "%cluster_nctaid.x" => same(cluster[0]),
        "%clusterid.x" => same(block[0] / cluster[0]),
        "%nclusterid.x" => same(grid[0] / cluster[0]),
        "%lanemask_lt" => each(&|lane| (1 << lane) - 1),
        "%dynamic_smem_size" => same(launch.dynamic_shared),
        // The decoder asks `is_special` first.
        other => unreachable!("{other} is not a special register"),
    }
}
