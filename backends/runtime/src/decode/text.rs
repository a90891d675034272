//! Text that comes token by token: whole characters only, up to a stop string.

use std::sync::Arc;

use super::tokenizer::Tokenizer;

/// Bytes to whole characters; what is not UTF-8 becomes U+FFFD, as [`String::from_utf8_lossy`] has it.
#[derive(Clone, Debug, Default)]
pub struct Characters {
    /// Begins a character.
    pending: Vec<u8>,
}

impl Characters {
    /// The characters that these bytes complete.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut done = 0;
        for chunk in self.pending.utf8_chunks() {
            text.push_str(chunk.valid());
            done += chunk.valid().len();
            if chunk.invalid().is_empty() {
                continue;
            }
            let rest = &self.pending[done..];
            // Invalid only because it ends here?
            if std::str::from_utf8(rest).is_err_and(|error| error.error_len().is_none()) {
                break;
            }
            text.push(char::REPLACEMENT_CHARACTER);
            done += chunk.invalid().len();
        }
        self.pending.drain(..done);
        text
    }

    /// The end: a character that is not complete becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}

/// Text of a continuation, token by token. All pieces together are the text of all its tokens.
pub struct TextStream {
    tokenizer: Arc<dyn Tokenizer>,
    /// The last tokens: those before the newest show in which context it stands.
    context: Vec<u32>,
    characters: Characters,
}

/// Tokens of context for the text of the next: a word of most tokenizers is shorter.
const CONTEXT: usize = 8;

impl TextStream {
    /// The text that follows a prompt.
    #[must_use]
    pub fn new(tokenizer: Arc<dyn Tokenizer>, prompt: &[u32]) -> Self {
        let context = prompt[prompt.len().saturating_sub(CONTEXT)..].to_vec();
        Self { tokenizer, context, characters: Characters::default() }
    }

    /// The characters that this token completes; none for one that ends the sequence.
    pub fn push(&mut self, token: u32) -> String {
        if self.tokenizer.ends().contains(&token) {
            return String::new();
        }
        let before = self.tokenizer.decode(&self.context).len();
        self.context.push(token);
        let mut bytes = self.tokenizer.decode(&self.context);
        let bytes = bytes.split_off(before.min(bytes.len()));
        if self.context.len() > CONTEXT {
            self.context.remove(0);
        }
        self.characters.push(&bytes)
    }

    /// The end; see [`Characters::finish`].
    pub fn finish(&mut self) -> String {
        self.characters.finish()
    }
}

/// Looks for strings at which a text ends, however it is cut into pieces.
#[derive(Clone, Debug, Default)]
pub struct StopFilter {
    stops: Vec<String>,
    /// May be the beginning of a stop string.
    held: String,
}

impl StopFilter {
    /// Stops before the first of these that is complete; empty ones are ignored.
    #[must_use]
    pub fn new(stops: &[String]) -> Self {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        Self { stops, held: String::new() }
    }

    /// The text that can be shown, and whether it ends there.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        let seen = self.held.len();
        self.held.push_str(text);
        let ends = self.held[seen..].char_indices().map(|(at, char)| seen + at + char.len_utf8());
        for end in ends {
            let complete = self.stops.iter().filter(|stop| self.held[..end].ends_with(stop.as_str()));
            if let Some(longest) = complete.map(String::len).max() {
                self.held.truncate(end - longest);
                return (std::mem::take(&mut self.held), true);
            }
        }
        let is_open = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        let starts = self.held.char_indices().map(|(at, _)| at);
        let held = starts.into_iter().find(is_open).unwrap_or(self.held.len());
        let rest = self.held.split_off(held);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// The end: what was held back.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tokenizer::Bytes;
    use super::*;

    fn streamed(tokens: &[u32]) -> Vec<String> {
        let mut stream = TextStream::new(Arc::new(Bytes), &[104, 105]);
        let mut pieces: Vec<String> = tokens.iter().map(|token| stream.push(*token)).collect();
        pieces.push(stream.finish());
        pieces
    }

