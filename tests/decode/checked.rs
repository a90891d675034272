//! With checks, rows of the caches without a committed token are NaN: nothing reads them, and they are so again when tokens are
//! taken back.

use skipc::frontend::lower::KeyValues;
use skipc_artifact::program::{PAGE_ROWS, RowBound};
use skipc_runtime::decode::{Cached, Chunk, Decoder, Recompute, Rows, Slot};
use skipc_runtime::{Device, Module, Options, Session};

use crate::{Rng, SLOTS, example, exercise};

fn module(checked: bool) -> Module {
    let options = Options { checked, ..Options::default() };
    Module::load(&example(KeyValues::Lazy), Device::Cpu, options).expect("code")
}

/// Which rows of a decoder's caches are NaN throughout.
fn forgotten(cached: &Cached) -> Vec<bool> {
    let state = cached.state();
    let rows = state.cached_rows() as usize;
    let caches = state.module().program().states.iter().filter(|state| state.rows == RowBound::Cached);
    let caches: Vec<Vec<u8>> = caches.map(|cache| state.kept(&cache.name).expect("on the host")).collect();
    assert!(caches.len() > 10, "{} caches", caches.len());
    let is_forgotten = |row: usize| {
        caches.iter().all(|cache| {
            let bytes = cache.len() / rows;
            cache[row * bytes..][..bytes].iter().all(|byte| *byte == 0xff)
        })
    };
    (0..rows).map(is_forgotten).collect()
}

#[test]
fn rows_without_a_committed_token_are_poisoned() {
    let page = PAGE_ROWS as usize;
    let mut cached = Cached::new(&module(true), 2, 8 * PAGE_ROWS).expect("a cache");
    let step = |cached: &mut Cached, slot: u32, tokens: &[u32]| {
        cached.step(&[Chunk { slot: Slot(slot), tokens, rows: Rows::Last }]).unwrap();
    };
    cached.start(Slot(0), 0).unwrap();
    cached.start(Slot(1), 0).unwrap();
    step(&mut cached, 0, &[65; 20]);
    let rows = forgotten(&cached);
    assert!(rows[..20].iter().all(|row| !row) && rows[20..8 * page].iter().all(|row| *row), "{rows:?}");
    // Those of tokens that were taken back are, when the next step runs.
    cached.truncate(Slot(0), 3).unwrap();
    step(&mut cached, 1, &[66; 1]);
    let rows = forgotten(&cached);
    let kept: Vec<usize> = (0..8 * page).filter(|row| !rows[*row]).collect();
    assert_eq!(
        kept,
        [0, 1, 2, page],
        "three of one, and the first of the other in the page that is free again"
    );
    let mut unchecked = Cached::new(&module(false), 2, 8 * PAGE_ROWS).expect("a cache");
    unchecked.start(Slot(0), 0).unwrap();
    step(&mut unchecked, 0, &[65; 20]);
    assert!(forgotten(&unchecked).iter().all(|row| !row));
}

#[test]
fn nothing_reads_what_is_poisoned() {
    let module = module(true);
    let cached = Cached::new(&module, SLOTS, 24 * PAGE_ROWS).expect("a cache").sharing_prefixes();
    let whole = Recompute::new(Session::of_module(&module).unwrap(), &example(KeyValues::Lazy), SLOTS);
    exercise("checked", (cached, whole.expect("it generates")), true, 40, &mut Rng(5));
}
