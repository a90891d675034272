//! Time of a step of decoding beside the bytes that it reads and the bandwidth of this machine, in one run: one token of
//! each of some slots behind so many tokens. `cargo run --release --features cuda --example decode-steps -- MODEL.skp
//! [THREADS [BEHIND,… [SLOTS,…]]]`; `behind 0` also says which kernels the time of a step goes to. What it printed stands in
//! `tests/bench/results/decode-steps.txt`.
//!
//! Beside the median step stands what a step takes that nothing disturbs: for each of its kernels the least time that it took
//! in any step for as many bytes, summed. `outside` is the least that a step took besides its kernels. The bandwidth is
//! measured before and after the steps of a line, the better counts; `share of it` is what the median step and what the
//! undisturbed one read in a second over it.

mod bandwidth;
mod bytes;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use skipc_runtime::decode::{Cached, Chunk, Decoder, Recompute, Rows, Slot};
use skipc_runtime::{Device, Model, Module, Options, Session};

use crate::bandwidth::Memory;
use crate::bytes::StepBytes;

type Failed = Box<dyn std::error::Error>;

/// Steps of a measurement; the median counts.
const STEPS: u32 = 40;

fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let path = args.first().ok_or("which artefact?")?;
    let threads = args.get(1).map_or(Ok(2), |threads| threads.parse())?;
    let list = |idx: usize, default: &str| -> Result<Vec<u32>, Failed> {
        let words = args.get(idx).map_or(default, String::as_str).split(',');
        Ok(words.map(str::parse).collect::<Result<_, _>>()?)
    };
    let (behind, slots) = (list(2, "16,64,256,512")?, list(3, "1,2,4,8,16,32")?);
    let model = Model::open(path.as_ref())?;
    let module = Module::load(&model, Device::Cpu, Options { threads, ..Options::default() })?;
    let bench = Bench { bytes: StepBytes::of(&model, &module)?, module, memory: Memory::new(threads)? };
    println!(
        "{path}: {}, {threads} threads, {} bytes of cache a token",
        bench.module.describe(),
        Cached::bytes_of_token(&bench.module),
    );
    println!(
        "behind  slots  ms a step  undisturbed  outside  tokens a second  executed  MB read  GB/s of memory  share of it"
    );
    for behind in behind.into_iter().filter(|behind| behind + STEPS + 8 <= bench.positions()) {
        for slots in &slots {
            bench.steps(behind, *slots)?;
        }
        if behind > 0 {
            bench.whole_prefix(&model, behind)?;
        }
    }
    Ok(())
}

struct Bench {
    module: Module,
    bytes: StepBytes,
    memory: Memory,
}

impl Bench {
    fn positions(&self) -> u32 {
        self.module.program().functions["step"].max_positions
    }

    fn token(&self, idx: u32) -> u32 {
        (idx * 7919 + 13) % self.module.program().functions["step"].vocab_size
    }

