//! Faults of two generated matmuls for Hopper: 128 rows and columns a block, a warp group that loads and two that
//! multiply, four stages.

use skipc_ptx::machine::Fault;
use skipc_ptx::machine::FaultKind::{Barrier, Deadlock, MissingProxyFence, MissingWait, MissingWgmmaFence};

use super::gemm::{self, Gather, Tma};
use super::plant::{Host, Plant, Runner};

pub(crate) static HOSTS: [&Host; 2] = [&DENSE, &LISTED];

/// All rows.
static DENSE: Host = Host { name: gemm::TMA_0.0, text: gemm::TMA_0.1, runner: Runner::Matmul(dense) };

/// Rows of a list.
static LISTED: Host = Host { name: gemm::GATHER_0.0, text: gemm::GATHER_0.1, runner: Runner::Matmul(listed) };

/// More steps than there are stages, so that each is used again.
const K: u32 = 320;

fn dense(text: &str, seed: u64) -> Result<bool, Box<Fault>> {
    let (expected, found) = Tma { m: 128, n: 128, k: K }.run((DENSE.name, text), seed);
    found.map(|(found, _)| found == expected)
}

fn listed(text: &str, seed: u64) -> Result<bool, Box<Fault>> {
    let (expected, found) = Gather { m: 128, n: 128, k: K, count: 117 }.run((LISTED.name, text), seed);
    found.map(|(found, _)| found == expected)
}

pub(crate) fn plants() -> Vec<Plant> {
    const FIRST: &str = "%rd25, %rd26, p, 1";
    const FULL: &str = "P1, [%r32], %r206";
    vec![
        Plant::new(
            "listed rows: a wait for copies one group too lax",
            &LISTED,
            &[("cp.async.wait_group \t2", "cp.async.wait_group \t3")],
        )
        .found(MissingWait, FIRST, "a copy of thread"),
        Plant::new(
            "listed rows: no proxy fence behind the copies",
            &LISTED,
            &[("cp.async.wait_group \t2;\n\tfence.proxy.async.shared::cta;\n", "cp.async.wait_group \t2;\n")],
        )
        .found(MissingProxyFence, FIRST, "no fence.proxy.async lies between"),
        Plant::new(
            "listed rows: the wrong swizzle",
            &LISTED,
            &[("shl.b32 \t%r81, %r80, 4", "shl.b32 \t%r81, %r1, 4")],
        ),
        Plant::new(
            "listed rows: a row behind the count",
            &LISTED,
            &[("setp.ge.s32 \t%p8, %r17, %r4", "setp.gt.s32 \t%p8, %r17, %r4")],
        ),
        Plant::new(
            "listed rows: an arrival too many expected",
            &LISTED,
            &[("mov.b32 \t%r22, 129", "mov.b32 \t%r22, 130")],
        )
        .found(Deadlock, FULL, "waits for 1 of 130 arrivals")
        .found(Deadlock, "P1, [%r122], %r123", "waits for 1 of 130 arrivals"),
        Plant::new(
            "listed rows: sums moved behind the fence",
            &LISTED,
            &[(
                "add.s64 \t%rd26, %rd35, %rd13;\n\twgmma.fence.sync.aligned;\n",
                "add.s64 \t%rd26, %rd35, %rd13;\n\twgmma.fence.sync.aligned;\n\tmov.b32 \t%r150, %r150;\n",
            )],
        )
        .found(MissingWgmmaFence, FIRST, "%r150 was written after"),
        Plant::new(
            "dense rows: a stage released before it was read",
            &DENSE,
            &[("wgmma.wait_group.sync.aligned \t0;\n\t@%p4", "wgmma.wait_group.sync.aligned \t1;\n\t@%p4")],
        )
        .found(MissingWait, "[%rd39], [%rd3", "after a wgmma of warp")
        .found(MissingWait, "[%rd39+65536], [%rd2", "after a wgmma of warp"),
        Plant::new(
            "dense rows: an end before the result is stored",
            &DENSE,
            &[("\tcp.async.bulk.wait_group.read \t0;\n", "")],
        )
        .found(MissingWait, "ret;", "the block ends while bulk copies read"),
        Plant::new(
            "dense rows: half of the bytes announced",
            &DENSE,
            &[("mov.b32 \t%r87, 32768", "mov.b32 \t%r87, 16384")],
        )
        .found(Barrier, "[%rd39], [%rd3", "its bytes were not announced by expect_tx")
        .found(Barrier, "[%rd39+65536], [%rd2", "its bytes were not announced by expect_tx"),
        Plant::new(
            "dense rows: no proxy fence before the result is stored",
            &DENSE,
            &[("\tfence.proxy.async.shared::cta;\n\tbar.sync \t1, 256", "\tbar.sync \t1, 256")],
        )
        .found(MissingProxyFence, "[%rd1, {%r2, %r3}]", "no fence.proxy.async lies between"),
    ]
}
