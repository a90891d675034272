//! Pointwise programs: once for each row what is the same in all of its columns, then a loop over columns.

use skipc_artifact::target::DType;
use skipc_plan::pointwise::{Inst, Pointwise, Reg};

use super::code::{Code, Columns, Int, Lanes, Made, Ptr};
use super::fault::Fault;
use super::frame::{Frame, Row};

/// Registers of the widest vectors. GELU of the sums of a matmul takes a third less time with four than with two; eight, of which
/// many are spilled, gain nothing.
const MOST_REGISTERS: u32 = 4;

/// The part of a row that a program runs over.
pub(crate) struct RowSpan<'s, 'c> {
    /// Logical row.
    pub(crate) row: Int<'c>,
    /// First column.
    pub(crate) first: Int<'c>,
    /// How many columns.
    pub(crate) columns: Columns<'c>,
    /// Address of each sum in this row's first column.
    pub(crate) sums: &'s [Ptr<'c>],
}

/// What a result is, once a row is known.
#[derive(Clone, Copy)]
enum Source<'c> {
    /// The same number in all columns.
    Uniform(Lanes<'c>),
    /// Elements of a row, at the program's columns.
    Elements(Row<'c>),
    /// Sums, which begin at the span's first column.
    Sums(Row<'c>),
    /// `rotate_half` of those, in heads of this width.
    Rotated(Row<'c>, u32),
    /// Elements that repeat after this many columns.
    Repeated(Row<'c>, u32),
    /// Computed anew in each column.
    Computed,
}

impl<'c> Frame<'_, 'c> {
    /// Runs a program over a span of one row.
    pub(crate) fn pointwise(&self, program: &Pointwise, span: &RowSpan<'_, 'c>) -> Made<()> {
        let mut sources = Vec::with_capacity(program.code.len());
        for inst in &program.code {
            sources.push(self.source(*inst, &sources, span)?);
        }
        let mut targets = Vec::with_capacity(program.stores.len());
        for store in &program.stores {
            targets.push((self.row(store.to, span.row)?, store.value));
        }
        let widest = self.width_of(program, span.columns.unit)?;
        self.for_columns(span.columns, widest, |col, lanes| {
            let at = self.add(span.first, col)?;
            let mut values: Vec<Lanes<'c>> = Vec::with_capacity(sources.len());
            for (inst, source) in program.code.iter().zip(&sources) {
                values.push(match *source {
                    Source::Uniform(scalar) => self.splat(scalar, lanes)?,
                    Source::Elements(row) => self.load(row, at, lanes)?,
                    Source::Sums(row) => self.load(row, col, lanes)?,
                    Source::Rotated(row, width) => self.rotated(row, col, width, lanes)?,
                    Source::Repeated(row, width) => self.load(row, self.modulo(at, width)?, lanes)?,
                    Source::Computed => compute(self, *inst, &values)?,
                });
            }
            // All loads of an element happen before its stores.
            targets.iter().try_for_each(|(row, reg)| self.store(*row, at, value_of(*reg, &values)?))
        })
    }

    /// The widest vectors of which none belongs to two halves of a head or to two rounds of a table. Those of several registers
    /// go through long functions in little more time than one, as the steps of each wait for those before them.
    fn width_of(&self, program: &Pointwise, columns: u32) -> Made<u32> {
        let lanes = self.level.lanes;
        let mut unit = MOST_REGISTERS * lanes;
        while unit > lanes && !columns.is_multiple_of(unit) {
            unit /= 2;
        }
        for inst in &program.code {
            let period = match *inst {
                Inst::AccRotated { width, .. } => width / 2,
                Inst::LoadAt { table, .. } => self.param(table)?.cols,
                _ => continue,
            };
            while unit > 1 && !period.is_multiple_of(unit) {
                unit /= 2;
            }
        }
        Ok(unit)
    }

    /// `rotate_half` of the sums at these columns, which lie in one half of a head.
    fn rotated(&self, sums: Row<'c>, col: Int<'c>, width: u32, lanes: u32) -> Made<Lanes<'c>> {
        let half = i64::from(width / 2);
        let is_first = self.below(self.modulo(col, width)?, self.int(half))?;
        let partner = self.select(is_first, self.plus(col, half)?, self.plus(col, -half)?)?;
        let sign = self.select(is_first, self.real(-1.0, lanes), self.real(1.0, lanes))?;
        self.fmul(self.load(sums, partner, lanes)?, sign)
    }

    fn source(&self, inst: Inst, earlier: &[Source<'c>], span: &RowSpan<'_, 'c>) -> Made<Source<'c>> {
        let sum = |sum: u32| {
            let missing = || Fault::Malformed(format!("there is no sum {sum}"));
            let address = *span.sums.get(sum as usize).ok_or_else(missing)?;
            Ok::<_, Fault>(Row { address, dtype: DType::F32 })
        };
        let uniform = |reg: Reg| match value_of(reg, earlier)? {
            Source::Uniform(value) => Ok::<_, Fault>(Some(value)),
            _ => Ok(None),
        };
        Ok(match inst {
            Inst::Acc(idx) => Source::Sums(sum(idx)?),
            Inst::AccRotated { sum: idx, width } => Source::Rotated(sum(idx)?, width),
            Inst::LoadAt { table, index } => {
                let (row, width) = (self.load_index(index, span.row)?, self.param(table)?.cols);
                Source::Repeated(self.dense_row(table, row)?, width)
            }
            Inst::Load(view) => Source::Elements(self.row(view, span.row)?),
            Inst::LoadRow(view) => Source::Uniform(self.load(self.row(view, span.row)?, self.int(0), 1)?),
            Inst::LoadCol(slot) => Source::Elements(self.only_row(slot)?),
            Inst::Unary(function, x) => match uniform(x)? {
                Some(x) => Source::Uniform(self.unary(function, x)?),
                None => Source::Computed,
            },
            Inst::Binary(function, a, b) => match (uniform(a)?, uniform(b)?) {
                (Some(a), Some(b)) => Source::Uniform(self.binary(function, a, b)?),
                _ => Source::Computed,
            },
        })
    }
}

fn compute<'c>(code: &Code<'c>, inst: Inst, values: &[Lanes<'c>]) -> Made<Lanes<'c>> {
    match inst {
        Inst::Unary(function, x) => code.unary(function, value_of(x, values)?),
        Inst::Binary(function, a, b) => code.binary(function, value_of(a, values)?, value_of(b, values)?),
        Inst::Acc(_)
        | Inst::AccRotated { .. }
        | Inst::Load(_)
        | Inst::LoadRow(_)
        | Inst::LoadCol(_)
        | Inst::LoadAt { .. } => Err(Fault::Malformed("a load was taken for a computation".to_owned())),
    }
}

fn value_of<T: Copy>(Reg(reg): Reg, values: &[T]) -> Made<T> {
    let missing = || Fault::Malformed(format!("result {reg} is used before it exists"));
    values.get(reg as usize).copied().ok_or_else(missing)
}

/// Columns of the heads whose halves a program exchanges.
pub(crate) fn heads_width(program: &Pointwise) -> Option<u32> {
    program.code.iter().find_map(|inst| match inst {
        Inst::AccRotated { width, .. } => Some(*width),
        _ => None,
    })
}
