//! Norms before matmuls.
//!
//! A layer norm stays as it is: its row may be far from zero with little spread, and a matmul with the row as it stands has
//! rounded away what the norm is about, whatever is done to the weight (see `tests/accuracy.rs` of the rules).

use egg::Id;
use skipc_ir::Op;

use super::view::View;
use super::{Rule, Term, op, rules};
use crate::rewrite::cost::is_matmul;

rules! {
    "norms.rs":
    /// A matmul is linear: the gain of a norm scales columns of the weight, once and for all, and its row scale the rows of the result. No normed tensor exists.
    norm_into_weight: "(rms_norm x, g) · w = scale_rows x · (fold_gain w, g), (inv_rms x)" if "`·` is a matmul or router logits, whose row scale is f32";
    /// A matmul is linear: a scale of rows may come after it, in its epilogue.
    row_scale_out: "(scale_rows x, r) · w = scale_rows (x · w), r" if "`·` is a matmul or router logits";
}

fn norm_into_weight(view: &View<'_>, matmul: &Op, operands: &[Id], found: &mut Vec<Term>) {
    let (true, &[normed, weight]) = (is_matmul(matmul), operands) else { return };
    for (norm, norm_operands) in view.nodes(normed) {
        let (Op::RmsNorm { eps, groups: None }, &[x, gain]) = (norm, norm_operands) else { continue };
        let weight = op(Op::FoldGain {}, [weight.into(), gain.into()]);
        let sums = op(matmul.clone(), [x.into(), weight]);
        found.push(op(Op::ScaleRows {}, [sums, op(Op::InvRms { eps: *eps }, [x.into()])]));
    }
}

fn row_scale_out(view: &View<'_>, matmul: &Op, operands: &[Id], found: &mut Vec<Term>) {
    let (true, &[scaled, weight]) = (is_matmul(matmul), operands) else { return };
    for (scale, scale_operands) in view.nodes(scaled) {
        let (Op::ScaleRows {}, &[x, rows]) = (scale, scale_operands) else { continue };
        found.push(op(Op::ScaleRows {}, [op(matmul.clone(), [x.into(), weight.into()]), rows.into()]));
    }
}
