//! Matmuls of one operand with several parts, and rotary embeddings in epilogues.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Body, Gemm, Part, Sum, View, WeightLayout};
use skipc_plan::pointwise::{Binary, Inst, Pointwise, Reg, Store, Unary};

use super::Case;
use super::draft::{Draft, Set, Values, dense, listed};
use super::embed_rope::tables;
use super::gemm::{one_part, store_sum};
use super::scores::{difference_part, terms};
use crate::tolerance::Exactness;

pub(super) fn add(cases: &mut Vec<Case>) {
    for dtype in [DType::F32, DType::Bf16] {
        for (k, widths) in [(16, [32, 32]), (33, [7, 30]), (64, [64, 192]), (24, [1, 97])] {
            cases.push(side_by_side(dtype, k, widths, 35));
        }
        for rows in [0, 1, 63, 64, 65, 127, 128, 129] {
            cases.push(side_by_side(dtype, 32, [48, 16], rows));
        }
        cases.push(rows_of_a_weight(dtype));
        for (heads, width) in [(1, 2), (3, 4), (4, 16), (2, 32), (2, 64), (2, 128)] {
            cases.push(turned(dtype, (heads, width), Set::Alternating));
        }
        for set in Set::ALL {
            cases.push(turned(dtype, (2, 8), set));
            cases.push(attention_inputs(dtype, set));
        }
    }
}

/// Two matmuls into two results, with an activation in the second.
fn side_by_side(dtype: DType, k: u32, [first, second]: [u32; 2], rows: u32) -> Case {
    let mut draft = Draft::new(format!("parts_{dtype}_{k}x{first}_{second}_rows_{rows}"));
    let bound = 130;
    let a = draft.reals("a", (dtype, bound, k), rows, Values::Within(1.0));
    let first_weight = draft.reals("first", (dtype, first, k), first, Values::Within(1.0));
    let second_weight = draft.reals("second", (dtype, second, k), second, Values::Within(1.0));
    let first_out = draft.output("out", (dtype, bound, first));
    let second_out = draft.output("more", (dtype, bound, second));
    let extent = draft.counted(rows, bound);
    let code = vec![Inst::Acc(0), Inst::Unary(Unary::Silu, Reg(0))];
    let activated = Pointwise { code, stores: vec![Store { to: dense(second_out), value: Reg(1) }] };
    let parts = vec![
        Part::of(first, &[first_weight], store_sum(dense(first_out))),
        Part::of(second, &[second_weight], activated),
    ];
    draft.finish(extent, Body::Gemm(Gemm { a: dense(a), k, parts }), Exactness::Matmul { k })
}

/// Columns of one weight in two parts, the later rows first, and a gap between them; both go to one result.
fn rows_of_a_weight(dtype: DType) -> Case {
    let mut draft = Draft::new(format!("parts_{dtype}_rows_of_a_weight"));
    let (rows, k) = (37, 24);
    let a = draft.reals("a", (dtype, rows, k), rows, Values::Integers);
    let weight = draft.reals("weight", (dtype, 100, k), 100, Values::Integers);
    let out = draft.output("out", (dtype, rows, 90));
    let extent = draft.counted(rows, rows);
    let part = |row: u32, n: u32, col: u32| Part {
        n,
        sums: vec![Sum::of(weight, row)],
        layout: WeightLayout::Rows,
        epilogue: store_sum(View { col, ..dense(out) }),
    };
    let parts = vec![part(61, 39, 3), part(2, 40, 48)];
    draft.finish(extent, Body::Gemm(Gemm { a: dense(a), k, parts }), Exactness::Bitwise)
}

