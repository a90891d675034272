//! Many requests on the slots of one decoder.

mod schedule;
mod speculate;
mod task;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use skipc_artifact::program::SCORE;

use super::decoder::{Decoder, Limits, NO_DRAFTS, Slot, StepOutputs};
use super::language::LanguageFiles;
use super::request::{Completion, Event, Handle, Listener, Request};
use super::slots::with_prefixes;
use super::text::TextStream;
use super::tokenizer::Tokenizer;
use crate::device::Device;
use crate::error::Error;
use crate::model::Model;
use crate::module::Module;
use crate::options;

use schedule::{Part, chunks};
use speculate::Margin;
pub use speculate::{Drafts, Speculation};
use task::{Running, Task};

/// How an engine works.
#[derive(Clone)]
pub struct EngineOptions {
    /// Most requests that run at a time; more wait. 8 by default.
    pub slots: u32,
    /// Room in the caches for so many tokens of all slots together; for the longest sequence in each by default.
    pub cache_tokens: Option<u32>,
    /// Threads, and whether runs are checked.
    pub run: options::Options,
    /// Most tokens of a step: fewer let sequences that are being continued wait less for new prompts. As many as the
    /// decoder takes by default, and never more.
    pub step_tokens: Option<u32>,
    /// For texts of events, stop strings, tokens that end a sequence, and which tokens may be drawn: without one, all.
    /// [`Engine::new`] takes that in the artefact if none is given, or bytes for a model of 256 tokens.
    pub tokenizer: Option<Arc<dyn Tokenizer>>,
    /// Draft tokens, and how; not by default.
    pub speculation: Option<Speculation>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            slots: 8,
            cache_tokens: None,
            run: options::Options::default(),
            step_tokens: None,
            tokenizer: None,
            speculation: None,
        }
    }
}

/// Continues requests by continuous batching: each step takes the next token of every sequence that is being continued,
/// and fills up with prompts, in the order of submission. Prompts longer than a step takes are cut.
///
/// Where the memory for caches does not suffice for all, the youngest request waits and is run again later.
/// A request's tokens do not depend on the others but for rounding.
///
/// ```no_run
/// use skipc_runtime::decode::{Engine, EngineOptions, Event, Request};
/// use skipc_runtime::{Device, Error, Model};
///
/// let model = Model::open("model.skp".as_ref())?;
/// let mut engine = Engine::new(&model, Device::Cpu, EngineOptions::default())?;
/// let prompts = ["And God said", "In the beginning"].map(|text| engine.encode(text));
/// let mut handles = Vec::new();
/// for prompt in prompts {
///     handles.push(engine.submit(Request::greedy(prompt?, 16))?);
/// }
/// while !engine.is_idle() {
///     engine.step()?;
///     for (index, handle) in handles.iter().enumerate() {
///         for event in handle.ready() {
///             match event {
///                 Event::Token { text, .. } | Event::Finished { text, .. } => println!("{index}: {text}"),
///                 Event::Failed(error) => eprintln!("{index}: {error}"),
///                 Event::Ran { .. } => {}
///             }
///         }
///     }
/// }
/// # Ok::<(), Error>(())
/// ```
///
/// Who has another thread for the engine reads a handle as an iterator, which waits for the next event:
/// `backends/runtime/examples/engine.rs` does. Any [`Decoder`] can be stepped by [`Engine::on`].
pub struct Engine<D = Box<dyn Decoder + Send>> {
    decoder: D,
    limits: Limits,
    tokenizer: Option<Arc<dyn Tokenizer>>,
    /// Tokens from here on are never drawn.
    drawable: usize,
    free: Vec<Slot>,
    /// By age.
    waiting: VecDeque<Task>,
    /// By age.
    running: Vec<Running>,
    speculation: Option<(Speculation, Margin)>,
    drafts: Drafts,
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

impl Engine {
    /// An engine of a model's own code and tokenizer, without requests. Sequences that begin alike share what is kept of
    /// their beginnings.
    ///
    /// # Errors
    ///
    /// As [`Module::load`] and [`Engine::on`]; [`Error::NotCausal`] for a model that cannot generate,
    /// [`Error::CacheMemory`] if its caches do not fit.
    pub fn new(model: &Model, device: Device, options: EngineOptions) -> Result<Self, Error> {
        Self::of_module(model, &Module::load(model, device, options.run)?, options)
    }

    /// As [`Engine::new`], on code that is loaded.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn of_module(model: &Model, module: &Module, mut options: EngineOptions) -> Result<Self, Error> {
        if options.tokenizer.is_none() {
            let vocab_size = module.function(SCORE)?.vocab_size;
            options.tokenizer = LanguageFiles::tokenizer_within(model, vocab_size)?;
        }
        let decoder = with_prefixes((module, model), options.slots, options.cache_tokens)?;
        Self::on(decoder, options)
    }
}

impl<D: Decoder> Engine<D> {
    /// An engine on a decoder, without requests. Slots, caches and threads are the decoder's, whatever the options say.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for a decoder without slots, a step of no tokens, a tokenizer without tokens, or a decoder that
    /// is to draft and cannot.
    pub fn on(decoder: D, options: EngineOptions) -> Result<Self, Error> {
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
        let mut task = Task::new(request, text, listener);
        match task.full(&self.limits) {
            Some(reason) => task.finish(reason),
            None => self.waiting.push_back(task),
        }
        Ok(())
    }

    /// What a request adds to its prompt, if it runs beside those that are there already: steps until it has ended.
    ///
    /// # Errors
    ///
    /// As [`Engine::submit`] and [`Engine::step`], and what makes the request fail.
    pub fn complete(&mut self, request: Request) -> Result<Completion, Error> {
        let handle = self.submit(request)?;
        let (mut tokens, mut whole) = (Vec::new(), String::new());
        loop {
            for event in handle.ready() {
                match event {
                    Event::Ran { .. } => {}
                    Event::Token { token, text, .. } => {
                        tokens.push(token);
                        whole += &text;
                    }
                    Event::Finished { text, reason } => {
                        return Ok(Completion { tokens, text: whole + &text, finish: reason });
                    }
                    Event::Failed(error) => return Err(error),
                }
            }
            self.step()?;
        }
    }

    /// The tokens of a text.
    ///
    /// # Errors
    ///
    /// [`Error::PromptVocabulary`] if the model has no tokenizer; a text that has no tokens.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let vocab_size = self.limits.vocab_size;
        self.tokenizer.as_ref().ok_or(Error::PromptVocabulary { vocab_size })?.encode(text)
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
