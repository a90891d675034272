//! A decoder with caches: a step computes its own tokens and finds what it needs of the earlier ones.

use skipc_artifact::interface::{Direction, Role, RouterPorts};
use skipc_artifact::pending;
use skipc_artifact::program::{Function, PAGE_ROWS, STEP};

use super::bookkeeping::{Bookkeeping, Right};
use super::decoder::{Chunk, Decoder, Limits, NO_DRAFTS, PageUse, Rows, Slot, StepOutputs};
use super::pages::Pages;
use super::prefixes::{Before, Prefixes};
use crate::choices;
use crate::error::Error;
use crate::module::{Module, State};

/// Sequences in slots, with what layers have to know of their tokens in pages of the state's caches. Slots that were
/// forked share pages until one of them writes.
#[derive(Debug)]
pub struct Cached<B = Right> {
    state: State,
    books: B,
    pages: Pages,
    /// If sequences that begin alike share pages.
    prefixes: Option<Prefixes>,
    slots: Vec<Option<Sequence>>,
    /// Tokens of a sequence whose keys and values may wait, if any may.
    most_pending: u32,
    reports_choices: bool,
}

/// Tokens of a sequence whose keys and values may wait, at most: beyond a few dozen a batch of them reads no less weights
/// for each.
const MOST_PENDING: u32 = 256;

#[derive(Clone, Debug)]
struct Sequence {
    number: u32,
    tokens: Vec<u32>,
    pages: Vec<u32>,
    /// The first position whose keys and values wait, for each router whose layers may leave them for later.
    pending: Vec<u32>,
    /// How many of the pages the store of prefixes knows.
    known: usize,
}

impl Sequence {
    fn length(&self) -> u32 {
        self.tokens.len() as u32
    }
}

impl Cached {
    /// A decoder of this many slots, with room for `cache_tokens` tokens of all of them together, in whole pages. Memory
    /// for them is taken now.
    ///
    /// # Errors
    ///
    /// [`Error::NoFunction`] if the program has none for steps; [`Error::CacheMemory`] if they do not fit; no memory.
    pub fn new(module: &Module, slots: u32, cache_tokens: u32) -> Result<Self, Error> {
        Self::with_books(module, (slots, cache_tokens), Right)
    }

    /// Bytes that a token takes in the caches.
    #[must_use]
    pub fn bytes_of_token(module: &Module) -> u64 {
        module.program().state_row_bytes
    }
}

