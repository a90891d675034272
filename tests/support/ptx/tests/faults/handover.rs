//! Faults of blocks that wait for each other, of arrays side by side, and of loads that are not coherent.

use skipc_ptx::machine::FaultKind::{
    MissingProxyFence, MissingWait, NonCoherentLoad, Operand, OutOfBounds, RaceBetweenBlocks,
};
use skipc_ptx::machine::{Arg, Memory};

use super::hosts::{HANDOVER, HANDOVER_FENCED, SENTINEL, SIDE_BY_SIDE, add, launch, noise, words};
use super::plant::{Plant, Setup};

/// Blocks of a chain.
const BLOCKS: u32 = 4;

pub(crate) fn chain() -> Setup {
    let from: Vec<u32> = (0..BLOCKS * 64).map(noise).collect();
    let sum = |at: usize| (at % 64..=at).step_by(64).fold(0_u32, |sum, at| sum.wrapping_add(from[at]));
    let expected = words((0..from.len()).map(sum));
    let mut memory = Memory::default();
    let at = add(&mut memory, "from", words(from.iter().copied()), false);
    let flag = add(&mut memory, "flag", words([0]), true);
    let to = add(&mut memory, "to", words([SENTINEL; 64 * BLOCKS as usize]), true);
    let args = [at, flag, to].map(Arg::U64).to_vec();
    Setup { launch: launch(BLOCKS, 64, args), memory, expected: vec![(2, expected), (1, words([BLOCKS]))] }
}

pub(crate) fn side_by_side() -> Setup {
    let from: Vec<u32> = (0..64).map(noise).collect();
    let expected = words((0..64).map(|t| from[t].wrapping_mul(from[t]).wrapping_add(from[63 - t])));
    let mut memory = Memory::default();
    let at = add(&mut memory, "from", words(from.iter().copied()), true);
    let to = add(&mut memory, "to", words([SENTINEL; 64]), true);
    Setup { launch: launch(1, 64, vec![Arg::U64(at), Arg::U64(to)]), memory, expected: vec![(1, expected)] }
}

const BEFORE: &str = "[to+-256]; // before";
const OTHERS: &str = "a thread of another block wrote it";

pub(crate) fn plants() -> Vec<Plant> {
    [releases(), memory()].concat()
}

/// What orders one block behind another.
fn releases() -> Vec<Plant> {
    vec![
        Plant::new(
            "a store of the flag that releases nothing",
            &HANDOVER,
            &[("st.release.gpu.global.u32 [flag]", "st.relaxed.gpu.global.u32 [flag]")],
        )
        .found(RaceBetweenBlocks, BEFORE, OTHERS),
        Plant::new(
            "a load of the flag that acquires nothing",
            &HANDOVER,
            &[("ld.acquire.gpu.global.u32 n", "ld.relaxed.gpu.global.u32 n")],
        )
        .found(RaceBetweenBlocks, BEFORE, OTHERS),
        Plant::new(
            "a flag that is released to the own block",
            &HANDOVER,
            &[("st.release.gpu.global.u32 [flag]", "st.release.cta.global.u32 [flag]")],
        )
        .found(RaceBetweenBlocks, BEFORE, OTHERS),
        Plant::new(
            "a flag that is acquired from the own cluster",
            &HANDOVER,
            &[("ld.acquire.gpu.global.u32 n", "ld.acquire.cluster.global.u32 n")],
        )
        .found(RaceBetweenBlocks, BEFORE, OTHERS),
        Plant::new("no barrier in front of a release", &HANDOVER, &[("\tbar.sync 0; // stored\n", "")])
            .found(RaceBetweenBlocks, BEFORE, OTHERS),
        Plant::new("no barrier behind an acquire", &HANDOVER, &[("\tbar.sync 0; // waited\n", "")])
            .found(RaceBetweenBlocks, BEFORE, OTHERS)
            .found(RaceBetweenBlocks, "st.global.u32 [to], x", "a thread of another block read it"),
        Plant::new(
            "a flag that is polled by a plain load",
            &HANDOVER,
            &[("ld.acquire.gpu.global.u32 n", "ld.global.u32 n")],
        )
        .found(RaceBetweenBlocks, "ld.global.u32 n", OTHERS)
        .found(RaceBetweenBlocks, "st.release.gpu.global", "a thread of another block read it"),
        Plant::new(
            "no fence in front of an atomic that hands over",
            &HANDOVER_FENCED,
            &[("\tfence.acq_rel.gpu; // releases\n", "")],
        )
        .found(RaceBetweenBlocks, BEFORE, OTHERS),
        Plant::new(
            "no fence behind an atomic that waits",
            &HANDOVER_FENCED,
            &[("\tmembar.gl; // acquires\n", "")],
        )
        .found(RaceBetweenBlocks, BEFORE, OTHERS),
        Plant::new(
            "a fence for the own block",
            &HANDOVER_FENCED,
            &[("membar.gl; // acquires", "membar.cta; // acquires")],
        )
        .found(RaceBetweenBlocks, BEFORE, OTHERS),
    ]
}

/// Arrays side by side, runs, and loads that are not coherent.
fn memory() -> Vec<Plant> {
    vec![
        Plant::new(
            "a load without coherence of what another block wrote",
            &HANDOVER,
            &[("ld.global.u32 y, [to+-256]", "ld.global.nc.u32 y, [to+-256]")],
        )
        .found(NonCoherentLoad, BEFORE, "memory that no thread writes"),
        Plant::new(
            "a write to what was loaded without coherence",
            &SIDE_BY_SIDE,
            &[("\tshl.b32 own, t, 2;\n", "\tshl.b32 own, t, 2;\n\tst.global.u32 [from], 1;\n")],
        )
        .found(NonCoherentLoad, "st.global.u32 [from], 1", "read it at line"),
        Plant::new(
            "an array that runs over into the next",
            &SIDE_BY_SIDE,
            &[("sub.u32 far, 63, t", "sub.u32 far, 64, t")],
        )
        .found(OutOfBounds, "// far", "bytes 256..260 of `numbers`, which has 256"),
        Plant::new("a run that is longer than its array", &SIDE_BY_SIDE, &[("[at], 256;", "[at], 272;")])
            .found(OutOfBounds, "cp.async.bulk.global", "which has 256"),
        Plant::new("a run of no whole chunks", &SIDE_BY_SIDE, &[("[at], 256;", "[at], 252;")]).found(
            Operand,
            "cp.async.bulk.global",
            "252 bytes; a multiple of 16 is wanted",
        ),
        Plant::new("a run without a fence", &SIDE_BY_SIDE, &[("\tfence.proxy.async.shared::cta;\n", "")])
            .found(MissingProxyFence, "cp.async.bulk.global", "no fence.proxy.async lies between"),
        Plant::new(
            "a block that ends before its run was read",
            &SIDE_BY_SIDE,
            &[("\tcp.async.bulk.wait_group 0;\n", "")],
        )
        .found(MissingWait, "\tret;", "the block ends while bulk copies read"),
    ]
}
