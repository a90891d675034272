//! Caches: rows stored at their places, and attention over the pages of sequences.

use skipc_artifact::program::PAGE_ROWS;
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Body, CachedAttention, Pending, Scoring, Slot, Update};

use super::Case;
use super::attention::{scored, scorings};
use super::draft::{Draft, Set, Values, dense, listed};
use crate::tolerance::Exactness;

/// Tokens of each sequence, of which so many are new: one token, ends of pages, a prompt, nothing new.
const SEQUENCES: [(u32, u32); 7] = [(17, 1), (1, 1), (32, 3), (15, 15), (16, 2), (5, 0), (130, 1)];

/// Pages that a sequence can have, more than any has.
const PAGES: u32 = 20;

pub(super) fn add(cases: &mut Vec<Case>) {
    for dtype in [DType::F32, DType::Bf16] {
        for (heads, width) in
            [((4, 2), 16), ((4, 4), 32), ((4, 1), 24), ((1, 1), 64), ((2, 1), 128), ((6, 3), 7)]
        {
            cases.push(attention(dtype, heads, width, (&SEQUENCES, None)));
        }
        for length in [1, 2, 3, 4, 5, 15, 16, 17, 31, 33, 64, 65] {
            cases.push(attention(dtype, (2, 1), 8, (&[(length, 1)], None)));
        }
        cases.push(attention(dtype, (2, 1), 8, (&[(33, 0)], None)));
        // Many keys; a chunk of a prompt; more heads than a thread has room for.
        cases.push(attention(dtype, (2, 1), 64, (&[(300, 1)], Some(Set::Quarter))));
        cases.push(attention(dtype, (2, 2), 128, (&[(290, 2)], None)));
        cases.push(attention(dtype, (1, 1), 256, (&[(300, 1)], None)));
        cases.push(attention(dtype, (2, 1), 16, (&[(100, 40), (20, 20)], None)));
        for (heads, width) in [((16, 1), 32), ((10, 1), 64), ((1, 1), 256), ((3, 1), 255)] {
            cases.push(attention(dtype, heads, width, (&[(40, 2), (3, 1)], None)));
        }
        for present in Set::ALL {
            cases.push(attention(dtype, (4, 2), 16, (&SEQUENCES, Some(present))));
        }
        for (scoring, name) in scorings() {
            cases.push(scored(attention(dtype, (4, 2), 16, (&SEQUENCES, None)), scoring, name));
            let some = attention(dtype, (2, 1), 64, (&[(300, 1), (40, 30)], Some(Set::Alternating)));
            cases.push(scored(some, scoring, name));
        }
        for window in [15, 16, 17, 64, 65, 299, 500] {
            let scoring = Scoring { window: Some(window), ..Scoring::default() };
            let case = attention(dtype, (2, 1), 8, (&[(300, 1), (100, 40)], None));
            cases.push(scored(case, scoring, &format!("window_{window}")));
        }
        for rows in [0, 1, 15, 16, 17, 33] {
            cases.push(store(dtype, rows, 20, None));
        }
        for cols in [1, 3, 64, 257] {
            cases.push(store(dtype, 5, cols, None));
        }
        for set in Set::ALL {
            cases.push(store(dtype, 33, 12, Some(set)));
        }
    }
    for rows in [0, 1, 16, 33, 300] {
        cases.push(store_decisions(rows));
        cases.push(store_positions(rows));
    }
    for executing in Set::ALL {
        for most in [0, 2, 40] {
            cases.push(pending((&SEQUENCES, executing), most));
        }
    }
    // A prompt behind what waits; more rows than there are tokens; nothing new at all.
    cases.push(pending((&[(300, 270)], Set::One), 40));
    cases.push(pending((&[(250, 1), (33, 1), (1, 1)], Set::Alternating), 16));
    cases.push(pending((&[(33, 0)], Set::All), 0));
}

/// Sequences in the pages of a cache, which lie in no order and apart.
pub(super) struct Pages {
    /// For each sequence.
    pages: Vec<Vec<u32>>,
    n_rows: u32,
}

