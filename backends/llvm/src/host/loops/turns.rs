//! Several turns of a loop at once. What a turn computes stands beside what the others do, in the lanes of a vector; sums over
//! columns are made together, so that none waits for the one before it; and what turns add to a column stays in registers.
//! Every number is the one that turns make one after the other.

use skipc_plan::kernel::{Slot, View};
use skipc_plan::loops::{self, Expr, Index, Local, Place, Reduction, Stmt};

use super::super::code::{Int, Lanes, Made};
use super::super::frame::Row;
use super::{Held, Machine, both, call, without_slope};

/// Whether the turns of a loop may be taken together: none but the last statement stores, always in the same places of a row, and
/// nothing else depends on what was stored or handed on.
pub(super) fn are_independent(idx: Local, carried: &[(Local, Expr, Expr)], body: &[Stmt]) -> bool {
    let mut turn = Turn { of_turn: vec![idx], loaded: Vec::new(), sums: 0 };
    let (last, before) = match body.split_last() {
        Some((Stmt::Columns { body, .. }, before)) => (body.as_slice(), before),
        _ => (&[][..], body),
    };
    let computes = before.iter().all(|stmt| turn.computes(stmt));
    carried.iter().for_each(|(_, _, next)| turn.loads(next));
    let is_carried = |local: &Local| carried.iter().any(|(own, ..)| own == local);
    let uses_carried = before.iter().chain(last).any(|stmt| uses(stmt).iter().any(is_carried));
    computes && turn.sums > 0 && !uses_carried && turn.stores_in_place(last)
}

/// What is known of the statements of a turn.
struct Turn {
    /// Whole numbers that differ from turn to turn.
    of_turn: Vec<Local>,
    /// What is read before anything is stored.
    loaded: Vec<Slot>,
    sums: usize,
}

impl Turn {
    fn loads(&mut self, expr: &Expr) {
        expr.places(&mut |place| self.loaded.push(place.view.slot));
    }

    fn differs(&self, index: &Index) -> bool {
        self.of_turn.iter().any(|local| index.mentions(*local))
    }

    /// Whether a statement does nothing but compute.
    fn computes(&mut self, stmt: &Stmt) -> bool {
        match stmt {
            Stmt::Let(_, value) => self.loads(value),
            Stmt::LetIndex(local, index) => {
                if self.differs(index) {
                    self.of_turn.push(*local);
                }
            }
            Stmt::Reduce { how: Reduction::Sum, term, .. } => {
                self.sums += 1;
                self.loads(term);
            }
            Stmt::Reduce { how: Reduction::Max, .. }
            | Stmt::Store(..)
            | Stmt::Columns { .. }
            | Stmt::For { .. }
            | Stmt::Search { .. } => return false,
        }
        true
    }

    /// Whether all turns of a loop over columns store in the same places, and read nowhere else what they store.
    fn stores_in_place(&self, body: &[Stmt]) -> bool {
        let stored: Vec<&Place> = body
            .iter()
            .filter_map(|stmt| match stmt {
                Stmt::Store(place, _) => Some(place),
                _ => None,
            })
            .collect();
        let is_stored = |slot: Slot| stored.iter().any(|place| place.view.slot == slot);
        let same_in_all = |place: &Place| !self.differs(&place.row) && !self.differs(&place.col);
        let Some(places) = loops::places(body) else { return false };
        places.into_iter().filter(|place| is_stored(place.view.slot)).all(same_in_all)
            && !self.loaded.iter().any(|slot| is_stored(*slot))
    }
}

/// The variables with numbers that a statement uses.
fn uses(stmt: &Stmt) -> Vec<Local> {
    let mut found = Vec::new();
    match stmt {
        Stmt::Let(_, value) | Stmt::Store(_, value) | Stmt::Reduce { term: value, .. } => {
            variables(value, &mut found);
        }
        Stmt::LetIndex(..) | Stmt::Columns { .. } | Stmt::For { .. } | Stmt::Search { .. } => {}
    }
    found
}

fn variables(expr: &Expr, found: &mut Vec<Local>) {
    match expr {
        Expr::Is(_) | Expr::Load(_) | Expr::Count(_) => {}
        Expr::Of(local) | Expr::Slope(_, local) => found.push(*local),
        Expr::Call(_, x) => variables(x, found),
        Expr::Both(_, a, b) => {
            variables(a, found);
            variables(b, found);
        }
    }
}

