//! What a pointwise program must be for code to be generated.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Access, Kernel, Slot, View};
use skipc_plan::pointwise::{Inst, Pointwise, Reg, Store};

use super::super::place;
use crate::error::Error;

/// Checks a program of `cols` columns with `n_sums` sums.
///
/// # Errors
/// [`Error::Malformed`].
pub(super) fn check(kernel: &Kernel, program: &Pointwise, cols: u32, n_sums: u32) -> Result<(), Error> {
    for (place, inst) in program.code.iter().enumerate() {
        match *inst {
            Inst::Acc(sum) => check_sum(sum, n_sums)?,
            Inst::AccRotated { sum, width } => {
                check_sum(sum, n_sums)?;
                if width == 0 || !width.is_multiple_of(2) || !cols.is_multiple_of(width) {
                    return Err(Error::Malformed { what: format!("heads of {width} among {cols} columns") });
                }
            }
            Inst::Load(view) => check_load(kernel, program, view, cols)?,
            Inst::LoadRow(view) => check_load_row(kernel, program, view, cols)?,
            Inst::LoadCol(slot) => check_load_col(kernel, slot, cols)?,
            Inst::LoadAt { table, index } => check_load_at(kernel, table, index, cols)?,
            Inst::Unary(_, x) => check_reg(x, place)?,
            Inst::Binary(_, a, b) => check_reg(a, place).and(check_reg(b, place))?,
        }
    }
    for store in &program.stores {
        place::require_real(place::require_view(kernel, store.to, cols)?)?;
        check_reg(store.value, program.code.len())?;
    }
    Ok(())
}

fn check_reg(reg: Reg, defined: usize) -> Result<(), Error> {
    if (reg.0 as usize) < defined {
        return Ok(());
    }
    Err(Error::Malformed { what: format!("register {} is used before it is defined", reg.0) })
}

fn check_sum(sum: u32, n_sums: u32) -> Result<(), Error> {
    if sum < n_sums {
        return Ok(());
    }
    Err(Error::Malformed { what: format!("sum {sum} of {n_sums}") })
}

fn check_load(kernel: &Kernel, program: &Pointwise, view: View, cols: u32) -> Result<(), Error> {
    let param = place::require_view(kernel, view, cols)?;
    place::require_real(param)?;
    // Threads read their own columns only, so another offset would read a neighbour's.
    let moved = |store: &Store| store.to.slot == view.slot && store.to != view;
    if param.access != Access::Read && program.stores.iter().any(moved) {
        let what = format!("`{}` is read where another element is written", param.name);
        return Err(Error::Malformed { what });
    }
    Ok(())
}

fn check_load_row(kernel: &Kernel, program: &Pointwise, view: View, cols: u32) -> Result<(), Error> {
    // The number of a row of one column is the thread's own.
    if cols == 1 {
        return check_load(kernel, program, view, cols);
    }
    let param = place::require_view(kernel, view, 1)?;
    place::require_real(param)?;
    if param.access != Access::Read {
        let what = format!("`{}` is written and read as one number for each row", param.name);
        return Err(Error::Malformed { what });
    }
    Ok(())
}

fn check_load_col(kernel: &Kernel, slot: Slot, cols: u32) -> Result<(), Error> {
    let param = place::param(kernel, slot)?;
    place::require_real(param)?;
    if param.cols < cols {
        return Err(Error::Malformed { what: format!("`{}` has fewer than {cols} columns", param.name) });
    }
    Ok(())
}

fn check_load_at(kernel: &Kernel, table: Slot, index: View, cols: u32) -> Result<(), Error> {
    place::require(kernel, table, DType::F32)?;
    place::require_u32(kernel, index.slot)?;
    place::require_view(kernel, index, 1)?;
    let table = place::param(kernel, table)?;
    if table.cols == 0 || !cols.is_multiple_of(table.cols) {
        let (name, there) = (&table.name, table.cols);
        return Err(Error::Malformed { what: format!("{cols} columns from {there} of `{name}`") });
    }
    Ok(())
}
