//! Beam search: the likeliest continuations as a whole.

use std::cmp::Ordering;

use super::decoder::{Chunk, Decoder, Rows, Slot, StepOutputs};
use super::request::Finish;
use crate::error::Error;

/// What is searched.
#[derive(Clone, Debug, PartialEq)]
pub struct Search<'a> {
    /// Tokens to continue, at least one.
    pub prompt: &'a [u32],
    /// Number of the sequence, for routers that decide by it.
    pub sequence: u32,
    /// How many hypotheses there are at a time, and in the result.
    pub beams: u32,
    /// Most tokens to add, at least one.
    pub max_new_tokens: u32,
    /// A hypothesis scores its log probability divided by its number of new tokens to the power of this: above 0, longer
    /// ones gain.
    pub length_penalty: f64,
    /// Tokens that end a sequence.
    pub ends: &'a [u32],
    /// Only tokens below this are taken.
    pub drawable: u32,
}

/// A continuation.
#[derive(Clone, Debug, PartialEq)]
pub struct Hypothesis {
    /// Its new tokens, with that which ends it.
    pub tokens: Vec<u32>,
    /// Sum of the logarithms of their probabilities.
    pub log_probability: f64,
    /// What it is ranked by, higher is better.
    pub score: f64,
    /// Why it ended.
    pub finish: Finish,
}

/// What became of a search.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Best first; of equal ones, that which was complete first.
    pub hypotheses: Vec<Hypothesis>,
    /// Tokens that the decoder ran.
    pub tokens: u64,
    /// How many of them each router executed, in model order.
    pub executed: Vec<u64>,
}

/// A hypothesis that goes on, in a slot.
struct Live {
    slot: Slot,
    tokens: Vec<u32>,
    sum: f64,
}

impl Live {
    fn last(&self) -> Chunk<'_> {
        let before = self.tokens.len().saturating_sub(1);
        Chunk { slot: self.slot, tokens: &self.tokens[before..], rows: Rows::Last }
    }
}

/// A live hypothesis with one more token.
struct Candidate {
    sum: f64,
    token: u32,
    parent: usize,
}

/// Searches on a decoder that has as many free slots, from the first on, as there are beams.
///
/// Each step takes the likeliest continuations of all hypotheses by one token, twice as many as there are beams (more if
/// several tokens end a sequence, so that enough go on). Those that end leave for a pool of the best; the search ends when
/// the worst in the full pool is at least as good as the best that any live one can still become. Ties go to the lower
/// token, then to the hypothesis that was better before.
///
/// # Errors
///
/// [`Error::Usage`] if the decoder has fewer slots or memory, [`Error::EmptyPrompt`], [`Error::SequenceTooLong`],
/// [`Error::NonFinite`], or what the decoder says.
pub fn search(decoder: &mut dyn Decoder, search: &Search<'_>) -> Result<Found, Error> {
    let limits = decoder.limits();
    if search.prompt.is_empty() {
        return Err(Error::EmptyPrompt);
    }
    if search.prompt.len() > limits.positions as usize {
        let (sequence, found) = (search.sequence as usize, search.prompt.len() as u64);
        return Err(Error::SequenceTooLong { sequence, found, limit: limits.positions });
    }
    if !(1..=limits.slots).contains(&search.beams) || !search.length_penalty.is_finite() {
        let reason = format!("there are 1 to {} beams, and their length penalty is a number", limits.slots);
        return Err(Error::Usage(reason));
    }
    let room = limits.positions as usize - search.prompt.len();
    let longest = room.min(search.max_new_tokens as usize);
    if longest == 0 {
        return Ok(Found::default());
    }
    let mut beam =
        Beam { decoder, search, longest, live: Vec::new(), pool: Vec::new(), found: Found::default() };
    let ran = beam.run();
    for live in std::mem::take(&mut beam.live) {
        beam.decoder.free(live.slot)?;
    }
    ran?;
    beam.found.hypotheses = beam.pool;
    Ok(beam.found)
}

struct Beam<'a> {
    decoder: &'a mut dyn Decoder,
    search: &'a Search<'a>,
    /// Most new tokens.
    longest: usize,
    /// Best first; all of one length.
    live: Vec<Live>,
    /// Complete ones, best first.
    pool: Vec<Hypothesis>,
    found: Found,
}

