//! The answer to a request, whole or in pieces.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use futures_util::stream;
use serde_json::{Value, json};
use skipc_runtime::decode::{Event, LogProbs, Tokenizer};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, timeout_at};

use super::Server;
use super::params::{Kind, Params};
use super::refusal::Refusal;

/// A request that the engine works at. Dropped, it is taken back.
pub(super) struct Answer {
    pub(super) server: Arc<Server>,
    pub(super) params: Params,
    /// Of the answer, unique in the life of the server.
    pub(super) number: u64,
    /// Continuations with their events.
    pub(super) events: UnboundedReceiver<(usize, Event)>,
    pub(super) deadline: Instant,
    /// Seconds since 1970.
    pub(super) created: u64,
    pub(super) progress: Vec<ChoiceProgress>,
}

/// What is known of a continuation.
#[derive(Clone, Debug, Default)]
pub(super) struct ChoiceProgress {
    n_tokens: u64,
    /// Characters of its text so far.
    n_characters: usize,
    is_finished: bool,
}

/// What is added to one continuation.
struct Piece {
    index: usize,
    text: String,
    token: Option<TokenRow>,
    finish: Option<&'static str>,
}

/// A token with its log probabilities.
struct TokenRow {
    chosen: Likely,
    top: Vec<Likely>,
    /// Characters of the text before it.
    offset: usize,
}

struct Likely {
    bytes: Vec<u8>,
    logprob: f64,
}

impl Likely {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    fn json(&self) -> Value {
        json!({"token": self.text(), "logprob": self.logprob, "bytes": self.bytes})
    }
}

impl Answer {
    /// The next piece; nothing once all continuations are complete.
    async fn next(&mut self) -> Result<Option<Piece>, Refusal> {
        if self.progress.iter().all(|choice| choice.is_finished) {
            return Ok(None);
        }
        let too_late = |_| {
            let seconds = self.server.timeout.as_secs();
            let message = format!("the request was not completed in {seconds} seconds");
            Refusal::new(StatusCode::REQUEST_TIMEOUT, "timeout", message)
        };
        let event = timeout_at(self.deadline, self.events.recv()).await.map_err(too_late)?;
        let (index, event) = event.ok_or_else(Refusal::ended)?;
        match event {
            Event::Token { token, text, logprobs } => {
                let offset = self.progress[index].n_characters;
                self.progress[index].n_tokens += 1;
                self.progress[index].n_characters += text.chars().count();
                let row = logprobs.map(|logprobs| self.row(token, &logprobs, offset));
                Ok(Some(Piece { index, text, token: row, finish: None }))
            }
            Event::Finished { text, reason } => {
                self.progress[index].is_finished = true;
                Ok(Some(Piece { index, text, token: None, finish: Some(reason.reason()) }))
            }
            Event::Failed(error) => Err(Refusal::of(&error)),
            // The engine's thread counts these.
            Event::Ran { .. } => Ok(Some(Piece { index, text: String::new(), token: None, finish: None })),
        }
    }

    fn row(&self, token: u32, logprobs: &LogProbs, offset: usize) -> TokenRow {
        let tokenizer = self.server.served.tokenizer.as_deref();
        let likely = |token: u32, logprob: f64| Likely { bytes: bytes_of(tokenizer, token), logprob };
        let top = logprobs.top.iter().map(|(token, logprob)| likely(*token, *logprob)).collect();
        TokenRow { chosen: likely(token, logprobs.chosen), top, offset }
    }

    fn usage(&self) -> Value {
        let prompt: usize = self.params.prompts.iter().map(Vec::len).sum();
        let new: u64 = self.progress.iter().map(|choice| choice.n_tokens).sum();
        json!({"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt as u64 + new})
    }

    /// What every object of this answer has.
    fn object(&self, choices: Vec<Value>) -> Value {
        let (prefix, object) = match (self.params.kind, self.params.stream) {
            (Kind::Text, _) => ("cmpl", "text_completion"),
            (Kind::Chat, false) => ("chatcmpl", "chat.completion"),
            (Kind::Chat, true) => ("chatcmpl", "chat.completion.chunk"),
        };
        json!({
            "id": format!("{prefix}-{}", self.number),
            "object": object,
            "created": self.created,
            "model": self.server.served.name,
            "choices": choices,
        })
    }

    /// The whole answer, when all of it is there.
    pub(super) async fn whole(mut self) -> Result<Response, Refusal> {
        let mut choices: Vec<(String, Vec<TokenRow>, &str)> =
            self.progress.iter().map(|_| (String::new(), Vec::new(), "")).collect();
        while let Some(piece) = self.next().await? {
            let (text, rows, finish) = &mut choices[piece.index];
            text.push_str(&piece.text);
            rows.extend(piece.token);
            *finish = piece.finish.unwrap_or(finish);
        }
        let kind = self.params.kind;
        let asks = self.params.request.logprobs.is_some();
        let choices = choices.into_iter().enumerate().map(|(index, (text, rows, finish))| {
            let logprobs = if asks { rows_json(kind, &rows) } else { Value::Null };
            match kind {
                Kind::Text => {
                    json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish})
                }
                Kind::Chat => {
                    let message = json!({"role": "assistant", "content": text, "refusal": null});
                    json!({"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish})
                }
            }
        });
        let mut object = self.object(choices.collect());
        object["usage"] = self.usage();
        Ok(json_response(&object))
    }

    /// The answer as server-sent events, while it comes.
    pub(super) fn pieces(self) -> Response {
        let mut pending = VecDeque::new();
        if self.params.kind == Kind::Chat {
            let delta = json!({"role": "assistant", "content": ""});
            let first =
                |index| json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null});
            pending.extend((0..self.progress.len()).map(|index| self.chunk(vec![first(index)])));
        }
        let events = stream::unfold(Events { answer: self, pending, is_over: false }, Events::next);
        let mut response = Response::new(Body::from_stream(events));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }

