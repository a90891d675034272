//! Matmuls: sizes, extents, types, gathered and scattered rows.

use skipc_artifact::program::Extent;
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Body, Gemm, Part, Slot, View};
use skipc_plan::pointwise::{Inst, Pointwise, Reg, Store};

use super::Case;
use super::draft::{Draft, Set, Values, dense, listed};
use crate::tolerance::Exactness;

/// Inner size and columns: multiples of 8, 16, 32 and 64, and sizes that fit no vector.
const SIZES: [(u32, u32); 18] = [
    (8, 8),
    (16, 32),
    (32, 16),
    (64, 64),
    (64, 192),
    (128, 64),
    (192, 128),
    (1, 1),
    (1, 7),
    (2, 3),
    (3, 2),
    (7, 30),
    (30, 7),
    (33, 33),
    (30, 96),
    (96, 97),
    (97, 96),
    (97, 33),
];

/// Rows around the tiles that backends use (16, 32, 64, 128), below a bound of 130.
const EXTENTS: [u32; 17] = [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129];

pub(super) fn add(cases: &mut Vec<Case>) {
    for (k, n) in SIZES {
        for dtype in [DType::F32, DType::Bf16] {
            for values in [Values::Integers, Values::Within(1.0)] {
                cases.push(plain((dtype, dtype), (k, n), (17, 33), values));
            }
        }
        cases.push(plain((DType::Bf16, DType::F32), (k, n), (33, 33), Values::Within(1.0)));
    }
    for rows in EXTENTS {
        cases.push(plain((DType::F32, DType::F32), (24, 40), (rows, 130), Values::Within(1.0)));
        cases.push(plain((DType::Bf16, DType::Bf16), (32, 64), (rows, 130), Values::Within(1.0)));
    }
    for dtype in [DType::F32, DType::Bf16] {
        cases.push(fixed(dtype));
        for set in Set::ALL {
            for (gather, scatter) in [(true, false), (false, true), (true, true)] {
                for (k, n) in [(16, 64), (33, 31)] {
                    cases.push(routed(dtype, (k, n), set, (gather, scatter)));
                }
            }
        }
        cases.push(slices(dtype));
    }
}

fn kind(values: Values) -> &'static str {
    match values {
        Values::Integers => "integers",
        Values::Within(_) => "reals",
    }
}

fn exactness(values: Values, k: u32) -> Exactness {
    match values {
        Values::Integers => Exactness::Bitwise,
        Values::Within(_) => Exactness::Matmul { k },
    }
}

/// A program that stores the sum.
pub(super) fn store_sum(to: View) -> Pointwise {
    Pointwise { code: vec![Inst::Acc(0)], stores: vec![Store { to, value: Reg(0) }] }
}

/// A matmul of one part.
pub(super) fn one_part(a: View, k: u32, part: Part) -> Gemm {
    Gemm { a, k, parts: vec![part] }
}

fn plain(
    (dtype, out): (DType, DType),
    (k, n): (u32, u32),
    (rows, bound): (u32, u32),
    values: Values,
) -> Case {
    let mut draft = Draft::new(format!("gemm_{dtype}_{out}_{k}x{n}_rows_{rows}_of_{bound}_{}", kind(values)));
    let a = draft.reals("a", (dtype, bound, k), rows, values);
    let weight = draft.reals("weight", (dtype, n, k), n, values);
    let out = draft.output("out", (out, bound, n));
    let extent = draft.counted(rows, bound);
    let gemm = one_part(dense(a), k, Part::of(n, &[weight], store_sum(dense(out))));
    draft.finish(extent, Body::Gemm(gemm), exactness(values, k))
}

/// As many rows as the compile says, in a larger buffer.
fn fixed(dtype: DType) -> Case {
    let mut draft = Draft::new(format!("gemm_{dtype}_fixed_extent"));
    let a = draft.reals("a", (dtype, 64, 20), 50, Values::Within(1.0));
    let weight = draft.reals("weight", (dtype, 36, 20), 36, Values::Within(1.0));
    let out = draft.output("out", (dtype, 64, 36));
    let gemm = one_part(dense(a), 20, Part::of(36, &[weight], store_sum(dense(out))));
    draft.finish(Extent::Fixed(50), Body::Gemm(gemm), Exactness::Matmul { k: 20 })
}

fn routed(dtype: DType, (k, n): (u32, u32), set: Set, (gather, scatter): (bool, bool)) -> Case {
    let moves = match (gather, scatter) {
        (true, true) => "both",
        (true, false) => "gather",
        _ => "scatter",
    };
    let mut draft = Draft::new(format!("gemm_{dtype}_{k}x{n}_{moves}_{}", set.name()));
    let bound = 96;
    let rows = set.rows(90, &mut draft);
    let n_rows = rows.len() as u32;
    // Rows outside of the set are finite, so that a wrong row is a wrong number and not merely a NaN.
    let a_rows = if gather { 90 } else { n_rows };
    let a = draft.reals("a", (dtype, bound, k), a_rows, Values::Integers);
    let weight = draft.reals("weight", (dtype, n, k), n, Values::Integers);
    let list = draft.column("rows", bound, &rows);
    let out = draft.output("out", (dtype, bound, n));
    let extent = draft.counted(n_rows, bound);
    let view = |slot: Slot, is_listed: bool| if is_listed { listed(slot, list) } else { dense(slot) };
    let part = Part::of(n, &[weight], store_sum(view(out, scatter)));
    let gemm = one_part(view(a, gather), k, part);
    draft.finish(extent, Body::Gemm(gemm), Exactness::Bitwise)
}

/// Operand and result are columns of wider matrices.
fn slices(dtype: DType) -> Case {
    let mut draft = Draft::new(format!("gemm_{dtype}_slices"));
    let (rows, k, n) = (37, 24, 40);
    let a = draft.reals("a", (dtype, rows, 64), rows, Values::Integers);
    let weight = draft.reals("weight", (dtype, n, k), n, Values::Integers);
    let out = draft.output("out", (dtype, rows, 96));
    let extent = draft.counted(rows, rows);
    let part = Part::of(n, &[weight], store_sum(View { col: 32, ..dense(out) }));
    let gemm = one_part(View { col: 16, ..dense(a) }, k, part);
    draft.finish(extent, Body::Gemm(gemm), Exactness::Bitwise)
}
