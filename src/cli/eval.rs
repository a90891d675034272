//! `skipc eval`: the loss of a model on text or tokens, and what it skipped there.

use std::fmt::Write;

use serde::Serialize;
use skipc_ir::SetSym;
use skipc_passes::rewrite::cost::{CPU, Counts, Poly};
use skipc_runtime::decode::LanguageFiles;
use skipc_runtime::eval::{self, Scored, Windows};
use skipc_runtime::inputs::{Room, Sequences, read_text};
use skipc_runtime::threads::Threads;
use skipc_runtime::{Model as Artefact, Options, Session};

use super::progress::Line;
use super::shares::Shares;
use super::{EvalArgs, open_index, to_json};
use crate::cost::{Even, PlanCost};
use crate::diagnostic::Diagnostic;
use crate::driver::original::model_of;
use crate::error::{Error, ErrorKind};
use crate::frontend::lint::Lint;
use crate::frontend::lower::Function;
use crate::frontend::spec::model::Model;
use crate::frontend::spec::skip::Skip;
use crate::verify;

/// Longest text that is read, in bytes: it is held in memory, as are its tokens.
const TEXT_LIMIT: u64 = 1 << 30;

/// What was found. The field names are the interface of `skipc eval --json`.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    device: String,
    /// Tokens of a window.
    window: u32,
    /// From one to the next.
    stride: u32,
    windows: u64,
    sequences: usize,
    tokens: u64,
    /// Tokens whose probability counts.
    scored: u64,
    /// Mean of their negative log probabilities, in nats.
    loss: f64,
    perplexity: f64,
    /// Nothing where nobody knows how many bytes a token stands for.
    bits_per_byte: Option<f64>,
    /// No decision depends on later tokens. If one does, the loss is not that of what the model generates.
    causal: bool,
    /// The code of the lint that says so.
    lint: Option<&'static str>,
    /// Of all tokens that ran: those of two windows count twice.
    routing: Shares,
    work: Work,
}

/// Multiply-adds of all that ran.
#[derive(Debug, Serialize)]
struct Work {
    multiply_adds: f64,
    /// Of the same model if every router executed every token.
    dense: f64,
    /// The first over the second.
    share: f64,
}

/// What is added up over windows.
#[derive(Default)]
struct Sums {
    windows: u64,
    ran: u64,
    scored: u64,
    bytes: u64,
    nats: f64,
    executed: Vec<u64>,
    multiply_adds: f64,
    dense: f64,
}

pub(super) fn run(args: &EvalArgs, json: bool) -> Result<String, Error> {
    let artefact = args.trust.open(&args.model)?;
    let model = model_of(&open_index(&args.model)?, &args.model)?;
    let threads = args.threads.unwrap_or_else(Threads::available);
    let options = Options { threads, ..Options::default() };
    let mut session = Session::new(&artefact, args.device, options)?;
    let (width, stride, windows) = windows(args, &session)?;
    let vocab_size = session.function().vocab_size;
    let files =
        LanguageFiles { model: args.model.clone(), tokenizer: args.tokenizer.clone(), chat_template: None };
    let (sequences, tokenizer) = match &args.text {
        Some(path) => {
            let tokenizer = files.tokenizer(vocab_size)?;
            (Sequences::of_row(tokenizer.encode(&read_text(path, TEXT_LIMIT)?)?), Some(tokenizer))
        }
        None => {
            let path = args.tokens.as_deref().unwrap_or(&args.model);
            let sequences = Sequences::read(path, args.lengths.as_deref(), Room::Corpus)?;
            (sequences, files.tokenizer(vocab_size).ok())
        }
    };
    let rows: Vec<&[u32]> = sequences.ids().collect();
    let macs = macs(&artefact, &session)?;
    let at_once = if draws_by_row(&model) { 1 } else { usize::MAX };
    let count = rows.iter().enumerate().map(|(row, tokens)| windows.of_row(row, tokens.len()).count());
    let line = Line::counting("window", count.sum::<usize>() as u64);
    let mut sums = Sums::default();
    eval::evaluate(&mut session, &rows, windows, at_once, &mut |scored| {
        let tokens = &rows[scored.window.row][scored.window.scores.clone()];
        sums.bytes += tokenizer.as_ref().map_or(0, |tokenizer| tokenizer.decode(tokens).len() as u64);
        sums.add(&scored, &macs);
        line.turn();
    })?;
    drop(line);
    if sums.scored == 0 {
        let message = "there is no token to score: no sequence has two";
        let help = "the first token of a sequence has nothing before it that could tell it";
        return Err(Diagnostic::new("eval::nothing", message).help(help).into());
    }
    let loss = sums.nats / sums.scored as f64;
    let report = Report {
        model: model.name.clone(),
        device: session.describe(),
        window: width,
        stride,
        windows: sums.windows,
        sequences: rows.len(),
        tokens: sequences.tokens.len() as u64,
        scored: sums.scored,
        loss,
        perplexity: loss.exp(),
        bits_per_byte: tokenizer.map(|_| sums.nats / std::f64::consts::LN_2 / sums.bytes as f64),
        causal: artefact.artifact().manifest().promises.causal,
        lint: lint(&model),
        routing: Shares::of_counts(&model, sums.ran, sums.executed),
        work: Work {
            multiply_adds: sums.multiply_adds,
            dense: sums.dense,
            share: sums.multiply_adds / sums.dense,
        },
    };
    if json { to_json(&report) } else { Ok(text(&report)) }
}

