//! The command line of `skipc run`, `skipc generate` and `skipc-run`: one definition of their options and of what they do, behind the
//! feature `command`, because both programs have it and a program that calls the runtime has not.

mod console;
mod files;
mod generate;
mod printer;
mod skips;
mod trust;

use std::convert::Infallible;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use skipc_artifact::section::ContentHash;

use crate::batch::{Batch, Decisions, Grid, Outputs};
use crate::choices::{self, Choices};
use crate::decode::{Bytes, Tokenizer};
use crate::device::Device;
use crate::error::Error;
use crate::inputs::{Replay, ReplayedChoices, Room, Sequences};
use crate::known_answer::{self, Verdict};
use crate::model::{Model, Opening};
use crate::npy;
use crate::options::Options;
use crate::session::Session;
use crate::threads::Threads;
use crate::timing::Timing;
use crate::trace::{self, Trace};
use crate::words::counted;

pub use console::{Console, printable};
pub use files::{FileUse, Files, file_use};
pub use generate::{GenerateArgs, Meter, generate};
use printer::Printer;
pub use trust::TrustArgs;

/// Options of a run.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// The compiled model. Its machine code becomes part of this process: open only files that you trust as programs
    #[arg(value_name = "M.skp")]
    pub model: PathBuf,

    /// Token ids, `[tokens]` or `[batch, tokens]` of int32, int64 or uint8
    #[arg(long, value_name = "FILE.npy", group = "sequences")]
    pub tokens: Option<PathBuf>,

    /// Rows of numbers, or patches, for a model that takes these in place of token ids, float32 `[tokens, columns]` or
    /// `[batch, tokens, columns]`
    #[arg(
        long,
        visible_alias = "patches",
        value_name = "FILE.npy",
        group = "sequences",
        conflicts_with = "prompt"
    )]
    pub rows: Option<PathBuf>,

    /// How many tokens of each row count, `[batch]`; the rest is padding, and its logits are 0
    #[arg(long, value_name = "FILE.npy", requires = "sequences", conflicts_with = "prompt")]
    pub lengths: Option<PathBuf>,

    /// Text to score, for models of bytes
    #[arg(long, value_name = "TEXT", conflicts_with = "tokens")]
    pub prompt: Option<String>,

    /// What only another command does, to name that.
    #[arg(long, value_name = "N", hide = true, value_parser = names_generate)]
    pub max_new_tokens: Option<Infallible>,

    /// Write the logits, f32 `[batch, tokens, vocabulary]`, or the rows that a model without a head gives, or the scores
    /// `[batch, classes]` of one that scores sequences
    #[arg(long, value_name = "OUT.npy")]
    pub logits: Option<PathBuf>,

    /// Write the decisions: as a routing trace if the name ends in `.trace`, else as uint8 `[routers, batch, tokens]` in
    /// model order
    #[arg(long, value_name = "OUT.npy|OUT.trace")]
    pub routing_out: Option<PathBuf>,

    /// Write which choices tokens got in each layer of experts: uint8 `[layers, batch, tokens, choices]` in the order in which
    /// layers run, those with fewer choices than the widest filled up with 0
    #[arg(long, value_name = "OUT.npy")]
    pub experts_out: Option<PathBuf>,

    /// Take the decisions from this file, a routing trace or an array as --routing-out writes it, instead of the routers
    #[arg(long, value_name = "FILE")]
    pub routing: Option<PathBuf>,

    /// Take the choices of experts from this file, a routing trace that has some or an array as --experts-out writes it, instead of
    /// the layers' routers; what a choice counts is still what its layer's scores say
    #[arg(long, value_name = "FILE")]
    pub experts: Option<PathBuf>,

    /// Where to run: cpu, cuda (the first NVIDIA GPU) or cuda:N (that of this ordinal)
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Cpu)]
    pub device: Device,

    /// Threads on the CPU; as many as it runs at once by default
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,

    /// Fill memory with NaN before the run and look for stray writes after each kernel (slow)
    #[arg(long)]
    pub checked: bool,

    /// Replay the known answers in the artefact instead of running tokens
    #[arg(long, conflicts_with_all = ["tokens", "rows", "prompt", "logits", "routing", "routing_out", "experts", "experts_out"])]
    pub self_test: bool,

    /// Run the batch some more times and print how long its steps and each of their kernels take, and the peak memory
    #[arg(long, conflicts_with = "self_test")]
    pub timing: bool,

    // Not flattened: `skipc-run` has all of these options or none, which clap tells of a flat list alone.
    /// Run nothing but what one of these public keys signed (`skipc sign`): the signature lies beside the artefact, in M.skp.sig
    #[arg(long, value_name = "KEYS.pem")]
    pub trust: Option<PathBuf>,

    /// The second file of a model that was compiled with --external-weights, if it does not lie beside the model
    #[arg(long, value_name = "M.skw")]
    pub external_weights: Option<PathBuf>,

    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
}

