//! Pointwise programs over groups of neighbouring columns: epilogues and maps.

mod check;

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Access, Kernel, Rows, Slot, View};
use skipc_plan::pointwise::{Binary, Inst, Pointwise, Reg, Store, Unary};

use super::place;
use crate::code::{Arith, Bool, Code, Float, GPtr, I32, Int, math::Precision};
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

/// What a program needs of a row, whichever columns: worked out once, since the compiler cannot tell that nothing stored in
/// between changes it.
pub(super) struct OfRow<'c> {
    code: Vec<Bound<'c>>,
    /// The beginning of the row that each store writes.
    targets: Vec<GPtr<'c>>,
}

/// An instruction of which everything is known but the columns.
#[derive(Clone, Copy)]
enum Bound<'c> {
    Sum(Sum),
    /// Elements of a row of a view, which begins there.
    Load(View, GPtr<'c>),
    /// The row's first element.
    LoadFirst(View, GPtr<'c>),
    /// Elements of a row of a table, which repeats.
    LoadRepeated(Slot, GPtr<'c>),
    /// A number that is the same in all columns.
    Uniform(Float<'c>),
    LoadCol(Slot),
    Unary(Unary, Reg),
    Binary(Binary, Reg, Reg),
}

/// The columns of one group.
pub(super) struct GroupPosition<'r, 'c> {
    /// Of a row that exists.
    pub(super) of_row: &'r OfRow<'c>,
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

    /// What it needs of a row that exists.
    pub(super) fn of_row<'c>(&self, code: &'c Code, row: Int<'c>) -> OfRow<'c> {
        let mut listed: Vec<(Rows, Int<'c>)> = Vec::new();
        let mut physical = |rows: Rows| match listed.iter().find(|(known, _)| *known == rows) {
            Some((_, physical)) => *physical,
            None => {
                let physical = place::physical(code, rows, row);
                listed.push((rows, physical));
                physical
            }
        };
        let mut start = |view: View| {
            let physical = physical(view.rows);
            place::row_start(code, self.kernel.param(view.slot), view, physical)
        };
        let mut bound = |inst: &Inst| match *inst {
            Inst::Acc(number) => Bound::Sum(Sum { number, turned: None }),
            Inst::AccRotated { sum: number, width } => Bound::Sum(Sum { number, turned: Some(width) }),
            Inst::Load(view) => Bound::Load(view, start(view)),
            Inst::LoadRow(view) => {
                let (from, param) = (start(view), self.kernel.param(view.slot));
                match param.access {
                    Access::Read => Bound::Uniform(place::load_group(from, param.dtype, 1)[0]),
                    // Loaded where it is known whose it is.
                    Access::Write | Access::ReadWrite => Bound::LoadFirst(view, from),
                }
            }
            Inst::LoadAt { table, index } => {
                let row = start(index).load::<I32>();
                let from = place::row_start(code, self.kernel.param(table), View::dense(table), row);
                Bound::LoadRepeated(table, from)
            }
            Inst::LoadCol(slot) => Bound::LoadCol(slot),
            Inst::Unary(function, x) => Bound::Unary(function, x),
            Inst::Binary(function, a, b) => Bound::Binary(function, a, b),
        };
        let bound = self.program.code.iter().map(&mut bound).collect();
        OfRow { code: bound, targets: self.program.stores.iter().map(|store| start(store.to)).collect() }
    }

    /// Loads and computes for the group at a place: one list of values for each store. `sums`
    /// gives the group of sums.
    pub(super) fn evaluate<'c>(
        &self,
        code: &'c Code,
        at: &GroupPosition<'_, 'c>,
        sums: impl Fn(Sum) -> Vec<Float<'c>>,
    ) -> Vec<Vec<Float<'c>>> {
        let width = self.width;
        let mut values: Vec<Vec<Float<'c>>> = Vec::with_capacity(self.program.code.len());
        for bound in &at.of_row.code {
            let value = match *bound {
                Bound::Sum(sum) => sums(sum),
                Bound::Load(view, start) => self.load(code, (view, start), at, at.col, width),
                Bound::LoadFirst(view, start) => {
                    self.load(code, (view, start), at, code.int(0), 1).repeat(width as usize)
                }
                Bound::LoadRepeated(table, start) => {
                    let param = self.kernel.param(table);
                    place::load_group(
                        place::along(start, param.dtype, at.col % param.cols),
                        param.dtype,
                        width,
                    )
                }
                Bound::Uniform(value) => vec![value; width as usize],
                Bound::LoadCol(slot) => {
                    let param = self.kernel.param(slot);
                    place::load_group(
                        place::along(code.param(slot.0), param.dtype, at.col),
                        param.dtype,
                        width,
                    )
                }
                Bound::Unary(function, Reg(x)) => {
                    values[x as usize].iter().map(|x| unary(function, *x, self.precision)).collect()
                }
                Bound::Binary(function, Reg(a), Reg(b)) => {
                    let (a, b) = (&values[a as usize], &values[b as usize]);
                    a.iter().zip(b).map(|(a, b)| binary(function, *a, *b)).collect()
                }
            };
            values.push(value);
        }
        self.program.stores.iter().map(|store| values[store.value.0 as usize].clone()).collect()
    }

    /// Stores what [`Program::evaluate`] gave for that place.
    pub(super) fn store<'c>(&self, at: &GroupPosition<'_, 'c>, values: &[Vec<Float<'c>>]) {
        for ((Store { to, .. }, start), values) in
            self.program.stores.iter().zip(&at.of_row.targets).zip(values)
        {
            let dtype = self.kernel.param(to.slot).dtype;
            place::store_group(place::along(*start, dtype, at.col), dtype, values);
        }
    }

    fn load<'c>(
        &self,
        code: &'c Code,
        (view, start): (View, GPtr<'c>),
        at: &GroupPosition<'_, 'c>,
        col: Int<'c>,
        width: u32,
    ) -> Vec<Float<'c>> {
        let param = self.kernel.param(view.slot);
        let load = || place::load_group(place::along(start, param.dtype, col), param.dtype, width);
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
