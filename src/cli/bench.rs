//! `skipc bench`: one model in three forms over densities, as a table, JSON and a plot.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;
use skipc_runtime::Device;
use skipc_runtime::threads::Threads;
use skipc_runtime::words::counted;

use super::inspect::new_table;
use super::progress::Line;
use super::{BenchArgs, bench_capacity, bench_decode, progress, source, to_json, trace};
use crate::bench::{self, Bench, BreakEven, Crossing, Point, Report, SETS, Subject, Timed};
use crate::diagnostic::Diagnostic;
use crate::driver::original::Original;
use crate::driver::pipeline::{Request, Variant};
use crate::driver::trace::Trace;
use crate::error::{Error, ErrorKind};
use crate::frontend::weights::Weights;
use crate::frontend::weights::drawn::RANDOM_SEED;

/// Tokens of a step where nobody asks for others.
const TOKENS: u32 = 512;

/// Densities where nobody asks for others.
const DENSITIES: [f64; 6] = [0.05, 0.125, 0.25, 0.5, 0.75, 1.0];

/// The same for decoding.
const DECODE_DENSITIES: [f64; 4] = [0.125, 0.25, 0.5, 1.0];

pub(super) fn run(args: &BenchArgs, json: bool) -> Result<String, Error> {
    let densities = check(args)?;
    let threads = args.threads.map_or_else(Threads::available, usize::from);
    if args.decode {
        return bench_decode::run(args, json, densities, threads);
    }
    if args.group_size.is_some() || !args.capacity_factor.is_empty() {
        return bench_capacity::run(args, json, threads);
    }
    let prepared = prepare(args, threads)?;
    let Prepared { mut bench, weights } = prepared;
    if bench.workload().n_deciding() == 0 {
        let message =
            format!("no router of {} decides anything, so it has no density", bench.workload().model());
        let help = "bench a model with routers such as `gumbel` or `topk`";
        return Err(Error::new(
            ErrorKind::Input,
            Diagnostic::new("bench::nothing_to_skip", message).help(help),
        ));
    }
    let line = Line::rounds(u64::from(args.rounds));
    let points = bench.points(&densities, args.rounds as usize, &mut || line.turn())?;
    drop(line);
    let report = report(args, (&mut bench, weights, threads), points);
    if let Some(path) = &args.svg {
        write(path, &bench::svg(&report)?)?;
    }
    written(args, json, &report, || text(&report, args.svg.as_deref()))
}

/// What is printed of a report, after it was written where it was asked for.
pub(super) fn written(
    args: &BenchArgs,
    json: bool,
    report: &impl Serialize,
    text: impl FnOnce() -> String,
) -> Result<String, Error> {
    if let Some(path) = &args.report {
        write(path, &to_json(report)?)?;
    }
    if json { to_json(report) } else { Ok(text()) }
}

/// Refuses what cannot be timed before anything is compiled; returns the densities in ascending order.
fn check(args: &BenchArgs) -> Result<Vec<f64>, Error> {
    let usage = |message: &str, help: &str| {
        Err(Error::new(ErrorKind::Request, Diagnostic::new("usage::bench", message.to_owned()).help(help)))
    };
    if args.device != Device::Cpu {
        let help = "see tests/device/README.md; its results lie in tests/device/results";
        let message = "bench times host code: on a GPU the harness in tests/device does it";
        let diagnostic = Diagnostic::new("bench::cuda", message).help(help);
        return Err(Error::new(ErrorKind::Unsupported, diagnostic));
    }
    if let Some(density) = args.density.iter().find(|density| !(0.0..=1.0).contains(*density)) {
        return usage(&format!("--density: {density}"), "a density is a share of the tokens, from 0 to 1");
    }
    if args.trust.trust.is_some() && !trace::is_artifact(&args.model)? {
        let message = format!("--trust: {} is not an artefact, so nobody signed it", args.model.display());
        return usage(&message, "leave it out: code that is compiled here is yours");
    }
    // Found after minutes otherwise.
    for path in [&args.svg, &args.report].into_iter().flatten() {
        if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
            std::fs::read_dir(folder).map_err(|error| Error::io(folder, &error))?;
        }
    }
    let mut densities = match (args.density.is_empty(), args.decode) {
        (false, _) => args.density.clone(),
        (true, false) => DENSITIES.to_vec(),
        (true, true) => DECODE_DENSITIES.to_vec(),
    };
    densities.sort_by(f64::total_cmp);
    densities.dedup();
    Ok(densities)
}

/// Writes a plot or a report.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Error> {
    skipc_artifact::replace::bytes(path, text.as_bytes()).map_err(|error| Error::in_artifact(path, &error))
}

/// All forms, and where their weights come from.
struct Prepared {
    bench: Bench,
    weights: String,
}

fn prepare(args: &BenchArgs, threads: usize) -> Result<Prepared, Error> {
    let asked: Vec<Variant> = args.forms.iter().map(|form| (*form).into()).collect();
    let forms: Vec<Variant> = Variant::ALL.into_iter().filter(|form| asked.contains(form)).collect();
    let mut trace = Trace::silent().with_progress(progress::of_compile());
    if trace::is_artifact(&args.model)? {
        return of_artifact(args, &forms, threads, &mut trace);
    }
    let source = source::open_with_weights(&args.model, &args.checkpoint)?;
    let (weights, from) = match source::weights(&source, args.weights.as_deref(), &args.checkpoint)? {
        Some(weights) => (weights, args.weights.as_ref().unwrap_or(&args.model).display().to_string()),
        None => (Weights::drawn(&source.model, RANDOM_SEED)?, format!("random ones of seed {}", RANDOM_SEED)),
    };
    let model = source.model;
    let tokens = args.tokens.unwrap_or(TOKENS);
    let bench = Bench::of_model((&model, &weights), &forms, tokens, threads, &mut trace)?;
    Ok(Prepared { bench, weights: from })
}

