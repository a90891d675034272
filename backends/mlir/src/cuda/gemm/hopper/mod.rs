//! Matmuls on Hopper: persistent blocks of one warp group that copies and two that multiply.
//!
//! A block walks over the tiles that there are, however many blocks were started. Slices of 64 elements of `k` go through
//! a ring of [`tile::STAGES`] stages in shared memory: the [`producer`]'s warps fill one, tell the [`consumer`]s by an
//! mbarrier, and go on to the next slice, also of the next tile, while the consumers are still at the epilogue of this
//! one. The consumers' warp groups have 64 rows of the tile each and keep their sums in registers; they add with `wgmma`
//! and give a stage back, by another mbarrier, when the matmul that read it is done. The [`epilogue`] runs over the
//! registers.
//!
//! Weights lie swizzled in memory already ([`WeightLayout::Swizzled`]), so that one thread has all that a tile takes of a
//! slice copied by one bulk copy for each sum, whose bytes the mbarrier counts. Tensor maps would do the same for weights in
//! rows, but a map is a parameter that is no pointer and holds an address that only the host knows: the runtime would have
//! to make one for each weight, and kernels, artefact and harness to carry it. A layout that is chosen once, when constants
//! are made, needs none of this. The left operand is copied by `cp.async`, 16 bytes a thread, and swizzled on the way, as
//! its rows may be gathered; rows that do not exist become zeros. So are the few rows of weights that lie in rows, such as
//! a router's terms.
//!
//! Slices and tiles are counted in one row, so that a slice's number says its stage and its round.

mod consumer;
mod epilogue;
mod producer;
mod tile;

use skipc_artifact::program::RowTile;
use skipc_artifact::target::DType;
use skipc_llvm::{CudaTarget, Feature};
use skipc_plan::kernel::{Gemm, Kernel, Part, SWIZZLE_TERMS, Sum, WeightLayout};

use super::super::generated::Generated;
use super::super::place;
use super::order::{pick_tile, row_tiles};
use super::parts::{Columns, Parts};
use super::tile::Corner;
use crate::code::{Carry, Code, I8, Int, SPtr, Steps};
use crate::error::Error;
use tile::{ROWS, STAGES, Tile};

/// Threads of a warp group.
const WARP_GROUP: u32 = 128;

/// Warp groups that multiply.
const CONSUMERS: u32 = ROWS / 64;

/// Threads of a block.
const THREADS: u32 = (1 + CONSUMERS) * WARP_GROUP;

/// Registers of a thread that copies: addresses of its rows of a slice, and little else.
const PRODUCER_REGISTERS: u32 = 56;

/// Registers of a thread that multiplies: all that 65536 of a multiprocessor leave, in steps of 8.
const CONSUMER_REGISTERS: u32 = 224;

/// Elements of `k` in a slice.
const INNER: u32 = 64;
const _: () = assert!(INNER == SWIZZLE_TERMS, "a row of swizzled weights is a slice");

/// Elements of a copy of 16 bytes.
const PIECE: u32 = 8;

/// Columns between those that one thread has of a row of sums: the width of a core matrix.
const BLOCK: u32 = 8;

/// How a matmul is computed.
pub(super) enum Algorithm<'p> {
    /// Tiles with one tile a block, for any device.
    Plain,
    /// Persistent blocks with `wgmma`.
    Wgmma {
        /// The parts' columns, in blocks.
        columns: Vec<Columns<'p>>,
        /// The tile.
        tile: Tile,
    },
}

impl<'p> Algorithm<'p> {
    /// The algorithm for a device: `wgmma` if all of this holds, else plain tiles.
    ///
    /// - The device has `wgmma`, and the operands are bf16.
    /// - Rows of both operands begin at multiples of 16 bytes: `k`, the left operand's first column and its columns in
    ///   memory are multiples of 8.
    /// - Half a head is a multiple of 8 columns, so that a thread has both columns that turn into each other.
    /// - Each sum has at least 8 columns in a tile, and its heads fit into one.
    /// - Swizzled weights begin at a multiple of 8 outputs, and have so many: the swizzle goes by eight rows.
    /// - Some part is not narrow: scores alone have a small tile of their own.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub(super) fn choose(
        device: CudaTarget,
        kernel: &Kernel,
        gemm: &Gemm,
        columns: &[Columns<'p>],
    ) -> Result<Self, Error> {
        let a = place::param(kernel, gemm.a.slot)?;
        let is_aligned = [gemm.k, gemm.a.col, a.cols].iter().all(|elements| elements.is_multiple_of(PIECE));
        let suits = device.has(Feature::Wgmma)
            && a.dtype == DType::Bf16
            && is_aligned
            && gemm.parts.iter().all(fits_swizzle)
            && !columns.iter().all(Columns::is_narrow);
        let in_blocks: Option<Vec<Columns<'p>>> =
            columns.iter().map(|columns| columns.in_blocks(BLOCK, 2)).collect();
        match in_blocks.filter(|_| suits) {
            None => Ok(Self::Plain),
            Some(columns) => Ok(match Tile::choose(kernel, gemm, &columns)? {
                None => Self::Plain,
                Some(tile) => Self::Wgmma { columns, tile },
            }),
        }
    }
}

