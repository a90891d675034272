//! Matmuls of whole numbers, added to the rows of a stream that they were gathered from: what a routed layer ends
//! with, at sizes where every order of the sums gives the same bits.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Body, Part};
use skipc_plan::pointwise::{Binary, Inst, Pointwise, Reg, Store};

use super::Case;
use super::draft::{Draft, Values, listed};
use super::gemm::one_part;
use crate::tolerance::Exactness;

/// A matmul's sizes, and how many rows of its stream are listed.
struct Sizes {
    k: u32,
    n: u32,
    /// Rows of the stream.
    n_tokens: u32,
    /// What code is made for; the buffers have only as many rows as the stream.
    at_most: u32,
    listed: u32,
}

/// No row, one, all, and rows around a tile of 64. They are checked as any matmul is, though their sums are exact, some
/// of them halfway between two numbers of bf16: a comparison by bits alone can tell the two.
pub(super) fn add(cases: &mut Vec<Case>) {
    for dtype in [DType::F32, DType::Bf16] {
        for weights in [1, 2] {
            for listed in [0, 1, 63, 64, 65, 97] {
                let sizes = Sizes { k: 200, n: 40, n_tokens: 97, at_most: 97, listed };
                cases.push(residual(dtype, weights, &sizes, Exactness::Matmul { k: sizes.k }));
            }
        }
    }
}

/// The same around a tile of 128 rows, with more columns, a longer sum and a higher bound than code for small
/// matmuls has. Nothing divides by a tile's sizes.
pub(super) fn add_large(cases: &mut Vec<Case>) {
    for dtype in [DType::F32, DType::Bf16] {
        for weights in [1, 2] {
            for listed in [0, 1, 127, 128, 129, 140] {
                let sizes = Sizes { k: 264, n: 1032, n_tokens: 140, at_most: 512, listed };
                cases.push(residual(dtype, weights, &sizes, Exactness::Bitwise));
            }
        }
    }
}

/// `x ← x + a · firstᵀ`, or `x + a · firstᵀ − a · secondᵀ`, for listed rows of both.
fn residual(dtype: DType, weights: u32, sizes: &Sizes, exactness: Exactness) -> Case {
    let Sizes { k, n, n_tokens, at_most, listed: n_rows } = *sizes;
    let size = format!("{weights}x{k}x{n}");
    let kernel = format!("epilogue_{dtype}_whole_residual_{size}");
    // The same numbers for every list, so that files of all of them can be compressed.
    let mut draft = Draft::new(kernel.clone());
    draft.rename(format!("{kernel}_rows_{n_rows}_of_{n_tokens}"));
    let rows: Vec<u32> = (0..n_rows).map(|row| row * n_tokens / n_rows).collect();
    let a = draft.reals("a", (dtype, n_tokens, k), n_tokens, Values::Integers);
    let list = draft.column("rows", n_tokens, &rows);
    let x = draft.updated("x", (dtype, n_tokens, n), n_tokens, Values::Integers);
    let first = draft.reals("first", (dtype, n, k), n, Values::Integers);
    let mut weight_slots = vec![first];
    let mut code = vec![Inst::Load(listed(x, list)), Inst::Acc(0), Inst::Binary(Binary::Add, Reg(0), Reg(1))];
    if weights == 2 {
        weight_slots.push(draft.reals("second", (dtype, n, k), n, Values::Integers));
        code.extend([Inst::Acc(1), Inst::Binary(Binary::Sub, Reg(2), Reg(3))]);
    }
    let value = Reg(code.len() as u32 - 1);
    let epilogue = Pointwise { code, stores: vec![Store { to: listed(x, list), value }] };
    let extent = draft.counted(n_rows, at_most);
    let gemm = one_part(listed(a, list), k, Part::of(n, &weight_slots, epilogue));
    draft.finish(extent, Body::Gemm(gemm), exactness)
}
