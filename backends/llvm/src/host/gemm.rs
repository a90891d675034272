//! Matmuls. Rows of the left operand, gathered and converted where need be, times panels of weights, a register tile
//! at a time into a small buffer, on which the epilogue runs while it is in the first-level cache.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{
    BLOCK_TERMS, Gemm, Grouped, Kernel, Part, Rows, Shift, Slot, Sum, WeightLayout, panel_terms,
};

use super::code::{Columns, Int, Made, Ptr};
use super::fault::Fault;
use super::frame::{Frame, Row, Share};
use super::level::{Level, PANEL};
use super::matmul::{Factors, Matmul, Operands};
use super::pointwise::{RowSpan, heads_width};

/// Rows of the left operand that are at hand at once: with the usual inner sizes they stay in the second-level cache.
/// Whole register tiles of the widest vectors.
const CHUNK_ROWS: u32 = 252;

/// Columns of the buffer of sums, if heads need not be longer: few enough that it stays in the first-level cache, many
/// enough that an epilogue pays for finding its rows.
const BLOCK_COLS: u32 = 128;

/// Bytes between rows of the left operand in scratch memory, besides what they hold.
const GAP: u64 = 64;

/// Rows a multiple of so many bytes apart all compete for the same places in a first-level cache, so that it pays to copy
/// them.
const PAGE: u64 = 4096;

/// Where things lie in scratch memory, in bytes.
struct Plan {
    /// Type of the left operand as matmuls take it.
    a_type: DType,
    /// Bytes between its rows.
    a_row: u64,
    /// Whether these are copied to the start of the scratch memory.
    copies_a: bool,
    /// Factors of a step: what a copied row has is filled up to a multiple of them.
    terms: u32,
    /// How each part is cut.
    cuts: Vec<Cut>,
    /// Bytes of all.
    bytes: u64,
}

/// How the columns of a part are cut, and where its operands lie.
struct Cut {
    /// Columns of the buffer of sums.
    block: u32,
    /// First byte of each buffer.
    sums: Vec<u64>,
    /// First byte of each weight's panels, where they are made by the kernel.
    panels: Vec<u64>,
}

impl Plan {
    fn new(kernel: &Kernel, gemm: &Gemm, level: &Level) -> Made<Plan> {
        let missing = || Fault::Malformed("the left operand is missing".to_owned());
        let a = kernel.params.get(gemm.a.slot.0 as usize).ok_or_else(missing)?;
        let mut wide = gemm.parts.iter().filter(|part| !part.takes_dots());
        let takes_pairs = level.has_dots && wide.all(|part| part.layout == WeightLayout::Panels);
        let a_type = if takes_pairs { a.dtype } else { DType::F32 };
        let has_levels = gemm.parts.iter().any(|part| part.layout == WeightLayout::Levels);
        let terms = if has_levels { Factors::Levels.of_step() } else { 4 / a.dtype.size() };
        // A step of which a factor is not there has to be filled up.
        let is_whole = gemm.k.is_multiple_of(terms);
        let in_place = u64::from(a.cols) * u64::from(a_type.size());
        let copies_a = a.dtype != a_type
            || gemm.a.rows != Rows::Dense
            || writes_left(gemm)
            || !is_whole
            || in_place.is_multiple_of(PAGE);
        let a_row = match copies_a {
            true => (u64::from(gemm.k) * u64::from(a_type.size())).next_multiple_of(GAP) + GAP,
            false => in_place,
        };
        let start = if copies_a { u64::from(CHUNK_ROWS) * a_row } else { 0 };
        let (mut cuts, mut bytes) = (Vec::new(), start);
        // Parts take turns, so that all of them use the same memory.
        for part in &gemm.parts {
            let (cut, end) = Cut::new(part, gemm.k, level, start)?;
            bytes = bytes.max(end);
            cuts.push(cut);
        }
        Ok(Plan { a_type, a_row, copies_a, terms, cuts, bytes })
    }
}

