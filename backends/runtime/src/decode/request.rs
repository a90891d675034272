//! What is asked of an engine, and what it answers.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};

use super::sampling::{LogProbs, Sampling};
use crate::choices::Choices;
use crate::error::Error;

/// A sequence to continue.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Its tokens, at least one.
    pub prompt: Vec<u32>,
    /// Most tokens to add.
    pub max_new_tokens: u32,
    /// How they are chosen.
    pub sampling: Sampling,
    /// Texts before which the continuation ends. They need a tokenizer.
    pub stop: Vec<String>,
    /// Number of the sequence, for routers that decide by it.
    pub sequence: u32,
    /// Number of the request, for its draws: two continuations of one prompt differ by it.
    pub draw: u64,
    /// Whether log probabilities are told: of each new token, and of so many of the likeliest.
    pub logprobs: Option<u32>,
}

impl Request {
    /// The likeliest continuation, as sequence 0.
    #[must_use]
    pub fn greedy(prompt: Vec<u32>, max_new_tokens: u32) -> Self {
        let sampling = Sampling::default();
        Self { prompt, max_new_tokens, sampling, stop: Vec::new(), sequence: 0, draw: 0, logprobs: None }
    }
}

/// Why a continuation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A token that ends the sequence.
    End,
    /// A text that was asked to stop at.
    StopText,
    /// As many tokens as were asked for.
    MaxNewTokens,
    /// The model has no more positions.
    Positions,
}

impl Finish {
    /// The word for it: `stop`, or `length` where more might follow.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Finish::End | Finish::StopText => "stop",
            Finish::MaxNewTokens | Finish::Positions => "length",
        }
    }
}

/// What happens to a request, in this order: `Ran` and `Token` in turns, one of the others last.
#[derive(Debug)]
pub enum Event {
    /// Tokens of the sequence ran, each only once, from the first on that was not known from other sequences. The last
    /// new token never does.
    Ran {
        /// `[routers][tokens]`: 1 where the token executed.
        gates: Vec<Vec<u8>>,
        /// Which choices they got in each layer of experts, if the decoder reports them.
        choices: Vec<Choices>,
    },
    /// The sequence has a new token.
    Token {
        /// Its id.
        token: u32,
        /// The characters that it adds, if there is a tokenizer: none while one is not complete, or where a stop text may
        /// begin.
        text: String,
        /// If the request asks for them.
        logprobs: Option<LogProbs>,
    },
    /// The continuation is complete.
    Finished {
        /// What was held back of its text.
        text: String,
        /// Why it ended.
        reason: Finish,
    },
    /// The continuation cannot go on. Other requests do.
    Failed(Error),
}

/// Hears the events of one request, on the thread that steps the engine.
pub trait Listener {
    /// The next event.
    fn tell(&mut self, event: Event);

    /// Whether nobody waits for the request any more: it is given up before the next step.
    fn is_gone(&self) -> bool;
}

/// What a request adds to its prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The new tokens.
    pub tokens: Vec<u32>,
    /// Their text, without a text to stop at; empty if there is no tokenizer.
    pub text: String,
    /// Why there are no more.
    pub finish: Finish,
}

/// The events of one request. Who drops it takes the request back.
///
/// As an iterator it waits for the next event, on another thread than that which steps the engine, and ends after the last.
#[derive(Debug)]
pub struct Handle {
    events: Receiver<Event>,
    /// The engine looks whether it is still there.
    _alive: Arc<()>,
}

/// Passes events on to a [`Handle`].
struct Sending {
    events: Sender<Event>,
    alive: Weak<()>,
}

impl Listener for Sending {
    fn tell(&mut self, event: Event) {
        // Who has gone meanwhile is found before the next step.
        let _ = self.events.send(event);
    }

    fn is_gone(&self) -> bool {
        self.alive.strong_count() == 0
    }
}

impl Handle {
    /// A handle, and what it hears from.
    pub(super) fn new() -> (Self, impl Listener + use<>) {
        let (sender, events) = channel();
        let alive = Arc::new(());
        let listener = Sending { events: sender, alive: Arc::downgrade(&alive) };
        (Self { events, _alive: alive }, listener)
    }

    /// The next event, if there is one already; for the thread that steps the engine.
    pub fn try_next(&self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// The events that there are already; for the thread that steps the engine.
    pub fn ready(&self) -> impl Iterator<Item = Event> {
        self.events.try_iter()
    }
}

impl Iterator for Handle {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.events.recv().ok()
    }
}
