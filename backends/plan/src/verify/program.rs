//! Pointwise programs.

use super::kernel::{Check, Kind};
use crate::error::Fault;
use crate::pointwise::{Inst, Pointwise, Reg, Unary};

/// Checks a program over `cols` columns in a kernel with this many sums.
pub(super) fn check(check: &mut Check<'_>, program: &Pointwise, cols: u32, n_sums: usize) {
    for (idx, inst) in program.code.iter().enumerate() {
        match *inst {
            Inst::Acc(acc) => check.sum(acc, n_sums),
            Inst::AccRotated { sum, width } => {
                check.sum(sum, n_sums);
                let fits = width > 0 && width.is_multiple_of(2) && cols.is_multiple_of(width);
                check.size("the width of a head", width, fits);
            }
            Inst::Load(view) => {
                check.read(view, cols, Kind::Real);
                check.tile_read(view);
            }
            Inst::LoadRow(view) => {
                check.read(view, 1, Kind::Real);
                if cols == 1 {
                    check.tile_read(view);
                }
            }
            Inst::LoadCol(slot) => check.constant(slot, 1, cols, Kind::F32),
            Inst::LoadAt { table, index } => {
                let width = check.param(table).map_or(0, |param| param.cols);
                check.constant(table, 1, width, Kind::F32);
                check.size("the columns of a table", width, width > 0 && cols.is_multiple_of(width));
                check.read(index, 1, Kind::U32);
            }
            Inst::Unary(function, x) => {
                if let Unary::Scale(by) = function
                    && !by.0.is_finite()
                {
                    check.faults.push(Fault::Size { what: "scale (as bits)", got: by.0.to_bits() });
                }
                register(check, idx, x);
            }
            Inst::Binary(_, a, b) => {
                register(check, idx, a);
                register(check, idx, b);
            }
        }
    }
    check.size("the number of stores", program.stores.len() as u32, !program.stores.is_empty());
    for store in &program.stores {
        check.store(store.to, cols, Kind::Real);
        register(check, program.code.len(), store.value);
    }
}

fn register(check: &mut Check<'_>, inst: usize, Reg(uses): Reg) {
    if uses as usize >= inst {
        check.faults.push(Fault::Register { inst, uses: uses as usize });
    }
}
