//! Attention over a cache, one query row after the other: the rows of the keys in sight are listed once, then heads take blocks
//! of them, each with a running softmax. Blocks begin at the first key and are as long whoever asks, so that sums have one
//! order, whatever the other rows are.
//!
//! A block of keys and values is read for all heads before the next one, so that memory is read in long runs; query heads of
//! the same keys are worked on together, so that what is read is widened once for all of them.

mod heads;

use skipc_artifact::program::PAGE_ROWS;
use skipc_artifact::target::DType;
use skipc_plan::kernel::{CachedAttention, Kernel, Slot, View};

use self::heads::Heads;
use super::code::{Int, Made, Ptr};
use super::fault::Fault;
use super::frame::{Frame, Share};
use super::level::Level;

/// Rows of a tile.
pub(crate) const TILE_ROWS: u32 = 1;

/// The most rows for which threads share out heads: each call lists the keys of its rows, which calls for rows of their own do
/// once instead of once a call.
pub(crate) const FEW_ROWS: u32 = 3;

/// Vectors of scores in a block of keys: enough that what a block costs besides its keys does not count, few enough that keys
/// and values of a block stay in the second-level cache.
const BLOCK_VECTORS: u32 = 4;

/// Keys of a block at the level of the widest vectors.
const MOST_BLOCK_KEYS: u32 = 64;

/// Keys whose scores are taken at once, at most: their sums do not wait for each other, and an address of each is at hand.
const MOST_KEYS_AT_ONCE: u32 = 8;

/// Keys of a block: whole vectors of a level.
fn block_keys(level: &Level) -> u32 {
    (BLOCK_VECTORS * level.lanes).min(MOST_BLOCK_KEYS)
}

/// Places of the list of keys behind the last one.
const LISTED_MORE: u32 = MOST_BLOCK_KEYS + MOST_KEYS_AT_ONCE;

/// Query heads of one key head that are worked on together, at most.
const MOST_TOGETHER: u32 = 4;

/// Query heads that are worked on together: a power of two that divides those of a key head.
fn together(attention: &CachedAttention) -> u32 {
    let of_key = attention.heads / attention.kv_heads.max(1);
    1 << of_key.trailing_zeros().min(MOST_TOGETHER.ilog2())
}

/// How many such groups there are, which calls may share out.
pub(crate) fn groups(attention: &CachedAttention) -> u32 {
    attention.heads / together(attention)
}

/// What stands in scratch memory, as offsets in bytes.
struct Scratch {
    /// The row of each key in sight, `u32`.
    keys: u64,
    /// Scores of a block for each head of a group, then weights.
    scores: u64,
    /// The mix of each head so far.
    mix: u64,
    /// The largest score of each head so far.
    largest: u64,
    /// The sum of the weights of each head so far.
    totals: u64,
    bytes: u64,
}

impl Scratch {
    fn new(kernel: &Kernel, attention: &CachedAttention) -> Scratch {
        let pages = kernel.params.get(attention.pages.0 as usize).map_or(0, |param| param.cols);
        let mut bytes = 0;
        let mut take = |elements: u64| {
            let at = bytes;
            bytes += (elements * 4).next_multiple_of(64);
            at
        };
        let heads = u64::from(attention.heads);
        let keys = take(u64::from(pages) * u64::from(PAGE_ROWS) + u64::from(LISTED_MORE));
        let scores = take(u64::from(MOST_TOGETHER * MOST_BLOCK_KEYS));
        let mix = take(heads * u64::from(attention.width));
        let [largest, totals] = [heads; 2].map(take);
        Scratch { keys, scores, mix, largest, totals, bytes }
    }
}

/// Bytes of scratch memory that a call needs.
pub(crate) fn scratch_bytes(kernel: &Kernel, attention: &CachedAttention) -> u64 {
    Scratch::new(kernel, attention).bytes
}

