//! Many requests on the slots of one decoder.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::decoder::{Chunk, Decoder, Limits, NO_DRAFTS, Rows, Slot, StepOutputs};
use super::request::{Event, Finish, Handle, Listener, Request};
use super::sampling::{Draw, LogProbs};
use super::speculate::{Drafts, Margin, Speculation};
use super::text::{StopFilter, TextStream};
use super::tokenizer::Tokenizer;
use crate::choices::Choices;
use crate::error::Error;

/// How an engine works.
#[derive(Clone, Default)]
pub struct EngineOptions {
    /// Most tokens of a step: fewer let sequences that are being continued wait less for new prompts. As many as the
    /// decoder takes by default, and never more.
    pub step_tokens: Option<u32>,
    /// For texts of events, stop strings, tokens that end a sequence, and which tokens may be drawn: without one, all.
    pub tokenizer: Option<Arc<dyn Tokenizer>>,
    /// Draft tokens, and how; not by default.
    pub speculation: Option<Speculation>,
}

/// Continues requests by continuous batching: each step takes the next token of every sequence that is being continued,
/// and fills up with prompts, in the order of submission. Prompts longer than a step takes are cut.
///
/// Where the decoder's memory does not suffice for all, the youngest request waits and is run again later.
/// A request's tokens do not depend on the others but for rounding.
///
/// ```
/// use skipc_runtime::Error;
/// use skipc_runtime::decode::{Chunk, Decoder, Engine, EngineOptions, Event, Limits, Request, Rows, Slot, StepOutputs};
///
/// /// Counts: after each of its ten tokens comes the next.
/// struct Counter;
///
/// impl Decoder for Counter {
///     fn limits(&self) -> Limits {
///         Limits { slots: 2, positions: 64, vocab_size: 10, step_tokens: 8 }
///     }
///
///     fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<StepOutputs, Error> {
///         let last = chunks.iter().filter(|chunk| chunk.rows == Rows::Last).map(|chunk| chunk.tokens.last());
///         let row = |token: u32| (0..10).map(move |id| if id == (token + 1) % 10 { 1.0 } else { 0.0 });
///         let logits = last.flatten().flat_map(|token| row(*token)).collect();
///         Ok(StepOutputs { logits, ..StepOutputs::default() })
///     }
///
///     // It keeps nothing.
///     fn start(&mut self, _: Slot, _: u32) -> Result<(), Error> { Ok(()) }
///     fn fits(&self, _: &[Chunk<'_>]) -> bool { true }
///     fn fork(&mut self, _: Slot, _: Slot) -> Result<(), Error> { Ok(()) }
///     fn truncate(&mut self, _: Slot, _: u32) -> Result<(), Error> { Ok(()) }
///     fn free(&mut self, _: Slot) -> Result<(), Error> { Ok(()) }
/// }
///
/// let mut engine = Engine::new(Counter, EngineOptions::default())?;
/// let handles = [3, 7, 5].map(|first| engine.submit(Request::greedy(vec![first], 4)).unwrap());
/// while !engine.is_idle() {
///     engine.step()?;
/// }
/// let tokens = |handle: &skipc_runtime::decode::Handle| {
///     let events = std::iter::from_fn(|| handle.try_next());
///     events.filter_map(|event| if let Event::Token { token, .. } = event { Some(token) } else { None }).collect()
/// };
/// let continuations: Vec<Vec<u32>> = handles.iter().map(tokens).collect();
/// assert_eq!(continuations, [[4, 5, 6, 7], [8, 9, 0, 1], [6, 7, 8, 9]]);
/// # Ok::<(), Error>(())
/// ```
pub struct Engine<D> {
    pub(super) decoder: D,
    pub(super) limits: Limits,
    tokenizer: Option<Arc<dyn Tokenizer>>,
    /// Tokens from here on are never drawn.
    pub(super) drawable: usize,
    free: Vec<Slot>,
    /// By age.
    waiting: VecDeque<Task>,
    /// By age.
    pub(super) running: Vec<Running>,
    pub(super) speculation: Option<(Speculation, Margin)>,
    pub(super) drafts: Drafts,
}

/// How many tokens a step ran, those included that ran before in a slot that was taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Of prompts.
    pub prompt_tokens: u32,
    /// Of continuations.
    pub new_tokens: u32,
    /// Tokens that did not have to run, because they are known from other sequences.
    pub known_tokens: u32,
}

