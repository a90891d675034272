//! Pointwise programs, one row at a time.

use super::fault::Fault;
use super::memory::Frame;
use crate::kernel::Rows;
use crate::kernel::View;
use crate::pointwise::{Binary, Inst, Pointwise, Reg, Unary};

/// Runs the program over `cols` columns of a logical row; `sums` holds that row of each accumulator.
pub(super) fn run_row(
    frame: &mut Frame<'_, '_, '_>,
    program: &Pointwise,
    logical: u32,
    cols: u32,
    sums: &[&[f32]],
) -> Result<(), Fault> {
    let mut regs: Vec<Vec<f32>> = Vec::with_capacity(program.code.len());
    for inst in &program.code {
        let result = match *inst {
            Inst::Acc(weight) => match sums.get(weight as usize) {
                Some(sum) => sum.to_vec(),
                None => return Err(Fault::Malformed(format!("there is no sum {weight}"))),
            },
            Inst::Load(view) => frame.load(view, logical, cols)?,
            Inst::LoadRow(view) => {
                let value = frame.load(view, logical, 1)?;
                vec![value[0]; cols as usize]
            }
            Inst::LoadCol(slot) => frame.load(View { slot, rows: Rows::Dense, col: 0 }, 0, cols)?,
            Inst::Unary(unary, x) => reg(&regs, x)?.iter().map(|x| eval_unary(unary, *x)).collect(),
            Inst::Binary(binary, a, b) => {
                let (a, b) = (reg(&regs, a)?, reg(&regs, b)?);
                a.iter().zip(b).map(|(a, b)| eval_binary(binary, *a, *b)).collect()
            }
        };
        regs.push(result);
    }
    for store in &program.stores {
        frame.store(store.to, logical, reg(&regs, store.value)?)?;
    }
    Ok(())
}

fn reg(regs: &[Vec<f32>], reg: Reg) -> Result<&[f32], Fault> {
    let missing = || Fault::Malformed(format!("result {} is used before it exists", reg.0));
    regs.get(reg.0 as usize).map(Vec::as_slice).ok_or_else(missing)
}

fn eval_unary(unary: Unary, x: f32) -> f32 {
    match unary {
        Unary::Gelu => {
            let inner = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2;
            0.5 * x * (1.0 + libm::tanhf(inner * (x + 0.044_715 * x * x * x)))
        }
        Unary::Relu => {
            // Not `f32::max`, which would turn a NaN into a zero.
            if x < 0.0 { 0.0 } else { x }
        }
        Unary::Silu => x / (1.0 + libm::expf(-x)),
        Unary::Sigmoid => 1.0 / (1.0 + libm::expf(-x)),
        Unary::OneMinus => 1.0 - x,
        Unary::Scale(by) => x * by.0 as f32,
    }
}

fn eval_binary(binary: Binary, a: f32, b: f32) -> f32 {
    match binary {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
    }
}
