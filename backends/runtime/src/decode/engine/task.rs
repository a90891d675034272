//! A request with what has become of it.

use std::ops::Range;

use crate::choices::Choices;
use crate::decode::decoder::{Chunk, Limits, Rows, Slot};
use crate::decode::request::{Event, Finish, Listener, Request};
use crate::decode::sampling::{Draw, LogProbs};
use crate::decode::text::{StopFilter, TextStream};
use crate::decode::tokenizer::Tokenizer;
use crate::error::Error;

/// A request with what has become of it.
pub(super) struct Task {
    pub(super) request: Request,
    /// Prompt and continuation.
    pub(super) tokens: Vec<u32>,
    /// Tokens whose decisions were sent.
    told: usize,
    text: Option<TextStream>,
    stop: StopFilter,
    pub(super) listener: Box<dyn Listener + Send>,
}

/// One that has a slot.
pub(super) struct Running {
    pub(super) task: Task,
    pub(super) slot: Slot,
    /// Tokens that the decoder has committed.
    pub(super) committed: usize,
    /// Of one that drafts, for this step: the token that runs, and the draft of those that follow.
    pub(super) draft: Vec<u32>,
}

impl Running {
    /// All that is not committed.
    pub(super) fn rest(&self) -> Chunk<'_> {
        Chunk { slot: self.slot, tokens: &self.task.tokens[self.committed..], rows: Rows::Last }
    }
}

impl Task {
    pub(super) fn new(
        request: Request,
        text: Option<TextStream>,
        listener: Box<dyn Listener + Send>,
    ) -> Task {
        Task {
            tokens: request.prompt.clone(),
            told: 0,
            text,
            stop: StopFilter::new(&request.stop),
            listener,
            request,
        }
    }

    pub(super) fn is_wanted(&self) -> bool {
        !self.listener.is_gone()
    }

    /// Tells decisions about tokens, but for those that ran before.
    pub(super) fn tell_decisions(
        &mut self,
        range: &Range<usize>,
        (mut gates, mut choices): (Vec<Vec<u8>>, Vec<Choices>),
    ) {
        let known = self.told.saturating_sub(range.start).min(range.len());
        if known < range.len() {
            gates.iter_mut().for_each(|gate| drop(gate.drain(..known)));
            choices.iter_mut().for_each(|layer| *layer = layer.rows(known..layer.n_tokens()));
            self.told = range.end;
            self.listener.tell(Event::Ran { gates, choices });
        }
    }

    /// Adds a token by the logits of the last; whether it goes on.
    pub(super) fn advance(
        &mut self,
        logits: &[f32],
        drawable: usize,
        limits: &Limits,
        tokenizer: Option<&dyn Tokenizer>,
    ) -> bool {
        let position = self.tokens.len();
        if let Some(&value) = logits.iter().find(|logit| !logit.is_finite()) {
            let sequence = self.request.sequence as usize;
            self.listener.tell(Event::Failed(Error::NonFinite { sequence, position: position - 1, value }));
            return false;
        }
        let token = self.choose(logits, drawable);
        self.tokens.push(token);
        let text = self.text.as_mut().map(|text| text.push(token)).unwrap_or_default();
        let (text, stopped) = self.stop.push(&text);
        let candidates = logits.get(..drawable).unwrap_or(logits);
        let logprobs = self.request.logprobs.map(|n_top| LogProbs::of(candidates, token, n_top));
        self.listener.tell(Event::Token { token, text, logprobs });
        let ends = tokenizer.is_some_and(|tokenizer| tokenizer.ends().contains(&token));
        let reason = match (ends, stopped) {
            (true, _) => Some(Finish::End),
            (false, true) => Some(Finish::StopText),
            (false, false) => self.full(limits),
        };
        reason.inspect(|reason| self.finish(*reason)).is_none()
    }

    /// The next token, by the logits of the last.
    pub(super) fn choose(&self, logits: &[f32], drawable: usize) -> u32 {
        let draw = Draw { request: self.request.draw, position: self.tokens.len() as u64 };
        let logits = logits.get(..drawable).unwrap_or(logits);
        self.request.sampling.choose(logits, &self.tokens, draw)
    }

    /// How many tokens can be added.
    pub(super) fn room(&self, limits: &Limits) -> usize {
        let asked = self.request.max_new_tokens as usize + self.request.prompt.len();
        asked.min(limits.positions as usize).saturating_sub(self.tokens.len())
    }

    /// Why no token can be added, if none can.
    pub(super) fn full(&self, limits: &Limits) -> Option<Finish> {
        let new = self.tokens.len() - self.request.prompt.len();
        if new >= self.request.max_new_tokens as usize {
            return Some(Finish::MaxNewTokens);
        }
        (self.tokens.len() >= limits.positions as usize).then_some(Finish::Positions)
    }

    pub(super) fn finish(&mut self, reason: Finish) {
        let mut text = String::new();
        if reason != Finish::StopText {
            let rest = self.text.as_mut().map(TextStream::finish).unwrap_or_default();
            let (rest, stopped) = self.stop.push(&rest);
            text = if stopped { rest } else { rest + &self.stop.finish() };
        }
        self.listener.tell(Event::Finished { text, reason });
    }
}
