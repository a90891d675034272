//! Rows stored at their places in a cache.

use skipc_plan::kernel::{Kernel, Slot, View};

use super::super::generated::Generated;
use super::super::place;
use super::elementwise::{Group, over_groups};
use crate::code::{Access, BF16, Code, I8, I32, V2, V4};
use crate::error::Error;

/// Rows that go to a cache.
pub(in super::super) struct StoreRows {
    pub(in super::super) cols: u32,
    /// Of any type, which is the cache's, too.
    pub(in super::super) rows: View,
    /// `u32`, one column.
    pub(in super::super) places: View,
    pub(in super::super) cache: Slot,
}

/// A thread moves pieces of rows, whatever they hold, so that every bit stays. No two rows have one place: their order
/// does not matter.
pub(in super::super) fn store_rows(kernel: &Kernel, store: StoreRows) -> Result<Generated, Error> {
    let StoreRows { cols, rows, places, cache } = store;
    let from = place::require_view(kernel, rows, cols)?;
    place::require_u32(kernel, places.slot)?;
    place::require_view(kernel, places, 1)?;
    place::require(kernel, cache, from.dtype)?;
    let to_view = View::dense(cache);
    let to = place::require_view(kernel, to_view, cols)?;
    if cols == 0 {
        return Err(Error::Malformed { what: "rows of a cache without columns".to_owned() });
    }
    let piece = place::piece_bytes(from.dtype, [cols, from.cols, rows.col, to.cols]);
    let per_row = cols.checked_mul(from.dtype.size()).map(|bytes| bytes / piece);
    let per_row = per_row.ok_or_else(|| Error::Malformed { what: format!("rows of {cols} columns") })?;
    let ends = Ends { kernel, rows, places, cache: to_view, piece };
    over_groups(kernel, per_row, |code, groups| match piece {
        16 => ends.move_pieces::<V4<I32>>(code, groups),
        8 => ends.move_pieces::<V2<I32>>(code, groups),
        4 => ends.move_pieces::<I32>(code, groups),
        2 => ends.move_pieces::<BF16>(code, groups),
        _ => ends.move_pieces::<I8>(code, groups),
    })
}

/// Where pieces come from and go to.
struct Ends<'k> {
    kernel: &'k Kernel,
    rows: View,
    places: View,
    cache: View,
    /// Bytes of a piece.
    piece: u32,
}

impl Ends<'_> {
    /// Moves pieces, each of which is a `T`; all are loaded before the first is stored.
    fn move_pieces<'c, T: Access>(&self, code: &'c Code, groups: &[Group<'c>]) {
        let of = |view: View| self.kernel.param(view.slot);
        let moved: Vec<_> = groups
            .iter()
            .map(|group| {
                let byte = group.index * self.piece;
                let from = place::element(code, of(self.rows), self.rows, group.row, 0u32).at::<I8>(byte);
                let at = place::element(code, of(self.places), self.places, group.row, 0u32).load::<I32>();
                let to = place::row_start(code, of(self.cache), self.cache, at).at::<I8>(byte);
                (group.inside, to, from.load::<T>())
            })
            .collect();
        for (inside, to, piece) in moved {
            code.when(inside, || to.store(piece));
        }
    }
}