impl RunArgs {
    /// Scores tokens that are to be named, on the CPU and with every default.
    #[must_use]
    pub fn scoring(model: PathBuf) -> Self {
        Self {
            model,
            tokens: None,
            rows: None,
            lengths: None,
            prompt: None,
            max_new_tokens: None,
            logits: None,
            routing_out: None,
            experts_out: None,
            routing: None,
            experts: None,
            device: Device::Cpu,
            threads: None,
            checked: false,
            self_test: false,
            timing: false,
            trust: None,
            external_weights: None,
            json: false,
        }
    }

    /// The sequences that are named, for which there is this room.
    fn sequences(&self, room: Room<'_>) -> Result<Sequences, Error> {
        let lengths = self.lengths.as_deref();
        match (&self.tokens, &self.rows) {
            (Some(path), _) => Sequences::read(path, lengths, room),
            (None, Some(path)) => Sequences::read_rows(path, lengths, room),
            (None, None) => Err(Error::Usage(
                "give `--tokens FILE.npy`, `--rows FILE.npy` or `--patches FILE.npy`".into(),
            )),
        }
    }

    fn open(&self) -> Result<Model, Error> {
        let opening = Opening { external: self.external_weights.as_deref(), trust: self.trust.as_deref() };
        Model::open_as(&self.model, &opening)
    }

    fn session(&self, model: &Model) -> Result<Session, Error> {
        let threads = self.threads.unwrap_or_else(Threads::available);
        let options = Options { threads, checked: self.checked, ..Options::default() };
        Session::new(model, self.device, options)
    }
}

/// Where an option is looked for that `run` has not.
fn names_generate(_: &str) -> Result<Infallible, &'static str> {
    Err(
        "`run` scores what it is given; `generate` continues it, by the same options `--tokens`, `--lengths` and `--prompt`",
    )
}

/// Runs the command; what it prints goes to `out`. Gives the decisions. Once the reader of `out` has gone, nothing more is
/// printed, and that is no error.
///
/// # Errors
///
/// See [`Error`].
pub fn run(args: &RunArgs, out: &mut dyn Write) -> Result<Decisions, Error> {
    let out = &mut Printer::new(out);
    if args.self_test {
        return self_test(args, out);
    }
    if args.tokens.is_none() && args.rows.is_none() && args.prompt.is_none() {
        let inputs =
            "`--tokens FILE.npy`, `--rows FILE.npy`, `--patches FILE.npy`, `--prompt TEXT` or `--self-test`";
        return Err(Error::Usage(format!("give {inputs}")));
    }
    let started = Instant::now();
    let model = args.open()?;
    let mut session = args.session(&model)?;
    let load = started.elapsed();
    let sequences = match &args.prompt {
        Some(text) => Sequences::of_row(Bytes::of(session.function().vocab_size)?.encode(text)?),
        None => args.sequences(Room::Whole(session.function()))?,
    };
    score_once((args, load), &model, &mut session, sequences, out)
}

