//! Products of one left operand with gathered rows: parts with columns and epilogue programs of their own.
//!
//! A block makes a tile of one part ([`parts`] says which columns lie in it): `BK`-wide slices of the
//! operands are copied to shared memory in [`STAGES`] stages, several slices ahead of the arithmetic;
//! then the sums go to shared memory and the part's epilogue runs over them row by row, so that its
//! loads and stores are whole rows of the tile whatever the arithmetic's own layout is.
//!
//! All parts have tiles of one shape and share the loop over slices: only where weights are read from, and
//! the epilogue, depend on the part.
//!
//! bf16 operands go to the tensor cores ([`mma`]), f32 operands to multiply-adds ([`simt`]). Where a device has `wgmma` and
//! the shapes suit it, [`hopper`] writes the whole kernel instead; [`hopper::Form::choose`] says when.
//! Each sum adds its products in the order of `k`, whatever the number of rows.

mod epilogue;
mod hopper;
mod mma;
mod parts;
mod simt;
mod slices;
mod tile;

use skipc_artifact::program::Extent;
use skipc_artifact::target::DType;
use skipc_llvm::CudaTarget;
use skipc_plan::kernel::{Access, Gemm, Kernel, MAX_SUMS, PANEL, Param, Part, Sum, WeightLayout};

use super::{Generated, place};
use crate::code::{Code, Int, Operand};
use crate::error::Error;
use parts::{Columns, Parts};

/// Slices of the operands that are in shared memory at once: one is worked on, the others are
/// under way.
const STAGES: u32 = 3;

/// Blocks of neighbouring row tiles that take the column tiles in turn, so that the operands of
/// the blocks that run at one time fit into the second-level cache.
const ROW_GROUP: u32 = 8;

/// Result columns below which the small tile is used: a large one would leave most of the device
/// without work at the few thousand rows of a step.
const SMALL_COLUMNS: u32 = 1024;

/// Inner size below which the small tile is used: there is too little arithmetic for a slice of
/// the large one to pay for its start.
const SMALL_INNER: u32 = 256;

/// Row bound up to which the small tile is used.
const SMALL_ROWS: u32 = 256;

/// Columns of the tile for parts of a few columns.
const NARROW_TILE: u32 = 16;

/// What one block makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tile {
    rows: u32,
    /// Columns, of all sums.
    cols: u32,
    /// Threads of the block.
    threads: u32,
}

