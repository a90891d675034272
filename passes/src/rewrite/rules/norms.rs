//! Norms before matmuls.

use egg::Id;
use skipc_ir::Op;

use super::{Rule, Term, op, rules};
use crate::rewrite::cost::is_product;
use crate::rewrite::saturate::View;

rules! {
    /// A matmul is linear: the gain of a norm scales columns of the weight, once and for all, and its row scale the rows of the result. No normed tensor exists.
    norm_into_weight: "(rms_norm x, g) · w = scale_rows x · (fold_gain w, g), (inv_rms x)" if "the product is a matmul or router logits, whose row scale is f32";
    /// The same for a layer norm: to centre a row is to centre the rows of the weight, and its bias is a bias of the matmul.
    layer_norm_into_weight: "(layer_norm x, g, b) · w = add_bias (scale_rows x · (centre_rows (fold_gain w, g)), (inv_std x)), (fold_bias w, b)" if "the product is a matmul or router logits, whose row scale is f32";
    /// A matmul is linear: a scale of rows may come after it, in its epilogue.
    row_scale_out: "(scale_rows x, r) · w = scale_rows (x · w), r" if "the product is a matmul or router logits";
}

fn norm_into_weight(view: &View<'_>, product: &Op, operands: &[Id], found: &mut Vec<Term>) {
    let (true, &[normed, weight]) = (is_product(product), operands) else { return };
    for (norm, norm_operands) in view.nodes(normed) {
        let (Op::RmsNorm { eps }, &[x, gain]) = (norm, norm_operands) else { continue };
        let weight = op(Op::FoldGain {}, [weight.into(), gain.into()]);
        let sums = op(product.clone(), [x.into(), weight]);
        found.push(op(Op::ScaleRows {}, [sums, op(Op::InvRms { eps: *eps }, [x.into()])]));
    }
}

fn layer_norm_into_weight(view: &View<'_>, product: &Op, operands: &[Id], found: &mut Vec<Term>) {
    let (true, &[normed, weight]) = (is_product(product), operands) else { return };
    for (norm, norm_operands) in view.nodes(normed) {
        let (Op::LayerNorm { eps }, &[x, gain, bias]) = (norm, norm_operands) else { continue };
        let scaled = op(Op::FoldGain {}, [weight.into(), gain.into()]);
        let sums = op(product.clone(), [x.into(), op(Op::CentreRows {}, [scaled])]);
        let rows = op(Op::ScaleRows {}, [sums, op(Op::InvStd { eps: *eps }, [x.into()])]);
        found.push(op(Op::AddBias {}, [rows, op(Op::FoldBias {}, [weight.into(), bias.into()])]));
    }
}

fn row_scale_out(view: &View<'_>, product: &Op, operands: &[Id], found: &mut Vec<Term>) {
    let (true, &[scaled, weight]) = (is_product(product), operands) else { return };
    for (scale, scale_operands) in view.nodes(scaled) {
        let (Op::ScaleRows {}, &[x, rows]) = (scale, scale_operands) else { continue };
        found.push(op(Op::ScaleRows {}, [op(product.clone(), [x.into(), weight.into()]), rows.into()]));
    }
}