/// Replays the known answers; a table goes to `out`.
fn self_test(args: &RunArgs, out: &mut Printer<'_>) -> Result<Decisions, Error> {
    let model = args.open()?;
    let threads = args.threads.unwrap_or_else(Threads::available);
    let options = Options { threads, checked: args.checked, ..Options::default() };
    let verdicts = known_answer::self_test(&model, args.device, options)?;
    let failed = verdicts.iter().filter(|verdict| !verdict.ok).count();
    if args.json {
        let rows: Vec<_> = verdicts
            .iter()
            .map(|verdict| {
                serde_json::json!({
                    "purpose": verdict.function,
                    "case": verdict.case,
                    "flips": verdict.flips,
                    "max_error": verdict.max_error,
                    "relative_rms": verdict.relative_rms,
                    "ok": verdict.ok,
                })
            })
            .collect();
        let summary = serde_json::json!({"ok": failed == 0, "known_answers": rows});
        out.print(format_args!("{summary}\n"))?;
    } else {
        for Verdict { function, case, flips, max_error, relative_rms, ok } in &verdicts {
            let word = if *ok { "ok" } else { "WRONG" };
            out.print(format_args!(
                "{function:8}  {case:5}  {flips} decisions differ, largest error {max_error:.2e}, \
                     relative rms {relative_rms:.2e}  {word}\n"
            ))?;
        }
    }
    match failed {
        0 => Ok(Decisions::default()),
        _ => Err(Error::SelfTest { failed, of: verdicts.len() }),
    }
}

/// The decisions of a run, as a trace. Nothing is written.
///
/// # Errors
///
/// As [`run`].
pub fn record(args: &RunArgs) -> Result<Trace, Error> {
    let model = args.open()?;
    let mut session = args.session(&model)?;
    let sequences = args.sequences(Room::Whole(session.function()))?;
    let scored = score(args, &model, &mut session, sequences)?;
    scored.outputs.check_finite(&scored.grid.lengths)?;
    let decisions = (scored.outputs.gates, scored.outputs.choices);
    let from = (model.artifact().manifest(), session.program());
    Ok(Trace::recorded(from, &scored.batch, decisions, scored.replayed))
}

/// One run with what went in.
struct Scored {
    grid: Grid,
    batch: Batch,
    /// Hashes of the files whose decisions, and whose choices of experts, were replayed.
    replayed: [Option<ContentHash>; 2],
    outputs: Outputs,
}

fn score(
    args: &RunArgs,
    model: &Model,
    session: &mut Session,
    sequences: Sequences,
) -> Result<Scored, Error> {
    let sequences = sequences.for_function(session.function());
    let grid = sequences.grid.clone();
    let routers = session.function().interface.routers().len();
    let replay = match &args.routing {
        Some(path) => Some(Replay::read(path, model.artifact().manifest(), (routers, &grid))?),
        None => None,
    };
    let (routing, replayed) = replay.map(|read| (read.gates, read.file_hash)).unzip();
    let experts = match &args.experts {
        Some(path) => {
            let function = session.function();
            Some(ReplayedChoices::read(path, model.artifact().manifest(), (function, &grid))?)
        }
        None => None,
    };
    let (experts, replayed_experts) = experts.map(|read| (read.layers, read.file_hash)).unzip();
    let replayed = [replayed, replayed_experts];
    let batch = Batch { experts, ..sequences.into_batch(routing) };
    let outputs = session.run_with_choices(&batch)?;
    Ok(Scored { grid, batch, replayed, outputs })
}