impl Beam<'_> {
    fn run(&mut self) -> Result<(), Error> {
        self.decoder.start(Slot(0), self.search.sequence)?;
        self.live.push(Live { slot: Slot(0), tokens: Vec::new(), sum: 0.0 });
        let mut logits = self.prefill()?;
        for length in 1..=self.longest {
            let candidates = self.candidates(&logits, length)?;
            let going_on = self.sort_out(candidates, length);
            if self.is_settled(&going_on, length) {
                break;
            }
            self.move_on(&going_on)?;
            logits = self.step()?;
        }
        Ok(())
    }

    /// The prompt, cut as the decoder takes it.
    fn prefill(&mut self) -> Result<Vec<f32>, Error> {
        let limit = self.decoder.limits().step_tokens.max(1) as usize;
        let mut logits = Vec::new();
        let prompt = self.search.prompt;
        if self.decoder.takes_whole_prompts() && prompt.len() > limit {
            return Err(Error::TooManyTokens { found: prompt.len() as u64, limit: limit as u32 });
        }
        for (idx, tokens) in prompt.chunks(limit).enumerate() {
            let rows = if (idx + 1) * limit < prompt.len() { Rows::None } else { Rows::Last };
            logits = run(self.decoder, &mut self.found, &[Chunk { slot: Slot(0), tokens, rows }])?;
        }
        Ok(logits)
    }

    /// The last token of each live hypothesis.
    fn step(&mut self) -> Result<Vec<f32>, Error> {
        let limit = self.decoder.limits().step_tokens.max(1) as usize;
        let mut logits = Vec::new();
        for part in self.live.chunks(limit) {
            let chunks: Vec<Chunk<'_>> = part.iter().map(Live::last).collect();
            logits.extend(run(self.decoder, &mut self.found, &chunks)?);
        }
        Ok(logits)
    }

    /// The likeliest continuations by one token, best first.
    fn candidates(&self, logits: &[f32], length: usize) -> Result<Vec<Candidate>, Error> {
        let vocab_size = self.decoder.limits().vocab_size as usize;
        let mut all = Vec::new();
        for (parent, (live, row)) in self.live.iter().zip(logits.chunks(vocab_size.max(1))).enumerate() {
            if let Some(&value) = row.iter().find(|logit| !logit.is_finite()) {
                let position = self.search.prompt.len() + length - 2;
                return Err(Error::NonFinite { sequence: self.search.sequence as usize, position, value });
            }
            let row = &row[..row.len().min(self.search.drawable as usize)];
            let scored = (0..).zip(log_softmax(row)).map(|(token, log_probability)| Candidate {
                sum: live.sum + f64::from(log_probability),
                token,
                parent,
            });
            all.extend(scored);
        }
        let wanted = self.search.beams as usize * (1 + self.search.ends.len().max(1));
        if wanted < all.len() {
            all.select_nth_unstable_by(wanted, better);
            all.truncate(wanted);
        }
        all.sort_unstable_by(better);
        Ok(all)
    }

    /// Puts those that are complete into the pool; gives the best of the others.
    fn sort_out(&mut self, candidates: Vec<Candidate>, length: usize) -> Vec<Candidate> {
        let mut going_on = Vec::new();
        for candidate in candidates {
            let ends = self.search.ends.contains(&candidate.token);
            if !ends && going_on.len() == self.search.beams as usize {
                continue;
            }
            match (ends, length == self.longest) {
                (true, _) => self.keep(&candidate, Finish::End),
                (false, true) if length == self.search.max_new_tokens as usize => {
                    self.keep(&candidate, Finish::MaxNewTokens);
                }
                (false, true) => self.keep(&candidate, Finish::Positions),
                (false, false) => going_on.push(candidate),
            }
        }
        going_on
    }

    fn keep(&mut self, Candidate { sum, token, parent }: &Candidate, finish: Finish) {
        let mut tokens = self.live[*parent].tokens.clone();
        tokens.push(*token);
        let score = self.score(*sum, tokens.len());
        let at = self.pool.partition_point(|kept| kept.score >= score);
        self.pool.insert(at, Hypothesis { tokens, log_probability: *sum, score, finish });
        self.pool.truncate(self.search.beams as usize);
    }

    fn score(&self, sum: f64, length: usize) -> f64 {
        sum / libm::pow(length as f64, self.search.length_penalty)
    }

    /// Whether no live hypothesis can enter the pool any more.
    fn is_settled(&self, going_on: &[Candidate], length: usize) -> bool {
        let Some(best) = going_on.first() else { return true };
        if self.pool.len() < self.search.beams as usize {
            return false;
        }
        // Further tokens cost probability, but the divisor may grow: the bound is that of the next or the last length.
        let reachable = self.score(best.sum, length + 1).max(self.score(best.sum, self.longest));
        self.pool.last().is_some_and(|worst| worst.score >= reachable)
    }

    /// Lets the candidates be the live hypotheses: the first child of one takes its slot, further ones share what it has
    /// in slots of those without children.
    fn move_on(&mut self, going_on: &[Candidate]) -> Result<(), Error> {
        let mut is_parent = vec![false; self.live.len()];
        going_on.iter().for_each(|candidate| is_parent[candidate.parent] = true);
        let mut used = vec![false; self.search.beams as usize];
        let parents = std::mem::take(&mut self.live);
        for (live, is_parent) in parents.iter().zip(is_parent) {
            if is_parent {
                used[live.slot.0 as usize] = true;
            } else {
                self.decoder.free(live.slot)?;
            }
        }
        let mut has_child = vec![false; parents.len()];
        for Candidate { sum, token, parent } in going_on {
            let from = &parents[*parent];
            let mut slot = from.slot;
            if std::mem::replace(&mut has_child[*parent], true) {
                let free = used.iter().position(|used| !used).unwrap_or_default();
                used[free] = true;
                slot = Slot(free as u32);
                self.decoder.fork(from.slot, slot)?;
            }
            self.live.push(Live { slot, tokens: [&from.tokens[..], &[*token]].concat(), sum: *sum });
        }
        Ok(())
    }
}

