//! Matmuls in register tiles, of which matmuls and attention are made.
//!
//! A tile's sums stay in vector registers from the first factor to the last, so that the order of each sum depends on
//! its length alone, whatever the tiles of a call. Each shape of operands has one function in a module.

use inkwell::AddressSpace;
use inkwell::IntPredicate;
use inkwell::module::Linkage;
use inkwell::values::FunctionValue;
use skipc_artifact::target::DType;
use skipc_plan::kernel::BLOCK_TERMS;

use super::code::{Code, Int, Lanes, Made, Ptr};
use super::frame::Row;
use super::level::{Level, PANEL, TILE_VECTORS};

/// How the factors of a matmul lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Factors {
    /// Both are f32.
    Single,
    /// The left ones are f32; of the right ones two neighbours of bf16 share a word. An odd last one has a zero beside it on
    /// both sides.
    Pairs,
    /// The same, but the left ones are bf16, too, and the processor takes two products at once.
    Dots,
    /// The left ones are f32; the right ones are whole numbers of 8 bits, those of a column 32 bytes apart. The products of each
    /// [`BLOCK_TERMS`] of them are summed, and the sum is multiplied with the scale of their block. Behind the last factor
    /// of a sum stand zeros on both sides.
    Levels,
}

impl Factors {
    /// Factors of a sum that a step takes.
    pub(crate) fn of_step(self) -> u32 {
        match self {
            Factors::Single => 1,
            Factors::Pairs | Factors::Dots => 2,
            Factors::Levels => 4,
        }
    }

    /// Rows of a register tile.
    pub(crate) fn tile_rows(self, level: &Level) -> u32 {
        if self == Factors::Levels { level.block_tile_rows } else { level.tile_rows }
    }
}

/// Steps by which the right operand is asked for before it is used, since it comes from the second-level cache: 2 KiB of a panel.
/// On an EPYC with AVX2 matmuls of 512 and 2,048 factors take 2 to 3 % less time for it; 32 steps give the same.
const AHEAD: u64 = 16;

/// Steps of a block of [`Factors::Levels`].
const BLOCK_STEPS: u32 = BLOCK_TERMS / 4;

/// `c[i, j] = Σ a[i, l] · b[l, j]`, a register tile at a time; distances are in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matmul {
    pub(crate) factors: Factors,
    /// Between rows of the left operand.
    pub(crate) a_row: u64,
    /// Between what one step takes of one row and what the next does.
    pub(crate) a_step: u64,
    /// Between what the right operand has for one step, its columns adjacent, and for the next.
    pub(crate) b_step: u64,
    /// Between rows of the result, whose columns are adjacent.
    pub(crate) c_row: u64,
    /// Whether the products are added to what the result has.
    pub(crate) adds: bool,
}

/// Operands of a matmul.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'c> {
    /// Rows of the result, at most those of a register tile.
    pub(crate) rows: Int<'c>,
    /// Columns of the result; it has room for whole panels, and so has `b`.
    pub(crate) cols: Int<'c>,
    /// Terms of a sum, or pairs of them.
    pub(crate) steps: Int<'c>,
    pub(crate) a: Ptr<'c>,
    pub(crate) b: Ptr<'c>,
    /// The scales of [`Factors::Levels`]: two of bf16 for each column in a word, those of neighbouring blocks. Others have none.
    pub(crate) scales: Option<Ptr<'c>>,
    pub(crate) c: Ptr<'c>,
}

