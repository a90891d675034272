//! Gathers and scatters over ops that work row by row.

use egg::Id;
use skipc_ir::{Op, Trait, Type};

use super::view::View;
use super::{Rule, Term, op, rules};

rules! {
    "rows.rs":
    /// Rows do not see one another, so rows may be chosen before or after: what is computed for all rows anyway need not be computed again for some.
    gather_out: "f(gather a, s) = gather f(a), s" if "`f` works row by row, and all its operands with token rows are gathered by the one set";
    /// Rows do not see one another: the work is done for the rows that are wanted only.
    gather_in: "gather f(a), s = f(gather a, s)" if "`f` works row by row, its result has the rows that `s` selects from, and `s` is a set";
    /// A query sees the keys, not the other queries.
    gather_out_of_queries: "attention(gather q, s, k, v) = gather attention(q, k, v), s" if "queries, their positions and their sequences are gathered by the one set";
    /// A query sees the keys, not the other queries.
    gather_into_queries: "gather attention(q, k, v), s = attention(gather q, s, k, v)" if "nothing";
    /// The rows that were put in come out again: adjacent layers over one set stay compact.
    gather_of_scatter: "gather (scatter x, y, s), s = y" if "both over the one set";
    /// Rows that are put back where they came from change nothing.
    scatter_of_gather: "scatter x, (gather x, s), s = x" if "both over the one set, and from the one base";
    /// The later rows overwrite the earlier ones.
    scatter_over_scatter: "scatter (scatter x, y, s), z, s = scatter x, z, s" if "both over the one set";
    /// Rows do not see one another, so the op may be done before rows are put together.
    scatter_out: "f(scatter x, y, s) = scatter f(x), f(y), s" if "`f` works row by row, makes a matrix of numbers, and all its operands with token rows are scattered by the one set";
}

/// Which operands have token rows.
fn row_operands(view: &View<'_>, operands: &[Id]) -> Vec<usize> {
    let has_rows =
        |class: Id| matches!(view.ty(class), Some(ty @ Type::Tensor { .. }) if ty.rows().is_token_rows());
    (0..operands.len()).filter(|idx| has_rows(operands[*idx])).collect()
}

/// Ops that work row by row and make numbers (masks are made of sets alone).
fn is_row_wise(op: &Op) -> bool {
    op.has(Trait::RowWise) && !op.has(Trait::CountsRows)
}

/// The sets over which a class is a gather of a tensor, each with what is gathered. Nothing is computed on all of a cache.
fn gathers<'a>(view: &'a View<'_>, class: Id) -> impl Iterator<Item = (Id, Id)> + 'a {
    let is_tensor = |class: Id| matches!(view.ty(class), Some(Type::Tensor { .. }));
    view.nodes(class).filter_map(move |(op, operands)| match (op, operands) {
        (Op::Gather {}, &[x, set]) if is_tensor(x) => Some((view.egraph.find(set), x)),
        _ => None,
    })
}

/// Base, rows and set of the scatters of a class.
fn scatters<'a>(view: &'a View<'_>, class: Id) -> impl Iterator<Item = (Id, Id, Id)> + 'a {
    view.nodes(class).filter_map(|(op, operands)| match (op, operands) {
        (Op::Scatter {}, &[base, rows, set]) => Some((base, rows, view.egraph.find(set))),
        _ => None,
    })
}

/// The op over its operands with those at `places` replaced.
fn with_operands(op: &Op, operands: &[Id], places: &[usize], new: Vec<Term>) -> Term {
    let mut terms: Vec<Term> = operands.iter().map(|operand| Term::Class(*operand)).collect();
    for (place, term) in places.iter().zip(new) {
        terms[*place] = term;
    }
    Term::Op(op.clone(), terms)
}

/// `f` over what is gathered, then gathered, if all operands at `places` are gathered by one set.
fn ungathered(view: &View<'_>, f: &Op, operands: &[Id], places: &[usize], found: &mut Vec<Term>) {
    let Some((first, others)) = places.split_first() else { return };
    for (set, x) in gathers(view, operands[*first]) {
        let mut from = vec![Term::Class(x)];
        from.extend(others.iter().map_while(|place| {
            gathers(view, operands[*place]).find(|(other, _)| *other == set).map(|(_, x)| Term::Class(x))
        }));
        if from.len() == places.len() {
            found.push(op(Op::Gather {}, [with_operands(f, operands, places, from), set.into()]));
        }
    }
}

