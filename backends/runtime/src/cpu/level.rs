//! Which level of host code runs: the highest that the processor has the instructions for, except that dot products of bf16
//! run only where they are faster than what the level below has instead, products in f32 of weights that are widened in
//! registers. Processors differ there: an AMD EPYC of the Zen 4 generation takes 0.54 of the time, an Intel Xeon of the
//! Sapphire Rapids generation 1.2 times the time. So a small product of each form is timed, once in a process.

use std::fmt;
use std::sync::LazyLock;

use skipc_artifact::image::{HostArch, HostLevel};

/// Dot products run if they take less than this share of the time of the other form; as long as that would be a toss-up
/// between two roundings of the same model.
const WORTH: f64 = 0.95;

/// Which of an artefact's host code runs here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What it is for.
    pub arch: HostArch,
    /// Its instructions.
    pub level: HostLevel,
    /// A level that the processor has, too, and that is slower.
    pub passed_over: Option<HostLevel>,
}

impl Choice {
    /// The choice among code of these kinds, highest level first; `None` if this machine runs none of them.
    pub fn among(codes: impl IntoIterator<Item = (HostArch, HostLevel)>) -> Option<Choice> {
        Wanted(None).choose(codes)
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Choice { arch, level, passed_over } = self;
        write!(f, "{arch:?}, {level:?}")?;
        passed_over.map_or(Ok(()), |slower| write!(f, ", which is faster here than {slower:?}"))
    }
}

/// How a level is chosen, as [`crate::options::Options::max_level`] says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted(pub(super) Option<HostLevel>);

impl Wanted {
    /// The choice among code of these kinds, highest level first.
    pub(super) fn choose(self, codes: impl IntoIterator<Item = (HostArch, HostLevel)>) -> Option<Choice> {
        let host = HostArch::of_this_process();
        let mut passed_over = None;
        for (arch, level) in codes.into_iter().filter(|(arch, _)| Some(*arch) == host) {
            if self.takes(level) {
                return Some(Choice { arch, level, passed_over });
            }
            if self.passes_over(level) {
                passed_over = Some(level);
            }
        }
        None
    }

    /// Whether code of a level runs here.
    fn takes(self, level: HostLevel) -> bool {
        let allowed = self.0.is_none_or(|max| level <= max);
        allowed && is_supported(level) && !self.passes_over(level)
    }

    /// Whether a level that the processor has is left out since the one below it is faster.
    fn passes_over(self, level: HostLevel) -> bool {
        self.0.is_none()
            && level == HostLevel::Avx512Bf16
            && is_supported(level)
            && share_of_dots().is_some_and(|share| share > WORTH)
    }

    pub(super) fn describe(self) -> String {
        self.0.map_or_else(|| "any level".to_owned(), |max| format!("up to {max:?}"))
    }
}

/// The levels that this processor has the instructions for, highest first.
pub fn levels() -> impl Iterator<Item = HostLevel> {
    HostLevel::DESCENDING.into_iter().filter(|level| is_supported(*level))
}

/// The time of dot products of bf16 over that of as many products in f32, on this processor; `None` if it has none.
pub fn share_of_dots() -> Option<f64> {
    static SHARE: LazyLock<Option<f64>> = LazyLock::new(measured);
    *SHARE
}

#[cfg(target_arch = "x86_64")]
fn measured() -> Option<f64> {
    is_supported(HostLevel::Avx512Bf16).then(|| {
        // SAFETY: the level has the instructions that the function is compiled for.
        let [dots, singles] = unsafe { products::times() };
        dots / singles
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn measured() -> Option<f64> {
    None
}

#[cfg(target_arch = "x86_64")]
fn is_supported(level: HostLevel) -> bool {
    use std::arch::is_x86_feature_detected as has;
    let avx2 = has!("avx2") && has!("fma") && has!("f16c") && has!("bmi1") && has!("bmi2");
    let avx512 =
        has!("avx512f") && has!("avx512bw") && has!("avx512cd") && has!("avx512dq") && has!("avx512vl");
    match level {
        HostLevel::Baseline => true,
        HostLevel::Avx2 => avx2,
        HostLevel::Avx512 => avx2 && avx512,
        HostLevel::Avx512Bf16 => avx2 && avx512 && has!("avx512bf16"),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn is_supported(level: HostLevel) -> bool {
    level == HostLevel::Baseline
}

/// The two forms of a product of bf16, as matmuls have them: sums of a register tile stay in registers.
#[cfg(target_arch = "x86_64")]
mod products {
    use std::arch::x86_64::{
        __m512, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cvtne2ps_pbh,
        _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_reduce_add_ps, _mm512_set1_epi32, _mm512_set1_ps,
        _mm512_slli_epi32,
    };
    use std::hint::black_box;
    use std::time::Instant;

    /// Sums that do not wait for each other: more than either form has in flight.
    const SUMS: usize = 12;

    /// Steps of a product: some microseconds, so that most rounds are not interrupted.
    const STEPS: usize = 1000;

    /// Products of each form; the fastest counts.
    const ROUNDS: usize = 8;

    /// Seconds of a product with dot products of bf16, and of one in f32 with weights that are widened.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn times() -> [f64; 2] {
        let mut times = [f64::INFINITY; 2];
        for _ in 0..ROUNDS {
            let started = Instant::now();
            black_box(dots(black_box(1.0)));
            let between = Instant::now();
            black_box(singles(black_box(1.0)));
            let ended = Instant::now();
            times[0] = times[0].min((between - started).as_secs_f64());
            times[1] = times[1].min((ended - between).as_secs_f64());
        }
        times
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn dots(number: f32) -> f32 {
        let pairs = _mm512_cvtne2ps_pbh(_mm512_set1_ps(number), _mm512_set1_ps(number));
        let mut sums = [_mm512_set1_ps(0.0); SUMS];
        for _ in 0..STEPS {
            let right = black_box(pairs);
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, pairs, right);
            }
        }
        total(sums)
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn singles(number: f32) -> f32 {
        let left = _mm512_set1_ps(number);
        let words = _mm512_castps_si512(left);
        let mut sums = [_mm512_set1_ps(0.0); SUMS];
        for _ in 0..STEPS {
            let right = black_box(words);
            let first = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(right));
            let second = _mm512_castsi512_ps(_mm512_and_si512(right, _mm512_set1_epi32(-0x1_0000)));
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(left, second, _mm512_fmadd_ps(left, first, *sum));
            }
        }
        total(sums)
    }

    #[target_feature(enable = "avx512f")]
    fn total(sums: [__m512; SUMS]) -> f32 {
        sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_is_asked_for_is_not_passed_over() {
        for level in HostLevel::DESCENDING {
            assert_eq!(Wanted(Some(level)).takes(level), is_supported(level));
            assert!(!Wanted(Some(level)).passes_over(level));
        }
        assert!(!Wanted(Some(HostLevel::Baseline)).takes(HostLevel::Avx2));
    }

    #[test]
    fn the_fastest_level_is_the_highest_but_for_slow_dot_products() {
        let best = HostLevel::DESCENDING.into_iter().find(|level| Wanted(None).takes(*level));
        let highest = HostLevel::DESCENDING.into_iter().find(|level| is_supported(*level));
        match share_of_dots() {
            Some(share) if share > WORTH => assert_eq!(best, Some(HostLevel::Avx512)),
            // No form takes a tenth or ten times of the other: both were computed.
            share => {
                assert!(share.is_none_or(|share| share > 0.1), "{share:?}");
                assert_eq!(best, highest);
            }
        }
        assert_eq!(share_of_dots().is_some(), is_supported(HostLevel::Avx512Bf16));
    }
}