/// The program of a rotary embedding: `x · cos + rotate_half(x) · sin`, where `x` is the sum times a row scale.
fn turn(scale: View, index: View, [cos, sin]: [skipc_plan::kernel::Slot; 2], width: u32) -> Vec<Inst> {
    let mul = |a, b| Inst::Binary(Binary::Mul, Reg(a), Reg(b));
    vec![
        Inst::Acc(0),
        Inst::LoadRow(scale),
        mul(0, 1),
        Inst::AccRotated { sum: 0, width },
        mul(3, 1),
        Inst::LoadAt { table: cos, index },
        mul(2, 5),
        Inst::LoadAt { table: sin, index },
        mul(4, 7),
        Inst::Binary(Binary::Add, Reg(6), Reg(8)),
    ]
}

/// Queries: gathered rows, row scale, rotary embedding by gathered positions.
fn turned(dtype: DType, (heads, width): (u32, u32), set: Set) -> Case {
    let mut draft = Draft::new(format!("parts_{dtype}_turned_{heads}x{width}_{}", set.name()));
    let (n_tokens, bound, k, n) = (70, 72, 32, heads * width);
    let rows = set.rows(n_tokens, &mut draft);
    let n_rows = rows.len() as u32;
    let x = draft.reals("x", (dtype, bound, k), n_tokens, Values::Within(1.0));
    let list = draft.column("rows", bound, &rows);
    let scale = draft.reals("scale", (DType::F32, bound, 1), n_tokens, Values::Within(2.0));
    let positions: Vec<u32> = (0..n_tokens).map(|token| token * 7 % 41).collect();
    let positions = draft.column("positions", bound, &positions);
    let tables = tables(&mut draft, 41, width / 2);
    let weight = draft.reals("weight", (dtype, n, k), n, Values::Within(1.0));
    let out = draft.output("out", (dtype, bound, n));
    let extent = draft.counted(n_rows, bound);
    let code = turn(listed(scale, list), listed(positions, list), tables, width);
    let epilogue = Pointwise { code, stores: vec![Store { to: dense(out), value: Reg(9) }] };
    let gemm = one_part(listed(x, list), k, Part::of(n, &[weight], epilogue));
    draft.finish(extent, Body::Gemm(gemm), Exactness::Matmul { k })
}

/// What attention of a routed layer begins with: keys that turn, values, and the score of the router.
fn attention_inputs(dtype: DType, set: Set) -> Case {
    let mut draft = Draft::new(format!("parts_{dtype}_keys_values_scores_{}", set.name()));
    let (n_tokens, bound, k, width, n) = (90, 96, 40, 16, 48);
    let rows = set.rows(n_tokens, &mut draft);
    let n_rows = rows.len() as u32;
    let x = draft.reals("x", (dtype, bound, k), n_tokens, Values::Within(1.0));
    let list = draft.column("rows", bound, &rows);
    let scale = draft.reals("scale", (DType::F32, bound, 1), n_rows, Values::Within(2.0));
    let positions: Vec<u32> = (0..bound).map(|token| token % 23).collect();
    let positions = draft.column("positions", bound, &positions);
    let tables = tables(&mut draft, 23, width / 2);
    let keys = draft.reals("keys", (dtype, n, k), n, Values::Within(1.0));
    let values = draft.reals("values", (dtype, n, k), n, Values::Within(1.0));
    let router = terms(&mut draft, dtype, (2, k), Values::Within(1.0));
    let [keys_out, values_out] = ["k", "v"].map(|name| draft.output(name, (dtype, bound, n)));
    let score = draft.output("score", (DType::F32, bound, 1));
    let extent = draft.counted(n_rows, bound);
    let code = turn(dense(scale), dense(positions), tables, width);
    let turned = Pointwise { code, stores: vec![Store { to: dense(keys_out), value: Reg(9) }] };
    let parts = vec![
        Part::of(n, &[keys], turned),
        Part::of(n, &[values], store_sum(dense(values_out))),
        difference_part(&router, Some(scale), score),
    ];
    draft.finish(extent, Body::Gemm(Gemm { a: listed(x, list), k, parts }), Exactness::Matmul { k: 6 * k })
}
