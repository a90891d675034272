//! Where rows and elements lie, and how groups of neighbouring elements are loaded and stored.

use skipc_artifact::program::Extent;
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Kernel, Param, Rows, Slot, View};

use crate::code::{
    BF16, Code, F32, Float, GPtr, I8, I32, I64, Int, Operand, V2, V4, Val, pack_bf16, unpack_bf16,
};
use crate::error::Error;

/// The parameter that a slot names.
///
/// # Errors
/// If the kernel has no such parameter.
pub(super) fn param(kernel: &Kernel, slot: Slot) -> Result<&Param, Error> {
    kernel.params.get(slot.0 as usize).ok_or_else(|| Error::Malformed {
        what: format!("slot {} of {} parameters", slot.0, kernel.params.len()),
    })
}

/// How many parameters the kernel has.
///
/// # Errors
/// If they are more than a launch can pass (4 KiB of pointers).
pub(super) fn n_params(kernel: &Kernel) -> Result<u32, Error> {
    match u32::try_from(kernel.params.len()) {
        Ok(n) if n <= 512 => Ok(n),
        _ => Err(Error::Malformed { what: format!("{} parameters", kernel.params.len()) }),
    }
}

/// Checks that a parameter holds indices.
pub(super) fn require_u32(kernel: &Kernel, slot: Slot) -> Result<(), Error> {
    require(kernel, slot, DType::U32)
}

/// Checks a parameter's type.
pub(super) fn require(kernel: &Kernel, slot: Slot, dtype: DType) -> Result<(), Error> {
    let param = param(kernel, slot)?;
    if param.dtype == dtype {
        return Ok(());
    }
    Err(Error::Malformed { what: format!("`{}` holds {}, not {dtype}", param.name, param.dtype) })
}

/// Checks that a view stays within its parameter and that its row list is one.
pub(super) fn require_view(kernel: &Kernel, view: View, cols: u32) -> Result<&Param, Error> {
    let param = param(kernel, view.slot)?;
    if let Rows::Listed(list) = view.rows {
        require_u32(kernel, list)?;
    }
    if view.col.checked_add(cols).is_none_or(|end| end > param.cols) {
        let what = format!("columns {}.. of `{}` are fewer than {cols}", view.col, param.name);
        return Err(Error::Malformed { what });
    }
    Ok(param)
}

/// Checks that rows are not looked up in a list.
pub(super) fn require_dense(view: View, what: &str) -> Result<(), Error> {
    match view.rows {
        Rows::Dense => Ok(()),
        Rows::Listed(_) => {
            Err(Error::Unsupported { what: format!("listed rows of {what}; gather them before") })
        }
    }
}

/// The number of rows, read from memory if it is counted.
pub(super) fn extent<'c>(code: &'c Code, extent: &Extent) -> Int<'c> {
    match extent {
        Extent::Fixed(rows) => code.int(*rows),
        Extent::Counted { count, .. } => code.param(*count).load::<I32>(),
    }
}

/// Checks the parameter that an extent reads.
pub(super) fn require_extent(kernel: &Kernel, extent: &Extent) -> Result<(), Error> {
    match extent {
        Extent::Fixed(_) => Ok(()),
        Extent::Counted { count, .. } => require_u32(kernel, Slot(*count)),
    }
}

/// The physical row of a logical one.
pub(super) fn physical<'c>(code: &'c Code, rows: Rows, row: Int<'c>) -> Int<'c> {
    match rows {
        Rows::Dense => row,
        Rows::Listed(list) => code.param(list.0).at::<I32>(row).load::<I32>(),
    }
}

/// The address of a view's first element in a physical row.
pub(super) fn row_start<'c>(code: &'c Code, param: &Param, view: View, physical: Int<'c>) -> GPtr<'c> {
    let element = physical.to_long() * u64::from(param.cols) + u64::from(view.col);
    far_along(code.param(view.slot.0), param.dtype, element)
}

