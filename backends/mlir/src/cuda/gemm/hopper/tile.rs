//! Which tile a matmul on Hopper has, and how it lies in shared memory.

use skipc_artifact::program::Extent;
use skipc_plan::kernel::{Gemm, Kernel};

use super::super::parts::{Columns, Parts};
use crate::code::ROW_BYTES;
use crate::error::Error;

/// Rows of a tile: 64 for each of two warp groups, which is what `wgmma` makes at once.
pub(super) const ROWS: u32 = 128;

/// Slices of the operands in shared memory at once; a power of two, so that a slice's number says its stage.
pub(super) const STAGES: u32 = 4;

/// Columns that a tile can have, at most: the accumulators of 256 take 128 of a thread's registers.
const MENU: [u32; 4] = [256, 192, 128, 64];

/// Multiprocessors of an H100 (SXM) and an H200, by which tiles are counted in rounds. A wrong number costs time only:
/// how many blocks there are is known at the launch.
const PROCESSORS: u32 = 132;

/// What a tile takes beside its columns, counted in columns: the left operand's rows and the epilogue. Not measured; a
/// sweep of widths at one number of rounds on a device would tell.
const TILE_COST: u32 = 32;

/// Rows of the weights' slice are copied in so many at once, so that a stage has room for a multiple.
pub(super) const ROWS_AT_ONCE: u32 = 16;

/// What a block makes at a time: [`ROWS`] rows and at most so many columns, of all sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Tile {
    pub(super) cols: u32,
}

impl Tile {
    /// The width whose tiles are made in the least time by [`PROCESSORS`] blocks at the kernel's bound on rows: rounds
    /// times columns of a tile. Wide tiles load less for each matmul, narrow ones leave fewer blocks idle in the last
    /// round. `None` if a sum or a head does not fit into any.
    pub(super) fn choose(
        kernel: &Kernel,
        gemm: &Gemm,
        columns: &[Columns<'_>],
    ) -> Result<Option<Self>, Error> {
        let (Extent::Fixed(at_most) | Extent::Counted { at_most, .. }) = kernel.extent;
        let row_tiles = u64::from(at_most.div_ceil(ROWS));
        let mut best: Option<(u64, Self)> = None;
        for cols in MENU {
            if columns.iter().any(|columns| columns.least_tile() > cols) {
                continue;
            }
            let parts = Parts::new(kernel, gemm, columns.to_vec(), cols)?;
            let cost = cost(row_tiles, u64::from(parts.n_tiles()), u64::from(parts.width()));
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, Self { cols: parts.widest().next_multiple_of(ROWS_AT_ONCE) }));
            }
        }
        Ok(best.map(|(_, tile)| tile))
    }

    /// Bytes of one stage: a slice of the left operand, then one of the weights.
    pub(super) fn stage_bytes(self) -> u32 {
        (ROWS + self.cols) * ROW_BYTES
    }

    /// Bytes of shared memory: the stages, then for each the mbarrier that it is full and the one that it is empty.
    pub(super) fn shared_bytes(self) -> u32 {
        STAGES * self.stage_bytes() + 2 * STAGES * 8
    }
}

/// Rounds times mean columns, in columns of a tile.
fn cost(row_tiles: u64, col_tiles: u64, width: u64) -> u64 {
    let rounds = (row_tiles * col_tiles).div_ceil(u64::from(PROCESSORS));
    rounds * (width / col_tiles.max(1) + u64::from(TILE_COST))
}
