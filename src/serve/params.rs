//! What a request asks for.

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value};
use skipc_runtime::decode::{Request, Sampling, Tokenizer};

use super::engine::Served;
use super::fields::Fields;
use super::refusal::Refusal;

/// Most continuations of one prompt.
const MAX_N: usize = 128;

/// Most tokens of which log probabilities are told, as in the OpenAI API.
const MAX_TOP: u32 = 20;

/// Most texts to stop at: each is looked for in every character.
const MAX_STOPS: usize = 16;

/// What kind of answer a path gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `/v1/completions`.
    Text,
    /// `/v1/chat/completions`.
    Chat,
}

/// A request that makes sense; whether its tokens do, the engine says.
pub(super) struct Params {
    pub(super) kind: Kind,
    /// Whether the answer comes in pieces.
    pub(super) stream: bool,
    /// Whether the last of them has the counts of tokens.
    pub(super) include_usage: bool,
    pub(super) prompts: Vec<Vec<u32>>,
    /// Continuations of each prompt.
    pub(super) n: usize,
    /// What they have in common; without prompt.
    pub(super) request: Request,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a string, a list of strings, token ids, or a list of lists of token ids"
)]
enum Prompt {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    Rows(Vec<Vec<u32>>),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
enum Stop {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamOptions {
    include_usage: Option<bool>,
    /// Pads pieces against who guesses texts from their lengths; they are not padded.
    #[serde(rename = "include_obfuscation")]
    _include_obfuscation: Option<bool>,
}

impl Params {
    /// What the body of a request asks for.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it.
    pub(super) fn parse(kind: Kind, body: &[u8], served: &Served) -> Result<Params, Refusal> {
        let mut fields = Fields::parse(body)?;
        if let Some(model) = fields.take::<String>("model")?.filter(|model| *model != served.name) {
            let message = format!("unknown model `{model}`; this server has `{}`", served.name);
            let status = StatusCode::NOT_FOUND;
            return Err(Refusal { status, ..Refusal::at("model", "model_not_found", message) });
        }
        let prompts = match kind {
            Kind::Text => prompts(&mut fields, served)?,
            Kind::Chat => vec![chat(&mut fields, served)?],
        };
        let stream = fields.take("stream")?.unwrap_or(false);
        let include_usage = match fields.take::<StreamOptions>("stream_options")? {
            Some(_) if !stream => {
                let message = "`stream_options` needs `\"stream\": true`";
                return Err(Refusal::at("stream_options", "invalid_value", message));
            }
            options => options.and_then(|options| options.include_usage).unwrap_or(false),
        };
        let n = fields.number("n", (1, MAX_N), 1)?;
        if let Some(best_of) = fields.take::<usize>("best_of")?.filter(|best_of| *best_of != n) {
            let message = format!("`best_of` {best_of} is not supported: leave it out, or make it `n`");
            return Err(Refusal::at("best_of", "unsupported_key", message));
        }
        let request = Request {
            prompt: Vec::new(),
            max_new_tokens: max_tokens(kind, &mut fields, served)?,
            sampling: sampling(&mut fields)?,
            stop: stops(&mut fields)?,
            sequence: 0,
            draw: 0,
            logprobs: logprobs(kind, &mut fields)?,
        };
        fields.finish()?;
        Ok(Params { kind, stream, include_usage, prompts, n, request })
    }

    /// How many continuations there are of all prompts.
    pub(super) fn n_choices(&self) -> usize {
        self.prompts.len() * self.n
    }

