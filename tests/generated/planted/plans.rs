//! Wrong plans.

use std::collections::BTreeSet;

use skipc_artifact::program::{Arg, Extent};
use skipc_plan::Plan;
use skipc_plan::kernel::{Body, Compact, Keep, RankOrder, Rows, Rowwise, Select, View};
use skipc_plan::pointwise::{Binary, Inst, Pointwise};

use super::{Does, Fault, kernels};

/// Faults of plans.
pub(super) fn faults() -> Vec<Fault> {
    let of = |name, does| Fault::new(name, 0, does);
    vec![
        of("compacted index used as position", Does::Plan(compacted_positions)),
        of("gate probability of the wrong row", Does::Plan(wrong_probability)),
        of("last row of a tail left out", Does::Plan(short_tail)),
        of("one row of a set dropped", Does::Plan(one_slot_less)),
        of("two living buffers overlap", Does::Plan(stale_buffer)),
        of("rows of another set scattered", Does::Plan(wrong_rows)),
        of("residual of an epilogue dropped", Does::Plan(lost_residual)),
        of("a step that is needed removed", Does::Plan(lost_step)),
        of("ranked by position instead of score", Does::Plan(wrong_order)),
    ]
}

fn compacted_positions(plan: &mut Plan) {
    for kernel in kernels(plan) {
        let views: Vec<&mut View> = match &mut kernel.body {
            Body::Attention(attention) => vec![&mut attention.q_pos],
            Body::Rowwise(Rowwise::Rope { positions, .. }) => vec![positions],
            _ => Vec::new(),
        };
        views.into_iter().for_each(|view| view.rows = Rows::Dense);
    }
}

fn programs(plan: &mut Plan) -> impl Iterator<Item = &mut Pointwise> {
    kernels(plan).flat_map(|kernel| match &mut kernel.body {
        Body::Gemm(gemm) => gemm.parts.iter_mut().map(|part| &mut part.epilogue).collect(),
        Body::Rowwise(Rowwise::Map { program, .. }) => vec![program],
        _ => Vec::new(),
    })
}

fn wrong_probability(plan: &mut Plan) {
    for inst in programs(plan).flat_map(|program| &mut program.code) {
        if let Inst::LoadRow(view) = inst {
            view.rows = Rows::Dense;
        }
    }
}

fn lost_residual(plan: &mut Plan) {
    for kernel in kernels(plan) {
        let Body::Gemm(gemm) = &mut kernel.body else { continue };
        for Pointwise { code, stores } in gemm.parts.iter_mut().map(|part| &mut part.epilogue) {
            for store in stores {
                if let Some(Inst::Binary(Binary::Add, a, b)) = code.get(store.value.0 as usize).copied() {
                    let is_sum = matches!(code.get(a.0 as usize), Some(Inst::Acc(_)));
                    store.value = if is_sum { a } else { b };
                }
            }
        }
    }
}

fn short_tail(plan: &mut Plan) {
    let rows = plan.function.max_tokens;
    for kernel in kernels(plan) {
        if let (Body::Gemm(_), Extent::Counted { at_most, .. }) = (&kernel.body, kernel.extent)
            && at_most == rows
        {
            kernel.extent = Extent::Fixed(rows - 1);
        }
    }
}

fn one_slot_less(plan: &mut Plan) {
    for kernel in kernels(plan) {
        if let Body::Compact(Compact { select: Select::Ranked(ranked), .. }) = &mut kernel.body
            && let Keep::Slots(slots) = &mut ranked.keep
        {
            *slots = slots.saturating_sub(1);
        }
    }
}

fn wrong_order(plan: &mut Plan) {
    for kernel in kernels(plan) {
        if let Body::Compact(Compact { select: Select::Ranked(ranked), .. }) = &mut kernel.body {
            ranked.order = RankOrder::Position;
        }
    }
}

/// The two widest buffers that live together lie in one place.
fn stale_buffer(plan: &mut Plan) {
    let buffers = &plan.function.buffers;
    let lives = |idx: usize| {
        buffers[idx].live.filter(|_| buffers[idx].place().is_some_and(|place| place.row_offset > 0))
    };
    let pairs = (0..buffers.len()).flat_map(|a| (0..a).map(move |b| (a, b)));
    let together = |(a, b): &(usize, usize)| match (lives(*a), lives(*b)) {
        (Some(a), Some(b)) => a.0.max(b.0) < a.1.min(b.1),
        _ => false,
    };
    let widest = pairs.filter(together).max_by_key(|(a, b)| buffers[*a].cols.min(buffers[*b].cols));
    if let Some((a, b)) = widest {
        plan.function.buffers[b].storage = plan.function.buffers[a].storage;
    }
}

/// The last step that reads a row list reads that of another set.
fn wrong_rows(plan: &mut Plan) {
    let lists: BTreeSet<u32> = plan
        .function
        .steps
        .iter()
        .filter_map(|step| match &plan.kernels[step.kernel as usize].1.body {
            Body::Compact(compact) => match step.args[compact.rows.0 as usize] {
                Arg::Buffer(buffer) => Some(buffer),
                Arg::Constant(_) => None,
            },
            _ => None,
        })
        .collect();
    let (Some(first), Some(last)) = (lists.first(), lists.last()) else { return };
    for step in &mut plan.function.steps {
        if !matches!(plan.kernels[step.kernel as usize].1.body, Body::Compact(_)) {
            for arg in step.args.iter_mut().filter(|arg| **arg == Arg::Buffer(*last)) {
                *arg = Arg::Buffer(*first);
            }
        }
    }
}

fn lost_step(plan: &mut Plan) {
    let n_steps = plan.function.steps.len();
    if n_steps > 3 {
        plan.function.steps.remove(n_steps - 3);
    }
}
