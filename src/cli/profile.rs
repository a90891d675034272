//! `skipc profile`: where the time of a step goes, on the CPU by thread, on a GPU by events between its kernels.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use skipc_runtime::Device;
use skipc_runtime::threads::Threads;

use super::bench::write;
use super::inspect::new_table;
use super::{TrustArgs, to_json};
use crate::bench::profile::{Machine, Profile, Sum, profiles};
use crate::bench::{Subject, processor, roofline};
use crate::diagnostic::Diagnostic;
use crate::error::{Error, ErrorKind};

/// Densities where nobody asks for others.
const DENSITIES: [f64; 3] = [0.125, 0.25, 1.0];

/// Kernels that are printed.
const SHOWN: usize = 12;

/// Arguments of `skipc profile`.
#[derive(Debug, Args)]
pub struct ProfileArgs {
    /// Artefact with a program for the device. Its machine code becomes part of this process: open only files that you trust as programs.
    pub model: PathBuf,

    /// Whose artefacts run.
    #[command(flatten)]
    pub trust: TrustArgs,

    /// Where to run: `cpu`, `cuda` or `cuda:N`.
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Cpu)]
    pub device: Device,

    /// Shares of the tokens that every router is forced to execute; what is drawn and traced is the first [default: 0.125,0.25,1].
    #[arg(long, value_delimiter = ',', value_name = "P,…")]
    pub density: Vec<f64>,

    /// Tokens of a step.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub tokens: u32,

    /// Times that each density runs, after a warm-up; the median run is shown.
    #[arg(long, value_name = "R", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub rounds: u32,

    /// Threads of the host [default: all cores].
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,

    /// Write the calls of each thread for Perfetto (ui.perfetto.dev) and chrome://tracing; between them a thread waits.
    #[arg(long, value_name = "OUT.json")]
    pub perfetto: Option<PathBuf>,

    /// Write the calls as JSON, one a line.
    #[arg(long, value_name = "OUT.jsonl")]
    pub lines: Option<PathBuf>,

    /// Draw the kernels under the roof of the machine: what they reach against how much they compute for each byte.
    #[arg(long, value_name = "OUT.svg")]
    pub svg: Option<PathBuf>,
}

pub(super) fn run(args: &ProfileArgs, json: bool) -> Result<String, Error> {
    if let Some(density) = args.density.iter().find(|density| !(0.0..=1.0).contains(*density)) {
        let message = format!("--density: {density}");
        let help = "a density is a share of the tokens, from 0 to 1";
        return Err(Error::new(ErrorKind::Request, Diagnostic::new("usage::profile", message).help(help)));
    }
    let densities = if args.density.is_empty() { DENSITIES.to_vec() } else { args.density.clone() };
    let threads = args.threads.map_or_else(Threads::available, usize::from);
    let subject = Subject::of_artefact(args.trust.open(&args.model)?, &args.model, args.device, threads)?;
    let (model, code) = (subject.artefact().artifact().manifest().model.clone(), subject.describe());
    let tokens = args.tokens.min(subject.function().max_tokens);
    let machine = Machine::of(&subject, threads)?;
    let found = profiles(subject, tokens, &densities, args.rounds as usize)?;
    let Some(first) = found.first() else { return Ok(String::new()) };
    if let Some(path) = &args.perfetto {
        write(path, &to_json(&perfetto(first, &model))?)?;
    }
    if let Some(path) = &args.lines {
        write(path, &lines(first))?;
    }
    if let Some(path) = &args.svg {
        let title = format!("{model}: {tokens} tokens at density {}, {code}", first.density);
        write(path, &roofline::svg(&title, &machine, &first.kernels())?)?;
    }
    if json {
        let of = |profile: &Profile| {
            json!({
                "density": profile.density,
                "wall_ns": profile.wall_ns,
                "waiting": profile.waiting,
                "steps": profile.steps,
                "kernels": profile.kernels(),
                "blocks": profile.blocks(),
            })
        };
        return to_json(&json!({
            "model": model,
            "code": code,
            "processor": processor(),
            "tokens": tokens,
            "machine": machine,
            "profiles": found.iter().map(of).collect::<Vec<_>>(),
        }));
    }
    let mut out = format!(
        "{model} on {}: {tokens} tokens; at most {:.0} GFLOP/s and {:.1} GB/s, {}\n",
        match args.device {
            Device::Cpu => format!("{code}, {}, {threads} threads", processor()),
            Device::Cuda(_) => code,
        },
        machine.gflops,
        machine.gbytes,
        machine.about
    );
    for profile in &found {
        let _ = write!(out, "\n{}", text(profile, &machine));
    }
    Ok(out)
}

