//! States: sums of rows, each step behind those before it.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Body, Slot, Update};

use super::Case;
use super::draft::{Draft, Set, Values, dense, listed};
use crate::tolerance::{Exactness, Want, decode};

pub(super) fn add(cases: &mut Vec<Case>) {
    // Rows around tiles, columns around vectors and blocks of threads.
    for rows in [0, 1, 15, 16, 17, 63, 64, 65] {
        for dtype in [DType::F32, DType::Bf16] {
            cases.push(add_rows(dtype, rows, 36, None));
        }
    }
    for cols in [1, 3, 1024, 1025] {
        cases.push(add_rows(DType::F32, 5, cols, None));
    }
    for set in Set::ALL {
        cases.push(add_rows(DType::F32, 33, 20, Some(set)));
    }
    cases.extend(sums_of_steps());
}

/// Rows of the steps of one generation: none, one, and those around a tile or group.
const STEPS: [u32; 7] = [17, 0, 1, 15, 16, 1, 33];

/// All rows of a matrix, or those of a set.
fn add_rows(dtype: DType, rows: u32, cols: u32, set: Option<Set>) -> Case {
    let of = set.map_or("all", Set::name);
    let mut draft = Draft::new(format!("update_add_rows_{dtype}_{cols}_of_{of}_rows_{rows}"));
    let bound = rows + 3;
    let members = set.map(|set| set.rows(rows, &mut draft));
    let list = members.as_ref().map(|members| draft.column("list", bound, members));
    let x = draft.reals("x", (dtype, bound, cols), rows, Values::Within(2.0));
    let sum = draft.updated("sum", (DType::F32, 1, cols), 1, Values::Within(10.0));
    let extent = draft.counted(members.map_or(rows, |members| members.len() as u32), bound);
    let x = list.map_or(dense(x), |list| listed(x, list));
    draft.finish(extent, Body::Update(Update::AddRows { cols, x, sum }), Exactness::Matmul { k: rows + 1 })
}

/// A running sum of whole numbers, so that it is exact: each step begins with what the one before should leave.
fn sums_of_steps() -> Vec<Case> {
    let (mut cases, mut sums) = (Vec::new(), vec![0.0; 20]);
    for (step, rows) in STEPS.into_iter().enumerate() {
        let mut draft = Draft::new(format!("update_step_{step}_of_sums_rows_{rows}"));
        let bound = rows + 3;
        let x = dense(draft.reals("x", (DType::F32, bound, 20), rows, Values::Integers));
        let sum = draft.updated_matrix("sum", (DType::F32, 1, 20), &sums);
        let extent = draft.counted(rows, bound);
        let update = Update::AddRows { cols: 20, x, sum };
        let case = draft.finish(extent, Body::Update(update), Exactness::Bitwise);
        sums = left_in(&case, sum);
        cases.push(case);
    }
    cases
}

/// What a parameter should hold after the run.
fn left_in(case: &Case, slot: Slot) -> Vec<f64> {
    let mut left = decode(case.kernel.param(slot).dtype, &case.operands[slot.0 as usize]);
    for expected in case.expected.iter().filter(|expected| expected.param == slot.0) {
        for (left, want) in left.iter_mut().zip(&expected.wants) {
            if let Want::Value { value, .. } = want {
                *left = *value;
            }
        }
    }
    left
}
