//! Graphs with a state, and steps to run them over: a running sum of rows, a capacity whose groups go on in the next step,
//! and rows that wait in a cache for a token that executes.

use std::collections::BTreeMap;

use skipc_artifact::interface::Role;
use skipc_artifact::program::PAGE_ROWS;
use skipc_ir::interp::{Datum, FlatBatch};
use skipc_plan::interp::Cached;

/// Inputs, an embedding of 4 columns, and logits of 5.
const HEAD: &str = r#"
  %t = input {port=tokens}
  %p = input {port=positions}
  %s = input {port=sequences}
  %table = weight {name="embed.weight", shape=[5, 4]}
  %x = embed %table, %t
  %logits = matmul %x, %table"#;

/// A running sum of rows.
pub const SUM: &str = r#"
  %sum = input {port=state "sum"} : state<f32[1, 4]>
  %after = add_rows %sum, %x
  return logits = %logits, state "sum" = %after"#;

/// One of each three positions, whichever step they came in.
pub const CAPACITY: &str = r#"
  %before = input {port=state "wanted"} : state<mask[m]>
  %places = input {port=places}
  %pages = input {port=pages} : int[n, 8]
  %rw = weight {name="blocks.0.router.weight", shape=[1, 4]}
  %z = router_logits %x, %rw
  %wanted = route %z {set=c0, at_least=0.0}
  %all = executed %wanted
  %set = limit_first_after %wanted, %p, %s, %before, %pages {set=c1, group_size=3, slots=1}
  %after = store_rows %before, %all, %places
  %gate = executed %set
  return logits = %logits, decision 0 = %gate, wanted 0 = %all, state "wanted" = %after"#;

/// The update stands first in the text; what looks at the state still sees what the step found.
pub const UPDATE_FIRST: &str = r#"
  %before = input {port=state "wanted"} : state<mask[m]>
  %places = input {port=places}
  %pages = input {port=pages} : int[n, 8]
  %rw = weight {name="blocks.0.router.weight", shape=[1, 4]}
  %z = router_logits %x, %rw
  %wanted = route %z {set=c0, at_least=0.0}
  %all = executed %wanted
  %after = store_rows %before, %all, %places
  %set = limit_first_after %wanted, %p, %s, %before, %pages {set=c1, group_size=3, slots=1}
  %gate = executed %set
  return logits = %logits, decision 0 = %gate, state "wanted" = %after"#;

/// Keys of rows that have waited, turned by their positions.
pub const PENDING: &str = r#"
  %stream = input {port=state "stream"} : state<real[m, 4]>
  %at = input {port=state "positions"} : state<int[m]>
  %keys = input {port=state "keys"} : state<real[m, 4]>
  %places = input {port=places}
  %pages = input {port=pages} : int[n, 8]
  %waits = input {port=pending} : int[n, 3]
  %rw = weight {name="blocks.0.router.weight", shape=[1, 4]}
  %z = router_logits %x, %rw
  %set = route %z {set=c0, at_least=0.0}
  %gate = executed %set
  %stream1 = store_rows %stream, %x, %places
  %at1 = store_rows %at, %p, %places
  %rows = pending %set, %p, %s, %pages, %waits, %stream1 {set=c1, router=1}
  %x1 = gather %stream1, %rows
  %p1 = gather %at1, %rows
  %k = rope %x1, %p1 {heads=1, theta=10.0}
  %keys1 = store_rows %keys, %k, %rows
  return logits = %logits, decision 0 = %gate, state "keys" = %keys1, state "positions" = %at1, state "stream" = %stream1"#;

/// The text form of one of these graphs.
pub fn text(body: &str) -> String {
    format!("graph \"toy\" {{{HEAD}{body}\n}}")
}

/// Lengths of the three sequences at most of each step: none, one, and those around a tile of 16 rows.
const STEPS: [&[usize]; 7] = [&[17], &[], &[1, 0, 2], &[15, 15, 1], &[16, 0, 16], &[0, 1], &[33, 2, 17]];

/// Pages that a sequence can have, as the graphs say.
const PAGES: usize = 8;

/// Two routers, and how many rows may wait.
const PENDING_COLS: usize = 3;

/// Rows of the caches that the steps need.
pub const CACHED_ROWS: u32 = 320;

/// The tokens of a step, and where they lie in the caches.
#[derive(Clone, Debug)]
pub struct Step {
    /// The tokens. Sequences are those that have some, from 0 on.
    pub batch: FlatBatch,
    /// Their places and pages.
    pub cached: Cached,
}

impl Step {
    /// What a graph is given beside the tokens.
    pub fn tensors<N>(&self) -> BTreeMap<Role, Datum<N>> {
        let ints = |words: &[u32]| Datum::Ints(words.iter().map(|word| i64::from(*word)).collect());
        // A row of pages for each token, of which those of the sequences count.
        let mut pages = self.cached.pages.clone();
        pages.resize(self.batch.tokens.len() * PAGES, u32::MAX);
        let mut pending = self.cached.pending.clone();
        pending.resize(self.batch.tokens.len() * PENDING_COLS, 0);
        BTreeMap::from([
            (Role::Places, ints(&self.cached.places)),
            (Role::Pages, ints(&pages)),
            (Role::Pending, ints(&pending)),
        ])
    }
}

/// The steps, each behind those before.
pub fn steps() -> Vec<Step> {
    let mut before = [0; 3];
    let step = |lengths: &&[usize]| {
        let mut step = Step { batch: FlatBatch::default(), cached: Cached::default() };
        for (slot, length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
            let sequence = step.batch.sequences.last().map_or(0, |last| last + 1);
            // Pages of the three take turns, so that no sequence lies in one piece.
            let page = |page: usize| (page * 3 + 2 - slot) as u32;
            for idx in 0..*length {
                let position = before[slot] + idx;
                step.batch.tokens.push((idx * idx + 1) as i64 % 5);
                step.batch.positions.push(position as i64);
                step.batch.sequences.push(sequence);
                let (of_page, within) = (position / PAGE_ROWS as usize, position as u32 % PAGE_ROWS);
                step.cached.places.push(page(of_page) * PAGE_ROWS + within);
            }
            // Two more than have come wait, or all; two may.
            step.cached.pending.extend([0, (before[slot] as u32).saturating_sub(2 * slot as u32), 2]);
            before[slot] += length;
            let n_pages = before[slot].div_ceil(PAGE_ROWS as usize);
            step.cached.pages.extend((0..PAGES).map(|idx| if idx < n_pages { page(idx) } else { u32::MAX }));
        }
        step
    };
    STEPS.iter().map(step).collect()
}
