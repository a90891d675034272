//! Bucketing: from how many rows on each form of a kernel runs.
//!
//! A generator offers forms ([`skipc_plan::buckets`]); here they get a price for each number of rows, from the model of a
//! machine ([`machine`]) or, for kernels that were measured, from a table ([`tuning`]). Of all ways to go from lower to
//! higher tiles as rows get more, that with the least regret is taken: how much longer each count takes than in its own
//! best form, on the mean over counts. A further form has to save more than its code is worth.

pub mod machine;
pub mod tuning;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use skipc_artifact::target::Target;
use skipc_plan::buckets::{Bucket, Bucketing, Tile};
use skipc_plan::kernel::Kernel;

use machine::Machine;
use tuning::Tuning;

/// What another form in the code has to save of the time, on the mean over counts.
const FORM_COST: f64 = 0.01;

/// Rows up to which counts are looked at, if the kernel's bound is higher.
const MOST_ROWS: u32 = 1 << 16;

/// Chooses by price.
#[derive(Clone, Debug)]
pub struct Priced {
    machine: Machine,
    tuning: Option<Arc<Tuning>>,
    found: Arc<Found>,
}

/// What gives a bucketing for each target of a compile.
pub type Bucketings = Arc<dyn Fn(&Target) -> Box<dyn Bucketing> + Send + Sync>;

/// Prices by the model of each target's machine alone.
pub fn modelled() -> Bucketings {
    Arc::new(|target| Box::new(Priced::new(target, None, Arc::default())))
}

/// Prices by a table where it is for the target and has the kernel; says in `found` how often that was.
pub fn tuned(tuning: Tuning, found: &Arc<Found>) -> Bucketings {
    let (tuning, found) = (Arc::new(tuning), Arc::clone(found));
    Arc::new(move |target| {
        let table = tuning.is_for(target).then(|| Arc::clone(&tuning));
        Box::new(Priced::new(target, table, Arc::clone(&found)))
    })
}

/// How many kernels had forms to choose among, and how many of them were in the table.
#[derive(Debug, Default)]
pub struct Found {
    with_forms: AtomicUsize,
    measured: AtomicUsize,
}

impl Found {
    /// Kernels with several forms, and those of them whose times were measured.
    pub fn counts(&self) -> (usize, usize) {
        (self.with_forms.load(Ordering::Relaxed), self.measured.load(Ordering::Relaxed))
    }
}

impl Priced {
    /// Prices of the machine that a target stands for, or of a table where it has the kernel.
    fn new(target: &Target, tuning: Option<Arc<Tuning>>, found: Arc<Found>) -> Priced {
        Priced { machine: Machine::of(target), tuning, found }
    }
}

impl Bucketing for Priced {
    fn buckets(&self, kernel: &Kernel, tiles: &[Tile], at_most: u32) -> Vec<Bucket> {
        let table = self.tuning.as_ref().and_then(|tuning| tuning.find(kernel, tiles));
        if tiles.len() > 1 {
            self.found.with_forms.fetch_add(1, Ordering::Relaxed);
            self.found.measured.fetch_add(usize::from(table.is_some()), Ordering::Relaxed);
        }
        match table {
            Some(table) => cheapest(&table.counts, tiles, &|form, count| table.ns(form, count)),
            None => {
                cheapest(&counts(at_most), tiles, &|form, rows| self.machine.time(kernel, &tiles[form], rows))
            }
        }
    }
}

/// Counts that stand for all up to a bound: four in each doubling, and the bound.
pub fn counts(at_most: u32) -> Vec<u32> {
    let at_most = at_most.clamp(1, MOST_ROWS);
    let doubling = |start: u32| (0..4).map(move |quarter| start + start / 4 * quarter);
    let mut counts: Vec<u32> = vec![1, 2, 3];
    counts.extend((2..=16).flat_map(|power| doubling(1 << power)));
    counts.retain(|count| *count < at_most);
    counts.push(at_most);
    counts
}

/// The forms to take, from lower to higher tiles, with the least regret over the counts. Each of them stands for all
/// rows above the count before.
fn cheapest(counts: &[u32], tiles: &[Tile], time: &dyn Fn(usize, u32) -> f64) -> Vec<Bucket> {
    let mut order: Vec<usize> = (0..tiles.len()).collect();
    order.sort_by_key(|form| tiles[*form].rows);
    let form_cost = FORM_COST * counts.len() as f64;
    // For each form the least regret of a way that is in it now.
    let mut ways: Vec<(f64, Vec<Bucket>)> =
        order.iter().map(|form| (0.0, vec![Bucket { from: 0, tile: *form }])).collect();
    let mut from = 0;
    for count in counts {
        for higher in (1..order.len()).rev() {
            for lower in 0..higher {
                let regret = ways[lower].0 + form_cost;
                if regret < ways[higher].0 {
                    let mut way = ways[lower].1.clone();
                    way.push(Bucket { from, tile: order[higher] });
                    ways[higher] = (regret, way);
                }
            }
        }
        let times: Vec<f64> = order.iter().map(|form| time(*form, *count)).collect();
        let best = times.iter().copied().fold(f64::INFINITY, f64::min).max(f64::MIN_POSITIVE);
        for ((regret, _), time) in ways.iter_mut().zip(&times) {
            *regret += time / best - 1.0;
        }
        from = count.saturating_add(1);
    }
    let best = ways.into_iter().min_by(|one, other| one.0.total_cmp(&other.0));
    best.map_or_else(Vec::new, |(_, way)| way)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile(rows: u32) -> Tile {
        Tile { rows, cols: 64, across: 1 }
    }

    fn chosen(tiles: &[Tile], time: &dyn Fn(usize, u32) -> f64) -> Vec<(u32, usize)> {
        cheapest(&counts(4096), tiles, time).iter().map(|bucket| (bucket.from, bucket.tile)).collect()
    }

    #[test]
    fn counts_end_at_the_bound() {
        assert_eq!(counts(1), [1]);
        assert_eq!(counts(20), [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20]);
        assert_eq!(counts(u32::MAX).last(), Some(&MOST_ROWS));
    }

    #[test]
    fn each_form_runs_where_it_is_the_cheapest() {
        // A form that starts cheap and one that grows slowly cross at 42 rows; the order of the list does not matter.
        let time = |form: usize, rows: u32| [30.0 + f64::from(rows), 9.0 + 1.5 * f64::from(rows)][form];
        assert_eq!(chosen(&[tile(64), tile(1)], &time), [(0, 1), (41, 0)]);
    }

    #[test]
    fn a_form_that_saves_next_to_nothing_is_left_out() {
        let time =
            |form: usize, rows: u32| f64::from(rows) * if form == 0 && rows < 64 { 0.999 } else { 1.0 };
        assert_eq!(chosen(&[tile(1), tile(64)], &time).len(), 1);
    }

    #[test]
    fn tiles_only_grow() {
        // The low tile is cheapest for few and for very many: the second is not taken.
        let time = |form: usize, rows: u32| {
            let outside = rows <= 16 || rows > 4000;
            if (form == 0) == outside { 1.0 } else { 2.0 }
        };
        assert_eq!(chosen(&[tile(16), tile(64)], &time), [(0, 0), (17, 1)]);
    }
}
