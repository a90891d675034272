//! What a step adds to a state.

use skipc_artifact::target::DType;
use skipc_ir::interp::functions;

use super::element::Element;
use super::fault::Fault;
use super::memory::Frame;
use crate::kernel::Update;

/// All rows in order: the sums in f64 (see the module's remark on numbers), rounded once.
pub(super) fn run<N: Element>(
    frame: &mut Frame<'_, '_, '_, N>,
    update: &Update,
    n_rows: u32,
) -> Result<(), Fault> {
    match *update {
        Update::StoreRows { cols, rows, places, cache } => {
            for row in 0..n_rows {
                let place = frame.load_index(places, row)?;
                match frame.param(cache)?.dtype {
                    DType::U8 => {
                        let decision = frame.load_u8(rows.slot, frame.physical(rows.rows, row)?)?;
                        frame.store_u8(cache, place.into(), decision)?;
                    }
                    DType::U32 if cols == 1 => {
                        let number = frame.load_index(rows, row)?;
                        frame.store_u32(cache, place.into(), number)?;
                    }
                    DType::U32 | DType::F32 | DType::Bf16 | DType::I8 => {
                        let numbers = frame.load(rows, row, cols)?;
                        frame.store_dense(cache, place, &numbers)?;
                    }
                }
            }
            Ok(())
        }
        Update::AddRows { cols, x, sum } => {
            let before = frame.load_reals(sum, 0, 0, cols)?;
            let mut columns: Vec<Vec<N>> = before.into_iter().map(|before| vec![before]).collect();
            for row in 0..n_rows {
                for (column, x) in columns.iter_mut().zip(frame.load(x, row, cols)?) {
                    column.push(x);
                }
            }
            let ones = vec![N::ONE; n_rows as usize + 1];
            let sums: Vec<N> = columns.iter().map(|column| functions::dot(column, &ones)).collect();
            frame.store_dense(sum, 0, &sums)
        }
    }
}
