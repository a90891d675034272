//! A kernel's function: the ABI around its body, and its parameters as typed memory.

use std::ops::Deref;
use std::rc::Rc;

use inkwell::IntPredicate;
use inkwell::intrinsics::Intrinsic;
use inkwell::types::BasicTypeEnum;
use skipc_artifact::program::{Extent, FewRows};
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Kernel, Param, Rows, Slot, View};

use super::code::{Code, Int, Lanes, Made, Ptr, carried};
use super::fault::Fault;

/// A kernel's function under construction.
pub(crate) struct Frame<'a, 'c> {
    code: Rc<Code<'c>>,
    pub(crate) kernel: &'a Kernel,
    /// The pointer for each parameter.
    pub(crate) args: Vec<Ptr<'c>>,
    /// Range of row tiles.
    tiles: (Int<'c>, Int<'c>),
    /// Address of the scratch memory.
    pub(crate) scratch: Ptr<'c>,
}

/// What a call works on.
#[derive(Clone, Copy)]
pub(crate) struct Share<'c> {
    /// The first row, and the one after the last.
    pub(crate) rows: (Int<'c>, Int<'c>),
    /// The same of what lies side by side in each row: blocks of columns, heads.
    pub(crate) across: (Int<'c>, Int<'c>),
}

/// A row of f32 or bf16 elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'c> {
    /// Address of the first column.
    pub(crate) address: Ptr<'c>,
    /// How elements are stored.
    pub(crate) dtype: DType,
}

impl<'c> Deref for Frame<'_, 'c> {
    type Target = Code<'c>;

    fn deref(&self) -> &Code<'c> {
        &self.code
    }
}

impl<'a, 'c> Frame<'a, 'c> {
    /// Opens the function that `code` stands at the beginning of.
    pub(crate) fn new(code: Code<'c>, kernel: &'a Kernel) -> Made<Frame<'a, 'c>> {
        let params = code.function.get_params();
        let &[table, _, begin, end, scratch] = params.as_slice() else {
            return Err(Fault::Malformed("the function lacks the kernel ABI's parameters".to_owned()));
        };
        let (table, scratch) = (carried(table)?, carried(scratch)?);
        let mut args = Vec::with_capacity(kernel.params.len());
        for idx in 0..kernel.params.len() {
            let place = code.element(table, code.int(idx as i64), 8)?;
            args.push(carried(code.builder.build_load(code.pointer_type(), place, "")?)?);
        }
        let wide = |tile| -> Made<Int<'c>> {
            Ok(code.builder.build_int_z_extend(carried::<Int<'c>>(tile)?, code.ctx.i64_type(), "")?)
        };
        let tiles = (wide(begin)?, wide(end)?);
        Ok(Frame { code: Rc::new(code), kernel, args, tiles, scratch })
    }

    /// The same function with other pointers for its parameters.
    pub(crate) fn with_args(&self, args: Vec<Ptr<'c>>) -> Frame<'a, 'c> {
        let Frame { kernel, tiles, scratch, .. } = *self;
        Frame { code: Rc::clone(&self.code), kernel, args, tiles, scratch }
    }

    /// The rows of the call's tiles that lie in the extent.
    pub(crate) fn rows(&self, tile_rows: u32) -> Made<(Int<'c>, Int<'c>)> {
        let begin = self.times(self.tiles.0, u64::from(tile_rows))?;
        let end = self.times(self.tiles.1, u64::from(tile_rows))?;
        Ok((begin, self.min(end, self.extent(self.kernel.extent)?)?))
    }

    /// The call's share of the rows, or if they are few, of what lies side by side, `across` in number.
    pub(crate) fn share(&self, tile_rows: u32, across: u32, few: Option<FewRows>) -> Made<Share<'c>> {
        let (rows, none) = (self.rows(tile_rows)?, self.int(0));
        let all = self.int(i64::from(across));
        let Some(few) = few else { return Ok(Share { rows, across: (none, all) }) };
        let extent = self.extent(self.kernel.extent)?;
        let is_few = self.below(extent, self.int(i64::from(few.at_most) + 1))?;
        let pick = |then, otherwise| self.select(is_few, then, otherwise);
        Ok(Share {
            rows: (pick(none, rows.0)?, pick(extent, rows.1)?),
            across: (pick(self.tiles.0, none)?, pick(self.tiles.1, all)?),
        })
    }

