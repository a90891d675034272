//! How fast this machine reads memory.

use std::hint::black_box;
use std::time::{Duration, Instant};

use memmap2::{Advice, MmapMut};

use crate::Failed;

/// Bytes that are read: 1 GiB.
const BYTES: usize = 1 << 30;

/// Bytes that are timed at once. Each such piece counts with the least time of all rounds, so that what other programs do
/// in between does not.
const PIECE: usize = 1 << 20;

/// Times that all are read.
const ROUNDS: usize = 3;

/// Memory to read, and how many threads read it together.
pub(crate) struct Memory {
    bytes: MmapMut,
    threads: usize,
}

impl Memory {
    /// Memory in large pages, as weights lie.
    pub(crate) fn new(threads: usize) -> Result<Memory, Failed> {
        let mut bytes = MmapMut::map_anon(BYTES)?;
        #[cfg(target_os = "linux")]
        let _ = bytes.advise(Advice::HugePage);
        bytes.fill(1);
        Ok(Memory { bytes, threads })
    }

    /// Bytes that all threads together read in a second, each a run of its own.
    pub(crate) fn bandwidth(&self) -> f64 {
        let share = BYTES.div_ceil(self.threads.max(1)).next_multiple_of(PIECE);
        let seconds: Vec<f64> = std::thread::scope(|scope| {
            let parts = self.bytes.chunks(share);
            let threads: Vec<_> = parts.map(|part| scope.spawn(move || seconds(part))).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        BYTES as f64 / seconds.into_iter().fold(0.0, f64::max)
    }
}

/// What a thread takes for its part, piece by piece.
fn seconds(part: &[u8]) -> f64 {
    let mut least = vec![Duration::MAX; part.len().div_ceil(PIECE)];
    for _ in 0..ROUNDS {
        for (piece, least) in part.chunks(PIECE).zip(&mut least) {
            let started = Instant::now();
            black_box(sum(piece));
            *least = started.elapsed().min(*least);
        }
    }
    least.iter().sum::<Duration>().as_secs_f64()
}

/// Sums side by side, which do not wait for each other.
fn sum(bytes: &[u8]) -> u64 {
    let mut sums = [0u64; 16];
    for bytes in bytes.as_chunks::<128>().0 {
        for (sum, word) in sums.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *sum = sum.wrapping_add(u64::from_ne_bytes(*word));
        }
    }
    sums.iter().fold(0, |all, sum| all.wrapping_add(*sum))
}
