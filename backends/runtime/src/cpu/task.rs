//! Kernels with their arguments, how rows are split among calls, and which thread makes which.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use skipc_artifact::abi::HostKernel;
use skipc_artifact::program::{Entry, Extent, Launch};

use super::HELPERS;
use crate::threads::wait_until;

/// Most calls that one kernel run is split into: enough that threads which others hold up leave work to the rest.
const MAX_CALLS: u32 = 16;

/// Calls for each thread if each has all rows, which each may have to gather. They change no bit, see [`skipc_artifact::program::FewRows`].
const CALLS_OF_ALL_ROWS: u32 = 2;

/// Rows that a call has, if there are so many that all calls can have more or less: weights come from memory once for
/// each call, which the arithmetic of some tens of rows hides.
const CALL_ROWS: u32 = 32;

/// Addresses that several threads read.
#[derive(Debug)]
pub(super) struct Pointers(pub(super) Vec<*mut u8>);

// SAFETY: the list of addresses is not changed while it is shared. What stands at the addresses is up to the
// kernels; see the call.
unsafe impl Sync for Pointers {}

// SAFETY: addresses belong to no thread.
unsafe impl Send for Pointers {}

/// One step of a run.
#[derive(Debug)]
pub(super) struct Task {
    kernel: HostKernel,
    args: Pointers,
    extent: Extent,
    launch: Launch,
    /// Rows of any extent, at most.
    bound: u32,
    /// Its tiles, of which nothing is known before it is open.
    tiles: AtomicU32,
    /// How many calls it is split into, once it is open.
    calls: AtomicU32,
    /// The call that is next.
    next: AtomicU32,
    /// How many calls have ended.
    done: AtomicU32,
    /// When all had, in nanoseconds from the start of the run; 0 if it had none.
    ended: AtomicU64,
}

impl Task {
    pub(super) fn new((entry, kernel): (&Entry, HostKernel), args: Pointers, bound: u32) -> Self {
        Self {
            kernel,
            args,
            extent: entry.extent,
            launch: entry.launch.clone(),
            bound,
            tiles: AtomicU32::new(0),
            calls: AtomicU32::new(0),
            next: AtomicU32::new(0),
            done: AtomicU32::new(0),
            ended: AtomicU64::new(0),
        }
    }

    /// As it was before a run.
    fn reset(&mut self) {
        for count in [&mut self.tiles, &mut self.calls, &mut self.next, &mut self.done] {
            *count = AtomicU32::new(0);
        }
        self.ended = AtomicU64::new(0);
    }

    /// How many rows there are.
    ///
    /// # Safety
    ///
    /// The task's arguments are what the kernel expects, the count of its rows among them, which no kernel is writing.
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

/// A call of a kernel by a thread, in nanoseconds from the start of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The step of the function.
    pub step: u32,
    /// The thread, from 0 on.
    pub thread: u32,
    /// When it began.
    pub begin: u64,
    /// When it ended.
    pub end: u64,
}

/// The steps of a run, one after the other. Each begins when all calls of the one before have ended, whichever threads
/// they ran on: nobody waits for a thread that has nothing to do.
pub(super) struct Tasks {
    tasks: Vec<Task>,
    /// The step that runs, and all behind the last: what threads wait for, so that those without work cost nobody anything.
    open: AtomicUsize,
    threads: u32,
    started: Instant,
    /// The calls of each thread, if they are wanted. Each thread has a list of its own, so that no lock is ever waited for.
    calls: Vec<Mutex<Vec<Call>>>,
}

