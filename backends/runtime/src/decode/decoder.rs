//! One step of generation.

use crate::choices::Choices;
use crate::error::Error;

/// A place for one sequence that is being generated, by its number below [`Limits::slots`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// What a decoder can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many slots there are.
    pub slots: u32,
    /// Most tokens of one slot.
    pub positions: u32,
    /// Token ids are below this; a row of logits has as many numbers.
    pub vocab_size: u32,
    /// Most tokens of one step, all chunks together.
    pub step_tokens: u32,
}

impl Limits {
    /// Refuses what no step may be made of, whatever its slots hold.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyTokens`]; [`Error::TokenRange`]; [`Error::Slot`] for a chunk without tokens, and for two of one
    /// slot.
    pub fn check(&self, chunks: &[Chunk<'_>]) -> Result<(), Error> {
        let found = chunks.iter().map(|chunk| chunk.tokens.len() as u64).sum();
        if found > u64::from(self.step_tokens) {
            return Err(Error::TooManyTokens { found, limit: self.step_tokens });
        }
        for (idx, Chunk { slot, tokens, .. }) in chunks.iter().enumerate() {
            if tokens.is_empty() {
                return Err(Error::Slot { slot: slot.0, reason: "its chunk has no tokens" });
            }
            if chunks[..idx].iter().any(|chunk| chunk.slot == *slot) {
                return Err(Error::Slot { slot: slot.0, reason: "it has two chunks in one step" });
            }
        }
        let vocab_size = self.vocab_size;
        let tokens = chunks.iter().flat_map(|chunk| chunk.tokens);
        match tokens.enumerate().find(|&(_, &token)| token >= vocab_size) {
            Some((at, &found)) => Err(Error::TokenRange { found, at, vocab_size }),
            None => Ok(()),
        }
    }
}

/// Of which of its tokens a chunk wants the logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Of none.
    None,
    /// Of the last.
    Last,
    /// Of each.
    All,
}

/// The next tokens of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// The slot. No two chunks of a step have the same.
    pub slot: Slot,
    /// Its next tokens, at least one.
    pub tokens: &'a [u32],
    /// Of which of them the logits are wanted.
    pub rows: Rows,
}

/// What a step computed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepOutputs {
    /// `[wanted rows, vocab_size]`, in the order of chunks and of their tokens. Not checked to be finite.
    pub logits: Vec<f32>,
    /// `[routers][new tokens]`, in model order and in that of chunks and their tokens: 1 where the token executed.
    pub gates: Vec<Vec<u8>>,
    /// How many of the new tokens each router wanted to execute beyond its capacity.
    pub overflow: Vec<u32>,
    /// Which choices the new tokens got in each layer of experts, in the order in which they run; empty unless
    /// [`Decoder::report_choices`] asked for them.
    pub choices: Vec<Choices>,
    /// For each router whose keys and values may wait, of how many tokens the step computed them, those that had waited
    /// included; empty where none may wait.
    pub computed: Vec<u32>,
}

/// How the pages of a decoder's caches are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageUse {
    /// Pages of sequences in slots.
    pub used: u32,
    /// Pages that no slot uses and that are kept for sequences that begin alike; they are given up where pages are
    /// needed.
    pub kept: u32,
    /// Pages with nothing in them.
    pub free: u32,
}

/// Runs the next tokens of sequences that stand in slots.
///
/// A slot is free, or holds a sequence with a committed length. For a causal model, steps over the tokens of a sequence
/// in any cut into chunks give the rows that the whole sequence gives, up to rounding, whatever the other slots hold. A
/// call that fails leaves all slots as they were.
///
/// The caller passes slots and lengths within the [`Limits`] and starts a slot before it uses it;
/// [`Error::Slot`] otherwise.
pub trait Decoder {
    /// What it can take; never changes.
    fn limits(&self) -> Limits;

    /// Begins an empty sequence in a free slot. `sequence` is its number for routers that decide by it; no decision
    /// depends on the slot.
    ///
    /// # Errors
    ///
    /// [`Error::Slot`] if the slot is not free.
    fn start(&mut self, slot: Slot, sequence: u32) -> Result<(), Error>;

