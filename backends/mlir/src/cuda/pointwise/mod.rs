//! Pointwise programs over groups of neighbouring columns: epilogues and maps.

mod check;

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Access, Kernel, Slot, View};
use skipc_plan::pointwise::{Binary, Inst, Pointwise, Reg, Store, Unary};

use super::place;
use crate::code::{Arith, Bool, Code, Float, I32, Int, math::Precision};
use crate::error::Error;

/// A program that was checked against its kernel.
#[derive(Clone, Copy)]
pub(super) struct Program<'p> {
    kernel: &'p Kernel,
    program: &'p Pointwise,
    precision: Precision,
    /// Columns of a group.
    pub(super) width: u32,
}

/// Sums that a program asks for.
#[derive(Clone, Copy)]
pub(super) struct Sum {
    pub(super) number: u32,
    /// The width of heads, if it is their `rotate_half`, as [`Inst::AccRotated`] says.
    pub(super) turned: Option<u32>,
}

/// The columns of one group.
pub(super) struct GroupPosition<'c> {
    /// A row that exists.
    pub(super) row: Int<'c>,
    /// The first column, of a group that exists.
    pub(super) col: Int<'c>,
    /// Are they the thread's own? Otherwise they are another thread's, and nothing is stored.
    pub(super) inside: Bool<'c>,
}

impl<'p> Program<'p> {
    /// Checks a program of `cols` columns with `n_sums` sums.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it names what does not exist or reads what another thread of the
    /// kernel writes.
    pub(super) fn new(
        kernel: &'p Kernel,
        program: &'p Pointwise,
        cols: u32,
        n_sums: u32,
    ) -> Result<Self, Error> {
        check::check(kernel, program, cols, n_sums)?;
        let mut numbers = vec![cols];
        for inst in &program.code {
            match inst {
                Inst::Load(view) => numbers.extend([view.col, kernel.param(view.slot).cols]),
                Inst::LoadCol(slot) | Inst::LoadAt { table: slot, .. } => {
                    numbers.push(kernel.param(*slot).cols);
                }
                // Groups lie in one half of a head.
                Inst::AccRotated { width, .. } => numbers.push(width / 2),
                Inst::Acc(_) | Inst::LoadRow(_) | Inst::Unary(..) | Inst::Binary(..) => {}
            }
        }
        let mut precision = Precision::Bf16;
        for store in &program.stores {
            let param = kernel.param(store.to.slot);
            numbers.extend([store.to.col, param.cols]);
            if param.dtype == DType::F32 {
                precision = Precision::Full;
            }
        }
        Ok(Self { kernel, program, precision, width: place::group_width(numbers) })
    }

    /// Loads and computes for the group at a place: one list of values for each store. `sums`
    /// gives the group of sums.
    pub(super) fn evaluate<'c>(
        &self,
        code: &'c Code,
        at: &GroupPosition<'c>,
        sums: impl Fn(Sum) -> Vec<Float<'c>>,
    ) -> Vec<Vec<Float<'c>>> {
        let mut values: Vec<Vec<Float<'c>>> = Vec::with_capacity(self.program.code.len());
        for inst in &self.program.code {
            let value = match *inst {
                Inst::Acc(number) => sums(Sum { number, turned: None }),
                Inst::AccRotated { sum: number, width } => sums(Sum { number, turned: Some(width) }),
                Inst::Load(view) => self.load(code, view, at, at.col, self.width),
                Inst::LoadRow(view) => {
                    let first = code.int(0);
                    self.load(code, view, at, first, 1).repeat(self.width as usize)
                }
                Inst::LoadCol(slot) => {
                    let param = self.kernel.param(slot);
                    let at = place::along(code.param(slot.0), param.dtype, at.col);
                    place::load_group(at, param.dtype, self.width)
                }
                Inst::LoadAt { table, index } => self.load_at(code, table, index, at),
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
    pub(super) fn store<'c>(&self, code: &'c Code, at: &GroupPosition<'c>, values: &[Vec<Float<'c>>]) {
        for (Store { to, .. }, values) in self.program.stores.iter().zip(values) {
            let param = self.kernel.param(to.slot);
            place::store_group(place::element(code, param, *to, at.row, at.col), param.dtype, values);
        }
    }

    fn load_at<'c>(
        &self,
        code: &'c Code,
        table: Slot,
        index: View,
        at: &GroupPosition<'c>,
    ) -> Vec<Float<'c>> {
        let param = self.kernel.param(table);
        let row = place::element(code, self.kernel.param(index.slot), index, at.row, 0u32).load::<I32>();
        let view = View::dense(table);
        let start = place::row_start(code, param, view, row);
        place::load_group(place::along(start, param.dtype, at.col % param.cols), param.dtype, self.width)
    }

    fn load<'c>(
        &self,
        code: &'c Code,
        view: View,
        at: &GroupPosition<'c>,
        col: Int<'c>,
        width: u32,
    ) -> Vec<Float<'c>> {
        let param = self.kernel.param(view.slot);
        let load = || {
            let from = place::element(code, param, view, at.row, col);
            place::load_group(from, param.dtype, width)
        };
        if param.access == Access::Read {
            return load();
        }
        // What is updated in place is read by its own thread only: another's store would race with the load.
        code.either(at.inside, load, || vec![code.float(0.0); width as usize])
    }
}

fn unary(function: Unary, x: Float<'_>, precision: Precision) -> Float<'_> {
    match function {
        Unary::Gelu => x.gelu(precision),
        Unary::Relu => x.max_or_nan(0.0),
        Unary::Relu2 => {
            let positive = unary(Unary::Relu, x, precision);
            positive * positive
        }
        Unary::Silu => x.silu(precision),
        Unary::Sigmoid => x.sigmoid(precision),
        Unary::GeluErf => x.gelu_erf(),
        Unary::Tanh => x.tanh(Precision::Full),
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
