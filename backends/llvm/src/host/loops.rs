//! Kernels as loops: statement by statement, columns in the widest vectors.

use inkwell::FloatPredicate::OGT;
use skipc_artifact::program::Extent;
use skipc_plan::kernel::{Kernel, View};
use skipc_plan::loops::{
    self, Expr, Function, Index, LN_SERIES, Local, Loops, Operator, Place, Reduction, Stmt,
};

use super::code::{Code, Int, Lanes, Made, widths};
use super::fault::Fault;
use super::frame::{Frame, Row};

mod turns;

/// Rows of a tile: few where the rows are no tokens, each of which may be much work.
pub(crate) fn tile_rows(kernel: &Kernel) -> u32 {
    match kernel.extent {
        Extent::Fixed(rows) => rows.div_ceil(32).clamp(1, 64),
        Extent::Counted { .. } => 16,
    }
}

/// Emits what is done for a row.
pub(crate) fn emit_row<'c>(f: &Frame<'_, 'c>, loops: &Loops, row: Int<'c>) -> Made<()> {
    Machine { f, row, locals: Vec::new(), rows: Vec::new() }.all(&loops.code, None)
}

/// A loop over columns: its variable, and how many columns a value holds.
type Columns = Option<(Local, u32)>;

/// What a variable holds.
#[derive(Clone, Copy)]
enum Held<'c> {
    Nothing,
    Index(Int<'c>),
    Number(Lanes<'c>),
}

struct Machine<'f, 'a, 'c> {
    f: &'f Frame<'a, 'c>,
    row: Int<'c>,
    locals: Vec<Held<'c>>,
    /// Rows whose addresses are known.
    rows: Vec<(View, Index, Row<'c>)>,
}

fn malformed(local: Local) -> Fault {
    Fault::Malformed(format!("variable {} holds nothing of its kind", local.0))
}

impl<'c> Machine<'_, '_, 'c> {
    fn set(&mut self, local: Local, held: Held<'c>) {
        let at = local.0 as usize;
        if at >= self.locals.len() {
            self.locals.resize(at + 1, Held::Nothing);
        }
        self.locals[at] = held;
    }

    fn held(&self, local: Local) -> Held<'c> {
        self.locals.get(local.0 as usize).copied().unwrap_or(Held::Nothing)
    }

    fn index(&self, index: &Index) -> Made<Int<'c>> {
        let f = self.f;
        match index {
            Index::Row => Ok(self.row),
            Index::Is(number) => Ok(f.int(i64::from(*number))),
            Index::Of(local) => match self.held(*local) {
                Held::Index(number) => Ok(number),
                Held::Nothing | Held::Number(_) => Err(malformed(*local)),
            },
            Index::Word(view, row) => f.load_index(*view, self.index(row)?),
            Index::Plus(a, b) => f.add(self.index(a)?, self.index(b)?),
            Index::Times(a, by) => f.times(self.index(a)?, u64::from(*by)),
            Index::Less(a, by) => f.less(self.index(a)?, *by),
        }
    }

    /// The row of a place, and its column.
    fn place(&self, place: &Place) -> Made<(Row<'c>, Int<'c>)> {
        let known = self.rows.iter().find(|(view, row, _)| *view == place.view && *row == place.row);
        let row = match known {
            Some((_, _, row)) => *row,
            None => self.f.row(place.view, self.index(&place.row)?)?,
        };
        Ok((row, self.index(&place.col)?))
    }

    /// A number for each lane.
    fn number(&self, expr: &Expr, columns: Columns) -> Made<Lanes<'c>> {
        let (f, lanes) = (self.f, columns.map_or(1, |(_, lanes)| lanes));
        match expr {
            Expr::Is(value) => Ok(f.real(value.0 as f32, lanes)),
            Expr::Of(local) => match self.held(*local) {
                Held::Number(value) if value.get_type().get_size() == lanes => Ok(value),
                Held::Number(value) => f.splat(value, lanes),
                Held::Nothing | Held::Index(_) => Err(malformed(*local)),
            },
            Expr::Load(place) => {
                let (row, col) = self.place(place)?;
                match columns {
                    Some((own, lanes)) if place.col.mentions(own) => f.load(row, col, lanes),
                    _ if lanes == 1 => f.load(row, col, 1),
                    _ => f.splat(f.load(row, col, 1)?, lanes),
                }
            }
            Expr::Count(index) => {
                // Counts are far below 2³¹.
                let word = f.splat_word(self.index(index)?)?;
                let first: Vec<u32> = vec![0; lanes as usize];
                f.shuffle(f.signed(word)?, &first)
            }
            Expr::Call(function, x) => call(f, *function, self.number(x, columns)?),
            Expr::Both(operator, a, b) => {
                both(f, *operator, self.number(a, columns)?, self.number(b, columns)?)
            }
            Expr::Slope(of, local) => {
                let slope = loops::slope(*of, &Expr::Of(*local)).ok_or_else(without_slope)?;
                self.number(&slope, columns)
            }
        }
    }

    fn all(&mut self, code: &[Stmt], columns: Columns) -> Made<()> {
        code.iter().try_for_each(|stmt| self.one(stmt, columns))
    }

    fn one(&mut self, stmt: &Stmt, columns: Columns) -> Made<()> {
        let f = self.f;
        match stmt {
            Stmt::Let(local, expr) => {
                let value = self.number(expr, columns)?;
                self.set(*local, Held::Number(value));
            }
            Stmt::LetIndex(local, index) => {
                let value = self.index(index)?;
                self.set(*local, Held::Index(value));
            }
            Stmt::Store(place, expr) => {
                let value = self.number(expr, columns)?;
                let (row, col) = self.place(place)?;
                f.store(row, col, value)?;
            }
            Stmt::Columns { col, cols, body } => {
                let within = || Fault::Malformed("a loop within columns".to_owned());
                let places = loops::places(body).ok_or_else(within)?;
                self.within(&places, |machine| {
                    f.for_columns(f.columns(*cols), f.level.lanes, |number, lanes| {
                        machine.set(*col, Held::Index(number));
                        machine.all(body, Some((*col, lanes)))
                    })
                })?;
            }
            Stmt::Reduce { to, how, col, cols, term } => {
                let mut places = Vec::new();
                term.places(&mut |place| places.push(place));
                let value = self.within(&places, |machine| machine.reduce(*how, (*col, *cols), term))?;
                self.set(*to, Held::Number(value));
            }
            Stmt::For { idx, from, to, carried, body } => {
                let (begin, end) = (self.index(from)?, self.index(to)?);
                let first = carried.iter().map(|(_, first, _)| self.number(first, None));
                let (mut begin, mut first) = (begin, first.collect::<Made<Vec<_>>>()?);
                if turns::are_independent(*idx, carried, body) {
                    let n = f.level.lanes;
                    let count = f.sub(f.max(begin, end)?, begin)?;
                    let rest = f.add(begin, f.sub(count, f.modulo(count, n)?)?)?;
                    first = f.fold(begin, rest, n, &first, |number, values| {
                        self.turns((*idx, number), carried, values, body)
                    })?;
                    begin = rest;
                }
                let last = f.fold(begin, end, 1, &first, |number, values| {
                    self.set(*idx, Held::Index(number));
                    for ((local, ..), value) in carried.iter().zip(values) {
                        self.set(*local, Held::Number(*value));
                    }
                    self.all(body, None)?;
                    carried.iter().map(|(_, _, next)| self.number(next, None)).collect()
                })?;
                for ((local, ..), value) in carried.iter().zip(last) {
                    self.set(*local, Held::Number(value));
                }
            }
            Stmt::Search { to, sequences, positions, rows, place } => {
                let range = [f.int(0), self.index(rows)?];
                let (sequence, position) = (self.index(&place.0)?, self.index(&place.1)?);
                let found = f.repeat_while(
                    &range,
                    |range: &[Int<'c>]| f.below(range[0], range[1]),
                    |range| {
                        let middle = f.shr(f.add(range[0], range[1])?, 1)?;
                        let own = f.load_index(*sequences, middle)?;
                        let at = f.load_index(*positions, middle)?;
                        let within = f.and(f.equal(own, sequence)?, f.below(at, position)?)?;
                        let is_before = f.or(f.below(own, sequence)?, within)?;
                        let begin = f.select(is_before, f.plus(middle, 1)?, range[0])?;
                        Ok(vec![begin, f.select(is_before, range[1], middle)?])
                    },
                )?;
                self.set(*to, Held::Index(found[0]));
            }
        }
        Ok(())
    }

    /// Runs `body` with the addresses of the rows of these places at hand.
    fn within<T>(&mut self, places: &[&Place], body: impl FnOnce(&mut Self) -> Made<T>) -> Made<T> {
        let known = self.rows.len();
        for place in places {
            let is_known = |(view, row, _): &(View, Index, Row<'c>)| *view == place.view && *row == place.row;
            if !self.rows.iter().any(is_known) {
                let row = self.f.row(place.view, self.index(&place.row)?)?;
                self.rows.push((place.view, place.row.clone(), row));
            }
        }
        let result = body(self);
        self.rows.truncate(known);
        result
    }

    fn reduce(&mut self, how: Reduction, (local, cols): (Local, u32), term: &Expr) -> Made<Lanes<'c>> {
        let f = self.f;
        if how == Reduction::Sum {
            let sums = f.sum_columns(f.columns(cols), 1, |col, lanes| {
                self.set(local, Held::Index(col));
                Ok(vec![self.number(term, Some((local, lanes)))?])
            })?;
            return Ok(sums[0]);
        }
        let (mut begin, mut largest) = (0, f.real(f32::MIN, 1));
        for lanes in widths(f.level.lanes) {
            let end = cols - cols % lanes;
            if end > begin {
                let least = f.real(f32::MIN, lanes);
                let (from, to) = (f.int(i64::from(begin)), f.int(i64::from(end)));
                let most = f.fold(from, to, lanes, &[least], |col, before| {
                    self.set(local, Held::Index(col));
                    let value = self.number(term, Some((local, lanes)))?;
                    Ok(vec![f.at_least(value, before[0])?])
                })?;
                largest = f.at_least(largest, f.largest_lane(most[0])?)?;
                begin = end;
            }
        }
        Ok(largest)
    }
}

