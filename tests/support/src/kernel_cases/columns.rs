//! Matmuls whose weights lie in columns, as the CPU has them.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Body, Gemm, Part, Sum, View, WeightLayout};
use skipc_plan::pointwise::{Binary, Inst, Pointwise, Reg, Store};

use super::Case;
use super::draft::{Draft, Set, Values, dense, listed};
use super::gemm::store_sum;
use crate::tolerance::Exactness;

pub(super) fn add(cases: &mut Vec<Case>) {
    for (k, n) in [(1, 9), (7, 30), (16, 64), (33, 33), (64, 192), (97, 600)] {
        cases.push(plain((k, n), 33, Values::Integers));
        cases.push(plain((k, n), 33, Values::Within(1.0)));
    }
    for rows in [0, 1, 2, 7, 8, 9, 63, 64, 65, 127, 128, 129, 255, 256, 257] {
        cases.push(plain((24, 40), rows, Values::Within(1.0)));
    }
    Set::ALL.into_iter().for_each(|set| cases.push(routed(set)));
}

fn plain((k, n): (u32, u32), rows: u32, values: Values) -> Case {
    let kind = if values == Values::Integers { "integers" } else { "reals" };
    let mut draft = Draft::new(format!("columns_f32_{k}x{n}_rows_{rows}_{kind}"));
    let bound = 260;
    let a = draft.reals("a", (DType::F32, bound, k), rows, values);
    // Wider than the matmul, which begins at its third column.
    let weight = draft.reals("weight", (DType::F32, k, n + 5), k, values);
    let out = draft.output("out", (DType::F32, bound, n));
    let extent = draft.counted(rows, bound);
    let sums = vec![Sum::of(weight, 2)];
    let part = Part { n, layout: WeightLayout::Columns, sums, epilogue: store_sum(dense(out)) };
    let exactness = if values == Values::Integers { Exactness::Bitwise } else { Exactness::Matmul { k } };
    draft.finish(extent, Body::Gemm(Gemm { a: dense(a), k, parts: vec![part] }), exactness)
}

/// Rows of a wider matrix by a list, two weights, and a residual that is scattered back in place.
fn routed(set: Set) -> Case {
    let mut draft = Draft::new(format!("columns_f32_routed_{}", set.name()));
    let (n_tokens, bound, k, n) = (90, 96, 20, 31);
    let rows = set.rows(n_tokens, &mut draft);
    let a = draft.reals("a", (DType::F32, bound, k + 6), n_tokens, Values::Integers);
    let weights = ["first", "second"].map(|name| draft.reals(name, (DType::F32, k, n), k, Values::Integers));
    let list = draft.column("rows", bound, &rows);
    let x = draft.updated("x", (DType::F32, bound, n), n_tokens, Values::Integers);
    let extent = draft.counted(rows.len() as u32, bound);
    let code = vec![
        Inst::Acc(0),
        Inst::Acc(1),
        Inst::Binary(Binary::Sub, Reg(0), Reg(1)),
        Inst::Load(listed(x, list)),
        Inst::Binary(Binary::Add, Reg(2), Reg(3)),
    ];
    let epilogue = Pointwise { code, stores: vec![Store { to: listed(x, list), value: Reg(4) }] };
    let sums = weights.map(|weight| Sum::of(weight, 0)).to_vec();
    let part = Part { n, layout: WeightLayout::Columns, sums, epilogue };
    let a = View { col: 4, ..listed(a, list) };
    draft.finish(extent, Body::Gemm(Gemm { a, k, parts: vec![part] }), Exactness::Bitwise)
}