impl Pages {
    pub(super) fn new(draft: &mut Draft, sequences: &[(u32, u32)]) -> Pages {
        let n_pages: u32 = sequences.iter().map(|(length, _)| length.div_ceil(PAGE_ROWS)).sum();
        // One page more, which nobody has.
        let mut free: Vec<u32> = (0..=n_pages).collect();
        let mut take = |_: u32| free.swap_remove(draft.next() as usize % free.len());
        let pages =
            sequences.iter().map(|(length, _)| (0..length.div_ceil(PAGE_ROWS)).map(&mut take).collect());
        let pages: Vec<Vec<u32>> = pages.collect();
        Pages { pages, n_rows: (n_pages + 1) * PAGE_ROWS }
    }

    /// Rows of the cache.
    pub(super) fn n_rows(&self) -> u32 {
        self.n_rows
    }

    pub(super) fn place(&self, sequence: usize, position: u32) -> usize {
        (self.pages[sequence][(position / PAGE_ROWS) as usize] * PAGE_ROWS + position % PAGE_ROWS) as usize
    }

    /// A row for each sequence; what is past its pages means nothing.
    pub(super) fn table(&self, draft: &mut Draft) -> Slot {
        let words = self.pages.iter().flat_map(|pages| {
            let nothing = std::iter::repeat(u32::MAX);
            pages.iter().copied().chain(nothing).take(PAGES as usize).collect::<Vec<_>>()
        });
        draft.words("pages", PAGES, &words.collect::<Vec<_>>())
    }
}

/// The new tokens of sequences look at all, or at those that are present: themselves always, others as the set says.
fn attention(
    dtype: DType,
    (heads, kv_heads): (u32, u32),
    width: u32,
    (sequences, present): (&[(u32, u32)], Option<Set>),
) -> Case {
    let lengths: Vec<String> = sequences.iter().map(|(length, new)| format!("{length}_new_{new}")).collect();
    let of = present.map_or(String::new(), |set| format!("_present_{}", set.name()));
    let name =
        format!("cached_attention_{dtype}_{heads}x{kv_heads}x{width}_tokens_{}{of}", lengths.join("_"));
    let mut draft = Draft::new(name);
    let pages = Pages::new(&mut draft, sequences);
    // Rows of the cache that hold a number, and where a key is: those of a token that has none hold anything.
    let (mut holds, mut is_key) = (vec![false; pages.n_rows as usize], vec![0; pages.n_rows as usize]);
    let (mut positions, mut of_rows) = (Vec::new(), Vec::new());
    for (sequence, (length, new)) in sequences.iter().enumerate() {
        let members = present.map_or_else(|| (0..*length).collect(), |set| set.rows(*length, &mut draft));
        for position in 0..*length {
            let place = pages.place(sequence, position);
            // None at all is a case, too: then not even the new ones are.
            let is_new = position >= length - new && present != Some(Set::None);
            holds[place] = is_new || members.contains(&position);
            is_key[place] = u8::from(holds[place]);
        }
        positions.extend(length - new..*length);
        of_rows.extend(std::iter::repeat_n(sequence as u32, *new as usize));
    }
    let (n, bound) = (positions.len() as u32, positions.len() as u32 + 2);
    let q = draft.reals("q", (dtype, bound, heads * width), n, Values::Within(2.0));
    let mut cache =
        |name: &str, size: f64| draft.cache(name, (dtype, kv_heads * width), &holds, Values::Within(size));
    let (k, v) = (cache("k", 2.0), cache("v", 1.0));
    let q_pos = dense(draft.column("positions", bound, &positions));
    let q_seq = dense(draft.column("sequences", bound, &of_rows));
    let pages = pages.table(&mut draft);
    let present = present.map(|_| draft.decisions("present", is_key.len() as u32, &is_key));
    let out = draft.output("out", (dtype, bound, heads * width));
    let extent = draft.counted(n, bound);
    let (q, scoring) = (dense(q), Scoring::default());
    let attention =
        CachedAttention { heads, kv_heads, width, scoring, q, q_pos, q_seq, k, v, pages, present, out };
    draft.finish(extent, Body::CachedAttention(attention), Exactness::Chain)
}

/// Places of rows in a cache of so many rows: each is another, in no order.
fn places(draft: &mut Draft, n: u32, n_cached: u32) -> Vec<u32> {
    let mut free: Vec<u32> = (0..n_cached).collect();
    (0..n).map(|_| free.swap_remove(draft.next() as usize % free.len())).collect()
}