fn run(decoder: &mut dyn Decoder, found: &mut Found, chunks: &[Chunk<'_>]) -> Result<Vec<f32>, Error> {
    if !decoder.fits(chunks) {
        let reason = "the memory for what is kept of tokens does not suffice for so many beams".to_owned();
        return Err(Error::Usage(reason));
    }
    let StepOutputs { logits, gates, .. } = decoder.step(chunks)?;
    found.tokens += chunks.iter().map(|chunk| chunk.tokens.len() as u64).sum::<u64>();
    found.executed.resize(gates.len(), 0);
    for (executed, gate) in found.executed.iter_mut().zip(gates) {
        *executed += gate.iter().map(|executes| u64::from(*executes)).sum::<u64>();
    }
    Ok(logits)
}

fn better(a: &Candidate, b: &Candidate) -> Ordering {
    b.sum.total_cmp(&a.sum).then(a.token.cmp(&b.token)).then(a.parent.cmp(&b.parent))
}

/// Logarithms of the probabilities of a row of finite logits.
pub fn log_softmax(logits: &[f32]) -> impl Iterator<Item = f32> + '_ {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(libm::expf(logit - highest))).sum();
    let log_sum = libm::log(sum) as f32;
    logits.iter().map(move |logit| logit - highest - log_sum)
}

#[cfg(test)]
mod tests {
    use super::super::toy::Toy;
    use super::*;