    /// Times steps of one token of each slot, and prints a line.
    fn steps(&self, behind: u32, slots: u32) -> Result<(), Failed> {
        let mut cached = Cached::new(&self.module, slots, slots * (behind + STEPS + 32))?;
        let prompt: Vec<u32> = (0..behind).map(|idx| self.token(idx)).collect();
        for slot in 0..slots {
            cached.start(Slot(slot), slot)?;
            for part in prompt.chunks(64) {
                cached.step(&[Chunk { slot: Slot(slot), tokens: part, rows: Rows::None }])?;
            }
        }
        let before = self.memory.bandwidth();
        let (mut times, mut executed, mut all) = (Vec::new(), 0, 0);
        let (mut runs, mut outside) = (Vec::new(), Duration::MAX);
        for step in 0..STEPS {
            let next = [self.token(step)];
            let chunk = |slot| Chunk { slot: Slot(slot), tokens: &next, rows: Rows::Last };
            let chunks: Vec<Chunk<'_>> = (0..slots).map(chunk).collect();
            let started = Instant::now();
            let outputs = cached.step(&chunks)?;
            let time = started.elapsed();
            let in_kernels: Duration = cached.state().step_times().iter().sum();
            outside = time.saturating_sub(in_kernels).min(outside);
            times.push(time);
            executed += outputs.gates.iter().flatten().filter(|gate| **gate != 0).count();
            all += outputs.gates.iter().flatten().count();
            // As behind the first of the steps: what later ones see besides does not change what is alike.
            let read = self.bytes.read(&outputs.gates, slots, behind + 1);
            runs.push(read.into_iter().zip(cached.state().step_times().to_vec()).collect::<Vec<_>>());
        }
        let ms = median(times);
        let read: u64 = runs.iter().flatten().map(|(bytes, _)| bytes).sum();
        let read = read as f64 / f64::from(STEPS);
        let kernels = undisturbed(&runs);
        let undisturbed = kernels.iter().sum::<f64>();
        let bandwidth = self.memory.bandwidth().max(before);
        println!(
            "{behind:6} {slots:6} {ms:10.3} {:12.3} {:8.3} {:16.0} {:9.2} {:8.2} {:15.1}  {:.2} {:.2}",
            undisturbed * 1e3,
            outside.as_secs_f64() * 1e3,
            f64::from(slots) * 1e3 / ms,
            executed as f64 / all.max(1) as f64,
            read / 1e6,
            bandwidth / 1e9,
            read * 1e3 / ms / bandwidth,
            read / undisturbed / bandwidth
        );
        if behind == 0 {
            self.kernels(&kernels);
        }
        Ok(())
    }

    /// Prints where the time of a step goes, given what each of its kernels takes.
    fn kernels(&self, seconds: &[f64]) {
        let program = self.module.program();
        let mut kernels: BTreeMap<u32, (usize, f64)> = BTreeMap::new();
        for (step, seconds) in program.functions["step"].steps.iter().zip(seconds) {
            let (runs, sum) = kernels.entry(step.kernel).or_default();
            (*runs, *sum) = (*runs + 1, *sum + seconds);
        }
        let mut kernels: Vec<_> = kernels.into_iter().collect();
        kernels.sort_by(|(_, (_, a)), (_, (_, b))| b.total_cmp(a));
        for (kernel, (runs, seconds)) in kernels {
            println!("{:24.3}  {runs} x {}", seconds * 1e3, program.entries[kernel as usize].symbol);
        }
    }

    /// Times the whole prefix run again for one token more.
    fn whole_prefix(&self, model: &Model, behind: u32) -> Result<(), Failed> {
        let mut whole = Recompute::new(Session::of_module(&self.module)?, model, 1)?;
        whole.start(Slot(0), 0)?;
        let prompt: Vec<u32> = (0..behind).map(|idx| self.token(idx)).collect();
        whole.step(&[Chunk { slot: Slot(0), tokens: &prompt, rows: Rows::None }])?;
        let mut times = Vec::new();
        for step in 0..8 {
            let next = [self.token(step)];
            let started = Instant::now();
            whole.step(&[Chunk { slot: Slot(0), tokens: &next, rows: Rows::Last }])?;
            times.push(started.elapsed());
        }
        println!("{behind:6} {:>6} {:10.3}  (the whole prefix again)", 1, median(times));
        Ok(())
    }
}

/// Seconds that each kernel of a mean step takes undisturbed, given bytes and time of each in each step.
fn undisturbed(runs: &[Vec<(u64, Duration)>]) -> Vec<f64> {
    let n_kernels = runs.first().map_or(0, Vec::len);
    let of_kernel = |idx: usize| {
        let mut least: BTreeMap<u64, Duration> = BTreeMap::new();
        for (bytes, time) in runs.iter().map(|run| run[idx]) {
            least.entry(bytes).and_modify(|least| *least = time.min(*least)).or_insert(time);
        }
        let sum: Duration = runs.iter().map(|run| least[&run[idx].0]).sum();
        sum.as_secs_f64() / runs.len() as f64
    };
    (0..n_kernels).map(of_kernel).collect()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}
