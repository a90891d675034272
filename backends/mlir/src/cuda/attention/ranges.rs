//! Which key rows a query row sees.

use skipc_artifact::program::Extent;
use skipc_plan::kernel::{Attention, Kernel, View};

use super::super::place;
use crate::code::{Code, I32, Int, Long, SPtr, Steps};

/// The ranges of a tile of query rows.
pub(super) struct Ranges<'c> {
    /// First keys of the rows, then the keys after their last ones.
    at: SPtr<'c>,
    rows: u32,
    /// First key that any row sees.
    pub(super) first: Int<'c>,
    /// The key after the last that any row sees; not above `first` if there is none.
    pub(super) end: Int<'c>,
}

/// Bytes of shared memory for the ranges of a tile.
pub(super) fn shared_bytes(rows: u32) -> u32 {
    2 * rows * 4
}

impl<'c> Ranges<'c> {
    /// Finds the ranges of rows `from .. from + rows` (a multiple of 32) by binary search, the
    /// starts with the first `rows` threads and the ends with the next. All threads of the block
    /// take part; there are at least `2 · rows`.
    ///
    /// Rows past the last one, `total`, see nothing.
    pub(super) fn find(
        code: &'c Code,
        (kernel, attention): (&Kernel, &Attention),
        at: SPtr<'c>,
        rows: u32,
        (from, total): (Int<'c>, Int<'c>),
    ) -> Self {
        let thread = code.thread();
        code.when(thread.lt(2 * rows), || {
            let row = from + thread % rows;
            let exists = row.lt(total);
            let safe_row = exists.select(row, from);
            let starts = thread.lt(rows);
            let own = place_of(code, kernel, (attention.q_seq, attention.q_pos), safe_row);
            // The keys before the range are those below the first place of the sequence, or of its window, or up to
            // the query's own place.
            let sequence = (own >> 32u64) << 32u64;
            let start = match attention.scoring.window.map(u64::from) {
                Some(window) => {
                    let positions = own - sequence + 1u64;
                    positions.below(window).select(sequence, own + 1u64 - window)
                }
                None => sequence,
            };
            let end = own + (1 + u64::from(attention.scoring.ahead.unwrap_or(0)));
            let bound = starts.select(start, end);
            let keys = (attention.kv_extent, (attention.k_seq, attention.k_pos));
            let found = count_below(code, kernel, keys, bound);
            let nothing = starts.select(i32::MAX, 0);
            at.at::<I32>(thread).store(exists.select(found, nothing));
        });
        code.barrier();
        let lane = thread % 32;
        let load = |start: u32| {
            (0..rows / 32).map(move |part| at.at::<I32>(lane + (start + part * 32)).load::<I32>())
        };
        let first = load(0).fold(code.int(i32::MAX.cast_unsigned()), |a, b| a.min(b));
        let end = load(rows).fold(code.int(0), |a, b| a.max(b));
        let first = code.reduce(first, 32, |a, b| a.min(b));
        let end = code.reduce(end, 32, |a, b| a.max(b));
        Self { at, rows, first, end }
    }

    /// First key of a row of the tile and how many it sees.
    pub(super) fn of(&self, row: Int<'c>) -> (Int<'c>, Int<'c>) {
        let first = self.at.at::<I32>(row).load::<I32>();
        let end = self.at.at::<I32>(row + self.rows).load::<I32>();
        // A row that does not exist has the largest first key.
        let length = end.gt(first).select(end - first, 0u32);
        (first, length)
    }

    /// Is the key in the range that [`Ranges::of`] gave?
    pub(super) fn sees(&self, key: Int<'c>, (first, length): (Int<'c>, Int<'c>)) -> crate::code::Bool<'c> {
        (key - first).below(length)
    }
}

/// Sequence and position of a row as one number, in the order of rows.
pub(in super::super) fn place_of<'c>(
    code: &'c Code,
    kernel: &Kernel,
    (seq, pos): (View, View),
    row: Int<'c>,
) -> Long<'c> {
    let load =
        |view: View| place::element(code, kernel.param(view.slot), view, row, 0u32).load::<I32>().to_long();
    (load(seq) << 32u64) | load(pos)
}

/// How many rows, of which these are sequence and position, have a place below the bound.
pub(in super::super) fn count_below<'c>(
    code: &'c Code,
    kernel: &Kernel,
    (extent, places): (Extent, (View, View)),
    bound: Long<'c>,
) -> Int<'c> {
    let rows = place::extent(code, &extent);
    let (Extent::Fixed(at_most) | Extent::Counted { at_most, .. }) = extent;
    // The interval halves each turn, from at most this many rows to none: in no more turns than there are rows, so that nothing
    // is read of the list of a set without rows.
    let turns = rows.min(u32::BITS - at_most.leading_zeros());
    let start = (code.int(0), rows);
    let (low, _) = code.repeat(Steps { from: 0, to: turns, step: 1 }, start, |_, (low, high)| {
        let open = low.lt(high);
        let middle = (low + high) / 2;
        let place = place_of(code, kernel, places, open.select(middle, 0u32));
        let before = place.below(bound) & open;
        let above = before.select(high, middle);
        (before.select(middle + 1, low), open.select(above, high))
    });
    low
}