    fn of(toy: &Toy, prompt: &'static [u32], beams: u32, max_new_tokens: u32) -> Search<'static> {
        let drawable = toy.limits.vocab_size;
        Search { prompt, sequence: 0, beams, max_new_tokens, length_penalty: 1.0, ends: &[], drawable }
    }

    /// Every continuation with its score, best first.
    fn exhaustive(toy: &Toy, search: &Search<'_>) -> Vec<(Vec<u32>, f64)> {
        let mut complete = Vec::new();
        let mut open = vec![(Vec::new(), 0.0)];
        while let Some((tokens, sum)) = open.pop() {
            let prefix = [search.prompt, &tokens[..]].concat();
            for (token, log) in
                (0..search.drawable).zip(log_softmax(&toy.logits(&prefix)[..search.drawable as usize]))
            {
                let tokens = [&tokens[..], &[token]].concat();
                let sum = sum + f64::from(log);
                if search.ends.contains(&token) || tokens.len() == search.max_new_tokens as usize {
                    let score = sum / (tokens.len() as f64).powf(search.length_penalty);
                    complete.push((tokens, score));
                } else {
                    open.push((tokens, sum));
                }
            }
        }
        complete.sort_by(|a, b| b.1.total_cmp(&a.1));
        complete
    }

    #[track_caller]
    fn check(toy: &mut Toy, search: &Search<'_>) {
        let found = super::search(toy, search).unwrap();
        let all = exhaustive(toy, search);
        assert_eq!(found.hypotheses.len(), (search.beams as usize).min(all.len()));
        for (found, (tokens, score)) in found.hypotheses.iter().zip(&all) {
            assert_eq!(&found.tokens, tokens);
            assert!((found.score - score).abs() < 1e-9);
        }
        assert!(toy.slots.is_empty(), "slots are given back");
    }

    /// With as many beams as there are prefixes of the last length, nothing is lost.
    #[test]
    fn enough_beams_find_what_all_continuations_have() {
        for length_penalty in [1.0, 0.0, -1.0, 2.0] {
            for ends in [&[][..], &[2], &[0, 5]] {
                let mut toy = Toy::new(36, 64);
                let two = Search { length_penalty, ends, ..of(&toy, &[1, 2, 3], 6, 2) };
                check(&mut toy, &two);
                let three = Search { length_penalty, ends, ..of(&toy, &[4], 36, 3) };
                check(&mut toy, &three);
            }
        }
    }

    #[test]
    fn steps_are_cut_as_the_decoder_takes_them() {
        let mut toy = Toy::new(36, 5);
        let search = of(&toy, &[1, 2, 3, 4, 5, 0, 1], 36, 3);
        check(&mut toy, &search);
        assert_eq!(toy.steps[..3], [5, 2, 5]);
    }

    #[test]
    fn one_beam_is_greedy() {
        let mut toy = Toy::new(1, 64);
        let search = of(&toy, &[3, 1], 1, 20);
        let found = super::search(&mut toy, &search).unwrap();
        let mut tokens = search.prompt.to_vec();
        for _ in 0..20 {
            let logits = toy.logits(&tokens);
            let best = (0..6).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
            tokens.push(best as u32);
        }
        assert_eq!(found.hypotheses[0].tokens, tokens[2..]);
        assert_eq!(found.tokens, 2 + 19);
        let gates = tokens[..21].iter().enumerate().map(|(at, token)| u64::from(Toy::gate(0, at, *token)));
        assert_eq!(found.executed, [gates.sum::<u64>()]);
    }

    #[test]
    fn more_beams_are_no_worse_here_and_fewer_miss_something() {
        let mut toy = Toy::new(36, 64);
        let mut best = |beams: u32| {
            let search = of(&toy, &[4], beams, 3);
            super::search(&mut toy, &search).unwrap().hypotheses[0].score
        };
        let scores = [best(1), best(2), best(36)];
        assert!(scores[0] <= scores[1] && scores[1] <= scores[2] && scores[0] < scores[2], "{scores:?}");
    }

    #[test]
    fn ties_go_to_the_lower_token_then_to_the_older_hypothesis() {
        let mut toy = Toy { values: 1, ..Toy::new(3, 64) };
        let search = of(&toy, &[0], 3, 2);
        let found = super::search(&mut toy, &search).unwrap();
        let tokens: Vec<_> = found.hypotheses.iter().map(|found| found.tokens.clone()).collect();
        assert_eq!(tokens, [[0, 0], [1, 0], [2, 0]]);
    }

    #[test]
    fn it_stops_as_soon_as_nothing_better_can_come() {
        // Without a gain by length, a sum only falls.
        let mut toy = Toy::new(2, 64);
        let search = Search { length_penalty: 0.0, ends: &[0, 1, 2], ..of(&toy, &[1], 2, 60) };
        let found = super::search(&mut toy, &search).unwrap();
        assert!(toy.steps.len() < 30, "{} steps", toy.steps.len());
        let short = Search { max_new_tokens: toy.steps.len() as u32 + 1, ..search.clone() };
        let all = super::search(&mut Toy::new(2, 64), &short).unwrap();
        assert_eq!(found.hypotheses, all.hypotheses);
        assert!(found.hypotheses.iter().all(|found| found.finish == Finish::End));
    }

    #[test]
    fn limits_are_kept() {
        let mut toy = Toy::new(2, 64);
        let ended = |toy: &mut Toy, search: &Search<'_>| {
            let found = super::search(toy, search).unwrap();
            found.hypotheses.iter().map(|found| (found.tokens.len(), found.finish)).collect::<Vec<_>>()
        };
        let long = of(&toy, &[1; 60], 2, 9);
        assert_eq!(ended(&mut toy, &long), [(4, Finish::Positions); 2]);
        let full = of(&toy, &[1; 64], 2, 9);
        assert_eq!(ended(&mut toy, &full), []);
        let drawable = Search { drawable: 2, ..of(&toy, &[1], 2, 9) };
        let found = super::search(&mut toy, &drawable).unwrap();
        assert!(found.hypotheses.iter().all(|found| found.tokens.iter().all(|token| *token < 2)));
        for (search, code) in [
            (of(&toy, &[], 2, 9), "run::empty-prompt"),
            (of(&toy, &[1; 65], 2, 9), "run::sequence-too-long"),
            (of(&toy, &[1], 3, 9), "run::usage"),
            (of(&toy, &[1], 0, 9), "run::usage"),
        ] {
            assert_eq!(super::search(&mut toy, &search).unwrap_err().code(), code);
        }
        let mut small = Toy { memory: 4, ..Toy::new(2, 64) };
        assert_eq!(super::search(&mut small, &of(&toy, &[1], 2, 9)).unwrap_err().code(), "run::usage");
        let mut broken = Toy { broken_by: Some(3), ..Toy::new(2, 64) };
        let error = super::search(&mut broken, &of(&toy, &[3], 2, 9)).unwrap_err();
        assert_eq!(error.to_string(), "the logits of token 0 of sequence 0 are not finite: one is NaN");
        assert!(small.slots.is_empty() && broken.slots.is_empty());
    }
}
