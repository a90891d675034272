//! `skipc run`: what `skipc-run` does, and what each router skipped.

use std::io::Write;

use skipc_runtime::command::{self, RunArgs};

use super::{open_index, shares, to_json};
use crate::error::Error;

pub(super) fn run(args: &RunArgs, json: bool, out: &mut dyn Write) -> Result<String, Error> {
    let args = RunArgs { json: json || args.json, ..args.clone() };
    // Text goes out as it is generated; a summary in JSON is printed once, below.
    let mut kept = Vec::new();
    let out: &mut dyn Write = if args.json { &mut kept } else { out };
    let decisions = command::run(&args, out)?;
    let model = shares::model_of(&open_index(&args.model)?, &args.model)?;
    let shares = shares::Shares::new(&model, &decisions);
    if args.json {
        let printed = String::from_utf8_lossy(&kept).into_owned();
        let summary = serde_json::from_str(&printed).unwrap_or(serde_json::Value::String(printed));
        return to_json(&serde_json::json!({"run": summary, "routing": shares}));
    }
    Ok(if decisions.gates.is_empty() { String::new() } else { format!("\n{}", shares.text()) })
}
