//! Work along sequences. A mean is one task: sequence by sequence, a vector of columns after the other. Convolutions are row by
//! row.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::F32;
use cranelift_codegen::ir::{InstBuilder, Value};
use skipc_plan::kernel::{Along, Slot, View};

use crate::attention::end_of_sequence;
use crate::conv;
use crate::emit::Emitter;
use crate::error::Fault;

/// Emits the work on these rows: of a mean all of them.
pub(crate) fn emit(e: &mut Emitter<'_>, along: &Along, rows: (Value, Value)) -> Result<(), Fault> {
    match *along {
        Along::Conv(ref conv) => e.for_each(rows.0, rows.1, 1, |e, row| conv::emit_row(e, conv, row)),
        Along::Mean { cols, x, sequences, out } => {
            let n_rows = rows.1;
            let zero = e.int(0);
            e.repeat_while(
                &[zero],
                |e, next| Ok(e.ins().icmp(IntCC::UnsignedLessThan, next[0], n_rows)),
                |e, next| {
                    let end = end_of_sequence(e, sequences, next[0], n_rows)?;
                    mean(e, cols, (x, out), (next[0], end))?;
                    Ok(vec![end])
                },
            )?;
            Ok(())
        }
    }
}

/// The mean of the rows `first .. end`, in each of them.
fn mean(
    e: &mut Emitter<'_>,
    cols: u32,
    (x, out): (View, Slot),
    (first, end): (Value, Value),
) -> Result<(), Fault> {
    let count = e.ins().isub(end, first);
    let count = e.ins().fcvt_from_uint(F32, count);
    let columns = e.columns(cols);
    e.for_columns(columns, |e, col, lanes| {
        let nothing = e.real(0.0, lanes);
        let sum = e.fold(first, end, 1, &[nothing], |e, row, sum| {
            let row = e.row(x, row)?;
            let more = e.load(row, col, lanes);
            Ok(vec![e.ins().fadd(sum[0], more)])
        })?[0];
        let count = e.splat(count, lanes);
        let mean = e.ins().fdiv(sum, count);
        e.for_each(first, end, 1, |e, row| {
            let row = e.dense_row(out, row)?;
            e.store(row, col, mean, lanes);
            Ok(())
        })
    })
}
