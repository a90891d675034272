//! Rows in segments, and matmuls with weights for each segment.

use std::ops::Range;

use skipc_ir::interp::functions;

use super::element::Element;
use super::fault::Fault;
use super::gemm;
use super::memory::Frame;
use crate::kernel::{Grouped, Partition, Shift};

pub(super) fn run<N: Element>(
    frame: &mut Frame<'_, '_, '_, N>,
    grouped: &Grouped,
    tiles: &[Range<u32>],
) -> Result<(), Fault> {
    let mut begin = 0;
    for segment in 0..grouped.segments {
        let end = frame.load_u32(grouped.ends, segment.into(), 0)?;
        if end < begin {
            return Err(Fault::Malformed(format!("segment {segment} ends at {end}, before it begins")));
        }
        let of_segment = tiles.iter().map(|tile| tile.start.max(begin)..tile.end.min(end));
        let of_segment: Vec<Range<u32>> = of_segment.filter(|tile| !tile.is_empty()).collect();
        for Shift { slot, rows } in &grouped.shifts {
            frame.show(*slot, u64::from(segment) * u64::from(*rows), u64::from(*rows))?;
        }
        gemm::run(frame, &grouped.gemm, &of_segment)?;
        begin = end;
    }
    Ok(())
}

pub(super) fn run_partition<N: Element>(
    frame: &mut Frame<'_, '_, '_, N>,
    partition: &Partition,
    n_rows: u32,
) -> Result<(), Fault> {
    let mut segments = vec![Vec::new(); partition.parts as usize];
    for row in 0..n_rows {
        let index = frame.load(partition.index, row, 1)?[0];
        if let Some(segment) = functions::segment(index, (partition.first, partition.parts)) {
            segments[segment].push(row);
        }
    }
    let mut count = 0;
    for (segment, rows) in (0..).zip(segments) {
        for row in rows {
            frame.store_u32(partition.rows, count, row)?;
            count += 1;
        }
        frame.store_u32(partition.ends, segment, count as u32)?;
    }
    frame.store_u32(partition.count, 0, count as u32)
}