fn text(profile: &Profile, machine: &Machine) -> String {
    let mut out = format!(
        "density {}: {:.3} ms a step, threads wait {:.1} % of it\n",
        profile.density,
        profile.wall_ns as f64 / 1e6,
        100.0 * profile.waiting
    );
    let header = ["kernel", "runs", "ms", "%", "GFLOP/s", "% of peak", "GB/s", "flops a byte"];
    let mut table = new_table(&header);
    let row = |sum: &Sum| {
        vec![
            sum.name.clone(),
            sum.runs.to_string(),
            format!("{:.3}", sum.wall_ns as f64 / 1e6),
            format!("{:.1}", 100.0 * sum.wall_ns as f64 / profile.wall_ns.max(1) as f64),
            format!("{:.1}", sum.gflops()),
            format!("{:.0}", 100.0 * sum.gflops() / machine.gflops),
            format!("{:.1}", sum.gbytes()),
            format!("{:.1}", sum.flops / sum.bytes.max(1.0)),
        ]
    };
    for sum in profile.kernels().iter().take(SHOWN) {
        table.add_row(row(sum));
    }
    let _ = writeln!(out, "{table}\n");
    let mut table =
        new_table(&["block", header[1], header[2], header[3], header[4], header[5], header[6], header[7]]);
    for sum in &profile.blocks() {
        table.add_row(row(sum));
    }
    let _ = writeln!(out, "{table}");
    out
}

/// The calls as complete events of the Trace Event Format, in microseconds.
fn perfetto(profile: &Profile, model: &str) -> Value {
    let named = |thread: u32| json!({"name": "thread_name", "ph": "M", "pid": 1, "tid": thread, "args": {"name": format!("thread {thread}")}});
    let threads = profile.calls.iter().map(|call| call.thread + 1).max().unwrap_or(0);
    let event = |call: &skipc_runtime::Call| {
        let step = profile.steps.get(call.step as usize);
        json!({
            "name": step.map_or("", |step| step.kernel.as_str()),
            "cat": step.map_or("", |step| step.origin.as_str()),
            "ph": "X",
            "ts": call.begin as f64 / 1e3,
            "dur": (call.end - call.begin) as f64 / 1e3,
            "pid": 1,
            "tid": call.thread,
            "args": {"step": call.step, "origin": step.map(|step| &step.origin)},
        })
    };
    let process = json!({"name": "process_name", "ph": "M", "pid": 1, "args": {"name": format!("{model} at density {}", profile.density)}});
    let events: Vec<Value> = std::iter::once(process)
        .chain((0..threads).map(named))
        .chain(profile.calls.iter().map(event))
        .collect();
    json!({"displayTimeUnit": "ns", "traceEvents": events})
}

/// A call a line, by its begin.
fn lines(profile: &Profile) -> String {
    let line = |call: &skipc_runtime::Call| {
        let step = profile.steps.get(call.step as usize);
        let value = json!({
            "step": call.step,
            "kernel": step.map(|step| &step.kernel),
            "origin": step.map(|step| &step.origin),
            "thread": call.thread,
            "begin_ns": call.begin,
            "end_ns": call.end,
        });
        format!("{value}\n")
    };
    profile.calls.iter().map(line).collect()
}
