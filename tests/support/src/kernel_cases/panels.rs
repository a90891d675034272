//! Matmuls whose weights lie in panels, as register tiles of a processor take them.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{BLOCK_TERMS, Body, Gemm, PANEL_COLS, Part, Slot, Sum, View, WeightLayout};
use skipc_plan::pointwise::{Binary, Inst, Pointwise, Reg, Store};

use super::Case;
use super::draft::{Draft, Set, Values, dense, listed};
use super::gemm::store_sum;
use crate::tolerance::Exactness;

pub(super) fn add(cases: &mut Vec<Case>) {
    for dtype in [DType::F32, DType::Bf16] {
        for (k, n) in [(1, 9), (7, 30), (16, 64), (33, 33), (64, 192), (97, 600)] {
            cases.push(plain(dtype, (k, n), 33, Values::Integers));
            cases.push(plain(dtype, (k, n), 33, Values::Within(1.0)));
        }
        for rows in [0, 1, 2, 3, 5, 6, 7, 8, 13, 14, 15, 27, 63, 64, 65, 127, 128, 129, 255, 256, 257] {
            cases.push(plain(dtype, (24, 40), rows, Values::Within(1.0)));
        }
        // Rows of the left operand a page apart.
        cases.push(plain(dtype, (4096 / dtype.size(), 33), 17, Values::Integers));
        Set::ALL.into_iter().for_each(|set| cases.push(routed(dtype, set)));
    }
    for dtype in [DType::F32, DType::Bf16] {
        for (k, n) in [(1, 9), (7, 30), (32, 64), (33, 33), (64, 192), (97, 40), (130, 33)] {
            cases.push(levels(dtype, (k, n), 9, Values::Integers));
            cases.push(levels(dtype, (k, n), 9, Values::Within(1.0)));
        }
        for rows in [0, 1, 2, 3, 4, 5, 6, 7, 13, 14, 15, 32, 65, 257] {
            cases.push(levels(dtype, (70, 40), rows, Values::Within(1.0)));
        }
    }
}

/// The panels of a weight of so many outputs, filled up with zeros.
fn panels(draft: &mut Draft, (dtype, outputs, k): (DType, u32, u32), values: Values) -> Slot {
    let (rows, cols) = WeightLayout::Panels.shape((outputs, k), dtype).expect("it is small");
    let mut holds = vec![false; (rows * cols) as usize];
    for (output, inner) in (0..outputs).flat_map(|output| (0..k).map(move |inner| (output, inner))) {
        let (row, col) = WeightLayout::Panels.place((output.into(), inner.into()), k, dtype);
        holds[row as usize * cols as usize + col as usize] = true;
    }
    let slot = draft.reals("weight", (dtype, rows, cols), rows, values);
    draft.keep_where(slot, &holds);
    slot
}

fn plain(dtype: DType, (k, n): (u32, u32), rows: u32, values: Values) -> Case {
    let kind = if values == Values::Integers { "integers" } else { "reals" };
    let mut draft = Draft::new(format!("panels_{dtype}_{k}x{n}_rows_{rows}_{kind}"));
    let bound = 260;
    let a = draft.reals("a", (dtype, bound, k), rows, values);
    // Of a weight with more outputs the second panel and what follows.
    let weight = panels(&mut draft, (dtype, PANEL_COLS + n + 5, k), values);
    let out = draft.output("out", (DType::F32, bound, n));
    let extent = draft.counted(rows, bound);
    let sums = vec![Sum::of(weight, PANEL_COLS)];
    let part = Part { n, layout: WeightLayout::Panels, sums, epilogue: store_sum(dense(out)) };
    let exactness = if values == Values::Integers { Exactness::Bitwise } else { Exactness::Matmul { k } };
    draft.finish(extent, Body::Gemm(Gemm { a: dense(a), k, parts: vec![part] }), exactness)
}

/// A weight in 8 bits with scales for blocks of its factors.
fn levels(dtype: DType, (k, n): (u32, u32), rows: u32, values: Values) -> Case {
    let kind = if values == Values::Integers { "integers" } else { "reals" };
    let mut draft = Draft::new(format!("levels_{dtype}_{k}x{n}_rows_{rows}_{kind}"));
    let bound = 260;
    let a = draft.reals("a", (dtype, bound, k), rows, values);
    let outputs = PANEL_COLS + n + 5;
    let numbers = if values == Values::Integers { values } else { Values::Within(127.99) };
    let weight = panels(&mut draft, (DType::I8, outputs, k), numbers);
    let scales = panels(&mut draft, (DType::Bf16, outputs, k.div_ceil(BLOCK_TERMS)), values);
    let out = draft.output("out", (DType::F32, bound, n));
    let extent = draft.counted(rows, bound);
    let sums = vec![Sum { weight, row: PANEL_COLS, scales: Some(scales) }];
    let part = Part { n, layout: WeightLayout::Levels, sums, epilogue: store_sum(dense(out)) };
    let exactness = if values == Values::Integers { Exactness::Bitwise } else { Exactness::Matmul { k } };
    draft.finish(extent, Body::Gemm(Gemm { a: dense(a), k, parts: vec![part] }), exactness)
}

/// Rows of a wider matrix by a list, two weights, and a residual that is scattered back in place.
fn routed(dtype: DType, set: Set) -> Case {
    let mut draft = Draft::new(format!("panels_{dtype}_routed_{}", set.name()));
    let (n_tokens, bound, k, n) = (90, 96, 21, 31);
    let rows = set.rows(n_tokens, &mut draft);
    let a = draft.reals("a", (dtype, bound, k + 6), n_tokens, Values::Integers);
    let weights = [(); 2].map(|()| panels(&mut draft, (dtype, n, k), Values::Integers));
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
    let part = Part { n, layout: WeightLayout::Panels, sums, epilogue };
    let a = View { col: 4, ..listed(a, list) };
    draft.finish(extent, Body::Gemm(Gemm { a, k, parts: vec![part] }), Exactness::Bitwise)
}
