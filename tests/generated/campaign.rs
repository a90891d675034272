//! Many subjects, on several threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::check::check_subject;
use crate::forms::{Compiler, Until};
use crate::subject::Subject;
use crate::tally::{Finding, Tally};
use crate::training;

/// Which subjects to check, and how far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Campaign {
    /// First seed.
    pub(crate) from: u64,
    /// How many.
    pub(crate) count: u64,
    /// Threads.
    pub(crate) threads: usize,
    /// Code is generated for the seeds that this divides; 0: for none.
    pub(crate) code_every: u64,
    /// When to stop before all are checked.
    pub(crate) deadline: Option<Instant>,
}

/// Findings after which a campaign stops: more say nothing new.
const ENOUGH: usize = 20;

/// Checks one subject; a panic is a finding.
pub(crate) fn check_caught(compiler: &dyn Compiler, subject: &Subject, until: Until) -> Tally {
    caught(subject.seed, || check_subject(compiler, subject, until))
}

fn caught(seed: u64, check: impl FnOnce() -> Tally) -> Tally {
    catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned();
        let finding = Finding { seed, check: "no panic".to_owned(), detail: text };
        Tally { models: 1, findings: vec![finding], ..Tally::default() }
    })
}

impl Campaign {
    /// How far to go with a subject: long ones are always compiled.
    pub(crate) fn until(&self, subject: &Subject) -> Until {
        match self.code_every {
            0 => Until::Kernels,
            every if subject.seed.is_multiple_of(every) || subject.is_long() => Until::Code,
            _ => Until::Kernels,
        }
    }

    /// Checks the subject of a seed: a model, or a training run.
    fn check(&self, compiler: &dyn Compiler, seed: u64) -> Tally {
        if seed >= training::FIRST_SEED {
            let with_code = self.code_every > 0 && seed.is_multiple_of(self.code_every);
            let until = if with_code { Until::Code } else { Until::Kernels };
            return caught(seed, || training::check_trainee(seed, until));
        }
        let subject = Subject::of(seed);
        check_caught(compiler, &subject, self.until(&subject))
    }

    /// Checks all subjects. `progress` hears how many are done.
    pub(crate) fn run(&self, compiler: &dyn Compiler, progress: &(dyn Fn(u64) + Sync)) -> Tally {
        let next = AtomicU64::new(0);
        let total = Mutex::new(Tally::default());
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| {
                    while self.deadline.is_none_or(|deadline| Instant::now() < deadline) {
                        // Who takes a seed checks it, so those checked have no gap.
                        let idx = next.fetch_add(1, Ordering::Relaxed);
                        if idx >= self.count {
                            break;
                        }
                        let seed = self.from + idx;
                        let tally = self.check(compiler, seed);
                        let mut total = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        total.add(tally);
                        if total.findings.len() >= ENOUGH {
                            break;
                        }
                        progress(total.models);
                    }
                });
            }
        });
        let mut total = total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        total.findings.sort_by_key(|finding| finding.seed);
        total
    }
}
