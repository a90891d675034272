//! How the columns of a matmul's parts lie in tiles.
//!
//! A tile has columns of one part: as many of each of its sums, one sum's after another's. What is left of the tile is
//! padding, whose weights are zeros. The column tiles of the parts are numbered one part's after another's.
//!
//! Where threads find their columns in registers, each sum has whole [`Columns::in_blocks`] of them, and columns beyond
//! the part's are padding too.

use skipc_plan::kernel::{Gemm, Kernel, Part, SWIZZLE_TERMS, Sum, WeightLayout};
use skipc_plan::pointwise::Inst;

use super::super::place;
use super::super::pointwise::Program;
use super::tile::Row;
use crate::code::{Carry, Code, GPtr, Int};
use crate::error::Error;

/// The columns of a part.
#[derive(Clone, Copy)]
pub(super) struct Columns<'p> {
    part: &'p Part,
    program: Program<'p>,
    /// How many have to be in one tile: groups, and heads of which one half is computed from the other.
    together: u32,
    /// Of so many columns each sum has a multiple in a tile, even where the part has fewer.
    block: u32,
}

/// A part in tiles.
pub(super) struct PartTiles<'p> {
    part: &'p Part,
    pub(super) program: Program<'p>,
    /// Columns of each sum in a tile: whole groups and heads.
    pub(super) cols: u32,
    /// Number of its first column tile.
    first: u32,
}

/// The parts of a matmul, in order; at least one.
pub(super) struct Parts<'p> {
    kernel: &'p Kernel,
    /// Inner size.
    k: u32,
    parts: Vec<PartTiles<'p>>,
}

impl<'p> Columns<'p> {
    /// # Errors
    /// [`Error::Malformed`] if the epilogue is.
    pub(super) fn of(kernel: &'p Kernel, part: &'p Part) -> Result<Self, Error> {
        let program = Program::new(kernel, &part.epilogue, part.n, part.sums.len() as u32)?;
        let together = part.epilogue.code.iter().fold(program.width, |so_far, inst| match inst {
            Inst::AccRotated { width, .. } => lcm(so_far, *width),
            _ => so_far,
        });
        Ok(Self { part, program, together, block: 1 })
    }

    /// In blocks of `block` columns, of which threads handle groups of at most `width` at once. `None` if half a head is no
    /// whole number of blocks.
    pub(super) fn in_blocks(self, block: u32, width: u32) -> Option<Self> {
        let is_whole = |inst: &Inst| match inst {
            Inst::AccRotated { width, .. } => (width / 2).is_multiple_of(block),
            _ => true,
        };
        let Self { part, mut program, together, .. } = self;
        program.width = program.width.min(width);
        let together = lcm(together, block);
        part.epilogue.code.iter().all(is_whole).then_some(Self { part, program, together, block })
    }

    pub(super) fn is_narrow(&self) -> bool {
        self.part.is_narrow()
    }

    /// Columns of the least tile that they fit into.
    pub(super) fn least_tile(&self) -> u32 {
        self.together.saturating_mul(self.n_sums())
    }

    fn n_sums(&self) -> u32 {
        self.part.sums.len() as u32
    }
}

/// Least common multiple; neither is 0.
fn lcm(a: u32, b: u32) -> u32 {
    let (mut gcd, mut rest) = (a, b);
    while rest != 0 {
        (gcd, rest) = (rest, gcd % rest);
    }
    (a / gcd).saturating_mul(b)
}

impl<'p> Parts<'p> {
    /// Lays the parts of a matmul out in tiles of `tile_cols` columns.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if heads do not fit into a tile.
    pub(super) fn new(
        kernel: &'p Kernel,
        gemm: &Gemm,
        columns: Vec<Columns<'p>>,
        tile_cols: u32,
    ) -> Result<Self, Error> {
        let mut parts = Vec::new();
        let mut first = 0;
        for columns in columns {
            let (together, n_sums, block) = (columns.together, columns.n_sums(), columns.block);
            let Columns { part, program, .. } = columns;
            let cols = (tile_cols / n_sums / together * together).min(part.n.next_multiple_of(block));
            if cols == 0 {
                let what = format!("heads of {together} columns of {n_sums} sums; a tile has {tile_cols}");
                return Err(Error::Unsupported { what });
            }
            let tiles = PartTiles { part, program, cols, first };
            first += tiles.n_tiles();
            parts.push(tiles);
        }
        Ok(Self { kernel, k: gemm.k, parts })
    }

