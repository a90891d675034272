//! Memory with owners: each byte of the arena knows which operand wrote it last.

use std::collections::BTreeSet;
use std::ops::Range;

use skipc_artifact::program::{Extent, PAGE_ROWS};
use skipc_artifact::target::DType;

use skipc_ir::interp::Number;

use super::element::Element;
use super::fault::Fault;
use super::function::POISON_BYTE;
use crate::kernel::{Access, Kernel, Param, Rows, Slot, View};

/// Who wrote a byte: 0 nobody, else the index of a buffer plus one.
pub(super) type Owner = u32;

/// What buffers and operands begin at a multiple of.
pub(super) const ALIGN: usize = 4;

/// One arena, and constants beside it.
pub(super) struct Memory<'a, N> {
    /// Integers and masks, at their place.
    pub(super) arena: Vec<u8>,
    /// Numbers: that of the element at byte `i` of the arena stands at `i`.
    reals: Vec<N>,
    pub(super) owners: Vec<Owner>,
    pub(super) constants: &'a [Constant<'a, N>],
}

/// A constant.
#[derive(Debug)]
pub(super) enum Constant<'a, N> {
    /// Its bytes, of which the type is the parameter's.
    Bytes(&'a [u8]),
    /// Its elements, each of this many bytes.
    Reals(Vec<N>, usize),
}

/// Where an operand lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Allocation {
    /// These bytes of the arena, for this owner.
    Arena(Range<usize>, Owner),
    /// All of this constant.
    Constant(usize),
}

impl<'a, N: Element> Memory<'a, N> {
    /// An arena of so many bytes that nobody wrote.
    pub(super) fn new(n_bytes: usize, constants: &'a [Constant<'a, N>]) -> Memory<'a, N> {
        // What nobody wrote is never read: its owner is checked first.
        let reals = vec![N::ZERO; n_bytes];
        Memory { arena: vec![POISON_BYTE; n_bytes], reals, owners: vec![0; n_bytes], constants }
    }

    pub(super) fn n_bytes(&self, place: &Allocation) -> usize {
        match place {
            Allocation::Arena(range, _) => range.len(),
            Allocation::Constant(idx) => match &self.constants[*idx] {
                Constant::Bytes(bytes) => bytes.len(),
                Constant::Reals(reals, size) => reals.len() * size,
            },
        }
    }

    /// The `n` reals of this type from byte `begin` of the arena on.
    pub(super) fn reals(&self, begin: usize, dtype: DType, n: usize) -> impl Iterator<Item = N> + '_ {
        let step = dtype.size() as usize;
        (0..n).map(move |idx| self.reals[begin + idx * step])
    }

    /// Writes reals, each as an element of this type.
    pub(super) fn set_reals(&mut self, begin: usize, dtype: DType, values: impl IntoIterator<Item = N>) {
        let step = dtype.size() as usize;
        for (idx, value) in values.into_iter().enumerate() {
            self.reals[begin + idx * step] = value.stored_as(dtype);
        }
    }
}

/// The numbers in little-endian bytes; none of an integer type.
pub(super) fn decode<N: Number>(dtype: DType, bytes: &[u8]) -> Vec<N> {
    let number = |value: f32| N::from_f64(f64::from(value));
    match dtype {
        DType::F32 => words(bytes).map(|word| number(f32::from_le_bytes(word))).collect(),
        DType::Bf16 => words(bytes).map(|word| number(half::bf16::from_le_bytes(word).to_f32())).collect(),
        DType::I8 => bytes.iter().map(|byte| number(f32::from(byte.cast_signed()))).collect(),
        DType::U32 | DType::U8 => Vec::new(),
    }
}

/// A kernel with its operands: all accesses of the interpreter go through here.
pub(super) struct Frame<'k, 'm, 'c, N> {
    pub(super) kernel: &'k Kernel,
    memory: &'m mut Memory<'c, N>,
    operands: Vec<Operand>,
    /// What was stored by lists: parameter, first column, physical row.
    stored: BTreeSet<(Slot, u32, u64)>,
}