    /// Begins a sequence in a free slot, with as many of these first tokens committed as are known from other sequences,
    /// never the last one. Returns how many: none, if the decoder keeps nothing.
    ///
    /// # Errors
    ///
    /// As [`Decoder::start`].
    fn resume(&mut self, slot: Slot, sequence: u32, _tokens: &[u32]) -> Result<u32, Error> {
        self.start(slot, sequence)?;
        Ok(0)
    }

    /// How its pages are used: none, if it has no caches.
    fn pages(&self) -> PageUse {
        PageUse::default()
    }

    /// Whether there is memory for what these chunks have to keep, which may be more tokens than a step takes. A free
    /// slot counts as empty.
    fn fits(&self, chunks: &[Chunk<'_>]) -> bool;

    /// Runs the next tokens of some slots and commits them.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyTokens`] over [`Limits::step_tokens`], [`Error::SequenceTooLong`] over [`Limits::positions`],
    /// [`Error::TokenRange`], or a fault of the device.
    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<StepOutputs, Error>;

    /// Says in all later steps which choices tokens got in layers of experts. One that knows of none says nothing.
    fn report_choices(&mut self) {}

    /// Whether routers have thresholds that a draft can move.
    fn can_draft(&self) -> bool {
        false
    }

    /// Whether the first chunk of a sequence has to be its prompt: later tokens keep what is decided of that.
    fn takes_whole_prompts(&self) -> bool {
        false
    }

    /// As [`Decoder::step`], but routers with a threshold let a token execute only where its score is above it by
    /// `margin`: the model with fewer layers. The tokens are committed as if they had been run by the model, so the
    /// caller takes them back with [`Decoder::truncate`].
    ///
    /// # Errors
    ///
    /// As [`Decoder::step`]; [`Error::Usage`] for a decoder that cannot draft.
    fn draft(&mut self, chunks: &[Chunk<'_>], margin: f32) -> Result<StepOutputs, Error> {
        let _ = (chunks, margin);
        Err(Error::Usage(NO_DRAFTS.into()))
    }

    /// Begins in the free slot `to` with what is committed in `from`, which both share until they differ.
    ///
    /// # Errors
    ///
    /// [`Error::Slot`].
    fn fork(&mut self, from: Slot, to: Slot) -> Result<(), Error>;

    /// Takes the tokens of a slot from `length` on back, as if they had never been run.
    ///
    /// # Errors
    ///
    /// [`Error::Slot`], also if fewer are committed.
    fn truncate(&mut self, slot: Slot, length: u32) -> Result<(), Error>;

    /// Ends a sequence; its slot is free then.
    ///
    /// # Errors
    ///
    /// [`Error::Slot`].
    fn free(&mut self, slot: Slot) -> Result<(), Error>;
}

/// What to say where nothing can be drafted.
pub(crate) const NO_DRAFTS: &str = "drafts need caches and a router with a threshold (gumbel, sigmoid or topk): the model has none that a draft could move";

impl<D: Decoder + ?Sized> Decoder for Box<D> {
    fn limits(&self) -> Limits {
        (**self).limits()
    }

    fn start(&mut self, slot: Slot, sequence: u32) -> Result<(), Error> {
        (**self).start(slot, sequence)
    }

    fn resume(&mut self, slot: Slot, sequence: u32, tokens: &[u32]) -> Result<u32, Error> {
        (**self).resume(slot, sequence, tokens)
    }

    fn pages(&self) -> PageUse {
        (**self).pages()
    }

    fn fits(&self, chunks: &[Chunk<'_>]) -> bool {
        (**self).fits(chunks)
    }

    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<StepOutputs, Error> {
        (**self).step(chunks)
    }

    fn report_choices(&mut self) {
        (**self).report_choices();
    }

    fn can_draft(&self) -> bool {
        (**self).can_draft()
    }

    fn takes_whole_prompts(&self) -> bool {
        (**self).takes_whole_prompts()
    }

    fn draft(&mut self, chunks: &[Chunk<'_>], margin: f32) -> Result<StepOutputs, Error> {
        (**self).draft(chunks, margin)
    }

    fn fork(&mut self, from: Slot, to: Slot) -> Result<(), Error> {
        (**self).fork(from, to)
    }

    fn truncate(&mut self, slot: Slot, length: u32) -> Result<(), Error> {
        (**self).truncate(slot, length)
    }

    fn free(&mut self, slot: Slot) -> Result<(), Error> {
        (**self).free(slot)
    }
}
