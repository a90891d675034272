//! Rows of a cache that wait and may not wait longer. One task: rows are taken in order.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, Value};
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Pending, Rows, View};

use crate::attention::cached::Pages;
use crate::emit::Emitter;
use crate::error::Fault;

/// Emits the whole kernel.
pub(crate) fn emit(e: &mut Emitter<'_>, pending: &Pending, n_rows: Value) -> Result<(), Fault> {
    let executed = e.pointer(pending.executed, DType::U8)?;
    let (zero, last_row) = (e.int(0), e.ins().iadd_imm_s(n_rows, -1));
    let found = e.fold(zero, n_rows, 1, &[zero, zero], |e, row, carried| {
        let (count, before) = (carried[0], carried[1]);
        let address = e.element(executed, row, 1);
        let flag = e.load_flag(address, DType::U8);
        let flag = e.ins().uextend(I64, flag);
        let executes = e.ins().bor(before, flag);
        let sequence = e.load_index(pending.sequences, row)?;
        // Past the last row there may be no memory.
        let next = e.ins().iadd_imm_s(row, 1);
        let next = e.ins().umin(next, last_row);
        let next = e.load_index(pending.sequences, next)?;
        let is_other = e.ins().icmp(IntCC::NotEqual, next, sequence);
        let is_last = e.ins().icmp(IntCC::Equal, row, last_row);
        let ends = e.ins().bor(is_other, is_last);
        let due_to = due_to(e, pending, (row, sequence), (ends, executes))?;
        let count = list(e, pending, sequence, due_to, count)?;
        let executes = e.ins().select(ends, zero, executes);
        Ok(vec![count, executes])
    })?;
    let address = e.pointer(pending.count, DType::U32)?;
    e.store_index(address, zero, found[0]);
    Ok(())
}

/// The first position of a sequence that waits, and the end of those that may not wait longer: there are some only if `row`
/// is its last row here.
fn due_to(
    e: &mut Emitter<'_>,
    pending: &Pending,
    (row, sequence): (Value, Value),
    (ends, executes): (Value, Value),
) -> Result<(Value, Value), Fault> {
    let last_col = e.param(pending.pending)?.cols.saturating_sub(1);
    let column = |col: u32| View { slot: pending.pending, rows: Rows::Dense, col };
    let first = e.load_index(column(pending.router), sequence)?;
    let most = e.load_index(column(last_col), sequence)?;
    let last = e.load_index(pending.positions, row)?;
    let end = e.ins().iadd_imm_s(last, 1);
    let n_waiting = e.ins().isub(end, first);
    let are_too_many = e.ins().icmp(IntCC::SignedGreaterThan, n_waiting, most);
    let executes = e.ins().icmp_imm_u(IntCC::NotEqual, executes, 0);
    let are_due = e.ins().bor(executes, are_too_many);
    let are_due = e.ins().band(are_due, ends);
    Ok((first, e.ins().select(are_due, end, first)))
}

/// Lists the rows of these positions of a sequence; gives how many there are then.
fn list(
    e: &mut Emitter<'_>,
    pending: &Pending,
    sequence: Value,
    (first, end): (Value, Value),
    count: Value,
) -> Result<Value, Fault> {
    let rows = e.pointer(pending.rows, DType::U32)?;
    let pages = Pages::of(e, pending.pages, sequence)?;
    let listed = e.fold(first, end, 1, &[count], |e, position, count| {
        let key = pages.key(e, position);
        e.store_index(rows, count[0], key);
        Ok(vec![e.ins().iadd_imm_s(count[0], 1)])
    })?;
    Ok(listed[0])
}
