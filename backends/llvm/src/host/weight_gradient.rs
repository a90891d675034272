//! Weight gradients in the register tiles of matmuls: blocks of rows of both operands are copied into panels, of the gradient as wide
//! as a tile is high, so that what a tile reads lies side by side. Sums of a block stay in registers.

use skipc_artifact::target::DType;
use skipc_plan::loops::{GRADIENT_ROWS, WeightGradient};

use super::code::{Columns, Int, Made, Ptr};
use super::fault::Fault;
use super::frame::{Frame, Row};
use super::level::{Level, PANEL};
use super::matmul::{Factors, Matmul, Operands};

/// Rows of a tile of the result: threads take several.
pub(crate) const TILE_ROWS: u32 = 28;

/// Rows of the result whose gradients are at hand at once: whole register tiles of every level.
const CHUNK: u32 = 84;

/// Bytes of a column of the gradient in a panel.
const TILE_COLUMN: u64 = GRADIENT_ROWS as u64 * 4;

/// Bytes of the gradients of a chunk, of a panel, and of the sums of a register tile.
fn sizes(level: &Level) -> [u64; 3] {
    let rows = u64::from(GRADIENT_ROWS) * 4;
    // A tile of fewer rows than the last may read on.
    let chunk = rows * u64::from(CHUNK) + 64;
    [chunk, rows * u64::from(PANEL), u64::from(level.tile_rows * PANEL) * 4]
        .map(|bytes| bytes.next_multiple_of(64))
}

/// Bytes of scratch memory that a call needs.
pub(crate) fn scratch_bytes(level: &Level) -> u64 {
    sizes(level).iter().sum()
}

/// Emits the work on a range of rows of the result.
pub(crate) fn emit<'c>(
    f: &Frame<'_, 'c>,
    gradient: &WeightGradient,
    (begin, end): (Int<'c>, Int<'c>),
) -> Made<()> {
    if f.dtype_of(gradient.out)? != DType::F32 {
        return Err(Fault::Unsupported("a weight gradient that is not f32".to_owned()));
    }
    if !gradient.adds {
        f.for_each(begin, end, 1, |output| {
            let out = f.dense_row(gradient.out, output)?;
            f.for_columns(f.columns(gradient.cols), f.level.lanes, |col, lanes| {
                f.store(out, col, f.real(0.0, lanes))
            })
        })?;
    }
    let (zero, rows) = (f.int(0), f.extent(gradient.rows)?);
    f.for_each(begin, end, CHUNK, |output| {
        let n_outputs = f.min(f.sub(end, output)?, f.int(i64::from(CHUNK)))?;
        f.for_each(zero, rows, GRADIENT_ROWS, |first| {
            let n_rows = f.min(f.sub(rows, first)?, f.int(i64::from(GRADIENT_ROWS)))?;
            Block { f, gradient, rows: (first, n_rows), outputs: (output, n_outputs) }.emit()
        })
    })
}

/// Some rows of the operands, and some of the result.
struct Block<'w, 'a, 'c> {
    f: &'w Frame<'a, 'c>,
    gradient: &'w WeightGradient,
    rows: (Int<'c>, Int<'c>),
    outputs: (Int<'c>, Int<'c>),
}

impl<'c> Block<'_, '_, 'c> {
    fn emit(&self) -> Made<()> {
        let (f, gradient) = (self.f, self.gradient);
        let [of_chunk, of_panel, _] = sizes(&f.level);
        let (zero, n_cols) = (f.int(0), f.int(i64::from(gradient.cols)));
        let (panel, sums) = (f.scratch_at(of_chunk)?, f.scratch_at(of_chunk + of_panel)?);
        let any = |count| Columns { count, exact: None, unit: 1 };
        self.copy_gradient()?;
        let matmul = Matmul {
            factors: Factors::Single,
            a_row: 4,
            a_step: u64::from(f.level.tile_rows) * 4,
            b_step: u64::from(PANEL) * 4,
            c_row: u64::from(PANEL) * 4,
            adds: false,
        };
        f.for_each(zero, n_cols, PANEL, |col| {
            let cols = f.min(f.sub(n_cols, col)?, f.int(i64::from(PANEL)))?;
            let columns =
                Columns { unit: if gradient.cols.is_multiple_of(PANEL) { PANEL } else { 1 }, ..any(cols) };
            f.for_each(zero, self.rows.1, 1, |row| {
                let from = f.at_column(f.row(gradient.x, f.add(self.rows.0, row)?)?, col)?;
                self.copy(from, f.offset(panel, f.times(row, u64::from(PANEL) * 4)?)?, columns)
            })?;
            f.for_each(zero, self.outputs.1, f.level.tile_rows, |idx| {
                let rows = f.min(f.sub(self.outputs.1, idx)?, f.int(i64::from(f.level.tile_rows)))?;
                let (a, steps) = (f.offset(f.scratch, f.times(idx, TILE_COLUMN)?)?, self.rows.1);
                matmul.call(f, Operands { rows, cols, steps, a, b: panel, scales: None, c: sums })?;
                f.for_each(zero, rows, 1, |within| {
                    let output = f.add(self.outputs.0, f.add(idx, within)?)?;
                    let out = f.at_column(f.dense_row(gradient.out, output)?, col)?;
                    let address = f.offset(sums, f.times(within, u64::from(PANEL) * 4)?)?;
                    let sums = Row { address, dtype: DType::F32 };
                    f.for_columns(columns, f.level.lanes, |col, lanes| {
                        f.store(out, col, f.fadd(f.load(out, col, lanes)?, f.load(sums, col, lanes)?)?)
                    })
                })
            })
        })
    }

    /// Copies the gradient into a panel for each tile of the result, whose last one may have fewer columns.
    fn copy_gradient(&self) -> Made<()> {
        let (f, tile_rows) = (self.f, self.f.level.tile_rows);
        f.for_each(f.int(0), self.rows.1, 1, |row| {
            let dy = f.row(self.gradient.dy, f.add(self.rows.0, row)?)?;
            let dy = f.at_column(dy, self.outputs.0)?;
            let to = f.offset(f.scratch, f.times(row, u64::from(tile_rows) * 4)?)?;
            f.for_each(f.int(0), self.outputs.1, tile_rows, |idx| {
                let (from, to) = (f.at_column(dy, idx)?, f.offset(to, f.times(idx, TILE_COLUMN)?)?);
                let left = f.sub(self.outputs.1, idx)?;
                let is_last = f.below(left, f.int(i64::from(tile_rows)))?;
                let rest = Columns { count: left, exact: None, unit: 1 };
                let none = || Vec::<Int<'c>>::new();
                let whole = || self.copy(from, to, f.columns(tile_rows)).map(|()| none());
                f.branch(is_last, || self.copy(from, to, rest).map(|()| none()), whole).map(drop)
            })
        })
    }

    /// Copies neighbouring columns of a row.
    fn copy(&self, from: Row<'c>, to: Ptr<'c>, columns: Columns<'c>) -> Made<()> {
        let (f, to) = (self.f, Row { address: to, dtype: DType::F32 });
        f.for_columns(columns, f.level.lanes, |col, lanes| f.store(to, col, f.load(from, col, lanes)?))
    }
}
