//! What two kernels do, counted: numbers derived by hand from their texts, and all others as they were last read.

mod gemm;

use std::path::Path;

use gemm::{Gather, Tma};
use skipc_ptx::machine::Counters;

/// Two blocks of 128 × 128, four stages of 64 along K.
const TMA: Tma = Tma { m: 256, n: 128, k: 256 };

/// One block of 128 × 128, four stages, all rows listed.
const GATHER: Gather = Gather { m: 128, n: 128, k: 256, count: 128 };

fn tma() -> Counters {
    TMA.check(gemm::TMA_0, 0).unwrap_or_else(|wrong| panic!("{wrong}"))
}

fn gather() -> Counters {
    GATHER.check(gemm::GATHER_0, 0).unwrap_or_else(|wrong| panic!("{wrong}"))
}

#[test]
fn dense_rows_move_and_multiply_what_the_shape_says() {
    let counters = tma();
    let Tma { m, n, k } = TMA;
    let [m, n, k] = [m, n, k].map(u64::from);
    let blocks = 2;
    assert_eq!(counters.blocks, blocks);
    // A stage of 64 is four steps of 16 along K; two warp groups of four warps have 64 of the block's rows each.
    let stages = k / 64;
    assert_eq!(counters.wgmma, blocks * stages * 4 * 2 * 4);
    assert_eq!(counters.matrix_macs, m * n * k);
    assert_eq!(counters.mma, 0);
    // Each stage brings a box of A and one of B, 128 rows of 64 elements of 2 bytes; results leave by boxes, too.
    assert_eq!(counters.copied_in, blocks * stages * 2 * 128 * 64 * 2);
    assert_eq!(counters.copied_out, m * n * 2);
    // So threads themselves touch global memory nowhere.
    assert_eq!((counters.global_requests, counters.global_sectors), (0, 0));
    assert_eq!((counters.global_loaded, counters.global_stored), (0, 0));
    // Results go through shared memory: a warp has 16 rows of 128 columns, a `stmatrix.x4` has 16 rows of 16.
    let stores = blocks * 8 * 8;
    assert_eq!((counters.shared_loaded, counters.shared_stored), (0, stores * 32 * 16));
    assert_eq!(counters.shared_stored, m * n * 2);
    // A store of 16 bytes a lane goes in parts of 8 lanes, which the swizzle spreads over all banks.
    assert_eq!((counters.shared_requests, counters.bank_conflicts), (stores * 4, 0));
    // All 12 warps meet at barrier 0, the 8 that multiply at barrier 1.
    assert_eq!(counters.barriers, blocks * (12 + 8));
    // A stage is full once and empty once.
    assert_eq!(counters.mbarrier_phases, blocks * stages * 2);
}

/// The eight lanes of a part then write the same 16 bytes of rows that are 128 bytes apart: four banks for all, and
/// seven further passes.
#[test]
fn results_stored_without_the_swizzle_conflict() {
    let (name, text) = gemm::TMA_0;
    let mut plain = text.to_owned();
    for (swizzled, plain_chunk) in [
        ("xor.b32 \t%r36, %r26, %r27;", "mov.b32 \t%r36, %r26;"),
        ("xor.b32 \t%r44, %r43, %r27;", "mov.b32 \t%r44, %r43;"),
        ("xor.b32 \t%r52, %r51, %r27;", "mov.b32 \t%r52, %r51;"),
        ("xor.b32 \t%r60, %r59, %r27;", "mov.b32 \t%r60, %r59;"),
    ] {
        assert_eq!(plain.matches(swizzled).count(), 1, "{swizzled}");
        plain = plain.replace(swizzled, plain_chunk);
    }
    let (expected, ran) = TMA.run((name, &plain), 0);
    let (found, counters) = ran.unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(counters.shared_requests, tma().shared_requests);
    assert_eq!(counters.bank_conflicts, counters.shared_requests * 7);
    // The tensor map still takes the tile for swizzled.
    assert_ne!(expected, found);
}

#[test]
fn listed_rows_are_read_in_whole_sectors() {
    let counters = gather();
    let Gather { m, n, k, .. } = GATHER;
    let [m, n, k] = [m, n, k].map(u64::from);
    let stages = k / 64;
    assert_eq!(counters.wgmma, stages * 4 * 2 * 4);
    assert_eq!(counters.matrix_macs, m * n * k);
    // Rows of A come by `cp.async`, 16 bytes a lane, those of B in boxes.
    assert_eq!(counters.copied_in, (m + n) * k * 2);
    assert_eq!(counters.copied_out, 0);
    // The four warps that copy issue eight `cp.async` a stage, of four rows with 128 bytes each: 16 sectors.
    let copies = stages * 4 * 8;
    // All 12 warps read the count. Each warp that copies reads 8 × 4 places of the list, each that multiplies 2 × 8: no
    // more than 32 bytes a request.
    let numbers = 12 + 4 * 8 + 8 * 2;
    // A warp that multiplies has 16 rows of 128 columns; a store is of 8 rows with 16 bytes each, half a sector.
    let stores = 8 * 2 * 16;
    assert_eq!(counters.global_requests, copies + numbers + stores);
    assert_eq!(counters.global_sectors, copies * 16 + numbers + stores * 8);
    assert_eq!(counters.global_loaded, numbers * 32 * 4);
    assert_eq!(counters.global_stored, m * n * 2);
    // Eight lanes fill a row of 128 bytes, whatever the order of its chunks: no bank is asked twice.
    assert_eq!((counters.shared_requests, counters.bank_conflicts), (copies * 4, 0));
    assert_eq!((counters.shared_loaded, counters.shared_stored), (0, 0));
    assert_eq!((counters.barriers, counters.mbarrier_phases), (12, stages * 2));
}

fn without_instructions(counters: Counters) -> Counters {
    Counters { warp_instructions: Default::default(), thread_instructions: 0, ..counters }
}

/// Loops that poll make more instructions; what is moved and multiplied is the same.
#[test]
fn schedules_change_counts_of_instructions_alone() {
    let first = without_instructions(tma());
    for seed in 1..5 {
        let other = TMA.check(gemm::TMA_0, seed).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert_eq!(without_instructions(other), first, "schedule {seed}");
    }
}

/// With a matmul in flight, the last stage is not handed back: nobody waits for it.
#[test]
fn matmuls_in_flight_change_neither_traffic_nor_products() {
    let one_less = |counters: Counters| {
        let mbarrier_phases = counters.mbarrier_phases - counters.blocks;
        Counters { mbarrier_phases, ..without_instructions(counters) }
    };
    let deeper = TMA.check(gemm::TMA_1, 0).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(without_instructions(deeper), one_less(tma()));
    let deeper = GATHER.check(gemm::GATHER_1, 0).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(without_instructions(deeper), one_less(gather()));
}

#[test]
fn all_counters_are_as_last_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/counters.txt");
    let text = format!(
        "gemm_tma_d0, m 256, n 128, k 256\n{}\n\ngemm_gather_d0, m 128, n 128, k 256, count 128\n{}\n",
        tma(),
        gather()
    );
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &text).expect("the file can be written");
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        known == text,
        "counters differ from tests/counters.txt; BLESS=1 cargo test -p skipc-ptx --test counters writes it:\n{text}"
    );
}
