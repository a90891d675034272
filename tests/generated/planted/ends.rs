//! Wrong ends: patches, class tokens, scores of whole sequences.

use skipc_ir::{Graph, Op};

use super::{Does, Fault, rewrite};
use crate::vision;

/// Faults of ends.
pub(super) fn faults() -> Vec<Fault> {
    let ends = |name, does| Fault::new(name, vision::FIRST_SEED, does);
    vec![
        ends("ends: patches without their bias", Does::Passed(unbiased_patches)),
        ends("ends: a class token made of a patch", Does::Passed(no_class_token)),
        ends("ends: a row of its own instead of the mean", Does::Passed(no_mean)),
    ]
}

/// Patches are embedded by a matmul alone.
fn unbiased_patches(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::AddBias {} = graph.op(value) else { return None };
        let [x, bias] = graph.operands(value)[..] else { return None };
        let Op::Weight { name, .. } = graph.op(bias) else { return None };
        (&*name.0 == "patch_embed.bias").then_some(x)
    });
}

/// The first row is what the embedding makes of what stands in its place.
fn no_class_token(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::ClassToken {} = graph.op(value) else { return None };
        graph.operands(value).first().copied()
    });
}

/// Rows are scored by themselves.
fn no_mean(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::SequenceMean {} = graph.op(value) else { return None };
        graph.operands(value).first().copied()
    });
}
