//! Small correct kernels, each with a launch and the result.

use half::bf16;
use skipc_ptx::isa::swizzle::Swizzle;
use skipc_ptx::isa::tensor_map::{DataType, Fill, TensorMap, Tiled};
use skipc_ptx::machine::{Arg, Buffer, Launch, Memory};

use super::handover;
use super::plant::{Host, Runner, Setup};

pub(crate) const ALL: [&Host; 14] = [
    &COPY,
    &REDUCE,
    &SWAP,
    &MMA,
    &ROWS,
    &HALVES,
    &RUNS,
    &TMA,
    &WGMMA,
    &WGMMA_ONCE,
    &CLUSTER,
    &HANDOVER,
    &HANDOVER_FENCED,
    &SIDE_BY_SIDE,
];

/// Instructions after which a small kernel has no end.
const PATIENCE: u64 = 200_000;

/// What a result holds before the kernel writes it.
pub(crate) const SENTINEL: u32 = 0x7FC0_FFEE;

macro_rules! host {
    ($(#[$doc:meta])* $host:ident, $name:literal, $setup:path) => {
        $(#[$doc])*
        pub(crate) static $host: Host = Host {
            name: $name,
            text: include_str!(concat!("../kernels/faults/", $name, ".ptx")),
            runner: Runner::Launch($setup),
        };
    };
}

host!(
    /// Sums of tiles: `cp.async` in two stages.
    COPY, "copy", copy);
host!(
    /// A sum over blocks.
    REDUCE, "reduce", reduce);
host!(
    /// Neighbours' numbers.
    SWAP, "swap", swap);
host!(
    /// `mma.sync` of one warp.
    MMA, "mma", mma);
host!(
    /// Listed rows, fewer than the list has.
    ROWS, "rows", rows);
host!(
    /// Named barriers between writers and readers.
    HALVES, "halves", halves);
host!(
    /// Runs of memory copied for an mbarrier.
    RUNS, "runs", runs);
host!(
    /// Tensor loads and stores around an mbarrier pipeline.
    TMA, "tma", tma);
host!(
    /// `wgmma` over three stages of K.
    WGMMA, "wgmma", wgmma_thrice);
host!(
    /// `wgmma` over one stage of K.
    WGMMA_ONCE, "wgmma", wgmma_once);
host!(
    /// Multicast in clusters of two.
    CLUSTER, "cluster", cluster);

host!(
    /// Blocks that wait for the one before, by a release and an acquire.
    HANDOVER, "handover", handover::chain);
host!(
    /// The same, by atomics and fences.
    HANDOVER_FENCED, "handover_fenced", handover::chain);
host!(
    /// Two arrays in shared memory, and a run copied out of one.
    SIDE_BY_SIDE, "side_by_side", handover::side_by_side);

pub(crate) fn words(values: impl IntoIterator<Item = u32>) -> Vec<u8> {
    values.into_iter().flat_map(u32::to_le_bytes).collect()
}

pub(crate) fn add(memory: &mut Memory, name: &str, bytes: Vec<u8>, writable: bool) -> u64 {
    memory.add(Buffer { name: name.to_owned(), bytes, writable })
}

/// A number that looks like no other.
pub(crate) fn noise(idx: u32) -> u32 {
    (idx + 1).wrapping_mul(0x9E37_79B9) >> 8
}

pub(crate) fn launch(grid: u32, threads: u32, args: Vec<Arg>) -> Launch {
    Launch { patience: PATIENCE, ..Launch::new([grid, 1, 1], threads, args) }
}

fn copy() -> Setup {
    const TILES: u32 = 5;
    let from: Vec<u32> = (0..2 * TILES * 256).map(noise).collect();
    let sums = (0..512).map(|at| {
        (0..TILES).fold(0_u32, |sum, tile| {
            sum.wrapping_add(from[(at / 256 * TILES * 256 + tile * 256 + at % 256) as usize])
        })
    });
    let expected = words(sums);
    let mut memory = Memory::default();
    let at = add(&mut memory, "from", words(from), false);
    let to = add(&mut memory, "to", words([SENTINEL; 512]), true);
    Setup {
        launch: launch(2, 64, vec![Arg::U64(at), Arg::U64(to), Arg::U32(TILES)]),
        memory,
        expected: vec![(1, expected)],
    }
}

fn reduce() -> Setup {
    const N: u32 = 490;
    let from: Vec<u32> = (0..N).map(noise).collect();
    let sum = from.iter().fold(0_u32, |sum, value| sum.wrapping_add(*value));
    let mut memory = Memory::default();
    let at = add(&mut memory, "from", words(from), false);
    let to = add(&mut memory, "sum", words([0]), true);
    Setup {
        launch: launch(4, 128, vec![Arg::U64(at), Arg::U64(to), Arg::U32(N)]),
        memory,
        expected: vec![(1, words([sum]))],
    }
}

fn swap() -> Setup {
    let mut memory = Memory::default();
    let at = add(&mut memory, "from", words((0..64).map(noise)), false);
    let to = add(&mut memory, "to", words([SENTINEL; 64]), true);
    let expected = words((0..64).map(|t| noise((63 - t) ^ 1)));
    Setup { launch: launch(1, 64, vec![Arg::U64(at), Arg::U64(to)]), memory, expected: vec![(1, expected)] }
}

/// Small whole numbers, whose products and sums are exact.
fn matrix(first: u32, n: u32) -> Vec<bf16> {
    (0..n).map(|idx| bf16::from_f32((noise(first + idx) % 5) as f32 - 2.0)).collect()
}

fn bytes(matrix: &[bf16]) -> Vec<u8> {
    matrix.iter().flat_map(|value| value.to_bits().to_le_bytes()).collect()
}

fn dot(a: &[bf16], b: &[bf16]) -> u32 {
    a.iter().zip(b).map(|(a, b)| a.to_f32() * b.to_f32()).sum::<f32>().to_bits()
}

fn mma() -> Setup {
    let (a, b) = (matrix(0, 256), matrix(1000, 128));
    let expected = words(a.chunks(16).flat_map(|a| b.chunks(16).map(move |b| dot(a, b))));
    let mut memory = Memory::default();
    let at_a = add(&mut memory, "a", bytes(&a), false);
    let at_b = add(&mut memory, "b", bytes(&b), false);
    let at_d = add(&mut memory, "d", words([SENTINEL; 128]), true);
    Setup {
        launch: launch(1, 32, [at_a, at_b, at_d].map(Arg::U64).to_vec()),
        memory,
        expected: vec![(2, expected)],
    }
}

/// 11 rows in the list, of which the first 10 count.
fn rows() -> Setup {
    const ROWS: u32 = 16;
    const LISTED: u32 = 11;
    const COUNT: u32 = 10;
    let list: Vec<u32> = (0..LISTED).map(|idx| (idx * 7 + 3) % ROWS).collect();
    let counted = |row: u32| list[..COUNT as usize].contains(&row);
    let expected = words((0..ROWS * 32).map(|at| if counted(at / 32) { noise(at) + 1 } else { SENTINEL }));
    let mut memory = Memory::default();
    let from = add(&mut memory, "from", words((0..ROWS * 32).map(noise)), false);
    let to = add(&mut memory, "to", words([SENTINEL; (ROWS * 32) as usize]), true);
    let at_list = add(&mut memory, "list", words(list.iter().copied()), false);
    let count = add(&mut memory, "count", words([COUNT]), false);
    let args = [&[from, to, at_list, count].map(Arg::U64)[..], &[Arg::U32(LISTED)]].concat();
    Setup { launch: launch(2, 128, args), memory, expected: vec![(1, expected)] }
}

fn halves() -> Setup {
    const ROUNDS: u32 = 6;
    let mut memory = Memory::default();
    let to = add(&mut memory, "to", words([SENTINEL; 64]), true);
    let expected = words((0..64).map(|u| (0..ROUNDS).map(|round| round + (u ^ 33)).sum()));
    Setup {
        launch: launch(1, 128, vec![Arg::U64(to), Arg::U32(ROUNDS)]),
        memory,
        expected: vec![(0, expected)],
    }
}

/// A matrix of 32-bit words in boxes of 32 columns by 8 rows.
pub(crate) fn word_map(address: u64, rows: u64) -> Arg {
    let map = TensorMap::encode(&Tiled {
        data_type: DataType::Uint32,
        global_address: address,
        global_dim: &[32, rows],
        global_strides: &[128],
        box_dim: &[32, 8],
        element_strides: &[1, 1],
        swizzle: Swizzle::None,
        fill: Fill::Zero,
    });
    Arg::Bytes(map.expect("a valid map").to_bytes().to_vec())
}

/// The last box lies half outside of the matrix.
fn runs() -> Setup {
    let mut memory = Memory::default();
    // The halves change places.
    let from = add(&mut memory, "from", words((0..128).map(noise)), false);
    let to = add(&mut memory, "to", words([SENTINEL; 128]), true);
    let expected = words((0..128).map(|at| noise(at ^ 64)));
    Setup { launch: launch(1, 32, vec![Arg::U64(from), Arg::U64(to)]), memory, expected: vec![(1, expected)] }
}

fn tma() -> Setup {
    const STEPS: u32 = 7;
    const ROWS: u32 = STEPS * 8 - 4;
    let mut memory = Memory::default();
    let from = add(&mut memory, "from", words((0..ROWS * 32).map(noise)), false);
    let to = add(&mut memory, "to", words([SENTINEL; (ROWS * 32) as usize]), true);
    let expected = words((0..ROWS * 32).map(|at| noise(at) + 1));
    let args = vec![word_map(from, ROWS.into()), word_map(to, ROWS.into()), Arg::U32(STEPS)];
    Setup { launch: launch(1, 64, args), memory, expected: vec![(1, expected)] }
}

fn wgmma_once() -> Setup {
    wgmma(1)
}

fn wgmma_thrice() -> Setup {
    wgmma(3)
}

fn wgmma(steps: u32) -> Setup {
    const ROWS: u32 = 80;
    let k = 64 * steps;
    let (a, b) = (matrix(0, ROWS * k), matrix(50_000, 16 * k));
    let list: Vec<u32> = (0..64).map(|idx| (idx * 37 + 5) % ROWS).collect();
    let row = |idx: u32| &a[(idx * k) as usize..][..k as usize];
    let b_ref = &b;
    let expected =
        words(list.iter().flat_map(|idx| b_ref.chunks(k as usize).map(move |b| dot(row(*idx), b))));
    let mut memory = Memory::default();
    let at_a = add(&mut memory, "a", bytes(&a), false);
    let at_list = add(&mut memory, "list", words(list.iter().copied()), false);
    let at_b = add(&mut memory, "b", bytes(&b), false);
    let at_d = add(&mut memory, "d", words([SENTINEL; 64 * 16]), true);
    let map = TensorMap::encode(&Tiled {
        data_type: DataType::Bfloat16,
        global_address: at_b,
        global_dim: &[k.into(), 16],
        global_strides: &[u64::from(k) * 2],
        box_dim: &[64, 16],
        element_strides: &[1, 1],
        swizzle: Swizzle::B128,
        fill: Fill::Zero,
    });
    let map = Arg::Bytes(map.expect("a valid map").to_bytes().to_vec());
    let args = vec![Arg::U64(at_a), Arg::U64(at_list), map, Arg::U64(at_d), Arg::U32(steps)];
    Setup { launch: launch(1, 128, args), memory, expected: vec![(3, expected)] }
}

fn cluster() -> Setup {
    let mut memory = Memory::default();
    let from = add(&mut memory, "from", words((0..4 * 256).map(noise)), false);
    let to = add(&mut memory, "to", words([SENTINEL; 128]), true);
    let expected = words((0..128_u32).map(|at| {
        let (block, lane) = (at / 32, at % 32);
        let (first, rank) = (block / 2 * 512, (block ^ 1) % 2);
        noise(first + lane * 4)
            .wrapping_mul(3)
            .wrapping_add(noise(first + 256 + lane * 4 + 1))
            .wrapping_add(rank)
    }));
    let args = vec![word_map(from, 32), Arg::U64(to)];
    Setup { launch: launch(4, 32, args), memory, expected: vec![(1, expected)] }
}
