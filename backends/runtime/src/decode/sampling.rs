//! How the next token is chosen from a row of logits.

use std::cmp::Ordering;

use crate::error::Error;
use crate::random::random;

/// Settings of the choice, applied in this order: repetition penalty, temperature, top-k, top-p, min-p, draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the positive logits of tokens that occurred, and multiplies their negative ones; above 0, 1 changes
    /// nothing.
    pub repetition_penalty: f64,
    /// Divides the logits; 0 takes the likeliest token, the lowest of several equal ones.
    pub temperature: f64,
    /// Keep so many of the likeliest tokens, of equal ones the lower; 0 keeps all.
    pub top_k: u32,
    /// Keep the fewest of the likeliest tokens whose probabilities, among those that top-k kept, sum up to this; 1 keeps
    /// all.
    pub top_p: f64,
    /// Keep the tokens that are at least so likely as this times the likeliest; 0 keeps all.
    pub min_p: f64,
    /// Same seed, request and position: same draw, whatever runs beside it.
    pub seed: u64,
}

/// How likely the model takes tokens to be at one place, whatever [`Sampling`] makes of it: natural logarithms.
#[derive(Clone, Debug, PartialEq)]
pub struct LogProbs {
    /// Of the token that was chosen.
    pub chosen: f64,
    /// The likeliest tokens with theirs, likeliest first, of equal ones the lower.
    pub top: Vec<(u32, f64)>,
}

impl LogProbs {
    /// Of a token and the `n_top` likeliest, by logits of the tokens that may be chosen, from id 0 on.
    #[must_use]
    pub fn of(logits: &[f32], chosen: u32, n_top: u32) -> Self {
        let log_probability = log_probabilities(logits);
        let mut top: Vec<(u32, f64)> =
            (0..).zip(logits.iter().map(|logit| log_probability(*logit))).collect();
        let chosen = top.get(chosen as usize).map_or(f64::NEG_INFINITY, |pair| pair.1);
        keep_top_k(&mut top, (n_top as usize).max(1));
        top.sort_unstable_by(likelier);
        top.truncate(n_top as usize);
        Self { chosen, top }
    }
}

/// The logarithm of the probability, in nats, that one of these logits stands for.
pub(crate) fn log_probabilities(logits: &[f32]) -> impl Fn(f32) -> f64 + use<> {
    let highest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let norm = libm::log(logits.iter().map(|logit| libm::exp(f64::from(*logit) - highest)).sum());
    move |logit| f64::from(logit) - highest - norm
}

/// Which draw is made: of a request, for the token at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Number of the request.
    pub request: u64,
    /// Position that the token will have in its sequence.
    pub position: u64,
}

impl Default for Sampling {
    /// The likeliest token, always.
    fn default() -> Self {
        Self { repetition_penalty: 1.0, temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0 }
    }
}

impl Sampling {
    /// Refuses settings that mean nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] that names the first.
    pub fn check(&self) -> Result<(), Error> {
        let rows = [
            ("temperature", self.temperature, (0.0..f64::INFINITY).contains(&self.temperature), "0 or more"),
            ("top-p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0 and at most 1"),
            ("min-p", self.min_p, (0.0..=1.0).contains(&self.min_p), "from 0 to 1"),
            (
                "repetition penalty",
                self.repetition_penalty,
                self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite(),
                "above 0",
            ),
        ];
        match rows.into_iter().find(|(_, _, is_sound, _)| !is_sound) {
            Some((name, found, _, range)) => Err(Error::Usage(format!("{name} is {range}, not {found}"))),
            None => Ok(()),
        }
    }

    /// The next token, after tokens that occurred. `logits` are finite, of the tokens that may be chosen, from id 0 on, at
    /// least one.
    #[must_use]
    pub fn choose(&self, logits: &[f32], occurred: &[u32], draw: Draw) -> u32 {
        let candidates = self.distribution(logits, occurred);
        // 53 bits, as many as a number below 1 has.
        let bits = random(self.seed, draw.request, draw.position) >> 11;
        let mut rest = bits as f64 / (1u64 << 53) as f64;
        for &(token, probability) in &candidates {
            rest -= probability;
            if rest < 0.0 {
                return token;
            }
        }
        // The probabilities sum up to a little less than 1.
        candidates.last().map_or(0, |candidate| candidate.0)
    }

