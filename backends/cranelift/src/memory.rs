//! Parameters as typed memory: addresses of rows, loads and stores.

use cranelift_codegen::ir::types::{I8, I16X8, I32, I64, I64X2};
use cranelift_codegen::ir::{Endianness, InstBuilder, MemFlagsData, Value};
use skipc_artifact::program::Extent;
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Param, Rows, Slot, View};

use crate::emit::{Emitter, Lanes};
use crate::error::Fault;

/// Accesses lie inside the arena by the plan's layout, so they cannot trap; rows need not be aligned to vectors.
pub(crate) const PLAIN: MemFlagsData = MemFlagsData::new().with_notrap();

/// A row of f32 or bf16 elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Address of the first column.
    pub(crate) address: Value,
    /// How elements are stored.
    pub(crate) dtype: DType,
}

impl Row {
    /// The row from a column on.
    pub(crate) fn at_column(self, e: &mut Emitter<'_>, col: Value) -> Row {
        Row { address: e.element(self.address, col, self.dtype.size()), ..self }
    }
}

impl Emitter<'_> {
    pub(crate) fn param(&self, slot: Slot) -> Result<&Param, Fault> {
        let missing = || Fault::Malformed(format!("parameter {} does not exist", slot.0));
        self.kernel.params.get(slot.0 as usize).ok_or_else(missing)
    }

    /// The pointer for a parameter of this type.
    pub(crate) fn pointer(&self, slot: Slot, dtype: DType) -> Result<Value, Fault> {
        let param = self.param(slot)?;
        if param.dtype != dtype {
            return Err(Fault::Malformed(format!("`{}` is {}, expected {dtype}", param.name, param.dtype)));
        }
        Ok(self.args[slot.0 as usize])
    }

    /// How many rows an extent has.
    pub(crate) fn extent(&mut self, extent: Extent) -> Result<Value, Fault> {
        match extent {
            Extent::Fixed(rows) => Ok(self.int(i64::from(rows))),
            Extent::Counted { count, at_most } => {
                let address = self.pointer(Slot(count), DType::U32)?;
                let count = self.ins().uload32(PLAIN, address, 0);
                let limit = self.int(i64::from(at_most));
                Ok(self.ins().umin(count, limit))
            }
        }
    }

    /// The physical row of a logical one.
    pub(crate) fn physical(&mut self, rows: Rows, logical: Value) -> Result<Value, Fault> {
        match rows {
            Rows::Dense => Ok(logical),
            Rows::Listed(list) => {
                let list = self.pointer(list, DType::U32)?;
                let address = self.element(list, logical, 4);
                Ok(self.ins().uload32(PLAIN, address, 0))
            }
        }
    }

    /// `base + index · size`.
    pub(crate) fn element(&mut self, base: Value, index: Value, size: u32) -> Value {
        let offset = match size {
            1 => index,
            2 => self.ins().ishl_imm_u(index, 1),
            4 => self.ins().ishl_imm_u(index, 2),
            _ => self.ins().imul_imm_s(index, i64::from(size)),
        };
        self.ins().iadd(base, offset)
    }

    /// Address of a row of any type, from the view's first column on.
    pub(crate) fn row_address(&mut self, view: View, logical: Value) -> Result<Value, Fault> {
        let param = self.param(view.slot)?;
        let (size, stride) = (param.dtype.size(), i64::from(param.cols) * i64::from(param.dtype.size()));
        let base = self.args[view.slot.0 as usize];
        let row = self.physical(view.rows, logical)?;
        let offset = self.ins().imul_imm_s(row, stride);
        let address = self.ins().iadd(base, offset);
        Ok(self.ins().iadd_imm_s(address, i64::from(view.col) * i64::from(size)))
    }

    /// A row of reals.
    pub(crate) fn row(&mut self, view: View, logical: Value) -> Result<Row, Fault> {
        let dtype = self.real_type(view.slot)?;
        Ok(Row { address: self.row_address(view, logical)?, dtype })
    }

    /// A row of reals of a dense parameter.
    pub(crate) fn dense_row(&mut self, slot: Slot, row: Value) -> Result<Row, Fault> {
        self.row(View::dense(slot), row)
    }

    /// The only row of a vector.
    pub(crate) fn only_row(&self, slot: Slot) -> Result<Row, Fault> {
        Ok(Row { address: self.args[slot.0 as usize], dtype: self.real_type(slot)? })
    }

    /// The type of a parameter that holds reals.
    pub(crate) fn real_type(&self, slot: Slot) -> Result<DType, Fault> {
        let param = self.param(slot)?;
        match param.dtype {
            DType::F32 | DType::Bf16 => Ok(param.dtype),
            DType::U32 | DType::U8 | DType::I8 => {
                Err(Fault::Malformed(format!("`{}` is {}, expected reals", param.name, param.dtype)))
            }
        }
    }

    /// The `u32` of a row of one column, as `i64`.
    pub(crate) fn load_index(&mut self, view: View, logical: Value) -> Result<Value, Fault> {
        self.pointer(view.slot, DType::U32)?;
        let address = self.row_address(view, logical)?;
        Ok(self.ins().uload32(PLAIN, address, 0))
    }

    /// Elements of a row from a column on, as f32.
    pub(crate) fn load(&mut self, row: Row, col: Value, lanes: Lanes) -> Value {
        let address = self.element(row.address, col, row.dtype.size());
        if row.dtype != DType::Bf16 {
            return self.ins().load(lanes.real(), PLAIN, address, 0);
        }
        let upper = match lanes {
            Lanes::One => self.ins().uload16(I32, PLAIN, address, 0),
            Lanes::Four => self.ins().uload16x4(PLAIN, address, 0),
        };
        let bits = self.ins().ishl_imm_u(upper, 16);
        self.recast(bits, lanes.real())
    }

    /// Stores f32 values to elements of a row from a column on, rounded to their type.
    pub(crate) fn store(&mut self, row: Row, col: Value, value: Value, lanes: Lanes) {
        let address = self.element(row.address, col, row.dtype.size());
        if row.dtype != DType::Bf16 {
            self.ins().store(PLAIN, value, address, 0);
            return;
        }
        let bits = self.bf16_bits(value, lanes);
        match lanes {
            Lanes::One => {
                self.ins().istore16(PLAIN, bits, address, 0);
            }
            Lanes::Four => {
                let narrow = self.ins().snarrow(bits, bits);
                let flags = MemFlagsData::new().with_endianness(Endianness::Little);
                debug_assert_eq!(self.builder.func.dfg.value_type(narrow), I16X8);
                let pairs = self.ins().bitcast(I64X2, flags, narrow);
                let low = self.ins().extractlane(pairs, 0);
                self.ins().store(PLAIN, low, address, 0);
            }
        }
    }

    /// The bf16 nearest to an f32, ties to even, as a sign-extended `i32`. A NaN stays one.
    fn bf16_bits(&mut self, value: Value, lanes: Lanes) -> Value {
        use cranelift_codegen::ir::condcodes::FloatCC;
        let bits = self.recast(value, lanes.bits());
        let last = self.ins().ushr_imm_u(bits, 16);
        let one = self.bits(1, lanes);
        let last = self.ins().band(last, one);
        let below_half = self.bits(0x7fff, lanes);
        let up = self.ins().iadd(last, below_half);
        let rounded = self.ins().iadd(bits, up);
        // Its payload may lie in the bits that are cut off, and rounding may carry into the sign.
        let quiet = self.bits(0x0040_0000, lanes);
        let quieted = self.ins().bor(bits, quiet);
        let is_nan = self.ins().fcmp(FloatCC::Unordered, value, value);
        let bits = match lanes {
            Lanes::One => self.ins().select(is_nan, quieted, rounded),
            Lanes::Four => self.ins().bitselect(is_nan, quieted, rounded),
        };
        self.ins().sshr_imm_u(bits, 16)
    }

    /// The u32 or u8 flag at an address, as a condition.
    pub(crate) fn load_flag(&mut self, address: Value, dtype: DType) -> Value {
        let ty = if dtype == DType::U8 { I8 } else { I32 };
        self.ins().load(ty, PLAIN, address, 0)
    }

    /// Stores the low 32 bits of an `i64` index.
    pub(crate) fn store_index(&mut self, base: Value, index: Value, value: Value) {
        debug_assert_eq!(self.builder.func.dfg.value_type(value), I64);
        let address = self.element(base, index, 4);
        self.ins().istore32(PLAIN, value, address, 0);
    }

    /// Copies reals from row to row, changing their type if need be.
    pub(crate) fn copy_row(&mut self, from: Row, to: Row, cols: u32) -> Result<(), Fault> {
        let columns = self.columns(cols);
        self.for_columns(columns, |e, col, lanes| {
            let value = e.load(from, col, lanes);
            e.store(to, col, value, lanes);
            Ok(())
        })
    }
}
