//! `skipc train`: trains a model, by compiled code or on the reference interpreter.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use skipc_artifact::target::{DType, Target};
use skipc_ir::SetSym;
use skipc_passes::rewrite::cost::{CPU, Counts, Poly};
use skipc_runtime::threads::Threads;
use tokio::signal::unix::{SignalKind, signal};

use super::progress::Line;
use super::train_log::Log;
use super::{TrainArgs, to_json, train_plot};
use crate::cost::{Even, PlanCost};
use crate::diagnostic::Diagnostic;
use crate::driver::backends::CpuBackend;
use crate::driver::pipeline::{self, Request};
use crate::driver::training::Host;
use crate::error::{Error, ErrorKind};
use crate::frontend::source::Source;
use crate::frontend::spec;
use crate::frontend::spec::model::Model;
use crate::frontend::training::{self, Config};
use crate::frontend::weights::Weights;
use crate::train::checkpoint::{self, Checkpoint, Identity};
use crate::train::machine::{FirstState, Graphs};
use crate::train::record::{Record, Replay};
use crate::train::times::{self, KernelTime};
use crate::train::{Begin, Data, Evaluation, Run, StepRecord, Teacher, compiled, interpreted, precision};

/// The word of `--target` for the reference interpreter.
const INTERPRETER: &str = "interpreter";

pub(super) fn run(args: &TrainArgs, json: bool) -> Result<String, Error> {
    if args.spec.is_dir() {
        let message = format!("{} is a directory, and training takes a spec", args.spec.display());
        let help =
            "write the spec that `skipc check DIR` prints to a file, and give its weights by `--weights`";
        return Err(usage(message, help));
    }
    let source = Source::open(&args.spec, None)?;
    let config = configuration(&args.config)?;
    let model = &source.model;
    super::show(&crate::train::check(model, &config)?);
    let runs_on = RunsOn::of(args, &config)?;
    let data = Data::read(&config, model.stream.vocab_size)?;
    let teacher = teacher(&config)?;
    let mut identity = identity(&args.spec, &config, &data, teacher.as_ref())?;
    // Each of them rounds in its own way.
    identity.settings.insert("target".to_owned(), runs_on.name());
    let begin = Begin { model, config: &config, data: &data, teacher: teacher.as_ref().map(|(it, _)| it) };
    std::fs::create_dir_all(&args.folder).map_err(|error| Error::io(&args.folder, &error))?;
    let mut run = start(args, &begin, &identity, runs_on)?;
    let summary = Session {
        args,
        config: &config,
        identity,
        work: work(model)?,
        log: Log::open(&args.folder, run.step)?,
        stop: stop_on_signals()?,
    }
    .train(&begin, &mut run)?;
    if json { to_json(&summary.json()) } else { Ok(summary.text(args)) }
}

fn usage(message: String, help: &str) -> Error {
    Error::new(ErrorKind::Request, Diagnostic::new("usage::train", message).help(help))
}

