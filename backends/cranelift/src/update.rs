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
            if e.param(cache)?.dtype == DType::U8 {
                let (from, to) = (e.row_address(rows, row)?, e.pointer(cache, DType::U8)?);
                let (decision, to) = (e.load_flag(from, DType::U8), e.element(to, place, 1));
                e.ins().store(PLAIN, decision, to, 0);
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
