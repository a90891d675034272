//! Backward passes of the ops that layers are made of.

use skipc_ir::{F64, Frequencies, RopeScaling, Value};

use super::super::Ctx;
use super::{Draft, Matrix, real, square, store};
use crate::error::PlanError;
use crate::fuse::Group;
use crate::kernel::View;
use crate::loops::{Expr, Function, Index, Over, Stmt, Usage, number};

/// A column of a group: the group's first and its own.
fn column(first: &Index, col: &Index) -> Index {
    first.clone() + col.clone()
}

/// What a norm knows of the columns of a row from one on: statements that compute it, the mean of its elements where that is
/// subtracted, and what they are scaled by.
struct Scaled {
    code: Vec<Stmt>,
    mean: Option<Expr>,
    scale: Expr,
}

impl Scaled {
    fn of(
        draft: &mut Draft,
        x: Matrix,
        (row, first): (&Index, &Index),
        width: u32,
        (eps, centres): (F64, bool),
    ) -> Scaled {
        let (mut code, over) = (Vec::new(), || number(f64::from(width)));
        let mean = centres.then(|| {
            let (stmt, sum) = draft.sum(width, |col| x.at(row, column(first, col)));
            let (named, mean) = draft.named(sum / over());
            code.extend([stmt, named]);
            mean
        });
        let (stmt, squares) = draft.sum(width, |col| square(centred(x.at(row, column(first, col)), &mean)));
        let (named, scale) = draft.named((squares / over() + real(eps)).call(Function::InvRoot));
        code.extend([stmt, named]);
        Scaled { code, mean, scale }
    }

    /// An element less the mean.
    fn element(&self, x: Matrix, row: &Index, col: Index) -> Expr {
        centred(x.at(row, col), &self.mean)
    }
}

fn centred(x: Expr, mean: &Option<Expr>) -> Expr {
    match mean {
        Some(mean) => x - mean.clone(),
        None => x,
    }
}

/// For each group of columns, by its first.
fn each_group(
    draft: &mut Draft,
    groups: u32,
    width: u32,
    body: impl FnOnce(&Index, &mut Draft) -> Vec<Stmt>,
) -> Vec<Stmt> {
    if groups == 1 {
        return body(&Index::Is(0), draft);
    }
    vec![draft.each_below(Index::Is(groups), |group, draft| {
        let first = draft.local();
        let mut code = vec![Stmt::LetIndex(first, Index::Times(Box::new(group.clone()), width))];
        code.extend(body(&Index::Of(first), draft));
        code
    })]
}

