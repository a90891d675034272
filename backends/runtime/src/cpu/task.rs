//! A kernel with its arguments, and how its rows are split among calls.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use skipc_artifact::abi::HostKernel;
use skipc_artifact::program::{Entry, Extent, Launch};

use super::HELPERS;

/// Most calls that one kernel run is split into: enough that threads which others hold up leave work to the rest.
const MAX_CALLS: u32 = 16;

/// Calls for each thread if each has all rows, which each may have to gather. They change no bit, see [`skipc_artifact::program::FewRows`].
const CALLS_OF_ALL_ROWS: u32 = 2;

/// Rows that a call has, if there are so many that all calls can have more or less: weights come from memory once for
/// each call, which the arithmetic of some tens of rows hides.
const CALL_ROWS: u32 = 32;

/// Addresses that several threads read.
pub(super) struct Pointers(pub(super) Vec<*mut u8>);

// SAFETY: the list of addresses is not changed while it is shared. What stands at the addresses is up to the
// kernels; see the call.
unsafe impl Sync for Pointers {}

/// One step of a run, of which threads take calls until none is left.
pub(super) struct Task {
    kernel: HostKernel,
    args: Pointers,
    extent: Extent,
    launch: Launch,
    /// Rows of any extent, at most.
    bound: u32,
    /// The call that is next.
    next: AtomicU32,
    /// When all calls had ended, in nanoseconds from the start of the run.
    pub(super) ended: AtomicU64,
}

impl Task {
    pub(super) fn new((entry, kernel): (&Entry, HostKernel), args: Pointers, bound: u32) -> Self {
        let (extent, launch) = (entry.extent, entry.launch.clone());
        Self { kernel, args, extent, launch, bound, next: AtomicU32::new(0), ended: AtomicU64::new(0) }
    }

    /// Runs calls until all are taken, as one of so many threads.
    ///
    /// # Safety
    ///
    /// The kernel is of this signature, and its arguments are what it expects, the count of its rows among them, which
    /// no kernel is writing. Threads that run one task have different scratch memory, as much as the kernel needs.
    pub(super) unsafe fn run(&self, threads: u32, scratch: *mut u8) {
        // SAFETY: passed on from the caller.
        let rows = unsafe { self.rows() };
        let tiles = self.launch.host_tiles(rows);
        let calls = match &self.launch {
            Launch::Host { few_rows: Some(few), .. } if rows <= few.at_most => {
                tiles.min(threads * CALLS_OF_ALL_ROWS)
            }
            _ => calls(rows, tiles),
        };
        loop {
            let call = self.next.fetch_add(1, Ordering::Relaxed);
            if call >= calls {
                return;
            }
            let Range { start, end } = part(tiles, calls, call);
            // SAFETY: passed on from the caller. Each call has tiles of its own, all of them below the extent.
            unsafe { (self.kernel)(self.args.0.as_ptr(), &raw const HELPERS, start, end, scratch) };
        }
    }

    /// How many rows there are.
    ///
    /// # Safety
    ///
    /// As [`Task::run`].
    unsafe fn rows(&self) -> u32 {
        match self.extent {
            Extent::Fixed(rows) => rows,
            Extent::Counted { count, at_most } => {
                let count = self.args.0.get(count as usize).map_or(0, |&count| {
                    // SAFETY: `check::program` made sure that this argument is a buffer of one u32. It lies in the
                    // arena at a multiple of 4 bytes, and the caller says that nobody is writing it.
                    unsafe { count.cast::<u32>().read() }
                });
                count.min(at_most).min(self.bound)
            }
        }
    }
}

/// How many calls so many rows are split into. A product's order of sums may depend on its size, so the number of
/// threads has no say. Two threads find as much to do as each other: the number is even, if there are two tiles.
fn calls(rows: u32, tiles: u32) -> u32 {
    let wanted = (rows / CALL_ROWS).clamp(2, MAX_CALLS).next_multiple_of(2);
    wanted.min(tiles)
}

/// The tiles of one call: as many as those of the others, or one more.
fn part(tiles: u32, calls: u32, call: u32) -> Range<u32> {
    let border = |call: u32| (u64::from(tiles) * u64::from(call) / u64::from(calls.max(1))) as u32;
    border(call)..border(call + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_cover_all_tiles_evenly() {
        for tile_rows in [1, 8, 64] {
            for rows in (0..300).chain([511, 512, 513, 2048, 100_000]) {
                let tiles = u32::div_ceil(rows, tile_rows);
                let calls = calls(rows, tiles);
                let parts: Vec<_> = (0..calls).map(|call| part(tiles, calls, call)).collect();
                assert!(calls <= MAX_CALLS);
                assert_eq!(parts.iter().map(|part| part.len() as u32).sum::<u32>(), tiles);
                assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
                let lengths = parts.iter().map(ExactSizeIterator::len);
                let (least, most) = (lengths.clone().min().unwrap_or(0), lengths.max().unwrap_or(0));
                assert!(
                    most <= least + 1 && (calls == 0 || least > 0),
                    "{rows} rows in tiles of {tile_rows}"
                );
                assert!(tiles < 2 || calls.is_multiple_of(2) || calls == tiles);
            }
        }
    }
}