/// Width, stride, and both together.
fn windows(args: &EvalArgs, session: &Session) -> Result<(u32, u32, Windows), Error> {
    let limit = session.function().max_positions.min(session.function().max_tokens);
    let width = args.window.unwrap_or(limit);
    if width > limit {
        let message = format!("--window {width}: the artefact takes {limit} tokens of a sequence at once");
        let help = "write less, or compile with a larger `--max-tokens` if the model has more positions";
        return Err(Error::new(ErrorKind::Request, Diagnostic::new("usage::eval", message).help(help)));
    }
    let stride = args.stride.unwrap_or(width.div_ceil(2));
    Ok((width, stride, Windows::new(width, stride)?))
}

/// The code of the lint that says why the loss is no measure of what the model generates.
fn lint(model: &Model) -> Option<&'static str> {
    match (model.is_causal(), model.can_generate()) {
        (true, _) => None,
        (false, true) => Some(Lint::TrainGenerateMismatch.code()),
        (false, false) => Some(Lint::FutureLeak.code()),
    }
}

/// Whether decisions depend on the number that a sequence has in its batch.
fn draws_by_row(model: &Model) -> bool {
    model.skips().any(Skip::depends_on_batch)
}

/// The multiply-adds of the function that scores.
fn macs(artefact: &Artefact, session: &Session) -> Result<Poly, Error> {
    let plan = verify::plan(artefact, Function::Score, session.program())?;
    let cost = PlanCost::of(&plan, &CPU);
    Ok(PlanCost::sum(cost.steps.iter().map(|(_, step)| step), |step| &step.macs))
}

/// One window.
struct Ran<'a> {
    tokens: f64,
    executed: &'a [u32],
}

impl Counts for Ran<'_> {
    fn tokens(&self) -> f64 {
        self.tokens
    }

    fn rows(&self, set: SetSym) -> f64 {
        self.executed.get(set.0 as usize).map_or(self.tokens, |executed| f64::from(*executed))
    }
}

impl Sums {
    fn add(&mut self, scored: &Scored, macs: &Poly) {
        let Scored { window, nats, executed } = scored;
        self.windows += 1;
        self.ran += window.runs.len() as u64;
        self.scored += nats.len() as u64;
        self.nats += nats.iter().sum::<f64>();
        self.executed.resize(executed.len(), 0);
        self.executed.iter_mut().zip(executed).for_each(|(sum, executed)| *sum += u64::from(*executed));
        let tokens = window.runs.len() as f64;
        self.multiply_adds += macs.at(&Ran { tokens, executed });
        self.dense += macs.at(&Even { tokens, density: 1.0 });
    }
}

fn text(report: &Report) -> String {
    let Report { model, device, window, stride, windows, sequences, tokens, scored, .. } = report;
    let plural = |n: u64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let mut out = format!(
        "{model}: {} in {} on {device}; {scored} scored in {} of {window}, {stride} apart\n\n",
        plural(*tokens, "token"),
        plural(*sequences as u64, "sequence"),
        plural(*windows, "window"),
    );
    let _ = writeln!(out, "loss           {:.4} nats a token", report.loss);
    if let Some(bits) = report.bits_per_byte {
        let _ = writeln!(out, "bits per byte  {bits:.4}");
    }
    let _ = writeln!(out, "perplexity     {:.4}\n", report.perplexity);
    out += &report.routing.text();
    let Work { multiply_adds, dense, share } = report.work;
    let _ = writeln!(
        out,
        "{:.1} % of the multiply-adds of the same model with every layer executed ({:.3} of {:.3} G)",
        100.0 * share,
        multiply_adds / 1e9,
        dense / 1e9
    );
    if let Some(code) = report.lint {
        let _ = writeln!(
            out,
            "decisions look at later tokens, which are not there when the model generates: its loss there is another ({code})"
        );
    }
    out
}
