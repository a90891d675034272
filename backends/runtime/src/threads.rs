//! The threads of a session.

use rayon::iter::{IndexedParallelIterator as _, IntoParallelIterator as _, ParallelIterator as _};

use crate::error::Error;

/// A fixed number of threads that share out tasks.
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

    /// Calls `task` once for each number below `tasks`, in any order, and returns when all calls have.
    pub fn parallel(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        match &self.pool {
            Some(pool) if tasks > 1 => {
                pool.install(|| (0..tasks).into_par_iter().with_max_len(1).for_each(&task));
            }
            _ => (0..tasks).for_each(task),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in [0, 1, 2, 3] {
            let threads = Threads::new(threads).unwrap();
            for tasks in [0, 1, 2, 17] {
                let ran: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                threads.parallel(tasks, |idx| {
                    ran[idx].fetch_add(1, Ordering::Relaxed);
                });
                assert!(ran.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }
}
