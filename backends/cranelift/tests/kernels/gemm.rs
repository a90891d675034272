use skipc_artifact::program::Extent;
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Body, Gemm, Part, View};
use skipc_plan::pointwise::{Binary, Inst, Pointwise, Reg, Store, Unary};

use crate::case::{Bound, Case, ODD_COLS, dense, listed, row_list};

#[test]
fn sums_of_dense_rows() {
    for n in [1, 2, 3, 5, 30, 33, 64] {
        for (k, rows) in [(1, 0), (5, 1), (33, 63), (8, 64), (30, 65)] {
            let mut case = Case::default();
            let a = case.reals(DType::F32, rows.max(1), k + 3);
            let weight = case.reals(DType::F32, n, k);
            let c = case.output(DType::F32, rows.max(1), n);
            let epilogue =
                Pointwise { code: vec![Inst::Acc(0)], stores: vec![Store { to: dense(c), value: Reg(0) }] };
            let a = View { col: 2, ..dense(a) };
            let gemm = Gemm { a, k, parts: vec![Part::of(n, &[weight], epilogue)] };
            case.check(Extent::Fixed(rows), Body::Gemm(gemm), Bound::Exact);
        }
    }
}

/// Gathered rows, a gated pair, and a residual that is scattered back in place.
fn pair(residual_type: DType, cols: u32, count: u32, of: u32) {
    let mut case = Case::default();
    let list = case.indices(&row_list(count, of));
    let a = case.reals(DType::F32, of, 9);
    let weights = vec![case.reals(DType::F32, cols, 9), case.reals(DType::F32, cols, 9)];
    let residual = case.updated(residual_type, of, cols + 1);
    let target = View { col: 1, ..listed(residual, list) };
    let epilogue = Pointwise {
        code: vec![
            Inst::Acc(0),
            Inst::Acc(1),
            Inst::Unary(Unary::Relu, Reg(0)),
            Inst::Binary(Binary::Mul, Reg(2), Reg(1)),
            Inst::Load(target),
            Inst::Binary(Binary::Add, Reg(3), Reg(4)),
        ],
        stores: vec![Store { to: target, value: Reg(5) }],
    };
    let gemm = Gemm { a: listed(a, list), k: 9, parts: vec![Part::of(cols, &weights, epilogue)] };
    let extent = case.counted(count, 400);
    case.check(extent, Body::Gemm(gemm), Bound::Exact);
}

#[test]
fn gathered_pairs_are_scattered_in_place() {
    for count in [0, 1, 63, 64, 65, 257, 400] {
        for cols in [1, 3, 30, 33] {
            pair(DType::F32, cols, count, 400);
        }
    }
    pair(DType::Bf16, 5, 65, 70);
}

#[test]
fn sums_of_few_columns() {
    for k in ODD_COLS {
        for n in [1, 2, 8] {
            for count in [0, 1, 65] {
                let mut case = Case::default();
                let list = case.indices(&row_list(count, 80));
                let x = case.reals(DType::F32, 80, k);
                let weight = case.reals(DType::F32, n, k);
                let out = case.output(DType::F32, 65, n);
                let extent = case.counted(count, 65);
                let stores = vec![Store { to: dense(out), value: Reg(0) }];
                let part = Part::of(n, &[weight], Pointwise { code: vec![Inst::Acc(0)], stores });
                let gemm = Gemm { a: listed(x, list), k, parts: vec![part] };
                case.check(extent, Body::Gemm(gemm), Bound::Exact);
            }
        }
    }
}

#[test]
fn more_columns_than_one_matmul_has() {
    for cols in [512, 513, 514, 1030] {
        pair(DType::F32, cols, 66, 70);
    }
}