/// A request with what has become of it.
pub(super) struct Task {
    request: Request,
    /// Prompt and continuation.
    pub(super) tokens: Vec<u32>,
    /// Tokens whose decisions were sent.
    told: usize,
    text: Option<TextStream>,
    stop: StopFilter,
    listener: Box<dyn Listener + Send>,
}

pub(super) struct Running {
    pub(super) task: Task,
    pub(super) slot: Slot,
    /// Tokens that the decoder has committed.
    pub(super) committed: usize,
    /// Of one that drafts, for this step: the token that runs, and the draft of those that follow.
    pub(super) draft: Vec<u32>,
}

impl<D: Decoder> Engine<D> {
    /// An engine without requests.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for a decoder without slots, a step of no tokens, a tokenizer without tokens, or a decoder that
    /// is to draft and cannot.
    pub fn new(decoder: D, options: EngineOptions) -> Result<Self, Error> {
        let mut limits = decoder.limits();
        limits.step_tokens = options.step_tokens.unwrap_or(u32::MAX).min(limits.step_tokens);
        let known = options.tokenizer.as_ref().map_or(u32::MAX, |tokenizer| tokenizer.vocab_size());
        for (what, count) in
            [("slots", limits.slots), ("tokens a step", limits.step_tokens), ("tokens", known)]
        {
            if count == 0 {
                return Err(Error::Usage(format!("generation needs at least 1, not 0 {what}")));
            }
        }
        if let Some(speculation) = &options.speculation {
            speculation.check()?;
            if !decoder.can_draft() {
                return Err(Error::Usage(NO_DRAFTS.into()));
            }
        }
        let margin = |speculation: Speculation| (speculation, Margin::new(speculation.draft_density));
        Ok(Self {
            decoder,
            limits,
            tokenizer: options.tokenizer,
            drawable: known.min(limits.vocab_size) as usize,
            free: (0..limits.slots).rev().map(Slot).collect(),
            waiting: VecDeque::new(),
            running: Vec::new(),
            speculation: options.speculation.map(margin),
            drafts: Drafts::default(),
        })
    }

    /// What it runs on.
    pub fn decoder(&self) -> &D {
        &self.decoder
    }

