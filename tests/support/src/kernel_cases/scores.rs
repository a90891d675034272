//! Narrow matmuls: the scores of routers.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Body, Part, Slot, Sum, WeightLayout};
use skipc_plan::pointwise::{Binary, Inst, Pointwise, Reg, Store};

use super::Case;
use super::draft::{Draft, Set, Values, dense, listed};
use super::gemm::one_part;
use crate::tolerance::Exactness;

/// Inner sizes that fit vectors and that do not.
const INNER: [u32; 11] = [1, 2, 3, 7, 16, 30, 64, 96, 97, 128, 515];

pub(super) fn add(cases: &mut Vec<Case>) {
    for dtype in [DType::F32, DType::Bf16] {
        for k in INNER {
            cases.push(logits(dtype, (k, 2), (9, 12)));
        }
        for rows in [0, 1, 63, 64, 65, 128] {
            cases.push(logits(dtype, (24, 1), (rows, 130)));
            cases.push(difference(dtype, 40, (rows, 130)));
        }
        for n in [1, 2, 8] {
            cases.push(logits(dtype, (64, n), (17, 20)));
        }
        Set::ALL.into_iter().for_each(|set| cases.push(gathered(dtype, set)));
    }
}

/// The weights whose sum is a router's: itself in f32, three terms in bf16.
pub(super) fn terms(draft: &mut Draft, dtype: DType, (n, k): (u32, u32), values: Values) -> Vec<Slot> {
    let weight = draft.random((n * k) as usize, values);
    if dtype == DType::F32 {
        return vec![draft.matrix("weight", (dtype, n, k), &weight)];
    }
    let mut rest = weight;
    let mut slots = Vec::new();
    for term in 0..3 {
        slots.push(draft.matrix(&format!("term{term}"), (dtype, n, k), &rest));
        rest.iter_mut().for_each(|x| *x -= half::bf16::from_f64(*x).to_f64());
    }
    slots
}

/// The sum of the first `n` sums from `first` on, in the last register.
pub(super) fn add_up(code: &mut Vec<Inst>, first: u32, n: u32) -> Reg {
    let last = |code: &Vec<Inst>| Reg(code.len() as u32 - 1);
    code.push(Inst::Acc(first));
    for sum in first + 1..first + n {
        let so_far = last(code);
        code.push(Inst::Acc(sum));
        let next = last(code);
        code.push(Inst::Binary(Binary::Add, so_far, next));
    }
    last(code)
}

/// All terms may round, each product of a term as that of a weight.
fn exactness(dtype: DType, k: u32) -> Exactness {
    Exactness::Matmul { k: if dtype == DType::F32 { k } else { 3 * k } }
}

fn logits(dtype: DType, (k, n): (u32, u32), (rows, bound): (u32, u32)) -> Case {
    let mut draft = Draft::new(format!("scores_{dtype}_{k}x{n}_rows_{rows}_of_{bound}"));
    let x = draft.reals("x", (dtype, bound, k), rows, Values::Within(3.0));
    let weights = terms(&mut draft, dtype, (n, k), Values::Within(1.0));
    let out = draft.output("out", (DType::F32, bound, n));
    let extent = draft.counted(rows, bound);
    let mut code = Vec::new();
    let value = add_up(&mut code, 0, weights.len() as u32);
    let epilogue = Pointwise { code, stores: vec![Store { to: dense(out), value }] };
    let gemm = one_part(dense(x), k, Part::of(n, &weights, epilogue));
    draft.finish(extent, Body::Gemm(gemm), exactness(dtype, k))
}

/// What a router of two outputs decides by: the second row of its weight against the first, times a row scale.
fn difference(dtype: DType, k: u32, (rows, bound): (u32, u32)) -> Case {
    let mut draft = Draft::new(format!("scores_{dtype}_difference_rows_{rows}_of_{bound}"));
    let x = draft.reals("x", (dtype, bound, k), rows, Values::Within(3.0));
    let scale = draft.reals("scale", (DType::F32, bound, 1), rows, Values::Within(1.0));
    let weights = terms(&mut draft, dtype, (2, k), Values::Within(1.0));
    let out = draft.output("out", (DType::F32, bound, 1));
    let extent = draft.counted(rows, bound);
    let part = difference_part(&weights, Some(scale), out);
    draft.finish(extent, Body::Gemm(one_part(dense(x), k, part)), exactness(dtype, 2 * k))
}

/// A part of one column: the second row of the weights minus the first.
pub(super) fn difference_part(weights: &[Slot], scale: Option<Slot>, out: Slot) -> Part {
    let sums = [1, 0].into_iter().flat_map(|row| weights.iter().map(move |weight| Sum::of(*weight, row)));
    let n_terms = weights.len() as u32;
    let mut code = Vec::new();
    let second = add_up(&mut code, 0, n_terms);
    let first = add_up(&mut code, n_terms, n_terms);
    code.push(Inst::Binary(Binary::Sub, second, first));
    if let Some(scale) = scale {
        let score = Reg(code.len() as u32 - 1);
        code.push(Inst::LoadRow(dense(scale)));
        code.push(Inst::Binary(Binary::Mul, score, Reg(score.0 + 1)));
    }
    let value = Reg(code.len() as u32 - 1);
    let epilogue = Pointwise { code, stores: vec![Store { to: dense(out), value }] };
    Part { n: 1, layout: WeightLayout::Rows, sums: sums.collect(), epilogue }
}

fn gathered(dtype: DType, set: Set) -> Case {
    let mut draft = Draft::new(format!("scores_{dtype}_gathered_{}", set.name()));
    let (n_tokens, bound, k, n) = (70, 72, 32, 2);
    let rows = set.rows(n_tokens, &mut draft);
    let x = draft.reals("x", (dtype, bound, k), n_tokens, Values::Integers);
    let list = draft.column("rows", bound, &rows);
    let weight = draft.reals("weight", (dtype, n, k), n, Values::Integers);
    let out = draft.output("out", (DType::F32, bound, n));
    let extent = draft.counted(rows.len() as u32, bound);
    let part = Part::of(n, &[weight], super::gemm::store_sum(dense(out)));
    draft.finish(extent, Body::Gemm(one_part(listed(x, list), k, part)), Exactness::Bitwise)
}