impl Cut {
    /// The cut, and where its memory ends if it begins at `start`.
    fn new(part: &Part, k: u32, level: &Level, start: u64) -> Made<(Cut, u64)> {
        let block = block_cols(part)?;
        let mut bytes = start;
        let mut take = |elements: u64| -> Made<u64> {
            let at = bytes;
            bytes = elements.checked_mul(4).and_then(|size| at.checked_add(size)).ok_or_else(too_large)?;
            Ok(at)
        };
        let (mut sums, mut panels) = (Vec::new(), Vec::new());
        for _ in &part.sums {
            sums.push(take(u64::from(level.tile_rows) * u64::from(block))?);
        }
        if !part.takes_dots() && !is_in_panels(part.layout) {
            for _ in &part.sums {
                panels.push(take(u64::from(k) * u64::from(block))?);
            }
        }
        Ok((Cut { block, sums, panels }, bytes))
    }
}

/// Columns of the buffer of sums of a part: whole heads, whole panels.
fn block_cols(part: &Part) -> Made<u32> {
    let unit = match heads_width(&part.epilogue) {
        Some(width) => least_common_multiple(PANEL, width).ok_or_else(too_large)?,
        None => PANEL,
    };
    let whole = part.n.checked_next_multiple_of(PANEL).ok_or_else(too_large)?;
    Ok(whole.min((BLOCK_COLS / unit).max(1) * unit).next_multiple_of(PANEL))
}

/// Blocks of columns of a part; one of all its columns where they are few.
fn blocks_of(part: &Part) -> Made<u32> {
    if part.takes_dots() { Ok(1) } else { Ok(part.n.div_ceil(block_cols(part)?)) }
}

/// Blocks of columns of all parts, which calls may share out.
pub(crate) fn blocks(gemm: &Gemm) -> Made<u32> {
    let mut blocks = 0u32;
    for part in &gemm.parts {
        blocks = blocks.checked_add(blocks_of(part)?).ok_or_else(too_large)?;
    }
    Ok(blocks)
}

/// Whether a result is written over the left operand: whoever makes some of its columns takes rows from the others.
pub(crate) fn writes_left(gemm: &Gemm) -> bool {
    let mut stores = gemm.parts.iter().flat_map(|part| &part.epilogue.stores);
    stores.any(|store| store.to.slot == gemm.a.slot)
}

fn too_large() -> Fault {
    Fault::Unsupported("its scratch memory exceeds the address space".to_owned())
}

fn least_common_multiple(a: u32, b: u32) -> Option<u32> {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a.checked_div(x)?.checked_mul(b)
}

/// Whether register tiles take a weight as it lies.
fn is_in_panels(layout: WeightLayout) -> bool {
    matches!(layout, WeightLayout::Panels | WeightLayout::Levels)
}

/// Bytes of scratch memory that a call needs.
pub(crate) fn scratch_bytes(kernel: &Kernel, gemm: &Gemm, level: &Level) -> Made<u64> {
    Ok(Plan::new(kernel, gemm, level)?.bytes)
}

/// Emits the work on a range of rows and of blocks of columns.
pub(crate) fn emit<'c>(f: &Frame<'_, 'c>, gemm: &Gemm, share: Share<'c>) -> Made<()> {
    let Share { rows, across } = share;
    let plan = Plan::new(f.kernel, gemm, &f.level)?;
    f.for_each(rows.0, rows.1, CHUNK_ROWS, |first_row| {
        let left = f.sub(rows.1, first_row)?;
        let n_rows = f.min(left, f.int(i64::from(CHUNK_ROWS)))?;
        let a = match plan.copies_a {
            true => copy_rows(f, gemm, &plan, (first_row, n_rows))?,
            false => f.row_address(gemm.a, first_row)?,
        };
        let mut before = 0;
        for (part, cut) in gemm.parts.iter().zip(&plan.cuts) {
            let (rows, count) = ((first_row, n_rows), blocks_of(part)?);
            let within =
                |block| f.min(f.sub(f.max(block, f.int(before))?, f.int(before))?, f.int(i64::from(count)));
            let blocks = (within(across.0)?, within(across.1)?);
            before += i64::from(count);
            let work =
                Work { f, k: gemm.k, part, cut, a, a_type: plan.a_type, a_row: plan.a_row, rows, blocks };
            if part.takes_dots() { work.dots()? } else { work.wide()? }
        }
        Ok(())
    })
}

