//! What a step adds to a state. One task: rows are taken in order.

use cranelift_codegen::ir::{InstBuilder, Value};
use skipc_artifact::target::DType;
use skipc_plan::kernel::Update;

use crate::emit::Emitter;
use crate::error::Fault;
use crate::memory::PLAIN;

/// Emits the whole kernel.
pub(crate) fn emit(e: &mut Emitter<'_>, update: &Update, n_rows: Value) -> Result<(), Fault> {
    let zero = e.int(0);
    match *update {
        Update::StoreRows { cols, rows, places, cache } => e.for_each(zero, n_rows, 1, |e, row| {
            let place = e.load_index(places, row)?;
            let dtype = e.param(cache)?.dtype;
            if dtype == DType::U8 || (dtype == DType::U32 && cols == 1) {
                e.pointer(rows.slot, dtype)?;
                let (from, to) = (e.row_address(rows, row)?, e.pointer(cache, dtype)?);
                let (number, to) = (e.load_flag(from, dtype), e.element(to, place, dtype.size()));
                e.ins().store(PLAIN, number, to, 0);
                return Ok(());
            }
            let (from, to) = (e.row(rows, row)?, e.dense_row(cache, place)?);
            e.copy_row(from, to, cols)
        }),
        Update::AddRows { cols, x, sum } => {
            e.pointer(sum, DType::F32)?;
            e.for_each(zero, n_rows, 1, |e, row| {
                let (x, sum) = (e.row(x, row)?, e.only_row(sum)?);
                let columns = e.columns(cols);
                e.for_columns(columns, |e, col, lanes| {
                    let (before, more) = (e.load(sum, col, lanes), e.load(x, col, lanes));
                    let after = e.ins().fadd(before, more);
                    e.store(sum, col, after, lanes);
                    Ok(())
                })
            })
        }
    }
}
