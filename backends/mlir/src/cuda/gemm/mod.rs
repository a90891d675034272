//! Matmuls of one left operand with gathered rows: parts with columns and epilogue programs of their own.
//!
//! There are tiles of several heights ([`Tile::menu`]); which of them runs for which number of rows is chosen by a
//! [`Bucketing`], and the kernel reads the count and takes that one. A result has the same bits in all.
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
//! the shapes suit it, [`hopper`] writes the whole kernel instead; [`hopper::Algorithm::choose`] says when.
//! Each sum adds its products in the order of `k`, whatever the number of rows.

mod epilogue;
mod hopper;
mod mma;
mod order;
mod parts;
mod segments;
mod simt;
mod slices;
mod tile;

use skipc_artifact::program::Extent;
use skipc_artifact::target::DType;
use skipc_llvm::CudaTarget;
use skipc_plan::buckets::{self, Bucketing};
use skipc_plan::kernel::{
    Access, Gemm, Grouped, Kernel, MAX_SUMS, Param, Part, SWIZZLE_TERMS, Shift, Sum, WeightLayout,
};

use super::generated::Generated;
use super::place;
use crate::code::{Code, GPtr, Int};
use crate::error::Error;
use order::{pick_tile, row_tiles};
use parts::{Columns, Parts};
use slices::Slices;
use tile::Core;

/// Slices of the operands that are in shared memory at once: one is worked on, the others are
/// under way.
const STAGES: u32 = 3;

/// Result columns below which there is no large tile: it would leave most of the device without work at the few
/// thousand rows of a step.
const LARGE_COLUMNS: u32 = 1024;

/// Inner size below which there is no large tile: there is too little arithmetic for a slice of it to pay for its start.
const LARGE_INNER: u32 = 256;

/// Row bound up to which there is no large tile.
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
    /// Tiles that are worth a choice, lowest first. All have as many threads.
    fn menu(kernel: &Kernel, gemm: &Gemm, columns: &[Columns<'_>]) -> Vec<Self> {
        let (Extent::Fixed(at_most) | Extent::Counted { at_most, .. }) = kernel.extent;
        let n = gemm.parts.iter().fold(0_u32, |sum, part| sum.saturating_add(part.n));
        let least = columns.iter().map(Columns::least_tile).max().unwrap_or_default();
        if columns.iter().all(Columns::is_narrow) && least <= NARROW_TILE {
            return vec![Self { rows: 32, cols: NARROW_TILE, threads: 64 }];
        }
        let cols = if least <= 64 { 64 } else { 128 };
        if n >= LARGE_COLUMNS && gemm.k >= LARGE_INNER && at_most > SMALL_ROWS {
            [(16, 128), (64, cols), (128, 128)].map(|(rows, cols)| Self { rows, cols, threads: 256 }).to_vec()
        } else {
            [16, 64].map(|rows| Self { rows, cols, threads: 128 }).to_vec()
        }
    }
}

/// Generates a matmul over the segments of a partition. A tile has rows of one segment ([`segments`]), so that its block takes the
/// weights of that one.
///
/// # Errors
/// [`Error::Malformed`] and [`Error::Unsupported`].
pub(super) fn generate_grouped(
    device: CudaTarget,
    kernel: &Kernel,
    grouped: &Grouped,
    bucketing: &dyn Bucketing,
) -> Result<Generated, Error> {
    place::require_u32(kernel, grouped.ends)?;
    for Shift { slot, .. } in &grouped.shifts {
        place::param(kernel, *slot)?;
    }
    generate(device, kernel, (&grouped.gemm, Some(grouped)), bucketing)
}

