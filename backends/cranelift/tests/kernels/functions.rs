//! The functions against f64, over all exponents.

use skipc_artifact::program::Extent;
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Body, Kernel, Rowwise};
use skipc_plan::pointwise::{Inst, Pointwise, Reg, Store, Unary};

use crate::case::{Case, dense, reals};
use crate::machine::{Machine, Order};

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
    Machine::new(&kernel).run(&mut case.operands, rows, Order::AtOnce);
    reals(&case.operands[y.0 as usize], DType::F32)
}

/// Every 4,099th number, both zeros, the infinities, and what lies around the ends of the exponential's range.
fn inputs() -> Vec<f32> {
    let all = (0..=u32::MAX / 4099).map(|idx| f32::from_bits(idx * 4099));
    let ends = (0..70_000).map(|idx| -120.0 + idx as f32 / 300.0);
    let special = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1e-45];
    all.chain(ends).chain(special).collect()
}

/// The largest distance from `exact` in units of the last place, which below normal numbers is `2⁻¹⁴⁹`.
fn largest_error(function: Unary, exact: impl Fn(f64) -> f64) -> (f64, f32) {
    let inputs = inputs();
    let mut largest = (0.0, 0.0);
    for (x, found) in inputs.iter().zip(apply(function, &inputs)) {
        let exact = exact(f64::from(*x));
        if exact.is_nan() || (exact as f32).is_infinite() {
            let same = if exact.is_nan() { found.is_nan() } else { found == exact as f32 };
            assert!(same, "{function:?}({x:e}) is {found:e}, expected {exact:e}");
            continue;
        }
        let last_place = f64::from(2.0f32).powi((exact.abs().log2().floor() as i32).max(-126) - 23);
        let error = (f64::from(found) - exact).abs() / last_place;
        assert!(!error.is_nan(), "{function:?}({x:e}) is {found:e}, expected {exact:e}");
        if error > largest.0 {
            largest = (error, *x);
        }
    }
    largest
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[test]
fn sigmoid_is_within_2_ulp() {
    let (error, at) = largest_error(Unary::Sigmoid, sigmoid);
    println!("sigmoid: {error} ulp at {at:e}");
    assert!(error <= 2.0, "{error} ulp at {at:e}");
}

#[test]
fn silu_is_within_3_ulp() {
    // One rounding more than the sigmoid.
    let (error, at) = largest_error(Unary::Silu, |x| if x < -800.0 { x * 0.0 } else { x * sigmoid(x) });
    println!("silu: {error} ulp at {at:e}");
    assert!(error <= 3.0, "{error} ulp at {at:e}");
}

#[test]
fn gelu_is_as_exact_as_its_argument_allows() {
    let inputs = inputs();
    for (x, found) in inputs.iter().zip(apply(Unary::Gelu, &inputs)) {
        let x64 = f64::from(*x);
        let twice_u = (8.0 / std::f64::consts::PI).sqrt() * (x64 + 0.044_715 * x64 * x64 * x64);
        let exact = if twice_u < -700.0 { x64 * 0.0 } else { x64 * sigmoid(twice_u) };
        if exact.is_nan() {
            assert!(found.is_nan(), "gelu({x:e}) is {found:e}");
            continue;
        }
        if exact.is_infinite() {
            assert_eq!(f64::from(found), exact);
            continue;
        }
        // Where the exponential rules, a rounding of its argument is `|2u|` of the result.
        let amplified = if twice_u < 0.0 { 4.0 * twice_u.abs().min(200.0) } else { 0.0 };
        let last_place = (exact.abs() * f64::from(f32::EPSILON)).max(f64::from(2.0f32).powi(-149));
        let error = (f64::from(found) - exact).abs() / last_place;
        assert!(error <= 4.0 + amplified, "gelu({x:e}) is {found:e}, expected {exact:e}: {error} ulp");
    }
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
    Machine::new(&kernel).run(&mut case.operands, rows, Order::AtOnce);
    for (x, found) in inputs.iter().zip(reals(&case.operands[y.0 as usize], DType::Bf16)) {
        let expected = half::bf16::from_f32(*x).to_f32();
        assert!(if x.is_nan() { found.is_nan() } else { found == expected }, "{x:e} is {found:e}");
    }
}
