//! Pointwise programs to code: once for each row what is the same in all of its columns, then a loop over columns.

use cranelift_codegen::ir::Value;
use skipc_artifact::target::DType;
use skipc_plan::pointwise::{Inst, Pointwise, Reg};

use crate::emit::{Columns, Emitter, Lanes};
use crate::error::Fault;
use crate::memory::Row;

/// The part of a row that a program runs over.
pub(crate) struct RowSpan<'s> {
    /// Logical row.
    pub(crate) row: Value,
    /// First column, as an index; `None` if it is 0.
    pub(crate) first: Option<Value>,
    /// How many columns.
    pub(crate) columns: Columns,
    /// Address of the sums for this row's first column, for each weight.
    pub(crate) sums: &'s [Value],
}

/// What a result is, once a row is known.
#[derive(Clone, Copy)]
enum Source {
    /// The same number in all columns.
    Uniform(Value),
    /// Elements from memory; they lie at the program's columns.
    Elements(Row),
    /// Elements of the scratch memory, which begin at the span's first column.
    Sums(Row),
    /// Computed anew in each column.
    Computed,
}

impl Emitter<'_> {
    /// Runs a program over a span of one row.
    pub(crate) fn pointwise(&mut self, program: &Pointwise, span: &RowSpan<'_>) -> Result<(), Fault> {
        let mut sources = Vec::with_capacity(program.code.len());
        for inst in &program.code {
            let source = self.source(*inst, &sources, span)?;
            sources.push(source);
        }
        let targets: Vec<(Row, Reg)> = program
            .stores
            .iter()
            .map(|store| Ok((self.row(store.to, span.row)?, store.value)))
            .collect::<Result<_, Fault>>()?;

        self.for_columns(span.columns, |e, col, lanes| {
            let at = match span.first {
                Some(first) => cranelift_codegen::ir::InstBuilder::iadd(e.ins(), first, col),
                None => col,
            };
            let mut values = Vec::with_capacity(program.code.len());
            for (inst, source) in program.code.iter().zip(&sources) {
                let value = match source {
                    Source::Uniform(scalar) => e.splat(*scalar, lanes),
                    Source::Elements(row) => e.load(*row, at, lanes),
                    Source::Sums(row) => e.load(*row, col, lanes),
                    Source::Computed => e.compute(*inst, &values, lanes)?,
                };
                values.push(value);
            }
            for (row, reg) in &targets {
                e.store(*row, at, value_of(*reg, &values)?, lanes);
            }
            Ok(())
        })
    }

    fn source(&mut self, inst: Inst, earlier: &[Source], span: &RowSpan<'_>) -> Result<Source, Fault> {
        let uniform = |reg: Reg| match value_of(reg, earlier)? {
            Source::Uniform(value) => Ok::<_, Fault>(Some(value)),
            _ => Ok(None),
        };
        Ok(match inst {
            Inst::Acc(weight) => {
                let missing = || Fault::Malformed(format!("there is no sum {weight}"));
                let address = *span.sums.get(weight as usize).ok_or_else(missing)?;
                Source::Sums(Row { address, dtype: DType::F32 })
            }
            Inst::Load(view) => Source::Elements(self.row(view, span.row)?),
            Inst::LoadRow(view) => {
                let row = self.row(view, span.row)?;
                let zero = self.int(0);
                Source::Uniform(self.load(row, zero, Lanes::One))
            }
            Inst::LoadCol(slot) => Source::Elements(self.only_row(slot)?),
            Inst::Unary(function, x) => match uniform(x)? {
                Some(x) => Source::Uniform(self.unary(function, x, Lanes::One)),
                None => Source::Computed,
            },
            Inst::Binary(function, a, b) => match (uniform(a)?, uniform(b)?) {
                (Some(a), Some(b)) => Source::Uniform(self.binary(function, a, b)),
                _ => Source::Computed,
            },
        })
    }

    fn compute(&mut self, inst: Inst, values: &[Value], lanes: Lanes) -> Result<Value, Fault> {
        match inst {
            Inst::Unary(function, x) => Ok(self.unary(function, value_of(x, values)?, lanes)),
            Inst::Binary(function, a, b) => {
                Ok(self.binary(function, value_of(a, values)?, value_of(b, values)?))
            }
            Inst::Acc(_) | Inst::Load(_) | Inst::LoadRow(_) | Inst::LoadCol(_) => {
                Err(Fault::Malformed("a load was taken for a computation".to_owned()))
            }
        }
    }
}

/// A program over whole rows, for kernels without sums.
pub(crate) fn map(e: &mut Emitter<'_>, cols: u32, program: &Pointwise, row: Value) -> Result<(), Fault> {
    let columns = e.columns(cols);
    e.pointwise(program, &RowSpan { row, first: None, columns, sums: &[] })
}

fn value_of<T: Copy>(Reg(reg): Reg, values: &[T]) -> Result<T, Fault> {
    let missing = || Fault::Malformed(format!("result {reg} is used before it exists"));
    values.get(reg as usize).copied().ok_or_else(missing)
}
