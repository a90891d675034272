//! Pointwise programs to code: once for each row what is the same in all of its columns, then a loop over columns.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};
use skipc_artifact::abi::Function;
use skipc_artifact::target::DType;
use skipc_plan::pointwise::{Inst, Pointwise, Reg};

use crate::emit::{Columns, Emitter, Lanes};
use crate::error::Fault;
use crate::math::function_of;
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
    /// Address of scratch memory for the columns, for each function of the program that a helper computes.
    pub(crate) functions: &'s [Value],
}

impl RowSpan<'_> {
    /// The sums over one weight.
    fn sum(&self, sum: u32) -> Result<Row, Fault> {
        let missing = || Fault::Malformed(format!("there is no sum {sum}"));
        let address = *self.sums.get(sum as usize).ok_or_else(missing)?;
        Ok(Row { address, dtype: DType::F32 })
    }
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
    /// `rotate_half` of those, in heads of this width.
    Rotated(Row, u32),
    /// Elements that repeat after this many columns.
    Repeated(Row, u32),
    /// Computed anew in each column.
    Computed,
}

impl Emitter<'_> {
    /// Runs a program over a span of one row.
    pub(crate) fn pointwise(&mut self, program: &Pointwise, span: &RowSpan<'_>) -> Result<(), Fault> {
        let mut sources = Vec::with_capacity(program.code.len());
        let mut scratch = span.functions.iter();
        for inst in &program.code {
            let function = match *inst {
                Inst::Unary(unary, x) => function_of(unary).map(|function| (function, x)),
                _ => None,
            };
            let source = match function {
                Some((function, x)) => {
                    let missing = || Fault::Malformed("a function has no scratch memory".to_owned());
                    let to = *scratch.next().ok_or_else(missing)?;
                    self.function(program, (function, x, to), &sources, span)?
                }
                None => self.source(*inst, &sources, span)?,
            };
            sources.push(source);
        }
        let targets: Vec<(Row, Reg)> = program
            .stores
            .iter()
            .map(|store| Ok((self.row(store.to, span.row)?, store.value)))
            .collect::<Result<_, Fault>>()?;
        let wanted: Vec<Reg> = targets.iter().map(|(_, reg)| *reg).collect();
        self.elements(program, (&sources, span), &wanted, |e, at, _, values, lanes| {
            for ((row, _), value) in targets.iter().zip(values) {
                e.store(*row, at, *value, lanes);
            }
        })
    }

    /// Has a helper compute a function of an earlier result, for all columns of the span.
    fn function(
        &mut self,
        program: &Pointwise,
        (function, x, to): (Function, Reg, Value),
        sources: &[Source],
        span: &RowSpan<'_>,
    ) -> Result<Source, Fault> {
        let row = Row { address: to, dtype: DType::F32 };
        if let Source::Uniform(x) = value_of(x, sources)? {
            let (first, one) = (self.int(0), self.int(1));
            self.store(row, first, x, Lanes::One);
            self.map(function, to, one);
            return Ok(Source::Uniform(self.load(row, first, Lanes::One)));
        }
        self.elements(program, (sources, span), &[x], |e, _, col, values, lanes| {
            values.iter().for_each(|value| e.store(row, col, *value, lanes));
        })?;
        self.map(function, to, span.columns.count);
        Ok(Source::Sums(row))
    }

    /// Runs over the columns of the span; `each` gets a column among those of the program and of the span, and the wanted
    /// results there.
    fn elements(
        &mut self,
        program: &Pointwise,
        (sources, span): (&[Source], &RowSpan<'_>),
        wanted: &[Reg],
        mut each: impl FnMut(&mut Self, Value, Value, &[Value], Lanes),
    ) -> Result<(), Fault> {
        let needed = needed(program, sources, wanted)?;
        self.for_vectors(program, span.columns, |e, col, lanes| {
            let at = match span.first {
                Some(first) => e.ins().iadd(first, col),
                None => col,
            };
            let mut values: Vec<Option<Value>> = Vec::with_capacity(sources.len());
            for ((inst, source), is_needed) in program.code.iter().zip(sources).zip(&needed) {
                let value = match source {
                    _ if !is_needed => None,
                    Source::Uniform(scalar) => Some(e.splat(*scalar, lanes)),
                    Source::Elements(row) => Some(e.load(*row, at, lanes)),
                    Source::Sums(row) => Some(e.load(*row, col, lanes)),
                    Source::Rotated(row, width) => Some(e.rotated(*row, col, *width, lanes)),
                    Source::Repeated(row, width) => {
                        let col = e.modulo(at, *width);
                        Some(e.load(*row, col, lanes))
                    }
                    Source::Computed => Some(e.compute(*inst, &values, lanes)?),
                };
                values.push(value);
            }
            let wanted: Vec<Value> =
                wanted.iter().map(|reg| known(*reg, &values)).collect::<Result<_, _>>()?;
            each(e, at, col, &wanted, lanes);
            Ok(())
        })
    }

    /// Runs `body` over columns; one at a time if four of them may belong to two heads or two rounds of a table.
    fn for_vectors(
        &mut self,
        program: &Pointwise,
        columns: Columns,
        mut body: impl FnMut(&mut Self, Value, Lanes) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut fits = true;
        for inst in &program.code {
            fits &= match *inst {
                Inst::AccRotated { width, .. } => (width / 2).is_multiple_of(4),
                Inst::LoadAt { table, .. } => self.param(table)?.cols.is_multiple_of(4),
                _ => true,
            };
        }
        if fits {
            return self.for_columns(columns, body);
        }
        let zero = self.int(0);
        self.for_each(zero, columns.count, 1, |e, col| body(e, col, Lanes::One))
    }

    /// `col mod width`.
    fn modulo(&mut self, col: Value, width: u32) -> Value {
        match width.is_power_of_two() {
            true => self.ins().band_imm_s(col, i64::from(width) - 1),
            false => {
                let width = self.int(i64::from(width.max(1)));
                self.ins().urem(col, width)
            }
        }
    }

    /// `rotate_half` of the sums at these columns, which lie in one half of a head.
    fn rotated(&mut self, sums: Row, col: Value, width: u32, lanes: Lanes) -> Value {
        let half = i64::from(width / 2);
        let in_head = self.modulo(col, width);
        let is_first = self.ins().icmp_imm_u(IntCC::UnsignedLessThan, in_head, half);
        let (after, before) = (self.ins().iadd_imm_s(col, half), self.ins().iadd_imm_s(col, -half));
        let partner = self.ins().select(is_first, after, before);
        let (minus, plus) = (self.real(-1.0, Lanes::One), self.real(1.0, Lanes::One));
        let sign = self.ins().select(is_first, minus, plus);
        let (value, sign) = (self.load(sums, partner, lanes), self.splat(sign, lanes));
        self.ins().fmul(value, sign)
    }

    fn source(&mut self, inst: Inst, earlier: &[Source], span: &RowSpan<'_>) -> Result<Source, Fault> {
        let uniform = |reg: Reg| match value_of(reg, earlier)? {
            Source::Uniform(value) => Ok::<_, Fault>(Some(value)),
            _ => Ok(None),
        };
        Ok(match inst {
            Inst::Acc(sum) => Source::Sums(span.sum(sum)?),
            Inst::AccRotated { sum, width } => Source::Rotated(span.sum(sum)?, width),
            Inst::LoadAt { table, index } => {
                let (row, width) = (self.load_index(index, span.row)?, self.param(table)?.cols);
                Source::Repeated(self.dense_row(table, row)?, width)
            }
            Inst::Load(view) => Source::Elements(self.row(view, span.row)?),
            Inst::LoadRow(view) => {
                let row = self.row(view, span.row)?;
                let zero = self.int(0);
                Source::Uniform(self.load(row, zero, Lanes::One))
            }
            Inst::LoadCol(slot) => Source::Elements(self.only_row(slot)?),
            Inst::Unary(function, x) => match uniform(x)? {
                Some(x) => Source::Uniform(self.unary(function, x, Lanes::One)?),
                None => Source::Computed,
            },
            Inst::Binary(function, a, b) => match (uniform(a)?, uniform(b)?) {
                (Some(a), Some(b)) => Source::Uniform(self.binary(function, a, b)),
                _ => Source::Computed,
            },
        })
    }

    fn compute(&mut self, inst: Inst, values: &[Option<Value>], lanes: Lanes) -> Result<Value, Fault> {
        match inst {
            Inst::Unary(function, x) => self.unary(function, known(x, values)?, lanes),
            Inst::Binary(function, a, b) => Ok(self.binary(function, known(a, values)?, known(b, values)?)),
            Inst::Acc(_)
            | Inst::AccRotated { .. }
            | Inst::Load(_)
            | Inst::LoadRow(_)
            | Inst::LoadCol(_)
            | Inst::LoadAt { .. } => Err(Fault::Malformed("a load was taken for a computation".to_owned())),
        }
    }
}