fn gather_out(view: &View<'_>, f: &Op, operands: &[Id], found: &mut Vec<Term>) {
    if is_row_wise(f) {
        ungathered(view, f, operands, &row_operands(view, operands), found);
    }
}

fn gather_out_of_queries(view: &View<'_>, f: &Op, operands: &[Id], found: &mut Vec<Term>) {
    if matches!(f, Op::Attention { .. }) {
        ungathered(view, f, operands, &QUERY_OPERANDS, found);
    }
}

/// Operands of attention that have the rows of its result.
const QUERY_OPERANDS: [usize; 3] = [0, 3, 4];

fn gather_in(view: &View<'_>, f: &Op, operands: &[Id], found: &mut Vec<Term>) {
    let (Op::Gather {}, &[x, set]) = (f, operands) else { return };
    // All rows are in some segment of a partition: there is nothing to save, and matmuls want their rows in order.
    if !matches!(view.ty(set), Some(Type::Set { .. })) {
        return;
    }
    for (inner, inner_operands) in view.nodes(x).filter(|(inner, _)| is_row_wise(inner)) {
        let places = row_operands(view, inner_operands);
        let new = places.iter().map(|place| op(Op::Gather {}, [inner_operands[*place].into(), set.into()]));
        found.push(with_operands(inner, inner_operands, &places, new.collect()));
    }
}

fn gather_into_queries(view: &View<'_>, f: &Op, operands: &[Id], found: &mut Vec<Term>) {
    let (Op::Gather {}, &[x, set]) = (f, operands) else { return };
    for (inner, inner_operands) in view.nodes(x).filter(|(inner, _)| matches!(inner, Op::Attention { .. })) {
        let new = QUERY_OPERANDS.map(|place| op(Op::Gather {}, [inner_operands[place].into(), set.into()]));
        found.push(with_operands(inner, inner_operands, &QUERY_OPERANDS, new.into()));
    }
}

fn gather_of_scatter(view: &View<'_>, f: &Op, operands: &[Id], found: &mut Vec<Term>) {
    let (Op::Gather {}, &[x, set]) = (f, operands) else { return };
    let set = view.egraph.find(set);
    found.extend(scatters(view, x).filter(|(.., of)| *of == set).map(|(_, rows, _)| Term::Class(rows)));
}

fn scatter_of_gather(view: &View<'_>, f: &Op, operands: &[Id], found: &mut Vec<Term>) {
    let (Op::Scatter {}, &[base, rows, set]) = (f, operands) else { return };
    let (base, set) = (view.egraph.find(base), view.egraph.find(set));
    let same = |(of, x): (Id, Id)| of == set && view.egraph.find(x) == base;
    found.extend(gathers(view, rows).find(|gather| same(*gather)).map(|_| Term::Class(base)));
}

fn scatter_over_scatter(view: &View<'_>, f: &Op, operands: &[Id], found: &mut Vec<Term>) {
    let (Op::Scatter {}, &[base, rows, set]) = (f, operands) else { return };
    let set = view.egraph.find(set);
    for (inner, ..) in scatters(view, base).filter(|(.., of)| *of == set) {
        found.push(op(Op::Scatter {}, [inner.into(), rows.into(), set.into()]));
    }
}

fn scatter_out(view: &View<'_>, f: &Op, operands: &[Id], found: &mut Vec<Term>) {
    if !is_row_wise(f) {
        return;
    }
    let places = row_operands(view, operands);
    let Some((first, others)) = places.split_first() else { return };
    for (base, rows, set) in scatters(view, operands[*first]) {
        let (mut bases, mut all_rows) = (vec![Term::Class(base)], vec![Term::Class(rows)]);
        for place in others {
            if let Some((base, rows, _)) = scatters(view, operands[*place]).find(|(.., of)| *of == set) {
                bases.push(base.into());
                all_rows.push(rows.into());
            }
        }
        if bases.len() == places.len() {
            let base = with_operands(f, operands, &places, bases);
            let rows = with_operands(f, operands, &places, all_rows);
            found.push(op(Op::Scatter {}, [base, rows, set.into()]));
        }
    }
}