/// The artefact's own code is the fused form; the others are compiled from the spec in it, with the same weights.
fn of_artifact(
    args: &BenchArgs,
    forms: &[Variant],
    threads: usize,
    trace: &mut Trace,
) -> Result<Prepared, Error> {
    let path = &args.model;
    let Original { model, artefact, weights, from } =
        Original::of(args.trust.open(path)?, path, args.weights.as_deref(), |model, file| {
            source::weights_of(model, file, &args.checkpoint)
        })?;
    let fused = Subject::of_artefact(artefact, path, Device::Cpu, threads)?;
    let limit = fused.function().max_tokens;
    let tokens = args.tokens.unwrap_or(TOKENS.min(limit));
    if tokens > limit {
        let found = u64::from(tokens);
        return Err(skipc_runtime::Error::TooManyTokens { found, limit }.into());
    }
    let mut subjects = Vec::new();
    for form in forms.iter().filter(|form| **form != Variant::Fused) {
        let cpu_backend = args.cpu_backend.into();
        let request = Request { variant: *form, cpu_backend, max_tokens: Some(limit), ..Request::here() };
        subjects.push(Subject::compile((&model, &weights), &request, threads, trace)?);
    }
    if forms.contains(&Variant::Fused) {
        subjects.insert(0, fused);
    }
    Ok(Prepared { bench: Bench::new(subjects, tokens), weights: from })
}

fn report(
    args: &BenchArgs,
    (bench, weights, threads): (&mut Bench, String, usize),
    points: Vec<Point>,
) -> Report {
    let code = bench.subjects().first().map(|subject| subject.describe()).unwrap_or_default();
    let of_form = |bench: &mut Bench, form| {
        bench.subjects().iter().find(|subject| subject.form() == form).map(|subject| subject.predicted())
    };
    let predicted = of_form(bench, Variant::Fused).zip(of_form(bench, Variant::Masked));
    let workload = bench.workload();
    let tokens: u32 = workload.lengths().iter().sum();
    let predicted = predicted.map(|(fused, masked)| Crossing::predicted(&fused, &masked, f64::from(tokens)));
    let measured = bench::crossing(&points);
    Report {
        model: workload.model().to_owned(),
        source: args.model.display().to_string(),
        weights,
        tokens,
        sequences: workload.lengths().to_vec(),
        routers: workload.n_deciding(),
        threads,
        processor: bench::processor(),
        code,
        rounds: args.rounds as usize,
        input_sets: SETS,
        tolerance: bench::TOLERANCE,
        points,
        break_even: measured.map(|measured| BreakEven { measured, predicted }),
    }
}

fn text(report: &Report, svg: Option<&Path>) -> String {
    let plural = |n: usize, what: &str| counted(n as u64, what);
    let Report { model, tokens, sequences, routers, threads, processor, code, rounds, .. } = report;
    let mut out = format!(
        "{model}: {} in {}, {} of {processor}, {code}\n",
        plural(*tokens as usize, "token"),
        plural(sequences.len(), "sequence"),
        plural(*threads, "thread"),
    );
    let _ = writeln!(out, "weights: {}", report.weights);
    let _ = writeln!(
        out,
        "{} forced to each density; {}, {} of inputs, all forms and densities in turn\n\
         times: a whole step, median with 10th and 90th percentile; ratios: median of those of each round\n",
        plural(*routers, "router"),
        plural(*rounds, "round"),
        plural(report.input_sets, "set"),
    );
    let mut table = new_table(&[
        "density", "form", "ms", "10 %", "90 %", "of fused", "kernels", "a block", "MB moved", "a block",
    ]);
    for point in &report.points {
        for timed in &point.forms {
            table.add_row(row(point, timed));
        }
    }
    let _ = writeln!(out, "{table}\n");
    if let Some(BreakEven { measured, predicted }) = report.break_even {
        let _ = writeln!(out, "masked is as fast as fused: {measured} (measured)");
        if let Some(predicted) = predicted {
            let _ = writeln!(out, "  predicted by the cost model: {predicted}");
        }
    }
    if report.points.iter().any(|point| point.forms.len() > 1) {
        let largest = report.points.iter().map(|point| point.largest_difference).fold(0.0, f64::max);
        let _ = writeln!(
            out,
            "outputs agree: they differ by at most {largest:.1e} of the largest logit, {:.0e} would be an error",
            report.tolerance
        );
    }
    if let Some(svg) = svg {
        let _ = writeln!(out, "{}", svg.display());
    }
    out
}

fn row(point: &Point, timed: &Timed) -> Vec<String> {
    let ms = |seconds: f64| format!("{:.3}", seconds * 1e3);
    let mega = |bytes: f64| format!("{:.2}", bytes / 1e6);
    let Timed { form, times, over_fused, cost } = timed;
    let (kernels, bytes) = cost.mean_block().unwrap_or_default();
    vec![
        point.density.to_string(),
        form.name().to_owned(),
        ms(times.median_s),
        ms(times.p10_s),
        ms(times.p90_s),
        over_fused.map_or(String::new(), |ratio| format!("{ratio:.2} ×")),
        cost.kernels.to_string(),
        format!("{kernels:.1}"),
        mega(cost.bytes as f64),
        mega(bytes),
    ]
}
