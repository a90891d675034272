//! Who runs next: slots for those that wait, and what of whom a step takes.

use std::ops::Range;

use super::Engine;
use super::task::{Running, Task};
use crate::decode::decoder::{Chunk, Decoder, Rows};
use crate::decode::request::Event;
use crate::error::Error;

impl<D: Decoder> Engine<D> {
    /// Frees the slots of requests that nobody waits for.
    pub(super) fn drop_gone(&mut self) -> Result<(), Error> {
        self.waiting.retain(Task::is_wanted);
        self.release(|running| running.task.is_wanted())
    }

    /// Frees the slots of those that `stays` does not hold for.
    pub(super) fn release(&mut self, stays: impl Fn(&Running) -> bool) -> Result<(), Error> {
        while let Some(index) = self.running.iter().position(|running| !stays(running)) {
            self.decoder.free(self.running[index].slot)?;
            self.free.push(self.running.remove(index).slot);
        }
        Ok(())
    }

    /// Gives slots to those that wait, while the decoder has memory for all their tokens beside the others' next. Returns
    /// how many of their tokens are known.
    pub(super) fn admit(&mut self) -> Result<u32, Error> {
        let mut all_known = 0;
        while let (Some(slot), Some(task)) = (self.free.last().copied(), self.waiting.front()) {
            let next = self.running.iter().map(Running::rest);
            let chunks: Vec<_> =
                next.chain([Chunk { slot, tokens: &task.tokens, rows: Rows::Last }]).collect();
            if !self.running.is_empty() && !self.decoder.fits(&chunks) {
                break;
            }
            let known = self.decoder.resume(slot, task.request.sequence, &task.tokens)?;
            all_known += known;
            self.free.pop();
            let (committed, draft) = (known as usize, Vec::new());
            self.running.extend(self.waiting.pop_front().map(|task| Running {
                task,
                slot,
                committed,
                draft,
            }));
        }
        Ok(all_known)
    }

    /// Takes the slot from the youngest request, which begins again when there is memory; one alone fails.
    pub(super) fn put_back(&mut self) -> Result<(), Error> {
        let Some(Running { mut task, slot, .. }) = self.running.pop() else { return Ok(()) };
        self.decoder.free(slot)?;
        self.free.push(slot);
        if self.running.is_empty() {
            let (sequence, tokens) = (task.request.sequence, task.tokens.len());
            task.listener.tell(Event::Failed(Error::CacheFull { sequence, tokens }));
        } else {
            self.waiting.push_front(task);
        }
        Ok(())
    }

    /// What of whom runs next: one token of each that is being continued, then of prompts what the step still takes, then
    /// drafts.
    pub(super) fn plan(&self) -> Vec<Part> {
        let mut left = self.limits.step_tokens as usize;
        let mut plan = Vec::new();
        let (continued, begun): (Vec<_>, Vec<_>) =
            (0..self.running.len()).partition(|index| self.running[*index].rest().tokens.len() == 1);
        let n_continued = continued.len();
        for index in continued.into_iter().chain(begun) {
            let Running { committed, task, .. } = &self.running[index];
            let prompt = task.request.prompt.len();
            let count = match self.decoder.takes_whole_prompts() && *committed < prompt {
                // All of it, or none yet; what was generated before it lost its pages comes after it.
                true if prompt > left => 0,
                true => prompt,
                false => left.min(task.tokens.len() - committed),
            };
            if count > 0 {
                plan.push(Part { index, range: *committed..committed + count, n_drafted: 0 });
                left -= count;
            }
        }
        let most = self.speculation.as_ref().map_or(0, |(speculation, _)| speculation.tokens as usize);
        for part in plan.iter_mut().take(n_continued) {
            // The last token that may follow is not worth a draft: the step itself chooses it.
            let follow = self.running[part.index].task.room(&self.limits).saturating_sub(1);
            part.n_drafted = most.min(left).min(follow);
            left -= part.n_drafted;
        }
        plan
    }
}

/// Tokens of one that runs, by its index.
pub(super) struct Part {
    pub(super) index: usize,
    pub(super) range: Range<usize>,
    /// How many more tokens it may draft.
    pub(super) n_drafted: usize,
}

pub(super) fn chunks<'a>(running: &'a [Running], plan: &[Part]) -> Vec<Chunk<'a>> {
    let chunk = |part: &Part| {
        let Running { task, slot, draft, .. } = &running[part.index];
        if !draft.is_empty() {
            return Chunk { slot: *slot, tokens: draft, rows: Rows::All };
        }
        let rows = if part.range.end == task.tokens.len() { Rows::Last } else { Rows::None };
        Chunk { slot: *slot, tokens: &task.tokens[part.range.clone()], rows }
    };
    plan.iter().map(chunk).collect()
}
