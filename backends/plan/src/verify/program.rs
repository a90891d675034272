//! Pointwise programs.

use super::kernel::{Check, Kind};
use crate::error::Fault;
use crate::pointwise::{Inst, Pointwise, Reg, Unary};

/// Checks a program over `cols` columns in a kernel with this many sums.
pub(super) fn check(check: &mut Check<'_>, program: &Pointwise, cols: u32, n_sums: usize) {
    for (idx, inst) in program.code.iter().enumerate() {
        match *inst {
            Inst::Acc(acc) => {
                if acc as usize >= n_sums {
                    check.faults.push(Fault::Acc { acc, weights: n_sums });
                }
            }
            Inst::Load(view) => {
                check.read(view, cols, Kind::Real);
                check.tile_reads.push(view);
            }
            Inst::LoadRow(view) => {
                check.read(view, 1, Kind::Real);
                if cols == 1 {
                    check.tile_reads.push(view);
                }
            }
            Inst::LoadCol(slot) => check.constant(slot, 1, cols, Kind::F32),
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
