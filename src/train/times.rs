//! Where the time of training goes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::machine::Function;

/// How long kernels took, all calls of a run together.
#[derive(Clone, Debug, Default)]
pub struct Times {
    kernels: BTreeMap<(Function, String), (u64, Duration)>,
}

/// How long a kernel took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KernelTime {
    /// The function that it belongs to.
    pub function: &'static str,
    /// Its symbol.
    pub kernel: String,
    /// How often it ran in a step of training.
    pub runs: f64,
    /// Milliseconds of a step of training.
    pub ms: f64,
}

impl Times {
    /// Adds a run of a kernel.
    pub fn add(&mut self, function: Function, kernel: &str, time: Duration) {
        let (runs, sum) = self.kernels.entry((function, kernel.to_owned())).or_default();
        *runs += 1;
        *sum += time;
    }

    /// The time of each kernel in one of so many steps, the longest first.
    #[must_use]
    pub fn of_step(&self, steps: u64) -> Vec<KernelTime> {
        let steps = steps.max(1) as f64;
        let of_kernel = |((function, kernel), (runs, time)): (&(Function, String), &(u64, Duration))| {
            let (runs, ms) = (*runs as f64 / steps, 1000.0 * time.as_secs_f64() / steps);
            KernelTime { function: function.name(), kernel: kernel.clone(), runs, ms }
        };
        let mut times: Vec<KernelTime> = self.kernels.iter().map(of_kernel).collect();
        times.sort_by(|a, b| b.ms.total_cmp(&a.ms));
        times
    }
}

/// As text: a line for each kernel.
#[must_use]
pub fn text(times: &[KernelTime]) -> String {
    if times.is_empty() {
        return "no step ran, so no kernel has a time\n".to_owned();
    }
    let all: f64 = times.iter().map(|own| own.ms).sum();
    let mut text = format!("{all:.2} ms of kernels a step\n      ms      %  runs  kernel\n");
    for KernelTime { function, kernel, runs, ms } in times {
        let share = 100.0 * ms / all.max(f64::MIN_POSITIVE);
        let _ = writeln!(text, "{ms:8.3} {share:6.1} {runs:5.1}  {kernel} of {function}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_a_step() {
        let mut times = Times::default();
        for (function, ms) in [(Function::Gradient, 3), (Function::Gradient, 5), (Function::Update, 2)] {
            times.add(function, "k00", Duration::from_millis(ms));
        }
        let of_step = times.of_step(2);
        let short: Vec<_> = of_step.iter().map(|own| (own.function, own.runs, own.ms)).collect();
        assert_eq!(short, [("train_gradient", 1.0, 4.0), ("train_update", 0.5, 1.0)]);
        let text = text(&of_step);
        assert!(text.starts_with("5.00 ms") && text.contains("80.0   1.0  k00 of train_gradient"), "{text}");
    }
}
