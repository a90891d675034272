//! Kernels as loops: statement by statement, columns in vectors of four.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F32, I32};
use cranelift_codegen::ir::{InstBuilder, Value};
use skipc_artifact::exponential::{EXP_NORMAL, EXP_TAIL, LN_2, ROUNDER};
use skipc_artifact::program::Extent;
use skipc_plan::kernel::{Kernel, View};
use skipc_plan::loops::{
    self, Expr, Function, Index, LN_SERIES, Local, Loops, Operator, Place, Reduction, Stmt,
};

use crate::emit::{Emitter, Lanes};
use crate::error::Fault;
use crate::memory::Row;

/// Rows of a tile: few where the rows are no tokens, each of which may be much work.
pub(crate) fn tile_rows(kernel: &Kernel) -> u32 {
    match kernel.extent {
        Extent::Fixed(rows) => rows.div_ceil(32).clamp(1, 64),
        Extent::Counted { .. } => 16,
    }
}

/// Emits what is done for a row.
pub(crate) fn emit_row(e: &mut Emitter<'_>, loops: &Loops, row: Value) -> Result<(), Fault> {
    let mut machine = Machine { row, locals: Vec::new(), rows: Vec::new() };
    machine.all(e, &loops.code, None)
}

/// A loop over columns: its variable, and how many columns a value holds.
type Columns = Option<(Local, Lanes)>;

struct Machine {
    row: Value,
    locals: Vec<Option<Value>>,
    /// Rows whose addresses are known.
    rows: Vec<(View, Index, Row)>,
}

impl Machine {
    fn set(&mut self, local: Local, value: Value) {
        let at = local.0 as usize;
        if at >= self.locals.len() {
            self.locals.resize(at + 1, None);
        }
        self.locals[at] = Some(value);
    }

    fn get(&self, local: Local) -> Result<Value, Fault> {
        let held = self.locals.get(local.0 as usize).copied().flatten();
        held.ok_or_else(|| Fault::Malformed(format!("variable {} holds nothing", local.0)))
    }

    fn index(&self, e: &mut Emitter<'_>, index: &Index) -> Result<Value, Fault> {
        Ok(match index {
            Index::Row => self.row,
            Index::Is(number) => e.int(i64::from(*number)),
            Index::Of(local) => self.get(*local)?,
            Index::Word(view, row) => {
                let row = self.index(e, row)?;
                e.load_index(*view, row)?
            }
            Index::Plus(a, b) => {
                let (a, b) = (self.index(e, a)?, self.index(e, b)?);
                e.ins().iadd(a, b)
            }
            Index::Times(a, by) => {
                let a = self.index(e, a)?;
                e.ins().imul_imm_s(a, i64::from(*by))
            }
            Index::Less(a, by) => {
                let (a, by) = (self.index(e, a)?, e.int(i64::from(*by)));
                let least = e.ins().umin(a, by);
                e.ins().isub(a, least)
            }
        })
    }

    /// The row of a place, and its column.
    fn place(&self, e: &mut Emitter<'_>, place: &Place) -> Result<(Row, Value), Fault> {
        let known = self.rows.iter().find(|(view, row, _)| *view == place.view && *row == place.row);
        let row = match known {
            Some((_, _, row)) => *row,
            None => {
                let row = self.index(e, &place.row)?;
                e.row(place.view, row)?
            }
        };
        Ok((row, self.index(e, &place.col)?))
    }

