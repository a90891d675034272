//! What stands between a model and people: its tokenizer, and the template that makes a prompt of a chat.

use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(feature = "tokenizers")]
use super::checkpoint;
use super::files::Files;
#[cfg(not(feature = "tokenizers"))]
use super::no_checkpoint as checkpoint;
use super::tokenizer::{Bytes, Tokenizer};
use crate::error::Error;
use crate::model::Model;

pub use checkpoint::ChatTemplate;

/// Where tokenizer and template of a model are looked for.
#[derive(Clone, Debug)]
pub struct LanguageFiles {
    /// The artefact. What is not named is in it, or lies beside it.
    pub model: PathBuf,
    /// A tokenizer.json, or the folder that has one.
    pub tokenizer: Option<PathBuf>,
    /// A template for chats, instead of that of the tokenizer's folder.
    pub chat_template: Option<PathBuf>,
}

impl LanguageFiles {
    /// The tokenizer of a model of `vocab_size` tokens: what is named; that in the artefact; for a model of 256 tokens, their
    /// bytes; or the tokenizer.json beside the artefact.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`], or [`Error::PromptVocabulary`] if there is none.
    pub fn tokenizer(&self, vocab_size: u32) -> Result<Arc<dyn Tokenizer>, Error> {
        let files = self.files()?;
        let name = match self.tokenizer.as_deref().filter(|path| !path.is_dir()).and_then(Path::file_name) {
            Some(name) => &*name.to_string_lossy(),
            None => checkpoint::TOKENIZER,
        };
        if self.tokenizer.is_none() && matches!(files, Files::Folder(_)) {
            match Bytes::of(vocab_size) {
                Ok(bytes) => return Ok(Arc::new(bytes)),
                Err(error) if !files.has(name) => return Err(error),
                Err(_) => {}
            }
        }
        open(&files, name, vocab_size)
    }

    /// The tokenizer of a model of `vocab_size` tokens that is loaded from memory: what is named, that in the artefact, or
    /// bytes. `model` is what users call it.
    ///
    /// # Errors
    ///
    /// As [`LanguageFiles::tokenizer`].
    pub fn tokenizer_of_loaded(&self, model: &Model, vocab_size: u32) -> Result<Arc<dyn Tokenizer>, Error> {
        let files = Files::of_loaded(model, &self.model, checkpoint::TOKENIZER);
        match files.filter(|_| self.tokenizer.is_none()) {
            Some(files) => open(&files, checkpoint::TOKENIZER, vocab_size),
            None => self.tokenizer(vocab_size),
        }
    }

    /// The tokenizer that a model has in itself, or bytes if it has 256 tokens; none otherwise.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`].
    pub fn tokenizer_within(model: &Model, vocab_size: u32) -> Result<Option<Arc<dyn Tokenizer>>, Error> {
        let name = Path::new(&model.artifact().manifest().model);
        match Files::of_loaded(model, name, checkpoint::TOKENIZER) {
            Some(files) => open(&files, checkpoint::TOKENIZER, vocab_size).map(Some),
            None => Ok(Bytes::of(vocab_size).ok().map(|bytes| Arc::new(bytes) as _)),
        }
    }

    /// The template for chats, if the model has one.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] for a file that cannot be read; [`Error::ChatTemplate`] for a template that is none.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>, Error> {
        ChatTemplate::find(&self.files()?, self.chat_template.as_deref())
    }

    /// Where files that are not named are.
    fn files(&self) -> Result<Files, Error> {
        let folder = match &self.tokenizer {
            Some(path) if path.is_dir() => path,
            Some(path) => path.parent().unwrap_or(path),
            None => match Files::within(&self.model, checkpoint::TOKENIZER)? {
                Some(files) => return Ok(files),
                None => self.model.parent().unwrap_or(&self.model),
            },
        };
        Ok(Files::Folder(folder.into()))
    }
}

/// The tokenizer in a file called `name`, of a model of `vocab_size` tokens.
fn open(files: &Files, name: &str, vocab_size: u32) -> Result<Arc<dyn Tokenizer>, Error> {
    let tokenizer = checkpoint::open(files, name)?;
    let known = tokenizer.vocab_size();
    if known > vocab_size {
        let reason = format!("it has {known} tokens, the model {vocab_size}: it is of another model");
        return Err(Error::Tokenizer { path: files.place(name), reason });
    }
    Ok(tokenizer)
}
