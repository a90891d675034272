//! Faults planted in the code that keeps caches: what compares decoders with whole prefixes catches each.

use skipc::frontend::lower::KeyValues;
use skipc_runtime::decode::bookkeeping::{Bookkeeping, Right};
use skipc_runtime::decode::{Cached, Recompute};
use skipc_runtime::{Device, Model, Module, Options, Session};

use crate::{Rng, SLOTS, example, try_exercise};

/// Rounds until which a fault has to show.
const ROUNDS: usize = 120;

/// What becomes of a decoder with these books beside whole prefixes.
fn found<B: Bookkeeping>(model: &Model, books: B) -> Result<u32, String> {
    let module = Module::load(model, Device::Cpu, Options::default()).expect("code");
    let cached = Cached::with_books(&module, (SLOTS, 24 * 16), books).expect("a cache");
    let whole = Recompute::new(Session::of_module(&module).expect("a session"), model, SLOTS);
    try_exercise((cached, whole.expect("it generates")), false, ROUNDS, &mut Rng(3))
}

#[track_caller]
fn is_caught(books: impl Bookkeeping) {
    let lazy = example(KeyValues::Lazy);
    let found_lazy = found(&lazy, Right);
    assert!(found_lazy.is_ok(), "{found_lazy:?}");
    let caught = found(&lazy, books);
    assert!(caught.is_err(), "the fault went unseen");
}

struct StalePage;

impl Bookkeeping for StalePage {
    /// The last page is another, which held other tokens.
    fn seen_pages(&self, pages: &[u32]) -> Vec<u32> {
        let mut seen = pages.to_vec();
        seen.last_mut().into_iter().for_each(|page| *page ^= 1);
        seen
    }
}

#[test]
fn a_stale_page_is_caught() {
    is_caught(StalePage);
}

struct ShortByOne;

impl Bookkeeping for ShortByOne {
    fn next_row(&self, length: u32) -> u32 {
        length.saturating_sub(1)
    }
}

#[test]
fn a_length_that_is_off_by_one_is_caught() {
    is_caught(ShortByOne);
}

struct Restarted;

impl Bookkeeping for Restarted {
    fn next_position(&self, _: u32) -> u32 {
        0
    }
}

#[test]
fn a_position_that_begins_again_is_caught() {
    is_caught(Restarted);
}

struct WritesToShared;

impl Bookkeeping for WritesToShared {
    fn copies(&self, _: bool) -> bool {
        false
    }
}

#[test]
fn a_page_that_is_shared_without_a_copy_is_caught() {
    is_caught(WritesToShared);
}

struct FlushesTwice;

impl Bookkeeping for FlushesTwice {
    fn waits_from(&self, before: u32, _: u32) -> u32 {
        before
    }
}

#[test]
fn a_backlog_that_is_flushed_twice_is_caught() {
    is_caught(FlushesTwice);
}

struct NotReset;

impl Bookkeeping for NotReset {
    /// What ran before its tokens were taken back counts as computed.
    fn waits_in(&self, first: u32, _: u32) -> u32 {
        first
    }
}

#[test]
fn a_counter_that_is_not_reset_is_caught() {
    is_caught(NotReset);
}
