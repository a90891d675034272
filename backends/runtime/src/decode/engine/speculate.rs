//! Self-speculation: the model drafts tokens with fewer of its layers, and all of them look at the drafts in one step.
//!
//! A draft runs the same weights, but a router lets a token execute only where its score is above the threshold by a
//! margin. What drafts leave in caches is taken back before the model itself runs over the drafted tokens, which are
//! kept as long as they are those that the model chooses. A choice is a function of the logits and of the place of its
//! draw ([`Sampling::choose`](crate::decode::Sampling::choose)), for draft and model alike, so that a continuation is, token by
//! token, what it would have been without drafts: at temperature 0, and drawn.

use super::{Engine, Part, Running};
use crate::decode::decoder::{Chunk, Decoder, Rows};
use crate::error::Error;

/// How an engine drafts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speculation {
    /// Most tokens of a draft.
    pub tokens: u32,
    /// Share of the layers that the model executes which a draft is to execute.
    pub draft_density: f64,
}

impl Speculation {
    /// Refuses settings that mean nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] that names the first.
    pub fn check(&self) -> Result<(), Error> {
        let Speculation { tokens, draft_density } = self;
        if *tokens == 0 {
            return Err(Error::Usage("a draft has at least 1 token, not 0".into()));
        }
        if !(0.0..=1.0).contains(draft_density) {
            return Err(Error::Usage(format!("the density of a draft is from 0 to 1, not {draft_density}")));
        }
        Ok(())
    }
}

/// What became of drafts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drafts {
    /// Tokens that were drafted and looked at by the model.
    pub proposed: u64,
    /// Those of them that the model chose.
    pub accepted: u64,
    /// How often a router executed a token of a draft.
    pub executed_by_draft: u64,
    /// How often one executed the same token when the model looked at it.
    pub executed: u64,
}

/// The margin of drafts. It moves up while drafts execute more than they are to, and down while less: in larger paces
/// as long as it goes on in one direction, in smaller ones after each turn (Riedmiller & Braun 1993). So it needs to
/// know nothing of the sizes of scores.
#[derive(Debug)]
pub(super) struct Margin {
    target: f64,
    margin: f64,
    pace: f64,
    rises: bool,
}

impl Margin {
    /// Above any score that decides something.
    const MOST: f64 = 1e6;
    const PACES: [f64; 2] = [1e-3, 1e3];

    pub(super) fn new(target: f64) -> Margin {
        Margin { target, margin: 0.0, pace: 0.5, rises: true }
    }

    pub(super) fn get(&self) -> f32 {
        self.margin as f32
    }

    /// Takes how often routers executed drafted tokens, in the draft and in the model.
    pub(super) fn observe(&mut self, drafted: u64, executed: u64) {
        let wanted = self.target * executed as f64;
        if drafted as f64 == wanted {
            return;
        }
        let rises = drafted as f64 > wanted;
        let pace = self.pace * if rises == self.rises { 1.25 } else { 0.5 };
        self.pace = pace.clamp(Self::PACES[0], Self::PACES[1]);
        self.rises = rises;
        let moved = if rises { self.margin + self.pace } else { self.margin - self.pace };
        self.margin = moved.clamp(0.0, Self::MOST);
    }
}

impl<D: Decoder> Engine<D> {
    /// Makes room for the tokens that a plan drafts.
    pub(super) fn set_drafts_aside(&mut self, plan: &[Part]) {
        for Part { index, range, n_drafted } in plan {
            let Running { task, draft, .. } = &mut self.running[*index];
            draft.clear();
            if *n_drafted > 0 {
                draft.resize(1 + n_drafted, task.tokens[range.start]);
            }
        }
    }

    /// Fills the drafts of a plan, and takes back what they left in the decoder. Gives how often routers executed.
    pub(super) fn draft(&mut self, plan: &[Part]) -> Result<u64, Error> {
        let Some(margin) = self.speculation.as_ref().map(|(_, margin)| margin.get()) else { return Ok(0) };
        let longest = plan.iter().map(|part| self.running[part.index].draft.len()).max().unwrap_or(0);
        let mut places = 1..longest;
        let executed = places.try_fold(0, |sum, place| Ok(sum + self.draft_tokens(plan, place, margin)?));
        for Running { slot, committed, draft, .. } in &self.running {
            if !draft.is_empty() {
                self.decoder.truncate(*slot, *committed as u32)?;
            }
        }
        executed
    }

