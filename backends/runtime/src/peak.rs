//! The most multiply-adds in f32 that the processor does: what kernels are compared with.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use pulp::{Arch, Simd, WithSimd};

/// Sums that do not wait for each other: more than any core has multiply-adds under way, and fewer than it has registers.
const SUMS: usize = 12;

/// Turns of the loop: about a millisecond.
const TURNS: u32 = 200_000;

/// How often all threads run it. The best time counts: what else the machine does can only add to it.
const TRIES: usize = 10;

/// A loop that touches nothing but registers; gives how many numbers a register has.
struct Loop;

impl WithSimd for Loop {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        let (factor, mut sums) = (simd.splat_f32s(black_box(0.5)), [simd.splat_f32s(black_box(1.0)); SUMS]);
        for _ in 0..TURNS {
            for sum in &mut sums {
                *sum = simd.mul_add_f32s(*sum, factor, factor);
            }
        }
        black_box(sums);
        S::F32_LANES
    }
}

/// Operations a second of so many threads that work at once; a product and its sum are two.
#[must_use]
pub fn multiply_adds(threads: usize) -> f64 {
    let barrier = Barrier::new(threads.max(1));
    let work = || {
        let time = || {
            barrier.wait();
            let started = Instant::now();
            let lanes = Arch::new().dispatch(Loop);
            (lanes * SUMS * 2) as f64 * f64::from(TURNS) / started.elapsed().as_secs_f64()
        };
        (0..TRIES).map(|_| time()).fold(0.0, f64::max)
    };
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        handles.into_iter().filter_map(|handle| handle.join().ok()).sum()
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn more_than_one_operation_a_nanosecond_is_found() {
        // A loop that is no vector code, or that was left out, would be far off.
        let rate = super::multiply_adds(1);
        assert!((1e9..1e13).contains(&rate), "{rate:e}");
    }
}
