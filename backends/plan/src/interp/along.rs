//! Work along sequences.

use std::collections::BTreeMap;
use std::ops::Range;

use skipc_ir::interp::functions;

use super::element::Element;
use super::fault::Fault;
use super::memory::Frame;
use crate::kernel::{Along, Conv, Inputs};

pub(super) fn run<N: Element>(
    frame: &mut Frame<'_, '_, '_, N>,
    along: &Along,
    n_rows: u32,
    tiles: &[Range<u32>],
) -> Result<(), Fault> {
    match *along {
        Along::Mean { cols, x, sequences, out } => {
            let of: Vec<u32> =
                (0..n_rows).map(|row| frame.load_index(sequences, row)).collect::<Result<_, _>>()?;
            let mut rows = 0..n_rows;
            for of_sequence in of.chunk_by(|a, b| a == b) {
                let rows: Vec<u32> = rows.by_ref().take(of_sequence.len()).collect();
                let mut numbers = Vec::with_capacity(rows.len() * cols as usize);
                for row in &rows {
                    numbers.extend(frame.load(x, *row, cols)?);
                }
                let means = functions::column_means(&numbers, cols as usize);
                rows.into_iter().try_for_each(|row| frame.store_dense(out, row, &means))?;
            }
            Ok(())
        }
        Along::Conv(ref of) => conv(frame, of, tiles),
    }
}

fn conv<N: Element>(
    frame: &mut Frame<'_, '_, '_, N>,
    conv: &Conv,
    tiles: &[Range<u32>],
) -> Result<(), Fault> {
    let Conv { cols, taps, filters, positions, sequences, inputs, out } = *conv;
    if taps == 0 {
        return Err(Fault::Malformed("a convolution without taps".to_owned()));
    }
    let rows = rows(frame, inputs)?;
    for row in tiles.iter().cloned().flatten() {
        let (sequence, last) = (frame.load_index(sequences, row)?, frame.load_index(positions, row)?);
        let mut seen = Vec::new();
        for position in (last + 1).saturating_sub(taps)..=last {
            let input = input(frame, conv, &rows, (sequence, position))?;
            seen.extend(input.map(|input| (taps - 1 - (last - position), input)));
        }
        let factors: Vec<Vec<N>> = (0..taps)
            .map(|tap| frame.load_reals(filters, tap.into(), 0, cols))
            .collect::<Result<_, Fault>>()?;
        let seen: Vec<(usize, &[N])> = seen.iter().map(|(tap, row)| (*tap as usize, &row[..])).collect();
        let sums = functions::convolved(cols as usize, |tap, col| factors[tap][col], &seen);
        frame.store_dense(out, row, &sums)?;
    }
    Ok(())
}

/// The row of each place, sequence and position, of inputs that are in rows.
fn rows<N: Element>(
    frame: &Frame<'_, '_, '_, N>,
    inputs: Inputs,
) -> Result<BTreeMap<(u32, u32), u32>, Fault> {
    let mut rows = BTreeMap::new();
    let Inputs::Rows { extent, positions, sequences, .. } = inputs else { return Ok(rows) };
    for row in 0..frame.extent(extent)? {
        let place = (frame.load_index(sequences, row)?, frame.load_index(positions, row)?);
        if rows.last_key_value().is_some_and(|(last, _)| *last >= place) {
            return Err(Fault::KeyOrder { row });
        }
        rows.insert(place, row);
    }
    Ok(rows)
}

/// The input at a place, if there is one.
fn input<N: Element>(
    frame: &Frame<'_, '_, '_, N>,
    conv: &Conv,
    rows: &BTreeMap<(u32, u32), u32>,
    (sequence, position): (u32, u32),
) -> Result<Option<Vec<N>>, Fault> {
    match conv.inputs {
        Inputs::Rows { x, .. } => {
            let row = rows.get(&(sequence, position));
            row.map(|row| frame.load(x, *row, conv.cols)).transpose()
        }
        Inputs::Cached { cache, pages, present } => {
            let row = frame.cached(pages, sequence, position)?;
            let is_there = present.map_or(Ok(1), |present| frame.load_u8(present, row))? != 0;
            is_there.then(|| frame.load_reals(cache, row, 0, conv.cols)).transpose()
        }
    }
}
