//! Matmuls in a row.

use egg::Id;
use skipc_ir::{Dim, Op};

use super::view::View;
use super::{Rule, Term, op, rules};

rules! {
    "linear.rs":
    /// Steps of a decider with nothing between them are one linear map: their weights are multiplied when the model is compiled.
    linear_into_linear: "(x · a) · b = x · (fold_linear b, a)" if "both are router logits, which are f32 in between, and `b` has no more rows than `a`";
    /// The same where the first step has a bias, which goes through the weight behind it.
    biased_linear_into_linear: "(x · a + c) · b = x · (fold_linear b, a) + (fold_bias b, c)" if "both are router logits, which are f32 in between, and `b` has no more rows than `a`";
    /// A bias of the last step is added when the model is compiled, in f64 as well.
    bias_on_folded_bias: "(x + (fold_bias b, c)) + d = x + (fold_bias b, c, d)" if "nothing is on the folded bias yet";
}

/// `(x · a) · b` as one step, if `b` has no more rows than `a`.
fn folded(view: &View<'_>, [x, a, b]: [Id; 3]) -> Option<Term> {
    let rows = |class: Id| view.ty(class).map(|ty| ty.rows());
    let (Some(Dim::Fixed(of_a)), Some(Dim::Fixed(of_b))) = (rows(a), rows(b)) else { return None };
    let weight = op(Op::FoldLinear {}, [b.into(), a.into()]);
    (of_b <= of_a).then(|| op(Op::RouterLogits {}, [x.into(), weight]))
}

/// Stream and weight of the linear steps that a class is.
fn steps<'a>(view: &'a View<'_>, class: Id) -> impl Iterator<Item = [Id; 2]> + 'a {
    view.nodes(class).filter_map(|(op, operands)| match (op, operands) {
        (Op::RouterLogits {}, &[x, a]) => Some([x, a]),
        _ => None,
    })
}

/// What biases are added to in a class, and which.
fn biased<'a>(view: &'a View<'_>, class: Id) -> impl Iterator<Item = [Id; 2]> + 'a {
    view.nodes(class).filter_map(|(op, operands)| match (op, operands) {
        (Op::AddBias {}, &[x, bias]) => Some([x, bias]),
        _ => None,
    })
}

fn linear_into_linear(view: &View<'_>, last: &Op, operands: &[Id], found: &mut Vec<Term>) {
    let (Op::RouterLogits {}, &[between, b]) = (last, operands) else { return };
    found.extend(steps(view, between).filter_map(|[x, a]| folded(view, [x, a, b])));
}

fn biased_linear_into_linear(view: &View<'_>, last: &Op, operands: &[Id], found: &mut Vec<Term>) {
    let (Op::RouterLogits {}, &[between, b]) = (last, operands) else { return };
    for [sums, c] in biased(view, between) {
        let bias = op(Op::FoldBias {}, [b.into(), c.into()]);
        let logits = steps(view, sums).filter_map(|[x, a]| folded(view, [x, a, b]));
        found.extend(logits.map(|logits| op(Op::AddBias {}, [logits, bias.clone()])));
    }
}

fn bias_on_folded_bias(view: &View<'_>, last: &Op, operands: &[Id], found: &mut Vec<Term>) {
    let (Op::AddBias {}, &[between, d]) = (last, operands) else { return };
    for [x, bias] in biased(view, between) {
        for (fold, of) in view.nodes(bias) {
            if let (Op::FoldBias {}, &[b, c]) = (fold, of) {
                let bias = op(Op::FoldBias {}, [b.into(), c.into(), d.into()]);
                found.push(op(Op::AddBias {}, [x.into(), bias]));
            }
        }
    }
}