/// Emits the work on a range of rows of segments, each with constants of its own, and of blocks of columns.
pub(crate) fn emit_grouped<'c>(f: &Frame<'_, 'c>, grouped: &Grouped, share: Share<'c>) -> Made<()> {
    let ends = f.pointer(grouped.ends, DType::U32)?;
    let segments = f.int(i64::from(grouped.segments));
    f.fold(f.int(0), segments, 1, &[f.int(0)], |segment, begin| {
        let end = f.load_word(f.element(ends, segment, 4)?)?;
        let mut args = f.args.clone();
        for Shift { slot, rows } in &grouped.shifts {
            let param = f.param(*slot)?;
            let bytes = u64::from(*rows) * u64::from(param.cols) * u64::from(param.dtype.size());
            let arg = &mut args[slot.0 as usize];
            *arg = f.offset(*arg, f.times(segment, bytes)?)?;
        }
        let rows = (f.max(begin[0], share.rows.0)?, f.min(end, share.rows.1)?);
        emit(&f.with_args(args), &grouped.gemm, Share { rows, ..share })?;
        Ok(vec![end])
    })?;
    Ok(())
}

/// Copies rows of the left operand to the start of the scratch memory, in the type that matmuls take; the last step is filled
/// up with zeros.
fn copy_rows<'c>(f: &Frame<'_, 'c>, gemm: &Gemm, plan: &Plan, rows: (Int<'c>, Int<'c>)) -> Made<Ptr<'c>> {
    f.for_each(f.int(0), rows.1, 1, |idx| {
        let from = f.row(gemm.a, f.add(rows.0, idx)?)?;
        let address = f.offset(f.scratch, f.times(idx, plan.a_row)?)?;
        let to = Row { address, dtype: plan.a_type };
        f.copy_row(from, to, gemm.k)?;
        let mut missing = gemm.k..gemm.k.next_multiple_of(plan.terms);
        missing.try_for_each(|col| f.store(to, f.int(i64::from(col)), f.real(0.0, 1)))
    })?;
    Ok(f.scratch)
}

/// A part over a chunk of rows.
struct Work<'w, 'a, 'c> {
    f: &'w Frame<'a, 'c>,
    k: u32,
    part: &'w Part,
    cut: &'w Cut,
    /// The first of the rows of the left operand.
    a: Ptr<'c>,
    /// Their type.
    a_type: DType,
    /// Bytes between them.
    a_row: u64,
    /// The first row, and how many.
    rows: (Int<'c>, Int<'c>),
    /// The first block of columns, and the one after the last.
    blocks: (Int<'c>, Int<'c>),
}

