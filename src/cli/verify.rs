//! `skipc verify`: the equivalence ladder, as a table.

use std::fmt::Write;

use serde_json::json;
use skipc_artifact::program::Purpose;
use skipc_ir::interp::Batch;
use skipc_ir::random_score;
use skipc_runtime::threads::Threads;
use skipc_runtime::{Model, npy};

use super::inspect::new_table;
use super::{Exit, Failure, VerifyArgs, runtime_failure, to_json};
use crate::diagnostic::Diagnostic;
use crate::ladder::{self, LadderError, Report};

/// Lengths of the two sequences that are drawn: several tiles of every kernel, and a tail.
const DRAWN: [u32; 2] = [69, 28];

pub(super) fn run(args: &VerifyArgs, json: bool) -> Result<String, Failure> {
    let model = Model::open(&args.artifact).map_err(|error| runtime_failure(&error))?;
    let batch = batch(args, &model)?;
    let threads = args.threads.unwrap_or_else(Threads::available);
    let report = ladder::climb(&model, &batch, threads).map_err(|error| match &error {
        LadderError::Runtime(error) => runtime_failure(error),
        LadderError::Stage { .. } => {
            Failure::new(Exit::User, Diagnostic::new("verify::stage", error.to_string()))
        }
    })?;
    let text = if json { to_json(&json!({"ok": report.ok(), "report": report}))? } else { table(&report) };
    if report.ok() {
        return Ok(text);
    }
    let wrong = report.rows.iter().filter(|row| !row.ok).count();
    let message = format!("{wrong} of {} comparisons are out of bounds\n{text}", report.rows.len());
    Err(Failure::new(Exit::Mismatch, Diagnostic::new("verify::mismatch", message)))
}

fn batch(args: &VerifyArgs, model: &Model) -> Result<Batch, Failure> {
    if let Some(path) = &args.tokens {
        let array = npy::read_ints(path, &[1, 2]).map_err(|error| runtime_failure(&error))?;
        let width = array.shape.last().copied().unwrap_or(0).max(1);
        return Ok(Batch::from_sequences(array.data.chunks(usize::try_from(width).unwrap_or(1))));
    }
    let target = model.targets().into_iter().next().ok_or_else(|| {
        Failure::new(Exit::User, Diagnostic::new("verify::empty", "the artefact has no program"))
    })?;
    let program = skipc_artifact::bundle::read_program(model.artifact(), &target, Purpose::Score)
        .map_err(|error| runtime_failure(&error.into()))?;
    let layout = &program.layout;
    let mut left = layout.max_tokens;
    let mut sequences = Vec::new();
    for (idx, wanted) in (0u64..).zip(DRAWN) {
        let length = wanted.min(layout.max_positions).min(left);
        left -= length;
        let token =
            |place: u32| (random_score(7, 0, idx, u64::from(place)) % u64::from(layout.vocab_size)) as i64;
        sequences.push((0..length).map(token).collect::<Vec<i64>>());
    }
    Ok(Batch::from_sequences(sequences.iter().map(Vec::as_slice)))
}

fn table(report: &Report) -> String {
    let mut table = new_table(&["form", "decisions", "flipped", "largest error", "relative rms", ""]);
    for row in &report.rows {
        table.add_row([
            row.form.clone(),
            row.case.clone(),
            format!("{} of {}", row.flips, row.decisions),
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