/// Generates a matmul, of segments if there are some.
///
/// # Errors
/// [`Error::Malformed`] and [`Error::Unsupported`].
pub(super) fn generate(
    device: CudaTarget,
    kernel: &Kernel,
    (gemm, grouped): (&Gemm, Option<&Grouped>),
    bucketing: &dyn Bucketing,
) -> Result<Generated, Error> {
    check(kernel, gemm)?;
    let columns = columns(kernel, gemm)?;
    if grouped.is_some() {
        // A tile of `wgmma` has rows of one weight, and its rows are found before there are segments.
    } else if let hopper::Algorithm::Wgmma { columns, tile } =
        hopper::Algorithm::choose(device, kernel, gemm, &columns)?
    {
        return hopper::generate(kernel, gemm, columns, tile);
    }
    let menu = Tile::menu(kernel, gemm, &columns);
    let forms = menu
        .iter()
        .map(|tile| TiledMatmul::new(kernel, (gemm, grouped), *tile))
        .collect::<Result<Vec<TiledMatmul<'_>>, Error>>()?;
    let tiles: Vec<buckets::Tile> = forms.iter().map(TiledMatmul::shape).collect();
    let (Extent::Fixed(at_most) | Extent::Counted { at_most, .. }) = kernel.extent;
    let Some(chosen) = buckets::buckets(bucketing, kernel, &tiles, at_most) else {
        return Err(Error::Malformed { what: "buckets of tiles that there are not".to_owned() });
    };
    let forms: Vec<(u32, &TiledMatmul<'_>)> =
        chosen.iter().map(|bucket| (bucket.from, &forms[bucket.tile])).collect();

    let code = Code::new(place::n_params(kernel)?);
    let rows = place::extent(&code, &kernel.extent);
    take(&code, rows, &forms);
    Ok(Generated {
        code,
        tiles: buckets::row_tiles(&chosen, &tiles),
        threads: forms.iter().map(|(_, form)| form.tile.threads).max().unwrap_or(0),
        shared_bytes: forms.iter().map(|(_, form)| form.shared_bytes()).max().unwrap_or(0),
        min_blocks: forms.iter().map(|(_, form)| form.core.min_blocks()).min().unwrap_or(1),
        cluster: 1,
        pool: 0,
        features: forms.first().map(|(_, form)| form.core.features()).unwrap_or_default(),
        form: forms.iter().map(|(_, form)| form.describe()).collect::<Vec<_>>().join(", "),
        persistent: false,
        segments: grouped.map_or(0, |grouped| grouped.segments),
    })
}

/// The columns of all parts.
fn columns<'p>(kernel: &'p Kernel, gemm: &'p Gemm) -> Result<Vec<Columns<'p>>, Error> {
    gemm.parts.iter().map(|part| Columns::of(kernel, part)).collect()
}

/// The matmul in tiles of one shape.
struct TiledMatmul<'p> {
    kernel: &'p Kernel,
    gemm: &'p Gemm,
    grouped: Option<&'p Grouped>,
    tile: Tile,
    parts: Parts<'p>,
    core: Box<dyn Core>,
}

impl<'p> TiledMatmul<'p> {
    fn new(
        kernel: &'p Kernel,
        (gemm, grouped): (&'p Gemm, Option<&'p Grouped>),
        tile: Tile,
    ) -> Result<Self, Error> {
        let parts = Parts::new(kernel, gemm, columns(kernel, gemm)?, tile.cols)?;
        let a = place::param(kernel, gemm.a.slot)?;
        let core = if a.dtype == DType::Bf16 { mma::core(tile) } else { simt::core(tile) };
        Ok(Self { kernel, gemm, grouped, tile, parts, core })
    }

    fn shape(&self) -> buckets::Tile {
        buckets::Tile { rows: self.tile.rows, cols: self.tile.cols, across: self.parts.n_tiles() }
    }

    fn describe(&self) -> String {
        format!("{} tile of {}x{}", self.core.name(), self.tile.rows, self.tile.cols)
    }

