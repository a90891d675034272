//! Products of one operand.

use egg::Id;
use skipc_ir::legal::{MAX_COLS, MAX_ROUTER_COLS};
use skipc_ir::{Op, Type};

use super::{Rule, Term, op, rules};
use crate::rewrite::saturate::View;

rules! {
    /// Products of one operand are columns of one product: the rows are loaded once, by one kernel. Keys with values, up with gate, routers of one stream; router logits join other router logits only, whose sums are f32 whatever the target.
    join_products: "x · w = slice x · (concat w, …)" if "other products of the same kind have the same operand; all of them together are narrow enough";
}

/// With so many products all of their joins are added, with more only the one of all: subsets matter where the
/// products of one operand are not all wanted for the same rows.
const ALL_SUBSETS: usize = 3;

/// Products of a join, at most: a bound on the depth of the concatenation.
const MAX_JOINED: usize = 16;

fn join_products(view: &View<'_>, product: &Op, operands: &[Id], found: &mut Vec<Term>) {
    let (limit, is_router) = match product {
        Op::Matmul {} => (MAX_COLS, false),
        Op::RouterLogits {} => (MAX_ROUTER_COLS, true),
        _ => return,
    };
    let &[x, weight] = operands else { return };
    let weight = view.egraph.find(weight);
    let all = view.weights_of(is_router, x);
    let Some(own) = all.iter().position(|(_, other)| *other == weight) else { return };
    if !(2..=MAX_JOINED).contains(&all.len()) {
        return;
    }
    let whole = (1u32 << all.len()) - 1;
    let first = if all.len() <= ALL_SUBSETS { 1 } else { whole };
    for subset in (first..=whole).filter(|subset| subset & (1 << own) != 0 && subset.count_ones() > 1) {
        let joined: Vec<Id> =
            (0..all.len()).filter(|idx| subset & (1 << idx) != 0).map(|idx| all[idx].1).collect();
        found.extend(slice_of_join(view, product, x, (&joined, weight), limit));
    }
}

/// The columns of `own` of the product with all weights, unless they are too many.
fn slice_of_join(
    view: &View<'_>,
    product: &Op,
    x: Id,
    (joined, own): (&[Id], Id),
    limit: u32,
) -> Option<Term> {
    let n_out = |weight: Id| match view.ty(weight).map(Type::rows) {
        Some(skipc_ir::Dim::Fixed(rows)) => Some(rows),
        _ => None,
    };
    let (mut start, mut total) = (0u32, 0u32);
    for weight in joined {
        if *weight == own {
            start = total;
        }
        total = total.checked_add(n_out(*weight)?).filter(|total| *total <= limit)?;
    }
    let weights = joined.iter().map(|weight| Term::Class(*weight));
    let weights = weights.reduce(|first, second| op(Op::Concat {}, [first, second]))?;
    let sums = op(product.clone(), [x.into(), weights]);
    Some(op(Op::Slice { start, len: n_out(own)? }, [sums]))
}
