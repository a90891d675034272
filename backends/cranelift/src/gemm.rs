//! Matmuls: the helper's matmul, or for a few columns dot products, into scratch memory, then the epilogue over
//! the sums. The parts of a matmul take the same rows of the left operand in turn.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Gemm, Grouped, Kernel, Part, Rows, Shift, Slot, Sum, WeightLayout};

use crate::emit::{Columns, Emitter, Lanes};
use crate::error::Fault;
use crate::matmul::{Matmul, Matrix, Right, dot_products};
use crate::memory::{PLAIN, Row};
use crate::pointwise::{self, RowSpan};

/// Rows of one matmul at most. With weights in columns a matmul of 64 rows is as fast as a large one; the
/// library packs weights in rows anew each time, which more rows hide.
const CHUNK_ROWS: u32 = 256;

/// Columns of one matmul at most: with [`CHUNK_ROWS`], half a megabyte of sums for each weight, so that the
/// epilogue finds them in the second-level cache.
const BLOCK_COLS: u32 = 512;

/// Where things lie in scratch memory, in bytes.
struct Plan {
    /// Whether rows of the left operand are copied to the start of the scratch memory first.
    copies_a: bool,
    /// How each part is cut.
    parts: Vec<Cut>,
    /// Bytes of all.
    bytes: u64,
}

/// How the columns of a part are cut, and where its sums lie.
struct Cut {
    /// Columns of a matmul.
    block: u32,
    /// Elements between rows of the sums.
    stride: u32,
    /// First byte of each sum.
    sums: Vec<u64>,
    /// First byte of a row for each function of the epilogue that a helper computes.
    functions: Vec<u64>,
}

impl Plan {
    fn new(kernel: &Kernel, gemm: &Gemm, tile_rows: u32) -> Result<Plan, Fault> {
        let a = kernel.params.get(gemm.a.slot.0 as usize);
        let is_f32 = a.is_some_and(|param| param.dtype == DType::F32);
        let in_place = is_f32 && gemm.a.rows == Rows::Dense;
        let chunk = u64::from(CHUNK_ROWS.max(tile_rows));
        let start = if in_place { 0 } else { aligned(chunk * u64::from(gemm.k) * 4) };
        let (mut parts, mut bytes) = (Vec::new(), start);
        // Parts take turns, so that all of them use the same memory.
        for part in &gemm.parts {
            let (cut, end) = Cut::new(part, start, chunk)?;
            bytes = bytes.max(end);
            parts.push(cut);
        }
        Ok(Plan { copies_a: !in_place, parts, bytes })
    }
}