struct Operand {
    place: Allocation,
    /// The first row that is shown.
    first: u64,
    /// Rows that are shown.
    rows: u64,
    /// Rows that there are.
    all_rows: u64,
}

impl<'k, 'm, 'c, N: Element> Frame<'k, 'm, 'c, N> {
    /// Binds operands to parameters. The places must lie inside of the memory.
    pub(super) fn new(
        kernel: &'k Kernel,
        memory: &'m mut Memory<'c, N>,
        places: Vec<Allocation>,
    ) -> Result<Frame<'k, 'm, 'c, N>, Fault> {
        if places.len() != kernel.params.len() {
            return Err(Fault::BadOperand(format!(
                "{} operands for {} parameters",
                places.len(),
                kernel.params.len()
            )));
        }
        let mut operands = Vec::with_capacity(places.len());
        for (param, place) in kernel.params.iter().zip(places) {
            let n_bytes = memory.n_bytes(&place);
            let row_bytes = param.cols as usize * param.dtype.size() as usize;
            if row_bytes == 0 || !n_bytes.is_multiple_of(row_bytes) {
                return Err(Fault::BadOperand(format!(
                    "{n_bytes} bytes are not whole rows of `{}`, which have {row_bytes}",
                    param.name
                )));
            }
            let rows = (n_bytes / row_bytes) as u64;
            operands.push(Operand { place, first: 0, rows, all_rows: rows });
        }
        Ok(Frame { kernel, memory, operands, stored: BTreeSet::new() })
    }

    /// Shows so many rows of an operand from one on, as if there were no others.
    pub(super) fn show(&mut self, slot: Slot, first: u64, rows: u64) -> Result<(), Fault> {
        let name = self.param(slot)?.name.clone();
        let operand = self.operands.get_mut(slot.0 as usize).ok_or(Fault::NoParam(slot.0))?;
        if first + rows > operand.all_rows {
            let all = operand.all_rows;
            return Err(Fault::Malformed(format!(
                "rows {first} to {} of `{name}`, which has {all}",
                first + rows
            )));
        }
        (operand.first, operand.rows) = (first, rows);
        Ok(())
    }

    pub(super) fn param(&self, slot: Slot) -> Result<&'k Param, Fault> {
        self.kernel.params.get(slot.0 as usize).ok_or(Fault::NoParam(slot.0))
    }

    /// Rows of the operand behind a parameter.
    pub(super) fn n_rows(&self, slot: Slot) -> Result<u64, Fault> {
        Ok(self.operands.get(slot.0 as usize).ok_or(Fault::NoParam(slot.0))?.rows)
    }

    /// The number of rows that an extent stands for.
    pub(super) fn extent(&self, extent: Extent) -> Result<u32, Fault> {
        match extent {
            Extent::Fixed(rows) => Ok(rows),
            Extent::Counted { count, at_most } => {
                let rows = self.load_u32(Slot(count), 0, 0)?;
                if rows > at_most {
                    let param = self.param(Slot(count))?.name.clone();
                    return Err(Fault::Count { param, count: rows, at_most });
                }
                Ok(rows)
            }
        }
    }

    /// The physical row of a logical one.
    pub(super) fn physical(&self, rows: Rows, logical: u32) -> Result<u64, Fault> {
        let Rows::Listed(list) = rows else { return Ok(u64::from(logical)) };
        Ok(u64::from(self.load_u32(list, u64::from(logical), 0)?))
    }

    /// The physical row of a logical one that is written: no two are one.
    fn physical_of_its_own(&mut self, view: View, logical: u32) -> Result<u64, Fault> {
        let row = self.physical(view.rows, logical)?;
        let Rows::Listed(list) = view.rows else { return Ok(row) };
        if !self.stored.insert((view.slot, view.col, row)) {
            let param = self.param(list)?.name.clone();
            return Err(Fault::RowTwice { param, at: u64::from(logical), row: row as u32 });
        }
        Ok(row)
    }

    /// `n` real elements of a logical row of a view.
    pub(super) fn load(&self, view: View, logical: u32, n: u32) -> Result<Vec<N>, Fault> {
        let row = self.physical(view.rows, logical)?;
        self.load_reals(view.slot, row, view.col, n)
    }

    /// `n` real elements of a physical row.
    pub(super) fn load_reals(&self, slot: Slot, row: u64, col: u32, n: u32) -> Result<Vec<N>, Fault> {
        let param = self.param(slot)?;
        if !is_real(param.dtype) {
            return Err(wrong_type(param, "f32 or bf16"));
        }
        let within = self.read(slot, row, col, n)?;
        Ok(match &self.operands[slot.0 as usize].place {
            Allocation::Arena(range, _) => {
                self.memory.reals(range.start + within.start, param.dtype, n as usize).collect()
            }
            Allocation::Constant(idx) => match &self.memory.constants[*idx] {
                Constant::Bytes(bytes) => decode(param.dtype, &bytes[within]),
                Constant::Reals(reals, size) => reals[within.start / size..within.end / size].to_vec(),
            },
        })
    }

    /// Writes real elements to a logical row of a view, rounded to the parameter's type.
    pub(super) fn store(&mut self, view: View, logical: u32, values: &[N]) -> Result<(), Fault> {
        let row = self.physical_of_its_own(view, logical)?;
        let param = self.param(view.slot)?;
        if !is_real(param.dtype) {
            return Err(wrong_type(param, "f32 or bf16"));
        }
        let dtype = param.dtype;
        let begin = self.write(view.slot, row, view.col, values.len() as u64)?;
        self.memory.set_reals(begin, dtype, values.iter().copied());
        Ok(())
    }

    /// A dense row of results.
    pub(super) fn store_dense(&mut self, slot: Slot, logical: u32, values: &[N]) -> Result<(), Fault> {
        self.store(View::dense(slot), logical, values)
    }

    /// One integer of a logical row of a view.
    pub(super) fn load_index(&self, view: View, logical: u32) -> Result<u32, Fault> {
        let row = self.physical(view.rows, logical)?;
        self.load_u32(view.slot, row, view.col)
    }

    /// The row of a cache that holds a token, by the pages of its sequence.
    pub(super) fn cached(&self, pages: Slot, sequence: u32, position: u32) -> Result<u64, Fault> {
        let page = self.load_u32(pages, sequence.into(), position / PAGE_ROWS)?;
        Ok(u64::from(page) * u64::from(PAGE_ROWS) + u64::from(position % PAGE_ROWS))
    }

    pub(super) fn load_u32(&self, slot: Slot, row: u64, col: u32) -> Result<u32, Fault> {
        let param = self.param(slot)?;
        if param.dtype != DType::U32 {
            return Err(wrong_type(param, "u32"));
        }
        let bytes = self.read_bytes(slot, row, col)?;
        Ok(words(bytes).map(u32::from_le_bytes).next().unwrap_or_default())
    }

    pub(super) fn store_u32(&mut self, slot: Slot, row: u64, value: u32) -> Result<(), Fault> {
        let param = self.param(slot)?;
        if param.dtype != DType::U32 {
            return Err(wrong_type(param, "u32"));
        }
        self.write_bytes(slot, row, &value.to_le_bytes())
    }

    pub(super) fn load_u8(&self, slot: Slot, row: u64) -> Result<u8, Fault> {
        let param = self.param(slot)?;
        if param.dtype != DType::U8 {
            return Err(wrong_type(param, "u8"));
        }
        Ok(self.read_bytes(slot, row, 0)?.first().copied().unwrap_or_default())
    }

    pub(super) fn store_u8(&mut self, slot: Slot, row: u64, value: u8) -> Result<(), Fault> {
        let param = self.param(slot)?;
        if param.dtype != DType::U8 {
            return Err(wrong_type(param, "u8"));
        }
        self.write_bytes(slot, row, &[value])
    }

    /// One integer element, as bytes.
    fn read_bytes(&self, slot: Slot, row: u64, col: u32) -> Result<&[u8], Fault> {
        let within = self.read(slot, row, col, 1)?;
        match &self.operands[slot.0 as usize].place {
            Allocation::Arena(range, _) => {
                Ok(&self.memory.arena[range.start + within.start..range.start + within.end])
            }
            Allocation::Constant(idx) => match &self.memory.constants[*idx] {
                Constant::Bytes(bytes) => Ok(&bytes[within]),
                Constant::Reals(..) => Err(wrong_type(self.param(slot)?, "an integer constant")),
            },
        }
    }

    fn write_bytes(&mut self, slot: Slot, row: u64, bytes: &[u8]) -> Result<(), Fault> {
        let begin = self.write(slot, row, 0, 1)?;
        self.memory.arena[begin..begin + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    /// Where `n` elements from `(row, col)` on stand, counted from the operand's first byte. Somebody must have written
    /// them.
    fn read(&self, slot: Slot, row: u64, col: u32, n: u32) -> Result<Range<usize>, Fault> {
        let param = self.param(slot)?;
        if param.access == Access::Write {
            return Err(Fault::Access { param: param.name.clone(), verb: "read" });
        }
        let within = self.within(slot, param, (row, col), u64::from(n))?;
        if let Allocation::Arena(range, owner) = &self.operands[slot.0 as usize].place {
            let owners = &self.memory.owners[range.start + within.start..range.start + within.end];
            if let Some(other) = owners.iter().find(|other| *other != owner) {
                return Err(Fault::Undefined {
                    param: param.name.clone(),
                    row,
                    col: u64::from(col),
                    why: match other.checked_sub(1) {
                        None => "nobody wrote it".to_owned(),
                        Some(buffer) => format!("buffer {buffer} wrote its place"),
                    },
                });
            }
        }
        Ok(within)
    }

    /// Takes the place of `n` elements from `(row, col)` on for the operand: its first byte in the arena.
    fn write(&mut self, slot: Slot, row: u64, col: u32, n: u64) -> Result<usize, Fault> {
        let param = self.param(slot)?;
        let within = self.within(slot, param, (row, col), n)?;
        match &self.operands[slot.0 as usize].place {
            Allocation::Arena(range, owner) if param.access != Access::Read => {
                let within = range.start + within.start..range.start + within.end;
                self.memory.owners[within.clone()].fill(*owner);
                Ok(within.start)
            }
            Allocation::Arena(..) | Allocation::Constant(_) => {
                Err(Fault::Access { param: param.name.clone(), verb: "written" })
            }
        }
    }

    /// The bytes of `n` elements, counted from the operand's first.
    fn within(&self, slot: Slot, param: &Param, at: (u64, u32), n: u64) -> Result<Range<usize>, Fault> {
        let (row, col) = (at.0, u64::from(at.1));
        let (rows, cols) = (self.n_rows(slot)?, u64::from(param.cols));
        if row >= rows || col + n > cols {
            let col = if row >= rows { col } else { col + n - 1 };
            return Err(Fault::OutOfRange { param: param.name.clone(), row, col, rows, cols });
        }
        let size = param.dtype.size() as usize;
        let row = self.operands[slot.0 as usize].first + row;
        let begin = (row * cols + col) as usize * size;
        Ok(begin..begin + n as usize * size)
    }
}

fn is_real(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::Bf16 | DType::I8)
}

fn wrong_type(param: &Param, wants: &'static str) -> Fault {
    Fault::WrongType { param: param.name.clone(), dtype: param.dtype, wants }
}

pub(super) fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    bytes.as_chunks::<N>().0.iter().copied()
}