/// Which results it takes to compute the wanted ones.
fn needed(program: &Pointwise, sources: &[Source], wanted: &[Reg]) -> Result<Vec<bool>, Fault> {
    let mut needed = vec![false; sources.len()];
    let mut waiting: Vec<Reg> = wanted.to_vec();
    while let Some(reg) = waiting.pop() {
        let source = value_of(reg, sources)?;
        if !std::mem::replace(&mut needed[reg.0 as usize], true) && matches!(source, Source::Computed) {
            match program.code[reg.0 as usize] {
                Inst::Unary(_, x) => waiting.push(x),
                Inst::Binary(_, a, b) => waiting.extend([a, b]),
                _ => {}
            }
        }
    }
    Ok(needed)
}

fn known(reg: Reg, values: &[Option<Value>]) -> Result<Value, Fault> {
    let missing = || Fault::Malformed(format!("result {} was not computed", reg.0));
    value_of(reg, values)?.ok_or_else(missing)
}

/// The functions of a program that helpers compute.
pub(crate) fn functions(program: &Pointwise) -> impl Iterator<Item = Function> + '_ {
    program.code.iter().filter_map(|inst| match inst {
        Inst::Unary(unary, _) => function_of(*unary),
        _ => None,
    })
}

/// Bytes of scratch memory for one function over so many columns.
pub(crate) fn row_bytes(cols: u32) -> u64 {
    (u64::from(cols) * 4).next_multiple_of(64)
}

/// Columns of the heads whose halves a program exchanges.
pub(crate) fn heads_width(program: &Pointwise) -> Option<u32> {
    program.code.iter().find_map(|inst| match inst {
        Inst::AccRotated { width, .. } => Some(*width),
        _ => None,
    })
}

/// A program over whole rows, for kernels without sums.
pub(crate) fn map(e: &mut Emitter<'_>, cols: u32, program: &Pointwise, row: Value) -> Result<(), Fault> {
    let (columns, scratch) = (e.columns(cols), e.scratch);
    let places = (0..functions(program).count() as u64).map(|idx| idx * row_bytes(cols));
    let functions: Vec<Value> = places.map(|at| e.ins().iadd_imm_s(scratch, at as i64)).collect();
    e.pointwise(program, &RowSpan { row, first: None, columns, sums: &[], functions: &functions })
}

fn value_of<T: Copy>(Reg(reg): Reg, values: &[T]) -> Result<T, Fault> {
    let missing = || Fault::Malformed(format!("result {reg} is used before it exists"));
    values.get(reg as usize).copied().ok_or_else(missing)
}