/// Turns that are taken together.
struct Turns<'c> {
    /// The whole numbers of each.
    indices: Vec<Vec<(Local, Int<'c>)>>,
    /// Numbers, a lane for each turn.
    numbers: Vec<(Local, Lanes<'c>)>,
}

/// Rows whose addresses are known, in a turn.
type Rows<'c> = Vec<(View, Index, Row<'c>)>;

impl<'c> Machine<'_, '_, 'c> {
    /// Takes as many turns as a vector has lanes, from `first` on, and gives what they hand on.
    pub(super) fn turns(
        &mut self,
        (idx, first): (Local, Int<'c>),
        carried: &[(Local, Expr, Expr)],
        values: &[Lanes<'c>],
        body: &[Stmt],
    ) -> Made<Vec<Lanes<'c>>> {
        let n = self.f.level.lanes;
        let indices = (0..n).map(|turn| Ok(vec![(idx, self.f.plus(first, turn.into())?)]));
        let mut turns = Turns { indices: indices.collect::<Made<_>>()?, numbers: Vec::new() };
        for stmt in body {
            match stmt {
                Stmt::Let(local, value) => {
                    let value = self.each(value, &turns)?;
                    turns.numbers.push((*local, value));
                }
                Stmt::LetIndex(local, index) => {
                    for turn in 0..n as usize {
                        self.enter(turn, &turns)?;
                        turns.indices[turn].push((*local, self.index(index)?));
                    }
                }
                Stmt::Reduce { to, col, cols, term, .. } => {
                    let sums = self.sums((*col, *cols), term, &turns)?;
                    turns.numbers.push((*to, sums));
                }
                _ => self.columns(stmt, &turns)?,
            }
        }
        let mut values = values.to_vec();
        for turn in 0..n as usize {
            self.enter(turn, &turns)?;
            for ((local, ..), value) in carried.iter().zip(&values) {
                self.set(*local, Held::Number(*value));
            }
            values = carried.iter().map(|(_, _, next)| self.number(next, None)).collect::<Made<_>>()?;
        }
        Ok(values)
    }

    /// Lets variables hold what they do in a turn.
    fn enter(&mut self, turn: usize, turns: &Turns<'c>) -> Made<()> {
        for (local, index) in &turns.indices[turn] {
            self.set(*local, Held::Index(*index));
        }
        for (local, numbers) in &turns.numbers {
            let own = self.f.shuffle(*numbers, &[turn as u32])?;
            self.set(*local, Held::Number(own));
        }
        Ok(())
    }

    /// A number of each turn.
    fn each(&mut self, expr: &Expr, turns: &Turns<'c>) -> Made<Lanes<'c>> {
        let (f, n) = (self.f, self.f.level.lanes);
        match expr {
            Expr::Is(value) => Ok(f.real(value.0 as f32, n)),
            Expr::Of(local) => match turns.numbers.iter().find(|(own, _)| own == local) {
                Some((_, numbers)) => Ok(*numbers),
                None => f.splat(self.number(expr, None)?, n),
            },
            Expr::Load(_) | Expr::Count(_) => {
                let mut own = Vec::new();
                for turn in 0..n as usize {
                    self.enter(turn, turns)?;
                    own.push(self.number(expr, None)?);
                }
                f.sums_of(own)
            }
            Expr::Call(function, x) => call(f, *function, self.each(x, turns)?),
            Expr::Both(operator, a, b) => both(f, *operator, self.each(a, turns)?, self.each(b, turns)?),
            Expr::Slope(of, local) => {
                let slope = loops::slope(*of, &Expr::Of(*local)).ok_or_else(without_slope)?;
                self.each(&slope, turns)
            }
        }
    }

    /// The addresses of the rows of these places in each turn.
    fn rows_of(&mut self, places: &[&Place], turns: &Turns<'c>) -> Made<Vec<Rows<'c>>> {
        let mut found = Vec::new();
        for turn in 0..turns.indices.len() {
            self.enter(turn, turns)?;
            // Rows that are known from outside do not change in turns, for the variables of these are not seen there.
            self.within(places, |machine| {
                found.push(machine.rows.clone());
                Ok(())
            })?;
        }
        Ok(found)
    }

    /// The sum over columns in each turn.
    fn sums(&mut self, (local, cols): (Local, u32), term: &Expr, turns: &Turns<'c>) -> Made<Lanes<'c>> {
        let (f, n) = (self.f, self.f.level.lanes);
        let mut places = Vec::new();
        term.places(&mut |place| places.push(place));
        let rows = self.rows_of(&places, turns)?;
        let outer = self.rows.clone();
        let totals = f.sum_columns_side_by_side(f.columns(cols), n, |col, lanes| {
            let mut terms = Vec::with_capacity(rows.len());
            for (turn, rows) in rows.iter().enumerate() {
                self.enter(turn, turns)?;
                self.set(local, Held::Index(col));
                self.rows.clone_from(rows);
                terms.push(self.number(term, Some((local, lanes)))?);
            }
            Ok(terms)
        })?;
        self.rows = outer;
        Ok(totals)
    }

    /// A loop over columns in all turns, one turn after the other in each column.
    fn columns(&mut self, stmt: &Stmt, turns: &Turns<'c>) -> Made<()> {
        let Stmt::Columns { col, cols, body } = stmt else { return Ok(()) };
        let f = self.f;
        let rows = self.rows_of(&loops::places(body).unwrap_or_default(), turns)?;
        let outer = self.rows.clone();
        f.for_columns(f.columns(*cols), f.level.lanes, |number, lanes| {
            for (turn, rows) in rows.iter().enumerate() {
                self.enter(turn, turns)?;
                self.set(*col, Held::Index(number));
                self.rows.clone_from(rows);
                self.all(body, Some((*col, lanes)))?;
            }
            Ok(())
        })?;
        self.rows = outer;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use skipc_plan::loops::number;

    use super::*;

    const IDX: Local = Local(0);
    const COL: Local = Local(1);
    const SUM: Local = Local(2);
    const CARRIED: Local = Local(3);

    fn place(slot: u32, row: Index) -> Place {
        Place { view: View::dense(Slot(slot)), row, col: Index::Of(COL) }
    }

    fn load(slot: u32, row: Index) -> Expr {
        Expr::Load(Box::new(place(slot, row)))
    }

    /// The sum of a row of another matrix.
    fn sum() -> Stmt {
        Stmt::Reduce { to: SUM, how: Reduction::Sum, col: COL, cols: 5, term: load(0, Index::Of(IDX)) }
    }

    /// Adds a number to a row.
    fn add(row: Index, from: u32, value: Expr) -> Stmt {
        let more = load(from, row.clone()) + value;
        Stmt::Columns { col: COL, cols: 5, body: vec![Stmt::Store(place(1, row), more)] }
    }

    fn together(body: &[Stmt], next: Expr) -> bool {
        are_independent(IDX, &[(CARRIED, number(0.0), next)], body)
    }

    #[test]
    fn turns_that_add_to_one_row_are_taken_together() {
        let next = || Expr::Of(CARRIED) + Expr::Of(SUM);
        assert!(together(&[sum(), add(Index::Row, 1, Expr::Of(SUM))], next()));
        assert!(together(&[sum()], next()));
        assert!(!together(&[add(Index::Row, 1, number(1.0))], number(0.0)), "there is nothing to gain");
    }

    #[test]
    fn turns_that_meet_in_memory_or_wait_for_each_other_are_not() {
        let of_sum = || Expr::Of(SUM);
        // A row of each turn, itself or by a name, which another turn may name, too.
        assert!(!together(&[sum(), add(Index::Of(IDX), 1, of_sum())], of_sum()));
        let (named, at) = (Local(4), Index::Times(Box::new(Index::Of(IDX)), 2));
        let body = [sum(), Stmt::LetIndex(named, at), add(Index::Of(named), 1, of_sum())];
        assert!(!together(&body, of_sum()));
        // What is summed, or handed on, was stored by the turn before.
        let stored =
            Stmt::Reduce { to: SUM, how: Reduction::Sum, col: COL, cols: 5, term: load(1, Index::Row) };
        assert!(!together(&[stored, add(Index::Row, 1, of_sum())], of_sum()));
        assert!(!together(&[sum(), add(Index::Row, 1, of_sum())], load(1, Index::Row)));
        // What was handed on is used before the end.
        assert!(!together(&[sum(), Stmt::Let(Local(4), Expr::Of(CARRIED))], of_sum()));
        assert!(!together(&[sum(), add(Index::Row, 1, Expr::Of(CARRIED))], of_sum()));
        // More is stored behind it.
        assert!(!together(&[sum(), add(Index::Row, 1, of_sum()), sum()], of_sum()));
        let most =
            Stmt::Reduce { to: SUM, how: Reduction::Max, col: COL, cols: 5, term: load(0, Index::Row) };
        assert!(!together(&[sum(), most], of_sum()));
    }
}