/// Scores a batch: logits and decisions to files, a summary to `out`.
fn score_once(
    (args, load): (&RunArgs, Duration),
    model: &Model,
    session: &mut Session,
    sequences: Sequences,
    out: &mut Printer<'_>,
) -> Result<Decisions, Error> {
    if args.experts_out.is_some() && session.function().interface.choices().is_empty() {
        return Err(Error::NoExperts);
    }
    let Scored { grid, batch, replayed, mut outputs } = score(args, model, session, sequences)?;
    let finite = outputs.check_finite(&grid.lengths);
    let (rows, width) = (grid.lengths.len() as u64, grid.width as u64);
    if let Some(path) = &args.logits {
        let (shape, array) = outputs.take_logits(session.function(), &grid);
        npy::write(path, &shape, &array)?;
    }
    if let Some(path) = &args.routing_out {
        if path.extension().is_some_and(|extension| extension == trace::EXTENSION) {
            let from = (model.artifact().manifest(), session.program());
            let decisions = (outputs.gates.clone(), outputs.choices.clone());
            Trace::recorded(from, &batch, decisions, replayed).write(path)?;
        } else {
            let array: Vec<u8> = outputs.gates.iter().flat_map(|gates| grid.unpack(gates, 1)).collect();
            npy::write(path, &[outputs.gates.len() as u64, rows, width], &array)?;
        }
    }
    if let Some(path) = &args.experts_out {
        let (shape, array) = choices::to_array(&outputs.choices, &grid);
        npy::write(path, &shape, &array)?;
    }
    let timing = if args.timing { Some(Timing::of(session, &batch, load)?) } else { None };
    let decisions = Decisions::new(session.function(), outputs.gates, &outputs.overflow, outputs.choices);
    summarise(args, session, &grid, (&outputs.counts, &decisions, timing.as_ref()), out)?;
    // Said last, so that who looks for the cause has the files.
    finite?;
    Ok(decisions)
}

fn summarise(
    args: &RunArgs,
    session: &Session,
    grid: &Grid,
    (counts, Decisions { overflow, choices, .. }, timing): (&[u32], &Decisions, Option<&Timing>),
    out: &mut Printer<'_>,
) -> Result<(), Error> {
    let n_tokens: u64 = grid.lengths.iter().map(|&length| u64::from(length)).sum();
    let executed: u64 = counts.iter().map(|&count| u64::from(count)).sum();
    let asked = n_tokens * counts.len() as u64;
    let is_limited = overflow.iter().any(Option::is_some);
    if args.json {
        let mut summary = serde_json::json!({
            "device": session.describe(),
            "sequences": grid.lengths.len(),
            "tokens": n_tokens,
            "executed": counts,
        });
        if is_limited {
            summary["over_capacity"] = serde_json::json!(overflow);
        }
        if !choices.is_empty() {
            let loads: Vec<Vec<u64>> = choices.iter().map(Choices::loads).collect();
            summary["experts"] = serde_json::json!(loads);
        }
        if let Some(timing) = timing {
            summary["timing"] = timing.json();
        }
        return out.print(format_args!("{summary}\n"));
    }
    let n_sequences = grid.lengths.len() as u64;
    let decided = match counts.len() as u64 {
        0 => "no routers: every block runs".to_owned(),
        n if asked == 0 => format!("{} decided nothing", counted(n, "router")),
        n => format!(
            "{} executed {:.1} % of them",
            counted(n, "router"),
            100.0 * executed as f64 / asked as f64
        ),
    };
    out.print(format_args!(
        "{} in {} on {}; {decided}\n",
        counted(n_tokens, "token"),
        counted(n_sequences, "sequence"),
        session.describe(),
    ))?;
    if let Some(timing) = timing {
        out.print(format_args!("{}", timing.text()))?;
    }
    if !is_limited {
        return Ok(());
    }
    let limited = overflow.iter().enumerate().filter_map(|(router, over)| Some((router, (*over)?)));
    let counts: Vec<String> = limited.map(|(router, over)| format!("{router}: {over}")).collect();
    out.print(format_args!("tokens over capacity, by router: {}\n", counts.join(", ")))
}

/// An error as JSON, in the form in which `skipc` reports what it found.
#[must_use]
pub fn error_json(code: &str, message: &str) -> serde_json::Value {
    serde_json::json!({
        "errors": [{"code": code, "severity": "error", "message": message, "help": null, "file": null, "labels": []}],
        "warnings": [],
        "left_off": 0,
    })
}
