//! The threads of a session.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::Error;

/// How often a thread that waits for others looks before it lets other programs have its processor: some tens of
/// microseconds, longer than a short kernel takes, and shorter than the system takes to wake a thread.
const LOOKS: u32 = 1000;

/// A fixed number of threads that do one thing after the other together.
#[derive(Debug)]
pub struct Threads {
    /// `None` if the calling thread does everything.
    pool: Option<rayon::ThreadPool>,
}

impl Threads {
    /// Starts threads; with one, the calling thread does all work itself.
    ///
    /// # Errors
    ///
    /// [`Error::Threads`] if the system gives no more.
    pub fn new(threads: usize) -> Result<Self, Error> {
        if threads <= 1 {
            return Ok(Self { pool: None });
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|error| Error::Threads { threads, reason: error.to_string() })?;
        Ok(Self { pool: Some(pool) })
    }

    /// As many as the machine runs at once.
    #[must_use]
    pub fn available() -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.pool.as_ref().map_or(1, rayon::ThreadPool::current_num_threads)
    }

    /// Calls `task` on every thread at once, and returns when all calls have. They may wait for each other at the
    /// meeting, all as often as each other. The task may not panic: others would wait for it.
    pub fn together(&self, task: impl Fn(&Meeting) + Sync) {
        match &self.pool {
            Some(pool) => {
                let meeting = Meeting::of(self.count());
                pool.broadcast(|_| task(&meeting));
            }
            None => task(&Meeting::of(1)),
        }
    }
}

/// Where threads wait for each other. They stay awake, because the next thing to do comes in microseconds.
#[derive(Debug)]
pub struct Meeting {
    members: usize,
    arrived: AtomicUsize,
    /// How often all have met.
    met: AtomicUsize,
}

impl Meeting {
    fn of(members: usize) -> Self {
        Self { members, arrived: AtomicUsize::new(0), met: AtomicUsize::new(0) }
    }

    /// Returns when all members have called it, to each as often as to this one; then each sees what all have written.
    pub fn wait(&self) {
        let met = self.met.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.members {
            // The others are still waiting, so that nobody arrives between these two.
            self.arrived.store(0, Ordering::Relaxed);
            self.met.store(met.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut looks = 0;
        while self.met.load(Ordering::Acquire) == met {
            if looks < LOOKS {
                looks += 1;
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_have_done_a_thing_before_one_does_the_next() {
        for n_threads in [0, 1, 2, 3, 7] {
            let threads = Threads::new(n_threads).unwrap();
            let members = n_threads.max(1);
            for things in [0, 1, 200] {
                let done: Vec<_> = (0..things).map(|_| AtomicUsize::new(0)).collect();
                threads.together(|meeting| {
                    for thing in &done {
                        thing.fetch_add(1, Ordering::Relaxed);
                        meeting.wait();
                        assert_eq!(thing.load(Ordering::Relaxed), members);
                    }
                });
                assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == members));
            }
        }
    }
}