    fn chunk(&self, choices: Vec<Value>) -> String {
        let mut object = self.object(choices);
        if self.params.include_usage {
            object["usage"] = Value::Null;
        }
        event(&object)
    }

    fn piece_json(&self, piece: &Piece) -> Value {
        let kind = self.params.kind;
        let logprobs = piece.token.as_ref().map(|row| rows_json(kind, std::slice::from_ref(row)));
        match kind {
            Kind::Text => json!({
                "index": piece.index, "text": piece.text, "logprobs": logprobs, "finish_reason": piece.finish,
            }),
            Kind::Chat => {
                let delta = match piece.text.is_empty() {
                    true => json!({}),
                    false => json!({"content": piece.text}),
                };
                json!({"index": piece.index, "delta": delta, "logprobs": logprobs, "finish_reason": piece.finish})
            }
        }
    }
}

/// An answer in pieces.
struct Events {
    answer: Answer,
    /// Events that are to be sent.
    pending: VecDeque<String>,
    is_over: bool,
}

impl Events {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Events)> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some((Ok(Bytes::from(event)), self));
            }
            if self.is_over {
                return None;
            }
            match self.answer.next().await {
                // A token that completes no character.
                Ok(Some(Piece { text, token: None, finish: None, .. })) if text.is_empty() => {}
                Ok(Some(piece)) => {
                    let choice = self.answer.piece_json(&piece);
                    self.pending.push_back(self.answer.chunk(vec![choice]));
                }
                Ok(None) => {
                    if self.answer.params.include_usage {
                        let mut object = self.answer.object(Vec::new());
                        object["usage"] = self.answer.usage();
                        self.pending.push_back(event(&object));
                    }
                    self.pending.push_back("data: [DONE]\n\n".into());
                    self.is_over = true;
                }
                // The status has been sent; without `[DONE]` nobody takes this for the whole.
                Err(refusal) => {
                    self.pending.push_back(event(&refusal.json()));
                    self.is_over = true;
                }
            }
        }
    }
}

/// JSON has no line breaks when it is written in one line.
fn event(object: &Value) -> String {
    format!("data: {object}\n\n")
}

pub(super) fn json_response(object: &Value) -> Response {
    let mut response = Response::new(Body::from(object.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The bytes of a token; its number, where there is no tokenizer.
fn bytes_of(tokenizer: Option<&dyn Tokenizer>, token: u32) -> Vec<u8> {
    match tokenizer {
        Some(tokenizer) => tokenizer.decode(&[token]),
        None => token.to_string().into_bytes(),
    }
}

fn rows_json(kind: Kind, rows: &[TokenRow]) -> Value {
    if kind == Kind::Chat {
        let row = |row: &TokenRow| {
            let mut json = row.chosen.json();
            json["top_logprobs"] = row.top.iter().map(Likely::json).collect();
            json
        };
        return json!({"content": rows.iter().map(row).collect::<Vec<_>>(), "refusal": null});
    }
    let top = |row: &TokenRow| -> Value {
        // Several tokens may read alike where they are parts of characters: the likeliest stands for them.
        row.top
            .iter()
            .rev()
            .map(|likely| (likely.text(), Value::from(likely.logprob)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    json!({
        "tokens": rows.iter().map(|row| row.chosen.text()).collect::<Vec<_>>(),
        "token_logprobs": rows.iter().map(|row| row.chosen.logprob).collect::<Vec<_>>(),
        "top_logprobs": rows.iter().map(top).collect::<Vec<_>>(),
        "text_offset": rows.iter().map(|row| row.offset).collect::<Vec<_>>(),
    })
}
