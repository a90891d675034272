//! What a step adds to a state. One task: rows are taken in order.

use skipc_artifact::target::DType;
use skipc_plan::kernel::Update;

use super::code::{Int, Made};
use super::frame::Frame;

/// Emits the whole kernel.
pub(crate) fn emit<'c>(f: &Frame<'_, 'c>, update: &Update, n_rows: Int<'c>) -> Made<()> {
    match *update {
        Update::StoreRows { cols, rows, places, cache } => f.for_each(f.int(0), n_rows, 1, |row| {
            let place = f.load_index(places, row)?;
            match f.param(cache)?.dtype {
                DType::U8 => {
                    let decision = f.load_flag(f.row_address(rows, row)?)?;
                    return f.store_flag(f.offset(f.pointer(cache, DType::U8)?, place)?, decision);
                }
                DType::U32 if cols == 1 => {
                    let number = f.load_index(rows, row)?;
                    return f.store_word(f.element(f.pointer(cache, DType::U32)?, place, 4)?, number);
                }
                DType::U32 | DType::F32 | DType::Bf16 | DType::I8 => {}
            }
            f.copy_row(f.row(rows, row)?, f.dense_row(cache, place)?, cols)
        }),
        Update::AddRows { cols, x, sum } => {
            f.pointer(sum, DType::F32)?;
            f.for_each(f.int(0), n_rows, 1, |row| {
                let (x, sum) = (f.row(x, row)?, f.only_row(sum)?);
                f.for_columns(f.columns(cols), f.level.lanes, |col, lanes| {
                    let after = f.fadd(f.load(sum, col, lanes)?, f.load(x, col, lanes)?)?;
                    f.store(sum, col, after)
                })
            })
        }
    }
}
