//! Epilogues of matmuls: each instruction alone, then the programs that whole layers become.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Body, Part, Slot};
use skipc_plan::pointwise::{Binary, Inst, Pointwise, Reg, Store, Unary};

use super::Case;
use super::draft::{Draft, Set, Values, dense, listed};
use super::gemm::one_part;
use crate::tolerance::Exactness;

pub(super) fn add(cases: &mut Vec<Case>) {
    for dtype in [DType::F32, DType::Bf16] {
        for unary in Unary::SAMPLES {
            cases.push(one(dtype, unary.name(), |_, _| vec![Inst::Unary(*unary, Reg(0))]));
        }
        cases.push(one(dtype, "bias", |draft, bench| {
            let bias = draft.reals("bias", (DType::F32, 1, bench.n), 1, Values::Within(2.0));
            vec![Inst::LoadCol(bias), add_regs(0, 1)]
        }));
        cases.push(one(dtype, "bias_in_layer_type", |draft, bench| {
            let bias = draft.reals("bias", (dtype, 1, bench.n), 1, Values::Within(2.0));
            vec![Inst::LoadCol(bias), add_regs(0, 1)]
        }));
        cases.push(one(dtype, "residual", |draft, bench| {
            let residual =
                draft.reals("residual", (dtype, bench.bound, bench.n), bench.rows, Values::Within(2.0));
            vec![Inst::Load(dense(residual)), add_regs(0, 1)]
        }));
        cases.push(one(dtype, "row_scale", |draft, bench| {
            let scale = draft.reals("scale", (DType::F32, bench.bound, 1), bench.rows, Values::Within(2.0));
            vec![Inst::LoadRow(dense(scale)), Inst::Binary(Binary::Mul, Reg(0), Reg(1))]
        }));
        cases.push(one(dtype, "row_offset_from_column", |draft, bench| {
            let scale = draft.reals("scale", (DType::F32, bench.bound, 3), bench.rows, Values::Within(2.0));
            let scale = skipc_plan::kernel::View { col: 2, ..dense(scale) };
            vec![Inst::LoadRow(scale), Inst::Binary(Binary::Sub, Reg(1), Reg(0))]
        }));
        for set in Set::ALL {
            cases.push(highway(dtype, set));
            cases.push(down(dtype, set));
        }
        for (k, n) in [(32, 64), (33, 31), (64, 192)] {
            for rows in [0, 1, 31, 64, 65] {
                cases.push(gated_pair(dtype, (k, n), rows));
            }
        }
        cases.push(pair_order(dtype));
        cases.push(two_stores(dtype));
    }
}

/// What an instruction under test may need to know.
struct Bench {
    rows: u32,
    bound: u32,
    n: u32,
}

fn add_regs(a: u32, b: u32) -> Inst {
    Inst::Binary(Binary::Add, Reg(a), Reg(b))
}

/// A small matmul, then `code` after the sum in result 0; its last result is stored.
fn one(dtype: DType, name: &str, code: impl FnOnce(&mut Draft, &Bench) -> Vec<Inst>) -> Case {
    let mut draft = Draft::new(format!("epilogue_{dtype}_{name}"));
    let bench = Bench { rows: 35, bound: 40, n: 48 };
    let a = draft.reals("a", (dtype, bench.bound, 16), bench.rows, Values::Within(2.0));
    let weight = draft.reals("weight", (dtype, bench.n, 16), bench.n, Values::Within(2.0));
    let out = draft.output("out", (dtype, bench.bound, bench.n));
    let mut program = vec![Inst::Acc(0)];
    program.extend(code(&mut draft, &bench));
    let extent = draft.counted(bench.rows, bench.bound);
    let value = Reg(program.len() as u32 - 1);
    let epilogue = Pointwise { code: program, stores: vec![Store { to: dense(out), value }] };
    let gemm = one_part(dense(a), 16, Part::of(bench.n, &[weight], epilogue));
    draft.finish(extent, Body::Gemm(gemm), Exactness::Matmul { k: 16 })
}

/// `silu(a · gateᵀ) · (a · upᵀ)`.
fn gated_pair(dtype: DType, (k, n): (u32, u32), rows: u32) -> Case {
    let mut draft = Draft::new(format!("epilogue_{dtype}_gated_pair_{k}x{n}_rows_{rows}"));
    let bound = 70;
    let a = draft.reals("a", (dtype, bound, k), rows, Values::Within(1.0));
    let gate = draft.reals("gate", (dtype, n, k), n, Values::Within(1.0));
    let up = draft.reals("up", (dtype, n, k), n, Values::Within(1.0));
    let out = draft.output("out", (dtype, bound, n));
    let extent = draft.counted(rows, bound);
    let code = vec![
        Inst::Acc(0),
        Inst::Acc(1),
        Inst::Unary(Unary::Silu, Reg(0)),
        Inst::Binary(Binary::Mul, Reg(2), Reg(1)),
    ];
    let epilogue = Pointwise { code, stores: vec![Store { to: dense(out), value: Reg(3) }] };
    let gemm = one_part(dense(a), k, Part::of(n, &[gate, up], epilogue));
    draft.finish(extent, Body::Gemm(gemm), Exactness::Matmul { k })
}

