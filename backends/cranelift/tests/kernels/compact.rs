use ordered_float::OrderedFloat;
use skipc_artifact::program::Extent;
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Access, Body, Compact, Select, Slot, View};

use crate::case::{Bound, Case, dense, u32s};

const COUNTS: [u32; 5] = [0, 1, 2, 63, 130];

/// Adds the outputs and the forced decisions (every third row) and runs; gives the count.
fn check(case: &mut Case, select: Select, n: u32, use_forced: u32) -> u32 {
    let use_forced = case.indices(&[use_forced]);
    let decisions = (0..n).map(|row| u8::from(row % 3 == 0)).collect();
    let forced = case.param(DType::U8, 1, Access::Read, decisions);
    let rows = case.output(DType::U32, n, 1);
    let count = case.output(DType::U32, 1, 1);
    let mask = case.output(DType::U8, n, 1);
    let extent = if n.is_multiple_of(2) { Extent::Fixed(n) } else { case.counted(n, n) };
    let compact = Compact { select, use_forced, forced, rows, count, mask };
    let after = case.check(extent, Body::Compact(compact), Bound::Exact);
    u32s(&after[count.0 as usize])[0]
}

fn scores(case: &mut Case, n: u32) -> Slot {
    // Some on the threshold, some not a number, some infinite.
    let scores: Vec<f32> = (0..n)
        .flat_map(|row| {
            let score = [0.5, -1.0, 0.499_999_97, f32::NAN, f32::INFINITY, 0.7, f32::NEG_INFINITY];
            [9.0, score[row as usize % 7]]
        })
        .collect();
    case.given(2, &scores)
}

#[test]
fn rows_whose_score_reaches_the_threshold() {
    for n in COUNTS {
        for forced in [0, 1, 7] {
            for threshold in [0.5, f64::INFINITY, f64::NEG_INFINITY] {
                let mut case = Case::default();
                let scores = scores(&mut case, n);
                let scores = View { col: 1, ..dense(scores) };
                let select = Select::AtLeast { scores, threshold: OrderedFloat(threshold) };
                let count = check(&mut case, select, n, forced);
                if forced != 0 {
                    assert_eq!(count, n.div_ceil(3));
                } else if threshold == 0.5 {
                    let expected = (0..n).filter(|row| [0, 4, 5].contains(&(row % 7))).count();
                    assert_eq!(count as usize, expected);
                }
            }
        }
    }
}

#[test]
fn random_rows_are_those_of_the_interpreter() {
    for n in COUNTS {
        for limit in [0, 1 << 30, 1 << 32] {
            let mut case = Case::default();
            let positions = case.indices(&(0..n).map(|row| row * 3).collect::<Vec<_>>());
            let sequences = case.indices(&(0..n).map(|row| row / 9).collect::<Vec<_>>());
            let (positions, sequences) = (dense(positions), dense(sequences));
            let select = Select::Random {
                ids: positions,
                sequences: Some(sequences),
                seed: 0xdead_beef_1234,
                block: 40_000,
                limit,
            };
            let count = check(&mut case, select, n, 0);
            match limit {
                0 => assert_eq!(count, 0),
                0x1_0000_0000 => assert_eq!(count, n),
                _ => assert!(n < 60 || (n / 8..n / 2).contains(&count), "{count} of {n}"),
            }
        }
    }
}
