//! Row-wise kernels.

use std::ops::Range;

use skipc_ir::interp::functions;

use super::element::Element;
use super::fault::Fault;
use super::limit;
use super::memory::Frame;
use super::pointwise;
use crate::kernel::{NormKind, Replay, Rowwise};

pub(super) fn run<N: Element>(
    frame: &mut Frame<'_, '_, '_, N>,
    rowwise: &Rowwise,
    tiles: &[Range<u32>],
) -> Result<(), Fault> {
    for row in tiles.iter().cloned().flatten() {
        match rowwise {
            Rowwise::Map { cols, program } => pointwise::run_row(frame, program, row, *cols, &[])?,
            Rowwise::Norm { .. } => norm(frame, rowwise, row)?,
            Rowwise::RowScale { eps, cols, x, out } => {
                let x = frame.load(*x, row, *cols)?;
                frame.store_dense(*out, row, &[functions::inv_rms(&x, eps.0)])?;
            }
            Rowwise::Choose { n, choice, logits, bias, replay, out } => {
                let logits = frame.load(*logits, row, *n)?;
                let bias = bias.map(|bias| frame.load_reals(bias, 0, 0, *n)).transpose()?;
                let replayed = match replay {
                    Some(Replay { use_forced, choices }) if frame.load_u32(*use_forced, 0, 0)? != 0 => {
                        Some(frame.load(*choices, row, choice.k)?)
                    }
                    _ => None,
                };
                let chosen = functions::choose(&logits, bias.as_deref(), choice.rule(), replayed.as_deref());
                frame.store_dense(*out, row, &chosen)?;
            }
            Rowwise::Limit(limit) => limit::run_row(frame, limit, row)?,
            Rowwise::Embed { cols, ids, n_ids, table, out } => {
                let id = frame.load_index(*ids, row)?;
                let found = match id < *n_ids {
                    true => frame.load_reals(*table, u64::from(id), 0, *cols)?,
                    false => vec![N::ZERO; *cols as usize],
                };
                frame.store_dense(*out, row, &found)?;
            }
            Rowwise::Rope { .. } => rope(frame, rowwise, row)?,
        }
    }
    Ok(())
}

fn norm<N: Element>(frame: &mut Frame<'_, '_, '_, N>, rowwise: &Rowwise, row: u32) -> Result<(), Fault> {
    let Rowwise::Norm { kind, eps, cols, groups, x, gain, out } = *rowwise else { return Ok(()) };
    let width = cols.checked_div(groups).filter(|width| *width > 0 && width * groups == cols);
    let width = width.ok_or_else(|| Fault::Malformed(format!("{cols} columns in {groups} groups")))?;
    let mut x = frame.load(x, row, cols)?;
    let gain = frame.load_reals(gain, 0, 0, width)?;
    let groups = x.chunks_exact_mut(width as usize);
    match kind {
        NormKind::Rms => groups.for_each(|x| functions::rms_norm(x, eps.0, &gain)),
        NormKind::Layer { bias } => {
            let bias = frame.load_reals(bias, 0, 0, width)?;
            groups.for_each(|x| functions::layer_norm(x, eps.0, &gain, &bias));
        }
    }
    frame.store_dense(out, row, &x)
}

fn rope<N: Element>(frame: &mut Frame<'_, '_, '_, N>, rowwise: &Rowwise, row: u32) -> Result<(), Fault> {
    let Rowwise::Rope { heads, width, turned, x, positions, cos, sin, out } = *rowwise else {
        return Ok(());
    };
    let turned = turned.unwrap_or(width);
    let turns = turned.is_multiple_of(2) && turned <= width;
    let cols = heads.checked_mul(width).filter(|cols| turns && *cols > 0);
    let cols = cols.ok_or_else(|| Fault::Malformed(format!("{heads} heads of width {width} cannot turn")))?;
    let mut x = frame.load(x, row, cols)?;
    let position = u64::from(frame.load_index(positions, row)?);
    let half = turned / 2;
    let cos = frame.load_reals(cos, position, 0, half)?;
    let sin = frame.load_reals(sin, position, 0, half)?;
    x.chunks_exact_mut(width as usize)
        .for_each(|head| functions::turn(&mut head[..turned as usize], &cos, &sin));
    frame.store_dense(out, row, &x)
}