impl Tile {
    /// A tile for all parts. It depends on bounds alone: the order of sums does not change with what is counted.
    fn choose(kernel: &Kernel, gemm: &Gemm, columns: &[Columns<'_>]) -> Self {
        let (Extent::Fixed(at_most) | Extent::Counted { at_most, .. }) = kernel.extent;
        let n = gemm.parts.iter().fold(0_u32, |sum, part| sum.saturating_add(part.n));
        let least = columns.iter().map(Columns::least_tile).max().unwrap_or_default();
        if columns.iter().all(Columns::is_narrow) && least <= NARROW_TILE {
            Self { rows: 32, cols: NARROW_TILE, threads: 64 }
        } else if n >= SMALL_COLUMNS && gemm.k >= SMALL_INNER && at_most > SMALL_ROWS {
            Self { rows: 128, cols: 128, threads: 256 }
        } else if least <= 64 {
            Self { rows: 64, cols: 64, threads: 128 }
        } else {
            Self { rows: 64, cols: 128, threads: 128 }
        }
    }
}

/// Generates a product.
///
/// # Errors
/// [`Error::Malformed`] and [`Error::Unsupported`].
pub(super) fn generate(device: CudaTarget, kernel: &Kernel, gemm: &Gemm) -> Result<Generated, Error> {
    check(kernel, gemm)?;
    let columns = gemm
        .parts
        .iter()
        .map(|part| Columns::of(kernel, part))
        .collect::<Result<Vec<Columns<'_>>, Error>>()?;
    if let hopper::Form::Wgmma { columns, tile } = hopper::Form::choose(device, kernel, gemm, &columns)? {
        return hopper::generate(kernel, gemm, columns, tile);
    }
    let tile = Tile::choose(kernel, gemm, &columns);
    let parts = Parts::new(kernel, gemm, columns, tile.cols)?;
    let a = place::param(kernel, gemm.a.slot)?;
    let core = if a.dtype == DType::Bf16 { mma::core(tile) } else { simt::core(tile) };
    let slices = slices::Slices::new(kernel, gemm, &parts, tile, core.layout())?;

    let code = Code::new(place::n_params(kernel)?);
    let rows = place::extent(&code, &kernel.extent);
    let number = code.block_y() * code.grid_x() + code.block_x();
    code.return_if(number.ge(n_tiles(rows, tile.rows, parts.n_tiles())));
    let (row_tile, col_tile) = pick_tile(number, rows, tile.rows, parts.n_tiles());
    let corner = tile::Corner { row: row_tile * tile.rows, col_tile, rows };
    slices.run(&code, corner, core.as_ref());

    let shared_bytes = slices.shared_bytes().max(epilogue::shared_bytes(tile));
    Ok(Generated {
        code,
        tile_rows: tile.rows,
        grid_y: parts.n_tiles(),
        threads: tile.threads,
        shared_bytes,
        min_blocks: core.min_blocks(),
        features: core.features(),
        form: format!("{} tile of {}x{}", core.name(), tile.rows, tile.cols),
        persistent: false,
    })
}

/// How many tiles hold rows.
fn n_tiles(rows: Int<'_>, tile_rows: u32, col_tiles: u32) -> Int<'_> {
    (rows + (tile_rows - 1)) / tile_rows * col_tiles
}

/// Which tile has this number, below [`n_tiles`]: its row tile and its column tile.
///
/// Tiles that hold rows are numbered along the rows first, in groups of [`ROW_GROUP`] row tiles, so that the first blocks
/// to start make all of them.
fn pick_tile<'c>(number: Int<'c>, rows: Int<'c>, tile_rows: u32, col_tiles: u32) -> (Int<'c>, Int<'c>) {
    let row_tiles = (rows + (tile_rows - 1)) / tile_rows;
    let group_tiles = (ROW_GROUP * col_tiles).val(number.code());
    let first = number / group_tiles * ROW_GROUP;
    let in_group = number % group_tiles;
    let group_rows = (row_tiles - first).min(ROW_GROUP);
    (first + in_group % group_rows, in_group / group_rows)
}

/// Checks the operands and the columns.
fn check(kernel: &Kernel, gemm: &Gemm) -> Result<(), Error> {
    place::require_extent(kernel, &kernel.extent)?;
    let a = place::require_view(kernel, gemm.a, gemm.k)?;
    place::require_real(a)?;
    if a.access != Access::Read {
        return Err(Error::Malformed { what: format!("the operand `{}` of a product is written", a.name) });
    }
    if gemm.k == 0 || gemm.parts.is_empty() {
        return Err(Error::Malformed { what: "a product without columns".to_owned() });
    }
    gemm.parts.iter().try_for_each(|part| check_part(kernel, gemm.k, a, part))
}

fn check_part(kernel: &Kernel, k: u32, a: &Param, part: &Part) -> Result<(), Error> {
    if part.n == 0 {
        return Err(Error::Malformed { what: "a part of a product without columns".to_owned() });
    }
    if !(1..=MAX_SUMS).contains(&part.sums.len()) {
        let what = format!("a part of a product with {} sums; 1 to {MAX_SUMS} can be", part.sums.len());
        return Err(Error::Malformed { what });
    }
    part.sums.iter().try_for_each(|sum| check_weight(kernel, k, a, part, *sum))
}

fn check_weight(kernel: &Kernel, k: u32, a: &Param, part: &Part, sum: Sum) -> Result<(), Error> {
    place::require(kernel, sum.weight, a.dtype)?;
    let weight = place::param(kernel, sum.weight)?;
    let there = match part.layout {
        WeightLayout::Rows => weight.cols == k,
        WeightLayout::Panels if a.dtype == DType::Bf16 => {
            let end = u64::from(sum.row) + u64::from(part.n);
            weight.cols.is_multiple_of(PANEL) && end * u64::from(PANEL) <= u64::from(weight.cols)
        }
        WeightLayout::Panels | WeightLayout::Columns => {
            let what = format!("{} weights in {:?}", a.dtype, part.layout).to_lowercase();
            return Err(Error::Unsupported { what });
        }
    };
    if !there {
        return Err(Error::Malformed { what: format!("`{}` has not {k} columns", weight.name) });
    }
    Ok(())
}
