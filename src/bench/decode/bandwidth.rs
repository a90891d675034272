//! How fast this machine reads memory.

use std::hint::black_box;
use std::time::Instant;

/// Words that are read: 1 GiB, more than caches hold.
const WORDS: usize = 1 << 27;

/// Times that they are read; the fastest counts.
const ROUNDS: usize = 5;

/// Bytes a second that so many threads read together, each a run of its own.
pub fn read_bandwidth(threads: usize) -> f64 {
    let words: Vec<u64> = (0..WORDS as u64).collect();
    let share = WORDS.div_ceil(threads.max(1));
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        std::thread::scope(|scope| {
            for part in words.chunks(share) {
                scope.spawn(move || black_box(sum(part)));
            }
        });
        best = best.min(started.elapsed().as_secs_f64());
    }
    (WORDS * size_of::<u64>()) as f64 / best
}

/// Eight sums side by side, which do not wait for each other.
fn sum(words: &[u64]) -> u64 {
    let mut sums = [0u64; 8];
    for words in words.as_chunks::<8>().0 {
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().fold(0, |all, sum| all.wrapping_add(*sum))
}
