//! What a decoder with caches has to get right about its sequences, each thing by itself, so that tests can get it wrong.

/// The decisions of a [`Cached`](super::Cached) that nothing but their results shows to be right. As they are written here they
/// are right; tests of tests plant a fault in one of them.
pub trait Bookkeeping {
    /// The position of the next token of a sequence that has so many.
    fn next_position(&self, length: u32) -> u32 {
        length
    }

    /// Which row of its sequence in the caches the next token of one that has so many takes.
    fn next_row(&self, length: u32) -> u32 {
        length
    }

    /// The pages in which a step looks for the tokens of a sequence that has these.
    fn seen_pages(&self, pages: &[u32]) -> Vec<u32> {
        pages.to_vec()
    }

    /// Whether a page that is written to has to be copied first, which others have, too, or not.
    fn copies(&self, is_shared: bool) -> bool {
        is_shared
    }

    /// The first position that waits behind a step, before which it was the one and has become the other.
    fn waits_from(&self, _before: u32, after: u32) -> u32 {
        after
    }

    /// The first position that waits of a sequence that is cut to so many tokens.
    fn waits_in(&self, first: u32, length: u32) -> u32 {
        first.min(length)
    }
}

/// Does all of it right.
#[derive(Clone, Copy, Debug, Default)]
pub struct Right;

impl Bookkeeping for Right {}
