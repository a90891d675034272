//! Wrong convolutions: inputs of other places, other sequences or other steps, and what stands behind the sum.

use skipc::frontend::layer::Layer;
use skipc::frontend::spec::skip::{Kv, Skip};
use skipc::frontend::spec::skip_table::SkipTable;
use skipc_ir::{Graph, Op};
use skipc_plan::Plan;
use skipc_plan::kernel::{Along, Body, Conv, Inputs, Rows};

use super::{Does, Fault, kernels, rewrite};
use crate::convs;
use crate::model::map_skips;

/// Faults of convolutions.
pub(super) fn faults() -> Vec<Fault> {
    let of_convs = |name, does| Fault::new(name, convs::FIRST_SEED, does);
    vec![
        of_convs("convs: every tap one position too early", Does::Plan(early_taps)),
        of_convs("convs: windows of compacted rows in another sequence", Does::Plan(compacted_sequences)),
        of_convs("convs: bias behind the activation", Does::Passed(late_bias)),
        of_convs(
            "convs: inputs of skipped tokens lost",
            Does::Model(|model| {
                let active = |skip: &Skip| Some(SkipTable { kv: Kv::Active, ..SkipTable::of(skip) }.skip());
                if model.layers().all(|layer| !matches!(layer, Layer::Attention(_))) {
                    *model = map_skips(model, &mut { active });
                }
            }),
        ),
        of_convs("convs: steps see the cache one row off", Does::Plan(shifted_cache)),
        of_convs("convs: inputs of the step itself unseen", Does::Lowered(stale_inputs)),
    ]
}

fn convs(plan: &mut Plan) -> impl Iterator<Item = &mut Conv> {
    kernels(plan).filter_map(|kernel| match &mut kernel.body {
        Body::Along(Along::Conv(conv)) => Some(conv),
        _ => None,
    })
}

/// Without its last row a filter has for each input the factor of the one before it.
fn shift(conv: &mut Conv) {
    conv.taps -= u32::from(conv.taps > 1);
}

fn early_taps(plan: &mut Plan) {
    convs(plan).filter(|conv| matches!(conv.inputs, Inputs::Rows { .. })).for_each(shift);
}

fn shifted_cache(plan: &mut Plan) {
    convs(plan).filter(|conv| matches!(conv.inputs, Inputs::Cached { .. })).for_each(shift);
}

/// The sequence of a row of a set is that of the row of all tokens that has its number.
fn compacted_sequences(plan: &mut Plan) {
    for conv in convs(plan) {
        conv.sequences.rows = Rows::Dense;
    }
}

fn late_bias(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::Unary(function) = *graph.op(value) else { return None };
        let sum = graph.operands(value)[0];
        let Op::AddBias {} = graph.op(sum) else { return None };
        let (operands, origin) = (graph.operands(sum), graph.origin(value).clone());
        let (Op::Conv {} | Op::CachedConv {}) = graph.op(operands[0]) else { return None };
        let first = graph.add(function.into(), &operands[..1], &origin).ok()?;
        graph.add(Op::AddBias {}, &[first, operands[1]], &origin).ok()
    });
}

/// Convolutions over the caches as the step found them.
fn stale_inputs(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::CachedConv {} = graph.op(value) else { return None };
        let (mut operands, origin) = (graph.operands(value), graph.origin(value).clone());
        let Op::StoreRows {} = graph.op(operands[0]) else { return None };
        operands[0] = graph.operands(operands[0])[0];
        graph.add(Op::CachedConv {}, &operands, &origin).ok()
    });
}