fn without_slope() -> Fault {
    Fault::Malformed("a function without a slope".to_owned())
}

fn both<'c>(f: &Code<'c>, operator: Operator, a: Lanes<'c>, b: Lanes<'c>) -> Made<Lanes<'c>> {
    match operator {
        Operator::Add => f.fadd(a, b),
        Operator::Sub => f.fsub(a, b),
        Operator::Mul => f.fmul(a, b),
        Operator::Div => f.fdiv(a, b),
        Operator::Max => f.at_least(a, b),
    }
}

fn call<'c>(f: &Code<'c>, function: Function, x: Lanes<'c>) -> Made<Lanes<'c>> {
    let lanes = x.get_type().get_size();
    match function {
        Function::Exp => f.exp_below_zero(x),
        Function::Ln => ln(f, x),
        Function::Root => f.sqrt(x),
        Function::InvRoot => f.fdiv(f.real(1.0, lanes), f.sqrt(x)?),
        Function::Tanh => f.tanh(x),
        Function::Step => {
            let (zero, one) = (f.real(0.0, lanes), f.real(1.0, lanes));
            f.fselect(f.fis(OGT, x, zero)?, one, zero)
        }
        Function::Largest => Ok(x),
    }
}

/// The logarithm of what is at least 1: that of its power of two, and of its mantissa.
fn ln<'c>(f: &Code<'c>, x: Lanes<'c>) -> Made<Lanes<'c>> {
    let (b, lanes) = (&f.builder, x.get_type().get_size());
    let bits = f.bits(x)?;
    let exponent = b.build_right_shift(bits, f.word(23, lanes), false, "")?;
    let exponent = f.signed(b.build_int_sub(exponent, f.word(127, lanes), "")?)?;
    let mantissa = b.build_and(bits, f.word(0x007f_ffff, lanes), "")?;
    let mantissa = f.of_bits(b.build_or(mantissa, f.word(1.0f32.to_bits(), lanes), "")?)?;
    let one = f.real(1.0, lanes);
    let z = f.fdiv(f.fsub(mantissa, one)?, f.fadd(mantissa, one)?)?;
    let series = f.polynomial(&LN_SERIES, f.fmul(z, z)?)?;
    let of_mantissa = f.fmul(f.fadd(z, z)?, series)?;
    f.fadd(f.fmul(exponent, f.real(std::f32::consts::LN_2, lanes))?, of_mantissa)
}
