//! Two kernels for Hopper, as LLVM prints them: warp-specialised products with bulk copies, mbarriers and wgmma, one of
//! dense rows and one of listed rows.

mod gemm;

use gemm::{Gather, Tma};
use skipc_ptx::machine::FaultKind;

const SCHEDULES: u64 = 8;

#[test]
fn dense_rows_give_the_product_in_every_schedule() {
    for kernel in [gemm::TMA_0, gemm::TMA_1] {
        for seed in 0..SCHEDULES {
            for k in [64, 256, 640] {
                Tma { m: 256, n: 256, k }.check(kernel, seed).unwrap_or_else(|wrong| panic!("k {k}: {wrong}"));
            }
        }
    }
}

#[test]
fn listed_rows_give_the_product_at_every_count() {
    for (idx, count) in [0, 1, 127, 128, 129, 255, 256].into_iter().enumerate() {
        for seed in [0, 1 + idx as u64] {
            let case = Gather { m: 256, n: 128, k: 320, count };
            case.check(gemm::GATHER_0, seed).unwrap_or_else(|wrong| panic!("count {count}: {wrong}"));
        }
    }
}

#[test]
fn accumulators_moved_behind_the_fence_are_found() {
    let fault = Gather { m: 128, n: 128, k: 320, count: 128 }.run(gemm::GATHER_1, 0).1.expect_err("a fault");
    assert_eq!(fault.kind, FaultKind::MissingWgmmaFence, "{fault}");
}
