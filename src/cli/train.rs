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
use crate::train::ranks::{Facts, Place, Team};
use crate::train::record::{Record, Replay};
use crate::train::times::{self, KernelTime};
use crate::train::{Begin, Data, Evaluation, Run, StepRecord, Teacher, compiled, interpreted, precision};

/// The word of `--target` for the reference interpreter.
const INTERPRETER: &str = "interpreter";

pub(super) fn run(args: &TrainArgs, json: bool) -> Result<String, Error> {
    let place = Place::from_environment(|name| std::env::var(name).ok())?;
    let report = move |error: &Error| super::report(error, json, &mut std::io::stdout());
    let team = Team::join(place, Box::new(report))?;
    let command = std::panic::AssertUnwindSafe(|| on_rank(args, json, &team));
    let ran = std::panic::catch_unwind(command);
    match ran.unwrap_or_else(|panic| Err(Error::panicked(panic.as_ref()))) {
        Ok(text) => {
            team.leave();
            Ok(text)
        }
        Err(error) => Err(team.fail(error)),
    }
}

/// The command on one of the ranks of a run; the first alone writes anything, and has something to say at the end.
fn on_rank(args: &TrainArgs, json: bool, team: &Team) -> Result<String, Error> {
    let (ranks, stop) = (team.ranks(), stop_on_signals()?);
    if args.spec.is_dir() {
        let message = format!("{} is a directory, and training takes a spec", args.spec.display());
        let help =
            "write the spec that `skipc check DIR` prints to a file, and give its weights by `--weights`";
        return Err(usage(message, help));
    }
    let source = Source::open(&args.spec, None)?;
    let config = configuration(&args.config, ranks.size())?;
    let model = &source.model;
    let warnings = crate::train::check(model, &config)?;
    if ranks.is_first() {
        super::show(&warnings);
    }
    let runs_on = RunsOn::of(args, &config, team)?;
    let data = Data::read(&config, model.stream.vocab_size)?;
    let teacher = teacher(&config)?;
    let mut identity = identity(&args.spec, &config, &data, teacher.as_ref())?;
    // Each of them rounds in its own way.
    identity.settings.insert("target".to_owned(), runs_on.name());
    let teacher = teacher.as_ref().map(|(teacher, _)| teacher);
    let begin = Begin { model, config: &config, data: &data, teacher, ranks };
    let mut run = start(args, &begin, &identity, runs_on)?;
    if ranks.size() > 1 {
        facts(args, &identity, &run)?.agree(ranks, |rank| team.name(rank))?;
    }
    let log = match ranks.is_first() {
        true => {
            std::fs::create_dir_all(&args.folder).map_err(|error| Error::io(&args.folder, &error))?;
            Some(Log::open(&args.folder, run.step)?)
        }
        false => None,
    };
    let session = Session { args, config: &config, identity, work: work(model)?, log, stop, team };
    let summary = session.train(&begin, &mut run)?;
    match (ranks.is_first(), json) {
        (false, _) => Ok(String::new()),
        (true, true) => to_json(&summary.json()),
        (true, false) => Ok(summary.text(args)),
    }
}

/// What has to be the same on all ranks before the first step.
fn facts(args: &TrainArgs, identity: &Identity, run: &Run<'_, f32>) -> Result<Facts, Error> {
    let mut facts = Facts::new(&identity.settings, &identity.hashes);
    facts.setting("skipc --version", env!("CARGO_PKG_VERSION").to_owned());
    facts.setting("the first step", run.step.to_string());
    facts.setting("what runs a step", run.engine.describe());
    for (option, every) in [("--save-every", args.save_every), ("--eval-every", args.eval_every)] {
        facts.setting(option, every.map_or_else(|| "absent".to_owned(), |every| every.to_string()));
    }
    facts.setting("--record", args.record.is_some().to_string());
    facts.setting("--resume", args.resume.to_string());
    let read = |path: &Path| std::fs::read(path).map_err(|error| Error::io(path, &error));
    let binary = std::env::current_exe().map_err(|error| Error::io("skipc".as_ref(), &error))?;
    facts.content("binary of skipc", &read(&binary)?);
    facts.content("weights", &checkpoint::hashes(&run.engine.weights()));
    facts.content("optimiser's state", &checkpoint::hashes(&run.engine.moments()));
    if let Some(folder) = &args.replay {
        let decisions = [read(&folder.join("wanted.npy"))?, read(&folder.join("gates.npy"))?];
        facts.content("record of decisions", &decisions.concat());
    }
    Ok(facts)
}