    /// Drafts the token of this place for each that has it.
    fn draft_tokens(&mut self, plan: &[Part], place: usize, margin: f32) -> Result<u64, Error> {
        let indices = plan.iter().map(|part| part.index);
        let drafting: Vec<usize> = indices.filter(|index| self.running[*index].draft.len() > place).collect();
        let chunk = |index: &usize| {
            let Running { slot, draft, .. } = &self.running[*index];
            Chunk { slot: *slot, tokens: &draft[place - 1..place], rows: Rows::Last }
        };
        let chunks: Vec<Chunk<'_>> = drafting.iter().map(chunk).collect();
        let outputs = self.decoder.draft(&chunks, margin)?;
        let rows = outputs.logits.chunks(self.limits.vocab_size.max(1) as usize);
        for (index, logits) in drafting.into_iter().zip(rows) {
            let Running { task, draft, .. } = &mut self.running[index];
            if logits.iter().all(|logit| logit.is_finite()) {
                let n_tokens = task.tokens.len();
                task.tokens.extend(&draft[1..place]);
                draft[place] = task.choose(logits, self.drawable);
                task.tokens.truncate(n_tokens);
            } else {
                // The model itself may have numbers where a draft of it has none.
                draft.truncate(place);
            }
        }
        Ok(outputs.gates.iter().flatten().map(|executes| u64::from(*executes)).sum())
    }

    /// Takes the model's decisions about the tokens that drafts decided about before, and moves the margin.
    pub(super) fn note_executed(&mut self, plan: &[Part], drafted: u64, gates: &[Vec<u8>]) {
        let Some((_, margin)) = &mut self.speculation else { return };
        let (mut at, mut executed) = (0, 0);
        for Part { index, range, .. } in plan {
            let n_drafted = self.running[*index].draft.len().saturating_sub(1);
            let decided = gates.iter().flat_map(|gate| &gate[at..at + n_drafted]);
            executed += decided.map(|executes| u64::from(*executes)).sum::<u64>();
            at += range.len() + n_drafted;
        }
        self.drafts.executed_by_draft += drafted;
        self.drafts.executed += executed;
        margin.observe(drafted, executed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scores spread over a range: the share that is above a margin comes close to the target, whatever the range.
    #[test]
    fn the_margin_finds_the_density() {
        for range in [0.1, 3.0, 500.0] {
            for target in [0.25, 0.5, 0.9] {
                let mut margin = Margin::new(target);
                let (mut sum, mut count) = (0.0, 0);
                for round in 0..600 {
                    let above = (1.0 - f64::from(margin.get()) / range).clamp(0.0, 1.0);
                    margin.observe((above * 1000.0) as u64, 1000);
                    if round >= 300 {
                        (sum, count) = (sum + above, count + 1);
                    }
                }
                let mean = sum / f64::from(count);
                assert!((mean - target).abs() < 0.1, "{mean} for {target} of scores up to {range}");
            }
        }
    }

    #[test]
    fn a_draft_of_all_layers_has_no_margin_and_one_of_none_the_largest() {
        let mut all = Margin::new(1.0);
        (0..100).for_each(|_| all.observe(7, 7));
        assert_eq!(all.get(), 0.0);
        let mut none = Margin::new(0.0);
        (0..5000).for_each(|_| none.observe(1, 7));
        assert_eq!(f64::from(none.get()), Margin::MOST);
    }

    #[test]
    fn settings_that_mean_nothing_are_refused() {
        assert!(Speculation { tokens: 0, draft_density: 0.5 }.check().is_err());
        assert!(Speculation { tokens: 1, draft_density: 1.5 }.check().is_err());
        assert!(Speculation { tokens: 1, draft_density: f64::NAN }.check().is_err());
        assert!(Speculation { tokens: 1, draft_density: 0.0 }.check().is_ok());
    }
}
