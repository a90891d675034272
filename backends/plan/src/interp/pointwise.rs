//! Pointwise programs, one row at a time.

use skipc_ir::interp::Number;

use super::element::Element;
use super::fault::Fault;
use super::memory::Frame;
use crate::kernel::View;
use crate::pointwise::{Inst, Pointwise, Reg};

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
            Inst::Acc(acc) => sum(sums, acc)?.to_vec(),
            Inst::AccRotated { sum: acc, width } => rotated(sum(sums, acc)?, width)?,
            Inst::Load(view) => frame.load(view, logical, cols)?,
            Inst::LoadRow(view) => {
                let value = frame.load(view, logical, 1)?;
                vec![value[0]; cols as usize]
            }
            Inst::LoadCol(slot) => frame.load(View::dense(slot), 0, cols)?,
            Inst::LoadAt { table, index } => {
                let width = frame.param(table)?.cols;
                if width == 0 || !cols.is_multiple_of(width) {
                    return Err(Fault::Malformed(format!("{cols} columns of a table of {width}")));
                }
                let row = u64::from(frame.load_index(index, logical)?);
                frame.load_reals(table, row, 0, width)?.repeat((cols / width) as usize)
            }
            Inst::Unary(unary, x) => reg(&regs, x)?.iter().map(|x| unary.eval(*x)).collect(),
            Inst::Binary(binary, a, b) => {
                let (a, b) = (reg(&regs, a)?, reg(&regs, b)?);
                a.iter().zip(b).map(|(a, b)| binary.eval(*a, *b)).collect()
            }
        };
        regs.push(result);
    }
    for store in &program.stores {
        frame.store(store.to, logical, reg(&regs, store.value)?)?;
    }
    Ok(())
}

fn sum<'s, N>(sums: &[&'s [N]], acc: u32) -> Result<&'s [N], Fault> {
    let missing = || Fault::Malformed(format!("there is no sum {acc}"));
    sums.get(acc as usize).copied().ok_or_else(missing)
}

/// `rotate_half` of each head.
fn rotated<N: Number>(sum: &[N], width: u32) -> Result<Vec<N>, Fault> {
    let width = width as usize;
    if width == 0 || !width.is_multiple_of(2) || !sum.len().is_multiple_of(width) {
        return Err(Fault::Malformed(format!("{} columns have no heads of width {width}", sum.len())));
    }
    let mut turned = Vec::with_capacity(sum.len());
    for head in sum.chunks_exact(width) {
        let (first, second) = head.split_at(width / 2);
        turned.extend(second.iter().map(|x| N::ZERO.sub(*x)));
        turned.extend_from_slice(first);
    }
    Ok(turned)
}

fn reg<N>(regs: &[Vec<N>], reg: Reg) -> Result<&[N], Fault> {
    let missing = || Fault::Malformed(format!("result {} is used before it exists", reg.0));
    regs.get(reg.0 as usize).map(Vec::as_slice).ok_or_else(missing)
}
