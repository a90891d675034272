//! `skipc run`: what `skipc-run` does, and what each router skipped.

use std::io::Write;

use skipc_runtime::command::{self, RunArgs};

use super::{open_index, shares, to_json};
use crate::diagnostic::Diagnostic;
use crate::driver::original::model_of;
use crate::error::{Error, ErrorKind};

pub(super) fn run(args: &RunArgs, json: bool, out: &mut dyn Write) -> Result<String, Error> {
    let args = RunArgs { json: json || args.json, ..args.clone() };
    // A summary in JSON is printed once, below.
    let mut kept = Vec::new();
    let out: &mut dyn Write = if args.json { &mut kept } else { out };
    let decisions = command::run(&args, out)?;
    let model = model_of(&open_index(&args.model)?, &args.model)?;
    let shares = shares::Shares::new(&model, &decisions);
    if args.json {
        let summary: serde_json::Value = serde_json::from_slice(&kept).map_err(|error| {
            Error::new(ErrorKind::Internal, Diagnostic::new("json::write", error.to_string()))
        })?;
        return to_json(&serde_json::json!({"run": summary, "routing": shares}));
    }
    Ok(if decisions.gates.is_empty() && decisions.choices.is_empty() {
        String::new()
    } else {
        format!("\n{}", shares.text())
    })
}