    /// The continuations in the order of the answer: those of one prompt after another. Each draws as if its prompt were
    /// alone.
    pub(super) fn requests(&self) -> impl Iterator<Item = Request> + '_ {
        self.prompts.iter().flat_map(move |prompt| {
            let request = |draw| Request { prompt: prompt.clone(), draw, ..self.request.clone() };
            (0..self.n as u64).map(request)
        })
    }
}

fn missing(key: &str) -> Refusal {
    Refusal::at(key, "missing_key", format!("`{key}` is missing"))
}

fn tokenizer(served: &Served) -> Result<&dyn Tokenizer, Refusal> {
    let vocab_size = served.limits.vocab_size;
    let none = || Refusal {
        status: StatusCode::BAD_REQUEST,
        ..Refusal::of(&skipc_runtime::Error::PromptVocabulary { vocab_size })
    };
    served.tokenizer.as_deref().ok_or_else(none)
}

fn prompts(fields: &mut Fields, served: &Served) -> Result<Vec<Vec<u32>>, Refusal> {
    let encode = |texts: Vec<String>| {
        let tokenizer = tokenizer(served)?;
        let encode = |text: &String| tokenizer.encode(text).map_err(|error| Refusal::of(&error));
        texts.iter().map(encode).collect::<Result<Vec<_>, _>>()
    };
    let prompts = match fields.take("prompt")?.ok_or_else(|| missing("prompt"))? {
        Prompt::Text(text) => encode(vec![text])?,
        Prompt::Texts(texts) => encode(texts)?,
        Prompt::Tokens(tokens) => vec![tokens],
        Prompt::Rows(rows) => rows,
    };
    match prompts.is_empty() {
        true => Err(Refusal::at("prompt", "invalid_value", "`prompt` is a list without prompts")),
        false => Ok(prompts),
    }
}

fn chat(fields: &mut Fields, served: &Served) -> Result<Vec<u32>, Refusal> {
    let mut messages: Vec<Map<String, Value>> =
        fields.take("messages")?.ok_or_else(|| missing("messages"))?;
    if messages.is_empty() {
        return Err(Refusal::at("messages", "invalid_value", "`messages` has no message"));
    }
    for (index, message) in messages.iter_mut().enumerate() {
        let wrong = |reason: &str| {
            let key = format!("messages[{index}]");
            let message = format!("`{key}`: {reason}");
            Refusal::at(&key, "invalid_value", message)
        };
        if !message.get("role").is_some_and(Value::is_string) {
            return Err(wrong("`role` is missing, or no string"));
        }
        let text = text_of(message.get("content")).map_err(wrong)?;
        message.insert("content".into(), text.into());
    }
    let of = |error| Refusal::of(&error);
    let template = served.template.as_ref().ok_or(skipc_runtime::Error::NoChatTemplate).map_err(of)?;
    let messages: Vec<Value> = messages.into_iter().map(Value::Object).collect();
    let prompt = template.render(&messages).map_err(of)?;
    tokenizer(served)?.encode_rendered(&prompt).map_err(of)
}

/// The text of a message: a string, or all its parts, which are texts.
fn text_of(content: Option<&Value>) -> Result<String, &'static str> {
    match content {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => {
            let text = |part: &Value| match part["type"] == "text" {
                true => part["text"].as_str().map(str::to_owned),
                false => None,
            };
            parts
                .iter()
                .map(text)
                .collect::<Option<String>>()
                .ok_or("this model takes parts of type `text` only")
        }
        _ => Err("`content` is missing, or neither a string nor a list of parts"),
    }
}

fn max_tokens(kind: Kind, fields: &mut Fields, served: &Served) -> Result<u32, Refusal> {
    let all = (0, u32::MAX);
    match kind {
        // What the OpenAI API has where nothing is said.
        Kind::Text => fields.number("max_tokens", all, 16),
        Kind::Chat => {
            let most = fields.number("max_tokens", all, served.limits.positions)?;
            fields.number("max_completion_tokens", all, most)
        }
    }
}

fn sampling(fields: &mut Fields) -> Result<Sampling, Refusal> {
    let sampling = Sampling {
        repetition_penalty: fields.take("repetition_penalty")?.unwrap_or(1.0),
        temperature: fields.take("temperature")?.unwrap_or(1.0),
        top_k: fields.take("top_k")?.unwrap_or(0),
        top_p: fields.take("top_p")?.unwrap_or(1.0),
        min_p: fields.take("min_p")?.unwrap_or(0.0),
        seed: seed(fields)?,
    };
    sampling.check().map_err(|error| Refusal::of(&error))?;
    Ok(sampling)
}

/// The seed that is given, negative ones by their bits; or one that nobody knows.
fn seed(fields: &mut Fields) -> Result<u64, Refusal> {
    let given: Option<i64> = fields.take("seed")?;
    let random = || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), "seed");
    Ok(given.map_or_else(random, i64::cast_unsigned))
}

fn stops(fields: &mut Fields) -> Result<Vec<String>, Refusal> {
    let stops = match fields.take("stop")? {
        None => Vec::new(),
        Some(Stop::One(text)) => vec![text],
        Some(Stop::Several(texts)) => texts,
    };
    if stops.len() > MAX_STOPS || stops.iter().any(String::is_empty) {
        let message = format!("`stop` takes at most {MAX_STOPS} texts, none of them empty");
        return Err(Refusal::at("stop", "invalid_value", message));
    }
    Ok(stops)
}

/// Of how many of the likeliest tokens log probabilities are told, if they are.
fn logprobs(kind: Kind, fields: &mut Fields) -> Result<Option<u32>, Refusal> {
    if kind == Kind::Text {
        let asked: Option<u32> = fields.take("logprobs")?;
        return match asked.filter(|asked| *asked > MAX_TOP) {
            None => Ok(asked),
            Some(asked) => {
                let message = format!("`logprobs` is at most {MAX_TOP}, not {asked}");
                Err(Refusal::at("logprobs", "invalid_value", message))
            }
        };
    }
    let asked = fields.take("logprobs")?.unwrap_or(false);
    let n_top = fields.number("top_logprobs", (0, MAX_TOP), 0)?;
    if n_top > 0 && !asked {
        let message = "`top_logprobs` needs `\"logprobs\": true`";
        return Err(Refusal::at("top_logprobs", "invalid_value", message));
    }
    Ok(asked.then_some(n_top))
}
