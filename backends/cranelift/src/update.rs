//! What a step adds to a state. One task: rows are taken in order.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Rows, Slot, Update, View};

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
        Update::CountGroups { wanted, positions, sequences, size, counts, n_counts } => {
            if size == 0 {
                return Err(Fault::Malformed("a group of no rows".to_owned()));
            }
            let wanted = e.pointer(wanted, DType::U8)?;
            let base = e.pointer(counts, DType::U32)?;
            e.for_each(zero, n_rows, 1, |e, row| {
                let (sequence, position) = (e.load_index(sequences, row)?, e.load_index(positions, row)?);
                let limit = e.int(i64::from(n_counts));
                let has_count = e.ins().icmp(IntCC::UnsignedLessThan, sequence, limit);
                e.when(has_count, |e| {
                    let before = count_before(e, counts, sequence, (position, size))?;
                    let address = e.element(wanted, row, 1);
                    let flag = e.load_flag(address, DType::U8);
                    let is_wanted = e.ins().icmp_imm_u(IntCC::NotEqual, flag, 0);
                    let one = e.ins().uextend(cranelift_codegen::ir::types::I64, is_wanted);
                    let after = e.ins().iadd(before, one);
                    e.store_index(base, sequence, after);
                    Ok(())
                })
            })
        }
    }
}

/// What earlier rows of the group at this position wanted, if the sequence has a count: none where the group begins.
pub(crate) fn count_before(
    e: &mut Emitter<'_>,
    counts: Slot,
    sequence: Value,
    (position, size): (Value, u32),
) -> Result<Value, Fault> {
    let count = e.load_index(View { slot: counts, rows: Rows::Dense, col: 0 }, sequence)?;
    let size = e.int(i64::from(size));
    let place = e.ins().urem(position, size);
    let begins = e.ins().icmp_imm_u(IntCC::Equal, place, 0);
    let zero = e.int(0);
    Ok(e.ins().select(begins, zero, count))
}
