//! Pointwise maps: copies, gathers, scatters, slices, and programs.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Body, Rowwise, Slot, View};
use skipc_plan::pointwise::{Binary, Inst, Pointwise, Reg, Store, Unary};

use super::Case;
use super::draft::{Draft, Set, Values, dense, listed};
use crate::tolerance::Exactness;

pub(super) fn add(cases: &mut Vec<Case>) {
    for dtype in [DType::F32, DType::Bf16] {
        for set in Set::ALL {
            for cols in [64, 33, 1] {
                cases.push(moved(dtype, cols, set, Move::Gather));
                cases.push(moved(dtype, cols, set, Move::Scatter));
            }
        }
        for rows in [0, 1, 63, 64, 65, 128] {
            cases.push(copied((dtype, dtype), (rows, 24)));
        }
        for cols in [1, 2, 3, 7, 16, 30, 97, 256] {
            cases.push(copied((dtype, dtype), (10, cols)));
        }
        for unary in Unary::SAMPLES {
            cases.push(mapped(dtype, *unary));
            cases.push(not_a_number(dtype, *unary));
        }
        cases.push(sliced(dtype));
        cases.push(in_place(dtype));
    }
    cases.push(copied((DType::Bf16, DType::F32), (40, 30)));
    cases.push(ties());
}

enum Move {
    Gather,
    Scatter,
}

fn copy(from: View, to: View) -> Pointwise {
    Pointwise { code: vec![Inst::Load(from)], stores: vec![Store { to, value: Reg(0) }] }
}

fn finish(
    mut draft: Draft,
    (rows, bound): (u32, u32),
    (cols, program): (u32, Pointwise),
    exactness: Exactness,
) -> Case {
    let extent = draft.counted(rows, bound);
    draft.finish(extent, Body::Rowwise(Rowwise::Map { cols, program }), exactness)
}

fn moved(dtype: DType, cols: u32, set: Set, to: Move) -> Case {
    let gathers = matches!(to, Move::Gather);
    let name = if gathers { "gather" } else { "scatter" };
    let mut draft = Draft::new(format!("map_{dtype}_{cols}_{name}_{}", set.name()));
    let (n_tokens, bound) = (70, 72);
    let rows = set.rows(n_tokens, &mut draft);
    let n_rows = rows.len() as u32;
    let live = if gathers { n_tokens } else { n_rows };
    let x = draft.reals("x", (dtype, bound, cols), live, Values::Within(1e3));
    let list = draft.column("rows", bound, &rows);
    let out = draft.output("out", (dtype, bound, cols));
    let program = match to {
        Move::Gather => copy(listed(x, list), dense(out)),
        Move::Scatter => copy(dense(x), listed(out, list)),
    };
    finish(draft, (n_rows, bound), (cols, program), Exactness::Bitwise)
}

fn copied((dtype, out): (DType, DType), (rows, cols): (u32, u32)) -> Case {
    let mut draft = Draft::new(format!("map_{dtype}_{out}_{cols}_rows_{rows}"));
    let bound = 130;
    let x = draft.reals("x", (dtype, bound, cols), rows, Values::Within(1e3));
    let out = draft.output("out", (out, bound, cols));
    let program = copy(dense(x), dense(out));
    finish(draft, (rows, bound), (cols, program), Exactness::Bitwise)
}

/// Arguments over all of a function's range: tails, both zeros, and the steps around zero.
fn mapped(dtype: DType, unary: Unary) -> Case {
    let mut draft = Draft::new(format!("map_{dtype}_{}", unary.name()));
    let mut values: Vec<f64> = (0..248).map(|step| (f64::from(step) - 124.0) / 4.0).collect();
    values.extend([0.0, -0.0, 1e-8, -1e-8, 88.0, -88.0, 1e4, -1e4]);
    let (rows, cols) = (16, 16);
    let x = draft.matrix("x", (dtype, rows, cols), &values);
    let out = draft.output("out", (dtype, rows, cols));
    let exactness = match (unary, dtype) {
        (Unary::Sigmoid, DType::F32) => Exactness::Ulps(2),
        (Unary::OneMinus | Unary::Scale(_), _) => Exactness::Ulps(1),
        _ => Exactness::Chain,
    };
    let code = vec![Inst::Load(dense(x)), Inst::Unary(unary, Reg(0))];
    let program = Pointwise { code, stores: vec![Store { to: dense(out), value: Reg(1) }] };
    finish(draft, (rows, rows), (cols, program), exactness)
}

