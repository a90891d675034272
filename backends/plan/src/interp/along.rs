//! Work along sequences.

use skipc_ir::interp::functions;

use super::element::Element;
use super::fault::Fault;
use super::memory::Frame;
use crate::kernel::Along;

pub(super) fn run<N: Element>(
    frame: &mut Frame<'_, '_, '_, N>,
    along: &Along,
    n_rows: u32,
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
    }
}