/// The address of the element in a row of a view.
pub(super) fn element<'c>(
    code: &'c Code,
    param: &Param,
    view: View,
    row: Int<'c>,
    col: impl Operand<'c, I32>,
) -> GPtr<'c> {
    let start = row_start(code, param, view, physical(code, view.rows, row));
    along(start, param.dtype, col)
}

/// The address that many elements along a row.
pub(super) fn along<'c>(start: GPtr<'c>, dtype: DType, elements: impl Operand<'c, I32>) -> GPtr<'c> {
    match dtype.size() {
        4 => start.at::<F32>(elements),
        2 => start.at::<BF16>(elements),
        _ => start.at::<I8>(elements),
    }
}

/// As [`along`], beyond what an i32 can count.
pub(super) fn far_along<'c>(start: GPtr<'c>, dtype: DType, elements: impl Operand<'c, I64>) -> GPtr<'c> {
    match dtype.size() {
        4 => start.far::<F32>(elements),
        2 => start.far::<BF16>(elements),
        _ => start.far::<I8>(elements),
    }
}

/// How many neighbouring columns are handled together: the largest of 4, 2 and 1 that divides all
/// these numbers, so that each group is whole and aligned.
pub(super) fn group_width(numbers: impl IntoIterator<Item = u32>) -> u32 {
    let mut width = 4;
    for number in numbers {
        while number % width != 0 {
            width /= 2;
        }
    }
    width
}

/// Bytes that are moved at once: the most of 16, 8, 4, 2 and 1 that all these numbers of elements are whole multiples
/// of, so that each piece is aligned.
pub(super) fn piece_bytes(dtype: DType, numbers: impl IntoIterator<Item = u32>) -> u32 {
    let mut piece = 16;
    for elements in numbers {
        while !(u64::from(elements) * u64::from(dtype.size())).is_multiple_of(piece) {
            piece /= 2;
        }
    }
    piece as u32
}

/// Checks that a parameter holds real numbers.
pub(super) fn require_real(param: &Param) -> Result<(), Error> {
    match param.dtype {
        DType::F32 | DType::Bf16 => Ok(()),
        DType::U32 | DType::U8 | DType::I8 => Err(Error::Malformed {
            what: format!("`{}` holds {}, not real numbers", param.name, param.dtype),
        }),
    }
}

/// Loads a group of 1, 2 or 4 elements, or 8 of bf16. The type is one of real numbers.
pub(super) fn load_group<'c>(at: GPtr<'c>, dtype: DType, width: u32) -> Vec<Float<'c>> {
    match (dtype, width) {
        (DType::Bf16, 8) => at.load::<V4<I32>>().items().map(unpack_bf16).as_flattened().to_vec(),
        (DType::Bf16, 4) => at.load::<V2<I32>>().items().map(unpack_bf16).as_flattened().to_vec(),
        (DType::Bf16, 2) => unpack_bf16(at.load::<I32>()).to_vec(),
        (DType::Bf16, _) => vec![at.load::<BF16>().to_float()],
        (_, 4) => at.load::<V4<F32>>().items().to_vec(),
        (_, 2) => at.load::<V2<F32>>().items().to_vec(),
        _ => vec![at.load::<F32>()],
    }
}

/// Stores a group of 1, 2 or 4 elements. The type is one of real numbers.
pub(super) fn store_group<'c>(at: GPtr<'c>, dtype: DType, values: &[Float<'c>]) {
    match (dtype, values) {
        (DType::Bf16, [a, b, c, d]) => at.store(Val::<V2<I32>>::pair([pack_bf16(*a, *b), pack_bf16(*c, *d)])),
        (DType::Bf16, [a, b]) => at.store(pack_bf16(*a, *b)),
        (DType::Bf16, values) => values.iter().for_each(|value| at.store(value.to_bf16())),
        (_, [a, b, c, d]) => at.store(Val::<V4<F32>>::quad([*a, *b, *c, *d])),
        (_, [a, b]) => at.store(Val::<V2<F32>>::pair([*a, *b])),
        (_, values) => values.iter().for_each(|value| at.store(*value)),
    }
}