/// NaN among numbers, in vectors and in what is left of a row behind them: each function keeps it, and it alone.
fn not_a_number(dtype: DType, unary: Unary) -> Case {
    let mut draft = Draft::new(format!("map_{dtype}_{}_nan", unary.name()));
    let (rows, cols) = (5, 19);
    let number = |idx: u32| if idx.is_multiple_of(4) { f64::NAN } else { f64::from(idx) / 16.0 - 3.0 };
    let values: Vec<f64> = (0..rows * cols).map(number).collect();
    let x = draft.matrix("x", (dtype, rows, cols), &values);
    let out = draft.output("out", (dtype, rows, cols));
    let code = vec![Inst::Load(dense(x)), Inst::Unary(unary, Reg(0))];
    let program = Pointwise { code, stores: vec![Store { to: dense(out), value: Reg(1) }] };
    finish(draft, (rows, rows), (cols, program), Exactness::Chain)
}

/// Columns out of the middle of one matrix to the middle of another.
fn sliced(dtype: DType) -> Case {
    let mut draft = Draft::new(format!("map_{dtype}_sliced"));
    let (rows, bound, cols) = (20, 24, 21);
    let x = draft.reals("x", (dtype, bound, 64), rows, Values::Within(1e3));
    let out = draft.output("out", (dtype, bound, 40));
    let program = copy(View { col: 40, ..dense(x) }, View { col: 9, ..dense(out) });
    finish(draft, (rows, bound), (cols, program), Exactness::Bitwise)
}

/// A gate between a stream and a change to it, written over the stream: all loads come before the stores.
fn in_place(dtype: DType) -> Case {
    let mut draft = Draft::new(format!("map_{dtype}_gate_in_place"));
    let (rows, bound, cols) = (50, 64, 24);
    let x: Slot = draft.updated("x", (dtype, bound, cols), rows, Values::Within(4.0));
    let change = draft.reals("change", (dtype, bound, cols), rows, Values::Within(4.0));
    let gate = draft.reals("gate", (DType::F32, bound, 1), rows, Values::Within(3.0));
    let gain = draft.reals("gain", (DType::F32, 1, cols), 1, Values::Within(2.0));
    let binary = |op, a, b| Inst::Binary(op, Reg(a), Reg(b));
    let code = vec![
        Inst::Load(dense(x)),
        Inst::Load(dense(change)),
        Inst::LoadRow(dense(gate)),
        Inst::Unary(Unary::Sigmoid, Reg(2)),
        Inst::LoadCol(gain),
        binary(Binary::Mul, 1, 4),
        binary(Binary::Sub, 5, 0),
        binary(Binary::Mul, 3, 6),
        binary(Binary::Add, 0, 7),
    ];
    let program = Pointwise { code, stores: vec![Store { to: dense(x), value: Reg(8) }] };
    finish(draft, (rows, bound), (cols, program), Exactness::Chain)
}

/// Numbers halfway between two of bf16, and just beside: a store rounds to nearest, ties to even.
fn ties() -> Case {
    let mut draft = Draft::new("map_f32_bf16_ties".to_owned());
    let mut values = Vec::new();
    for step in 0..32_u32 {
        // The lower half of the word decides: exactly half, one less, one more.
        for low in [0x8000, 0x7FFF, 0x8001, 0x0000] {
            let word = (0x3F80 + step) << 16 | low;
            values.extend([f64::from(f32::from_bits(word)), f64::from(-f32::from_bits(word))]);
        }
    }
    let (rows, cols) = (16, 16);
    let x = draft.matrix("x", (DType::F32, rows, cols), &values);
    let out = draft.output("out", (DType::Bf16, rows, cols));
    let program = copy(dense(x), dense(out));
    finish(draft, (rows, rows), (cols, program), Exactness::Bitwise)
}