fn configuration(path: &Path) -> Result<Config, Error> {
    let (name, text) = spec::read_text(path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    Ok(training::read(&name, &text, folder)?)
}

/// Where the functions of training run.
#[derive(Clone, Copy)]
enum RunsOn {
    Interpreter,
    Host(Host),
}

impl RunsOn {
    fn of(args: &TrainArgs, config: &Config) -> Result<RunsOn, Error> {
        if args.target == INTERPRETER {
            if args.timing {
                let message = "--timing is about kernels, and the interpreter has none".to_owned();
                return Err(usage(message, "leave it out, or train by `--target cpu`"));
            }
            precision(config, None)?;
            return Ok(RunsOn::Interpreter);
        }
        let target: Target = args.target.parse().map_err(|error| {
            let help = "write `cpu`, which is the default, or `interpreter`; see `skipc targets`";
            usage(format!("--target: {error}"), help)
        })?;
        if target != Target::Cpu {
            let message = format!("{target} cannot train: its backend has no kernels of the backward pass");
            let help = "train by `--target cpu`; what comes out compiles for every target";
            return Err(Error::new(
                ErrorKind::Unsupported,
                Diagnostic::new("legal::no_kernel", message).help(help),
            ));
        }
        let threads = args.threads.map_or_else(Threads::available, usize::from);
        let max_tokens = config.train.batch * config.train.seq;
        let backend = args.cpu_backend.into();
        let dtype = precision(config, Some(backend))?;
        Ok(RunsOn::Host(Host { backend, dtype, threads, max_tokens }))
    }

    /// What decides how numbers are rounded.
    fn name(self) -> String {
        match self {
            RunsOn::Interpreter => INTERPRETER.to_owned(),
            RunsOn::Host(Host { backend, .. }) => format!("cpu by {}", CpuBackend::name(backend)),
        }
    }
}

fn teacher(config: &Config) -> Result<Option<(Teacher, Vec<u8>)>, Error> {
    let Some(distill) = &config.distill else { return Ok(None) };
    let model = spec::load(&distill.spec)?;
    let weights = Weights::open(&distill.weights, &model)?;
    let (_, spec) = spec::read_text(&distill.spec)?;
    let content = format!("{spec}{}", weights.content_hash());
    Ok(Some((Teacher { model, weights }, content.into_bytes())))
}

/// What tells this run from others.
fn identity(
    spec: &Path,
    config: &Config,
    data: &Data,
    teacher: Option<&(Teacher, Vec<u8>)>,
) -> Result<Identity, Error> {
    let settings = serde_json::to_value(config).map_err(|error| Error::internal("json::write", &error))?;
    let (_, spec) = spec::read_text(spec)?;
    let content = data.content();
    let mut contents = vec![("spec", spec.as_bytes()), ("data", content.as_slice())];
    contents.extend(teacher.map(|(_, content)| ("teacher", content.as_slice())));
    Ok(Identity::new(&settings, &contents))
}

/// A run from its beginning, or from the last checkpoint of its folder.
fn start<'a>(
    args: &TrainArgs,
    begin: &'a Begin<'a>,
    identity: &Identity,
    runs_on: RunsOn,
) -> Result<Run<'a, f32>, Error> {
    let build = |model: &Model, graphs: Graphs, states: Vec<FirstState>, weights: &Weights| match runs_on {
        RunsOn::Interpreter => interpreted(model, graphs, states, weights),
        RunsOn::Host(host) => compiled(model, &graphs, states, (weights, host)),
    };
    let mut run = match args.resume {
        false => {
            if let Some(step) = checkpoint::last(&args.folder) {
                let message = format!("{} has a checkpoint of step {step}", args.folder.display());
                let help = "go on from it by `--resume`, or train into another folder";
                return Err(Diagnostic::new("train::checkpoint", message).help(help).into());
            }
            Run::new(begin, &begin.weights(args.weights.as_deref())?, &build)?
        }
        true => {
            let checkpoint = Checkpoint::read(&args.folder)?;
            checkpoint.check(identity, &args.r#override)?;
            let mut run = Run::new(begin, &checkpoint.weights, &build)?;
            run.engine.restore(&checkpoint.moments);
            run.step = checkpoint.step;
            run
        }
    };
    run.step = run.step.min(begin.config.train.steps);
    Ok(run)
}

/// Multiply-adds of inference.
fn work(model: &Model) -> Result<Poly, Error> {
    let plan = pipeline::planned(model, (&Target::Cpu, DType::F32), &Request::host())?;
    let cost = PlanCost::of(&plan, &CPU);
    Ok(PlanCost::sum(cost.steps.iter().map(|(_, step)| step), |step| &step.macs))
}

/// The tokens of a step, and what each router executed of them.
struct Ran<'a> {
    tokens: f64,
    executed: &'a [f64],
}

impl Counts for Ran<'_> {
    fn tokens(&self) -> f64 {
        self.tokens
    }

    fn rows(&self, set: SetSym) -> f64 {
        self.tokens * self.executed.get(set.0 as usize).copied().unwrap_or(1.0)
    }
}

/// Becomes true when the process is asked to end; asked twice, it ends at once.
fn stop_on_signals() -> Result<Arc<AtomicBool>, Error> {
    let failed = |error: std::io::Error| Error::internal("train::step", &error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt()).map_err(failed)?, signal(SignalKind::terminate()).map_err(failed)?)
    };
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if flag.swap(true, Ordering::SeqCst) {
                    std::process::exit(130);
                }
            }
        });
    });
    Ok(stop)
}

/// A run on the command line.
struct Session<'s> {
    args: &'s TrainArgs,
    config: &'s Config,
    identity: Identity,
    work: Poly,
    log: Log,
    stop: Arc<AtomicBool>,
}

/// How a run ended.
struct Summary {
    model: String,
    steps: u64,
    step: u64,
    weights: std::path::PathBuf,
    last: Option<StepRecord>,
    eval: Option<Evaluation>,
    /// How long each kernel of a step took, if that is wanted and known.
    times: Option<Vec<KernelTime>>,
}