    pub(crate) fn param(&self, slot: Slot) -> Made<&'a Param> {
        let missing = || Fault::Malformed(format!("parameter {} does not exist", slot.0));
        self.kernel.params.get(slot.0 as usize).ok_or_else(missing)
    }

    /// The pointer for a parameter of this type.
    pub(crate) fn pointer(&self, slot: Slot, dtype: DType) -> Made<Ptr<'c>> {
        let param = self.param(slot)?;
        if param.dtype != dtype {
            return Err(Fault::Malformed(format!("`{}` is {}, expected {dtype}", param.name, param.dtype)));
        }
        Ok(self.args[slot.0 as usize])
    }

    /// How many rows an extent has.
    pub(crate) fn extent(&self, extent: Extent) -> Made<Int<'c>> {
        match extent {
            Extent::Fixed(rows) => Ok(self.int(i64::from(rows))),
            Extent::Counted { count, at_most } => {
                let count = self.load_word(self.pointer(Slot(count), DType::U32)?)?;
                self.min(count, self.int(i64::from(at_most)))
            }
        }
    }

    /// The physical row of a logical one.
    pub(crate) fn physical(&self, rows: Rows, logical: Int<'c>) -> Made<Int<'c>> {
        match rows {
            Rows::Dense => Ok(logical),
            Rows::Listed(list) => {
                self.load_word(self.element(self.pointer(list, DType::U32)?, logical, 4)?)
            }
        }
    }

    /// Address of a row of any type, from the view's first column on.
    pub(crate) fn row_address(&self, view: View, logical: Int<'c>) -> Made<Ptr<'c>> {
        let param = self.param(view.slot)?;
        let size = u64::from(param.dtype.size());
        let row = self.physical(view.rows, logical)?;
        let bytes = self.times(row, u64::from(param.cols) * size)?;
        let first = self.offset(self.args[view.slot.0 as usize], bytes)?;
        self.offset(first, self.int((u64::from(view.col) * size) as i64))
    }

    /// A row of reals.
    pub(crate) fn row(&self, view: View, logical: Int<'c>) -> Made<Row<'c>> {
        let dtype = self.real_type_of(view.slot)?;
        Ok(Row { address: self.row_address(view, logical)?, dtype })
    }

    /// The row from a column on.
    pub(crate) fn at_column(&self, row: Row<'c>, col: Int<'c>) -> Made<Row<'c>> {
        Ok(Row { address: self.element(row.address, col, row.dtype.size())?, ..row })
    }

    /// A row of reals of a dense parameter.
    pub(crate) fn dense_row(&self, slot: Slot, row: Int<'c>) -> Made<Row<'c>> {
        self.row(View::dense(slot), row)
    }

    /// The only row of a vector.
    pub(crate) fn only_row(&self, slot: Slot) -> Made<Row<'c>> {
        let dtype = self.real_type_of(slot)?;
        Ok(Row { address: self.args[slot.0 as usize], dtype })
    }

    /// The type of a parameter.
    pub(crate) fn dtype_of(&self, slot: Slot) -> Made<DType> {
        Ok(self.param(slot)?.dtype)
    }

    /// The type of a parameter that holds reals.
    pub(crate) fn real_type_of(&self, slot: Slot) -> Made<DType> {
        let param = self.param(slot)?;
        match param.dtype {
            DType::F32 | DType::Bf16 => Ok(param.dtype),
            DType::U32 | DType::U8 | DType::I8 => {
                Err(Fault::Malformed(format!("`{}` is {}, expected reals", param.name, param.dtype)))
            }
        }
    }

    /// The `u32` of a row of one column, as an index.
    pub(crate) fn load_index(&self, view: View, logical: Int<'c>) -> Made<Int<'c>> {
        self.pointer(view.slot, DType::U32)?;
        self.load_word(self.row_address(view, logical)?)
    }

    /// The part of the scratch memory from this byte on.
    pub(crate) fn scratch_at(&self, byte: u64) -> Made<Ptr<'c>> {
        self.offset(self.scratch, self.int(byte as i64))
    }
}

/// Memory. It need not be aligned to more than an element, and no access can trap: all lie inside of buffers by the
/// plan's layout.
impl<'c> Code<'c> {
    /// Loads neighbouring signed bytes, each widened to a word.
    pub(crate) fn load_bytes(&self, address: Ptr<'c>, lanes: u32) -> Made<Lanes<'c>> {
        let bytes: Lanes<'c> = carried(self.load_as(self.ctx.i8_type().vec_type(lanes), address, 1)?)?;
        Ok(self.builder.build_int_s_extend(bytes, self.ctx.i32_type().vec_type(lanes), "")?)
    }

    /// Loads a value of a type, aligned to so many bytes.
    fn load_as(
        &self,
        ty: impl Into<BasicTypeEnum<'c>>,
        address: Ptr<'c>,
        align: u32,
    ) -> Made<inkwell::values::BasicValueEnum<'c>> {
        let value = self.builder.build_load(ty.into(), address, "")?;
        if let Some(load) = inkwell::values::BasicValue::as_instruction_value(&value) {
            load.set_alignment(align)?;
        }
        Ok(value)
    }

    fn store_as(
        &self,
        value: impl inkwell::values::BasicValue<'c>,
        address: Ptr<'c>,
        align: u32,
    ) -> Made<()> {
        self.builder.build_store(address, value)?.set_alignment(align)?;
        Ok(())
    }

    /// The `u32` at an address, as an index.
    pub(crate) fn load_word(&self, address: Ptr<'c>) -> Made<Int<'c>> {
        let word: Int<'c> = carried(self.load_as(self.ctx.i32_type(), address, 4)?)?;
        Ok(self.builder.build_int_z_extend(word, self.ctx.i64_type(), "")?)
    }

    /// Stores the low 32 bits of an index.
    pub(crate) fn store_word(&self, address: Ptr<'c>, value: Int<'c>) -> Made<()> {
        let word = self.builder.build_int_truncate(value, self.ctx.i32_type(), "")?;
        self.store_as(word, address, 4)
    }

    /// Asks for the memory at an address, which need not exist, to be brought to the second-level cache.
    pub(crate) fn prefetch(&self, address: Ptr<'c>) -> Made<()> {
        let function = Intrinsic::find("llvm.prefetch")
            .and_then(|found| found.get_declaration(&self.module, &[self.pointer_type().into()]));
        let function = function.ok_or_else(|| Fault::Llvm("there is no `llvm.prefetch`".to_owned()))?;
        // For a read, to the second level, of data.
        let [read, level, data] = [0, 2, 1].map(|word| self.ctx.i32_type().const_int(word, false).into());
        self.builder.build_call(function, &[address.into(), read, level, data], "")?;
        Ok(())
    }

    /// Whether the byte at an address is not 0.
    pub(crate) fn load_flag(&self, address: Ptr<'c>) -> Made<Int<'c>> {
        let byte: Int<'c> = carried(self.load_as(self.ctx.i8_type(), address, 1)?)?;
        self.is(IntPredicate::NE, byte, self.ctx.i8_type().const_zero())
    }

    /// Stores a bit as a byte.
    pub(crate) fn store_flag(&self, address: Ptr<'c>, bit: Int<'c>) -> Made<()> {
        let byte = self.builder.build_int_z_extend(bit, self.ctx.i8_type(), "")?;
        self.store_as(byte, address, 1)
    }

    /// Elements of a row from a column on, as f32.
    pub(crate) fn load(&self, row: Row<'c>, col: Int<'c>, lanes: u32) -> Made<Lanes<'c>> {
        let address = self.element(row.address, col, row.dtype.size())?;
        if row.dtype != DType::Bf16 {
            return carried(self.load_as(self.real_type(lanes), address, 4)?);
        }
        let upper: Lanes<'c> = carried(self.load_as(self.ctx.i16_type().vec_type(lanes), address, 2)?)?;
        let words = self.builder.build_int_z_extend(upper, self.ctx.i32_type().vec_type(lanes), "")?;
        self.of_bits(self.builder.build_left_shift(words, self.word(16, lanes), "")?)
    }

    /// Stores f32 values to elements of a row from a column on, rounded to their type.
    pub(crate) fn store(&self, row: Row<'c>, col: Int<'c>, value: Lanes<'c>) -> Made<()> {
        let address = self.element(row.address, col, row.dtype.size())?;
        match row.dtype {
            DType::Bf16 => self.store_as(self.to_bf16(value)?, address, 2),
            _ => self.store_as(value, address, 4),
        }
    }

    /// The bf16 nearest to each f32, ties to even; a NaN stays one.
    fn to_bf16(&self, value: Lanes<'c>) -> Made<Lanes<'c>> {
        let lanes = value.get_type().get_size();
        let (b, bits) = (&self.builder, self.bits(value)?);
        let last = b.build_and(
            b.build_right_shift(bits, self.word(16, lanes), false, "")?,
            self.word(1, lanes),
            "",
        )?;
        let up = b.build_int_add(last, self.word(0x7fff, lanes), "")?;
        let rounded = b.build_int_add(bits, up, "")?;
        // Its payload may lie in the bits that are cut off, and rounding may carry into the sign.
        let quieted = b.build_or(bits, self.word(0x0040_0000, lanes), "")?;
        let is_nan = self.fis(inkwell::FloatPredicate::UNO, value, value)?;
        let bits = self.fselect(is_nan, quieted, rounded)?;
        let upper = b.build_right_shift(bits, self.word(16, lanes), false, "")?;
        Ok(b.build_int_truncate(upper, self.ctx.i16_type().vec_type(lanes), "")?)
    }

    /// Copies reals from row to row, changing their type if need be.
    pub(crate) fn copy_row(&self, from: Row<'c>, to: Row<'c>, cols: u32) -> Made<()> {
        self.for_columns(self.columns(cols), self.level.lanes, |col, lanes| {
            self.store(to, col, self.load(from, col, lanes)?)
        })
    }
}
