//! Tokenizers and chat templates as checkpoints of Hugging Face have them in their files.

use std::path::Path;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind};
use serde_json::{Map, Value};
use skipc_artifact::section::LANGUAGE_BYTES;

use super::files::Files;
use super::python_json::tojson;
use super::tokenizer::Tokenizer;
use crate::error::Error;
use crate::file::read_limited;

/// The file of a tokenizer.
pub(super) const TOKENIZER: &str = "tokenizer.json";

/// Names of special tokens, and the template for chats.
const CONFIG: &str = "tokenizer_config.json";

/// Which tokens end a sequence.
const GENERATION: &str = "generation_config.json";

/// The same, where there is no such file.
const MODEL: &str = "config.json";

/// The template for chats, where it has a file of its own.
const TEMPLATE: &str = "chat_template.jinja";

/// Special tokens that templates may name.
const SPECIAL: [&str; 5] = ["bos_token", "eos_token", "pad_token", "unk_token", "sep_token"];

/// A tokenizer.json with the tokens at which sequences end.
struct HuggingFace {
    inner: tokenizers::Tokenizer,
    vocab_size: u32,
    ends: Vec<u32>,
}

/// The tokenizer of the file `name`, with what the files beside it say about it.
///
/// # Errors
///
/// [`Error::Tokenizer`].
pub(super) fn open(files: &Files, name: &str) -> Result<Arc<dyn Tokenizer>, Error> {
    let bytes = files.read(name)?;
    let wrong =
        |error: tokenizers::Error| Error::Tokenizer { path: files.place(name), reason: error.to_string() };
    // The library takes it for granted that parts of a file are JSON, and panics where one is not.
    let is_json = serde_json::from_slice::<Value>(&bytes).map(drop);
    is_json.map_err(|error| wrong(error.into()))?;
    let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(wrong)?;
    // Prompts are cut and padded nowhere, whatever the tokenizer was trained with.
    inner.with_padding(None).with_truncation(None).map_err(wrong)?;
    let ids = inner.get_vocab(true).into_values();
    let vocab_size = ids.max().map_or(0, |last| last.saturating_add(1));
    let ends = ends(&inner, files)?;
    Ok(Arc::new(HuggingFace { inner, vocab_size, ends }))
}

/// The ids in generation_config.json, without one in config.json, and that of the token which tokenizer_config.json names.
fn ends(inner: &tokenizers::Tokenizer, files: &Files) -> Result<Vec<u32>, Error> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let mut ends: Vec<u32> =
        match object(files, if files.has(GENERATION) { GENERATION } else { MODEL })?.get("eos_token_id") {
            Some(Value::Array(ids)) => ids.iter().filter_map(id).collect(),
            Some(one) => id(one).into_iter().collect(),
            None => Vec::new(),
        };
    let config = object(files, CONFIG)?;
    ends.extend(config.get("eos_token").and_then(name).and_then(|name| inner.token_to_id(name)));
    ends.sort_unstable();
    ends.dedup();
    Ok(ends)
}