fn usage(message: String, help: &str) -> Error {
    Error::new(ErrorKind::Request, Diagnostic::new("usage::train", message).help(help))
}

fn configuration(path: &Path, ranks: usize) -> Result<Config, Error> {
    let (name, text) = spec::read_text(path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let config = training::read(&name, &text, folder)?;
    training::check_shares(&name, &text, &config, ranks)?;
    Ok(config)
}

/// Where the functions of training run.
#[derive(Clone, Copy)]
enum RunsOn {
    Interpreter,
    Host(Host),
}

impl RunsOn {
    fn of(args: &TrainArgs, config: &Config, team: &Team) -> Result<RunsOn, Error> {
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
        let threads = args.threads.map_or_else(|| team.threads(), usize::from);
        let max_tokens = config.rows_at_once(team.ranks().size()) * config.train.seq;
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
    /// Of the first rank.
    log: Option<Log>,
    /// This process was asked to end.
    stop: Arc<AtomicBool>,
    team: &'s Team,
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
        let (args, train, ranks) = (self.args, &self.config.train, self.team.ranks());
        let is_recorded = args.record.is_some() && ranks.is_first();
        let mut record = is_recorded.then(|| Record::new(run.engine.weights()));
        let shape = [train.steps as usize, begin.model.skips().count(), train.batch, train.seq];
        let replay = args.replay.as_deref().map(|folder| Replay::read(folder, shape)).transpose()?;
        let first = run.step;
        let line = ranks.is_first().then(|| Line::training(train.steps, first));
        let (mut last, mut saved, mut eval) = (None, None, None);
        // Ranks end at one step, whichever of them was asked to.
        while run.step < train.steps && !ranks.any(self.stop.load(Ordering::SeqCst)) {
            let (step, began) = (run.step, Instant::now());
            let done = run.advance(record.as_mut(), |step, batch| {
                replay.as_ref().map(|replay| replay.step(step, batch))
            })?;
            let (share, tokens_per_second) =
                (self.share(&done), done.tokens as f64 / began.elapsed().as_secs_f64());
            if let Some(log) = &mut self.log {
                log.step(step, &done, share, tokens_per_second)?;
            }
            if let Some(line) = &line {
                line.at(&brief(&done));
                line.turn();
            }
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
        }
        if finished && ranks.is_first() {
            checkpoint::write_tensors(&weights, &run.engine.weights(), None)?;
            if let (Some(record), Some(folder)) = (&record, &args.record) {
                record.write(folder, &run.engine.weights(), eval.as_ref(), [train.batch, train.seq])?;
            }
        }
        if let (Some(path), Some(log)) = (&args.svg, &self.log) {
            let svg = train_plot::svg(begin.model, &log.read()?)?;
            let wrote = skipc_artifact::replace::bytes(path, svg.as_bytes());
            wrote.map_err(|error| Error::in_artifact(path, &error))?;
        }
        let (model, steps, step) = (begin.model.name.clone(), train.steps, run.step);
        Ok(Summary { model, steps, step, weights, last, eval, times })
    }

    fn save(&self, run: &Run<'_, f32>) -> Result<std::path::PathBuf, Error> {
        let (weights, ranks) = (run.engine.weights(), self.team.ranks());
        if ranks.size() > 1 {
            let mut facts = Facts::default();
            facts.content(
                &format!("state of the weights after {} steps", run.step),
                &checkpoint::hashes(&weights),
            );
            facts.agree(ranks, |rank| self.team.name(rank))?;
        }
        if !ranks.is_first() {
            return Ok(checkpoint::weight_file(&self.args.folder, run.step));
        }
        let tensors = (&weights, &run.engine.moments());
        checkpoint::write(&self.args.folder, run.step, tensors, &self.identity)
    }

    fn evaluate(&mut self, run: &mut Run<'_, f32>) -> Result<Option<Evaluation>, Error> {
        let eval = run.evaluate()?;
        if let (Some(log), Some(eval)) = (&mut self.log, &eval) {
            log.eval(run.step, eval)?;
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