    fn slices(&self) -> Slices<'_> {
        Slices::new(self.kernel, self.gemm, &self.parts, self.tile, self.core.layout())
    }

    fn shared_bytes(&self) -> u32 {
        self.slices().shared_bytes().max(epilogue::shared_bytes(self.tile))
    }

    fn run<'c>(&self, code: &'c Code, rows: Int<'c>) {
        let (tile_rows, col_tiles) = (self.tile.rows, self.parts.n_tiles());
        let row_tiles = match self.grouped {
            None => row_tiles(rows, tile_rows),
            Some(grouped) => segments::row_tiles(rows, tile_rows, grouped.segments),
        };
        let number = code.block_y() * code.grid_x() + code.block_x();
        code.return_if(number.ge(row_tiles * col_tiles));
        let (row_tile, col_tile) = pick_tile(number, row_tiles, col_tiles);
        match self.grouped {
            None => {
                let corner = tile::Corner { row: row_tile * tile_rows, col_tile, rows };
                self.slices().run(code, corner, self.core.as_ref());
            }
            Some(grouped) => {
                let ends = code.param(grouped.ends.0);
                let found = segments::find((ends, grouped.segments), row_tile, (rows, row_tiles), tile_rows);
                code.return_if(!found.holds_rows);
                let corner = tile::Corner { row: found.row, col_tile, rows: found.end };
                code.with_params(&self.shifted(code, grouped, found.segment), || {
                    self.slices().run(code, corner, self.core.as_ref());
                });
            }
        }
    }

    /// Where the constants of a segment begin.
    fn shifted<'c>(&self, code: &'c Code, grouped: &Grouped, segment: Int<'c>) -> Vec<(u32, GPtr<'c>)> {
        let of = |Shift { slot, rows }: &Shift| {
            let param = self.kernel.param(*slot);
            let elements = segment.to_long() * (u64::from(*rows) * u64::from(param.cols));
            (slot.0, place::far_along(code.param(slot.0), param.dtype, elements))
        };
        grouped.shifts.iter().map(of).collect()
    }
}

/// Runs the form for this number of rows.
fn take<'c>(code: &'c Code, rows: Int<'c>, forms: &[(u32, &TiledMatmul<'_>)]) {
    match forms {
        [] => {}
        [(_, form)] => form.run(code, rows),
        [(_, form), others @ ..] => {
            code.either(rows.lt(others[0].0), || form.run(code, rows), || take(code, rows, others));
        }
    }
}

/// Checks the operands and the columns.
fn check(kernel: &Kernel, gemm: &Gemm) -> Result<(), Error> {
    place::require_extent(kernel, &kernel.extent)?;
    let a = place::require_view(kernel, gemm.a, gemm.k)?;
    place::require_real(a)?;
    if a.access != Access::Read {
        return Err(Error::Malformed { what: format!("the operand `{}` of a matmul is written", a.name) });
    }
    if gemm.k == 0 || gemm.parts.is_empty() {
        return Err(Error::Malformed { what: "a matmul without columns".to_owned() });
    }
    gemm.parts.iter().try_for_each(|part| check_part(kernel, gemm.k, a, part))
}

fn check_part(kernel: &Kernel, k: u32, a: &Param, part: &Part) -> Result<(), Error> {
    if part.n == 0 {
        return Err(Error::Malformed { what: "a part of a matmul without columns".to_owned() });
    }
    if !(1..=MAX_SUMS).contains(&part.sums.len()) {
        let what = format!("a part of a matmul with {} sums; 1 to {MAX_SUMS} can be", part.sums.len());
        return Err(Error::Malformed { what });
    }
    part.sums.iter().try_for_each(|sum| check_weight(kernel, k, a, part, *sum))
}

fn check_weight(kernel: &Kernel, k: u32, a: &Param, part: &Part, sum: Sum) -> Result<(), Error> {
    if part.layout == WeightLayout::Levels {
        return Err(Error::Unsupported { what: "weights in 8 bits".to_owned() });
    }
    place::require(kernel, sum.weight, a.dtype)?;
    let weight = place::param(kernel, sum.weight)?;
    let is_there = match part.layout {
        WeightLayout::Rows => weight.cols == k,
        WeightLayout::Swizzled if a.dtype == DType::Bf16 => {
            let end = sum.row.checked_add(part.n);
            let least = end.and_then(|end| part.layout.shape((end, k), a.dtype));
            weight.cols.is_multiple_of(SWIZZLE_TERMS) && least.is_some_and(|(_, cols)| cols <= weight.cols)
        }
        WeightLayout::Swizzled | WeightLayout::Panels | WeightLayout::Columns | WeightLayout::Levels => {
            let what = format!("{} weights in {:?}", a.dtype, part.layout).to_lowercase();
            return Err(Error::Unsupported { what });
        }
    };
    if !is_there {
        return Err(Error::Malformed {
            what: format!("`{}` has not {k} factors for each output", weight.name),
        });
    }
    Ok(())
}