impl Session<'_> {
    fn train(mut self, begin: &Begin<'_>, run: &mut Run<'_, f32>) -> Result<Summary, Error> {
        let (args, train) = (self.args, &self.config.train);
        let mut record = args.record.is_some().then(|| Record::new(run.engine.weights()));
        let shape = [train.steps as usize, begin.model.skips().count(), train.batch, train.seq];
        let replay = args.replay.as_deref().map(|folder| Replay::read(folder, shape)).transpose()?;
        let (line, first) = (Line::training(train.steps, run.step), run.step);
        let (mut last, mut saved, mut eval) = (None, None, None);
        while run.step < train.steps && !self.stop.load(Ordering::SeqCst) {
            let (step, began) = (run.step, Instant::now());
            let done = run.advance(record.as_mut(), |step, batch| {
                replay.as_ref().map(|replay| replay.step(step, batch))
            })?;
            self.log.step(
                step,
                &done,
                self.share(&done),
                done.tokens as f64 / began.elapsed().as_secs_f64(),
            )?;
            line.at(&brief(&done));
            line.turn();
            last = Some(done);
            let done = run.step;
            let is_due = |every: Option<u64>| every.is_some_and(|every| done.is_multiple_of(every));
            if is_due(args.eval_every) && run.step < train.steps {
                self.evaluate(run)?;
            }
            if is_due(args.save_every) && run.step < train.steps {
                saved = Some((run.step, self.save(run)?));
            }
        }
        drop(line);
        let times = run.engine.times().filter(|_| args.timing);
        let times = times.map(|times| times.of_step(run.step - first));
        let finished = run.step == train.steps;
        if finished {
            eval = self.evaluate(run)?;
        }
        let mut weights = match saved {
            Some((step, weights)) if step == run.step => weights,
            _ => self.save(run)?,
        };
        if finished {
            weights = args.folder.join("weights.safetensors");
            checkpoint::write_tensors(&weights, &run.engine.weights(), None)?;
        }
        if let (Some(record), Some(folder), true) = (&record, &args.record, finished) {
            record.write(folder, &run.engine.weights(), eval.as_ref(), [train.batch, train.seq])?;
        }
        if let Some(path) = &args.svg {
            let svg = train_plot::svg(begin.model, &self.log.read()?)?;
            let wrote = skipc_artifact::replace::bytes(path, svg.as_bytes());
            wrote.map_err(|error| Error::in_artifact(path, &error))?;
        }
        let (model, steps, step) = (begin.model.name.clone(), train.steps, run.step);
        Ok(Summary { model, steps, step, weights, last, eval, times })
    }

    fn save(&self, run: &Run<'_, f32>) -> Result<std::path::PathBuf, Error> {
        let tensors = (&run.engine.weights(), &run.engine.moments());
        checkpoint::write(&self.args.folder, run.step, tensors, &self.identity)
    }

    fn evaluate(&mut self, run: &mut Run<'_, f32>) -> Result<Option<Evaluation>, Error> {
        let eval = run.evaluate()?;
        if let Some(eval) = &eval {
            self.log.eval(run.step, eval)?;
        }
        Ok(eval)
    }

    /// The share of inference's multiply-adds that the decisions of a step leave.
    fn share(&self, done: &StepRecord) -> f64 {
        let tokens = done.tokens as f64;
        let ran = self.work.at(&Ran { tokens, executed: &done.executed });
        ran / self.work.at(&Even { tokens, density: 1.0 })
    }
}

/// What the line of progress says of a step.
fn brief(done: &StepRecord) -> String {
    let mean = done.executed.iter().sum::<f64>() / done.executed.len().max(1) as f64;
    format!("loss {:.4}, executed {:.1} %", done.loss, 100.0 * mean)
}

impl Summary {
    fn json(&self) -> Value {
        let weights = self.weights.display().to_string();
        let Summary { model, steps, step, last, eval, times, .. } = self;
        json!({
            "model": model, "steps": steps, "done": step, "weights": weights, "last": last, "eval": eval, "kernels": times,
        })
    }

    fn text(&self, args: &TrainArgs) -> String {
        let Summary { model, steps, step, weights, last, eval, times } = self;
        let mut out = format!("{model}: {step} of {steps} steps; weights in {}\n", weights.display());
        if let Some(last) = last {
            let _ = writeln!(
                out,
                "last step      loss {:.4}, norm of the gradient {:.4}",
                last.loss, last.grad_norm
            );
            for (router, (wanted, executed)) in last.wanted.iter().zip(&last.executed).enumerate() {
                let (wanted, executed) = (100.0 * wanted, 100.0 * executed);
                let _ = writeln!(out, "router {router:<7} wants {wanted:5.1} %, executes {executed:5.1} %");
            }
        }
        if let Some(eval) = eval {
            let _ = writeln!(
                out,
                "held out       {:.4} nats a token, perplexity {:.4}",
                eval.loss, eval.perplexity
            );
            if let Some(bits) = eval.bits_per_byte {
                let _ = writeln!(out, "bits per byte  {bits:.4}");
            }
        }
        if let Some(times) = times {
            out.push_str(&times::text(times));
        }
        if step < steps {
            let (spec, config, folder) = (args.spec.display(), args.config.display(), args.folder.display());
            let _ =
                writeln!(out, "stopped; to go on: skipc train {spec} --config {config} -o {folder} --resume");
        }
        out
    }
}
