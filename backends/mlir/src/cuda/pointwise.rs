//! Pointwise programs over groups of neighbouring columns: epilogues and maps.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Access, Kernel, View};
use skipc_plan::pointwise::{Binary, Inst, Pointwise, Reg, Store, Unary};

use super::place;
use crate::code::{Arith, Bool, Code, Float, Int, math::Precision};
use crate::error::Error;

/// A program that was checked against its kernel.
pub(super) struct Program<'p> {
    kernel: &'p Kernel,
    program: &'p Pointwise,
    precision: Precision,
    /// Columns of a group.
    pub(super) width: u32,
}

/// The columns of one group.
pub(super) struct Place<'c> {
    /// A row that exists.
    pub(super) row: Int<'c>,
    /// The first column, of a group that exists.
    pub(super) col: Int<'c>,
    /// Are they the thread's own? Otherwise they are another thread's, and nothing is stored.
    pub(super) inside: Bool<'c>,
}

impl<'p> Program<'p> {
    /// Checks a program of `cols` columns with `accs` accumulators.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it names what does not exist or reads what another thread of the
    /// kernel writes.
    pub(super) fn new(
        kernel: &'p Kernel,
        program: &'p Pointwise,
        cols: u32,
        accs: u32,
    ) -> Result<Self, Error> {
        let mut numbers = vec![cols];
        for (place, inst) in (0u32..).zip(&program.code) {
            check(kernel, program, *inst, cols, accs, place)?;
            match inst {
                Inst::Load(view) => numbers.extend([view.col, place::param(kernel, view.slot)?.cols]),
                Inst::LoadCol(slot) => numbers.push(place::param(kernel, *slot)?.cols),
                Inst::Acc(_) | Inst::LoadRow(_) | Inst::Unary(..) | Inst::Binary(..) => {}
            }
        }
        let mut precision = Precision::Bf16;
        for store in &program.stores {
            let param = place::require_view(kernel, store.to, cols)?;
            place::require_real(param)?;
            check_reg(store.value, program.code.len())?;
            numbers.extend([store.to.col, param.cols]);
            if param.dtype == DType::F32 {
                precision = Precision::Full;
            }
        }
        Ok(Self { kernel, program, precision, width: place::group_width(numbers) })
    }

    /// Loads and computes for the group at a place: one list of values for each store. `acc` gives
    /// the group of an accumulator.
    pub(super) fn evaluate<'c>(
        &self,
        code: &'c Code,
        at: &Place<'c>,
        acc: impl Fn(u32) -> Vec<Float<'c>>,
    ) -> Vec<Vec<Float<'c>>> {
        let mut values: Vec<Vec<Float<'c>>> = Vec::with_capacity(self.program.code.len());
        for inst in &self.program.code {
            let value = match *inst {
                Inst::Acc(weight) => acc(weight),
                Inst::Load(view) => self.load(code, view, at),
                Inst::LoadRow(view) => {
                    let param = self.kernel.param(view.slot);
                    let at = place::element(code, param, view, at.row, 0u32);
                    place::load_group(at, param.dtype, 1).repeat(self.width as usize)
                }
                Inst::LoadCol(slot) => {
                    let param = self.kernel.param(slot);
                    let at = place::along(code.param(slot.0), param.dtype, at.col);
                    place::load_group(at, param.dtype, self.width)
                }
                Inst::Unary(function, Reg(x)) => {
                    values[x as usize].iter().map(|x| unary(function, *x, self.precision)).collect()
                }
                Inst::Binary(function, Reg(a), Reg(b)) => {
                    let (a, b) = (&values[a as usize], &values[b as usize]);
                    a.iter().zip(b).map(|(a, b)| binary(function, *a, *b)).collect()
                }
            };
            values.push(value);
        }
        self.program.stores.iter().map(|store| values[store.value.0 as usize].clone()).collect()
    }

    /// Stores what [`Program::evaluate`] gave for that place.
    pub(super) fn store<'c>(&self, code: &'c Code, at: &Place<'c>, values: &[Vec<Float<'c>>]) {
        for (Store { to, .. }, values) in self.program.stores.iter().zip(values) {
            let param = self.kernel.param(to.slot);
            place::store_group(place::element(code, param, *to, at.row, at.col), param.dtype, values);
        }
    }

    fn load<'c>(&self, code: &'c Code, view: View, at: &Place<'c>) -> Vec<Float<'c>> {
        let param = self.kernel.param(view.slot);
        let load = || {
            let from = place::element(code, param, view, at.row, at.col);
            place::load_group(from, param.dtype, self.width)
        };
        if param.access == Access::Read {
            return load();
        }
        // What is updated in place is read by its own thread only: another's store would race with the load.
        code.either(at.inside, load, || vec![code.float(0.0); self.width as usize])
    }
}

fn check_reg(reg: Reg, defined: usize) -> Result<(), Error> {
    if (reg.0 as usize) < defined {
        return Ok(());
    }
    Err(Error::Malformed { what: format!("register {} is used before it is defined", reg.0) })
}

fn check(
    kernel: &Kernel,
    program: &Pointwise,
    inst: Inst,
    cols: u32,
    accs: u32,
    place: u32,
) -> Result<(), Error> {
    match inst {
        Inst::Acc(weight) if weight < accs => Ok(()),
        Inst::Acc(weight) => Err(Error::Malformed { what: format!("accumulator {weight} of {accs}") }),
        Inst::Load(view) => {
            let param = place::require_view(kernel, view, cols)?;
            place::require_real(param)?;
            // Threads read their own columns only, so another offset would read a neighbour's.
            let moved = |store: &Store| store.to.slot == view.slot && store.to != view;
            if param.access != Access::Read && program.stores.iter().any(moved) {
                return Err(Error::Malformed {
                    what: format!("`{}` is read where another element is written", param.name),
                });
            }
            Ok(())
        }
        Inst::LoadRow(view) => {
            let param = place::require_view(kernel, view, 1)?;
            place::require_real(param)?;
            if param.access != Access::Read {
                return Err(Error::Malformed {
                    what: format!("`{}` is written and read as one number for each row", param.name),
                });
            }
            Ok(())
        }
        Inst::LoadCol(slot) => {
            let param = place::param(kernel, slot)?;
            place::require_real(param)?;
            if param.cols < cols {
                return Err(Error::Malformed {
                    what: format!("`{}` has fewer than {cols} columns", param.name),
                });
            }
            Ok(())
        }
        Inst::Unary(_, x) => check_reg(x, place as usize),
        Inst::Binary(_, a, b) => check_reg(a, place as usize).and(check_reg(b, place as usize)),
    }
}

fn unary(function: Unary, x: Float<'_>, precision: Precision) -> Float<'_> {
    match function {
        Unary::Gelu => x.gelu(precision),
        Unary::Relu => x.max(0.0),
        Unary::Silu => x.silu(precision),
        Unary::Sigmoid => x.sigmoid(precision),
        Unary::OneMinus => x.constant(1.0) - x,
        Unary::Scale(by) => x * by.into_inner() as f32,
    }
}

fn binary<'c>(function: Binary, a: Float<'c>, b: Float<'c>) -> Float<'c> {
    match function {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
    }
}
