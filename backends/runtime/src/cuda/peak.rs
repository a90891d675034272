//! What a GPU does at most: what its kernels are compared with.

use super::driver::{Context, Event, Memory, Stream};
use super::fault::CudaError;

/// Bytes that are written: many times what caches hold.
const BYTES: u64 = 1 << 30;

/// How often they are. The best time counts.
const TRIES: usize = 5;

/// The most that a GPU does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// Operations a second on bf16 with sums in f32, by its tensor cores at their highest clock; a multiply-add is two.
    pub operations: f64,
    /// Bytes a second that it wrote to its memory, measured.
    pub bytes: f64,
}

/// Computes and measures it.
pub(super) fn of(context: &Context) -> Result<Peak, CudaError> {
    let stream = Stream::new(context)?;
    let memory = Memory::new(context, "a measurement of its memory", BYTES)?;
    let (begin, end) = (Event::new(context)?, Event::new(context)?);
    let mut fastest = u64::MAX;
    for _ in 0..TRIES {
        begin.record(&stream, false)?;
        memory.fill(&stream, 0)?;
        end.record(&stream, false)?;
        stream.synchronize()?;
        fastest = fastest.min(begin.nanoseconds_until(&end)?);
    }
    let rate = 2.0 * multiply_adds(context.compute) * f64::from(context.processors) * context.clock()?;
    Ok(Peak { operations: rate, bytes: BYTES as f64 / (fastest.max(1) as f64 / 1e9) })
}

/// Multiply-adds of bf16, dense, with sums in f32, of a multiprocessor in a cycle: the rates that NVIDIA states in its
/// descriptions of Ampere, Ada, Hopper and Blackwell, over processors and clock.
fn multiply_adds((major, minor): (u32, u32)) -> f64 {
    match (major, minor) {
        (8, 0) => 1024.0,
        (8, _) => 512.0,
        (9, _) => 2048.0,
        (10 | 11, _) => 4096.0,
        _ => 512.0,
    }
}

#[cfg(test)]
mod tests {
    use super::multiply_adds;

    #[test]
    fn rates_are_those_of_the_data_sheets() {
        // Processors and boost clock in GHz of an A100, an H100 SXM and an RTX 4090, dense bf16 in T operations a second.
        for (compute, processors, clock, stated) in
            [((8, 0), 108.0, 1.41, 312.0), ((9, 0), 132.0, 1.83, 989.4), ((8, 9), 128.0, 2.52, 330.3)]
        {
            let found = 2.0 * multiply_adds(compute) * processors * clock / 1e3;
            assert!((found / stated - 1.0).abs() < 0.01, "{compute:?}: {found} against {stated}");
        }
    }
}