    /// A number for each lane.
    fn number(&self, e: &mut Emitter<'_>, expr: &Expr, columns: Columns) -> Result<Value, Fault> {
        let lanes = columns.map_or(Lanes::One, |(_, lanes)| lanes);
        Ok(match expr {
            Expr::Is(value) => e.real(value.0 as f32, lanes),
            Expr::Of(local) => {
                let value = self.get(*local)?;
                let is_one = e.builder.func.dfg.value_type(value) == F32;
                if is_one { e.splat(value, lanes) } else { value }
            }
            Expr::Load(place) => {
                let (row, col) = self.place(e, place)?;
                match columns {
                    Some((own, lanes)) if place.col.mentions(own) => e.load(row, col, lanes),
                    _ => {
                        let value = e.load(row, col, Lanes::One);
                        e.splat(value, lanes)
                    }
                }
            }
            Expr::Count(index) => {
                let count = self.index(e, index)?;
                let value = e.ins().fcvt_from_uint(F32, count);
                e.splat(value, lanes)
            }
            Expr::Call(function, x) => {
                let x = self.number(e, x, columns)?;
                call(e, *function, x, lanes)
            }
            Expr::Both(operator, a, b) => {
                let (a, b) = (self.number(e, a, columns)?, self.number(e, b, columns)?);
                match operator {
                    Operator::Add => e.ins().fadd(a, b),
                    Operator::Sub => e.ins().fsub(a, b),
                    Operator::Mul => e.ins().fmul(a, b),
                    Operator::Div => e.ins().fdiv(a, b),
                    Operator::Max => e.at_least(a, b, lanes),
                }
            }
            Expr::Slope(of, local) => {
                let slope = loops::slope(*of, &Expr::Of(*local));
                let slope = slope.ok_or_else(|| Fault::Malformed("a function without a slope".to_owned()))?;
                self.number(e, &slope, columns)?
            }
        })
    }

    fn all(&mut self, e: &mut Emitter<'_>, code: &[Stmt], columns: Columns) -> Result<(), Fault> {
        code.iter().try_for_each(|stmt| self.one(e, stmt, columns))
    }

    fn one(&mut self, e: &mut Emitter<'_>, stmt: &Stmt, columns: Columns) -> Result<(), Fault> {
        match stmt {
            Stmt::Let(local, expr) => {
                let value = self.number(e, expr, columns)?;
                self.set(*local, value);
            }
            Stmt::LetIndex(local, index) => {
                let value = self.index(e, index)?;
                self.set(*local, value);
            }
            Stmt::Store(place, expr) => {
                let value = self.number(e, expr, columns)?;
                let (row, col) = self.place(e, place)?;
                e.store(row, col, value, columns.map_or(Lanes::One, |(_, lanes)| lanes));
            }
            Stmt::Columns { col, cols, body } => {
                let within = || Fault::Malformed("a loop within columns".to_owned());
                let places = loops::places(body).ok_or_else(within)?;
                self.within(e, &places, |machine, e| {
                    let all = e.columns(*cols);
                    e.for_columns(all, |e, number, lanes| {
                        machine.set(*col, number);
                        machine.all(e, body, Some((*col, lanes)))
                    })
                })?;
            }
            Stmt::Reduce { to, how, col, cols, term } => {
                let mut places = Vec::new();
                term.places(&mut |place| places.push(place));
                let value =
                    self.within(e, &places, |machine, e| machine.reduce(e, *how, (*col, *cols), term))?;
                self.set(*to, value);
            }
            Stmt::For { idx, from, to, carried, body } => {
                let (begin, end) = (self.index(e, from)?, self.index(e, to)?);
                let first = carried.iter().map(|(_, first, _)| self.number(e, first, None));
                let first = first.collect::<Result<Vec<_>, _>>()?;
                let last = e.fold(begin, end, 1, &first, |e, number, values| {
                    self.set(*idx, number);
                    carried.iter().zip(values).for_each(|((local, ..), value)| self.set(*local, *value));
                    self.all(e, body, None)?;
                    carried.iter().map(|(_, _, next)| self.number(e, next, None)).collect()
                })?;
                carried.iter().zip(last).for_each(|((local, ..), value)| self.set(*local, value));
            }
            Stmt::Search { to, sequences, positions, rows, place } => {
                let (begin, end) = (e.int(0), self.index(e, rows)?);
                let (sequence, position) = (self.index(e, &place.0)?, self.index(e, &place.1)?);
                let found = e.repeat_while(
                    &[begin, end],
                    |e, range| Ok(e.ins().icmp(IntCC::UnsignedLessThan, range[0], range[1])),
                    |e, range| {
                        let sum = e.ins().iadd(range[0], range[1]);
                        let middle = e.ins().ushr_imm_u(sum, 1);
                        let own = e.load_index(*sequences, middle)?;
                        let at = e.load_index(*positions, middle)?;
                        let below = e.ins().icmp(IntCC::UnsignedLessThan, own, sequence);
                        let same = e.ins().icmp(IntCC::Equal, own, sequence);
                        let earlier = e.ins().icmp(IntCC::UnsignedLessThan, at, position);
                        let within = e.ins().band(same, earlier);
                        let is_before = e.ins().bor(below, within);
                        let next = e.ins().iadd_imm_s(middle, 1);
                        let begin = e.ins().select(is_before, next, range[0]);
                        let end = e.ins().select(is_before, range[1], middle);
                        Ok(vec![begin, end])
                    },
                )?;
                self.set(*to, found[0]);
            }
        }
        Ok(())
    }

