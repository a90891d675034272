//! Columns.

use egg::Id;
use skipc_ir::{Op, Trait};

use super::view::View;
use super::{Rule, Term, op, rules};

rules! {
    "columns.rs":
    /// Columns do not see one another: an op over elements is done for the columns that are wanted only.
    slice_in: "slice f(a, b) = f(slice a, slice b)" if "`f` works element by element; an operand of one number a row stays whole unless the result has one column, too";
    /// Columns of columns are columns.
    slice_of_slice: "slice (slice x) = slice x" if "nothing";
    /// A matmul's columns are rows of its weight: what one of them is used for can be done where it is made, as the difference of a router's two logits.
    slice_into_weight: "slice (x · w) = x · (weight_rows w)" if "`·` is a matmul or router logits";
    /// All columns of a value are the value.
    slice_of_all: "slice x = x" if "the slice takes all columns";
}

fn slice_in(view: &View<'_>, f: &Op, operands: &[Id], found: &mut Vec<Term>) {
    let (Op::Slice { .. }, &[x]) = (f, operands) else { return };
    for (inner, inner_operands) in view.nodes(x) {
        // The bias is a weight of all columns, of which there is no slice.
        if !inner.has(Trait::Pointwise) || matches!(inner, Op::AddBias {}) {
            continue;
        }
        let is_row_scale = |idx: usize| idx == 1 && matches!(inner, Op::ScaleRows {});
        let terms = inner_operands.iter().enumerate().map(|(idx, operand)| match is_row_scale(idx) {
            true => Term::Class(*operand),
            false => op(f.clone(), [(*operand).into()]),
        });
        found.push(Term::Op(inner.clone(), terms.collect()));
    }
}

fn slice_of_slice(view: &View<'_>, f: &Op, operands: &[Id], found: &mut Vec<Term>) {
    let (Op::Slice { start, len }, &[x]) = (f, operands) else { return };
    for (inner, inner_operands) in view.nodes(x) {
        let (Op::Slice { start: inner_start, .. }, &[whole]) = (inner, inner_operands) else { continue };
        // The sum stays within the columns of `whole`, which fit.
        found.push(op(Op::Slice { start: start + inner_start, len: *len }, [whole.into()]));
    }
}

fn slice_into_weight(view: &View<'_>, f: &Op, operands: &[Id], found: &mut Vec<Term>) {
    let (Op::Slice { start, len }, &[x]) = (f, operands) else { return };
    for (matmul, operands) in view.nodes(x) {
        let (Op::Matmul {} | Op::RouterLogits {}, &[left, weight]) = (matmul, operands) else { continue };
        let rows = op(Op::WeightRows { start: *start, len: *len }, [weight.into()]);
        found.push(op(matmul.clone(), [left.into(), rows]));
    }
}

fn slice_of_all(view: &View<'_>, f: &Op, operands: &[Id], found: &mut Vec<Term>) {
    let (Op::Slice { len, .. }, &[x]) = (f, operands) else { return };
    if view.ty(x).is_some_and(|ty| ty.cols() == *len) {
        found.push(x.into());
    }
}