impl Cut {
    /// The cut, and where its sums end if they begin at `start`.
    fn new(part: &Part, start: u64, chunk: u64) -> Result<(Cut, u64), Fault> {
        let n_blocks = part.n.div_ceil(BLOCK_COLS).max(1);
        let unit = if pointwise::heads_width(&part.epilogue).is_some() { BLOCK_COLS } else { 16 };
        let block = if n_blocks == 1 { part.n } else { part.n.div_ceil(n_blocks).next_multiple_of(unit) };
        let stride = block.next_multiple_of(16);
        let (mut sums, mut bytes) = (Vec::new(), start);
        for _ in &part.sums {
            sums.push(bytes);
            bytes = chunk
                .checked_mul(u64::from(stride) * 4)
                .and_then(|sums| bytes.checked_add(sums))
                .filter(|bytes| *bytes <= i64::MAX as u64)
                .ok_or_else(|| {
                    Fault::Unsupported("its scratch memory exceeds the address space".to_owned())
                })?;
        }
        let mut functions = Vec::new();
        for _ in pointwise::functions(&part.epilogue) {
            functions.push(bytes);
            bytes += pointwise::row_bytes(stride);
        }
        Ok((Cut { block, stride, sums, functions }, bytes))
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
    for part in &gemm.parts {
        if part.layout == WeightLayout::Levels {
            let what =
                "weights in 8 bits on the Cranelift backend; use --cpu-backend llvm or --dtype cpu=f32";
            return Err(Fault::Unsupported(what.to_owned()));
        }
        part.sums.iter().try_for_each(|sum| check_weight(e, sum.weight))?;
        if pointwise::heads_width(&part.epilogue).is_some_and(|width| !BLOCK_COLS.is_multiple_of(width)) {
            return Err(Fault::Unsupported("heads that do not fit a block of columns".to_owned()));
        }
    }
    let plan = Plan::new(e.kernel, gemm, tile_rows)?;
    let chunk = i64::from(CHUNK_ROWS.max(tile_rows));
    e.for_each(rows.0, rows.1, chunk, |e, first_row| {
        let left = e.ins().isub(rows.1, first_row);
        let limit = e.int(chunk);
        let m = e.ins().umin(left, limit);
        let a = left_operand(e, gemm, &plan, first_row, m)?;
        for (part, cut) in gemm.parts.iter().zip(&plan.parts) {
            let work = Work { k: gemm.k, part, cut, a, rows: (first_row, m) };
            if part.takes_dots() { work.narrow(e)? } else { work.wide(e)? }
        }
        Ok(())
    })
}

/// Emits the work on a range of rows of segments, each with constants of its own.
pub(crate) fn emit_grouped(
    e: &mut Emitter<'_>,
    grouped: &Grouped,
    tile_rows: u32,
    rows: (Value, Value),
) -> Result<(), Fault> {
    let ends = e.pointer(grouped.ends, DType::U32)?;
    let args = e.args.clone();
    let (zero, segments) = (e.int(0), e.int(i64::from(grouped.segments)));
    e.fold(zero, segments, 1, &[zero], |e, segment, begin| {
        let end = e.element(ends, segment, 4);
        let end = e.ins().uload32(PLAIN, end, 0);
        for Shift { slot, rows } in &grouped.shifts {
            let param = e.param(*slot)?;
            let bytes = i64::from(*rows) * i64::from(param.cols) * i64::from(param.dtype.size());
            let offset = e.ins().imul_imm_s(segment, bytes);
            e.args[slot.0 as usize] = e.ins().iadd(args[slot.0 as usize], offset);
        }
        let of_segment = (e.ins().umax(begin[0], rows.0), e.ins().umin(end, rows.1));
        emit(e, &grouped.gemm, tile_rows, of_segment)?;
        e.args.clone_from(&args);
        Ok(vec![end])
    })?;
    Ok(())
}

fn check_weight(e: &Emitter<'_>, slot: Slot) -> Result<(), Fault> {
    match e.real_type(slot)? {
        DType::F32 => Ok(()),
        dtype => {
            Err(Fault::Unsupported(format!("{dtype} matmul on the Cranelift backend; use --dtype cpu=f32")))
        }
    }
}

/// `m` rows of the left operand as f32, at least one: in place if they lie one after the other, else copied. A row list is
/// ascending and without repetition, so that its ends tell.
fn left_operand(
    e: &mut Emitter<'_>,
    gemm: &Gemm,
    plan: &Plan,
    first_row: Value,
    m: Value,
) -> Result<Matrix, Fault> {
    let cols = e.param(gemm.a.slot)?.cols;
    if !plan.copies_a {
        return Ok(Matrix { address: e.row_address(gemm.a, first_row)?, stride: e.int(i64::from(cols)) });
    }
    let (stride, scratch) = (e.int(i64::from(gemm.k)), e.scratch);
    if e.real_type(gemm.a.slot)? != DType::F32 {
        copy_rows(e, gemm, first_row, m)?;
        return Ok(Matrix { address: scratch, stride });
    }
    let last_row = e.ins().iadd(first_row, m);
    let last_row = e.ins().iadd_imm_s(last_row, -1);
    let (first, last) = (e.physical(gemm.a.rows, first_row)?, e.physical(gemm.a.rows, last_row)?);
    let span = e.ins().isub(last, first);
    let span = e.ins().iadd_imm_s(span, 1);
    let is_run = e.ins().icmp(IntCC::Equal, span, m);
    e.branch(is_run, |_| Ok(()), |e| copy_rows(e, gemm, first_row, m))?;
    let (in_place, whole) = (e.row_address(gemm.a, first_row)?, e.int(i64::from(cols)));
    Ok(Matrix {
        address: e.ins().select(is_run, in_place, scratch),
        stride: e.ins().select(is_run, whole, stride),
    })
}

/// Copies rows of the left operand to the start of the scratch memory.
fn copy_rows(e: &mut Emitter<'_>, gemm: &Gemm, first_row: Value, m: Value) -> Result<(), Fault> {
    let (zero, scratch) = (e.int(0), e.scratch);
    e.for_each(zero, m, 1, |e, idx| {
        let row = e.ins().iadd(first_row, idx);
        let from = e.row(gemm.a, row)?;
        let offset = e.ins().imul_imm_s(idx, i64::from(gemm.k) * 4);
        let to = Row { address: e.ins().iadd(scratch, offset), dtype: DType::F32 };
        e.copy_row(from, to, gemm.k)
    })
}

/// A part over a chunk of rows.
struct Work<'w> {
    k: u32,
    part: &'w Part,
    cut: &'w Cut,
    /// The rows of the left operand.
    a: Matrix,
    /// The first row, and how many.
    rows: (Value, Value),
}

