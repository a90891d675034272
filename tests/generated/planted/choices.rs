//! Wrong choices: other branches, forced tokens, channels, scales.

use skipc::frontend::spec::model::Model;
use skipc::frontend::spec::skip::{BranchScale, Carry, Skip};
use skipc::frontend::spec::skip_table::SkipTable;
use skipc_ir::attr::F64;
use skipc_ir::{Graph, Op, Role, Rounding, Unary};
use skipc_plan::Plan;
use skipc_plan::kernel::{Body, Compact, Keep, Select};

use super::{Does, Fault, edit, input, kernels, rewrite, with_number};
use crate::choices;
use crate::model::map_skips;

/// Faults of choices.
pub(super) fn faults() -> Vec<Fault> {
    let choice = |name, does| Fault::new(name, choices::FIRST_SEED, does);
    vec![
        choice("choices: the other branch takes all tokens", Does::Plan(incomplete_complement)),
        choice("choices: a complement without its first rows", Does::Passed(short_complement)),
        choice("choices: a sorted tie the wrong way", Does::Passed(later_ties)),
        choice("choices: one forced token too many", Does::Passed(one_more_forced)),
        choice("choices: the other branch scaled by p", Does::Passed(not_one_minus)),
        choice(
            "choices: the whole branch scaled instead of its last layer",
            Does::Model(|model| with_gate(model, BranchScale::ProbabilityLast, BranchScale::Probability)),
        ),
        choice(
            "choices: scaled by the probability instead of the logit",
            Does::Model(|model| with_gate(model, BranchScale::Score, BranchScale::Probability)),
        ),
        choice("choices: forced tokens beside the best and not among them", Does::Passed(forced_beside)),
        choice("choices: drawn tokens without the forced ones", Does::Passed(without_first)),
        choice("choices: forced in the first sequences instead of positions", Does::Passed(forced_sequences)),
        choice("choices: the best of each sequence instead of the batch", Does::Passed(best_of_sequences)),
        choice("choices: the first channel decides", Does::Passed(first_channel_decides)),
        choice("choices: all channels scaled by the first", Does::Passed(scaled_by_first)),
        choice(
            "choices: a highway carries on what its branch leaves",
            Does::Model(|model| {
                let coupled = |skip: &Skip| match SkipTable::of(skip) {
                    table if table.carry == Carry::Own => {
                        Some(SkipTable { carry: Carry::Coupled, ..table }.skip())
                    }
                    _ => Some(*skip),
                };
                *model = map_skips(model, &mut { coupled });
            }),
        ),
        choice(
            "choices: the bias of a highway with the other sign",
            Does::Model(|model| {
                let other = |skip: &Skip| {
                    let table = SkipTable::of(skip);
                    Some(SkipTable { carry_bias: -table.carry_bias, ..table }.skip())
                };
                *model = map_skips(model, &mut { other });
            }),
        ),
        choice(
            "choices: the factor of a gate forgotten",
            Does::Model(|model| {
                let plain = |skip: &Skip| Some(SkipTable { gate_factor: 1.0, ..SkipTable::of(skip) }.skip());
                *model = map_skips(model, &mut { plain });
            }),
        ),
        choice("choices: a share rounded up instead of down", Does::Lowered(rounded_up)),
        choice("choices: kernels round a share up instead of down", Does::Plan(ranked_up)),
    ]
}

fn with_gate(model: &mut Model, from: BranchScale, to: BranchScale) {
    let other = |skip: &Skip| {
        let table = SkipTable::of(skip);
        Some(SkipTable { gate: if table.gate == from { to } else { table.gate }, ..table }.skip())
    };
    *model = map_skips(model, &mut { other });
}

/// What another set leaves out is all rows.
fn incomplete_complement(plan: &mut Plan) {
    for kernel in kernels(plan) {
        if let Body::Compact(compact) = &mut kernel.body
            && let Select::NotIn(executed) = &mut compact.select
        {
            *executed = compact.forced;
        }
    }
}

/// The first row of each sequence is in neither of two sets, or in one where it was in the other.
fn short_complement(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::Complement { set } = *graph.op(value) else { return None };
        let (executed, origin) = (graph.operands(value)[0], graph.origin(value).clone());
        let positions = input(graph, &Role::Positions)?;
        let more = Op::WithFirst { set: graph.fresh_set(), first: 1 };
        let more = graph.add(more, &[executed, positions], &origin).ok()?;
        graph.add(Op::Complement { set }, &[more], &origin).ok()
    });
}