/// A special token is its name, or an object with it.
fn name(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

/// The JSON object in a file; an empty one if there is no such file.
fn object(files: &Files, name: &str) -> Result<Map<String, Value>, Error> {
    if !files.has(name) {
        return Ok(Map::new());
    }
    let read = serde_json::from_slice(&files.read(name)?);
    read.map_err(|error| Error::Tokenizer { path: files.place(name), reason: error.to_string() })
}

impl HuggingFace {
    fn ids(&self, text: &str, adds_special: bool) -> Result<Vec<u32>, Error> {
        let encoded = self.inner.encode_fast(text, adds_special);
        let encoded = encoded
            .map_err(|error| Error::Tokenizer { path: TOKENIZER.into(), reason: error.to_string() })?;
        Ok(encoded.get_ids().to_vec())
    }
}

impl Tokenizer for HuggingFace {
    fn vocab_size(&self) -> u32 {
        self.vocab_size
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.ids(text, true)
    }

    fn encode_rendered(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.ids(text, false)
    }

    /// Without a character at the end of which bytes are missing: it comes with the token that completes it.
    fn decode(&self, tokens: &[u32]) -> Vec<u8> {
        // Only ids that it does not know are an error, and they are no text.
        let text = self.inner.decode(tokens, true).unwrap_or_default();
        text.trim_end_matches(char::REPLACEMENT_CHARACTER).as_bytes().to_vec()
    }

    fn ends(&self) -> &[u32] {
        &self.ends
    }
}

/// Most instructions that a template may take, and bytes of a prompt: a template is anyone's. A long chat takes some thousands.
const MOST_STEPS: u64 = 10_000_000;
const MOST_BYTES: usize = 1 << 26;

/// Makes a prompt of the messages of a chat.
pub struct ChatTemplate {
    environment: Environment<'static>,
    special: Map<String, Value>,
}

impl ChatTemplate {
    /// The template that is named, or that of the files: in chat_template.jinja, or in tokenizer_config.json.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] for a file that cannot be read, [`Error::ChatTemplate`] for a template that is none.
    pub(super) fn find(files: &Files, named: Option<&Path>) -> Result<Option<Self>, Error> {
        let config = object(files, CONFIG)?;
        let own = match named {
            Some(path) => Some(read_limited(path, LANGUAGE_BYTES)?),
            None if files.has(TEMPLATE) => Some(files.read(TEMPLATE)?),
            None => None,
        };
        let source = match (own, config.get("chat_template")) {
            (Some(bytes), _) => Some(String::from_utf8(bytes).map_err(|error| wrong_template(&error))?),
            (None, Some(Value::String(source))) => Some(source.clone()),
            (None, Some(Value::Array(several))) => {
                let default = several.iter().find(|one| one["name"] == "default").or(several.first());
                default.and_then(|one| Some(one.get("template")?.as_str()?.to_owned()))
            }
            (None, _) => None,
        };
        source.map(|source| Self::new(source, &config)).transpose()
    }

    fn new(source: String, config: &Map<String, Value>) -> Result<Self, Error> {
        let mut environment = Environment::new();
        environment.set_fuel(Some(MOST_STEPS));
        let mut syntax = SyntaxConfig::builder();
        syntax.trim_blocks(true).lstrip_blocks(true);
        environment.set_syntax(syntax.build().map_err(|error| wrong_template(&error))?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        let refuse =
            |reason: String| Err::<String, _>(minijinja::Error::new(ErrorKind::InvalidOperation, reason));
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", refuse);
        environment.add_template_owned("chat", source).map_err(|error| wrong_template(&error))?;
        let special = SPECIAL
            .iter()
            .filter_map(|key| Some(((*key).to_owned(), name(config.get(*key)?)?.into())))
            .collect();
        Ok(Self { environment, special })
    }

    /// The prompt that an answer to these messages continues. Each is an object with `role` and `content`.
    ///
    /// # Errors
    ///
    /// [`Error::ChatTemplate`] with what the template says against them.
    pub fn render(&self, messages: &[Value]) -> Result<String, Error> {
        let mut context = self.special.clone();
        context.insert("messages".into(), messages.into());
        context.insert("add_generation_prompt".into(), true.into());
        let template = self.environment.get_template("chat").map_err(|error| wrong_template(&error))?;
        let mut prompt = Prompt(Vec::new());
        let context = minijinja::Value::from(Serde(&context));
        template.render_captured_to(context, &mut prompt).map_err(|error| wrong_template(&error))?;
        String::from_utf8(prompt.0).map_err(|error| wrong_template(&error))
    }
}

/// What a template writes.
struct Prompt(Vec<u8>);

impl std::io::Write for Prompt {
    fn write(&mut self, part: &[u8]) -> std::io::Result<usize> {
        if self.0.len().saturating_add(part.len()) > MOST_BYTES {
            return Err(std::io::Error::other(format!("the prompt has more than {MOST_BYTES} bytes")));
        }
        self.0.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn wrong_template(error: &dyn std::fmt::Display) -> Error {
    Error::ChatTemplate { reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;
    use tempfile::TempDir;

    use super::super::language::LanguageFiles;
    use super::super::text::TextStream;
    use super::*;

    /// A template is anyone's: one that goes on, or writes on, is refused.
    #[test]
    fn templates_end() {
        let long = "{% set text = ['x' * 9000] * 9000 %}{{ text | join }}{{ text | join }}";
        let forever = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        for (source, reason) in [
            ("{{ messages | tojson(indent=4294967295) }}", "an indent of 4294967295, over 64"),
            (forever, "ran out of fuel"),
            (long, ""),
        ] {
            let template = ChatTemplate::new(source.to_owned(), &Map::new()).unwrap();
            let error = template.render(&[json!({"role": "user", "content": "hi"})]).unwrap_err();
            assert!(error.to_string().contains(reason), "{source}: {error}");
        }
    }

    /// A tokenizer of bytes as GPT-2 writes them, with their ids backwards, and one of a word, "the".
    fn files() -> (TempDir, LanguageFiles) {
        let folder = TempDir::new().unwrap();
        let printable = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
        let mut others = 256..;
        let mut vocab = Map::new();
        for byte in 0..256u32 {
            let code = if printable(&byte) { byte } else { others.next().unwrap() };
            vocab.insert(char::from_u32(code).unwrap().to_string(), json!(255 - byte));
        }
        vocab.extend([("th".to_owned(), json!(256)), ("the".to_owned(), json!(257))]);
        let special = |id: u32, content: &str| {
            json!({"id": id, "content": content, "special": true, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false})
        };
        let byte_level =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        let tokenizer = json!({
            "version": "1.0",
            "added_tokens": [special(258, "<s>"), special(259, "</s>")],
            "pre_tokenizer": byte_level,
            "decoder": byte_level,
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [258], "tokens": ["<s>"]}}},
            "model": {"type": "BPE", "vocab": vocab, "merges": ["t h", "th e"]},
        });
        let config = json!({"bos_token": "<s>", "eos_token": {"content": "</s>"},
            "chat_template": "{{ bos_token }}{% for m in messages %}\n[{{ m.role.upper() }}] {{ m['content'].strip() }}{{ eos_token }}\n{% endfor %}\n{% if add_generation_prompt %}>{% endif %}"});
        for (name, value) in
            [(TOKENIZER, &tokenizer), (CONFIG, &config), (GENERATION, &json!({"eos_token_id": [258]}))]
        {
            fs::write(folder.path().join(name), value.to_string()).unwrap();
        }
        let model = folder.path().join("m.skp");
        (folder, LanguageFiles { model, tokenizer: None, chat_template: None })
    }

    #[test]
    fn a_text_has_its_tokens_and_back() {
        let (_folder, files) = files();
        let tokenizer = files.tokenizer(260).unwrap();
        assert_eq!((tokenizer.vocab_size(), tokenizer.ends()), (260, &[258, 259][..]));
        let tokens = tokenizer.encode("the é").unwrap();
        assert_eq!(tokens, [258, 257, 255 - 32, 255 - 0xc3, 255 - 0xa9]);
        assert_eq!(tokenizer.encode_rendered("<s>e</s>").unwrap(), [258, 255 - 101, 259]);
        assert_eq!(tokenizer.decode(&tokens), "the é".as_bytes());
        assert_eq!(tokenizer.decode(&tokens[..4]), b"the ", "half a character");
        let mut stream = TextStream::new(tokenizer, &tokens[..1]);
        let pieces: Vec<String> = tokens[1..].iter().map(|token| stream.push(*token)).collect();
        assert_eq!(pieces, ["the", " ", "", "é"]);
    }

    #[test]
    fn files_of_other_models_are_refused() {
        let (folder, files) = files();
        let code = |error: Option<Error>| error.map(|error| error.code());
        assert_eq!(code(files.tokenizer(259).err()), Some("run::tokenizer"));
        assert_eq!(files.tokenizer(256).unwrap().vocab_size(), 256, "bytes need no file");
        let named = |name: &str| LanguageFiles { tokenizer: Some(folder.path().join(name)), ..files.clone() };
        assert_eq!(named(TOKENIZER).tokenizer(300).unwrap().vocab_size(), 260);
        assert_eq!(named("").tokenizer(300).unwrap().vocab_size(), 260);
        assert_eq!(code(named("other.json").tokenizer(300).err()), Some("run::io"));
        fs::write(folder.path().join(TOKENIZER), "{}").unwrap();
        assert_eq!(code(files.tokenizer(260).err()), Some("run::tokenizer"));
        fs::remove_file(folder.path().join(TOKENIZER)).unwrap();
        assert_eq!(code(files.tokenizer(260).err()), Some("run::prompt-vocabulary"));
    }

    #[test]
    fn a_chat_is_rendered_by_its_template() {
        let (folder, files) = files();
        let messages =
            [json!({"role": "user", "content": " hi "}), json!({"role": "system", "content": "x"})];
        let render = |files: &LanguageFiles| files.chat_template().unwrap().unwrap().render(&messages);
        assert_eq!(render(&files).unwrap(), "<s>[USER] hi</s>\n[SYSTEM] x</s>\n>");
        fs::write(folder.path().join("refuses"), "{{ raise_exception('no ' + messages[1].role) }}").unwrap();
        let named =
            |name: &str| LanguageFiles { chat_template: Some(folder.path().join(name)), ..files.clone() };
        let error = render(&named("refuses")).unwrap_err();
        assert!(error.code() == "run::chat-template" && error.to_string().contains("no system"), "{error}");
        fs::write(folder.path().join("broken"), "{% for %}").unwrap();
        assert_eq!(named("broken").chat_template().err().unwrap().code(), "run::chat-template");
        fs::write(folder.path().join(TEMPLATE), "own").unwrap();
        assert_eq!(render(&files).unwrap(), "own");
        fs::remove_file(folder.path().join(TEMPLATE)).unwrap();
        fs::remove_file(folder.path().join(CONFIG)).unwrap();
        assert!(files.chat_template().unwrap().is_none());
    }
}
