//! What is made of weights alone, at compile time.

use egg::Id;
use skipc_ir::Op;

use super::{Rule, Term, op, rules};
use crate::rewrite::saturate::View;

rules! {
    /// A gain scales columns, which rows share: weights with a gain are joined like weights without.
    gain_into_parts: "fold_gain (concat a, b), g = concat (fold_gain a, g), (fold_gain b, g)" if "nothing";
}

fn gain_into_parts(view: &View<'_>, fold: &Op, operands: &[Id], found: &mut Vec<Term>) {
    let (Op::FoldGain {}, &[weight, gain]) = (fold, operands) else { return };
    for (concat, parts) in view.nodes(weight) {
        let (Op::Concat {}, &[first, second]) = (concat, parts) else { continue };
        let parts = [first, second].map(|part| op(Op::FoldGain {}, [part.into(), gain.into()]));
        found.push(op(Op::Concat {}, parts));
    }
}
