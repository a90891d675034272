//! Matrix products with gathered rows, one or two weights, and an epilogue program.
//!
//! A block makes a tile of `rows × cols` sums for each weight: `BK`-wide slices of the operands are
//! copied to shared memory in [`STAGES`] stages, several slices ahead of the arithmetic; then the
//! sums go to shared memory and the epilogue runs over them row by row, so that its loads and stores
//! are whole rows of the tile whatever the arithmetic's own layout is.
//!
//! bf16 operands go to the tensor cores ([`mma`]), f32 operands to multiply-adds ([`simt`]).
//! Each sum adds its products in the order of `k`, whatever the number of rows.

mod epilogue;
mod mma;
mod simt;
mod slices;
mod tile;

use skipc_artifact::program::Extent;
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Access, Gemm, Kernel};

use super::pointwise::Program;
use super::{Generated, place};
use crate::code::{Code, Int, Operand};
use crate::error::Error;

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

/// The part of the result that one block makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tile {
    /// Rows.
    rows: u32,
    /// Columns for each weight.
    cols: u32,
    /// Weights: 1 or 2.
    weights: u32,
    /// Threads of the block.
    threads: u32,
}

impl Tile {
    fn choose(kernel: &Kernel, gemm: &Gemm, weights: u32) -> Self {
        let (Extent::Fixed(at_most) | Extent::Counted { at_most, .. }) = kernel.extent;
        let small = gemm.n < SMALL_COLUMNS || gemm.k < SMALL_INNER || at_most <= SMALL_ROWS;
        // Two weights share the columns, so that the sums take as many registers as those of one.
        if small {
            Self { rows: 64, cols: 64 / weights, weights, threads: 128 }
        } else {
            Self { rows: 128, cols: 128 / weights, weights, threads: 256 }
        }
    }

    /// Columns of the tile over all weights.
    fn all_cols(self) -> u32 {
        self.cols * self.weights
    }
}

/// Generates a product.
///
/// # Errors
/// [`Error::Malformed`] and [`Error::Unsupported`].
pub(super) fn generate(kernel: &Kernel, gemm: &Gemm) -> Result<Generated, Error> {
    let weights = check(kernel, gemm)?;
    let tile = Tile::choose(kernel, gemm, weights);
    let program = Program::new(kernel, &gemm.epilogue, gemm.n, weights)?;
    let a = place::param(kernel, gemm.a.slot)?;
    let core = if a.dtype == DType::Bf16 { mma::core(tile) } else { simt::core(tile) };
    let slices = slices::Slices::new(kernel, gemm, tile, core.layout())?;

    let code = Code::new(place::n_params(kernel)?);
    let rows = place::extent(&code, &kernel.extent);
    let (row_tile, col_tile) = pick_tile(&code, rows, tile.rows, gemm.n.div_ceil(tile.cols));
    let corner = tile::Corner { row: row_tile * tile.rows, col: col_tile * tile.cols, rows };
    slices.run(&code, corner, core.as_ref(), &epilogue::Epilogue { program: &program, tile, n: gemm.n });

    let shared_bytes = slices.shared_bytes().max(epilogue::shared_bytes(tile));
    Ok(Generated {
        code,
        tile_rows: tile.rows,
        grid_y: gemm.n.div_ceil(tile.cols),
        threads: tile.threads,
        shared_bytes,
        min_blocks: core.min_blocks(),
        features: core.features(),
    })
}

/// Which tile this block makes. Blocks without one end here.
///
/// Blocks are numbered along the rows first. The number is taken anew among the tiles that hold
/// rows, so that all of them are made by the first blocks to start, in groups of [`ROW_GROUP`] row
/// tiles.
fn pick_tile<'c>(code: &'c Code, rows: Int<'c>, tile_rows: u32, col_tiles: u32) -> (Int<'c>, Int<'c>) {
    let number = code.block_y() * code.grid_x() + code.block_x();
    let row_tiles = (rows + (tile_rows - 1)) / tile_rows;
    code.return_if(number.ge(row_tiles * col_tiles));
    let group_tiles = (ROW_GROUP * col_tiles).val(code);
    let first = number / group_tiles * ROW_GROUP;
    let in_group = number % group_tiles;
    let group_rows = (row_tiles - first).min(ROW_GROUP);
    (first + in_group % group_rows, in_group / group_rows)
}

/// Checks the operands; yields the number of weights.
fn check(kernel: &Kernel, gemm: &Gemm) -> Result<u32, Error> {
    place::require_extent(kernel, &kernel.extent)?;
    let a = place::require_view(kernel, gemm.a, gemm.k)?;
    place::require_real(a)?;
    if a.access != Access::Read {
        return Err(Error::Malformed { what: format!("the operand `{}` of a product is written", a.name) });
    }
    if gemm.k == 0 || gemm.n == 0 {
        return Err(Error::Malformed { what: "a product without columns".to_owned() });
    }
    for slot in &gemm.weights {
        place::require(kernel, *slot, a.dtype)?;
        let weight = place::param(kernel, *slot)?;
        if weight.cols != gemm.k {
            return Err(Error::Malformed { what: format!("`{}` has not {} columns", weight.name, gemm.k) });
        }
    }
    match gemm.weights.len() {
        1 => Ok(1),
        2 => Ok(2),
        other => Err(Error::Unsupported { what: format!("a product with {other} weights; 1 or 2 can be") }),
    }
}
