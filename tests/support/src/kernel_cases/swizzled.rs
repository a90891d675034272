//! Matmuls whose weights are swizzled, as CUDA has them in bf16: the cases of matmuls with weights in rows, re-laid.

use std::collections::BTreeSet;

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Body, Param, Slot, WeightLayout};
use skipc_plan::recipe::swizzled_places;

use super::Case;

/// Bytes of operands from which on one case of a kernel is enough: the count is not what differs between the layouts, and
/// all of them travel to machines with a GPU.
const LARGE: usize = 1 << 19;

/// Adds a case for each of those in bf16 that have a part that is not narrow; of large ones of a kernel, for the last.
pub(super) fn add(cases: &mut Vec<Case>) {
    let is_large = |case: &Case| case.operands.iter().map(Vec::len).sum::<usize>() >= LARGE;
    let mut laid: Vec<Case> = cases.iter().filter_map(swizzled).collect();
    laid.reverse();
    laid.dedup_by(|earlier, later| is_large(later) && earlier.kernel == later.kernel);
    laid.reverse();
    cases.extend(laid);
}

/// The case with the weights of all parts swizzled that are not narrow; `None` if there are none, or if a narrow part has
/// the same weight.
fn swizzled(case: &Case) -> Option<Case> {
    let mut case = case.clone();
    let Body::Gemm(gemm) = &mut case.kernel.body else { return None };
    let (mut moved, mut kept) = (BTreeSet::<Slot>::new(), BTreeSet::<Slot>::new());
    for part in &mut gemm.parts {
        let is_wide = !part.is_narrow() && part.layout == WeightLayout::Rows;
        let weights = if is_wide { &mut moved } else { &mut kept };
        weights.extend(part.sums.iter().map(|sum| sum.weight));
        if is_wide {
            part.layout = WeightLayout::Swizzled;
        }
    }
    let is_bf16 = |slot: &Slot| case.kernel.params[slot.0 as usize].dtype == DType::Bf16;
    if moved.is_empty() || !moved.is_disjoint(&kept) || !moved.iter().all(is_bf16) {
        return None;
    }
    for slot in moved {
        lay(&mut case.kernel.params[slot.0 as usize], &mut case.operands[slot.0 as usize]);
    }
    case.name = format!("swizzled_{}", case.name);
    Some(case)
}

/// Swizzles a bf16 matrix with an output's factors in each row.
fn lay(param: &mut Param, operand: &mut Vec<u8>) {
    let k = param.cols;
    let outputs = (operand.len() / (2 * k as usize)) as u32;
    let (_, cols) = WeightLayout::Swizzled.shape((outputs, k), param.dtype).expect("it is small");
    let (size, places) = swizzled_places(outputs, k).expect("it is small");
    let mut laid = vec![0; 2 * size];
    for (at, element) in places.zip(operand.chunks_exact(2)) {
        laid[2 * at..2 * at + 2].copy_from_slice(element);
    }
    *operand = laid;
    param.cols = cols;
}
