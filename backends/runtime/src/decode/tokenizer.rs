//! Between text and token ids.

use crate::error::Error;

/// Text to token ids and back.
pub trait Tokenizer: Send + Sync {
    /// Ids are below this. A model may have more, as padding; they are never drawn.
    fn vocab_size(&self) -> u32;

    /// The tokens of a text.
    ///
    /// # Errors
    ///
    /// A text that has none.
    fn encode(&self, text: &str) -> Result<Vec<u32>, Error>;

    /// The tokens of a text that has its special tokens in it already, as templates for chats write them.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode`].
    fn encode_rendered(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.encode(text)
    }

    /// The text of tokens as UTF-8, which may begin and end within a character. What the first tokens give does not
    /// depend on how many follow.
    fn decode(&self, tokens: &[u32]) -> Vec<u8>;

    /// Tokens after which nothing follows; they are no text.
    fn ends(&self) -> &[u32];
}

/// Each byte is a token.
#[derive(Clone, Copy, Debug)]
pub struct Bytes;

impl Bytes {
    /// The tokenizer of a model with as many tokens as there are bytes.
    ///
    /// # Errors
    ///
    /// [`Error::PromptVocabulary`] for any other.
    pub fn of(vocab_size: u32) -> Result<Self, Error> {
        if vocab_size == Self.vocab_size() { Ok(Self) } else { Err(Error::PromptVocabulary { vocab_size }) }
    }
}

impl Tokenizer for Bytes {
    fn vocab_size(&self) -> u32 {
        256
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        Ok(text.bytes().map(u32::from).collect())
    }

    fn decode(&self, tokens: &[u32]) -> Vec<u8> {
        tokens.iter().map(|token| *token as u8).collect()
    }

    fn ends(&self) -> &[u32] {
        &[]
    }
}