impl Matmul {
    /// Emits a call.
    pub(crate) fn call<'c>(&self, code: &Code<'c>, operands: Operands<'c>) -> Made<()> {
        let function = match code.module.get_function(&self.name()) {
            Some(function) => function,
            None => self.define(code)?,
        };
        let Operands { rows, cols, steps, a, b, scales, c } = operands;
        let scales = scales.unwrap_or_else(|| code.ctx.ptr_type(AddressSpace::default()).const_null());
        let args = [rows.into(), cols.into(), steps.into(), a.into(), b.into(), scales.into(), c.into()];
        code.builder.build_call(function, &args, "")?;
        Ok(())
    }

    /// Kernels have lower-case names, so that none is called like this.
    fn name(&self) -> String {
        let Matmul { factors, a_row, a_step, b_step, c_row, adds } = self;
        let sign = if *adds { "Add" } else { "Set" };
        format!("{factors:?}{sign}_{a_row}_{a_step}_{b_step}_{c_row}")
    }

    fn define<'c>(&self, code: &Code<'c>) -> Made<FunctionValue<'c>> {
        let (index, pointer) = (code.ctx.i64_type(), code.ctx.ptr_type(AddressSpace::default()));
        let params = [[index.into(); 3].as_slice(), &[pointer.into(); 4]].concat();
        let signature = code.ctx.void_type().fn_type(&params, false);
        let function = code.module.add_function(&self.name(), signature, Some(Linkage::Internal));
        let body = Code::open(code.ctx, &code.module, function, code.level);
        let int = |idx: u32| function.get_nth_param(idx).map(|param| param.into_int_value());
        let ptr = |idx: u32| function.get_nth_param(idx).map(|param| param.into_pointer_value());
        if let (Some(rows), Some(cols), Some(steps), Some(a), Some(b), scales, Some(c)) =
            (int(0), int(1), int(2), ptr(3), ptr(4), ptr(5), ptr(6))
        {
            self.body(&body, Operands { rows, cols, steps, a, b, scales, c })?;
        }
        body.builder.build_return(None)?;
        Ok(function)
    }

    fn body<'c>(&self, code: &Code<'c>, operands: Operands<'c>) -> Made<()> {
        let tile_rows = self.factors.tile_rows(&code.level);
        let is_whole = code.equal(operands.rows, code.int(i64::from(tile_rows)))?;
        let none = || Vec::<Int<'c>>::new();
        code.branch(
            is_whole,
            || self.row_of_tiles(code, operands, tile_rows).map(|()| none()),
            || self.some_rows(code, operands).map(|()| none()),
        )?;
        Ok(())
    }

    /// All columns, of exactly so many rows.
    fn row_of_tiles<'c>(&self, code: &Code<'c>, operands: Operands<'c>, rows: u32) -> Made<()> {
        let vectors = self.tile_vectors(&code.level, rows);
        let of_column = if self.factors == Factors::Levels { 1 } else { 4 };
        code.for_each(code.int(0), operands.cols, vectors * code.level.lanes, |col| {
            let at = Operands {
                b: code.element(operands.b, col, of_column)?,
                scales: operands.scales.map(|scales| code.element(scales, col, 4)).transpose()?,
                c: code.element(operands.c, col, 4)?,
                ..operands
            };
            self.tile(code, at, (rows, vectors))
        })
    }

    /// Registers that a step has for each vector of the right operand.
    fn right_vectors(&self) -> u32 {
        match self.factors {
            Factors::Single | Factors::Dots => 1,
            Factors::Pairs => 2,
            // They are widened one after the other.
            Factors::Levels => 0,
        }
    }

    /// Vectors side by side in a tile of so many rows: as many as the registers hold, up to a panel. One sum waits for itself
    /// from product to product, so that few rows need more columns to keep the processor busy.
    fn tile_vectors(&self, level: &Level, rows: u32) -> u32 {
        // What a whole tile leaves for the right operand, one of more vectors needs beside its sums.
        let registers = (self.factors.tile_rows(level) + self.right_vectors()) * TILE_VECTORS;
        let most = 1 << (registers / (rows + self.right_vectors())).ilog2();
        most.clamp(TILE_VECTORS, PANEL / level.lanes)
    }

    /// Fewer rows than a tile has: one of half as many if there are so many, and one of exactly the rest, so that the right
    /// operand comes from memory once for few rows.
    fn some_rows<'c>(&self, code: &Code<'c>, at: Operands<'c>) -> Made<()> {
        let half = 1 << (self.factors.tile_rows(&code.level) - 1).ilog2();
        let has_half = code.and(at.rows, code.int(half))?;
        let is_half = code.is(IntPredicate::NE, has_half, code.int(0))?;
        code.when(is_half, || self.row_of_tiles(code, at, half as u32))?;
        let a = code.offset(at.a, code.times(has_half, self.a_row)?)?;
        let c = code.offset(at.c, code.times(has_half, self.c_row)?)?;
        let rest = code.and(at.rows, code.int(half - 1))?;
        (1..half).try_for_each(|rows| {
            let is_so_many = code.equal(rest, code.int(rows))?;
            code.when(is_so_many, || self.row_of_tiles(code, Operands { a, c, ..at }, rows as u32))
        })
    }

    /// A tile of exactly so many rows and vectors side by side.
    fn tile<'c>(&self, code: &Code<'c>, at: Operands<'c>, (rows, vectors): (u32, u32)) -> Made<()> {
        let lanes = code.level.lanes;
        let sum_at = |row: u32, vector: u32| {
            let bytes = u64::from(row) * self.c_row + u64::from(vector * lanes * 4);
            f32_at(code, at.c, bytes)
        };
        let places: Vec<(u32, u32)> =
            (0..rows).flat_map(|row| (0..vectors).map(move |vector| (row, vector))).collect();
        let mut sums: Vec<Lanes<'c>> = Vec::with_capacity(places.len());
        for (row, vector) in &places {
            sums.push(match self.adds {
                true => code.load(sum_at(*row, *vector)?, code.int(0), lanes)?,
                false => code.real(0.0, lanes),
            });
        }
        let sums = match (self.factors, at.scales) {
            (Factors::Levels, Some(scales)) => self.blocks(code, (at, scales), rows, &sums)?,
            _ => self.steps(code, at, rows, (code.int(0), at.steps), &sums)?,
        };
        for ((row, vector), sum) in places.iter().zip(sums) {
            code.store(sum_at(*row, *vector)?, code.int(0), sum)?;
        }
        Ok(())
    }

    /// Adds the products of some steps to the sums of a tile.
    fn steps<'c>(
        &self,
        code: &Code<'c>,
        at: Operands<'c>,
        rows: u32,
        (first, end): (Int<'c>, Int<'c>),
        sums: &[Lanes<'c>],
    ) -> Made<Vec<Lanes<'c>>> {
        let (lanes, vectors) = (code.level.lanes, sums.len() as u32 / rows);
        code.fold(first, end, 1, sums, |step, sums| {
            let a = code.offset(at.a, code.times(step, self.a_step)?)?;
            let b = code.offset(at.b, code.times(step, self.b_step)?)?;
            let mut right = Vec::new();
            for vector in 0..vectors {
                right.push(self.right(code, b, vector * lanes)?);
            }
            // A whole tile is bound by its products; one of few rows by memory, which the processor reads ahead by itself.
            if rows == self.factors.tile_rows(&code.level) {
                code.prefetch(code.offset(b, code.int((AHEAD * self.b_step) as i64))?)?;
            }
            let mut next = Vec::with_capacity(sums.len());
            for (row, sums) in (0..u64::from(rows)).zip(sums.chunks(right.len())) {
                let left = self.left(code, a, row * self.a_row)?;
                for (right, sum) in right.iter().zip(sums) {
                    next.push(self.step(code, &left, right, *sum)?);
                }
            }
            Ok(next)
        })
    }

    /// Adds the sums of blocks, each times its scale.
    fn blocks<'c>(
        &self,
        code: &Code<'c>,
        (at, scales): (Operands<'c>, Ptr<'c>),
        rows: u32,
        sums: &[Lanes<'c>],
    ) -> Made<Vec<Lanes<'c>>> {
        let (lanes, vectors) = (code.level.lanes, sums.len() as u32 / rows);
        code.fold(code.int(0), at.steps, BLOCK_STEPS, sums, |first, sums| {
            let end = code.min(code.plus(first, i64::from(BLOCK_STEPS))?, at.steps)?;
            let zeros = vec![code.real(0.0, lanes); sums.len()];
            let of_block = self.steps(code, at, rows, (first, end), &zeros)?;
            // Scales of two blocks share a word; that of the first one has to move to the upper half.
            let row = code.offset(
                scales,
                code.times(code.shr(first, (2 * BLOCK_STEPS).ilog2().into())?, self.b_step)?,
            )?;
            let is_second = code.and(first, code.int(i64::from(BLOCK_STEPS)))?;
            let shift = code.sub(code.int(16), code.times(is_second, u64::from(16 / BLOCK_STEPS))?)?;
            let shift = code.splat_word(shift)?;
            let scale = |vector: u32| {
                let words = f32_at(code, row, u64::from(vector * lanes * 4))?;
                let moved = code.builder.build_left_shift(
                    code.bits(code.load(words, code.int(0), lanes)?)?,
                    shift,
                    "",
                )?;
                code.of_bits(code.builder.build_and(moved, code.word(0xffff_0000, lanes), "")?)
            };
            let scales = (0..vectors).map(scale).collect::<Made<Vec<_>>>()?;
            let sums = sums.iter().zip(of_block).zip(scales.iter().cycle());
            sums.map(|((sum, of_block), scale)| code.mul_add(of_block, *scale, *sum)).collect()
        })
    }

    /// What a step takes of a row, in every lane.
    fn left<'c>(&self, code: &Code<'c>, a: Ptr<'c>, bytes: u64) -> Made<Vec<Lanes<'c>>> {
        let elements = match self.factors {
            Factors::Single | Factors::Dots => 1,
            Factors::Pairs | Factors::Levels => u64::from(self.factors.of_step()),
        };
        let one = |idx: u64| {
            let element = code.load(f32_at(code, a, bytes + idx * 4)?, code.int(0), 1)?;
            code.splat(element, code.level.lanes)
        };
        (0..elements).map(one).collect()
    }

    /// What a step takes of a vector of neighbouring columns, from `col` on.
    fn right<'c>(&self, code: &Code<'c>, b: Ptr<'c>, col: u32) -> Made<Vec<Lanes<'c>>> {
        let lanes = code.level.lanes;
        let words = || code.load(f32_at(code, b, u64::from(col * 4))?, code.int(0), lanes);
        match self.factors {
            Factors::Single | Factors::Dots => Ok(vec![words()?]),
            Factors::Pairs => {
                let bits = code.bits(words()?)?;
                let first = code.builder.build_left_shift(bits, code.word(16, lanes), "")?;
                let second = code.builder.build_and(bits, code.word(0xffff_0000, lanes), "")?;
                Ok(vec![code.of_bits(first)?, code.of_bits(second)?])
            }
            Factors::Levels => {
                let level = |factor: u32| {
                    let at = code.offset(b, code.int(i64::from(factor * PANEL + col)))?;
                    code.signed(code.load_bytes(at, lanes)?)
                };
                (0..self.factors.of_step()).map(level).collect()
            }
        }
    }

    fn step<'c>(
        &self,
        code: &Code<'c>,
        left: &[Lanes<'c>],
        right: &[Lanes<'c>],
        sum: Lanes<'c>,
    ) -> Made<Lanes<'c>> {
        left.iter().zip(right).try_fold(sum, |sum, (left, right)| match self.factors {
            Factors::Single | Factors::Pairs | Factors::Levels => code.mul_add(*left, *right, sum),
            Factors::Dots => code.dot_pairs(*left, *right, sum),
        })
    }
}

fn f32_at<'c>(code: &Code<'c>, base: Ptr<'c>, bytes: u64) -> Made<Row<'c>> {
    Ok(Row { address: code.offset(base, code.int(bytes as i64))?, dtype: DType::F32 })
}
