//! Weight gradients in the register tiles of matmuls: blocks of rows of both operands are copied, the gradient so that the
//! columns of a tile lie side by side, the other in panels. Sums of a block stay in registers.

use skipc_artifact::target::DType;
use skipc_plan::loops::{PRODUCT_ROWS, Products};

use super::code::{Columns, Int, Made, Ptr};
use super::fault::Fault;
use super::frame::{Frame, Row};
use super::level::{Level, PANEL};
use super::matmul::{Factors, Matmul, Operands};

/// Rows of a tile of the result: threads take several.
pub(crate) const TILE_ROWS: u32 = 28;

/// Rows of the result whose gradients are at hand at once: whole register tiles of every level.
const CHUNK: u32 = 84;

/// Bytes of the gradients of a chunk, of a panel, and of the sums of a register tile.
fn sizes(level: &Level) -> [u64; 3] {
    let rows = u64::from(PRODUCT_ROWS) * 4;
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
pub(crate) fn emit<'c>(f: &Frame<'_, 'c>, products: &Products, (begin, end): (Int<'c>, Int<'c>)) -> Made<()> {
    if f.dtype_of(products.out)? != DType::F32 {
        return Err(Fault::Unsupported("a weight gradient that is not f32".to_owned()));
    }
    if !products.adds {
        f.for_each(begin, end, 1, |output| {
            let out = f.dense_row(products.out, output)?;
            f.for_columns(f.columns(products.cols), f.level.lanes, |col, lanes| {
                f.store(out, col, f.real(0.0, lanes))
            })
        })?;
    }
    let (zero, rows) = (f.int(0), f.extent(products.rows)?);
    f.for_each(begin, end, CHUNK, |output| {
        let n_outputs = f.min(f.sub(end, output)?, f.int(i64::from(CHUNK)))?;
        f.for_each(zero, rows, PRODUCT_ROWS, |first| {
            let n_rows = f.min(f.sub(rows, first)?, f.int(i64::from(PRODUCT_ROWS)))?;
            Block { f, products, rows: (first, n_rows), outputs: (output, n_outputs) }.emit()
        })
    })
}

/// Some rows of the operands, and some of the result.
struct Block<'w, 'a, 'c> {
    f: &'w Frame<'a, 'c>,
    products: &'w Products,
    rows: (Int<'c>, Int<'c>),
    outputs: (Int<'c>, Int<'c>),
}

impl<'c> Block<'_, '_, 'c> {
    fn emit(&self) -> Made<()> {
        let (f, products) = (self.f, self.products);
        let [of_chunk, of_panel, _] = sizes(&f.level);
        let (zero, n_cols) = (f.int(0), f.int(i64::from(products.cols)));
        let (panel, sums) = (f.scratch_at(of_chunk)?, f.scratch_at(of_chunk + of_panel)?);
        let any = |count| Columns { count, exact: None, unit: 1 };
        self.copy(f.scratch, u64::from(CHUNK) * 4, |row| {
            let dy = f.row(products.dy, row)?;
            Ok((f.at_column(dy, self.outputs.0)?, any(self.outputs.1)))
        })?;
        let matmul = Matmul {
            factors: Factors::Single,
            a_row: 4,
            a_step: u64::from(CHUNK) * 4,
            b_step: u64::from(PANEL) * 4,
            c_row: u64::from(PANEL) * 4,
            adds: false,
        };
        f.for_each(zero, n_cols, PANEL, |col| {
            let cols = f.min(f.sub(n_cols, col)?, f.int(i64::from(PANEL)))?;
            let columns =
                Columns { unit: if products.cols.is_multiple_of(PANEL) { PANEL } else { 1 }, ..any(cols) };
            self.copy(panel, u64::from(PANEL) * 4, |row| {
                let x = f.row(products.x, row)?;
                Ok((f.at_column(x, col)?, columns))
            })?;
            f.for_each(zero, self.outputs.1, f.level.tile_rows, |idx| {
                let rows = f.min(f.sub(self.outputs.1, idx)?, f.int(i64::from(f.level.tile_rows)))?;
                let (a, steps) = (f.element(f.scratch, idx, 4)?, self.rows.1);
                matmul.call(f, Operands { rows, cols, steps, a, b: panel, scales: None, c: sums })?;
                f.for_each(zero, rows, 1, |within| {
                    let output = f.add(self.outputs.0, f.add(idx, within)?)?;
                    let out = f.at_column(f.dense_row(products.out, output)?, col)?;
                    let address = f.offset(sums, f.times(within, u64::from(PANEL) * 4)?)?;
                    let sums = Row { address, dtype: DType::F32 };
                    f.for_columns(columns, f.level.lanes, |col, lanes| {
                        f.store(out, col, f.fadd(f.load(out, col, lanes)?, f.load(sums, col, lanes)?)?)
                    })
                })
            })
        })
    }

    /// Copies columns of each row of the block.
    fn copy(
        &self,
        to: Ptr<'c>,
        row_bytes: u64,
        from: impl Fn(Int<'c>) -> Made<(Row<'c>, Columns<'c>)>,
    ) -> Made<()> {
        let f = self.f;
        f.for_each(f.int(0), self.rows.1, 1, |row| {
            let (from, columns) = from(f.add(self.rows.0, row)?)?;
            let to = Row { address: f.offset(to, f.times(row, row_bytes)?)?, dtype: DType::F32 };
            f.for_columns(columns, f.level.lanes, |col, lanes| f.store(to, col, f.load(from, col, lanes)?))
        })
    }
}
