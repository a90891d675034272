//! Wrong experts: of another expert, weighed or ranked otherwise.

use skipc_ir::attr::F64;
use skipc_ir::{Binary, Graph, Op, TypeError, Unary, Value};
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
        of_experts("experts: weights normalised after dropping", Does::Passed(normalised_after_dropping)),
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

/// Weights that are to be divided by the sum of all of a row's choices are divided by that of those that found a place. A row of
/// which no choice is dropped keeps its weights to the bit.
fn normalised_after_dropping(graph: &mut Graph) {
    let order = graph.order();
    let limits: Vec<Value> =
        order.into_iter().filter(|value| matches!(graph.op(*value), Op::LimitChoices { .. })).collect();
    for limited in limits {
        let Some(chosen) = chosen_before(graph, limited) else { continue };
        let Op::ChooseOrReplay { k, normalise: true, scale, .. } = *graph.op(chosen) else { continue };
        // Inside of a skip all rows may choose, and those of the set alone be limited: then neither has the rows of the other.
        if graph.ty(chosen).rows() == graph.ty(limited).rows() {
            renormalise(graph, (chosen, limited), (k, scale)).expect("an honest graph has these types");
        }
    }
}

/// What made the choices of which these are what is left.
fn chosen_before(graph: &Graph, index: Value) -> Option<Value> {
    let mut at = index;
    loop {
        let (op, operands) = (graph.op(at), graph.operands(at));
        if matches!(op, Op::ChooseOrReplay { .. }) {
            return Some(at);
        }
        at = if matches!(op, Op::Scatter {}) {
            // Where all rows are computed, those that do not execute have no choice.
            operands[1]
        } else if matches!(op, Op::LimitChoices { .. } | Op::Slice { .. } | Op::Gather {}) {
            operands[0]
        } else {
            return None;
        };
    }
}

/// Each weight times `1 + scale · (1 / sum of those with a place − 1 / sum of all)`.
fn renormalise(
    graph: &mut Graph,
    (chosen, limited): (Value, Value),
    (k, scale): (u32, F64),
) -> Result<(), TypeError> {
    let origin = graph.origin(chosen).clone();
    let used: Vec<(u32, Value)> = graph
        .users(chosen)
        .into_iter()
        .filter_map(|user| {
            let Op::Slice { start, len: 1 } = *graph.op(user) else { return None };
            (start < k).then_some((start, user))
        })
        .collect();
    let n = graph.ty(graph.operands(chosen)[0]).cols();
    let (mut of_all, mut of_kept) = (None, None);
    let mut weights = Vec::new();
    for place in 0..k {
        let weight = graph.add(Op::Slice { start: place, len: 1 }, &[chosen], &origin)?;
        let index = graph.add(Op::Slice { start: place, len: 1 }, &[limited], &origin)?;
        let set = graph.fresh_set();
        let kept = graph.add(Op::Partition { set, first: 0, parts: n }, &[index], &origin)?;
        let none = graph.add(Unary::Scale(F64::from(0.0)).into(), &[weight], &origin)?;
        let rows = graph.add(Op::Gather {}, &[weight, kept], &origin)?;
        let kept = graph.add(Op::Scatter {}, &[none, rows, kept], &origin)?;
        for (sum, term) in [(&mut of_all, weight), (&mut of_kept, kept)] {
            *sum = Some(match *sum {
                Some(sum) => graph.add(Binary::Add.into(), &[sum, term], &origin)?,
                None => term,
            });
        }
        weights.push(weight);
    }
    let (Some(of_all), Some(of_kept)) = (of_all, of_kept) else { return Ok(()) };
    // Of one column that is not negative, the inverse of the root of its mean square is the inverse of the number.
    let inverse = Op::InvRms { eps: F64::from(1e-30) };
    let before = graph.add(inverse.clone(), &[of_all], &origin)?;
    let after = graph.add(inverse, &[of_kept], &origin)?;
    let more = graph.add(Binary::Sub.into(), &[after, before], &origin)?;
    let more = graph.add(Unary::Scale(scale).into(), &[more], &origin)?;
    for (place, old) in used {
        let weight = weights[place as usize];
        let more = graph.add(Op::ScaleRows {}, &[weight, more], &origin)?;
        let new = graph.add(Binary::Add.into(), &[weight, more], &origin)?;
        graph.replace(old, new)?;
        graph.remove_unused(old);
    }
    Ok(())
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
