//! For every rule a twin with a fault planted: a side condition left out, an operand swapped or forgotten. Each is
//! refuted by the instances of its rule, or by a few lines that the missing condition is about.

use egg::Id;
use skipc_ir::{Binary, Op, Trait};

use super::instances::{instance, is_refuted};
use crate::rewrite::rules::View;
use crate::rewrite::rules::{self, Find, Rule, Term, op};

/// Name of the rule, what is wrong, the wrong rule, and an instance that the condition is about where the rule's own
/// are not.
type Twin = (&'static str, &'static str, Find, Option<&'static str>);

const TWINS: &[Twin] = &[
    (
        "gather_out",
        "other operands are not gathered",
        |view, f, operands, found| {
            let (true, &[a, b]) = (f.has(Trait::RowWise) && matches!(f, Op::Binary(Binary::Mul)), operands)
            else {
                return;
            };
            for (set, x) in gathers(view, a) {
                let other = gathers(view, b).next().map_or(b, |(_, _)| x);
                found.push(op(Op::Gather {}, [op(f.clone(), [x.into(), other.into()]), set.into()]));
            }
        },
        None,
    ),
    (
        "gather_in",
        "one operand for both",
        |view, f, operands, found| {
            let (Op::Gather {}, &[x, set]) = (f, operands) else { return };
            for (inner, of) in view.nodes(x).filter(|(inner, _)| matches!(inner, Op::Binary(Binary::Add))) {
                let row = op(Op::Gather {}, [of[0].into(), set.into()]);
                found.push(op(inner.clone(), [row.clone(), row]));
            }
        },
        Some("%m = add %x, %y\n %out = gather %m, %set"),
    ),
    (
        "gather_out_of_queries",
        "positions of the first rows",
        |view, f, operands, found| {
            let (Op::Attention { .. }, &[_, k, v, _, _, p, s]) = (f, operands) else { return };
            for (set, _) in gathers(view, operands[0]) {
                // The keys ask, too.
                let all = Term::Op(f.clone(), [v, k, v, p, s, p, s].map(Term::Class).into());
                found.push(op(Op::Gather {}, [all, set.into()]));
            }
        },
        None,
    ),
    (
        "gather_into_queries",
        "keys are gathered, too",
        |view, f, operands, found| {
            let (Op::Gather {}, &[x, set]) = (f, operands) else { return };
            for (inner, of) in view.nodes(x).filter(|(inner, _)| matches!(inner, Op::Attention { .. })) {
                let rows = of.iter().map(|class| op(Op::Gather {}, [(*class).into(), set.into()]));
                found.push(Term::Op(inner.clone(), rows.collect()));
            }
        },
        None,
    ),
    (
        "gather_of_scatter",
        "any set",
        |view, f, operands, found| {
            let (Op::Gather {}, &[x, _]) = (f, operands) else { return };
            found.extend(scatters(view, x).map(|(_, rows, _)| Term::Class(rows)));
        },
        Some(
            "%z2 = router_logits %y, %wr\n %set2 = route %z2 {set=c1, at_least=0.0}\n %u = scatter %y, %h, %set\n %out = gather %u, %set2",
        ),
    ),
    (
        "scatter_of_gather",
        "any base",
        |view, f, operands, found| {
            let (Op::Scatter {}, &[base, rows, _]) = (f, operands) else { return };
            found.extend(gathers(view, rows).map(|_| Term::Class(base)));
        },
        Some("%out = scatter %y, %g, %set"),
    ),
    (
        "scatter_over_scatter",
        "the earlier rows",
        |view, f, operands, found| {
            let (Op::Scatter {}, &[base, _, set]) = (f, operands) else { return };
            for (inner, rows, _) in scatters(view, base) {
                found.push(op(Op::Scatter {}, [inner.into(), rows.into(), set.into()]));
            }
        },
        None,
    ),
    (
        "scatter_out",
        "the base is left as it was",
        |view, f, operands, found| {
            let (Op::Binary(Binary::Mul), &[a, b]) = (f, operands) else { return };
            for ((base, x, set), (_, y, _)) in scatters(view, a).zip(scatters(view, b)) {
                let rows = op(f.clone(), [x.into(), y.into()]);
                found.push(op(Op::Scatter {}, [base.into(), rows, set.into()]));
            }
        },
        None,
    ),
    (
        "norm_into_weight",
        "the scale of the normed row",
        |view, matmul, operands, found| {
            let (Op::Matmul {}, &[normed, weight]) = (matmul, operands) else { return };
            for (norm, of) in view.nodes(normed) {
                let (Op::RmsNorm { eps, groups: None }, &[x, gain]) = (norm, of) else { continue };
                let weight = op(Op::FoldGain {}, [weight.into(), gain.into()]);
                let scale = op(Op::InvRms { eps: *eps }, [normed.into()]);
                found.push(op(Op::ScaleRows {}, [op(matmul.clone(), [x.into(), weight]), scale]));
            }
        },
        None,
    ),
    (
        "row_scale_out",
        "the scale is lost",
        |view, matmul, operands, found| {
            let (Op::Matmul {}, &[scaled, weight]) = (matmul, operands) else { return };
            for (scale, of) in view.nodes(scaled) {
                if matches!(scale, Op::ScaleRows {}) {
                    found.push(op(matmul.clone(), [of[0].into(), weight.into()]));
                }
            }
        },
        None,
    ),
    (
        "linear_into_linear",
        "the first weight alone",
        |view, last, operands, found| {
            let (Op::RouterLogits {}, &[between, _]) = (last, operands) else { return };
            for (_, of) in view.nodes(between).filter(|(first, _)| matches!(first, Op::RouterLogits {})) {
                found.push(op(Op::RouterLogits {}, [of[0].into(), of[1].into()]));
            }
        },
        Some(
            "%wide = weight {name=\"wide\", shape=[O, D]}\n %last = weight {name=\"last\", shape=[O, O]}\n %m = router_logits %x, %wide\n %out = router_logits %m, %last",
        ),
    ),
    (
        "biased_linear_into_linear",
        "the bias stays as it is",
        |view, last, operands, found| {
            let (Op::RouterLogits {}, &[between, b]) = (last, operands) else { return };
            for (_, of) in view.nodes(between).filter(|(op, _)| matches!(op, Op::AddBias {})) {
                let same = op(Op::RouterLogits {}, [of[0].into(), b.into()]);
                found.push(op(Op::AddBias {}, [same, of[1].into()]));
            }
        },
        Some(
            "%wide = weight {name=\"wide\", shape=[O, D]}\n %c = weight {name=\"c\", shape=[O]}\n %last = weight {name=\"last\", shape=[O, O]}\n %m = router_logits %x, %wide\n %n = add_bias %m, %c\n %out = router_logits %n, %last",
        ),
    ),
    (
        "bias_on_folded_bias",
        "the later bias is lost",
        |view, last, operands, found| {
            let (Op::AddBias {}, &[between, _]) = (last, operands) else { return };
            for (_, of) in view.nodes(between).filter(|(op, _)| matches!(op, Op::AddBias {})) {
                found.push(op(Op::AddBias {}, [of[0].into(), of[1].into()]));
            }
        },
        None,
    ),
    (
        "slice_in",
        "operands swapped",
        |view, f, operands, found| {
            let (Op::Slice { .. }, &[x]) = (f, operands) else { return };
            for (inner, of) in view.nodes(x).filter(|(inner, _)| matches!(inner, Op::Binary(Binary::Sub))) {
                let [a, b] = [of[1], of[0]].map(|class| op(f.clone(), [class.into()]));
                found.push(op(inner.clone(), [a, b]));
            }
        },
        Some("%m = sub %x, %y\n %out = slice %m {start=LAST, len=1}"),
    ),
    (
        "slice_of_slice",
        "the outer start alone",
        |view, f, operands, found| {
            let (Op::Slice { .. }, &[x]) = (f, operands) else { return };
            for (inner, of) in view.nodes(x).filter(|(inner, _)| matches!(inner, Op::Slice { .. })) {
                let _ = inner;
                found.push(op(f.clone(), [of[0].into()]));
            }
        },
        None,
    ),
    (
        "slice_of_all",
        "one column is all",
        |view, f, operands, found| {
            let (Op::Slice { .. }, &[x]) = (f, operands) else { return };
            let first = Op::Slice { start: 0, len: 1 };
            if view.ty(x).is_some_and(|ty| ty.cols() > 1) {
                found.push(op(first, [x.into()]));
            }
        },
        None,
    ),
    (
        "slice_into_weight",
        "the first rows of the weight",
        |view, f, operands, found| {
            let (Op::Slice { len, .. }, &[x]) = (f, operands) else { return };
            for (matmul, of) in view.nodes(x).filter(|(matmul, _)| matches!(matmul, Op::Matmul {})) {
                let rows = op(Op::WeightRows { start: 0, len: *len }, [of[1].into()]);
                found.push(op(matmul.clone(), [of[0].into(), rows]));
            }
        },
        None,
    ),
];

fn gathers<'a>(view: &'a View<'_>, class: Id) -> impl Iterator<Item = (Id, Id)> + 'a {
    view.nodes(class).filter(|(op, _)| matches!(op, Op::Gather {})).map(|(_, of)| (of[1], of[0]))
}

fn scatters<'a>(view: &'a View<'_>, class: Id) -> impl Iterator<Item = (Id, Id, Id)> + 'a {
    view.nodes(class).filter(|(op, _)| matches!(op, Op::Scatter {})).map(|(_, of)| (of[0], of[1], of[2]))
}

#[test]
fn every_rule_has_a_twin_and_every_twin_is_refuted() {
    for rule in rules::all() {
        assert!(TWINS.iter().any(|(name, ..)| *name == rule.name), "`{}` has no twin", rule.name);
    }
    for (name, what, find, body) in TWINS {
        let rule = rules::all().find(|rule| rule.name == *name).expect("a twin of a rule");
        let twin = Rule { find: *find, says: rule.says, why: rule.why, condition: what, ..*rule };
        let refuted = (0..64).filter(|number| {
            let mut text = instance(name, *number);
            if let Some(body) = body {
                text = super::instances::with_body(body, *number);
            }
            is_refuted(&twin, &text, *number as u64) == Some(true)
        });
        assert!(refuted.count() > 0, "the twin of `{name}` ({what}) is not refuted");
    }
}