/// Whether the weights of a part lie in whole groups of eight outputs, if they are swizzled.
fn fits_swizzle(part: &Part) -> bool {
    let is_whole = |sum: &Sum| sum.row.is_multiple_of(BLOCK);
    part.layout != WeightLayout::Swizzled || (part.n >= BLOCK && part.sums.iter().all(is_whole))
}

/// Generates a matmul by [`Algorithm::Wgmma`].
///
/// # Errors
/// [`Error::Malformed`] and [`Error::Unsupported`].
pub(super) fn generate(
    kernel: &Kernel,
    gemm: &Gemm,
    columns: Vec<Columns<'_>>,
    tile: Tile,
) -> Result<Generated, Error> {
    let parts = Parts::new(kernel, gemm, columns, tile.cols)?;
    let code = Code::new(place::n_params(kernel)?);
    let matmul = Matmul { kernel, gemm, parts, tile };
    matmul.write(&code);
    Ok(Generated {
        code,
        tiles: vec![RowTile { from: 0, rows: ROWS, across: matmul.parts.n_tiles() }],
        threads: THREADS,
        shared_bytes: tile.shared_bytes(),
        min_blocks: 1,
        cluster: 1,
        pool: WARP_GROUP * (PRODUCER_REGISTERS + CONSUMERS * CONSUMER_REGISTERS),
        features: vec![Feature::Wgmma, Feature::SetMaxNReg, Feature::CpAsync, Feature::CvtBf16x2],
        form: format!("persistent wgmma, tile of {ROWS}x{}, {STAGES} stages", tile.cols),
        persistent: true,
        segments: 0,
    })
}

/// A matmul that is written.
struct Matmul<'p> {
    kernel: &'p Kernel,
    gemm: &'p Gemm,
    parts: Parts<'p>,
    tile: Tile,
}

impl<'p> Matmul<'p> {
    fn write(&self, code: &Code) {
        let rows = place::extent(code, &self.kernel.extent);
        code.when(code.thread().eq(0), || {
            for stage in 0..STAGES {
                let stage = Stage { matmul: self, number: code.int(stage) };
                stage.full(code).init_mbarrier(producer::ARRIVALS);
                stage.empty(code).init_mbarrier(consumer::ARRIVALS);
            }
            code.fence_new_mbarriers();
        });
        code.barrier();
        let role = code.thread() / WARP_GROUP;
        code.when(role.eq(0), || {
            code.shrink_registers(PRODUCER_REGISTERS);
            self.produce(code, rows);
        });
        code.when(role.ne(0), || {
            code.grow_registers(CONSUMER_REGISTERS);
            self.consume(code, rows, role - 1);
        });
    }

    /// Slices of the operands.
    fn turns(&self) -> u32 {
        self.gemm.k.div_ceil(INNER)
    }

    /// What `body` makes of each tile of this block, one after the other.
    fn each_tile<'c, C: Carry<'c>>(
        &self,
        code: &'c Code,
        rows: Int<'c>,
        start: C,
        body: impl FnOnce(Corner<'c>, C) -> C,
    ) -> C {
        let col_tiles = self.parts.n_tiles();
        let steps = Steps {
            from: code.block_y() * code.grid_x() + code.block_x(),
            to: row_tiles(rows, ROWS) * col_tiles,
            step: code.grid_x() * code.grid_y(),
        };
        code.repeat(steps, start, |number, carried| {
            let (row_tile, col_tile) = pick_tile(number, row_tiles(rows, ROWS), col_tiles);
            body(Corner { row: row_tile * ROWS, col_tile, rows }, carried)
        })
    }
}

/// The stage of a slice, which is numbered from the block's first one on.
#[derive(Clone, Copy)]
struct Stage<'p, 'c> {
    matmul: &'p Matmul<'p>,
    number: Int<'c>,
}

impl<'c> Stage<'_, 'c> {
    fn index(self) -> Int<'c> {
        self.number & (STAGES - 1)
    }

    /// 0 or 1, in turns, for each round through the stages.
    fn round(self) -> Int<'c> {
        (self.number / STAGES) & 1
    }

    /// The left operand's slice: [`ROWS`] rows.
    fn left(self, code: &'c Code) -> SPtr<'c> {
        code.shared().at::<I8>(self.index() * self.matmul.tile.stage_bytes())
    }

    /// The weights' slice: a row for each column of the tile.
    fn right(self, code: &'c Code) -> SPtr<'c> {
        self.left(code).at::<I8>(ROWS * crate::code::ROW_BYTES)
    }

    /// The mbarrier whose phases end when the slice is there.
    fn full(self, code: &'c Code) -> SPtr<'c> {
        code.shared().at::<I8>(self.index() * 8 + STAGES * self.matmul.tile.stage_bytes())
    }

    /// The mbarrier whose phases end when the slice is used.
    fn empty(self, code: &'c Code) -> SPtr<'c> {
        self.full(code).at::<I8>(STAGES * 8)
    }
}