impl<'c> Work<'_, '_, 'c> {
    /// Register tiles, block by block of columns.
    fn wide(&self) -> Made<()> {
        let (f, n, block) = (self.f, self.part.n, self.cut.block);
        let (zero, n_cols) = (f.int(0), f.int(i64::from(n)));
        f.for_each(self.blocks.0, self.blocks.1, 1, |number| {
            let first_col = f.times(number, u64::from(block))?;
            let columns = match n <= block {
                true => f.columns(n),
                false => {
                    let count = f.min(f.sub(n_cols, first_col)?, f.int(i64::from(block)))?;
                    Columns { count, exact: None, unit: greatest_power(n, block) }
                }
            };
            let mut weights = Vec::new();
            for (idx, sum) in self.part.sums.iter().enumerate() {
                weights.push(match self.cut.panels.get(idx) {
                    Some(panels) => self.pack(*sum, f.scratch_at(*panels)?, first_col, columns)?,
                    None => self.panels((sum.weight, sum.row), self.k, first_col)?,
                });
            }
            let of_scales = self.part.sums.iter().map(|sum| self.scales(*sum, first_col));
            let of_scales = of_scales.collect::<Made<Vec<_>>>()?;
            let (matmul, steps) = self.tile_matmul()?;
            let scale_bytes = u64::from(scale_steps(self.k)) * 4;
            let sums = self.buffers()?;
            let tile_rows = matmul.factors.tile_rows(&f.level);
            f.for_each(zero, self.rows.1, tile_rows, |idx| {
                let left = f.sub(self.rows.1, idx)?;
                let rows = f.min(left, f.int(i64::from(tile_rows)))?;
                let a = f.offset(self.a, f.times(idx, self.a_row)?)?;
                f.for_each(zero, columns.count, PANEL, |col| {
                    let cols = f.min(f.sub(columns.count, col)?, f.int(i64::from(PANEL)))?;
                    for ((b, scales), c) in weights.iter().zip(&of_scales).zip(&sums) {
                        let b = f.offset(*b, f.times(col, u64::from(steps) * 4)?)?;
                        let scales = scales.map(|scales| f.offset(scales, f.times(col, scale_bytes)?));
                        let c = f.element(*c, col, 4)?;
                        let (steps, scales) = (f.int(i64::from(steps)), scales.transpose()?);
                        matmul.call(f, Operands { rows, cols, steps, a, b, scales, c })?;
                    }
                    Ok(())
                })?;
                f.for_each(zero, rows, 1, |within| {
                    let row = f.add(self.rows.0, f.add(idx, within)?)?;
                    self.epilogue(&sums, (row, within), (first_col, columns))
                })
            })
        })
    }

    /// The matmul of a register tile, and its steps.
    fn tile_matmul(&self) -> Made<(Matmul, u32)> {
        let weight = self.part.sums.first().map_or(Ok(DType::F32), |sum| self.f.dtype_of(sum.weight))?;
        let factors = match (self.part.layout, weight, self.a_type) {
            (WeightLayout::Levels, ..) => Factors::Levels,
            (WeightLayout::Panels, DType::Bf16, DType::Bf16) => Factors::Dots,
            (WeightLayout::Panels, DType::Bf16, _) => Factors::Pairs,
            _ => Factors::Single,
        };
        let steps = self.k.div_ceil(factors.of_step());
        let a_step = u64::from(factors.of_step()) * if factors == Factors::Dots { 2 } else { 4 };
        let (b_step, c_row) = (u64::from(PANEL) * 4, u64::from(self.cut.block) * 4);
        Ok((Matmul { factors, a_row: self.a_row, a_step, b_step, c_row, adds: false }, steps))
    }

    /// Matmuls of a row with a few weights, side by side.
    fn dots(&self) -> Made<()> {
        let f = self.f;
        f.when(f.below(self.blocks.0, self.blocks.1)?, || self.all_dots())
    }

    fn all_dots(&self) -> Made<()> {
        let f = self.f;
        let mut weights = Vec::new();
        for Sum { weight, row, .. } in &self.part.sums {
            for col in 0..self.part.n {
                weights.push(f.dense_row(*weight, f.int(i64::from(*row) + i64::from(col)))?);
            }
        }
        let sums = self.buffers()?;
        f.for_each(f.int(0), self.rows.1, 1, |idx| {
            let address = f.offset(self.a, f.times(idx, self.a_row)?)?;
            let x = Row { address, dtype: self.a_type };
            let dots = f.sum_columns(f.columns(self.k), weights.len(), |col, lanes| {
                let value = f.load(x, col, lanes)?;
                weights.iter().map(|weight| f.fmul(value, f.load(*weight, col, lanes)?)).collect()
            })?;
            for (dots, sums) in dots.chunks(self.part.n.max(1) as usize).zip(&sums) {
                for (col, dot) in dots.iter().enumerate() {
                    f.store(Row { address: *sums, dtype: DType::F32 }, f.int(col as i64), *dot)?;
                }
            }
            let row = f.add(self.rows.0, idx)?;
            self.epilogue(&sums, (row, f.int(0)), (f.int(0), f.columns(self.part.n)))
        })
    }

