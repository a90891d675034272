//! Tiles of rows in segments: which segment a tile is of, from where the segments end.
//!
//! A tile has rows of one segment. How many tiles a segment has is known to the device alone, so that tiles get numbers of which
//! some stand for no rows: those of segment `e` begin at `b / R + e`, where `b` rows of `R` a tile lie before it. That is at least
//! as many as it has tiles, it ascends, and a block finds its segment by bisection. Where rows are fewer than those numbers the
//! number of a tile is that of its first row. [`skipc_artifact::program::segment_tiles`] is how many there are.

use crate::code::{Bool, GPtr, I32, Int};

/// The tile of a number.
pub(super) struct SegmentTile<'c> {
    /// Whether it has rows.
    pub(super) holds_rows: Bool<'c>,
    /// Its segment.
    pub(super) segment: Int<'c>,
    /// Its first row.
    pub(super) row: Int<'c>,
    /// Behind the last row of the segment.
    pub(super) end: Int<'c>,
}

/// How many numbers there are.
pub(super) fn row_tiles(rows: Int<'_>, tile_rows: u32, segments: u32) -> Int<'_> {
    rows.min(rows / tile_rows + segments)
}

/// The tile of this number of the [`row_tiles`] of `rows` rows; each of the segments has its end in `ends`.
pub(super) fn find<'c>(
    (ends, segments): (GPtr<'c>, u32),
    number: Int<'c>,
    (rows, row_tiles): (Int<'c>, Int<'c>),
    tile_rows: u32,
) -> SegmentTile<'c> {
    let code = number.code();
    let is_by_row = row_tiles.ge(rows);
    let end_of = |segment: Int<'c>| ends.at::<I32>(segment).load::<I32>();
    // The first number of a segment behind so many rows.
    let first = |begin: Int<'c>, segment: Int<'c>| is_by_row.select(begin, begin / tile_rows + segment);
    let mut segment = code.int(0);
    let mut step = segments.next_power_of_two() / 2;
    while step > 0 {
        let later = segment + step;
        let is_there = later.lt(segments);
        let begin = end_of(later.min(segments - 1) - 1);
        let is_reached = number.ge(first(begin, later));
        segment = (is_there & is_reached).select(later, segment);
        step /= 2;
    }
    let begin = segment.ge(1).select(end_of(segment.max(1) - 1), 0);
    let end = end_of(segment);
    let along = is_by_row.select(number - begin, (number - first(begin, segment)) * tile_rows);
    let row = begin + along;
    SegmentTile { holds_rows: row.lt(end) & (along % tile_rows).lt(1), segment, row, end }
}
