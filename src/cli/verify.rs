//! `skipc verify`: the equivalence ladder, as a table.

use std::fmt::Write;
use std::path::PathBuf;

use serde_json::json;
use skipc_artifact::program::{Function, GENERATE};
use skipc_artifact::section::ContentHash;
use skipc_ir::interp::FlatBatch;
use skipc_runtime::Model;
use skipc_runtime::inputs::{Replay, Room, Sequences};
use skipc_runtime::threads::Threads;

use super::inspect::new_table;
use super::progress::Line;
use super::{VerifyArgs, source, to_json};
use crate::diagnostic::Diagnostic;
use crate::driver::original::Original;
use crate::error::{Error, ErrorKind};
use crate::verify::{Inputs, Reduced, Report, Row, climb, drawn_batch, scoring};

pub(super) fn run(args: &VerifyArgs, json: bool) -> Result<String, Error> {
    let line = Line::spinner();
    line.at("weights");
    let artefact = args.trust.open(&args.artifact)?;
    let read = |model: &_, file: &_| source::weights_of(model, file, &args.checkpoint);
    let Original { artefact, weights, from, .. } =
        Original::of(artefact, &args.artifact, args.weights.as_deref(), read)?;
    let function = scoring(&artefact)?;
    let (batch, routing) = inputs(args, &artefact, &function)?;
    let threads = (!args.no_run).then(|| args.threads.unwrap_or_else(Threads::available));
    let progress: &dyn Fn(&str) = &|what| line.at(what);
    let inputs = Inputs {
        batch: &batch,
        routing: routing.as_deref(),
        threads,
        max_level: None,
        weights: &weights,
        progress,
    };
    let report = climb(&artefact, &inputs)?;
    drop(line);
    let text = match json {
        true => to_json(&json!({"ok": report.ok(), "weights": from, "report": report}))?,
        false => format!("weights: {from}\n{}", table(&report)),
    };
    if report.ok() {
        return Ok(text);
    }
    let wrong = report.rows.iter().filter(|row| !row.ok).count();
    let message = format!("{wrong} of {} comparisons are out of bounds\n{text}", report.rows.len());
    let mut diagnostic = Diagnostic::new("verify::mismatch", message);
    if let Some(reduced) = &report.reduced {
        diagnostic = diagnostic.help(keep(args, reduced.clone(), function.class_token));
    }
    Err(Error::new(ErrorKind::Mismatch, diagnostic))
}

/// One mask `[n]` a router.
type Masks = Vec<Vec<bool>>;

/// The user's tokens and decisions, or drawn tokens.
fn inputs(
    args: &VerifyArgs,
    model: &Model,
    function: &Function,
) -> Result<(FlatBatch, Option<Masks>), Error> {
    let lengths = args.lengths.as_deref();
    let sequences = match (&args.tokens, &args.rows) {
        (Some(path), _) => Sequences::read(path, lengths, Room::Whole(function))?,
        (None, Some(path)) => Sequences::read_rows(path, lengths, Room::Whole(function))?,
        (None, None) => return Ok((drawn_batch(function), None)),
    };
    let sequences = sequences.for_function(function);
    sequences.clone().into_batch(None).check(function)?;
    let batch = FlatBatch {
        tokens: sequences.tokens.iter().map(|token| i64::from(*token)).collect(),
        ..FlatBatch::of_rows(sequences.rows, sequences.grid.lengths.iter().map(|length| *length as usize))
    };
    let grid = sequences.grid;
    let Some(path) = &args.routing else { return Ok((batch, None)) };
    let routing =
        Replay::read(path, model.artifact().manifest(), (function.interface.routers().len(), &grid))?;
    let masks = routing.gates.iter().map(|mask| mask.iter().map(|bit| *bit != 0).collect()).collect();
    Ok((batch, Some(masks)))
}

/// Writes the reduced mismatch to disk; returns how to see it again, or why it cannot be kept: a mismatch stays one.
fn keep(args: &VerifyArgs, reduced: Reduced, class_token: bool) -> String {
    let reduced = if class_token { reduced.without_class_rows() } else { reduced };
    let folder = args.keep.clone().unwrap_or_else(|| {
        let hash = ContentHash::of(format!("{reduced:?}").as_bytes()).to_string();
        PathBuf::from(format!("skipc-mismatch-{}", &hash[..8]))
    });
    let (form, numbers, n) = (&reduced.form, reduced.numbers, reduced.n_tokens());
    let differs = format!("`{form} {numbers}` differs on {n} tokens already");
    if let Err(error) = reduced.write(&folder) {
        return format!("{differs}, but they could not be kept: {error}; `--keep` takes another folder");
    }
    let (artifact, folder) = (args.artifact.display(), folder.display());
    let input = if reduced.rows.is_empty() { "tokens" } else { "rows" };
    let mut command =
        format!("skipc verify {artifact} --{input} {folder}/{input}.npy --lengths {folder}/lengths.npy");
    if reduced.routing.is_some() {
        let _ = write!(command, " --routing {folder}/routing.npy");
    }
    if let Some(weights) = &args.weights {
        let _ = write!(command, " --weights {}", weights.display());
    }
    format!("{differs}; to see it again: {command}")
}

/// All comparisons, those that failed first.
fn table(report: &Report) -> String {
    let header = ["form", "numbers", "decisions", "flipped", "near ties", "max error", "rel. rms", ""];
    let mut table = new_table(&header);
    let (right, wrong): (Vec<&Row>, Vec<&Row>) = report.rows.iter().partition(|row| row.ok);
    for row in wrong.into_iter().chain(right) {
        let function = if row.function == GENERATE { "generate: " } else { "" };
        table.add_row([
            format!("{function}{}", row.form),
            row.numbers.to_owned(),
            row.case.clone(),
            format!("{} of {}", row.flips, row.decisions),
            row.near_ties.to_string(),
            format!("{:.2e}", row.max_error),
            format!("{:.2e}", row.relative_rms),
            if row.ok { "ok" } else { "WRONG" }.to_owned(),
        ]);
    }
    let mut out = format!("{table}\n");
    for skipped in &report.skipped {
        let _ = writeln!(out, "not run: {skipped}");
    }
    out
}
