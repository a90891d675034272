//! Running a kernel in several schedules.

use std::sync::Arc;
use std::time::{Duration, Instant};

use skipc_ptx::machine::{Counters, Fault, FaultKind, Launch, Memory, Program};

use crate::Cli;
use crate::failure::Failure;
use crate::prepare::Prepared;

/// What came of one schedule.
pub(crate) struct Run {
    pub(crate) seed: u64,
    /// Of the fastest of its repetitions.
    pub(crate) time: Duration,
    pub(crate) result: Result<Counters, Box<Fault>>,
}

/// What came of all.
pub(crate) struct Runs {
    pub(crate) runs: Vec<Run>,
    /// Memory after the first schedule.
    pub(crate) memory: Memory,
    /// Where a schedule without a fault left something else than another one did.
    pub(crate) difference: Option<Difference>,
}

/// The first byte in which the results of two schedules differ.
pub(crate) struct Difference {
    /// Seeds of the schedules.
    pub(crate) seeds: [u64; 2],
    pub(crate) buffer: usize,
    pub(crate) offset: usize,
}

impl Runs {
    /// Whether no fault was found and all results agree.
    pub(crate) fn are_sound(&self) -> bool {
        self.difference.is_none() && self.runs.iter().all(|run| run.result.is_ok())
    }

    /// Counters of the first schedule that has some.
    pub(crate) fn counters(&self) -> Option<&Counters> {
        self.runs.iter().find_map(|run| run.result.as_ref().ok())
    }

    /// Instructions of threads a second, of the fastest schedule.
    pub(crate) fn rate(&self) -> Option<f64> {
        let rate = |run: &Run| {
            let n = run.result.as_ref().ok()?.thread_instructions;
            Some(n as f64 / run.time.as_secs_f64().max(f64::EPSILON))
        };
        self.runs.iter().filter_map(rate).reduce(f64::max)
    }
}

pub(crate) fn run(cli: &Cli, program: Program, prepared: &Prepared) -> Result<Runs, Failure> {
    let program = Arc::new(program);
    let seeds = match cli.seed {
        Some(seed) => seed..=seed,
        None => 0..=cli.schedules - 1,
    };
    let mut runs = Vec::new();
    let mut first = None;
    // Seed and memory of the first schedule without a fault.
    let mut sound: Option<(u64, Memory)> = None;
    let mut difference = None;
    for seed in seeds {
        let (run, memory) = one(cli, &program, prepared, seed);
        if let Err(fault) = &run.result
            && fault.kind == FaultKind::Launch
        {
            return Err(Failure::new(format!("`{}` cannot be started: {}", prepared.kernel, fault.what)));
        }
        if run.result.is_ok() {
            match &sound {
                None => sound = Some((seed, memory.clone())),
                Some((other, reference)) if difference.is_none() => {
                    difference = differ(reference, &memory).map(|(buffer, offset)| Difference {
                        seeds: [*other, seed],
                        buffer,
                        offset,
                    });
                }
                Some(_) => {}
            }
        }
        first.get_or_insert(memory);
        runs.push(run);
    }
    Ok(Runs { runs, memory: first.unwrap_or_default(), difference })
}

fn one(cli: &Cli, program: &Arc<Program>, prepared: &Prepared, seed: u64) -> (Run, Memory) {
    let launch = Launch { seed, ..prepared.launch.clone() };
    let once = || {
        let mut memory = prepared.memory.clone();
        let start = Instant::now();
        let result = skipc_ptx::machine::run(program, &launch, &mut memory);
        (Run { seed, time: start.elapsed(), result }, memory)
    };
    let mut best = once();
    for _ in 1..cli.repeat {
        let next = once();
        if next.0.time < best.0.time {
            best = next;
        }
    }
    best
}

/// Buffer and byte in which two memories first differ.
fn differ(left: &Memory, right: &Memory) -> Option<(usize, usize)> {
    let buffers = left.buffers().iter().zip(right.buffers()).enumerate();
    let mut places =
        buffers.filter(|(_, (left, right))| left.bytes != right.bytes).filter_map(|(idx, (left, right))| {
            let at = left.bytes.iter().zip(&right.bytes).position(|(left, right)| left != right)?;
            Some((idx, at))
        });
    places.next()
}
