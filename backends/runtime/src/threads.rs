//! The threads of a session.

use crate::error::Error;

/// How often a thread that waits looks before it lets other programs have its processor: some tens of microseconds, longer
/// than a short kernel takes, and shorter than the system takes to wake a thread.
const LOOKS: u32 = 1000;

/// Threads at most, on a machine that has not more processors: more only wait for each other.
const MOST: usize = 256;

/// A fixed number of threads that do one thing together. The calling thread is one of them: so the system has the others
/// to place, and finds them processors of their own.
#[derive(Debug)]
pub struct Threads {
    /// The others; `None` if there are none.
    pool: Option<rayon::ThreadPool>,
}

impl Threads {
    /// Starts threads; with one, the calling thread does all work itself.
    ///
    /// # Errors
    ///
    /// [`Error::Threads`] for none, or more than [`Threads::most`]; and if the system gives no more.
    pub fn new(threads: usize) -> Result<Self, Error> {
        let most = Self::most();
        if !(1..=most).contains(&threads) {
            return Err(Error::Threads { threads, reason: format!("it should be from 1 to {most}") });
        }
        if threads == 1 {
            return Ok(Self { pool: None });
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads - 1).build();
        let pool = pool.map_err(|error| Error::Threads { threads, reason: error.to_string() })?;
        Ok(Self { pool: Some(pool) })
    }

    /// As many as the machine runs at once.
    #[must_use]
    pub fn available() -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    /// The most that a session takes: as many as the machine runs at once, or 256 if these are fewer.
    #[must_use]
    pub fn most() -> usize {
        Self::available().max(MOST)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        1 + self.pool.as_ref().map_or(0, rayon::ThreadPool::current_num_threads)
    }

    /// Calls `task` on every thread with its number, and returns when all calls have. The task may wait for what another
    /// thread does by [`wait_until`], but not for a thread to begin: that may be late.
    pub fn together(&self, task: impl Fn(usize) + Sync) {
        match &self.pool {
            Some(pool) => pool.in_place_scope(|scope| {
                let task = &task;
                scope.spawn_broadcast(move |_, thread| task(thread.index() + 1));
                task(0);
            }),
            None => task(0),
        }
    }
}

/// Waits for what another thread does within microseconds: stays awake.
pub fn wait_until(is_done: impl Fn() -> bool) {
    let mut looks = 0;
    while !is_done() {
        if looks < LOOKS {
            looks += 1;
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn every_thread_is_called_once() {
        for threads in [1, 2, 3] {
            let threads = Threads::new(threads).unwrap();
            for _ in 0..100 {
                let called: Vec<_> = (0..threads.count()).map(|_| AtomicUsize::new(0)).collect();
                threads.together(|thread| {
                    called[thread].fetch_add(1, Ordering::Relaxed);
                });
                assert!(called.iter().all(|called| called.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn none_and_too_many_are_refused() {
        for threads in [0, Threads::most() + 1, usize::MAX] {
            assert_eq!(
                Threads::new(threads).err().map(|error| error.code()),
                Some("run::threads"),
                "{threads}"
            );
        }
    }

    #[test]
    fn threads_wait_for_what_another_does() {
        let threads = Threads::new(3).unwrap();
        let turn = AtomicUsize::new(0);
        threads.together(|thread| {
            wait_until(|| turn.load(Ordering::Acquire) == thread);
            turn.store(thread + 1, Ordering::Release);
        });
        assert_eq!(turn.into_inner(), 3);
    }
}