/// The difference of two sums, which tells them apart to the last bit.
fn pair_order(dtype: DType) -> Case {
    let mut draft = Draft::new(format!("epilogue_{dtype}_pair_difference"));
    let (rows, k, n) = (20, 24, 40);
    let a = draft.reals("a", (dtype, rows, k), rows, Values::Integers);
    let first = draft.reals("first", (dtype, n, k), n, Values::Integers);
    let second = draft.reals("second", (dtype, n, k), n, Values::Integers);
    let out = draft.output("out", (dtype, rows, n));
    let extent = draft.counted(rows, rows);
    let code = vec![Inst::Acc(1), Inst::Acc(0), Inst::Binary(Binary::Sub, Reg(1), Reg(0))];
    let epilogue = Pointwise { code, stores: vec![Store { to: dense(out), value: Reg(2) }] };
    let gemm = one_part(dense(a), k, Part::of(n, &[first, second], epilogue));
    draft.finish(extent, Body::Gemm(gemm), Exactness::Bitwise)
}

/// The way down of a routed layer: compact rows in, bias and residual added, written back over the stream itself.
fn down(dtype: DType, set: Set) -> Case {
    let mut draft = Draft::new(format!("epilogue_{dtype}_down_in_place_{}", set.name()));
    let (n_tokens, bound, k, n) = (90, 96, 64, 32);
    let rows = set.rows(n_tokens, &mut draft);
    let n_rows = rows.len() as u32;
    let a = draft.reals("a", (dtype, bound, k), n_rows, Values::Within(1.0));
    let weight = draft.reals("weight", (dtype, n, k), n, Values::Within(1.0));
    let bias = draft.reals("bias", (DType::F32, 1, n), 1, Values::Within(1.0));
    let list = draft.column("rows", bound, &rows);
    let x = draft.updated("x", (dtype, bound, n), n_tokens, Values::Within(4.0));
    let extent = draft.counted(n_rows, bound);
    let code =
        vec![Inst::Acc(0), Inst::LoadCol(bias), add_regs(0, 1), Inst::Load(listed(x, list)), add_regs(2, 3)];
    let epilogue = Pointwise { code, stores: vec![Store { to: listed(x, list), value: Reg(4) }] };
    let gemm = one_part(dense(a), k, Part::of(n, &[weight], epilogue));
    draft.finish(extent, Body::Gemm(gemm), Exactness::Matmul { k })
}

/// All at once: gathered rows, row scale, bias, gelu, and a gate that mixes the result with what was there.
fn highway(dtype: DType, set: Set) -> Case {
    let mut draft = Draft::new(format!("epilogue_{dtype}_gathered_gate_{}", set.name()));
    let (n_tokens, bound, k, n) = (70, 72, 32, 40);
    let rows = set.rows(n_tokens, &mut draft);
    let n_rows = rows.len() as u32;
    let x = draft.reals("x", (dtype, bound, k), n_tokens, Values::Within(1.0));
    let list = draft.column("rows", bound, &rows);
    let scale = draft.reals("scale", (DType::F32, bound, 1), n_tokens, Values::Within(2.0));
    let gate = draft.reals("gate", (DType::F32, bound, 2), n_rows, Values::Within(3.0));
    let weight = draft.reals("weight", (dtype, n, k), n, Values::Within(1.0));
    let bias = draft.reals("bias", (DType::F32, 1, n), 1, Values::Within(1.0));
    let base = draft.reals("base", (dtype, bound, n), n_tokens, Values::Within(4.0));
    let out = draft.output("out", (dtype, bound, n));
    let extent = draft.counted(n_rows, bound);
    let mul = |a, b| Inst::Binary(Binary::Mul, Reg(a), Reg(b));
    let code = vec![
        Inst::Acc(0),
        Inst::LoadRow(listed(scale, list)),
        mul(0, 1),
        Inst::LoadCol(bias),
        add_regs(2, 3),
        Inst::Unary(Unary::Gelu, Reg(4)),
        Inst::LoadRow(skipc_plan::kernel::View { col: 1, ..dense(gate) }),
        Inst::Unary(Unary::Sigmoid, Reg(6)),
        mul(5, 7),
        Inst::Unary(Unary::OneMinus, Reg(7)),
        Inst::Load(listed(base, list)),
        mul(9, 10),
        add_regs(8, 11),
    ];
    let epilogue = Pointwise { code, stores: vec![Store { to: listed(out, list), value: Reg(12) }] };
    let gemm = one_part(listed(x, list), k, Part::of(n, &[weight], epilogue));
    draft.finish(extent, Body::Gemm(gemm), Exactness::Matmul { k })
}

/// One sum for two results, one of them f32: a matmul that feeds a layer and a router.
fn two_stores(dtype: DType) -> Case {
    let mut draft = Draft::new(format!("epilogue_{dtype}_two_stores"));
    let (rows, bound, k, n) = (33, 48, 16, 24);
    let a = draft.reals("a", (dtype, bound, k), rows, Values::Within(1.0));
    let weight = draft.reals("weight", (dtype, n, k), n, Values::Within(1.0));
    let raw = draft.output("raw", (DType::F32, bound, n));
    let activated: Slot = draft.output("activated", (dtype, bound, n));
    let extent = draft.counted(rows, bound);
    let code = vec![Inst::Acc(0), Inst::Unary(Unary::Relu, Reg(0))];
    let stores = vec![Store { to: dense(raw), value: Reg(0) }, Store { to: dense(activated), value: Reg(1) }];
    let gemm = one_part(dense(a), k, Part::of(n, &[weight], Pointwise { code, stores }));
    draft.finish(extent, Body::Gemm(gemm), Exactness::Matmul { k })
}
