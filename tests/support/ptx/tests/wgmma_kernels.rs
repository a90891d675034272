//! Two kernels for Hopper, as LLVM prints them: warp-specialised matmuls with bulk copies, mbarriers and wgmma, one of
//! dense rows and one of listed rows.

mod gemm;

use gemm::{Gather, Tma};
use skipc_ptx::machine::FaultKind;

const SCHEDULES: u64 = 8;

#[test]
fn dense_rows_give_the_matmul_in_every_schedule() {
    for kernel in [gemm::TMA_0, gemm::TMA_1] {
        for seed in 0..SCHEDULES {
            for k in [64, 256, 640] {
                Tma { m: 256, n: 256, k }
                    .check(kernel, seed)
                    .unwrap_or_else(|wrong| panic!("k {k}: {wrong}"));
            }
        }
    }
}

#[test]
fn listed_rows_give_the_matmul_at_every_count() {
    for (idx, count) in [0, 1, 127, 128, 129, 255, 256].into_iter().enumerate() {
        for seed in [0, 1 + idx as u64] {
            let case = Gather { m: 256, n: 128, k: 320, count };
            for kernel in [gemm::GATHER_0, gemm::GATHER_1] {
                case.check(kernel, seed).unwrap_or_else(|wrong| panic!("count {count}: {wrong}"));
            }
        }
    }
}

/// LLVM sees no connection between the fence and the accumulators, and puts their zeros behind it where it peels the first
/// round of a loop; in the texts here the fence stands behind them again.
#[test]
fn accumulators_written_behind_the_fence_are_found() {
    let fence = "wgmma.fence.sync.aligned;";
    for (name, text) in [gemm::TMA_1, gemm::GATHER_1] {
        let (before, behind) = text.split_once(fence).expect("a fence");
        let (_, list) = behind.split_once(".bf16.bf16 {").expect("a matmul");
        let accumulator = list.split(',').next().expect("accumulators");
        let text = format!("{before}{fence}\n\tmov.b32 {accumulator}, 0f00000000;{behind}");
        let fault = if name == "gemm_tma" {
            Tma { m: 128, n: 128, k: 320 }.run((name, &text), 0).1.expect_err("a fault")
        } else {
            Gather { m: 128, n: 128, k: 320, count: 128 }.run((name, &text), 0).1.expect_err("a fault")
        };
        assert_eq!(fault.kind, FaultKind::MissingWgmmaFence, "{fault}");
    }
}
