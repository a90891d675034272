//! Matmuls in a row.

use egg::Id;
use skipc_ir::{Dim, Op};

use super::view::View;
use super::{Rule, Term, op, rules};

rules! {
    "linear.rs":
    /// Steps of a decider with nothing between them are one linear map: their weights are multiplied when the model is compiled.
    linear_into_linear: "(x · a) · b = x · (fold_linear b, a)" if "both are router logits, which are f32 in between, and `b` has no more rows than `a`";
}

fn linear_into_linear(view: &View<'_>, last: &Op, operands: &[Id], found: &mut Vec<Term>) {
    let (Op::RouterLogits {}, &[between, b]) = (last, operands) else { return };
    for (first, of_first) in view.nodes(between) {
        let (Op::RouterLogits {}, &[x, a]) = (first, of_first) else { continue };
        let rows = |class: Id| view.ty(class).map(|ty| ty.rows());
        let (Some(Dim::Fixed(of_a)), Some(Dim::Fixed(of_b))) = (rows(a), rows(b)) else { continue };
        if of_b <= of_a {
            let weight = op(Op::FoldLinear {}, [b.into(), a.into()]);
            found.push(op(Op::RouterLogits {}, [x.into(), weight]));
        }
    }
}