impl<B: Bookkeeping> Cached<B> {
    /// As [`Cached::new`], with books that are kept otherwise.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn with_books(module: &Module, (slots, cache_tokens): (u32, u32), books: B) -> Result<Self, Error> {
        let function = module.function(STEP)?;
        let bytes = module.program().state_row_bytes * u64::from(cache_tokens);
        if let Some(available) = module.available_memory().filter(|available| bytes > *available) {
            return Err(Error::CacheMemory { tokens: cache_tokens, bytes, available });
        }
        // However all sequences wait, a step has room for what they leave and for half as many tokens as without.
        let most_pending = match n_waiting(function) {
            0 => 0,
            _ => (function.max_tokens / 2 / slots.max(1)).min(MOST_PENDING),
        };
        let state = module.state_with_cache(cache_tokens)?;
        let pages = Pages::new(state.cached_rows() / PAGE_ROWS);
        Ok(Self {
            state,
            books,
            pages,
            prefixes: None,
            slots: vec![None; slots as usize],
            most_pending,
            reports_choices: false,
        })
    }

    /// Keeps full pages when their sequences end, until others need them: sequences of the same number that
    /// [`resume`](Decoder::resume) with the same tokens find them. What is kept of a token is a function of the tokens up
    /// to it, so that nothing else has to be the same.
    #[must_use]
    pub fn sharing_prefixes(self) -> Self {
        // What later tokens keep of a whole prompt is no function of the tokens up to them.
        let prefixes = (!self.takes_whole_prompts()).then(Prefixes::default);
        Self { prefixes, ..self }
    }

    /// What it runs on.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    fn function(&self) -> &Function {
        // `new` has found it.
        &self.state.module().program().functions[STEP]
    }

    fn sequence(&self, slot: Slot) -> Result<&Sequence, Error> {
        let found = self.slots.get(slot.0 as usize).and_then(Option::as_ref);
        found.ok_or(Error::Slot { slot: slot.0, reason: "it holds no sequence" })
    }

    fn fill(&mut self, slot: Slot, sequence: Sequence) -> Result<(), Error> {
        match self.slots.get_mut(slot.0 as usize) {
            Some(place @ None) => {
                *place = Some(sequence);
                Ok(())
            }
            Some(Some(_)) => Err(Error::Slot { slot: slot.0, reason: "it is not free" }),
            None => Err(Error::Slot { slot: slot.0, reason: "there are not so many" }),
        }
    }

    /// How many pages a sequence needs for more tokens: new ones, and one for a last page that it may not write to.
    fn wants(&self, sequence: &Sequence, n_new: usize) -> usize {
        let all = (sequence.tokens.len() + n_new).div_ceil(PAGE_ROWS as usize);
        let copies = self.shared_end(sequence).is_some();
        all.saturating_sub(sequence.pages.len()) + usize::from(copies)
    }

    /// The page that the next token of a sequence goes to, if others have it, too.
    fn shared_end(&self, sequence: &Sequence) -> Option<u32> {
        let page = *sequence.pages.get((sequence.length() / PAGE_ROWS) as usize)?;
        self.books.copies(self.pages.is_shared(page)).then_some(page)
    }

    /// A page that nobody has, or else one that is only kept.
    fn take_page(&mut self) -> Option<u32> {
        if self.pages.n_free() == 0 {
            let pages = &self.pages;
            let oldest = self.prefixes.as_mut()?.forget_oldest(|page| pages.is_idle(page))?;
            self.pages.give_up(oldest);
        }
        self.pages.take()
    }

    /// Makes the full pages of a slot known in which nothing waits, so that nobody writes to a known page. Of two pages
    /// with the same tokens before and in them one is enough, so that who has a known page has those before it, too.
    fn keep_pages(&mut self, slot: Slot) {
        let Some(prefixes) = &mut self.prefixes else { return };
        let Some(sequence) = self.slots.get_mut(slot.0 as usize).and_then(Option::as_mut) else { return };
        let (full, _) = sequence.tokens.as_chunks();
        let n_complete =
            sequence.pending.iter().min().map_or(full.len(), |first| (first / PAGE_ROWS) as usize);
        for (idx, tokens) in full.iter().enumerate().take(n_complete).skip(sequence.known) {
            let before = match idx.checked_sub(1) {
                None => Before::Nothing(sequence.number),
                Some(before) => Before::Page(sequence.pages[before]),
            };
            let own = sequence.pages[idx];
            match prefixes.find(before, *tokens) {
                Some(known) => {
                    self.pages.share(known);
                    self.pages.release(own);
                    sequence.pages[idx] = known;
                }
                None => {
                    prefixes.insert((before, *tokens), own);
                    self.pages.keep(own);
                }
            }
            sequence.known = idx + 1;
        }
    }

    /// Gives a slot the pages for more tokens, its own where it is going to write.
    fn reserve(&mut self, slot: Slot, n_new: usize) -> Result<(), Error> {
        let full = Error::Slot { slot: slot.0, reason: "the cache has no page left for its tokens" };
        let sequence = self.sequence(slot)?.clone();
        let length = sequence.length();
        let mut pages = sequence.pages.clone();
        if let Some(shared) = self.shared_end(&sequence) {
            let own = self.take_page().ok_or(full)?;
            self.state.copy_cached(shared * PAGE_ROWS, own * PAGE_ROWS, length % PAGE_ROWS)?;
            pages[(length / PAGE_ROWS) as usize] = own;
            self.pages.release(shared);
        }
        let wanted = (length as usize + n_new).div_ceil(PAGE_ROWS as usize);
        let missing = wanted.saturating_sub(pages.len());
        pages.extend((0..missing).filter_map(|_| self.take_page()));
        if let Some(sequence) = self.slots.get_mut(slot.0 as usize).and_then(Option::as_mut) {
            sequence.pages = pages;
        }
        Ok(())
    }

    /// Runs the next tokens of some slots under these decisions, `[routers][new tokens]`, or else the routers' own. Makes no
    /// page known: what forced decisions leave in one is no function of its tokens.
    ///
    /// # Errors
    ///
    /// As [`Decoder::step`].
    pub fn step_forced(
        &mut self,
        chunks: &[Chunk<'_>],
        forced: Option<&[Vec<u8>]>,
    ) -> Result<StepOutputs, Error> {
        let routers = (0..).zip(self.function().interface.routers()).zip(forced.unwrap_or_default());
        let routed = routers.filter(|((_, ports), _)| matches!(ports, RouterPorts::Routed { .. }));
        let given = routed.map(|((router, _), decisions)| (Role::Forced { router }, decisions.clone()));
        let given = given.collect();
        self.step_with(chunks, given)
    }

    /// Runs the next tokens of some slots, with what else the function is given.
    fn step_with(&mut self, chunks: &[Chunk<'_>], more: Vec<(Role, Vec<u8>)>) -> Result<StepOutputs, Error> {
        self.check(chunks)?;
        for chunk in chunks {
            self.reserve(chunk.slot, chunk.tokens.len())?;
        }
        self.forget_unused()?;
        let mut inputs = self.inputs(chunks)?;
        inputs.extend(more);
        let routers: Vec<RouterPorts> = self.function().interface.routers();
        let n_tokens = chunks.iter().map(|chunk| chunk.tokens.len()).sum::<usize>();
        let mut wanted = Vec::new();
        for (router, ports) in (0..).zip(&routers) {
            wanted.push(Role::Decision { router });
            if let RouterPorts::Routed { wanted: Some(_), .. } = ports {
                wanted.push(Role::Wanted { router });
            }
        }
        let wants_logits = chunks.iter().any(|chunk| chunk.rows != Rows::None);
        wanted.extend(wants_logits.then_some(Role::Logits));
        let n_others = wanted.len();
        if self.reports_choices {
            wanted.extend(self.function().interface.choices().into_iter().map(|(role, _)| role));
        }
        let mut results = self.state.call(STEP, n_tokens as u32, &inputs, &wanted)?;
        let of_layers = results.split_off(n_others);
        let mut outputs = StepOutputs {
            overflow: vec![0; routers.len()],
            choices: choices::of_results(self.function(), of_layers),
            ..StepOutputs::default()
        };
        for (role, bytes) in wanted.iter().zip(results) {
            match *role {
                Role::Decision { .. } => outputs.gates.push(bytes),
                Role::Wanted { router } => {
                    let wanted = bytes.as_slice().try_into().map_or(0, u32::from_ne_bytes);
                    let executed =
                        outputs.gates.last().map_or(0, |gate| gate.iter().filter(|bit| **bit != 0).count());
                    outputs.overflow[router as usize] = wanted.saturating_sub(executed as u32);
                }
                _ => {
                    let words = bytes.as_chunks().0.iter();
                    outputs.logits = words.map(|word| f32::from_ne_bytes(*word)).collect();
                }
            }
        }
        outputs.computed = self.advance(chunks, &outputs.gates);
        Ok(outputs)
    }

    /// In a checked module, fills all rows of the caches with NaN in which no committed token is, so that no step can look at what
    /// others left there.
    fn forget_unused(&mut self) -> Result<(), Error> {
        if !self.state.module().is_checked() {
            return Ok(());
        }
        let mut committed: Vec<u32> = (0..self.pages.count() as u32)
            .map(|page| if self.pages.is_kept(page) { PAGE_ROWS } else { 0 })
            .collect();
        for sequence in self.slots.iter().flatten() {
            for (first, page) in (0..).step_by(PAGE_ROWS as usize).zip(&sequence.pages) {
                let rows = sequence.length().saturating_sub(first).min(PAGE_ROWS);
                let committed = &mut committed[*page as usize];
                *committed = rows.max(*committed);
            }
        }
        for (first, rows) in (0..).step_by(PAGE_ROWS as usize).zip(committed) {
            self.state.forget_cached(first + rows..first + PAGE_ROWS)?;
        }
        Ok(())
    }

    /// Notes that a step has run, under these decisions; gives of how many tokens it computed keys and values, by router.
    fn advance(&mut self, chunks: &[Chunk<'_>], gates: &[Vec<u8>]) -> Vec<u32> {
        let (most, mut first_row) = (self.most_pending, 0);
        let mut computed = vec![0; n_waiting(self.function()) as usize];
        for Chunk { slot, tokens, .. } in chunks {
            let rows = first_row..first_row + tokens.len();
            first_row = rows.end;
            if let Some(sequence) = self.slots.get_mut(slot.0 as usize).and_then(Option::as_mut) {
                sequence.tokens.extend_from_slice(tokens);
                let end = sequence.length();
                let waited = sequence.pending.clone();
                pending::advance(&mut sequence.pending, most, end, |router| {
                    let own = gates.get(router).and_then(|gate| gate.get(rows.clone()));
                    own.is_some_and(|own| own.contains(&1))
                });
                for ((sum, first), now) in computed.iter_mut().zip(waited).zip(&mut sequence.pending) {
                    *sum += now.saturating_sub(first);
                    *now = self.books.waits_from(first, *now);
                }
            }
        }
        computed
    }

    /// Refuses chunks that no step can be made of.
    fn check(&self, chunks: &[Chunk<'_>]) -> Result<(), Error> {
        let limits = self.limits();
        limits.check(chunks)?;
        for chunk in chunks {
            let found = u64::from(self.sequence(chunk.slot)?.length()) + chunk.tokens.len() as u64;
            if found > u64::from(limits.positions) {
                let sequence = chunk.slot.0 as usize;
                return Err(Error::SequenceTooLong { sequence, found, limit: limits.positions });
            }
        }
        if !self.fits(chunks) {
            let slot = chunks.first().map_or(0, |chunk| chunk.slot.0);
            return Err(Error::Slot {
                slot,
                reason: "the cache has no page left for the tokens of the step",
            });
        }
        Ok(())
    }

    /// What the caller gives for chunks whose slots have their pages.
    fn inputs(&self, chunks: &[Chunk<'_>]) -> Result<Vec<(Role, Vec<u8>)>, Error> {
        let n_pages = self.function().max_positions.div_ceil(PAGE_ROWS) as usize;
        let [mut tokens, mut positions, mut sequences, mut requests, mut places] =
            [(); 5].map(|()| Vec::new());
        let (mut pages, mut logit_rows) = (Vec::with_capacity(chunks.len() * n_pages), Vec::new());
        let mut pending = Vec::new();
        for (idx, Chunk { slot, tokens: new, rows }) in (0u32..).zip(chunks) {
            let sequence = self.sequence(*slot)?;
            let first_row = tokens.len() as u32;
            let [next_position, next_row] =
                [self.books.next_position(sequence.length()), self.books.next_row(sequence.length())];
            for ((&token, position), row) in new.iter().zip(next_position..).zip(next_row..) {
                let page = sequence.pages.get((row / PAGE_ROWS) as usize).copied().unwrap_or(u32::MAX);
                tokens.push(token);
                positions.push(position);
                sequences.push(idx);
                requests.push(sequence.number);
                places.push(page.wrapping_mul(PAGE_ROWS).wrapping_add(row % PAGE_ROWS));
            }
            let end = tokens.len() as u32;
            logit_rows.extend(match rows {
                Rows::None => end..end,
                Rows::Last => end - 1..end,
                Rows::All => first_row..end,
            });
            // What is past the pages of a sequence is not read.
            let own = self.books.seen_pages(&sequence.pages);
            let all = own.into_iter().chain(std::iter::repeat(u32::MAX));
            pages.extend(all.take(n_pages));
            pending.extend(sequence.pending.iter().copied().chain([self.most_pending]));
        }
        let given = [
            (Role::Tokens, tokens),
            (Role::Positions, positions),
            (Role::Sequences, sequences),
            (Role::Requests, requests),
            (Role::Places, places),
            (Role::Pages, pages),
            (Role::Pending, pending),
            (Role::LogitRows, logit_rows),
        ];
        let interface = &self.function().interface;
        let ports = given.into_iter().filter(|(role, _)| interface.buffer(role).is_some());
        Ok(ports.map(|(role, words)| (role, bytemuck::cast_slice(&words).to_vec())).collect())
    }
}

/// For how many routers keys and values may wait: all, or none.
fn n_waiting(function: &Function) -> u32 {
    let table = function.interface.buffer(&Role::Pending).and_then(|idx| function.buffers.get(idx as usize));
    table.map_or(0, |table| table.cols.saturating_sub(1))
}

impl<B: Bookkeeping> Decoder for Cached<B> {
    fn limits(&self) -> Limits {
        let Function { max_tokens, max_positions, vocab_size, .. } = *self.function();
        let slots = self.slots.len() as u32;
        let step_tokens = max_tokens - slots * self.most_pending;
        Limits { slots, positions: max_positions, vocab_size, step_tokens }
    }

    fn start(&mut self, slot: Slot, sequence: u32) -> Result<(), Error> {
        let pending = vec![0; n_waiting(self.function()) as usize];
        let (tokens, pages) = (Vec::new(), Vec::new());
        self.fill(slot, Sequence { number: sequence, tokens, pages, pending, known: 0 })
    }

    fn resume(&mut self, slot: Slot, sequence: u32, tokens: &[u32]) -> Result<u32, Error> {
        let mut pages = Vec::new();
        let mut before = Before::Nothing(sequence);
        // The last token runs, for its logits.
        let (full, _) = tokens[..tokens.len().saturating_sub(1)].as_chunks();
        for page_tokens in full {
            let Some(page) = self.prefixes.as_mut().and_then(|known| known.find(before, *page_tokens)) else {
                break;
            };
            pages.push(page);
            before = Before::Page(page);
        }
        let (known, n_known) = (pages.len(), pages.len() as u32 * PAGE_ROWS);
        let tokens = tokens[..n_known as usize].to_vec();
        // Nothing waits in a page that is known.
        let pending = vec![n_known; n_waiting(self.function()) as usize];
        self.fill(slot, Sequence { number: sequence, tokens, pages: pages.clone(), pending, known })?;
        pages.into_iter().for_each(|page| self.pages.share(page));
        Ok(n_known)
    }

    fn pages(&self) -> PageUse {
        let [used, kept, free] =
            [self.pages.n_used(), self.pages.n_idle(), self.pages.n_free()].map(|count| count as u32);
        PageUse { used, kept, free }
    }

    fn fits(&self, chunks: &[Chunk<'_>]) -> bool {
        let wants = |chunk: &Chunk<'_>| match self.sequence(chunk.slot) {
            Ok(sequence) => self.wants(sequence, chunk.tokens.len()),
            Err(_) => chunk.tokens.len().div_ceil(PAGE_ROWS as usize),
        };
        chunks.iter().map(wants).sum::<usize>() <= self.pages.n_free() + self.pages.n_idle()
    }

    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<StepOutputs, Error> {
        let outputs = self.step_with(chunks, Vec::new())?;
        chunks.iter().for_each(|chunk| self.keep_pages(chunk.slot));
        Ok(outputs)
    }

    fn takes_whole_prompts(&self) -> bool {
        let mut kept = self.function().interface.buffers(Direction::Kept);
        kept.any(|(role, _)| matches!(role, Role::PromptState { .. }))
    }

    fn report_choices(&mut self) {
        self.reports_choices = true;
    }

    fn can_draft(&self) -> bool {
        self.function().interface.buffer(&Role::Margins).is_some()
    }

    fn draft(&mut self, chunks: &[Chunk<'_>], margin: f32) -> Result<StepOutputs, Error> {
        if !self.can_draft() {
            return Err(Error::Usage(NO_DRAFTS.into()));
        }
        let n_tokens = chunks.iter().map(|chunk| chunk.tokens.len()).sum();
        let margins = vec![margin; n_tokens];
        self.step_with(chunks, vec![(Role::Margins, bytemuck::cast_slice(&margins).to_vec())])
    }

    fn fork(&mut self, from: Slot, to: Slot) -> Result<(), Error> {
        let sequence = self.sequence(from)?.clone();
        let pages = sequence.pages.clone();
        self.fill(to, sequence)?;
        pages.into_iter().for_each(|page| self.pages.share(page));
        Ok(())
    }

    fn truncate(&mut self, slot: Slot, length: u32) -> Result<(), Error> {
        if length > self.sequence(slot)?.length() {
            return Err(Error::Slot { slot: slot.0, reason: "it has fewer tokens" });
        }
        if let Some(sequence) = self.slots.get_mut(slot.0 as usize).and_then(Option::as_mut) {
            sequence.tokens.truncate(length as usize);
            sequence.known = sequence.known.min((length / PAGE_ROWS) as usize);
            sequence.pending.iter_mut().for_each(|first| *first = self.books.waits_in(*first, length));
            let kept = length.div_ceil(PAGE_ROWS) as usize;
            let rest = sequence.pages.split_off(kept.min(sequence.pages.len()));
            rest.into_iter().for_each(|page| self.pages.release(page));
        }
        Ok(())
    }

    fn free(&mut self, slot: Slot) -> Result<(), Error> {
        self.truncate(slot, 0)?;
        self.slots[slot.0 as usize] = None;
        Ok(())
    }
}
