//! Pointwise programs, one row at a time.

use skipc_ir::interp::{Number, functions};

use super::element::Element;
use super::fault::Fault;
use super::memory::Frame;
use crate::kernel::Rows;
use crate::kernel::View;
use crate::pointwise::{Binary, Inst, Pointwise, Reg, Unary};

/// Runs the program over `cols` columns of a logical row; `sums` holds that row of each accumulator.
pub(super) fn run_row<N: Element>(
    frame: &mut Frame<'_, '_, '_, N>,
    program: &Pointwise,
    logical: u32,
    cols: u32,
    sums: &[&[N]],
) -> Result<(), Fault> {
    let mut regs: Vec<Vec<N>> = Vec::with_capacity(program.code.len());
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

fn reg<N>(regs: &[Vec<N>], reg: Reg) -> Result<&[N], Fault> {
    let missing = || Fault::Malformed(format!("result {} is used before it exists", reg.0));
    regs.get(reg.0 as usize).map(Vec::as_slice).ok_or_else(missing)
}

fn eval_unary<N: Number>(unary: Unary, x: N) -> N {
    match unary {
        Unary::Gelu => functions::gelu(x),
        Unary::Relu => functions::relu(x),
        Unary::Silu => functions::silu(x),
        Unary::Sigmoid => functions::sigmoid(x),
        Unary::OneMinus => functions::one_minus(x),
        Unary::Scale(by) => x.mul(N::from_f64(by.0)),
    }
}

fn eval_binary<N: Number>(binary: Binary, a: N, b: N) -> N {
    match binary {
        Binary::Add => a.add(b),
        Binary::Sub => a.sub(b),
        Binary::Mul => a.mul(b),
    }
}