impl Work<'_> {
    /// Matmuls of the library, block by block of columns.
    fn wide(&self, e: &mut Emitter<'_>) -> Result<(), Fault> {
        let (zero, n) = (e.int(0), e.int(i64::from(self.part.n)));
        e.for_each(zero, n, i64::from(self.cut.block.max(1)), |e, first_col| {
            let columns = self.block_columns(e, first_col, n);
            let sums = self.sums(e);
            for (Sum { weight, row, .. }, sums) in self.part.sums.iter().zip(&sums) {
                let output = e.ins().iadd_imm_s(first_col, i64::from(*row));
                let b = self.right(e, *weight, output)?;
                let (k, stride) = (e.int(i64::from(self.k)), e.int(i64::from(self.cut.stride)));
                let c = Matrix { address: *sums, stride };
                Matmul { m: self.rows.1, n: columns.count, k, a: self.a, b, c }.call(e);
            }
            let first = (self.part.n != self.cut.block).then_some(first_col);
            let zero = e.int(0);
            e.for_each(zero, self.rows.1, 1, |e, idx| self.epilogue(e, &sums, idx, (first, columns)))
        })
    }

    /// Dot products, row by row: the library would make a whole tile of columns for them, and add in another order for
    /// another number of rows.
    fn narrow(&self, e: &mut Emitter<'_>) -> Result<(), Fault> {
        let mut weights = Vec::new();
        for Sum { weight, row, .. } in &self.part.sums {
            for col in 0..self.part.n {
                let row = e.int(i64::from(*row) + i64::from(col));
                weights.push(e.dense_row(*weight, row)?);
            }
        }
        let sums = self.sums(e);
        let (inner, zero) = (e.columns(self.k), e.int(0));
        e.for_each(zero, self.rows.1, 1, |e, idx| {
            let offset = e.ins().imul(idx, self.a.stride);
            let x = Row { address: e.element(self.a.address, offset, 4), dtype: DType::F32 };
            let dots = dot_products(e, inner, x, &weights)?;
            for (dots, sums) in dots.chunks(self.part.n.max(1) as usize).zip(&sums) {
                let to = Row { address: self.row_of(e, *sums, idx), dtype: DType::F32 };
                for (col, dot) in dots.iter().enumerate() {
                    let col = e.int(col as i64);
                    e.store(to, col, *dot, Lanes::One);
                }
            }
            let columns = e.columns(self.part.n);
            self.epilogue(e, &sums, idx, (None, columns))
        })
    }

    /// A weight from an output on.
    fn right(&self, e: &mut Emitter<'_>, weight: Slot, output: Value) -> Result<Right, Fault> {
        let one = e.int(1);
        match self.part.layout {
            WeightLayout::Rows => {
                let address = e.dense_row(weight, output)?.address;
                Ok(Right { address, outer: e.int(i64::from(self.k)), inner: one })
            }
            WeightLayout::Panels | WeightLayout::Levels => {
                Err(Fault::Unsupported("weights in panels".to_owned()))
            }
            WeightLayout::Swizzled => Err(Fault::Unsupported("swizzled weights".to_owned())),
            WeightLayout::Columns => {
                let base = e.only_row(weight)?.address;
                let inner = e.int(i64::from(e.param(weight)?.cols));
                Ok(Right { address: e.element(base, output, 4), outer: one, inner })
            }
        }
    }

    /// Address of each sum's first row.
    fn sums(&self, e: &mut Emitter<'_>) -> Vec<Value> {
        let scratch = e.scratch;
        self.cut.sums.iter().map(|at| e.ins().iadd_imm_s(scratch, *at as i64)).collect()
    }

    fn row_of(&self, e: &mut Emitter<'_>, sums: Value, idx: Value) -> Value {
        let offset = e.ins().imul_imm_s(idx, i64::from(self.cut.stride) * 4);
        e.ins().iadd(sums, offset)
    }

    fn block_columns(&self, e: &mut Emitter<'_>, first_col: Value, n: Value) -> Columns {
        if self.part.n == self.cut.block {
            return e.columns(self.part.n);
        }
        let left = e.ins().isub(n, first_col);
        let limit = e.int(i64::from(self.cut.block));
        Columns { count: e.ins().umin(left, limit), whole: self.part.n.is_multiple_of(4), few: None }
    }

    /// Runs the epilogue over a row of the sums.
    fn epilogue(
        &self,
        e: &mut Emitter<'_>,
        sums: &[Value],
        idx: Value,
        (first, columns): (Option<Value>, Columns),
    ) -> Result<(), Fault> {
        let row = e.ins().iadd(self.rows.0, idx);
        let sums: Vec<Value> = sums.iter().map(|sums| self.row_of(e, *sums, idx)).collect();
        let scratch = e.scratch;
        let functions = self.cut.functions.iter();
        let functions: Vec<Value> = functions.map(|at| e.ins().iadd_imm_s(scratch, *at as i64)).collect();
        e.pointwise(&self.part.epilogue, &RowSpan { row, first, columns, sums: &sums, functions: &functions })
    }
}

fn aligned(bytes: u64) -> u64 {
    bytes.next_multiple_of(64)
}