impl Tasks {
    /// Steps for so many threads, which may have been run before.
    ///
    /// # Safety
    ///
    /// The kernels are of their signature, their arguments what they expect, and nothing but [`Tasks::run`] touches what
    /// these point to while it runs.
    pub(super) unsafe fn begin(mut tasks: Vec<Task>, threads: usize, with_calls: bool) -> Self {
        tasks.iter_mut().for_each(Task::reset);
        let calls = (0..if with_calls { threads } else { 0 }).map(|_| Mutex::default()).collect();
        let tasks = Self {
            tasks,
            open: AtomicUsize::new(0),
            threads: threads as u32,
            started: Instant::now(),
            calls,
        };
        // SAFETY: passed on from the caller; nothing runs yet.
        unsafe { tasks.open(0) };
        tasks
    }

    /// Lets a step begin, or if it has nothing to do, those behind it.
    ///
    /// # Safety
    ///
    /// All steps before it have ended.
    unsafe fn open(&self, first: usize) {
        for (idx, task) in self.tasks.iter().enumerate().skip(first) {
            // SAFETY: passed on from the caller, and the arguments are as the maker of the tasks says.
            let rows = unsafe { task.rows() };
            let tiles = task.launch.host_tiles(rows);
            let calls = match &task.launch {
                Launch::Host { few_rows: Some(few), .. } if rows <= few.at_most => {
                    tiles.min(self.threads * CALLS_OF_ALL_ROWS)
                }
                _ => calls(rows, tiles),
            };
            if calls > 0 {
                task.tiles.store(tiles, Ordering::Relaxed);
                task.calls.store(calls, Ordering::Relaxed);
                self.open.store(idx, Ordering::Release);
                return;
            }
        }
        self.open.store(self.tasks.len(), Ordering::Release);
    }

    /// Takes part in all steps.
    ///
    /// # Safety
    ///
    /// Threads that run the same tasks have different scratch memory, as much as any kernel needs.
    pub(super) unsafe fn run(&self, thread: usize, scratch: *mut u8) {
        let mut own = self.calls.get(thread).and_then(|calls| calls.lock().ok());
        let now = || self.started.elapsed().as_nanos() as u64;
        let mut idx = self.open.load(Ordering::Acquire);
        while let Some(task) = self.tasks.get(idx) {
            let calls = task.calls.load(Ordering::Relaxed);
            loop {
                let call = task.next.fetch_add(1, Ordering::Relaxed);
                if call >= calls {
                    break;
                }
                let Range { start, end } = part(task.tiles.load(Ordering::Relaxed), calls, call);
                let begin = if own.is_some() { now() } else { 0 };
                // SAFETY: whoever made the tasks vouches for kernel and arguments, the caller for the scratch memory. Each
                // call has tiles of its own, all of them below the extent.
                unsafe { (task.kernel)(task.args.0.as_ptr(), &raw const HELPERS, start, end, scratch) };
                if let Some(own) = &mut own {
                    own.push(Call { step: idx as u32, thread: thread as u32, begin, end: now() });
                }
                if task.done.fetch_add(1, Ordering::AcqRel) + 1 == calls {
                    task.ended.store(self.started.elapsed().as_nanos() as u64, Ordering::Relaxed);
                    // SAFETY: all calls of this step have ended, and with them this step.
                    unsafe { self.open(idx + 1) };
                }
            }
            let ended = idx;
            wait_until(|| self.open.load(Ordering::Acquire) != ended);
            idx = self.open.load(Ordering::Acquire);
        }
    }
}

impl Tasks {
    /// The steps, to be run again, and the calls, thread by thread.
    pub(super) fn into_inner(self) -> (Vec<Task>, Vec<Call>) {
        let calls = self.calls.into_iter().filter_map(|calls| calls.into_inner().ok());
        (self.tasks, calls.flatten().collect())
    }
}

/// What each step took in the run that has ended.
pub(super) fn times(tasks: &[Task]) -> Vec<Duration> {
    let mut before = 0;
    let took = tasks.iter().map(|task| {
        let ended = task.ended.load(Ordering::Relaxed).max(before);
        Duration::from_nanos(ended - std::mem::replace(&mut before, ended))
    });
    took.collect()
}

/// How many calls so many rows are split into. A matmul's order of sums may depend on its size, so the number of
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
