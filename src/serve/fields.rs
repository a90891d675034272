//! The keys of a request's JSON: each is taken once, and what is left over is refused unless it changes nothing.

use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::refusal::Refusal;

/// Keys of the API that say nothing about the answer.
const HARMLESS: [&str; 8] = [
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
];

/// Keys of the API that are not done here.
const MISSING: [&str; 17] = [
    "audio",
    "echo",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "modalities",
    "moderation",
    "prediction",
    "presence_penalty",
    "reasoning_effort",
    "response_format",
    "suffix",
    "tool_choice",
    "tools",
    "verbosity",
    "web_search_options",
];

/// Keys of a request that are not taken yet.
pub(super) struct Fields {
    left: Map<String, Value>,
    /// Those that were asked for, for who misspells one.
    asked: Vec<&'static str>,
}

impl Fields {
    /// The keys of the object that a body is.
    ///
    /// # Errors
    ///
    /// Where the body is no JSON, or another value.
    pub(super) fn parse(body: &[u8]) -> Result<Fields, Refusal> {
        let wrong = |message: String| Refusal::new(StatusCode::BAD_REQUEST, "invalid_json", message);
        match serde_json::from_slice(body) {
            Ok(Value::Object(left)) => Ok(Fields { left, asked: Vec::new() }),
            Ok(_) => {
                Err(wrong("the body is JSON, but no object: write {…} with the keys of the request".into()))
            }
            Err(error) => Err(wrong(format!("the body is not JSON: {error}"))),
        }
    }

    /// The value of a key; nothing where it is missing or null.
    ///
    /// # Errors
    ///
    /// A value of another type.
    pub(super) fn take<T: DeserializeOwned>(&mut self, key: &'static str) -> Result<Option<T>, Refusal> {
        self.asked.push(key);
        let value = self.left.remove(key).unwrap_or_default();
        serde_json::from_value(value)
            .map_err(|error| Refusal::at(key, "invalid_value", format!("`{key}`: {error}")))
    }

    /// A number within bounds, or `default`.
    pub(super) fn number<T>(
        &mut self,
        key: &'static str,
        (least, most): (T, T),
        default: T,
    ) -> Result<T, Refusal>
    where
        T: DeserializeOwned + PartialOrd + std::fmt::Display,
    {
        match self.take(key)? {
            None => Ok(default),
            Some(value) if least <= value && value <= most => Ok(value),
            Some(value) => {
                let message = format!("`{key}` is from {least} to {most}, not {value}");
                Err(Refusal::at(key, "invalid_value", message))
            }
        }
    }

    /// Refuses the keys that are left, but for those that change nothing as they are.
    ///
    /// # Errors
    ///
    /// The first of them.
    pub(super) fn finish(self) -> Result<(), Refusal> {
        for (key, value) in &self.left {
            if HARMLESS.contains(&key.as_str()) || value.is_null() {
                continue;
            }
            if !MISSING.contains(&key.as_str()) {
                let near = self.asked.iter().filter(|asked| strsim::damerau_levenshtein(asked, key) <= 2);
                let hint = near.min_by_key(|asked| strsim::damerau_levenshtein(asked, key));
                let hint = hint.map(|asked| format!("; did you mean `{asked}`?")).unwrap_or_default();
                return Err(Refusal::at(key, "unknown_key", format!("unknown key `{key}`{hint}")));
            }
            if !is_neutral(key, value) {
                let message = format!("`{key}` is not supported: leave it out");
                return Err(Refusal::at(key, "unsupported_key", message));
            }
        }
        Ok(())
    }
}

/// Whether a key that is not done asks for nothing.
fn is_neutral(key: &str, value: &Value) -> bool {
    match value {
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => match key {
            "tool_choice" | "function_call" => text == "none" || text == "auto",
            _ => text.is_empty(),
        },
        Value::Array(list) => list.is_empty() || (key == "modalities" && *list == [json!("text")]),
        Value::Object(map) => {
            map.is_empty() || (key == "response_format" && *value == json!({"type": "text"}))
        }
        Value::Null => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(body: &str) -> Result<(), &'static str> {
        let mut fields = Fields::parse(body.as_bytes()).map_err(|refusal| refusal.code)?;
        fields.number("temperature", (0.0, 2.0), 1.0).map_err(|refusal| refusal.code)?;
        fields.finish().map_err(|refusal| refusal.code)
    }

    #[test]
    fn keys_that_change_the_answer_are_refused() {
        for (body, expected) in [
            ("{}", Ok(())),
            (r#"{"temperature": 2}"#, Ok(())),
            (r#"{"temperature": null, "user": "me", "store": true}"#, Ok(())),
            (r#"{"tools": [], "echo": false, "logit_bias": {}, "presence_penalty": 0.0}"#, Ok(())),
            (r#"{"response_format": {"type": "text"}, "tool_choice": "auto"}"#, Ok(())),
            (r#"{"temperature": 2.1}"#, Err("invalid_value")),
            (r#"{"temperature": "hot"}"#, Err("invalid_value")),
            (r#"{"tools": [1]}"#, Err("unsupported_key")),
            (r#"{"echo": true}"#, Err("unsupported_key")),
            (r#"{"tool_choice": "required"}"#, Err("unsupported_key")),
            (r#"{"response_format": {"type": "json_object"}}"#, Err("unsupported_key")),
            (r#"{"temprature": 1}"#, Err("unknown_key")),
            ("[]", Err("invalid_json")),
            (r#"{"temperature" 1}"#, Err("invalid_json")),
        ] {
            assert_eq!(code(body), expected, "{body}");
        }
    }

    #[test]
    fn places_and_likely_names_are_said() {
        let refusal = Fields::parse(b"{\n \"a\" 1}").err().unwrap();
        assert!(refusal.message.contains("line 2 column 6"), "{}", refusal.message);
        let mut fields = Fields::parse(br#"{"max_token": 1}"#).unwrap();
        assert_eq!(fields.take::<u32>("max_tokens").unwrap(), None);
        let refusal = fields.finish().unwrap_err();
        assert!(refusal.message.ends_with("did you mean `max_tokens`?"), "{}", refusal.message);
    }
}
