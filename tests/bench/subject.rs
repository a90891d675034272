//! A compiled model, ready to be timed.

use std::error::Error;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use skipc::spec::model::Model;
use skipc::spec::weights::{DType, Weights};
use skipc::spec::{self, random};
use skipc::trace::Trace;
use skipc::{pack, pipeline};
use skipc_runtime::{Batch, Device, Options, Session};

/// What can go wrong, in words.
pub(crate) type Failed = Box<dyn Error>;

/// A program in memory.
pub(crate) struct Subject {
    pub(crate) session: Session,
    /// Kernels of a step.
    pub(crate) n_steps: usize,
}

impl Subject {
    /// Compiles a spec in its text form, with random weights.
    pub(crate) fn of_text(text: &str) -> Result<Subject, Failed> {
        let model = spec::model("bench", text).map_err(|error| format!("{error:?}\n{text}"))?;
        Subject::of_model(&model, None)
    }

    /// Compiles a model with random weights.
    pub(crate) fn of_model(model: &Model, passes: Option<Vec<String>>) -> Result<Subject, Failed> {
        let bytes = random::weights_file(model, 1, DType::F32).map_err(|error| format!("{error:?}"))?;
        let len = bytes.len() as u64;
        let weights =
            Weights::read("random", bytes.as_slice(), len, model).map_err(|error| format!("{error:?}"))?;
        let request = pipeline::Request { passes, ..pipeline::Request::host() };
        let failed = |failure: skipc::cli::Failure| format!("{:?}", failure.diagnostics);
        let compiled = pipeline::compile(model, &weights, &request, &mut Trace::silent()).map_err(failed)?;
        let bytes = pack::pack(model, &weights, &request, compiled).map_err(failed)?;
        let artefact = skipc_runtime::Model::from_bytes(&bytes)?;
        let session = Session::new(&artefact, Device::Cpu, Options { threads: 1, ..Options::default() })?;
        let n_steps = session.program().layout.steps.len();
        Ok(Subject { session, n_steps })
    }

    /// How long one run keeps this thread at work.
    pub(crate) fn time(&mut self, batch: &Batch) -> Result<Duration, Failed> {
        let started = own_time()?;
        let outputs = self.session.run(batch)?;
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
    Batch { tokens, lengths: vec![length; n_sequences as usize], routing: None }
}