    /// What became of drafts so far.
    pub fn drafts(&self) -> Drafts {
        self.drafts
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// How many requests wait for a slot.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many requests have a slot.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Takes a request; its events come with the steps.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyPrompt`], [`Error::SequenceTooLong`], [`Error::TokenRange`], or [`Error::Usage`] for settings that
    /// mean nothing.
    pub fn submit(&mut self, request: Request) -> Result<Handle, Error> {
        let (handle, listener) = Handle::new();
        self.submit_to(request, Box::new(listener))?;
        Ok(handle)
    }

    /// Takes a request whose events `listener` hears, as [`Engine::submit`] does.
    ///
    /// # Errors
    ///
    /// As [`Engine::submit`].
    pub fn submit_to(&mut self, request: Request, listener: Box<dyn Listener + Send>) -> Result<(), Error> {
        self.check(&request)?;
        let text = self.tokenizer.clone().map(|tokenizer| TextStream::new(tokenizer, &request.prompt));
        let mut task = Task {
            tokens: request.prompt.clone(),
            told: 0,
            text,
            stop: StopFilter::new(&request.stop),
            listener,
            request,
        };
        match task.full(&self.limits) {
            Some(reason) => task.finish(reason),
            None => self.waiting.push_back(task),
        }
        Ok(())
    }

    fn check(&self, Request { prompt, sampling, stop, sequence, .. }: &Request) -> Result<(), Error> {
        sampling.check()?;
        if prompt.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if prompt.len() > self.limits.positions as usize {
            let (found, limit) = (prompt.len() as u64, self.limits.positions);
            return Err(Error::SequenceTooLong { sequence: *sequence as usize, found, limit });
        }
        if self.decoder.takes_whole_prompts() && prompt.len() > self.limits.step_tokens as usize {
            return Err(Error::TooManyTokens { found: prompt.len() as u64, limit: self.limits.step_tokens });
        }
        let vocab_size = self.limits.vocab_size;
        if let Some((at, &found)) = prompt.iter().enumerate().find(|&(_, &token)| token >= vocab_size) {
            return Err(Error::TokenRange { found, at, vocab_size });
        }
        if !stop.is_empty() && self.tokenizer.is_none() {
            return Err(Error::Usage("a text to stop at needs a model with a tokenizer".into()));
        }
        Ok(())
    }

    /// Runs one step of the decoder, if there is something to do.
    ///
    /// # Errors
    ///
    /// What the decoder says; the engine is as it was before. What concerns one request alone is an event of it.
    pub fn step(&mut self) -> Result<Progress, Error> {
        self.drop_gone()?;
        let known_tokens = self.admit()?;
        let plan = loop {
            let plan = self.plan();
            self.set_drafts_aside(&plan);
            if self.decoder.fits(&chunks(&self.running, &plan)) {
                break plan;
            }
            // Drafts give way first.
            self.running.iter_mut().for_each(|running| running.draft.clear());
            if self.decoder.fits(&chunks(&self.running, &plan)) {
                break plan;
            }
            self.put_back()?;
        };
        if plan.is_empty() {
            return Ok(Progress { known_tokens, ..Progress::default() });
        }
        let drafted = self.draft(&plan)?;
        let outputs = self.decoder.step(&chunks(&self.running, &plan))?;
        self.note_executed(&plan, drafted, &outputs.gates);
        Ok(Progress { known_tokens, ..self.take(&plan, &outputs)? })
    }

    /// Frees the slots of requests that nobody waits for.
    fn drop_gone(&mut self) -> Result<(), Error> {
        self.waiting.retain(Task::is_wanted);
        self.release(|running| running.task.is_wanted())
    }

    /// Frees the slots of those that `stays` does not hold for.
    fn release(&mut self, stays: impl Fn(&Running) -> bool) -> Result<(), Error> {
        while let Some(index) = self.running.iter().position(|running| !stays(running)) {
            self.decoder.free(self.running[index].slot)?;
            self.free.push(self.running.remove(index).slot);
        }
        Ok(())
    }

    /// Gives slots to those that wait, while the decoder has memory for all their tokens beside the others' next. Returns
    /// how many of their tokens are known.
    fn admit(&mut self) -> Result<u32, Error> {
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
    fn put_back(&mut self) -> Result<(), Error> {
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
    fn plan(&self) -> Vec<Part> {
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

    /// Gives the results of a step to those that it ran for.
    fn take(&mut self, plan: &[Part], outputs: &StepOutputs) -> Result<Progress, Error> {
        let (limits, drawable, tokenizer) = (self.limits, self.drawable, self.tokenizer.clone());
        let mut rows = outputs.logits.chunks(limits.vocab_size.max(1) as usize);
        let (mut progress, mut at) = (Progress::default(), 0);
        let mut ended = Vec::new();
        for Part { index, range, .. } in plan {
            let Running { task, slot, committed, draft } = &mut self.running[*index];
            let decisions_of = |count: usize, at: usize| {
                let gates = outputs.gates.iter().map(|gate| gate[at..at + count].to_vec()).collect();
                let choices = outputs.choices.iter().map(|layer| layer.rows(at..at + count)).collect();
                (gates, choices)
            };
            let given = task.request.prompt.len();
            task.tell_decisions(range, decisions_of(range.len(), at));
            *committed = range.end;
            at += range.len();
            let mut goes_on = true;
            if range.end == task.tokens.len() {
                let logits = rows.next().unwrap_or_default();
                goes_on = task.advance(logits, drawable, &limits, tokenizer.as_deref());
            }
            // A draft goes on for as long as the model says the same.
            let drafted = draft.get(1..).unwrap_or_default();
            let (first, mut agrees) = (*committed, goes_on);
            for (place, (token, logits)) in drafted.iter().zip(rows.by_ref().take(drafted.len())).enumerate()
            {
                agrees = agrees && goes_on && task.tokens.last() == Some(token);
                if agrees {
                    task.tell_decisions(&(*committed..*committed + 1), decisions_of(1, at + place));
                    *committed += 1;
                    goes_on = task.advance(logits, drawable, &limits, tokenizer.as_deref());
                }
            }
            at += drafted.len();
            self.drafts.proposed += drafted.len() as u64;
            self.drafts.accepted += (*committed - first) as u64;
            progress.prompt_tokens += (range.end.min(given) - range.start.min(given)) as u32;
            progress.new_tokens += (*committed - range.start.clamp(given.min(*committed), *committed)) as u32;
            if !goes_on {
                ended.push(*slot);
            } else if *committed < first + drafted.len() {
                self.decoder.truncate(*slot, *committed as u32)?;
            }
        }
        self.release(|running| !ended.contains(&running.slot))?;
        Ok(progress)
    }
}

/// Tokens of one that runs, by its index.
pub(super) struct Part {
    pub(super) index: usize,
    pub(super) range: Range<usize>,
    /// How many more tokens it may draft.
    pub(super) n_drafted: usize,
}

fn chunks<'a>(running: &'a [Running], plan: &[Part]) -> Vec<Chunk<'a>> {
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

impl Running {
    /// All that is not committed.
    fn rest(&self) -> Chunk<'_> {
        Chunk { slot: self.slot, tokens: &self.task.tokens[self.committed..], rows: Rows::Last }
    }
}

impl Task {
    fn is_wanted(&self) -> bool {
        !self.listener.is_gone()
    }

    /// Tells decisions about tokens, but for those that ran before.
    fn tell_decisions(
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
    fn advance(
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
    fn room(&self, limits: &Limits) -> usize {
        let asked = self.request.max_new_tokens as usize + self.request.prompt.len();
        asked.min(limits.positions as usize).saturating_sub(self.tokens.len())
    }

    /// Why no token can be added, if none can.
    fn full(&self, limits: &Limits) -> Option<Finish> {
        let new = self.tokens.len() - self.request.prompt.len();
        if new >= self.request.max_new_tokens as usize {
            return Some(Finish::MaxNewTokens);
        }
        (self.tokens.len() >= limits.positions as usize).then_some(Finish::Positions)
    }

    fn finish(&mut self, reason: Finish) {
        let mut text = String::new();
        if reason != Finish::StopText {
            let rest = self.text.as_mut().map(TextStream::finish).unwrap_or_default();
            let (rest, stopped) = self.stop.push(&rest);
            text = if stopped { rest } else { rest + &self.stop.finish() };
        }
        self.listener.tell(Event::Finished { text, reason });
    }
}

#[cfg(test)]
mod tests {
    use super::super::sampling::Sampling;
    use super::super::tokenizer::Bytes;
    use super::super::toy::Toy;
    use super::*;

    /// Tokens, decisions and the end of one request.
    #[derive(Debug, Default)]
    struct Told {
        tokens: Vec<u32>,
        gates: Vec<u8>,
        text: String,
        finish: Option<Finish>,
        failed: Option<Error>,
    }

    fn told(handle: &Handle) -> Told {
        let mut told = Told::default();
        while let Some(event) = handle.try_next() {
            assert!(told.finish.is_none() && told.failed.is_none(), "{event:?} after the end");
            match event {
                Event::Ran { gates, .. } => told.gates.extend(&gates[0]),
                Event::Token { token, text, .. } => {
                    told.tokens.push(token);
                    told.text += &text;
                }
                Event::Finished { text, reason } => {
                    told.text += &text;
                    told.finish = Some(reason);
                }
                Event::Failed(error) => told.failed = Some(error),
            }
        }
        told
    }

    fn requests() -> Vec<Request> {
        let sampling = Sampling { temperature: 0.9, seed: 3, ..Sampling::default() };
        let request = |idx: u32| {
            let prompt = (0..1 + idx * 5 % 17).map(|at| (at * 3 + idx) % 6).collect();
            let sampling = if idx.is_multiple_of(3) { Sampling::default() } else { sampling };
            Request { sampling, sequence: idx, draw: idx.into(), ..Request::greedy(prompt, 3 + idx % 9) }
        };
        (0..12).map(request).collect()
    }

    /// What becomes of a request without an engine.
    fn alone(toy: &Toy, request: &Request) -> (Vec<u32>, Vec<u8>) {
        let mut tokens = request.prompt.clone();
        for _ in 0..request.max_new_tokens {
            let draw = Draw { request: request.draw, position: tokens.len() as u64 };
            tokens.push(request.sampling.choose(&toy.logits(&tokens), &tokens, draw));
        }
        let ran = tokens[..tokens.len() - 1].iter().enumerate();
        let gates = ran.map(|(at, token)| Toy::gate(request.sequence, at, *token)).collect();
        (tokens.split_off(request.prompt.len()), gates)
    }

    fn run_all(toy: Toy, options: EngineOptions, requests: &[Request]) -> (Engine<Toy>, Vec<Told>) {
        let mut engine = Engine::new(toy, options).unwrap();
        let submit = |request: &Request| engine.submit(request.clone()).unwrap();
        let handles: Vec<Handle> = requests.iter().map(submit).collect();
        while !engine.is_idle() {
            engine.step().unwrap();
        }
        let told = handles.iter().map(told).collect();
        (engine, told)
    }

    /// Slots, tokens a step and memory change when something runs, never what comes out.
    #[test]
    fn requests_do_not_depend_on_each_other() {
        let requests = requests();
        let longest =
            requests.iter().map(|request| request.prompt.len() + request.max_new_tokens as usize).max();
        for (slots, step_tokens) in [(1, 64), (1, 1), (3, 7), (4, 2), (12, 64), (20, 5)] {
            for memory in [usize::MAX, 60, longest.unwrap()] {
                let toy = Toy { memory, ..Toy::new(slots, step_tokens) };
                let (engine, told) = run_all(toy, EngineOptions::default(), &requests);
                for (request, told) in requests.iter().zip(told) {
                    let (tokens, gates) = alone(engine.decoder(), request);
                    assert_eq!((told.tokens, told.gates), (tokens, gates), "{slots} slots, memory {memory}");
                    assert_eq!(told.finish, Some(Finish::MaxNewTokens));
                }
                assert!(engine.decoder().slots.is_empty() && engine.free.len() == slots as usize);
                assert!(engine.decoder().steps.iter().all(|tokens| *tokens <= step_tokens as usize));
            }
        }
    }

    /// A draft changes what runs, never what comes out: likeliest tokens and drawn ones, decisions, and the end.
    #[test]
    fn drafts_change_nothing_but_the_steps() {
        let requests: Vec<Request> =
            requests().into_iter().map(|request| Request { max_new_tokens: 40, ..request }).collect();
        let (_, plain) = run_all(Toy::new(4, 64), EngineOptions::default(), &requests);
        for (tokens, draft_density, slots, step_tokens, memory) in [
            (1, 0.5, 4, 64, usize::MAX),
            (4, 0.0, 4, 64, usize::MAX),
            (7, 1.0, 3, 10, 90),
            (3, 0.3, 1, 2, 64),
        ] {
            let options = EngineOptions {
                speculation: Some(Speculation { tokens, draft_density }),
                ..EngineOptions::default()
            };
            let toy = Toy { memory, ..Toy::new(slots, step_tokens) };
            let (engine, told) = run_all(toy, options, &requests);
            for (told, plain) in told.iter().zip(&plain) {
                assert_eq!((&told.tokens, &told.gates), (&plain.tokens, &plain.gates), "{tokens} a draft");
                assert_eq!(told.finish, plain.finish);
            }
            let Drafts { proposed, accepted, .. } = engine.drafts();
            assert!(proposed > 50 && accepted > 0, "{accepted} of {proposed}");
            // A draft of all layers says what the model says.
            assert_eq!(draft_density == 1.0, accepted == proposed, "{accepted} of {proposed}");
            assert!(engine.decoder().slots.is_empty());
            assert!(engine.decoder().steps.iter().all(|tokens| *tokens <= step_tokens as usize));
        }
    }

    #[test]
    fn drafts_save_steps_and_respect_stop_texts() {
        let options = || EngineOptions {
            speculation: Some(Speculation { tokens: 4, draft_density: 1.0 }),
            ..with_letters()
        };
        let stopping: Vec<Request> = (0..40)
            .map(|draw| Request { stop: vec!["ca".into(), "bb".into()], ..warm("ab", draw) })
            .collect();
        let (plain_engine, plain) = run_all(Toy::new(8, 64), with_letters(), &stopping);
        let (engine, told) = run_all(Toy::new(8, 64), options(), &stopping);
        for (told, plain) in told.iter().zip(&plain) {
            assert_eq!((&told.text, &told.tokens, told.finish), (&plain.text, &plain.tokens, plain.finish));
        }
        let (steps, plain_steps) = (engine.decoder().steps.len(), plain_engine.decoder().steps.len());
        assert!(steps * 2 < plain_steps, "{steps} against {plain_steps}");
    }

    #[test]
    fn steps_are_filled_and_the_youngest_gives_way() {
        let (engine, _) = run_all(Toy::new(12, 64), EngineOptions::default(), &requests());
        assert_eq!(engine.decoder().steps[0], 64, "the first prompts fill a step");
        assert_eq!(engine.decoder().started, 12);
        let toy = Toy { memory: 30, ..Toy::new(12, 64) };
        let (engine, _) = run_all(toy, EngineOptions::default(), &requests());
        assert!(engine.decoder().started > 12, "one ran again");
        let options = EngineOptions { step_tokens: Some(9), ..EngineOptions::default() };
        let (engine, _) = run_all(Toy::new(12, 64), options, &requests());
        assert!(engine.decoder().steps.iter().all(|tokens| *tokens <= 9));
    }

    #[test]
    fn sequences_that_go_on_do_not_wait_for_long_prompts() {
        let mut engine = Engine::new(Toy::new(2, 4), EngineOptions::default()).unwrap();
        let first = engine.submit(Request::greedy(vec![1], 20)).unwrap();
        engine.step().unwrap();
        let _second = engine.submit(Request::greedy(vec![2; 30], 1)).unwrap();
        for steps in 2..8 {
            let progress = engine.step().unwrap();
            assert_eq!(
                progress,
                Progress { prompt_tokens: 3, new_tokens: 1, known_tokens: 0 },
                "step {steps}"
            );
        }
        assert_eq!(told(&first).tokens.len(), 7);
    }

    #[test]
    fn who_goes_frees_the_slot_within_a_step() {
        let mut engine = Engine::new(Toy::new(1, 4), EngineOptions::default()).unwrap();
        let gone = engine.submit(Request::greedy(vec![1; 20], 20)).unwrap();
        let waits_and_goes = engine.submit(Request::greedy(vec![1], 20)).unwrap();
        let stays = engine.submit(Request::greedy(vec![2], 2)).unwrap();
        engine.step().unwrap();
        assert_eq!((engine.running(), engine.waiting()), (1, 2));
        drop((gone, waits_and_goes));
        engine.step().unwrap();
        assert_eq!((engine.running(), engine.waiting()), (1, 0));
        engine.step().unwrap();
        assert_eq!(told(&stays).finish, Some(Finish::MaxNewTokens));
        assert!(engine.is_idle() && engine.step().unwrap() == Progress::default());
    }

    #[test]
    fn sequences_end_at_the_last_position() {
        for (given, new) in [(60, 4), (63, 1), (64, 0)] {
            let (_, told) =
                run_all(Toy::new(1, 64), EngineOptions::default(), &[Request::greedy(vec![1; given], 9)]);
            assert_eq!((told[0].tokens.len(), told[0].finish), (new, Some(Finish::Positions)), "{given}");
        }
        let (_, told) = run_all(Toy::new(1, 64), EngineOptions::default(), &[Request::greedy(vec![1], 0)]);
        assert_eq!((told[0].tokens.len(), told[0].finish), (0, Some(Finish::MaxNewTokens)));
    }

    #[test]
    fn one_fails_and_the_others_go_on() {
        let toy = Toy { broken_by: Some(5), ..Toy::new(2, 64) };
        let requests =
            [Request { sequence: 4, ..Request::greedy(vec![1, 5], 9) }, Request::greedy(vec![2, 2], 1)];
        let (engine, told) = run_all(toy, EngineOptions::default(), &requests);
        let error = told[0].failed.as_ref().unwrap();
        assert_eq!(error.to_string(), "the logits of token 1 of sequence 4 are not finite: one is NaN");
        assert!(told[0].tokens.is_empty() && told[1].finish == Some(Finish::MaxNewTokens));
        assert!(engine.decoder().slots.is_empty());
        let small = Toy { memory: 4, ..Toy::new(2, 64) };
        let (_, told) = run_all(small, EngineOptions::default(), &[Request::greedy(vec![1; 3], 9)]);
        assert_eq!((told[0].tokens.len(), told[0].failed.as_ref().unwrap().code()), (2, "run::cache-full"));
    }

    /// Six letters, of which one ends and one is padding.
    struct Letters;

    impl Tokenizer for Letters {
        fn vocab_size(&self) -> u32 {
            5
        }

        fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
            Ok(text.bytes().map(|byte| u32::from(byte - b'a')).collect())
        }

        fn decode(&self, tokens: &[u32]) -> Vec<u8> {
            tokens.iter().map(|token| b'a' + *token as u8).collect()
        }

        fn ends(&self) -> &[u32] {
            &[3]
        }
    }

    fn with_letters() -> EngineOptions {
        EngineOptions { tokenizer: Some(Arc::new(Letters)), ..EngineOptions::default() }
    }

    fn warm(prompt: &str, draw: u64) -> Request {
        let sampling = Sampling { temperature: 2.0, ..Sampling::default() };
        Request { sampling, draw, ..Request::greedy(Letters.encode(prompt).unwrap(), 40) }
    }

    #[test]
    fn a_token_ends_a_sequence_and_padding_is_never_drawn() {
        let requests: Vec<Request> = (0..40).map(|draw| warm("abc", draw)).collect();
        let (_, told) = run_all(Toy::new(8, 64), with_letters(), &requests);
        let mut ended = 0;
        for Told { tokens, text, finish, .. } in told {
            assert!(tokens.iter().all(|token| *token < 5));
            let shown: Vec<u32> = tokens.iter().copied().filter(|token| *token != 3).collect();
            assert_eq!(text.as_bytes(), Letters.decode(&shown));
            let end = tokens.iter().position(|token| *token == 3);
            assert_eq!(end.map(|at| at + 1), (finish == Some(Finish::End)).then_some(tokens.len()));
            ended += u32::from(end.is_some());
        }
        assert!(ended > 20, "{ended} of 40 ended");
        assert_eq!((Finish::End.reason(), Finish::Positions.reason()), ("stop", "length"));
    }

    #[test]
    fn a_text_ends_a_sequence() {
        let plain: Vec<Request> = (0..40).map(|draw| warm("ab", draw)).collect();
        let stopping: Vec<Request> = plain
            .iter()
            .map(|request| Request { stop: vec!["ca".into(), "bb".into()], ..request.clone() })
            .collect();
        let (_, plain) = run_all(Toy::new(8, 64), with_letters(), &plain);
        let (_, stopped) = run_all(Toy::new(8, 64), with_letters(), &stopping);
        let mut count = 0;
        for (plain, stopped) in plain.iter().zip(&stopped) {
            let at = ["ca", "bb"].iter().filter_map(|stop| plain.text.find(stop)).min();
            assert_eq!(stopped.text, plain.text[..at.unwrap_or(plain.text.len())]);
            assert_eq!(stopped.finish == Some(Finish::StopText), at.is_some());
            assert!(plain.tokens.starts_with(&stopped.tokens));
            count += u32::from(at.is_some());
        }
        assert!((10..40).contains(&count), "{count} of 40 stopped");
    }

    #[test]
    fn what_cannot_run_is_refused() {
        let mut engine = Engine::new(Toy::new(1, 4), EngineOptions::default()).unwrap();
        let cold = Sampling { temperature: -1.0, ..Sampling::default() };
        for (request, code) in [
            (Request::greedy(vec![], 1), "run::empty-prompt"),
            (Request::greedy(vec![0; 65], 1), "run::sequence-too-long"),
            (Request::greedy(vec![6], 1), "run::token-range"),
            (Request { stop: vec!["x".into()], ..Request::greedy(vec![0], 1) }, "run::usage"),
            (Request { sampling: cold, ..Request::greedy(vec![0], 1) }, "run::usage"),
        ] {
            assert_eq!(engine.submit(request).unwrap_err().code(), code);
        }
        assert!(engine.is_idle());
        let no_step = EngineOptions { step_tokens: Some(0), ..EngineOptions::default() };
        assert!(Engine::new(Toy::new(1, 4), no_step).is_err());
        assert!(Engine::new(Toy::new(0, 4), EngineOptions::default()).is_err());
        let mut nothing = Toy::new(1, 4);
        nothing.limits.vocab_size = 0;
        let mut engine = Engine::new(nothing, EngineOptions::default()).unwrap();
        assert_eq!(engine.submit(Request::greedy(vec![0], 1)).unwrap_err().code(), "run::token-range");
        assert!(Bytes::of(6).is_err() && Bytes::of(256).is_ok());
    }
}
