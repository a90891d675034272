//! `skipc bench --decode`: steps of generation over numbers of slots and densities, as a table, JSON and a plot.

use std::fmt::Write;

use skipc_artifact::interface::Role;
use skipc_artifact::target::{DType, Target};
use skipc_runtime::Model as Artefact;

use super::inspect::new_table;
use super::progress::Line;
use super::{BenchArgs, bench, progress, source, trace};
use crate::bench::decode::{self, DecodeReport, Far, Form, Pair, Prefill, Settings, StepRow};
use crate::diagnostic::Diagnostic;
use crate::driver::original::model_of;
use crate::driver::pack;
use crate::driver::pipeline::{self, Request};
use crate::driver::trace::Trace;
use crate::error::{Error, ErrorKind};
use crate::frontend::lower::{KeyValues, Skipping, lower_step};
use crate::frontend::spec::model::Model;
use crate::frontend::weights::Weights;
use crate::frontend::weights::drawn::RANDOM_SEED;

pub(super) fn run(
    args: &BenchArgs,
    json: bool,
    densities: Vec<f64>,
    threads: usize,
) -> Result<String, Error> {
    let mut trace = Trace::silent().with_progress(progress::of_compile());
    let (model, artefact) = artefact(args, &mut trace)?;
    let dtype = dtype(args, &artefact)?;
    let sibling = decode::dense_sibling(&model);
    let dense = drawn(&sibling, request(args, dtype), &mut trace)?;
    drop(trace);
    let settings =
        Settings { densities, slots: args.slots.clone(), behind: args.behind, rounds: args.rounds, threads };
    let line = Line::counting("part", settings.turns());
    let mut report = decode::run((&artefact, &dense), &settings, &mut || line.turn())?;
    drop((line, artefact, dense));
    report.forms = forms((&model, &sibling), (args, dtype), &settings)?;
    report.model = model.name;
    report.source = args.model.display().to_string();
    if let Some(path) = &args.svg {
        bench::write(path, &decode::svg(&report)?)?;
    }
    bench::written(args, json, &report, || text(&report))
}

/// The artefact that is given, or one of the spec.
fn artefact(args: &BenchArgs, trace: &mut Trace) -> Result<(Model, Artefact), Error> {
    if trace::is_artifact(&args.model)? {
        let artefact = args.trust.open(&args.model)?;
        return Ok((model_of(artefact.artifact(), &args.model)?, artefact));
    }
    let source = source::open_with_weights(&args.model, &args.checkpoint)?;
    let request = request(args, of_word(&args.dtype)?);
    let weights = source::weights(&source, args.weights.as_deref(), &args.checkpoint)?;
    let model = source.model;
    let artefact = match weights {
        Some(weights) => compile((&model, &weights), &request, trace)?,
        None => drawn(&model, request, trace)?,
    };
    Ok((model, artefact))
}

/// With random weights, which are given back when it is compiled.
fn drawn(model: &Model, request: Request, trace: &mut Trace) -> Result<Artefact, Error> {
    compile((model, &Weights::drawn(model, RANDOM_SEED)?), &request, trace)
}

/// Forms in which the model, or its dense sibling, can be compiled besides: keys and values that wait where some are kept of tokens
/// that skip, and weights in 8 bits where the layers are in bf16. All have random weights; one pair at a time is in memory.
fn forms(
    (model, sibling): (&Model, &Model),
    (args, dtype): (&BenchArgs, DType),
    settings: &Settings,
) -> Result<Vec<Form>, Error> {
    let mut trace = Trace::silent().with_progress(progress::of_compile());
    let mut forms = Vec::new();
    if let Some(artefacts) = waiting(model, (args, dtype), &mut trace)? {
        let densities = settings.densities.iter().map(|density| Some(*density)).collect();
        let pair = Pair { form: "--kv lazy", over: "--kv eager", artefacts, densities };
        forms.extend(decode::run_pair(&pair, settings)?);
    }
    if dtype == DType::Bf16 {
        let in_8_bits = Request { in_8_bits: true, ..request(args, dtype) };
        let artefacts =
            [drawn(sibling, in_8_bits, &mut trace)?, drawn(sibling, request(args, dtype), &mut trace)?];
        let (form, over) = ("--dtype cpu=q8", "--dtype cpu=bf16");
        forms.extend(decode::run_pair(&Pair { form, over, artefacts, densities: vec![None] }, settings)?);
    }
    Ok(forms)
}

/// The model with keys and values that wait, and with none that do; nothing if none can.
fn waiting(
    model: &Model,
    (args, dtype): (&BenchArgs, DType),
    trace: &mut Trace,
) -> Result<Option<[Artefact; 2]>, Error> {
    let step = lower_step(model, Skipping::Gathered, KeyValues::Lazy);
    let step = step.map_err(|error| Error::internal("lower::broken", &error))?;
    if step.signature().inputs.iter().all(|port| port.role != Role::Pending) {
        return Ok(None);
    }
    let kept = |key_values| Request { key_values: Some(key_values), ..request(args, dtype) };
    Ok(Some([drawn(model, kept(KeyValues::Lazy), trace)?, drawn(model, kept(KeyValues::Eager), trace)?]))
}