    #[test]
    fn characters_come_whole() {
        let tokens: Vec<u32> = "aß€😀".bytes().map(u32::from).collect();
        let pieces = streamed(&tokens);
        assert_eq!(pieces, ["a", "", "ß", "", "", "€", "", "", "", "😀", ""]);
        assert_eq!(streamed(&[0xe2, 0x82]), ["", "", "\u{fffd}"]);
        assert_eq!(streamed(&[0xe2, 65]), ["", "\u{fffd}A", ""]);
    }

    /// Ids of 100 and more end; the others are words that a space joins, but for the first.
    struct Words;

    impl Tokenizer for Words {
        fn vocab_size(&self) -> u32 {
            200
        }

        fn encode(&self, _: &str) -> Result<Vec<u32>, crate::Error> {
            Ok(vec![])
        }

        fn decode(&self, tokens: &[u32]) -> Vec<u8> {
            let words: Vec<String> = tokens.iter().map(|token| format!("w{token}")).collect();
            words.join(" ").into_bytes()
        }

        fn ends(&self) -> &[u32] {
            &[100, 101]
        }
    }

    #[test]
    fn a_token_is_read_in_its_context() {
        let mut stream = TextStream::new(Arc::new(Words), &[1]);
        let text: String = (2..30).map(|token| stream.push(token)).collect();
        let whole: String = (2..30).map(|token| format!(" w{token}")).collect();
        assert_eq!(text, whole);
        assert_eq!(
            (stream.push(100), stream.push(101), stream.finish()),
            (String::new(), String::new(), String::new())
        );
        assert_eq!(TextStream::new(Arc::new(Words), &[]).push(5), "w5");
    }

    fn filtered(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(ToString::to_string).collect();
        let mut filter = StopFilter::new(&stops);
        let mut shown = String::new();
        for piece in pieces {
            let (text, stopped) = filter.push(piece);
            shown += &text;
            if stopped {
                return (shown, true);
            }
        }
        (shown + &filter.finish(), false)
    }

    #[test]
    fn stop_strings_may_be_cut_anywhere() {
        assert_eq!(filtered(&["END"], &["abc E", "N", "D def"]), ("abc ".into(), true));
        assert_eq!(filtered(&["END"], &["abc EN", "E"]), ("abc ENE".into(), false));
        assert_eq!(filtered(&["END"], &["ENEN", "D"]), ("EN".into(), true));
        assert_eq!(filtered(&["", "b"], &["a"]), ("a".into(), false));
        assert_eq!(filtered(&["c", "abc"], &["xabc"]), ("x".into(), true));
        assert_eq!(filtered(&["bc", "abcd"], &["xabcd"]), ("xa".into(), true), "the first that is complete");
        assert_eq!(filtered(&["€"], &["1 €"]), ("1 ".into(), true));
    }

    proptest! {
        #[test]
        fn pieces_of_any_bytes_are_the_whole(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let tokens: Vec<u32> = bytes.iter().map(|byte| u32::from(*byte)).collect();
            prop_assert_eq!(streamed(&tokens).concat(), String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn characters_cut_anywhere_are_the_whole(text in "[a€😀]{0,12}", cuts in prop::collection::vec(0usize..40, 0..4)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            let mut characters = Characters::default();
            let (mut out, mut from) = (String::new(), 0);
            for cut in cuts.into_iter().chain([text.len()]) {
                out += &characters.push(&text.as_bytes()[from..cut]);
                from = cut;
            }
            prop_assert_eq!(out + &characters.finish(), text);
        }

        /// Every cut of a text into pieces stops at the same place as the text as a whole.
        #[test]
        fn stops_do_not_depend_on_the_cut(
            text in "[ab]{0,16}",
            stops in prop::collection::vec("[ab]{1,4}", 0..3),
            cut in 0usize..17,
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let whole = filtered(&stops, &[&text]);
            let single: Vec<&str> = text.split("").collect();
            prop_assert_eq!(&filtered(&stops, &single), &whole);
            let cut = cut.min(text.len());
            prop_assert_eq!(&filtered(&stops, &[&text[..cut], &text[cut..]]), &whole);
            let has_stop = stops.iter().any(|stop| text.contains(stop));
            prop_assert_eq!(whole.1, has_stop);
            prop_assert!(has_stop || whole.0 == text);
        }
    }
}