impl Ctx<'_> {
    fn group_width(&self, cols: u32, groups: Option<u32>) -> (u32, u32) {
        let groups = groups.unwrap_or(1).max(1);
        (groups, cols / groups)
    }

    /// Of a row that a norm scales by `s`: `s · (g − c · s² · mean(g · c))` with `g` the gradient of the scaled row and `c` the row,
    /// less its mean for a layer norm, where the mean of that is subtracted, too.
    pub(super) fn norm_gradient(
        &mut self,
        group: &Group,
        value: Value,
        (eps, groups): (F64, Option<u32>),
        centres: bool,
    ) -> Result<(), PlanError> {
        let [x, gain, dy] = self.operands(value)?;
        let mut draft = self.draft(self.graph.ty(value).rows(), value)?;
        let (x, gain) = (self.reads(&mut draft, "x", x)?, self.reads(&mut draft, "gain", gain)?);
        let dy = self.reads(&mut draft, "dy", dy)?;
        let (out, round) = match centres {
            true => self.sums_up(&mut draft, value)?,
            false => (self.makes(&mut draft, value, Usage::Write)?, None),
        };
        let (groups, width) = self.group_width(out.cols, groups);
        let row = Index::Row;
        let mut code = each_group(&mut draft, groups, width, |first, draft| {
            let scaled = Scaled::of(draft, x, (&row, first), width, (eps, centres));
            let mut code = scaled.code.clone();
            let g = |col: &Index| dy.at(&row, column(first, col)) * gain.at(&Index::Is(0), col.clone());
            let (stmt, dot) = draft.sum(width, |col| g(col) * scaled.element(x, &row, column(first, col)));
            let scale = || scaled.scale.clone();
            let (named, along) = draft.named(scale() * scale() * (dot / number(f64::from(width))));
            code.extend([stmt, named]);
            code.push(draft.each(width, |col, _| {
                let at = column(first, col);
                let along = scaled.element(x, &row, at.clone()) * along.clone();
                vec![store(out, &row, at, (g(col) - along) * scale())]
            }));
            if centres {
                let (stmt, sum) = draft.sum(width, |col| out.at(&row, column(first, col)));
                let (named, mean) = draft.named(sum / number(f64::from(width)));
                code.extend([stmt, named]);
                code.push(draft.each(width, |col, _| {
                    let at = column(first, col);
                    vec![store(out, &row, at.clone(), out.at(&row, at) - mean.clone())]
                }));
            }
            code
        });
        code.extend(round);
        let name = format!("{}_{groups}x{width}", self.graph.op(value).name());
        self.finish_draft(group, name, draft, code);
        Ok(())
    }

    /// A vector to which each row and group of columns adds `term`, rows in order; one row of the kernel does it all.
    fn over_rows(
        &mut self,
        group: &Group,
        value: Value,
        operands: &[Value],
        groups: Option<u32>,
        term: impl Fn(&mut Draft, &[Matrix], (&Index, &Index)) -> (Vec<Stmt>, Box<dyn Fn(&Index) -> Expr>),
    ) -> Result<(), PlanError> {
        let mut draft = self.fixed(1, value)?;
        let mut matrices = Vec::new();
        for operand in operands {
            matrices.push(self.reads(&mut draft, "x", *operand)?);
        }
        let out = self.makes(&mut draft, value, Usage::Fill)?;
        let width = out.cols;
        let groups = groups.unwrap_or(1);
        let only = Index::Is(0);
        let clear = draft.each(width, |col, _| vec![store(out, &only, col.clone(), number(0.0))]);
        let rows = matrices[0].rows();
        let sum = draft.each_below(rows, |row, draft| {
            each_group(draft, groups, width, |first, draft| {
                let (mut code, term) = term(draft, &matrices, (row, first));
                code.push(draft.each(width, |col, _| {
                    let at = column(first, col);
                    vec![store(out, &only, col.clone(), out.at(&only, col.clone()) + term(&at))]
                }));
                code
            })
        });
        let name = format!("{}_{groups}x{width}", self.graph.op(value).name());
        self.finish_draft(group, name, draft, vec![clear, sum]);
        Ok(())
    }

    pub(super) fn column_sums(
        &mut self,
        group: &Group,
        value: Value,
        groups: Option<u32>,
    ) -> Result<(), PlanError> {
        let [dy] = self.operands(value)?;
        self.over_rows(group, value, &[dy], groups, |_, of, (row, _)| {
            let (dy, row) = (of[0], row.clone());
            (Vec::new(), Box::new(move |at| dy.at(&row, at.clone())))
        })
    }

    /// The gradient times the scaled row.
    pub(super) fn gain_gradient(
        &mut self,
        group: &Group,
        value: Value,
        (eps, groups): (F64, Option<u32>),
        centres: bool,
    ) -> Result<(), PlanError> {
        let [x, dy] = self.operands(value)?;
        let width = self.graph.ty(x).cols() / groups.unwrap_or(1).max(1);
        self.over_rows(group, value, &[x, dy], groups, |draft, of, (row, first)| {
            let (x, dy, row) = (of[0], of[1], row.clone());
            let scaled = Scaled::of(draft, x, (&row, first), width, (eps, centres));
            let code = scaled.code.clone();
            let term = move |at: &Index| {
                dy.at(&row, at.clone()) * (scaled.element(x, &row, at.clone()) * scaled.scale.clone())
            };
            (code, Box::new(term))
        })
    }

    /// Rows of the kernel are pieces of the columns, each of which takes all tokens in order.
    pub(super) fn embed_gradient(
        &mut self,
        group: &Group,
        value: Value,
        n_ids: u32,
    ) -> Result<(), PlanError> {
        let [dy, ids] = self.operands(value)?;
        let cols = self.graph.ty(value).cols();
        let piece = [64, 32, 16, 8, 4, 2].into_iter().find(|piece| cols.is_multiple_of(*piece)).unwrap_or(1);
        let mut draft = self.fixed(cols / piece, value)?;
        let (dy, ids) = (self.reads(&mut draft, "dy", dy)?, self.reads(&mut draft, "ids", ids)?);
        let out = self.makes(&mut draft, value, Usage::Fill)?;
        let first = draft.local();
        let begin = Stmt::LetIndex(first, Index::Times(Box::new(Index::Row), piece));
        let at = |col: &Index| column(&Index::Of(first), col);
        let clear = draft.each_below(Index::Is(n_ids), |id, draft| {
            vec![draft.each(piece, |col, _| vec![store(out, id, at(col), number(0.0))])]
        });
        let rows = dy.rows();
        let add = draft.each_below(rows, |token, draft| {
            let id = draft.local();
            let named = Stmt::LetIndex(id, ids.word(token));
            let id = Index::Of(id);
            let sum = draft.each(piece, |col, _| {
                vec![store(out, &id, at(col), out.at(&id, at(col)) + dy.at(token, at(col)))]
            });
            vec![named, sum]
        });
        self.finish_draft(group, format!("embed_gradient_{cols}"), draft, vec![begin, clear, add]);
        Ok(())
    }

    pub(super) fn rope_gradient(
        &mut self,
        group: &Group,
        value: Value,
        (heads, turned): (u32, Option<u32>),
        (theta, scaling): (F64, Option<RopeScaling>),
    ) -> Result<(), PlanError> {
        let [dy, positions] = self.operands(value)?;
        let width = self.graph.ty(value).cols() / heads.max(1);
        let turned = turned.unwrap_or(width);
        let mut draft = self.draft(self.graph.ty(value).rows(), value)?;
        let dy = self.reads(&mut draft, "dy", dy)?;
        let positions = self.reads(&mut draft, "positions", positions)?;
        let (cos, sin) = self.angles(&mut draft.bind, Frequencies { theta, scaling }, turned);
        let [cos, sin] = [cos, sin].map(|slot| {
            let over = Over::First(self.options.max_positions);
            draft.uses(slot, Usage::Read, over);
            Matrix { view: View::dense(slot), over, cols: turned / 2 }
        });
        let out = self.makes(&mut draft, value, Usage::Write)?;
        let place = draft.local();
        let named = Stmt::LetIndex(place, positions.word(&Index::Row));
        let (row, place) = (Index::Row, Index::Of(place));
        let mut code = vec![named];
        code.extend(each_group(&mut draft, heads, width, |first, draft| {
            let half = draft.each(turned / 2, |col, _| {
                let (left, right) = (column(first, col), column(first, col) + Index::Is(turned / 2));
                let (a, b) = (|| dy.at(&row, left.clone()), || dy.at(&row, right.clone()));
                let (cos, sin) = (|| cos.at(&place, col.clone()), || sin.at(&place, col.clone()));
                vec![
                    store(out, &row, left.clone(), a() * cos() + b() * sin()),
                    store(out, &row, right.clone(), b() * cos() - a() * sin()),
                ]
            });
            let mut code = vec![half];
            if turned < width {
                code.push(draft.each(width - turned, |col, _| {
                    let at = column(first, col) + Index::Is(turned);
                    vec![store(out, &row, at.clone(), dy.at(&row, at))]
                }));
            }
            code
        }));
        self.finish_draft(group, format!("rope_gradient_{heads}x{width}"), draft, code);
        Ok(())
    }

    pub(super) fn row_dot(&mut self, group: &Group, value: Value) -> Result<(), PlanError> {
        let [a, b] = self.operands(value)?;
        let mut draft = self.draft(self.graph.ty(value).rows(), value)?;
        let (a, b) = (self.reads(&mut draft, "a", a)?, self.reads(&mut draft, "b", b)?);
        let out = self.makes(&mut draft, value, Usage::Write)?;
        let row = Index::Row;
        let (sum, dot) = draft.sum(a.cols, |col| a.at(&row, col.clone()) * b.at(&row, col.clone()));
        let code = vec![sum, store(out, &row, Index::Is(0), dot)];
        self.finish_draft(group, format!("row_dot_{}", a.cols), draft, code);
        Ok(())
    }

    pub(super) fn place_columns(&mut self, group: &Group, value: Value, start: u32) -> Result<(), PlanError> {
        let [dy] = self.operands(value)?;
        let mut draft = self.draft(self.graph.ty(value).rows(), value)?;
        let dy = self.reads(&mut draft, "dy", dy)?;
        let out = self.makes(&mut draft, value, Usage::Write)?;
        let row = Index::Row;
        let clear = draft.each(out.cols, |col, _| vec![store(out, &row, col.clone(), number(0.0))]);
        let copy = draft.each(dy.cols, |col, _| {
            vec![store(out, &row, col.clone() + Index::Is(start), dy.at(&row, col.clone()))]
        });
        let name = format!("place_columns_{}_of_{}", dy.cols, out.cols);
        self.finish_draft(group, name, draft, vec![clear, copy]);
        Ok(())
    }
}
