//! Wrong stacks: repetitions that choose, draw or look at keys as they should not.

use skipc::frontend::spec::skip::{Kv, Skip};
use skipc::frontend::spec::skip_table::SkipTable;
use skipc_ir::attr::F64;
use skipc_ir::{Graph, Op, Value};

use super::{Does, Fault, rewrite};
use crate::model::map_skips;
use crate::stacks;

/// Faults of stacks.
pub(super) fn faults() -> Vec<Fault> {
    let of_stacks = |name, does| Fault::new(name, stacks::FIRST_SEED, does);
    vec![
        of_stacks("stacks: a nested router chooses among all tokens", Does::Passed(without_nesting)),
        of_stacks("stacks: one repetition less than was chosen", Does::Passed(less_deep)),
        of_stacks("stacks: all repetitions draw alike", Does::Passed(drawn_alike)),
        of_stacks(
            "stacks: a later repetition makes keys of its own",
            Does::Model(|model| {
                let own = |skip: &Skip| match SkipTable::of(skip) {
                    table if table.kv == Kv::First => Some(SkipTable { kv: Kv::All, ..table }.skip()),
                    _ => Some(*skip),
                };
                *model = map_skips(model, &mut { own });
            }),
        ),
        of_stacks(
            "stacks: densities in the wrong order",
            Does::Model(|model| {
                for stack in &mut model.stacks {
                    let densities: Vec<f64> = stack.skips.iter().rev().map(|skip| skip.density).collect();
                    for (skip, density) in stack.skips.iter_mut().zip(densities) {
                        skip.density = density;
                    }
                }
            }),
        ),
    ]
}

/// Sets among those of an outer one are sets of all tokens.
fn without_nesting(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let (operands, origin) = (graph.operands(value), graph.origin(value).clone());
        if let Op::Within { set } = *graph.op(value) {
            let free = graph.op(operands[0]).with_set(set);
            return graph.add(free, &graph.operands(operands[0]), &origin).ok();
        }
        let Op::RouteTopKAmong { set, share, round } = *graph.op(value) else { return None };
        let own: Vec<Value> =
            operands.iter().enumerate().filter(|(idx, _)| *idx != 1).map(|(_, own)| *own).collect();
        graph.add(Op::RouteTopK { set, share, round }, &own, &origin).ok()
    });
}

/// Choices of a last repetition are those of the one before it.
fn less_deep(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let (Op::Route { set, at_least }, operands) = (graph.op(value).clone(), graph.operands(value)) else {
            return None;
        };
        let (Op::Slice { .. }, chosen) = (graph.op(operands[0]), graph.operands(operands[0])) else {
            return None;
        };
        let Op::Choose { .. } = graph.op(*chosen.first()?) else { return None };
        let origin = graph.origin(value).clone();
        let at_least = F64::from(f64::from(at_least) + 1.0);
        graph.add(Op::Route { set, at_least }, &operands, &origin).ok()
    });
}

/// Random decisions of every block are those of the first.
fn drawn_alike(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::RouteRandom { set, seed, limit, block } = *graph.op(value) else { return None };
        let (operands, origin) = (graph.operands(value), graph.origin(value).clone());
        let alike = Op::RouteRandom { set, seed, block: 0, limit };
        (block > 0).then(|| graph.add(alike, &operands, &origin).ok()).flatten()
    });
}