    /// The panels of a matrix of `k` factors from a block of columns on, as they lie in memory. `row` is the output that is the
    /// first column.
    fn panels(&self, (slot, row): (Slot, u32), k: u32, first_col: Int<'c>) -> Made<Ptr<'c>> {
        let (f, first) = (self.f, self.f.plus(first_col, i64::from(row))?);
        let steps = k.div_ceil(panel_terms(f.dtype_of(slot)?));
        f.offset(f.args[slot.0 as usize], f.times(first, u64::from(steps) * 4)?)
    }

    /// The same of the scales of a weight, if it has them.
    fn scales(&self, sum: Sum, first_col: Int<'c>) -> Made<Option<Ptr<'c>>> {
        let panels = |scales| self.panels((scales, sum.row), self.k.div_ceil(BLOCK_TERMS), first_col);
        sum.scales.map(panels).transpose()
    }

    /// Writes the panels of a block of columns, the factors of [`PANEL`] columns one after the other for each term.
    /// What is past the last column keeps what was there: nobody uses its sums.
    fn pack(&self, sum: Sum, to: Ptr<'c>, first_col: Int<'c>, columns: Columns<'c>) -> Made<Ptr<'c>> {
        let f = self.f;
        let (zero, k) = (f.int(0), f.int(i64::from(self.k)));
        let output = f.plus(first_col, i64::from(sum.row))?;
        let f32_row = |address| Row { address, dtype: DType::F32 };
        match self.part.layout {
            WeightLayout::Columns => f.for_each(zero, columns.count, PANEL, |col| {
                let panel = f.offset(to, f.times(col, u64::from(self.k) * 4)?)?;
                let count = f.min(f.sub(columns.count, col)?, f.int(i64::from(PANEL)))?;
                let first = f.add(output, col)?;
                let columns = Columns { count, exact: None, unit: columns.unit.min(PANEL) };
                f.for_each(zero, k, 1, |term| {
                    let from = f.dense_row(sum.weight, term)?;
                    let to = f32_row(f.offset(panel, f.times(term, u64::from(PANEL) * 4)?)?);
                    f.for_columns(columns, f.level.lanes, |col, lanes| {
                        f.store(to, col, f.load(from, f.add(first, col)?, lanes)?)
                    })
                })
            })?,
            WeightLayout::Rows => f.for_each(zero, columns.count, 1, |col| {
                let from = f.dense_row(sum.weight, f.add(output, col)?)?;
                let within = f.modulo(col, PANEL)?;
                let panel = f.offset(to, f.times(f.sub(col, within)?, u64::from(self.k) * 4)?)?;
                f.for_each(zero, k, 1, |term| {
                    let place = f.add(f.times(term, u64::from(PANEL))?, within)?;
                    f.store(f32_row(panel), place, f.load(from, term, 1)?)
                })
            })?,
            WeightLayout::Panels | WeightLayout::Levels => {
                return Err(Fault::Malformed("panels are not packed again".to_owned()));
            }
            WeightLayout::Swizzled => return Err(Fault::Unsupported("swizzled weights".to_owned())),
        }
        Ok(to)
    }

    /// Address of each sum's buffer.
    fn buffers(&self) -> Made<Vec<Ptr<'c>>> {
        self.cut.sums.iter().map(|at| self.f.scratch_at(*at)).collect()
    }

    /// Runs the epilogue over a row of the buffers.
    fn epilogue(
        &self,
        sums: &[Ptr<'c>],
        (row, within): (Int<'c>, Int<'c>),
        (first, columns): (Int<'c>, Columns<'c>),
    ) -> Made<()> {
        let f = self.f;
        let distance = f.times(within, u64::from(self.cut.block) * 4)?;
        let sums: Vec<Ptr<'c>> = sums.iter().map(|sums| f.offset(*sums, distance)).collect::<Made<_>>()?;
        f.pointwise(&self.part.epilogue, &RowSpan { row, first, columns, sums: &sums })
    }
}

/// Words of each column in a panel of scales.
fn scale_steps(k: u32) -> u32 {
    k.div_ceil(BLOCK_TERMS).div_ceil(panel_terms(DType::Bf16))
}

/// A power of two that divides both.
fn greatest_power(a: u32, b: u32) -> u32 {
    1 << (a | b).trailing_zeros()
}
