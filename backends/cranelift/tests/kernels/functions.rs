//! Functions that kernels compute themselves, over all exponents; the others are helpers.

use skipc_artifact::program::Extent;
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Body, Kernel, Rowwise};
use skipc_plan::pointwise::{Inst, Pointwise, Reg, Store, Unary};

use skipc_testkit::machine::Order;

use crate::case::{Case, dense, machine, reals};

/// The function of each number, of which every third is in a scalar loop.
fn apply(function: Unary, inputs: &[f32]) -> Vec<f32> {
    let rows = inputs.len() as u32 / 7;
    let mut case = Case::default();
    let x = case.given(7, &inputs[..rows as usize * 7]);
    let y = case.output(DType::F32, rows, 7);
    let program = Pointwise {
        code: vec![Inst::Load(dense(x)), Inst::Unary(function, Reg(0))],
        stores: vec![Store { to: dense(y), value: Reg(1) }],
    };
    let body = Body::Rowwise(Rowwise::Map { cols: 7, program });
    let kernel = Kernel { params: case.params.clone(), extent: Extent::Fixed(rows), body };
    machine(&kernel).run(&mut case.operands, rows, Order::AtOnce);
    reals(&case.operands[y.0 as usize], DType::F32)
}

/// Every 4,099th number, both zeros, the infinities, and what lies around the ends of the exponential's range.
fn inputs() -> Vec<f32> {
    let all = (0..=u32::MAX / 4099).map(|idx| f32::from_bits(idx * 4099));
    let ends = (0..70_000).map(|idx| -120.0 + idx as f32 / 300.0);
    let special = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1e-45];
    all.chain(ends).chain(special).collect()
}

#[test]
fn relu_and_one_minus_keep_nan() {
    let inputs = inputs();
    for (x, found) in inputs.iter().zip(apply(Unary::Relu, &inputs)) {
        assert!(if x.is_nan() { found.is_nan() } else { found == x.max(0.0) }, "relu({x:e}) is {found:e}");
    }
    for (x, found) in inputs.iter().zip(apply(Unary::OneMinus, &inputs)) {
        assert!(if x.is_nan() { found.is_nan() } else { found == 1.0 - x }, "1 − {x:e} is {found:e}");
    }
}

#[test]
fn bf16_stores_round_to_nearest_even_and_keep_nan() {
    let inputs: Vec<f32> =
        inputs().into_iter().chain([f32::from_bits(0x7f80_0001), f32::from_bits(0xffff_ffff)]).collect();
    let rows = inputs.len() as u32 / 7;
    let mut case = Case::default();
    let x = case.given(7, &inputs[..rows as usize * 7]);
    let y = case.output(DType::Bf16, rows, 7);
    let program =
        Pointwise { code: vec![Inst::Load(dense(x))], stores: vec![Store { to: dense(y), value: Reg(0) }] };
    let body = Body::Rowwise(Rowwise::Map { cols: 7, program });
    let kernel = Kernel { params: case.params.clone(), extent: Extent::Fixed(rows), body };
    machine(&kernel).run(&mut case.operands, rows, Order::AtOnce);
    for (x, found) in inputs.iter().zip(reals(&case.operands[y.0 as usize], DType::Bf16)) {
        let expected = half::bf16::from_f32(*x).to_f32();
        assert!(if x.is_nan() { found.is_nan() } else { found == expected }, "{x:e} is {found:e}");
    }
}
