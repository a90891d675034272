//! `skipc compile`: spec and weights to an artefact.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use skipc_artifact::replace;
use skipc_runtime::memory;
use skipc_runtime::words::counted;

use super::{CompileArgs, Requirement, inspect, open_index, progress, repro, show, source, to_json};
use crate::cost::bucketing::tuning::Tuning;
use crate::cost::bucketing::{Found, modelled, tuned};
use crate::diagnostic::Diagnostic;
use crate::driver::pack;
use crate::driver::pipeline::{self, Compiled, Request, SkipRuns, Variant};
use crate::driver::targets::Targets;
use crate::driver::trace::Trace;
use crate::error::{Error, ErrorKind};
use crate::frontend::language::ast::Ast;
use crate::frontend::lint;
use crate::frontend::lower::{Function, KeyValues};
use crate::frontend::spec::model::Model;
use crate::report::Subject;

pub(super) fn run(args: &CompileArgs, json: bool) -> Result<String, Error> {
    let found = Arc::default();
    let request = request(args, &found)?;
    let source = source::open_with_weights(&args.spec, &args.checkpoint)?;
    let warnings = source.notes().and(lint::run(&source.ast, &source.model));
    if !json {
        show(&warnings);
    }
    let weights = source::weights(&source, args.weights.as_deref(), &args.checkpoint)?;
    let weights = weights.ok_or_else(|| no_weights(args))?;
    let language = source.texts()?;
    let written = source.written();
    let model = source.model;
    let mut trace = Trace::new(args.emit.clone(), args.dump_to.clone())
        .map_err(|error| Error::io(args.dump_to.as_deref().unwrap_or(&args.spec), &error))?
        .with_progress(progress::of_compile());
    let mut compiled = pipeline::compile(&model, &request, &mut trace)
        .map_err(|failure| repro::attach(failure, &model, args))?;
    compiled.language = language;
    args.require.iter().try_for_each(|promise| require(*promise, &model, &compiled))?;
    let emitted = args.emit.as_ref().map(|stage| emitted(stage, &trace)).transpose()?;
    let Some(path) = &args.output else {
        let text = emitted.unwrap_or_default();
        return if json { to_json(&json!({"emitted": text})) } else { Ok(text) };
    };
    let mut out = emitted.clone().unwrap_or_default();
    let sizes = sizes(&compiled);
    let passes = PassTimes::of(&compiled);
    let external = external(args, path)?;
    let files = (path.as_path(), external.as_deref());
    let [bytes, external_bytes] = pack::write(files, (&model, &weights), (&request, compiled), &mut trace)?;
    let report = args.report.as_deref().map(|dir| report(path, dir, written, args)).transpose()?;
    if json {
        let times: Vec<_> = trace
            .times()
            .iter()
            .map(|(what, time)| json!({"stage": what, "seconds": time.as_secs_f64()}))
            .collect();
        return to_json(&json!({
            "output": path.display().to_string(),
            "emitted": emitted,
            "bytes": bytes,
            "external_weights": external.as_ref().map(|path| external_json(path, external_bytes)),
            "targets": sizes,
            "stages": times,
            "passes": {
                "seconds": passes.all.as_secs_f64(),
                "e_graph_seconds": passes.e_graphs.as_secs_f64(),
            },
            "peak_kib": memory::peak_kib(),
            "report": args.report.as_ref().map(|dir| dir.join("index.html").display().to_string()),
            "warnings": warnings.iter().collect::<Vec<_>>(),
        }));
    }
    if args.emit.is_none() {
        let _ = writeln!(out, "{} ({} KiB)", path.display(), bytes / 1024);
        if let Some(external) = &external {
            let _ = writeln!(out, "{} ({} KiB)", external.display(), external_bytes / 1024);
        }
        for size in &sizes {
            let _ = writeln!(out, "  {size}");
        }
        if args.tuning.is_some() {
            let (with_forms, measured) = found.counts();
            let _ = writeln!(
                out,
                "  {measured} of {with_forms} kernels with several forms chosen by measured times"
            );
        }
    }
    out.extend(report);
    if args.timing {
        for (what, time) in trace.times() {
            let _ = writeln!(out, "  {:>8.1} ms  {what}", time.as_secs_f64() * 1e3);
        }
        let _ = writeln!(out, "  {passes}");
        if let Some(peak) = memory::peak_kib() {
            let _ = writeln!(out, "  {peak:>8} KiB peak memory");
        }
    }
    Ok(out)
}

/// The report of the artefact that was written.
fn report(artifact: &Path, dir: &Path, written: Option<Ast>, args: &CompileArgs) -> Result<String, Error> {
    let mut subject = Subject::of_artifact(&open_index(artifact)?, artifact)?;
    subject.written = written;
    if let Some(tuning) = &args.tuning {
        subject = subject.with_tuning(tuning)?;
    }
    inspect::report(&subject, dir, false)
}

fn no_weights(args: &CompileArgs) -> Error {
    let message = format!("{} is a spec, and there are no weights", args.spec.display());
    let help = "write `--weights W.safetensors`; `skipc init` makes random ones";
    Error::new(ErrorKind::Request, Diagnostic::new("usage::compile", message).help(help))
}

/// The second file, if one is asked for: by default of the artefact's name.
fn external(args: &CompileArgs, output: &Path) -> Result<Option<PathBuf>, Error> {
    let Some(asked) = &args.external_output else { return Ok(None) };
    let path = asked.clone().unwrap_or_else(|| output.with_extension("skw"));
    let identity = replace::identity(&path);
    if path == output || (identity.is_some() && identity == replace::identity(output)) {
        let message = format!("--external-weights: {} is the artefact itself", path.display());
        let diagnostic =
            Diagnostic::new("usage::compile", message).help("name another file, such as `m.skw`");
        return Err(Error::new(ErrorKind::Request, diagnostic));
    }
    Ok(Some(path))
}

