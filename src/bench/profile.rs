//! Where the time of a step goes: each call of each kernel by thread, or each kernel on a GPU, beside what the kernel computes
//! and moves and what the device can. The rates of a kernel count what the cost model counts ([`crate::cost::StepCost`]); bytes are those that
//! kernels read and write, so that a rate above the memory's means caches.

use std::collections::BTreeMap;

use serde::Serialize;
use skipc_artifact::interface::RouterPorts;
use skipc_ir::SetSym;
use skipc_passes::rewrite::cost::Counts;
use skipc_runtime::{Batch, Call, peak};

use super::decode::read_bandwidth;
use super::{Bench, Subject};
use crate::cost::{StepCost, part};
use crate::diagnostic::Diagnostic;
use crate::error::{Error, ErrorKind};

/// What the device does at most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Machine {
    /// Threads of the host; one for a GPU, whose kernels follow each other.
    pub threads: usize,
    /// Operations in G a second, a multiply-add is two: measured in f32 on registers, or of a GPU's tensor cores in bf16 by
    /// its clock.
    pub gflops: f64,
    /// Bytes in G a second, measured: read from memory, or written to that of a GPU.
    pub gbytes: f64,
    /// What these are, in words.
    pub about: &'static str,
}

/// A run of the median time at one density.
#[derive(Clone, Debug, Serialize)]
pub struct Profile {
    /// Share of the tokens that every router that decides executes.
    pub density: f64,
    /// From the begin of the first call to the end of the last, in ns.
    pub wall_ns: u64,
    /// Time of all threads in no call, as a share of their time.
    pub waiting: f64,
    /// The steps, in order.
    pub steps: Vec<StepTime>,
    /// The calls of the run, by their begin.
    #[serde(skip)]
    pub calls: Vec<Call>,
}

/// A step's time and rates.
#[derive(Clone, Debug, Serialize)]
pub struct StepTime {
    /// Its kernel.
    pub kernel: String,
    /// Where it comes from in the model.
    pub origin: String,
    /// From its first call's begin to its last call's end, in ns; 0 if it had nothing to do.
    pub wall_ns: u64,
    /// Time of all threads in its calls, in ns.
    pub busy_ns: u64,
    /// Operations, a multiply-add is two.
    pub flops: f64,
    /// Bytes read and written.
    pub bytes: f64,
}

/// Steps put together.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sum {
    /// What they have in common.
    pub name: String,
    /// How many steps.
    pub runs: usize,
    /// Their time in ns.
    pub wall_ns: u64,
    /// Operations.
    pub flops: f64,
    /// Bytes.
    pub bytes: f64,
}

impl Sum {
    /// Operations in G a second.
    pub fn gflops(&self) -> f64 {
        self.flops / (self.wall_ns.max(1) as f64)
    }

    /// Bytes in G a second.
    pub fn gbytes(&self) -> f64 {
        self.bytes / (self.wall_ns.max(1) as f64)
    }
}

impl Machine {
    /// Measures what a subject runs on.
    ///
    /// # Errors
    /// What the driver of a GPU says.
    pub fn of(subject: &Subject, threads: usize) -> Result<Machine, Error> {
        Ok(match subject.gpu_peak()? {
            None => Machine {
                threads,
                gflops: peak::multiply_adds(threads) / 1e9,
                gbytes: read_bandwidth(threads) / 1e9,
                about: "in f32 and from memory, measured now",
            },
            Some(peak) => Machine {
                threads: 1,
                gflops: peak.operations / 1e9,
                gbytes: peak.bytes / 1e9,
                about: "by its tensor cores in bf16 at their highest clock, and to its memory, measured now",
            },
        })
    }
}

impl Profile {
    /// The steps by something that they have in common, the longest first.
    pub fn sums(&self, key: impl Fn(&StepTime) -> String) -> Vec<Sum> {
        let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
        for step in &self.steps {
            let sum = sums.entry(key(step)).or_default();
            sum.runs += 1;
            sum.wall_ns += step.wall_ns;
            sum.flops += step.flops;
            sum.bytes += step.bytes;
        }
        let mut sums: Vec<Sum> = sums.into_iter().map(|(name, sum)| Sum { name, ..sum }).collect();
        sums.sort_by_key(|sum| std::cmp::Reverse(sum.wall_ns));
        sums
    }

    /// By kernel.
    pub fn kernels(&self) -> Vec<Sum> {
        self.sums(|step| step.kernel.clone())
    }

    /// By block of the model, in its order.
    pub fn blocks(&self) -> Vec<Sum> {
        let order = |name: &str| self.steps.iter().position(|step| part(&step.origin) == name);
        let mut sums = self.sums(|step| part(&step.origin));
        sums.sort_by_key(|sum| order(&sum.name));
        sums
    }
}

/// Profiles a subject at each density: so many runs, of which the median counts.
///
/// # Errors
/// What the runtime refuses; a program without calls to record.
pub fn profiles(
    subject: Subject,
    tokens: u32,
    densities: &[f64],
    rounds: usize,
) -> Result<Vec<Profile>, Error> {
    let mut bench = Bench::new(vec![subject], tokens);
    let mut found = Vec::new();
    for density in densities {
        let batches = bench.workload().batches(*density)?;
        for subject in bench.subjects() {
            subject.record_calls(true);
            found.push(profile(subject, *density, &batches, rounds)?);
        }
    }
    Ok(found)
}

