//! Ranks: processes that train one model together, each on its rows of every batch.
//!
//! Nothing but [`Ranks`] is asked of what joins them, and nothing that computes a step knows what that is. Every rank has all
//! weights, moments and data. Gradients, losses and counts are summed in the order of the ranks, so that a run gives the same
//! bytes whenever it has the same number of them.

#[cfg(feature = "mpi")]
mod mpi;
mod place;
mod same;
mod team;
#[cfg(feature = "mpi")]
mod watch;

use std::ops::Range;

pub use place::Place;
pub use same::Facts;
pub use team::{Report, Team};

/// What the ranks of a run do together. All of them call the same functions in the same order.
///
/// A call returns when every rank has made it. Where one is gone the process ends; nothing here can fail.
pub trait Ranks {
    /// Which one this is, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// What each rank gives, in their order.
    fn gather(&self, own: &[u8]) -> Vec<Vec<u8>>;

    /// The sum over ranks, element by element, as `((x0 + x1) + x2) + …`: the same on every rank. All give as many.
    fn sum(&self, values: &mut [f32]) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut of_ranks = self.gather(&bytes).into_iter();
        let numbers =
            |bytes: Vec<u8>| bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
        let mut sums: Vec<f32> = of_ranks.next().map_or_else(Vec::new, numbers);
        for bytes in of_ranks {
            let numbers: Vec<f32> = numbers(bytes);
            sums.iter_mut().zip(numbers).for_each(|(sum, value)| *sum += value);
        }
        values.copy_from_slice(&sums);
    }
}

/// A run of one process.
pub struct Alone;

impl Ranks for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn gather(&self, own: &[u8]) -> Vec<Vec<u8>> {
        vec![own.to_vec()]
    }

    fn sum(&self, _: &mut [f32]) {}
}

impl dyn Ranks + '_ {
    /// Whether this rank writes files and says how far the run is.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// This rank's share of so many things, in order: those of a rank stand before those of the next.
    pub fn share(&self, count: usize) -> Range<usize> {
        share(count, self.rank(), self.size())
    }

    /// Sums of counts over ranks.
    pub fn sum_counts(&self, counts: &mut [u64]) {
        let bytes: Vec<u8> = counts.iter().flat_map(|count| count.to_le_bytes()).collect();
        counts.fill(0);
        for bytes in self.gather(&bytes) {
            let of_rank = bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
            counts.iter_mut().zip(of_rank).for_each(|(sum, count)| *sum += count);
        }
    }

    /// Whether it is so on any rank.
    pub fn any(&self, own: bool) -> bool {
        self.gather(&[u8::from(own)]).iter().any(|of_rank| of_rank == &[1])
    }
}

/// The share of a rank of so many things.
fn share(count: usize, rank: usize, size: usize) -> Range<usize> {
    count * rank / size..count * (rank + 1) / size
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn shares_stand_one_behind_the_other() {
        for (count, size) in [(0, 3), (2, 3), (8, 2), (7, 3)] {
            let shares: Vec<_> = (0..size).flat_map(|rank| share(count, rank, size)).collect();
            assert_eq!(shares, (0..count).collect::<Vec<_>>());
        }
    }
}