    /// The tokens that may be drawn with their probabilities, likeliest first; arguments as [`Sampling::choose`] has them.
    #[must_use]
    pub fn distribution(&self, logits: &[f32], occurred: &[u32]) -> Vec<(u32, f64)> {
        let mut candidates: Vec<(u32, f64)> =
            (0..).zip(logits.iter().map(|logit| f64::from(*logit))).collect();
        self.penalise(&mut candidates, occurred);
        if self.temperature == 0.0 {
            let best = candidates.into_iter().min_by(likelier);
            return best.into_iter().map(|(token, _)| (token, 1.0)).collect();
        }
        for (_, logit) in &mut candidates {
            *logit /= self.temperature;
        }
        keep_top_k(&mut candidates, self.top_k as usize);
        candidates.sort_unstable_by(likelier);
        softmax(&mut candidates);
        keep_top_p(&mut candidates, self.top_p);
        let least = candidates.first().map_or(0.0, |(_, highest)| self.min_p * highest);
        candidates.retain(|(_, probability)| *probability >= least);
        let sum: f64 = candidates.iter().map(|(_, probability)| probability).sum();
        for (_, probability) in &mut candidates {
            *probability /= sum;
        }
        candidates
    }

    fn penalise(&self, candidates: &mut [(u32, f64)], occurred: &[u32]) {
        if self.repetition_penalty == 1.0 {
            return;
        }
        let mut has_occurred = vec![false; candidates.len()];
        for token in occurred {
            if let Some(has_occurred) = has_occurred.get_mut(*token as usize) {
                *has_occurred = true;
            }
        }
        for ((_, logit), _) in candidates.iter_mut().zip(has_occurred).filter(|(_, occurred)| *occurred) {
            *logit = match *logit > 0.0 {
                true => *logit / self.repetition_penalty,
                false => *logit * self.repetition_penalty,
            };
        }
    }
}

/// The index of the largest number, the first of equal ones.
#[must_use]
pub fn likeliest(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (idx, &logit) in (0u32..).zip(logits) {
        if logit > best.1 {
            best = (idx, logit);
        }
    }
    best.0
}

