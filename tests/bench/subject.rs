//! A spec in its text form, compiled and timed by the work of one thread.

use std::error::Error;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use skipc::bench;
use skipc::driver::pipeline::Request;
use skipc::driver::trace::Trace;
use skipc::frontend::spec;
use skipc::frontend::weights::Weights;
use skipc::frontend::weights::drawn::RANDOM_SEED;
use skipc_runtime::Batch;

/// What can go wrong, in words.
pub(crate) type Failed = Box<dyn Error>;

/// A program in memory.
pub(crate) struct Subject {
    compiled: bench::Subject,
}

impl Subject {
    /// Compiles a spec with random weights, its ops as they stand: what is measured is what the spec says.
    pub(crate) fn of_text(text: &str) -> Result<Subject, Failed> {
        let model = spec::model("bench", text).map_err(|error| format!("{error:?}\n{text}"))?;
        let failed = |failure: skipc::Error| format!("{}\n{text}", failure.diagnostics);
        let weights = Weights::drawn(&model, RANDOM_SEED).map_err(skipc::Error::from).map_err(failed)?;
        let request = Request { passes: Some(skipc_passes::plain_pipeline()), ..Request::host() };
        let compiled =
            bench::Subject::compile((&model, &weights), &request, 1, &mut Trace::silent()).map_err(failed)?;
        Ok(Subject { compiled })
    }

    /// Kernels of a step.
    pub(crate) fn n_steps(&self) -> usize {
        self.compiled.function().steps.len()
    }

    /// How long one run keeps this thread at work.
    fn time(&mut self, batch: &Batch) -> Result<Duration, Failed> {
        let started = own_time()?;
        let outputs = self.compiled.run(batch).map_err(|failure| failure.diagnostics.to_string())?;
        let time = own_time()?.saturating_sub(started);
        std::hint::black_box(outputs);
        Ok(time)
    }
}

/// The time that this thread had a processor, so that what else runs on the machine counts little.
fn own_time() -> Result<Duration, Failed> {
    Ok(Duration::try_from(clock_gettime(ClockId::ThreadCPUTime))?)
}

/// How long each subject takes, in nanoseconds: the shortest of so many rounds in which each runs its batch once. What
/// else the machine does can only add to a time.
pub(crate) fn shortest(subjects: &mut [(&mut Subject, &Batch)], rounds: usize) -> Result<Vec<f64>, Failed> {
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); subjects.len()];
    for round in 0..=rounds {
        for ((subject, batch), times) in subjects.iter_mut().zip(&mut times) {
            let time = subject.time(batch)?;
            // The first round warms up.
            if round > 0 {
                times.push(time);
            }
        }
    }
    let shortest = |times: Vec<Duration>| times.into_iter().min().unwrap_or_default().as_nanos() as f64;
    Ok(times.into_iter().map(shortest).collect())
}

/// Sequences of one length with tokens of no pattern.
pub(crate) fn batch(n_sequences: u32, length: u32) -> Batch {
    let n = n_sequences * length;
    let tokens = (0..n).map(|idx| (idx * 37 + idx / 11) % 32).collect();
    Batch { tokens, lengths: vec![length; n_sequences as usize], ..Batch::default() }
}