/// All rows of a matrix, or those of a set.
fn store(dtype: DType, rows: u32, cols: u32, set: Option<Set>) -> Case {
    let of = set.map_or("all", Set::name);
    let mut draft = Draft::new(format!("cached_store_{dtype}_{cols}_of_{of}_rows_{rows}"));
    let (bound, n_cached) = (rows + 3, (2 * rows).next_multiple_of(PAGE_ROWS));
    let members = set.map(|set| set.rows(rows, &mut draft));
    let list = members.as_ref().map(|members| draft.column("list", bound, members));
    let x = draft.reals("rows", (dtype, bound, cols), rows, Values::Within(2.0));
    let places = places(&mut draft, rows, n_cached);
    let places = draft.column("places", bound, &places);
    let cache = draft.output("cache", (dtype, n_cached, cols));
    let extent = draft.counted(members.map_or(rows, |members| members.len() as u32), bound);
    let [x, places] = [x, places].map(|slot| list.map_or(dense(slot), |list| listed(slot, list)));
    let update = Update::StoreRows { cols, rows: x, places, cache };
    draft.finish(extent, Body::Update(update), Exactness::Bitwise)
}

fn store_decisions(rows: u32) -> Case {
    store_column(("decisions", DType::U8), rows, |draft, bound| {
        let decisions: Vec<u8> = (0..rows).map(|_| (draft.next() % 2) as u8).collect();
        draft.decisions("rows", bound, &decisions)
    })
}

fn store_positions(rows: u32) -> Case {
    store_column(("positions", DType::U32), rows, |draft, bound| {
        let positions: Vec<u32> = (0..rows).map(|_| draft.next() as u32 % 5000).collect();
        draft.column("rows", bound, &positions)
    })
}

/// A column of so many rows, which `column` makes with room for more.
fn store_column(
    (name, dtype): (&str, DType),
    rows: u32,
    column: impl FnOnce(&mut Draft, u32) -> Slot,
) -> Case {
    let mut draft = Draft::new(format!("cached_store_{name}_rows_{rows}"));
    let (bound, n_cached) = (rows + 3, (2 * rows).next_multiple_of(PAGE_ROWS));
    let x = dense(column(&mut draft, bound));
    let places = places(&mut draft, rows, n_cached);
    let places = dense(draft.column("places", bound, &places));
    let cache = draft.output("cache", (dtype, n_cached, 1));
    let extent = draft.counted(rows, bound);
    let update = Update::StoreRows { cols: 1, rows: x, places, cache };
    draft.finish(extent, Body::Update(update), Exactness::Bitwise)
}

/// What waits in sequences of which some rows execute: nothing to all of a sequence, for the second of three routers.
fn pending((sequences, executing): (&[(u32, u32)], Set), most: u32) -> Case {
    let lengths: Vec<String> = sequences.iter().map(|(length, new)| format!("{length}_new_{new}")).collect();
    let name =
        format!("cached_pending_tokens_{}_executing_{}_most_{most}", lengths.join("_"), executing.name());
    let mut draft = Draft::new(name);
    let pages = Pages::new(&mut draft, sequences);
    let (mut positions, mut of_rows, mut table, mut at_most) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for (sequence, (length, new)) in (0..).zip(sequences) {
        let begin = length - new;
        let first = [begin, 0, begin / 2, begin.saturating_sub(3)][sequence as usize % 4];
        table.extend([begin, first, 0, most]);
        positions.extend(begin..*length);
        of_rows.extend(std::iter::repeat_n(sequence, *new as usize));
        at_most += length - first;
    }
    let (n, bound) = (positions.len() as u32, positions.len() as u32 + 2);
    let mut executes = vec![0; n as usize];
    executing.rows(n, &mut draft).iter().for_each(|row| executes[*row as usize] = 1);
    let pending = Pending {
        executed: draft.decisions("executed", bound, &executes),
        positions: dense(draft.column("positions", bound, &positions)),
        sequences: dense(draft.column("sequences", bound, &of_rows)),
        pages: pages.table(&mut draft),
        pending: draft.words("pending", 4, &table),
        router: 1,
        rows: draft.output("rows", (DType::U32, at_most + 3, 1)),
        count: draft.output("count", (DType::U32, 1, 1)),
    };
    let extent = draft.counted(n, bound);
    draft.finish(extent, Body::Pending(pending), Exactness::Bitwise)
}