/// The highest scores are those that are not the lowest, of which the earlier ones of equals come first. Shares of which floats
/// know nothing else than that, so that ties alone differ.
fn later_ties(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::RouteTopK { set, share, round: Rounding::Up } = *graph.op(value) else { return None };
        if !(0.0 < share.0 && share.0 < 1.0 && (share.0 * 8.0).fract() == 0.0) {
            return None;
        }
        let (own, origin) = (graph.operands(value), graph.origin(value).clone());
        let mut turned = own.clone();
        turned[0] = graph.add(Unary::Scale(F64::from(-1.0)).into(), &[own[0]], &origin).ok()?;
        let lowest =
            Op::RouteTopK { set: graph.fresh_set(), share: F64::from(1.0 - share.0), round: Rounding::Down };
        let lowest = graph.add(lowest, &turned, &origin).ok()?;
        let rest = Op::Complement { set: graph.fresh_set() };
        let rest = graph.add(rest, &[lowest], &origin).ok()?;
        // The best of as many are all of them.
        let mut among = own.clone();
        among.insert(1, rest);
        graph.add(Op::RouteTopKAmong { set, share, round: Rounding::Up }, &among, &origin).ok()
    });
}

fn one_more_forced(graph: &mut Graph) {
    edit(graph, &|line| {
        with_number(line, "{first=", &|number| (number.parse::<u32>().expect("a number") + 1).to_string())
    });
}

/// The best of all scores, and the forced tokens on top of them.
fn forced_beside(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let (Op::RouteTopK { set, share, round }, operands) =
            (graph.op(value).clone(), graph.operands(value))
        else {
            return None;
        };
        let Op::ForceFirst { first } = *graph.op(operands[0]) else { return None };
        let (forced, origin) = (graph.operands(operands[0]), graph.origin(value).clone());
        let mut own = operands.clone();
        own[0] = forced[0];
        let best = Op::RouteTopK { set: graph.fresh_set(), share, round };
        let best = graph.add(best, &own, &origin).ok()?;
        graph.add(Op::WithFirst { set, first }, &[best, forced[1]], &origin).ok()
    });
}

/// In all forms alike.
fn rounded_up(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let (old, round) = (graph.op(value).clone(), Rounding::Up);
        let op = if let Op::RouteTopK { set, share, .. } = old {
            Op::RouteTopK { set, share, round }
        } else if let Op::RouteTopKAmong { set, share, .. } = old {
            Op::RouteTopKAmong { set, share, round }
        } else {
            return None;
        };
        let (operands, origin) = (graph.operands(value), graph.origin(value).clone());
        (op != old).then(|| graph.add(op, &operands, &origin).ok())?
    });
}

fn ranked_up(plan: &mut Plan) {
    for kernel in kernels(plan) {
        if let Body::Compact(Compact { select: Select::Ranked(ranked), .. }) = &mut kernel.body
            && let Keep::ShareDown(share) = ranked.keep
        {
            ranked.keep = Keep::Share(share);
        }
    }
}

fn without_first(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::WithFirst { set, .. } = *graph.op(value) else { return None };
        let (chosen, origin) = (graph.operands(value)[0], graph.origin(value).clone());
        let op = graph.op(chosen).with_set(set);
        graph.add(op, &graph.operands(chosen), &origin).ok()
    });
}

fn forced_sequences(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let (Op::ForceFirst { .. } | Op::WithFirst { .. }) = graph.op(value) else { return None };
        let (op, origin) = (graph.op(value).clone(), graph.origin(value).clone());
        let operands = [graph.operands(value)[0], input(graph, &Role::Sequences)?];
        graph.add(op, &operands, &origin).ok()
    });
}

fn best_of_sequences(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let (Op::RouteTopK { .. }, &[scores]) = (graph.op(value), graph.operands(value).as_slice()) else {
            return None;
        };
        let (op, origin) = (graph.op(value).clone(), graph.origin(value).clone());
        graph.add(op, &[scores, input(graph, &Role::Sequences)?], &origin).ok()
    });
}

/// What is summed over a constant of ones is the first column, so many times.
fn first_channel_decides(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let (Op::RouterLogits {}, operands) = (graph.op(value), graph.operands(value)) else { return None };
        let Op::Fill { .. } = graph.op(operands[1]) else { return None };
        let origin = graph.origin(value).clone();
        let first = graph.add(Op::Slice { start: 0, len: 1 }, &[operands[0]], &origin).ok()?;
        let times = f64::from(graph.ty(operands[0]).cols());
        graph.add(Unary::Scale(F64::from(times)).into(), &[first], &origin).ok()
    });
}

fn scaled_by_first(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::ScaleElements {} = graph.op(value) else { return None };
        let (operands, origin) = (graph.operands(value), graph.origin(value).clone());
        let first = graph.add(Op::Slice { start: 0, len: 1 }, &[operands[1]], &origin).ok()?;
        graph.add(Op::ScaleRows {}, &[operands[0], first], &origin).ok()
    });
}

fn not_one_minus(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::Unary(Unary::OneMinus) = graph.op(value) else { return None };
        graph.operands(value).first().copied()
    });
}
