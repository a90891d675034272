//! Work in which a row of the result depends on one row of each operand.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};
use skipc_plan::kernel::{Rowwise, Slot, View};

use crate::choose;
use crate::emit::Emitter;
use crate::error::Fault;
use crate::limit;
use crate::norm::{Norm, RowScale};
use crate::pointwise;

/// Emits the work on one row.
pub(crate) fn emit_row(e: &mut Emitter<'_>, rowwise: &Rowwise, row: Value) -> Result<(), Fault> {
    match *rowwise {
        Rowwise::Map { cols, ref program } => pointwise::map(e, cols, program, row),
        Rowwise::Norm { kind, eps, cols, groups, x, gain, out } => {
            Norm { kind, eps, cols: cols / groups.max(1), groups, x, gain, out }.emit(e, row)
        }
        Rowwise::RowScale { eps, cols, x, out } => RowScale { eps, cols, x, out }.emit(e, row),
        Rowwise::Choose { n, choice, logits, bias, replay, out } => {
            choose::Choose { n, choice, logits, bias, replay, out }.emit(e, row)
        }
        Rowwise::Limit(ref limit) => limit::emit(e, limit, row),
        Rowwise::Embed { cols, ids, n_ids, table, out } => {
            Embed { cols, ids, n_ids, table, out }.emit(e, row)
        }
        Rowwise::Rope { heads, width, turned, x, positions, cos, sin, out } => {
            let turned = turned.unwrap_or(width);
            Rope { heads, width, turned, x, positions, cos, sin, out }.emit(e, row)
        }
    }
}

struct Embed {
    cols: u32,
    ids: View,
    n_ids: u32,
    table: Slot,
    out: Slot,
}

impl Embed {
    fn emit(&self, e: &mut Emitter<'_>, row: Value) -> Result<(), Fault> {
        let id = e.load_index(self.ids, row)?;
        let out = e.dense_row(self.out, row)?;
        let known = e.ins().icmp_imm_u(IntCC::UnsignedLessThan, id, i64::from(self.n_ids));
        e.branch(
            known,
            |e| {
                let entry = e.dense_row(self.table, id)?;
                e.copy_row(entry, out, self.cols)
            },
            |e| {
                let columns = e.columns(self.cols);
                e.for_columns(columns, |e, col, lanes| {
                    let zero = e.real(0.0, lanes);
                    e.store(out, col, zero, lanes);
                    Ok(())
                })
            },
        )
    }
}

struct Rope {
    heads: u32,
    width: u32,
    turned: u32,
    x: View,
    positions: View,
    cos: Slot,
    sin: Slot,
    out: Slot,
}

impl Rope {
    fn emit(&self, e: &mut Emitter<'_>, row: Value) -> Result<(), Fault> {
        let position = e.load_index(self.positions, row)?;
        let (x, out) = (e.row(self.x, row)?, e.dense_row(self.out, row)?);
        let (cos, sin) = (e.dense_row(self.cos, position)?, e.dense_row(self.sin, position)?);
        let (columns, others) = (e.columns(self.turned / 2), e.columns(self.width - self.turned));
        let (zero, heads) = (e.int(0), e.int(i64::from(self.heads)));
        e.for_each(zero, heads, 1, |e, head| {
            let first = e.ins().imul_imm_s(head, i64::from(self.width));
            let second = e.ins().iadd(first, columns.count);
            e.for_columns(columns, |e, col, lanes| {
                let (left, right) = (e.ins().iadd(first, col), e.ins().iadd(second, col));
                let (a, b) = (e.load(x, left, lanes), e.load(x, right, lanes));
                let (cos, sin) = (e.load(cos, col, lanes), e.load(sin, col, lanes));
                let (a_cos, b_sin) = (e.ins().fmul(a, cos), e.ins().fmul(b, sin));
                let (b_cos, a_sin) = (e.ins().fmul(b, cos), e.ins().fmul(a, sin));
                let (new_left, new_right) = (e.ins().fsub(a_cos, b_sin), e.ins().fadd(b_cos, a_sin));
                e.store(out, left, new_left, lanes);
                e.store(out, right, new_right, lanes);
                Ok(())
            })?;
            if self.turned == self.width {
                return Ok(());
            }
            let rest = e.ins().iadd_imm_s(first, i64::from(self.turned));
            e.for_columns(others, |e, col, lanes| {
                let col = e.ins().iadd(rest, col);
                let value = e.load(x, col, lanes);
                e.store(out, col, value, lanes);
                Ok(())
            })
        })
    }
}
