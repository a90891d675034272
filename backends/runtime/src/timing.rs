//! Where the time and the memory of a run go.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::error::Error;
use crate::memory;
use crate::session::Session;
use crate::steps::cuts;

/// Steps that are timed, behind one that finds its memory for the first time.
const ROUNDS: usize = 10;

/// Times of a step.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Opening the artefact, checking it and making a session of it.
    pub load: Duration,
    /// How many steps the batch takes.
    pub steps: usize,
    /// The median of all these steps together.
    pub step: Duration,
    /// For each kernel its symbol, how often a step runs it, and the time of all these in the median step. Nothing on a
    /// GPU, where a step is one launch.
    pub kernels: Vec<(String, usize, Duration)>,
    /// The peak resident memory of the process in KiB, where the system says.
    pub peak_kib: Option<u64>,
}

impl Timing {
    /// Runs a batch some more times.
    ///
    /// # Errors
    ///
    /// As [`Session::run`].
    pub fn of(session: &mut Session, batch: &Batch, load: Duration) -> Result<Self, Error> {
        let mut rounds = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let started = Instant::now();
            session.run(batch)?;
            rounds.push((started.elapsed(), session.step_times().to_vec()));
        }
        rounds.sort_by_key(|(step, _)| *step);
        let (step, times) = rounds.swap_remove(rounds.len() / 2);
        let program = session.program();
        let of_kernel = |(idx, entry): (usize, &skipc_artifact::program::Entry)| {
            let steps = session.function().steps.iter().zip(&times);
            let steps = steps.filter(|(step, _)| step.kernel as usize == idx);
            let (runs, time) =
                steps.fold((0, Duration::ZERO), |(runs, sum), (_, time)| (runs + 1, sum + *time));
            (entry.symbol.clone(), runs, time)
        };
        let kernels = match times.is_empty() {
            true => Vec::new(),
            false => {
                program.entries.iter().enumerate().map(of_kernel).filter(|(_, runs, _)| *runs > 0).collect()
            }
        };
        let steps = cuts(&batch.lengths, session.function().max_tokens).len();
        Ok(Self { load, steps, step, kernels, peak_kib: memory::peak_kib() })
    }

    /// As text: a line, and one for each kernel, the longest first.
    #[must_use]
    pub fn text(&self) -> String {
        let steps = match self.steps {
            1 => "a step".to_owned(),
            steps => format!("for {steps} steps"),
        };
        let mut text = format!("{:.2} ms to load, {:.2} ms {steps}", ms(self.load), ms(self.step));
        if let Some(peak) = self.peak_kib {
            let _ = write!(text, ", {peak} KiB peak memory");
        }
        text.push('\n');
        let mut kernels: Vec<_> = self.kernels.iter().collect();
        kernels.sort_by_key(|(_, _, time)| std::cmp::Reverse(*time));
        if !kernels.is_empty() {
            text.push_str("      ms      %  runs  kernel\n");
        }
        for (symbol, runs, time) in kernels {
            let share = 100.0 * time.as_secs_f64() / self.step.as_secs_f64().max(f64::MIN_POSITIVE);
            let _ = writeln!(text, "{:8.3} {share:6.1} {runs:5}  {symbol}", ms(*time));
        }
        text
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let kernel = |(symbol, runs, time): &(String, usize, Duration)| serde_json::json!({"kernel": symbol, "runs": runs, "ms": ms(*time)});
        serde_json::json!({
            "load_ms": ms(self.load),
            "steps": self.steps,
            "step_ms": ms(self.step),
            "kernels": self.kernels.iter().map(kernel).collect::<Vec<_>>(),
            "peak_kib": self.peak_kib,
        })
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