    /// Runs `body` with the addresses of the rows of these places at hand.
    fn within<T>(
        &mut self,
        e: &mut Emitter<'_>,
        places: &[&Place],
        body: impl FnOnce(&mut Machine, &mut Emitter<'_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let known = self.rows.len();
        for place in places {
            let is_known = |(view, row, _): &(View, Index, Row)| *view == place.view && *row == place.row;
            if !self.rows.iter().any(is_known) {
                let row = self.index(e, &place.row)?;
                let row = e.row(place.view, row)?;
                self.rows.push((place.view, place.row.clone(), row));
            }
        }
        let result = body(self, e);
        self.rows.truncate(known);
        result
    }

    fn reduce(
        &mut self,
        e: &mut Emitter<'_>,
        how: Reduction,
        (local, cols): (Local, u32),
        term: &Expr,
    ) -> Result<Value, Fault> {
        let columns = e.columns(cols);
        if how == Reduction::Sum {
            let sums = e.sum_columns(columns, 1, |e, col, lanes| {
                self.set(local, col);
                Ok(vec![self.number(e, term, Some((local, lanes)))?])
            })?;
            return Ok(sums[0]);
        }
        let mut largest = |e: &mut Emitter<'_>, col: Value, before: &[Value], lanes: Lanes| {
            self.set(local, col);
            let value = self.number(e, term, Some((local, lanes)))?;
            Ok(vec![e.at_least(value, before[0], lanes)])
        };
        let (zero, split) = (e.int(0), e.whole_vectors(columns));
        let least = e.real(f32::MIN, Lanes::Four);
        let vector =
            e.fold(zero, split, 4, &[least], |e, col, before| largest(e, col, before, Lanes::Four))?;
        let swapped = e.shuffle(vector[0], vector[0], [2, 3, 0, 1]);
        let pairs = e.at_least(vector[0], swapped, Lanes::Four);
        let crossed = e.shuffle(pairs, pairs, [1, 0, 3, 2]);
        let all = e.at_least(pairs, crossed, Lanes::Four);
        let first = e.ins().extractlane(all, 0);
        let one =
            e.fold(split, columns.count, 1, &[first], |e, col, before| largest(e, col, before, Lanes::One))?;
        Ok(one[0])
    }
}

fn call(e: &mut Emitter<'_>, function: Function, x: Value, lanes: Lanes) -> Value {
    match function {
        Function::Exp => exp(e, x, lanes),
        Function::Ln => ln(e, x, lanes),
        Function::Root => e.ins().sqrt(x),
        Function::InvRoot => {
            let (root, one) = (e.ins().sqrt(x), e.real(1.0, lanes));
            e.ins().fdiv(one, root)
        }
        Function::Tanh => tanh(e, x, lanes),
        Function::Step => {
            let (zero, one) = (e.real(0.0, lanes), e.real(1.0, lanes));
            let above = e.ins().fcmp(FloatCC::GreaterThan, x, zero);
            match lanes {
                Lanes::One => e.ins().select(above, one, zero),
                Lanes::Four => {
                    // Cranelift 0.135 gives `cmpps` a row in memory that no other instruction takes, wherever it lies, and the
                    // processor wants a multiple of 16 bytes. A second use keeps it in a register.
                    let is_number = e.ins().fcmp(FloatCC::Ordered, x, x);
                    let above = e.ins().band(above, is_number);
                    let mask = e.recast(above, lanes.real());
                    e.ins().bitselect(mask, one, zero)
                }
            }
        }
        Function::Largest => x,
    }
}

/// The polynomial of these coefficients, highest power first.
fn polynomial(e: &mut Emitter<'_>, coefficients: &[f32], x: Value, lanes: Lanes) -> Value {
    let mut sum = e.real(coefficients[0], lanes);
    for coefficient in &coefficients[1..] {
        let (product, coefficient) = (e.ins().fmul(sum, x), e.real(*coefficient, lanes));
        sum = e.ins().fadd(product, coefficient);
    }
    sum
}

