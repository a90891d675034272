//! In place of what reads the files of checkpoints, in a build without the feature `tokenizers`.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use super::files::Files;
use super::tokenizer::Tokenizer;
use crate::error::Error;

pub(super) const TOKENIZER: &str = "tokenizer.json";

fn missing(path: &Path) -> Error {
    let reason = "this program was built without the feature `tokenizers`; `skipc` has it".into();
    Error::Tokenizer { path: path.into(), reason }
}

pub(super) fn open(files: &Files, name: &str) -> Result<Arc<dyn Tokenizer>, Error> {
    Err(missing(&files.place(name)))
}

/// A template, of which there is none in this build.
pub struct ChatTemplate(Infallible);

impl ChatTemplate {
    pub(super) fn find(files: &Files, named: Option<&Path>) -> Result<Option<Self>, Error> {
        Err(missing(named.unwrap_or(&files.place(TOKENIZER))))
    }

    /// See the build with the feature.
    ///
    /// # Errors
    ///
    /// None: there is no template.
    pub fn render(&self, _messages: &[serde_json::Value]) -> Result<String, Error> {
        match self.0 {}
    }
}