fn of_word(word: &str) -> Result<DType, Error> {
    match word {
        "cpu=f32" => Ok(DType::F32),
        "cpu=bf16" => Ok(DType::Bf16),
        _ => Err(Error::new(
            ErrorKind::Request,
            Diagnostic::new("usage::bench", format!("--dtype: `{word}`"))
                .help("write `cpu=f32` or `cpu=bf16`"),
        )),
    }
}

/// The precision in which the sibling has to be compiled: the artefact's.
fn dtype(args: &BenchArgs, artefact: &Artefact) -> Result<DType, Error> {
    if !artefact.targets().contains(&Target::Cpu) {
        let message = format!("{} has no program for `cpu`", args.model.display());
        let diagnostic =
            Diagnostic::new("bench::no_cpu_program", message).help("compile it with `--target cpu`");
        return Err(Error::new(ErrorKind::Unsupported, diagnostic));
    }
    Ok(skipc_artifact::bundle::read_program(artefact.artifact(), &Target::Cpu)?.dtype)
}

/// Code for this machine.
fn request(args: &BenchArgs, dtype: DType) -> Request {
    let targets = vec![(Target::Cpu, dtype)];
    Request { targets, cpu_backend: args.cpu_backend.into(), ..Request::here() }
}

fn compile(
    (model, weights): (&Model, &Weights),
    request: &Request,
    trace: &mut Trace,
) -> Result<Artefact, Error> {
    let compiled = pipeline::compile(model, request, trace)?;
    Ok(Artefact::from_bytes(&pack::to_bytes((model, weights), request, compiled)?)?)
}

fn text(report: &DecodeReport) -> String {
    let DecodeReport { model, dtype, threads, processor, code, routers, behind, rounds, .. } = report;
    let mut out = format!(
        "{model} in {dtype}: one token of each slot behind {behind}, {threads} threads of {processor}, {code}\n\
         each token executes its share of {routers} routers; {rounds} rounds, all rows in turn, medians\n\
         all threads together read {:.2} GB/s from memory\n\n",
        report.read_bandwidth / 1e9
    );
    let mut table = new_table(&[
        "slots",
        "density",
        "ms a token",
        "10 %",
        "90 %",
        "tokens/s",
        "MB a token",
        "of them cache",
        "of bandwidth",
        "speed",
        "by bytes",
    ]);
    for step in &report.steps {
        table.add_row(row(step));
    }
    let _ = writeln!(
        out,
        "{table}\n\nspeed: tokens a second over those of the dense model at as many slots; by bytes: what the bytes would give"
    );
    out += "\na prompt in chunks\n";
    for Prefill { density, tokens, chunk, score_s, chunks_s, speed } in &report.prefills {
        let _ = writeln!(
            out,
            "  {:>6}  {tokens} tokens in chunks of {chunk}: {:.1} ms, scored whole: {:.1} ms, {speed:.2} times as fast",
            name(*density),
            chunks_s * 1e3,
            score_s * 1e3
        );
    }
    out += "\none slot, near and far\n";
    for Far { density, positions, times_s, time_ratio, bytes_ratio, .. } in &report.far {
        let _ = writeln!(
            out,
            "  {:>6}  behind {}: {:.2} ms, behind {}: {:.2} ms, {time_ratio:.2} times as long for {bytes_ratio:.2} times the bytes",
            name(*density),
            positions[0],
            times_s[0] * 1e3,
            positions[1],
            times_s[1] * 1e3
        );
    }
    if !report.forms.is_empty() {
        let _ = writeln!(out, "\none slot behind {behind}, compiled in two ways");
    }
    for Form { form, over, density, times_s, bytes, speed } in &report.forms {
        let _ = writeln!(
            out,
            "  {:>6}  {form}: {:.2} ms, {over}: {:.2} ms, {speed:.2} times as fast for {:.2} times the bytes",
            name(*density),
            times_s[0] * 1e3,
            times_s[1] * 1e3,
            bytes[0] / bytes[1].max(1.0)
        );
    }
    out
}

fn name(density: Option<f64>) -> String {
    density.map_or("dense".to_owned(), |density| density.to_string())
}

fn row(step: &StepRow) -> Vec<String> {
    let a_token = |seconds: f64| format!("{:.3}", seconds * 1e3 / f64::from(step.slots));
    let mega = |bytes: f64| format!("{:.2}", bytes / 1e6);
    vec![
        step.slots.to_string(),
        name(step.density),
        format!("{:.3}", step.ms_a_token),
        a_token(step.times.p10_s),
        a_token(step.times.p90_s),
        format!("{:.1}", step.tokens_per_second),
        mega(step.weight_bytes_a_token + step.cache_bytes_a_token),
        mega(step.cache_bytes_a_token),
        format!("{:.0} %", step.bandwidth_share * 100.0),
        format!("{:.2} ×", step.speed_over_dense),
        format!("{:.2} ×", step.bytes_under_dense),
    ]
}
