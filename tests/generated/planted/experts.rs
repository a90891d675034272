//! Wrong experts: of another expert, weighed or ranked otherwise.

use skipc_ir::attr::F64;
use skipc_ir::{Graph, Op, Unary};
use skipc_plan::Plan;
use skipc_plan::kernel::{Body, Rowwise};

use super::{Does, Fault, kernels, rewrite};
use crate::experts;

/// Faults of experts.
pub(super) fn faults() -> Vec<Fault> {
    let of_experts = |name, does| Fault::new(name, experts::FIRST_SEED, does);
    vec![
        of_experts("experts: the weights of the next expert", Does::Passed(next_expert)),
        of_experts("experts: weighed by another sum", Does::Passed(other_shares)),
        of_experts("experts: chosen without their bias", Does::Passed(unbiased_choice)),
        of_experts("experts: places of a wider group", Does::Passed(wider_places)),
        of_experts("experts: ranked by position instead of score", Does::Plan(positions_first)),
        of_experts("experts: second choices before first ones", Does::Passed(turned_ranks)),
        of_experts("experts: dropped choices count", Does::Passed(unlimited)),
    ]
}

/// Rows go to the segment of the expert before theirs, but for those of the first.
fn next_expert(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::Partition { set, first, parts } = *graph.op(value) else { return None };
        let (operands, origin) = (graph.operands(value), graph.origin(value).clone());
        graph.add(Op::Partition { set, first: first + 1, parts }, &operands, &origin).ok()
    });
}

/// Weights are divided by their sum where they are not to be, and the other way round.
fn other_shares(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::ChooseOrReplay { k, sigmoid, normalise, scale, ranks } = *graph.op(value) else {
            return None;
        };
        let (operands, origin) = (graph.operands(value), graph.origin(value).clone());
        let op = Op::ChooseOrReplay { k, sigmoid, normalise: !normalise, scale, ranks };
        graph.add(op, &operands, &origin).ok()
    });
}

fn unbiased_choice(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::ChooseOrReplay { .. } = graph.op(value) else { return None };
        let (op, origin) = (graph.op(value).clone(), graph.origin(value).clone());
        let operands = graph.operands(value);
        (operands.len() == 3).then(|| graph.add(op, &operands[..2], &origin).ok())?
    });
}

fn wider_places(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::LimitChoices { group_size, slots, experts } = *graph.op(value) else { return None };
        let (operands, origin) = (graph.operands(value), graph.origin(value).clone());
        graph.add(Op::LimitChoices { group_size: group_size + 1, slots, experts }, &operands, &origin).ok()
    });
}

/// What ranks choices among those of other rows is turned round: second choices come before first ones.
fn turned_ranks(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::LimitChoices { .. } = graph.op(value) else { return None };
        let (op, origin) = (graph.op(value).clone(), graph.origin(value).clone());
        let mut operands = graph.operands(value);
        let ranks = operands.get_mut(3)?;
        *ranks = graph.add(Unary::Scale(F64::from(-1.0)).into(), &[*ranks], &origin).ok()?;
        graph.add(op, &operands, &origin).ok()
    });
}

/// No choice is dropped: what found no place counts.
fn unlimited(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::LimitChoices { .. } = graph.op(value) else { return None };
        graph.operands(value).first().copied()
    });
}

/// Choices of one expert all have one rank, its index: earlier rows come first.
fn positions_first(plan: &mut Plan) {
    for kernel in kernels(plan) {
        if let Body::Rowwise(Rowwise::Limit(limit)) = &mut kernel.body
            && let Some(ranks) = &mut limit.ranks
        {
            *ranks = limit.index;
        }
    }
}
