//! Kernels as loops: which parameters they use, and that what is used is declared.

use std::collections::BTreeSet;

use skipc_artifact::program::Extent;

use super::kernel::{Check, Kind, Touched};
use crate::error::Fault;
use crate::kernel::{Rows, Slot, View};
use crate::loops::{Expr, Index, Loops, Operand, Over, Place, Stmt, Usage, WeightGradient};

impl Check<'_> {
    pub(super) fn loops(&mut self, loops: &Loops) {
        self.size("the number of statements", loops.code.len() as u32, !loops.code.is_empty());
        for Operand { slot, usage, over } in &loops.operands {
            let rows = match *over {
                Over::Rows(extent, rows) => {
                    self.extent(extent);
                    self.list(rows, extent);
                    Touched::Over(extent, rows)
                }
                Over::First(rows) => Touched::First(rows),
            };
            if matches!(usage, Usage::Read | Usage::Change) {
                self.touch(*slot, rows, false);
            }
            if *usage != Usage::Read {
                self.touch(*slot, rows, true);
            }
            if matches!(usage, Usage::Change | Usage::Fill) {
                // What adds up in memory would be rounded at every step.
                self.kind(*slot, Kind::F32);
                self.own.push(*slot);
            }
        }
        let declared: BTreeSet<Slot> = self.touches.iter().map(|touch| touch.slot).collect();
        let mut uses = Uses { check: self, used: BTreeSet::new() };
        uses.all(&loops.code);
        let used = uses.used;
        if let Some(slot) = used.difference(&declared).next() {
            let (idx, len) = (slot.0 as usize, declared.len());
            self.faults.push(Fault::Range { what: "operand of a loop", idx, len });
        }
    }

    pub(super) fn weight_gradient(&mut self, gradient: &WeightGradient) {
        let WeightGradient { rows, x, cols, dy, out, adds } = *gradient;
        self.size("columns", cols, cols > 0);
        let outputs = match self.kernel.extent {
            Extent::Fixed(outputs) => outputs,
            Extent::Counted { .. } => 0,
        };
        self.size("the rows of a weight gradient", outputs, outputs > 0);
        self.extent(rows);
        self.read_over(rows, x, cols, Kind::Real);
        self.read_over(rows, dy, outputs, Kind::Real);
        self.exact(out, cols, Kind::F32);
        if adds {
            self.touch(out, Touched::First(outputs), false);
            self.own.push(out);
        }
        self.touch(out, Touched::First(outputs), true);
    }
}

/// The parameters that code names.
struct Uses<'c, 'k> {
    check: &'c mut Check<'k>,
    used: BTreeSet<Slot>,
}

impl Uses<'_, '_> {
    fn all(&mut self, code: &[Stmt]) {
        code.iter().for_each(|stmt| self.one(stmt));
    }

    fn one(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::Let(_, expr) => self.expr(expr),
            Stmt::LetIndex(_, index) => self.index(index),
            Stmt::Store(place, expr) => {
                self.place(place);
                self.expr(expr);
            }
            Stmt::Columns { cols, body, .. } => {
                self.check.size("columns", *cols, *cols > 0);
                self.all(body);
                let fits = |stmt: &Stmt| matches!(stmt, Stmt::Let(..) | Stmt::Store(..));
                self.check.size("loops within columns", 0, body.iter().all(fits));
            }
            Stmt::Reduce { cols, term, .. } => {
                self.check.size("columns", *cols, *cols > 0);
                self.expr(term);
            }
            Stmt::For { from, to, carried, body, .. } => {
                self.index(from);
                self.index(to);
                for (_, first, next) in carried {
                    self.expr(first);
                    self.expr(next);
                }
                self.all(body);
            }
            Stmt::Search { sequences, positions, rows, place, .. } => {
                self.word(*sequences);
                self.word(*positions);
                [rows, &place.0, &place.1].into_iter().for_each(|index| self.index(index));
            }
        }
    }

    fn word(&mut self, view: View) {
        self.check.within(view, 1, Kind::U32);
        self.view(view);
    }

    fn view(&mut self, view: View) {
        self.used.insert(view.slot);
        if let Rows::Listed(list) = view.rows {
            self.used.insert(list);
        }
    }

    fn place(&mut self, place: &Place) {
        self.check.within(place.view, 1, Kind::Real);
        self.view(place.view);
        self.index(&place.row);
        self.index(&place.col);
    }

    fn index(&mut self, index: &Index) {
        match index {
            Index::Row | Index::Is(_) | Index::Of(_) => {}
            Index::Word(view, row) => {
                self.word(*view);
                self.index(row);
            }
            Index::Plus(a, b) => {
                self.index(a);
                self.index(b);
            }
            Index::Times(a, _) | Index::Less(a, _) => self.index(a),
        }
    }

    fn expr(&mut self, expr: &Expr) {
        match expr {
            Expr::Is(_) | Expr::Of(_) | Expr::Slope(..) => {}
            Expr::Load(place) => self.place(place),
            Expr::Count(index) => self.index(index),
            Expr::Call(_, x) => self.expr(x),
            Expr::Both(_, a, b) => {
                self.expr(a);
                self.expr(b);
            }
        }
    }
}