fn require(promise: Requirement, model: &Model, compiled: &Compiled) -> Result<(), Error> {
    let promises = pack::promises(model, compiled);
    match promise {
        Requirement::Causal if !promises.causal => Err(Error::new(
            ErrorKind::Input,
            Diagnostic::new("require::causal", "decisions of the model depend on later tokens")
                .help("`skipc check` says which; a causal router decides for each token alone"),
        )),
        Requirement::DeviceResident if !promises.device_resident => {
            let plans = compiled.phases.iter().flat_map(|phase| &phase.plans);
            let origins: BTreeSet<&str> = plans.flat_map(|of| of.plan.host_waits()).collect();
            let origins = Vec::from_iter(origins).join(", ");
            let message = format!("these wait for a count from the host: {origins}");
            Err(Error::new(ErrorKind::Internal, Diagnostic::new("require::device_resident", message)))
        }
        Requirement::Causal | Requirement::DeviceResident => Ok(()),
    }
}

fn request(args: &CompileArgs, found: &Arc<Found>) -> Result<Request, Error> {
    let usage = |message: String, help: &str| {
        Error::new(ErrorKind::Request, Diagnostic::new("usage::compile", message).help(help))
    };
    let Targets { list: targets, in_8_bits } = Targets::parse(&args.target, &args.dtype)?;
    if args.max_tokens == Some(0) {
        return Err(usage("--max-tokens: 0".to_owned(), "a step has at least one token"));
    }
    let (bucketings, tuning) = match &args.tuning {
        None => (modelled(), None),
        Some(path) => {
            let tuning = Tuning::read(path)?;
            if !targets.iter().any(|(target, _)| tuning.is_for(target)) {
                let message = format!("{}: it was measured for `{}`", path.display(), tuning.target);
                let help = "measure with `skipc tune --target` what is compiled for";
                return Err(Error::new(
                    ErrorKind::Input,
                    Diagnostic::new("tuning::target", message).help(help),
                ));
            }
            let hash = tuning.content_hash();
            (tuned(tuning, found), Some(hash))
        }
    };
    Ok(Request {
        variant: Variant::default(),
        targets,
        in_8_bits,
        cpu_backend: args.cpu_backend.into(),
        cpu_levels: args.cpu_levels.into(),
        steps: !args.no_steps,
        key_values: args.kv.map(KeyValues::from),
        skip_runs: args.skip_runs.map(SkipRuns::from).unwrap_or_default(),
        max_tokens: args.max_tokens,
        passes: args.passes.clone(),
        verify_each: args.verify_each,
        fuel: args.fuel,
        bucketings,
        tuning,
    })
}

/// How long the passes ran for all functions, and how much of it was spent on e-graphs.
struct PassTimes {
    all: Duration,
    e_graphs: Duration,
}

impl PassTimes {
    fn of(compiled: &Compiled) -> PassTimes {
        let mut times = PassTimes { all: Duration::ZERO, e_graphs: Duration::ZERO };
        for pass in compiled.phases.iter().flat_map(|phase| &phase.report.passes) {
            times.all += pass.wall;
            if skipc_passes::table::find(pass.name).is_some_and(skipc_passes::PassInfo::may_round) {
                times.e_graphs += pass.wall;
            }
        }
        times
    }
}

impl std::fmt::Display for PassTimes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (all, e_graphs) = (self.all.as_secs_f64(), self.e_graphs.as_secs_f64());
        let share = if self.all.is_zero() { 0.0 } else { 100.0 * e_graphs / all };
        write!(f, "{:>8.1} ms in passes, {share:.1} % of it e-graphs ({:.1} ms)", all * 1e3, e_graphs * 1e3)
    }
}

/// One line for each function of a target: kernels, steps, memory.
fn sizes(compiled: &Compiled) -> Vec<String> {
    let functions = compiled.phases.iter().map(|phase| phase.function);
    let of = |function: Function| {
        compiled.bundles.iter().filter_map(move |bundle| {
            let program = &bundle.program;
            let compiled = program.function(function.name())?;
            Some(format!(
                "{}: {}, {}, {} KiB constants, {} bytes a token ({})",
                program.target,
                counted(compiled.kernels().len() as u64, "kernel"),
                counted(compiled.steps.len() as u64, "step"),
                program.constant_bytes / 1024,
                compiled.row_bytes,
                program.dtype,
            ))
        })
    };
    functions.flat_map(of).collect()
}

fn external_json(path: &Path, bytes: u64) -> serde_json::Value {
    json!({"output": path.display().to_string(), "bytes": bytes})
}

/// The text of a stage.
fn emitted(stage: &str, trace: &Trace) -> Result<String, Error> {
    trace.emitted().map_err(|stages| no_stage(stage, stages))
}

fn no_stage(wanted: &str, stages: &[String]) -> Error {
    let of_other = match wanted {
        "clif" => "; `clif` is of `--cpu-backend cranelift`",
        "llvm" => "; `llvm` is of `--cpu-backend llvm`",
        "mlir" | "ptx" => "; code for a GPU is of a `--target` such as `cuda:sm_90a`",
        _ => "",
    };
    let help = format!("this compile has the stages {}{of_other}", stages.join(", "));
    Error::new(
        ErrorKind::Request,
        Diagnostic::new("usage::emit", format!("--emit: unknown stage `{wanted}`")).help(help),
    )
}
