//! The most multiply-adds that the processor does: loops that touch nothing but registers.

use std::sync::Barrier;
use std::time::Instant;

/// Billions of operations a second; a product and its sum are two.
pub(crate) struct Peak {
    /// In f32.
    pub(crate) f32: Option<f64>,
    /// Of bf16 products summed in f32, if the processor has an instruction for them.
    pub(crate) bf16: Option<f64>,
}

/// Turns of a loop: some milliseconds, so that starting threads counts for nothing.
const TURNS: u32 = 1_000_000;

/// How often all threads run the loop. The best time counts: what else the machine does can only add to it.
const TRIES: usize = 20;

/// A loop that does so many operations a turn, if this processor has its instructions.
type Loop = Option<(fn(u32), f64)>;

/// Measures with all threads at work at once.
pub(crate) fn measure(threads: usize) -> Peak {
    Peak { f32: best(threads, loops::of_f32()), bf16: best(threads, loops::of_bf16()) }
}

fn best(threads: usize, of: Loop) -> Option<f64> {
    let (run, operations) = of?;
    let threads = threads.max(1);
    let barrier = Barrier::new(threads);
    let rates = std::thread::scope(|scope| {
        let work = || {
            let time = || {
                barrier.wait();
                let started = Instant::now();
                run(TURNS);
                started.elapsed().as_secs_f64()
            };
            (0..TRIES).map(|_| time()).fold(f64::INFINITY, f64::min)
        };
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        handles.into_iter().filter_map(|handle| handle.join().ok()).collect::<Vec<_>>()
    });
    Some(rates.into_iter().map(|seconds| f64::from(TURNS) * operations / seconds / 1e9).sum())
}

#[cfg(target_arch = "x86_64")]
mod loops {
    use std::arch::x86_64::{
        _mm256_fmadd_ps, _mm256_set1_ps, _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_set1_ps,
    };
    use std::hint::black_box;
    use std::is_x86_feature_detected as has;

    use super::Loop;

    /// Sums that do not wait for each other: more than any core has multiply-adds under way.
    const SUMS: usize = 12;

    pub(super) fn of_f32() -> Loop {
        if has!("avx512f") {
            // SAFETY: the processor has the instructions.
            Some((|turns| unsafe { avx512(turns) }, (SUMS * 16 * 2) as f64))
        } else if has!("avx2") && has!("fma") {
            // SAFETY: the processor has the instructions.
            Some((|turns| unsafe { avx2(turns) }, (SUMS * 8 * 2) as f64))
        } else {
            None
        }
    }

    pub(super) fn of_bf16() -> Loop {
        if !(has!("avx512bf16") && has!("avx512f")) {
            return None;
        }
        // SAFETY: the processor has the instructions.
        Some((|turns| unsafe { avx512_bf16(turns) }, (SUMS * 32 * 2) as f64))
    }

    #[target_feature(enable = "avx512f")]
    fn avx512(turns: u32) {
        let (x, y) = (_mm512_set1_ps(black_box(0.5)), _mm512_set1_ps(black_box(0.25)));
        let mut sums = [y; SUMS];
        for _ in 0..turns {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, x, y);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2,fma")]
    fn avx2(turns: u32) {
        let (x, y) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(0.25)));
        let mut sums = [y; SUMS];
        for _ in 0..turns {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, x, y);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn avx512_bf16(turns: u32) {
        let zero = _mm512_set1_ps(black_box(0.0));
        let ones = [black_box(0x3f80u16); 32];
        // SAFETY: 32 numbers of two bytes, as many as the vector holds, and any bits are a vector.
        let ones = unsafe { std::mem::transmute::<[u16; 32], std::arch::x86_64::__m512bh>(ones) };
        let mut sums = [zero; SUMS];
        for _ in 0..turns {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, ones, ones);
            }
        }
        black_box(sums);
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod loops {
    use super::Loop;

    pub(super) fn of_f32() -> Loop {
        None
    }

    pub(super) fn of_bf16() -> Loop {
        None
    }
}
