//! Products whose weights lie in panels, as CUDA has them in bf16: the cases of products with weights in rows, re-laid.

use std::collections::BTreeSet;

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Body, PANEL, Slot, WeightLayout};

use super::Case;

/// Adds a case for each of those in bf16 that have a part that is not narrow.
pub(super) fn add(cases: &mut Vec<Case>) {
    let laid: Vec<Case> = cases.iter().filter_map(in_panels).collect();
    cases.extend(laid);
}

/// The case with the weights of all parts in panels that are not narrow; `None` if there are none, or if a narrow part has
/// the same weight.
fn in_panels(case: &Case) -> Option<Case> {
    let mut case = case.clone();
    let Body::Gemm(gemm) = &mut case.kernel.body else { return None };
    let (mut moved, mut kept) = (BTreeSet::<Slot>::new(), BTreeSet::<Slot>::new());
    for part in &mut gemm.parts {
        let is_wide = !part.is_narrow() && part.layout == WeightLayout::Rows;
        let weights = if is_wide { &mut moved } else { &mut kept };
        weights.extend(part.sums.iter().map(|sum| sum.weight));
        if is_wide {
            part.layout = WeightLayout::Panels;
        }
    }
    let is_bf16 = |slot: &Slot| case.kernel.params[slot.0 as usize].dtype == DType::Bf16;
    if moved.is_empty() || !moved.is_disjoint(&kept) || !moved.iter().all(is_bf16) {
        return None;
    }
    for slot in moved {
        let (param, operand) =
            (&mut case.kernel.params[slot.0 as usize], &mut case.operands[slot.0 as usize]);
        let (panels, cols) = lay(operand, param.cols);
        *operand = panels;
        param.cols = cols;
    }
    case.name = format!("panels_{}", case.name);
    Some(case)
}

/// A bf16 matrix of `k` columns in panels, and how many columns it has then.
fn lay(rows: &[u8], k: u32) -> (Vec<u8>, u32) {
    let row_bytes = 2 * k as usize;
    let outputs = rows.len() / row_bytes;
    let cols = outputs * PANEL as usize;
    let mut panels = vec![0; 2 * cols * k.div_ceil(PANEL) as usize];
    for (idx, element) in rows.chunks_exact(2).enumerate() {
        let (row, col) = WeightLayout::in_panels((idx / k as usize) as u64, (idx % k as usize) as u64);
        let at = 2 * (row as usize * cols + col as usize);
        panels[at..at + 2].copy_from_slice(element);
    }
    (panels, cols as u32)
}
