//! Bucketing: which form of a kernel runs for which number of rows.
//!
//! A generator can make some kernels in several forms, which differ in the rows and columns that are worked on at once
//! and in nothing that a result shows but rounding. It lists them ([`Tile`]) and asks a [`Bucketing`] from how many rows on each of
//! them is to run; the kernel reads its count where it runs and chooses there. Without rows nothing runs at all.

use skipc_artifact::program::RowTile;

use crate::kernel::Kernel;

/// A piece of a kernel's result that is worked on at once: a form of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Its rows.
    pub rows: u32,
    /// Its columns, padding among them.
    pub cols: u32,
    /// How many lie side by side.
    pub across: u32,
}

/// Which form to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bucket {
    /// From this number of rows on, up to that of the next bucket.
    pub from: u32,
    /// The form, by its place in the list.
    pub tile: usize,
}

/// Chooses among the forms of kernels.
pub trait Bucketing: Send + Sync {
    /// From how many rows on each of some forms runs, for up to `at_most` rows; forms that are not worth their code may
    /// be left out.
    fn buckets(&self, kernel: &Kernel, tiles: &[Tile], at_most: u32) -> Vec<Bucket>;
}

/// The lowest tile that holds all rows, and where none does, the highest: what can be said without knowing a device.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByHeight;

impl Bucketing for ByHeight {
    fn buckets(&self, _: &Kernel, tiles: &[Tile], _: u32) -> Vec<Bucket> {
        let mut order: Vec<usize> = (0..tiles.len()).collect();
        order.sort_by_key(|tile| tiles[*tile].rows);
        let starts = [0].into_iter().chain(order.iter().map(|tile| tiles[*tile].rows.saturating_add(1)));
        starts.zip(&order).map(|(from, tile)| Bucket { from, tile: *tile }).collect()
    }
}

/// One form for every number of rows: that of this place in the list, or the last of a shorter one.
#[derive(Clone, Copy, Debug)]
pub struct Always(pub usize);

impl Bucketing for Always {
    fn buckets(&self, _: &Kernel, tiles: &[Tile], _: u32) -> Vec<Bucket> {
        vec![Bucket { from: 0, tile: self.0.min(tiles.len().saturating_sub(1)) }]
    }
}

/// What a bucketing says of a kernel, put in order: ascending, from 0 on, each form as long as no other begins, and none
/// that only begins past `at_most` rows. `None` if it says nothing, or names a form that is not there.
pub fn buckets(
    bucketing: &dyn Bucketing,
    kernel: &Kernel,
    tiles: &[Tile],
    at_most: u32,
) -> Option<Vec<Bucket>> {
    let mut found = bucketing.buckets(kernel, tiles, at_most);
    if found.iter().any(|bucket| bucket.tile >= tiles.len()) {
        return None;
    }
    found.sort_by_key(|bucket| bucket.from);
    found.first_mut()?.from = 0;
    found.retain(|bucket| bucket.from <= at_most);
    // Of two that begin together the last counts; of neighbours with one form the first.
    let mut kept: Vec<Bucket> = Vec::new();
    for bucket in found {
        if kept.last().is_some_and(|last| last.from == bucket.from) {
            kept.pop();
        }
        if kept.last().is_none_or(|last| last.tile != bucket.tile) {
            kept.push(bucket);
        }
    }
    Some(kept)
}

/// The same as the runtime and `skipc inspect` take it.
pub fn row_tiles(buckets: &[Bucket], tiles: &[Tile]) -> Vec<RowTile> {
    let of = |bucket: &Bucket| {
        let Tile { rows, across, .. } = *tiles.get(bucket.tile)?;
        Some(RowTile { from: bucket.from, rows, across })
    };
    buckets.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use skipc_artifact::program::Extent;

    use super::*;
    use crate::kernel::{Body, Rowwise, Slot};

    const TILES: [Tile; 3] = [tile(16), tile(128), tile(64)];

    const fn tile(rows: u32) -> Tile {
        Tile { rows, cols: 64, across: 2 }
    }

    fn kernel() -> Kernel {
        let embed = Rowwise::Embed {
            n_ids: 1,
            cols: 1,
            ids: crate::kernel::View { slot: Slot(0), rows: crate::kernel::Rows::Dense, col: 0 },
            table: Slot(1),
            out: Slot(2),
        };
        Kernel { params: Vec::new(), extent: Extent::Fixed(1), body: Body::Rowwise(embed) }
    }

    struct Says(Vec<Bucket>);

    impl Bucketing for Says {
        fn buckets(&self, _: &Kernel, _: &[Tile], _: u32) -> Vec<Bucket> {
            self.0.clone()
        }
    }

    fn bucket(from: u32, tile: usize) -> Bucket {
        Bucket { from, tile }
    }

    #[test]
    fn by_height_takes_the_lowest_tile_that_holds_all_rows() {
        let found = buckets(&ByHeight, &kernel(), &TILES, u32::MAX).unwrap();
        assert_eq!(found, [bucket(0, 0), bucket(17, 2), bucket(65, 1)]);
        assert_eq!(buckets(&ByHeight, &kernel(), &TILES, 64).unwrap(), [bucket(0, 0), bucket(17, 2)]);
        let tiles = row_tiles(&found, &TILES);
        assert_eq!(
            tiles.iter().map(|tile| (tile.from, tile.rows)).collect::<Vec<_>>(),
            [(0, 16), (17, 64), (65, 128)]
        );
    }

    #[test]
    fn what_is_said_is_put_in_order() {
        let said = |said: &[Bucket]| buckets(&Says(said.to_vec()), &kernel(), &TILES, 1000);
        assert_eq!(said(&[bucket(9, 1), bucket(4, 2)]), Some(vec![bucket(0, 2), bucket(9, 1)]));
        assert_eq!(said(&[bucket(0, 1), bucket(9, 1), bucket(9, 2)]), Some(vec![bucket(0, 1), bucket(9, 2)]));
        assert_eq!(said(&[bucket(0, 1), bucket(9, 1)]), Some(vec![bucket(0, 1)]));
        assert_eq!(said(&[bucket(0, 1), bucket(1001, 0)]), Some(vec![bucket(0, 1)]));
        assert_eq!(said(&[bucket(0, 3)]), None);
        assert_eq!(said(&[]), None);
    }
}
