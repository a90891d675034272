//! Faults in how numbers are rounded.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Access, Body, Select, Sum};
use skipc_plan::pointwise::Inst;

use super::{Fault, Victim};

pub(super) const FAULTS: [Fault; 6] = [
    Fault { name: "stores to bf16 truncate", plant: truncated_stores, least: 141 },
    Fault { name: "f32 matmuls keep ten bits, as in tf32", plant: tf32, least: 59 },
    Fault { name: "router weights are rounded to bf16", plant: bf16_router, least: 36 },
    Fault { name: "a residual is rounded to bf16", plant: bf16_residual, least: 10 },
    Fault { name: "the random router's seed loses its upper half", plant: short_seed, least: 10 },
    Fault { name: "the threshold is compared in f64", plant: threshold_up, least: 1 },
];

/// Results of bf16 become f32 here; the caller cuts off their lower halves.
fn truncated_stores(victim: &mut Victim) -> bool {
    let mut any = false;
    for (param, operand) in victim.kernel.params.iter_mut().zip(&mut victim.operands) {
        if param.access == Access::Write && param.dtype == DType::Bf16 {
            param.dtype = DType::F32;
            let wide = operand.as_chunks::<2>().0.iter().flat_map(|half| [0, 0, half[0], half[1]]).collect();
            *operand = wide;
            any = true;
        }
    }
    any
}

/// The upper half of each f32.
pub(super) fn truncate_to_bf16(operand: &mut Vec<u8>) {
    *operand = operand.as_chunks::<4>().0.iter().flat_map(|word| [word[2], word[3]]).collect();
}

/// Keeps the upper bits of each element of an f32 operand.
fn cut(victim: &mut Victim, slot: u32, kept: u32) -> bool {
    let is_real = victim.kernel.params[slot as usize].dtype == DType::F32;
    if is_real {
        for word in victim.operands[slot as usize].as_chunks_mut::<4>().0 {
            *word = (u32::from_le_bytes(*word) & kept).to_le_bytes();
        }
    }
    is_real
}

fn tf32(victim: &mut Victim) -> bool {
    let Body::Gemm(gemm) = &victim.kernel.body else { return false };
    let sums = gemm.parts.iter().flat_map(|part| &part.sums);
    let slots: Vec<u32> = sums.map(|sum| sum.weight.0).chain([gemm.a.slot.0]).collect();
    slots.into_iter().all(|slot| cut(victim, slot, !0x1FFF))
}

fn bf16_router(victim: &mut Victim) -> bool {
    let Body::Gemm(gemm) = &victim.kernel.body else { return false };
    let narrow = gemm.parts.iter().filter(|part| part.is_narrow());
    let sums: Vec<Sum> = narrow.flat_map(|part| &part.sums).copied().collect();
    // In f32 the weight itself, in bf16 all of its terms but the first.
    let is_split = sums.len() >= 3;
    let mut any = false;
    for (idx, sum) in sums.into_iter().enumerate() {
        any |= match is_split && !idx.is_multiple_of(3) {
            true => {
                victim.operands[sum.weight.0 as usize].fill(0);
                true
            }
            false => cut(victim, sum.weight.0, !0xFFFF),
        };
    }
    any
}

fn bf16_residual(victim: &mut Victim) -> bool {
    let Body::Gemm(gemm) = &victim.kernel.body else { return false };
    let mut code = gemm.parts.iter().flat_map(|part| &part.epilogue.code);
    let slot = code.find_map(|inst| match inst {
        Inst::Load(view) => Some(view.slot.0),
        _ => None,
    });
    slot.is_some_and(|slot| cut(victim, slot, !0xFFFF))
}

fn short_seed(victim: &mut Victim) -> bool {
    let Body::Compact(compact) = &mut victim.kernel.body else { return false };
    match &mut compact.select {
        Select::Random { seed, .. } => {
            *seed &= 0xFFFF_FFFF;
            true
        }
        Select::AtLeast { .. } | Select::NotIn(_) | Select::WithFirst { .. } | Select::Ranked(_) => false,
    }
}

/// A threshold that f32 does not hold, compared in f64, leaves out the f32 just below it.
fn threshold_up(victim: &mut Victim) -> bool {
    let Body::Compact(compact) = &mut victim.kernel.body else { return false };
    match &mut compact.select {
        Select::AtLeast { threshold, .. } if f64::from(threshold.0 as f32) < threshold.0 => {
            threshold.0 = f64::from((threshold.0 as f32).next_up());
            true
        }
        Select::AtLeast { .. }
        | Select::Random { .. }
        | Select::NotIn(_)
        | Select::WithFirst { .. }
        | Select::Ranked(_) => false,
    }
}
