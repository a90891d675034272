//! Matmuls: the helper's matrix product into scratch memory, then the epilogue over the sums.

use cranelift_codegen::ir::{InstBuilder, Value};
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Gemm, Kernel, Rows, Slot};

use crate::emit::{Columns, Emitter};
use crate::error::Fault;
use crate::memory::Row;
use crate::pointwise::RowSpan;
use crate::product::{Matrix, Product};

/// Rows of one matrix product at most. The library packs the weights anew in each product, which 256 rows hide; a
/// call of fewer row tiles makes a smaller product. Not measured beyond that.
const CHUNK_ROWS: u32 = 256;

/// Columns of one matrix product at most: with [`CHUNK_ROWS`], half a megabyte of sums for each weight, so that the
/// epilogue finds them in the second-level cache.
const BLOCK_COLS: u32 = 512;

/// Where things lie in scratch memory, in bytes, and how the columns are cut.
struct Plan {
    /// Whether rows of the left operand are copied to the start of the scratch memory first.
    copies_a: bool,
    /// Columns of a product.
    block: u32,
    /// Elements between rows of the sums.
    stride: u32,
    /// First byte of the sums over each weight.
    sums: Vec<u64>,
    /// Bytes of all.
    bytes: u64,
}

impl Plan {
    fn new(kernel: &Kernel, gemm: &Gemm, tile_rows: u32) -> Result<Plan, Fault> {
        let a = kernel.params.get(gemm.a.slot.0 as usize);
        let is_f32 = a.is_some_and(|param| param.dtype == DType::F32);
        let in_place = is_f32 && gemm.a.rows == Rows::Dense;
        let chunk = u64::from(CHUNK_ROWS.max(tile_rows));
        let mut bytes = if in_place { 0 } else { aligned(chunk * u64::from(gemm.k) * 4) };
        let n_blocks = gemm.n.div_ceil(BLOCK_COLS).max(1);
        let block = if n_blocks == 1 { gemm.n } else { gemm.n.div_ceil(n_blocks).next_multiple_of(16) };
        let stride = block.next_multiple_of(16);
        let mut sums = Vec::new();
        for _ in &gemm.weights {
            sums.push(bytes);
            bytes = chunk
                .checked_mul(u64::from(stride) * 4)
                .and_then(|sums| bytes.checked_add(sums))
                .filter(|bytes| *bytes <= i64::MAX as u64)
                .ok_or_else(|| {
                    Fault::Unsupported("its scratch memory exceeds the address space".to_owned())
                })?;
        }
        Ok(Plan { copies_a: !in_place, block, stride, sums, bytes })
    }
}

/// Bytes of scratch memory that a call needs.
pub(crate) fn scratch_bytes(kernel: &Kernel, gemm: &Gemm, tile_rows: u32) -> Result<u64, Fault> {
    Ok(Plan::new(kernel, gemm, tile_rows)?.bytes)
}

/// Emits the work on a range of rows.
pub(crate) fn emit(
    e: &mut Emitter<'_>,
    gemm: &Gemm,
    tile_rows: u32,
    rows: (Value, Value),
) -> Result<(), Fault> {
    for slot in &gemm.weights {
        check_weight(e, *slot)?;
    }
    let plan = Plan::new(e.kernel, gemm, tile_rows)?;
    let chunk = i64::from(CHUNK_ROWS.max(tile_rows));
    e.for_each(rows.0, rows.1, chunk, |e, first_row| {
        let left = e.ins().isub(rows.1, first_row);
        let limit = e.int(chunk);
        let m = e.ins().umin(left, limit);
        let a = left_operand(e, gemm, &plan, first_row, m)?;
        let (zero, n) = (e.int(0), e.int(i64::from(gemm.n)));
        e.for_each(zero, n, i64::from(plan.block.max(1)), |e, first_col| {
            let columns = block_columns(e, gemm, &plan, first_col, n);
            let scratch = e.scratch;
            let sums: Vec<Value> =
                plan.sums.iter().map(|at| e.ins().iadd_imm_s(scratch, *at as i64)).collect();
            for (slot, sums) in gemm.weights.iter().zip(&sums) {
                let weight = e.dense_row(*slot, first_col)?;
                let (k, stride) = (e.int(i64::from(gemm.k)), e.int(i64::from(plan.stride)));
                let b = Matrix { address: weight.address, stride: k };
                let c = Matrix { address: *sums, stride };
                Product { m, n: columns.count, k, a, b, c }.call(e);
            }
            epilogue(e, gemm, &plan, Block { first_row, m, first_col, columns, sums })
        })
    })
}

fn check_weight(e: &Emitter<'_>, slot: Slot) -> Result<(), Fault> {
    match e.real_type(slot)? {
        DType::F32 => Ok(()),
        dtype => {
            Err(Fault::Unsupported(format!("{dtype} matmul on the Cranelift backend; use --dtype cpu=f32")))
        }
    }
}

/// `m` rows of the left operand as f32.
fn left_operand(
    e: &mut Emitter<'_>,
    gemm: &Gemm,
    plan: &Plan,
    first_row: Value,
    m: Value,
) -> Result<Matrix, Fault> {
    if !plan.copies_a {
        let stride = e.param(gemm.a.slot)?.cols;
        return Ok(Matrix { address: e.row_address(gemm.a, first_row)?, stride: e.int(i64::from(stride)) });
    }
    let (zero, stride, scratch) = (e.int(0), e.int(i64::from(gemm.k)), e.scratch);
    e.for_each(zero, m, 1, |e, idx| {
        let row = e.ins().iadd(first_row, idx);
        let from = e.row(gemm.a, row)?;
        let offset = e.ins().imul_imm_s(idx, i64::from(gemm.k) * 4);
        let to = Row { address: e.ins().iadd(scratch, offset), dtype: DType::F32 };
        e.copy_row(from, to, gemm.k)
    })?;
    Ok(Matrix { address: scratch, stride })
}

fn block_columns(e: &mut Emitter<'_>, gemm: &Gemm, plan: &Plan, first_col: Value, n: Value) -> Columns {
    if gemm.n == plan.block {
        return e.columns(gemm.n);
    }
    let left = e.ins().isub(n, first_col);
    let limit = e.int(i64::from(plan.block));
    Columns { count: e.ins().umin(left, limit), whole: gemm.n.is_multiple_of(4), few: None }
}

/// Sums that wait for their epilogue.
struct Block {
    first_row: Value,
    m: Value,
    first_col: Value,
    columns: Columns,
    sums: Vec<Value>,
}

fn epilogue(e: &mut Emitter<'_>, gemm: &Gemm, plan: &Plan, block: Block) -> Result<(), Fault> {
    let zero = e.int(0);
    e.for_each(zero, block.m, 1, |e, idx| {
        let row = e.ins().iadd(block.first_row, idx);
        let offset = e.ins().imul_imm_s(idx, i64::from(plan.stride) * 4);
        let sums: Vec<Value> = block.sums.iter().map(|sums| e.ins().iadd(*sums, offset)).collect();
        let first = (gemm.n != plan.block).then_some(block.first_col);
        e.pointwise(&gemm.epilogue, &RowSpan { row, first, columns: block.columns, sums: &sums })
    })
}

fn aligned(bytes: u64) -> u64 {
    bytes.next_multiple_of(64)
}