fn profile(subject: &mut Subject, density: f64, batches: &[Batch], rounds: usize) -> Result<Profile, Error> {
    // The first run of each set of inputs finds its memory.
    for batch in batches {
        subject.run(batch)?;
    }
    let mut runs: Vec<(u64, Vec<Call>)> = Vec::new();
    for batch in batches.iter().cycle().take(rounds.max(1)) {
        subject.run(batch)?;
        let calls = subject.calls().to_vec();
        runs.push((span(calls.iter()), calls));
    }
    runs.sort_by_key(|(wall, _)| *wall);
    let (wall_ns, mut calls) = runs.swap_remove(runs.len() / 2);
    calls.sort_by_key(|call| (call.begin, call.thread));
    let counts = executed(subject, batches)?;
    let cost = subject.predicted();
    let steps = subject.function().steps.iter().zip(&cost.steps).enumerate();
    let steps: Vec<StepTime> = steps
        .map(|(idx, (step, (_, cost)))| step_time(subject, (idx, step), &calls, (cost, &counts)))
        .collect();
    let threads = calls.iter().map(|call| call.thread + 1).max().unwrap_or(1);
    let busy: u64 = steps.iter().map(|step| step.busy_ns).sum();
    let waiting = 1.0 - busy as f64 / (wall_ns.max(1) as f64 * f64::from(threads));
    Ok(Profile { density, wall_ns, waiting, steps, calls })
}

fn step_time(
    subject: &Subject,
    (idx, step): (usize, &skipc_artifact::program::Step),
    calls: &[Call],
    (cost, counts): (&StepCost, &Rows),
) -> StepTime {
    let own = || calls.iter().filter(|call| call.step as usize == idx);
    let kernel = subject.program().entries.get(step.kernel as usize);
    StepTime {
        kernel: kernel.map(|entry| entry.symbol.clone()).unwrap_or_default(),
        origin: step.origin.clone(),
        wall_ns: span(own()),
        busy_ns: own().map(|call| call.end - call.begin).sum(),
        flops: 2.0 * cost.macs.at(counts),
        bytes: cost.bytes.at(counts),
    }
}

/// From the first begin to the last end.
fn span<'c>(calls: impl Iterator<Item = &'c Call> + Clone) -> u64 {
    let begin = calls.clone().map(|call| call.begin).min().unwrap_or(0);
    calls.map(|call| call.end).max().unwrap_or(0).saturating_sub(begin)
}

/// How many rows the sets of a run had.
struct Rows {
    tokens: f64,
    executed: BTreeMap<SetSym, f64>,
}

impl Counts for Rows {
    fn tokens(&self) -> f64 {
        self.tokens
    }

    fn rows(&self, set: SetSym) -> f64 {
        self.executed.get(&set).copied().unwrap_or(self.tokens)
    }
}

/// All sets of inputs of a density execute as many.
fn executed(subject: &Subject, batches: &[Batch]) -> Result<Rows, Error> {
    let nothing = || {
        let message = "there are no tokens to run";
        Error::new(ErrorKind::Input, Diagnostic::new("bench::nothing_to_skip", message))
    };
    let batch = batches.first().ok_or_else(nothing)?;
    let routing = batch.routing.as_deref().unwrap_or_default();
    let of_router = |(router, (ports, mask)): (u32, (RouterPorts, &Vec<u8>))| match ports {
        RouterPorts::Routed { .. } => {
            Some((SetSym(router), mask.iter().map(|bit| f64::from(*bit)).sum::<f64>()))
        }
        RouterPorts::Constant(_) => None,
    };
    let executed = (0..).zip(subject.routers().into_iter().zip(routing)).filter_map(of_router);
    Ok(Rows { tokens: batch.n_tokens() as f64, executed: executed.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_steps() {
        let step = |kernel: &str, origin: &str, wall_ns| StepTime {
            kernel: kernel.to_owned(),
            origin: origin.to_owned(),
            wall_ns,
            busy_ns: wall_ns,
            flops: 10.0,
            bytes: 4.0,
        };
        let steps =
            vec![step("a", "embed", 5), step("b", "blocks.0.layers.0", 20), step("b", "blocks.1.router", 30)];
        let profile = Profile { density: 1.0, wall_ns: 55, waiting: 0.0, steps, calls: Vec::new() };
        let kernels = profile.kernels();
        assert_eq!((kernels[0].name.as_str(), kernels[0].runs, kernels[0].wall_ns), ("b", 2, 50));
        assert_eq!(kernels[0].gflops(), 20.0 / 50.0);
        let blocks: Vec<String> = profile.blocks().into_iter().map(|sum| sum.name).collect();
        assert_eq!(blocks, ["embedding", "blocks.0", "blocks.1"]);
    }

    #[test]
    fn a_span_is_from_the_first_begin_to_the_last_end() {
        let call = |begin, end| Call { step: 0, thread: 0, begin, end };
        assert_eq!(span([call(5, 9), call(2, 4)].iter()), 7);
        assert_eq!(span([].iter()), 0);
    }
}