    /// How many column tiles there are.
    pub(super) fn n_tiles(&self) -> u32 {
        self.parts.iter().map(PartTiles::n_tiles).sum()
    }

    /// The column tiles' widths together: what a row of tiles takes of the tensor cores.
    pub(super) fn width(&self) -> u32 {
        self.parts.iter().map(|part| part.n_tiles() * part.width()).sum()
    }

    /// Columns of the widest tile.
    pub(super) fn widest(&self) -> u32 {
        self.parts.iter().map(PartTiles::width).max().unwrap_or_default()
    }

    /// What `body` gives for the part that a column tile is of and for the first column of the tile in that part.
    pub(super) fn of_tile<'c, C: Carry<'c>>(
        &self,
        code: &'c Code,
        tile: Int<'c>,
        body: &impl Fn(&PartTiles<'p>, Int<'c>) -> C,
    ) -> C {
        choose(code, &self.parts[0], &self.parts[1..], tile, body)
    }

    /// Where the weights of columns of a tile lie, in slices of `inner` elements. Of padding there are none.
    pub(super) fn weights<'c>(
        &self,
        code: &'c Code,
        tile: Int<'c>,
        cols: &[Int<'c>],
        inner: u32,
    ) -> Vec<Row<'c>> {
        self.of_tile(code, tile, &|part, first| {
            cols.iter().map(|col| part.weight(code, (self.kernel, self.k, inner), first, *col)).collect()
        })
    }
}

fn choose<'p, 'c, C: Carry<'c>>(
    code: &'c Code,
    part: &PartTiles<'p>,
    others: &[PartTiles<'p>],
    tile: Int<'c>,
    body: &impl Fn(&PartTiles<'p>, Int<'c>) -> C,
) -> C {
    let here = || body(part, (tile - part.first) * part.cols);
    match others {
        [] => here(),
        [next, others @ ..] => {
            code.either(tile.lt(next.first), here, || choose(code, next, others, tile, body))
        }
    }
}

impl PartTiles<'_> {
    /// Columns of each sum.
    pub(super) fn n(&self) -> u32 {
        self.part.n
    }

    fn n_tiles(&self) -> u32 {
        self.part.n.div_ceil(self.cols)
    }

    /// Columns of all sums in a tile.
    pub(super) fn width(&self) -> u32 {
        self.cols * self.part.sums.len() as u32
    }

    /// Whether the part's last tile is as full as the others.
    pub(super) fn is_whole(&self) -> bool {
        self.part.n.is_multiple_of(self.cols)
    }

    /// The sums.
    pub(super) fn sums(&self) -> &[Sum] {
        &self.part.sums
    }

    /// Whether its weights are swizzled.
    pub(super) fn is_swizzled(&self) -> bool {
        self.part.layout == WeightLayout::Swizzled
    }

    /// The weight of column `col` of the tile that begins with column `first` of the part, for an inner size of `k` in
    /// slices of `inner` elements.
    fn weight<'c>(
        &self,
        code: &'c Code,
        (kernel, k, inner): (&Kernel, u32, u32),
        first: Int<'c>,
        col: Int<'c>,
    ) -> Row<'c> {
        let (number, within) = (col / self.cols, first + col % self.cols);
        let present = number.lt(self.part.sums.len() as u32) & within.lt(self.part.n);
        let of_sum = |sum: &Sum| {
            let stride = if self.is_swizzled() { kernel.param(sum.weight).cols } else { inner };
            (code.param(sum.weight.0), code.int(sum.row), code.int(stride))
        };
        let sums: Vec<(GPtr<'c>, Int<'c>, Int<'c>)> = self.part.sums.iter().map(of_sum).collect();
        let (weight, row, stride) = (1_u32..).zip(&sums[1..]).fold(sums[0], |so_far, (other, sum)| {
            let is_other = number.eq(other);
            (
                is_other.select(sum.0, so_far.0),
                is_other.select(sum.1, so_far.1),
                is_other.select(sum.2, so_far.2),
            )
        });
        let row = row + present.select(within, 0u32);
        let dtype = kernel.param(self.part.sums[0].weight).dtype;
        let (outer, turn) = if self.is_swizzled() { (SWIZZLE_TERMS, row & 7) } else { (k, code.int(0)) };
        let start = place::far_along(weight, dtype, row.to_long() * u64::from(outer));
        Row { start, present, stride, turn, padded: code.truth(self.is_swizzled()) }
    }
}