/// `eˣ` of what is not above 0: a power of two, times a polynomial of what is left.
fn exp(e: &mut Emitter<'_>, x: Value, lanes: Lanes) -> Value {
    let low = e.real(EXP_NORMAL, lanes);
    let x = e.at_least(x, low, lanes);
    let (log, rounder) = (e.real(std::f32::consts::LOG2_E, lanes), e.real(ROUNDER, lanes));
    let scaled = e.ins().fmul(x, log);
    let rounded = e.ins().fadd(scaled, rounder);
    let n = e.ins().fsub(rounded, rounder);
    let (high, low) = (e.real(LN_2[0], lanes), e.real(LN_2[1], lanes));
    let (high, low) = (e.ins().fmul(n, high), e.ins().fmul(n, low));
    let near = e.ins().fsub(x, high);
    let rest = e.ins().fsub(near, low);
    let square = e.ins().fmul(rest, rest);
    let tail = polynomial(e, &EXP_TAIL, rest, lanes);
    let tail = e.ins().fmul(tail, square);
    let above_one = e.ins().fadd(rest, tail);
    let one = e.real(1.0, lanes);
    let mantissa = e.ins().fadd(one, above_one);
    let bits = e.recast(rounded, lanes.bits());
    let offset = e.bits(ROUNDER.to_bits().wrapping_sub(127), lanes);
    let biased = e.ins().isub(bits, offset);
    let power = e.ins().ishl_imm_u(biased, 23);
    let power = e.recast(power, lanes.real());
    e.ins().fmul(mantissa, power)
}

/// The logarithm of what is at least 1: that of its power of two, and of its mantissa.
fn ln(e: &mut Emitter<'_>, x: Value, lanes: Lanes) -> Value {
    let bits = e.recast(x, lanes.bits());
    let exponent = e.ins().ushr_imm_u(bits, 23);
    let bias = e.bits(127, lanes);
    let exponent = e.ins().isub(exponent, bias);
    let exponent = e.ins().fcvt_from_sint(lanes.real(), exponent);
    let (below, one_bits) = (e.bits(0x007f_ffff, lanes), e.bits(1.0f32.to_bits(), lanes));
    let mantissa = e.ins().band(bits, below);
    let mantissa = e.ins().bor(mantissa, one_bits);
    let mantissa = e.recast(mantissa, lanes.real());
    let one = e.real(1.0, lanes);
    let (less, more) = (e.ins().fsub(mantissa, one), e.ins().fadd(mantissa, one));
    let z = e.ins().fdiv(less, more);
    let square = e.ins().fmul(z, z);
    let series = polynomial(e, &LN_SERIES, square, lanes);
    let twice = e.ins().fadd(z, z);
    let of_mantissa = e.ins().fmul(twice, series);
    let two = e.real(std::f32::consts::LN_2, lanes);
    let of_power = e.ins().fmul(exponent, two);
    e.ins().fadd(of_power, of_mantissa)
}

/// `(1 − t) / (1 + t)` with `t = e^−2|x|`, and the sign of `x`.
fn tanh(e: &mut Emitter<'_>, x: Value, lanes: Lanes) -> Value {
    let bits = e.recast(x, lanes.bits());
    let (sign, size) = (e.bits(1 << 31, lanes), e.bits(!(1 << 31), lanes));
    let (sign, size) = (e.ins().band(bits, sign), e.ins().band(bits, size));
    let size = e.recast(size, lanes.real());
    let minus_two = e.real(-2.0, lanes);
    let exponent = e.ins().fmul(size, minus_two);
    let (t, one) = (exp(e, exponent, lanes), e.real(1.0, lanes));
    let (less, more) = (e.ins().fsub(one, t), e.ins().fadd(one, t));
    let value = e.ins().fdiv(less, more);
    let value = e.recast(value, lanes.bits());
    debug_assert!(lanes != Lanes::One || e.builder.func.dfg.value_type(value) == I32);
    let signed = e.ins().bor(value, sign);
    e.recast(signed, lanes.real())
}
