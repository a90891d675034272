//! What stands between a model and people: its tokenizer, and the template that makes a prompt of a chat.

use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(feature = "tokenizers")]
use super::checkpoint as files;
#[cfg(not(feature = "tokenizers"))]
use super::no_checkpoint as files;
use super::tokenizer::{Bytes, Tokenizer};
use crate::error::Error;

pub use files::ChatTemplate;

/// Where tokenizer and template of a model are looked for.
#[derive(Clone, Debug)]
pub struct LanguageFiles {
    /// The artefact. What is not named lies beside it.
    pub model: PathBuf,
    /// A tokenizer.json, or the folder that has one.
    pub tokenizer: Option<PathBuf>,
    /// A template for chats, instead of that of the tokenizer's folder.
    pub chat_template: Option<PathBuf>,
}

impl LanguageFiles {
    /// The tokenizer of a model of `vocab_size` tokens: what is named; for a model of 256 tokens, their bytes; or the
    /// tokenizer.json beside the artefact.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`], or [`Error::PromptVocabulary`] if there is none.
    pub fn tokenizer(&self, vocab_size: u32) -> Result<Arc<dyn Tokenizer>, Error> {
        let beside = self.folder().join(files::TOKENIZER);
        let path = match &self.tokenizer {
            Some(path) if path.is_dir() => beside,
            Some(path) => path.clone(),
            None => match Bytes::of(vocab_size) {
                Ok(bytes) => return Ok(Arc::new(bytes)),
                Err(error) if !beside.is_file() => return Err(error),
                Err(_) => beside,
            },
        };
        let tokenizer = files::open(&path)?;
        let known = tokenizer.vocab_size();
        if known > vocab_size {
            let reason = format!("it has {known} tokens, the model {vocab_size}: it is of another model");
            return Err(Error::Tokenizer { path, reason });
        }
        Ok(tokenizer)
    }

    /// The template for chats, if the model has one.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] for a file that cannot be read; [`Error::ChatTemplate`] for a template that is none.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>, Error> {
        ChatTemplate::find(self.folder(), self.chat_template.as_deref())
    }

    /// Where files that are not named are.
    fn folder(&self) -> &Path {
        match &self.tokenizer {
            Some(path) if path.is_dir() => path,
            Some(path) => path.parent().unwrap_or(path),
            None => self.model.parent().unwrap_or(&self.model),
        }
    }
}