/// Higher numbers first, of equal ones the lower token.
fn likelier(a: &(u32, f64), b: &(u32, f64)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

fn keep_top_k(candidates: &mut Vec<(u32, f64)>, k: usize) {
    if (1..candidates.len()).contains(&k) {
        candidates.select_nth_unstable_by(k - 1, likelier);
        candidates.truncate(k);
    }
}

/// Logits to probabilities; likeliest first.
fn softmax(candidates: &mut [(u32, f64)]) {
    let highest = candidates.first().map_or(0.0, |candidate| candidate.1);
    let mut sum = 0.0;
    for (_, number) in candidates.iter_mut() {
        *number = libm::exp(*number - highest);
        sum += *number;
    }
    for (_, number) in candidates.iter_mut() {
        *number /= sum;
    }
}

fn keep_top_p(candidates: &mut Vec<(u32, f64)>, p: f64) {
    // Rounding may let the sum reach 1 before the last.
    if p >= 1.0 {
        return;
    }
    let mut sum = 0.0;
    let reached = candidates.iter().position(|(_, probability)| {
        sum += probability;
        sum >= p
    });
    candidates.truncate(reached.map_or(candidates.len(), |last| last + 1));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equal_logits_wins() {
        assert_eq!(likeliest(&[1.0, 3.0, 2.0, 3.0]), 1);
        assert_eq!(likeliest(&[f32::NEG_INFINITY; 3]), 0);
        assert_eq!(likeliest(&[]), 0);
    }

    /// Probabilities 0.4, 0.3, 0.2, 0.1 in the order of ids 2, 0, 3, 1.
    const PROBABILITIES: [f64; 4] = [0.3, 0.1, 0.4, 0.2];

    fn logits() -> Vec<f32> {
        PROBABILITIES.iter().map(|probability| libm::log(*probability) as f32).collect()
    }

    const WARM: Sampling =
        Sampling { repetition_penalty: 1.0, temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 7 };

    #[track_caller]
    fn keeps(sampling: Sampling, expected: &[(u32, f64)]) {
        let found = sampling.distribution(&logits(), &[]);
        let tokens = |pairs: &[(u32, f64)]| pairs.iter().map(|pair| pair.0).collect::<Vec<_>>();
        assert_eq!(tokens(&found), tokens(expected), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!((found.1 - expected.1).abs() < 1e-6, "{found:?}, expected {expected:?}");
        }
    }

    #[test]
    fn each_rule_keeps_what_it_says() {
        keeps(WARM, &[(2, 0.4), (0, 0.3), (3, 0.2), (1, 0.1)]);
        keeps(Sampling { top_k: 2, ..WARM }, &[(2, 4.0 / 7.0), (0, 3.0 / 7.0)]);
        keeps(Sampling { top_k: 9, ..WARM }, &[(2, 0.4), (0, 0.3), (3, 0.2), (1, 0.1)]);
        keeps(Sampling { top_p: 0.4 - 1e-6, ..WARM }, &[(2, 1.0)]);
        keeps(Sampling { top_p: 0.4 + 1e-6, ..WARM }, &[(2, 4.0 / 7.0), (0, 3.0 / 7.0)]);
        keeps(Sampling { min_p: 0.5 - 1e-6, ..WARM }, &[(2, 4.0 / 9.0), (0, 3.0 / 9.0), (3, 2.0 / 9.0)]);
        keeps(Sampling { min_p: 1.0, ..WARM }, &[(2, 1.0)]);
        // Squares: 16, 9, 4, 1 of 30.
        let thirtieths =
            [(2, 16.0), (0, 9.0), (3, 4.0), (1, 1.0)].map(|(token, share)| (token, share / 30.0));
        keeps(Sampling { temperature: 0.5, ..WARM }, &thirtieths);
        keeps(Sampling { temperature: 0.0, ..WARM }, &[(2, 1.0)]);
    }

    #[test]
    fn the_rules_are_applied_in_order() {
        // Temperature before top-p: at 1, 0.7 is reached by two tokens; at 2, by three.
        keeps(Sampling { top_p: 0.69, ..WARM }, &[(2, 4.0 / 7.0), (0, 3.0 / 7.0)]);
        let found = Sampling { temperature: 2.0, top_p: 0.69, ..WARM }.distribution(&logits(), &[]);
        assert_eq!(found.len(), 3);
        // Top-k before top-p: among the first three, 0.4 and 0.3 are 7 of 9, above 0.75; of all, 0.7 is below it.
        keeps(Sampling { top_k: 3, top_p: 0.75, ..WARM }, &[(2, 4.0 / 7.0), (0, 3.0 / 7.0)]);
        keeps(Sampling { top_p: 0.75, ..WARM }, &[(2, 4.0 / 9.0), (0, 3.0 / 9.0), (3, 2.0 / 9.0)]);
        // Top-p before min-p: three tokens are needed for 0.75 of all, two of the three that min-p keeps would do.
        keeps(
            Sampling { top_p: 0.75, min_p: 0.45, ..WARM },
            &[(2, 4.0 / 9.0), (0, 3.0 / 9.0), (3, 2.0 / 9.0)],
        );
        // The penalty before top-k: the likeliest token falls out.
        let penalised =
            Sampling { repetition_penalty: 3.0, top_k: 2, ..WARM }.distribution(&logits(), &[2, 2]);
        assert_eq!(penalised.iter().map(|pair| pair.0).collect::<Vec<_>>(), [0, 3]);
        let greedy = Sampling { repetition_penalty: 3.0, ..Sampling::default() };
        assert_eq!(greedy.distribution(&logits(), &[2, 9]), [(0, 1.0)]);
    }

    #[test]
    fn the_penalty_moves_both_signs_down_once() {
        let sampling = Sampling { repetition_penalty: 2.0, ..WARM };
        let mut candidates = vec![(0, 3.0), (1, -3.0), (2, 1.0)];
        sampling.penalise(&mut candidates, &[0, 0, 1, 7]);
        assert_eq!(candidates, [(0, 1.5), (1, -6.0), (2, 1.0)]);
    }

    #[test]
    fn ties_go_to_the_lower_token() {
        let equal = [1.0f32; 6];
        let draw = Draw { request: 0, position: 0 };
        assert_eq!(Sampling::default().choose(&equal, &[], draw), 0);
        assert_eq!(Sampling::default().choose(&[1.0, 3.0, 2.0, 3.0], &[], draw), 1);
        let kept = |sampling: Sampling| -> Vec<u32> {
            sampling.distribution(&equal, &[]).into_iter().map(|pair| pair.0).collect()
        };
        assert_eq!(kept(Sampling { top_k: 2, ..WARM }), [0, 1]);
        assert_eq!(kept(Sampling { top_p: 0.34, ..WARM }), [0, 1, 2]);
        assert_eq!(kept(Sampling { min_p: 1.0, ..WARM }), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn extreme_logits_leave_probabilities() {
        for sampling in
            [WARM, Sampling { temperature: 1e-30, ..WARM }, Sampling { temperature: 1e30, ..WARM }]
        {
            let found = sampling.distribution(&[f32::MAX, f32::MIN, 0.0], &[]);
            let sum: f64 = found.iter().map(|pair| pair.1).sum();
            assert!((sum - 1.0).abs() < 1e-9 && found[0].0 == 0, "{found:?}");
        }
    }

    /// Pearson's statistic of 10⁵ draws stays below what chance exceeds once in 10⁶ times.
    #[test]
    fn draws_follow_the_distribution() {
        const DRAWS: u32 = 100_000;
        let logits: Vec<f32> = (0..40).map(|token| ((token * 7) % 11) as f32 * 0.3).collect();
        for sampling in [
            WARM,
            Sampling { temperature: 0.6, ..WARM },
            Sampling { top_k: 10, ..WARM },
            Sampling { top_p: 0.8, seed: 8, ..WARM },
            Sampling { min_p: 0.2, ..WARM },
            Sampling { temperature: 1.4, top_k: 30, top_p: 0.9, min_p: 0.1, ..WARM },
            Sampling { repetition_penalty: 1.7, ..WARM },
        ] {
            let occurred = if sampling.repetition_penalty == 1.0 { &[][..] } else { &[3, 5, 5, 39] };
            let expected = sampling.distribution(&logits, occurred);
            let mut counts = vec![0u32; logits.len()];
            for number in 0..DRAWS {
                // Over requests as well as over positions.
                let draw = Draw { request: u64::from(number % 100), position: u64::from(number / 100) };
                counts[sampling.choose(&logits, occurred, draw) as usize] += 1;
            }
            let drawn: u32 = expected.iter().map(|(token, _)| counts[*token as usize]).sum();
            assert_eq!(drawn, DRAWS, "a token was drawn that {sampling:?} excludes");
            let statistic: f64 = expected
                .iter()
                .map(|(token, probability)| {
                    let wanted = probability * f64::from(DRAWS);
                    (f64::from(counts[*token as usize]) - wanted).powi(2) / wanted
                })
                .sum();
            assert!(statistic < bound(expected.len() - 1), "{statistic} for {} tokens", expected.len());
        }
    }

    /// Upper 10⁻⁶ quantile of χ², by Wilson and Hilferty (1931).
    fn bound(freedom: usize) -> f64 {
        let k = 2.0 / (9.0 * freedom as f64);
        freedom as f64 * (1.0 - k + 4.753 * k.sqrt()).powi(3)
    }

    #[test]
    fn draws_depend_on_seed_request_and_position_alone() {
        let logits = [0.0f32; 64];
        let choose = |seed: u64, request: u64, position: u64| {
            Sampling { seed, ..WARM }.choose(&logits, &[], Draw { request, position })
        };
        let row = |seed: u64, request: u64| (0..32).map(|at| choose(seed, request, at)).collect::<Vec<_>>();
        assert_eq!(row(1, 2), row(1, 2));
        assert_ne!(row(1, 2), row(1, 3));
        assert_ne!(row(1, 2), row(2, 2));
        // Pinned, so that a seed gives the same text with any version.
        assert_eq!(row(0, 0)[..6], [21, 17, 17, 30, 38, 27]);
    }

    #[test]
    fn log_probabilities_are_those_of_the_model() {
        let found = LogProbs::of(&logits(), 3, 2);
        assert!((found.chosen - libm::log(0.2)).abs() < 1e-6, "{found:?}");
        let tokens: Vec<u32> = found.top.iter().map(|pair| pair.0).collect();
        assert_eq!(tokens, [2, 0]);
        assert!((found.top[1].1 - libm::log(0.3)).abs() < 1e-6, "{found:?}");
        assert_eq!(LogProbs::of(&logits(), 0, 0).top, []);
        assert_eq!(LogProbs::of(&logits(), 0, 9).top.len(), 4);
        // Far from 0, where an exponential has no number.
        assert_eq!(LogProbs::of(&[1e4, 1e4], 1, 0).chosen, -std::f64::consts::LN_2);
    }

    #[test]
    fn settings_that_mean_nothing_are_refused() {
        for (sampling, word) in [
            (Sampling { temperature: -1.0, ..WARM }, "temperature"),
            (Sampling { temperature: f64::NAN, ..WARM }, "temperature"),
            (Sampling { top_p: 0.0, ..WARM }, "top-p"),
            (Sampling { top_p: 1.1, ..WARM }, "top-p"),
            (Sampling { min_p: -0.1, ..WARM }, "min-p"),
            (Sampling { repetition_penalty: 0.0, ..WARM }, "repetition penalty"),
        ] {
            let error = sampling.check().unwrap_err();
            assert!(error.code() == "run::usage" && error.to_string().contains(word), "{error}");
        }
        assert!(WARM.check().is_ok() && Sampling::default().check().is_ok());
    }
}