/// Emits the work on a range of query rows and of groups of heads.
pub(crate) fn emit<'c>(f: &Frame<'_, 'c>, attention: &CachedAttention, share: Share<'c>) -> Made<()> {
    let Share { rows, across } = share;
    let CachedAttention { heads, kv_heads, q, out, .. } = *attention;
    if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        return Err(Fault::Malformed(format!("{kv_heads} key heads do not divide {heads} query heads")));
    }
    let scratch = Scratch::new(f.kernel, attention);
    f.for_each(rows.0, rows.1, 1, |row| {
        let keys = Keys::list(f, attention, &scratch, row)?;
        let (q, out) = (f.row(q, row)?, f.dense_row(out, row)?);
        let group = |group| Heads::new(f, attention, &scratch, (group, keys), (q, out));
        f.for_each(across.0, across.1, 1, |idx| group(idx)?.reset())?;
        f.for_each(f.int(0), keys.count, block_keys(&f.level), |first| {
            f.for_each(across.0, across.1, 1, |idx| group(idx)?.block(first))
        })?;
        f.for_each(across.0, across.1, 1, |idx| group(idx)?.finish())
    })
}

/// The keys in sight of a query, as rows of the cache. Behind the last one it stands some times more, so that the list can be
/// read in steps of [`MOST_KEYS_AT_ONCE`], and a block ahead.
#[derive(Clone, Copy)]
struct Keys<'c> {
    /// A word for each.
    list: Ptr<'c>,
    count: Int<'c>,
}

impl<'c> Keys<'c> {
    /// Code that lists those of a query row.
    fn list(
        f: &Frame<'_, 'c>,
        attention: &CachedAttention,
        scratch: &Scratch,
        row: Int<'c>,
    ) -> Made<Keys<'c>> {
        let CachedAttention { scoring, q_pos, q_seq, pages, present, .. } = *attention;
        let list = f.scratch_at(scratch.keys)?;
        let pages = Pages::of(f, pages, f.load_index(q_seq, row)?)?;
        let present = present.map(|present| f.pointer(present, DType::U8)).transpose()?;
        let end = f.plus(f.load_index(q_pos, row)?, 1)?;
        let first = match scoring.window {
            Some(window) => f.less(end, window)?,
            None => f.int(0),
        };
        let count = f.fold(first, end, 1, &[f.int(0)], |position, count| {
            let key = pages.key(f, position)?;
            f.store_word(f.element(list, count[0], 4)?, key)?;
            let one = match present {
                Some(present) => f.as_index(f.load_flag(f.offset(present, key)?)?)?,
                None => f.int(1),
            };
            Ok(vec![f.add(count[0], one)?])
        })?;
        let keys = Keys { list, count: count[0] };
        f.when(f.below(f.int(0), keys.count)?, || {
            let last = f.load_word(f.element(list, f.plus(keys.count, -1)?, 4)?)?;
            let end = f.plus(keys.count, i64::from(LISTED_MORE))?;
            f.for_each(keys.count, end, 1, |idx| f.store_word(f.element(list, idx, 4)?, last))
        })?;
        Ok(keys)
    }
}

/// The pages of one sequence.
#[derive(Clone, Copy)]
pub(crate) struct Pages<'c>(Ptr<'c>);

impl<'c> Pages<'c> {
    pub(crate) fn of(f: &Frame<'_, 'c>, table: Slot, sequence: Int<'c>) -> Made<Pages<'c>> {
        f.pointer(table, DType::U32)?;
        f.row_address(View::dense(table), sequence).map(Pages)
    }

    /// The row of the cache that holds the token at a position.
    pub(crate) fn key(self, f: &Frame<'_, 'c>, position: Int<'c>) -> Made<Int<'c>> {
        let page = f.load_word(f.element(self.0, f.shr(position, PAGE_ROWS.ilog2().into())?, 4)?)?;
        let within = f.and(position, f.int(i64::from(PAGE_ROWS) - 1))?;
        f.add(f.times(page, PAGE_ROWS.into())?, within)
    }
}
