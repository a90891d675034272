//! One model in several forms, timed on the host in one run: what `skipc bench` and the benches in `tests/bench/` do.
//!
//! A [`Bench`] holds a [`Subject`] for each [`Variant`] and the [`Workload`] that all of them run. For each density there are
//! [`SETS`] sets of inputs, with decisions forced to exactly that density. Every form first runs every set once, which
//! warms it up, and the results are compared. Then come the rounds. In each of them all forms run once at every
//! density, so that what else the machine does meets all of them alike; which form is first changes with the turns of
//! the sets.
//!
//! A time is that of [`skipc_runtime::Session::run`], by the clock on the wall: a whole step as a caller sees it, from
//! handing over tokens and decisions to having logits and decisions. A ratio is the median of the ratios of all rounds,
//! because a machine whose speed drifts is about as fast for two forms that run one after the other. Only ratios within
//! one report mean something.

mod agree;
pub mod capacity;
mod cost;
pub mod decode;
mod machine;
pub(crate) mod plot;
pub mod profile;
mod report;
pub mod roofline;
mod subject;
mod tune;
mod workload;

use skipc_runtime::Batch;

use crate::driver::pipeline::{Request, Variant};
use crate::driver::trace::Trace;
use crate::error::Error;
use crate::frontend::spec::model::Model;
use crate::frontend::weights::Weights;

pub use agree::TOLERANCE;
pub use cost::{BlockCost, Cost};
pub use machine::processor;
pub use plot::svg;
pub use report::{BreakEven, Crossing, Point, Report, Timed, Times, crossing};
pub use subject::Subject;
pub use tune::tune;
pub use workload::{SETS, Workload};

/// Forms of one model with what they run.
pub struct Bench {
    subjects: Vec<Subject>,
    workload: Workload,
}

impl Bench {
    /// Compiles a model in each of these forms.
    ///
    /// # Errors
    /// As a compile.
    pub fn of_model(
        (model, weights): (&Model, &Weights),
        forms: &[Variant],
        tokens: u32,
        threads: usize,
        trace: &mut Trace,
    ) -> Result<Bench, Error> {
        let compile = |form: &Variant| {
            let request = Request { variant: *form, max_tokens: Some(tokens), ..Request::here() };
            Subject::compile((model, weights), &request, threads, trace)
        };
        let subjects = forms.iter().map(compile).collect::<Result<_, _>>()?;
        Ok(Bench::new(subjects, tokens))
    }

    /// `tokens` are split into sequences of at most the model's longest.
    pub fn new(subjects: Vec<Subject>, tokens: u32) -> Bench {
        let workload = Workload::new(&subjects, tokens);
        Bench { subjects, workload }
    }

    /// What the forms run.
    pub fn workload(&self) -> &Workload {
        &self.workload
    }

    /// The forms, in the order in which they were given.
    pub fn subjects(&mut self) -> &mut [Subject] {
        &mut self.subjects
    }

    /// Draws the inputs of a density and lets every form run each of them once; returns them with the largest
    /// difference between two forms' logits, relative to the largest logit.
    ///
    /// # Errors
    /// `bench::mismatch` if two forms differ by more than [`TOLERANCE`], or a form does not decide as it was forced to.
    pub fn prepare(&mut self, density: f64) -> Result<(Vec<Batch>, f64), Error> {
        let batches = self.workload.batches(density)?;
        let mut largest = 0.0f64;
        for (set, batch) in batches.iter().enumerate() {
            let run = |subject: &mut Subject| Ok((subject.form(), subject.run(batch)?));
            let outputs = self.subjects.iter_mut().map(run).collect::<Result<Vec<_>, Error>>()?;
            let case = agree::Case { batch, density, set };
            largest = largest.max(agree::check(&case, &outputs)?);
        }
        Ok((batches, largest))
    }

    /// Times all forms at all densities, ascending ones, each so many times. `turn` is called after each round, outside
    /// of all times.
    ///
    /// # Errors
    /// As [`Bench::prepare`].
    pub fn points(
        &mut self,
        densities: &[f64],
        rounds: usize,
        turn: &mut dyn FnMut(),
    ) -> Result<Vec<Point>, Error> {
        let mut prepared = Vec::new();
        for density in densities {
            prepared.push(self.prepare(*density)?);
        }
        let n_forms = self.subjects.len();
        let mut times = vec![vec![Vec::with_capacity(rounds); n_forms]; densities.len()];
        for round in 0..rounds {
            for ((batches, _), times) in prepared.iter().zip(&mut times) {
                let Some(batch) = batches.get(round % SETS) else { continue };
                for place in 0..n_forms {
                    // Another form begins when the sets are through, so that each form meets each set in each place.
                    let idx = (place + round / SETS) % n_forms;
                    if let (Some(subject), Some(times)) = (self.subjects.get_mut(idx), times.get_mut(idx)) {
                        times.push(subject.time(batch)?);
                    }
                }
            }
            turn();
        }
        let point = |((density, (batches, largest)), times): ((&f64, &(Vec<Batch>, f64)), Vec<_>)| {
            let executed = self.workload.executed(batches);
            let timed = self.subjects.iter().zip(times);
            let timed = timed.map(|(subject, times)| (subject.form(), times, subject.cost(&executed)));
            Point::new(*density, *largest, timed.collect())
        };
        Ok(densities.iter().zip(&prepared).zip(times).map(point).collect())
    }
}
