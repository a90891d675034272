//! Row-wise kernels.

use std::ops::Range;

use super::fault::Fault;
use super::gemm::dot;
use super::memory::Frame;
use super::pointwise;
use crate::kernel::{NormKind, Rowwise};

pub(super) fn run(
    frame: &mut Frame<'_, '_, '_>,
    rowwise: &Rowwise,
    tiles: &[Range<u32>],
) -> Result<(), Fault> {
    for row in tiles.iter().cloned().flatten() {
        match rowwise {
            Rowwise::Map { cols, program } => pointwise::run_row(frame, program, row, *cols, &[])?,
            Rowwise::Norm { .. } => norm(frame, rowwise, row)?,
            Rowwise::Embed { cols, ids, n_ids, table, out } => {
                let id = frame.load_index(*ids, row)?;
                let found = match id < *n_ids {
                    true => frame.load_reals(*table, u64::from(id), 0, *cols)?,
                    false => vec![0.0; *cols as usize],
                };
                frame.store_dense(*out, row, &found)?;
            }
            Rowwise::Rope { .. } => rope(frame, rowwise, row)?,
            Rowwise::Dot { k, n, x, weight, out } => {
                let x = frame.load(*x, row, *k)?;
                let mut logits = Vec::with_capacity(*n as usize);
                for output in 0..*n {
                    logits.push(dot(&x, &frame.load_reals(*weight, u64::from(output), 0, *k)?));
                }
                frame.store_dense(*out, row, &logits)?;
            }
        }
    }
    Ok(())
}

fn norm(frame: &mut Frame<'_, '_, '_>, rowwise: &Rowwise, row: u32) -> Result<(), Fault> {
    let Rowwise::Norm { kind, eps, cols, x, gain, out } = *rowwise else { return Ok(()) };
    let mut x = frame.load(x, row, cols)?;
    let mean = |values: &mut dyn Iterator<Item = f64>| (values.sum::<f64>() / f64::from(cols)) as f32;
    let bias = match kind {
        NormKind::Rms => None,
        NormKind::Layer { bias } => {
            let centre = mean(&mut x.iter().map(|x| f64::from(*x)));
            x.iter_mut().for_each(|x| *x -= centre);
            Some(frame.load_reals(bias, 0, 0, cols)?)
        }
    };
    let square = mean(&mut x.iter().map(|x| f64::from(*x) * f64::from(*x)));
    let scale = 1.0 / libm::sqrtf(square + eps.0 as f32);
    let gain = frame.load_reals(gain, 0, 0, cols)?;
    x.iter_mut().zip(&gain).for_each(|(x, gain)| *x = *x * scale * gain);
    if let Some(bias) = bias {
        x.iter_mut().zip(&bias).for_each(|(x, bias)| *x += bias);
    }
    frame.store_dense(out, row, &x)
}

fn rope(frame: &mut Frame<'_, '_, '_>, rowwise: &Rowwise, row: u32) -> Result<(), Fault> {
    let Rowwise::Rope { heads, width, x, positions, cos, sin, out } = *rowwise else { return Ok(()) };
    let cols = heads.checked_mul(width).filter(|cols| width.is_multiple_of(2) && *cols > 0);
    let cols = cols.ok_or_else(|| Fault::Malformed(format!("{heads} heads of width {width} cannot turn")))?;
    let mut x = frame.load(x, row, cols)?;
    let position = u64::from(frame.load_index(positions, row)?);
    let half = width / 2;
    let cos = frame.load_reals(cos, position, 0, half)?;
    let sin = frame.load_reals(sin, position, 0, half)?;
    for head in x.chunks_exact_mut(width as usize) {
        let (a, b) = head.split_at_mut(half as usize);
        for (pair, (a, b)) in a.iter_mut().zip(b).enumerate() {
            (*a, *b) = (*a * cos[pair] - *b * sin[pair], *b * cos[pair] + *a * sin[pair]);
        }
    }
    frame.store_dense(out, row, &x)
}
