//! `skipc tune`: times the forms of a model's kernels on this machine, for `skipc compile --tuning`.

use std::fmt::Write;

use skipc_artifact::target::{DType, Target};

use super::inspect::new_table;
use super::progress::Line;
use super::{TuneArgs, source, to_json};
use crate::bench;
use crate::cost::bucketing::tuning::{Table, Tuning};
use crate::diagnostic::Diagnostic;
use crate::driver::backends::CpuBackend;
use crate::error::{Error, ErrorKind};
use crate::frontend::weights::Weights;
use crate::frontend::weights::drawn::RANDOM_SEED;

pub(super) fn run(args: &TuneArgs, json: bool) -> Result<String, Error> {
    let usage = |message: String| {
        Error::new(ErrorKind::Request, Diagnostic::new("usage::tune", message).help("see `skipc targets`"))
    };
    let target: Target = args.target.parse().map_err(|error| usage(format!("--target: {error}")))?;
    let dtype = if target == Target::Cpu { DType::F32 } else { DType::Bf16 };
    let source = source::open_with_weights(&args.spec, &args.checkpoint)?;
    let weights = match source::weights(&source, args.weights.as_deref(), &args.checkpoint)? {
        Some(weights) => weights,
        None => Weights::drawn(&source.model, RANDOM_SEED)?,
    };
    let model = source.model;
    let line = Line::spinner();
    let backend = args.cpu_backend.into();
    let tuning = bench::tune((&model, &weights), (&target, dtype, backend), args.rounds, &mut |kernel| {
        line.at(kernel);
    })?;
    drop(line);
    let text = to_json(&tuning)?;
    skipc_artifact::replace::bytes(&args.output, text.as_bytes())
        .map_err(|error| Error::in_artifact(&args.output, &error))?;
    if json { Ok(text) } else { Ok(table_text(args, &tuning)) }
}

fn table_text(args: &TuneArgs, tuning: &Tuning) -> String {
    let file = args.output.display();
    if tuning.kernels.is_empty() {
        let by = match tuning.target.as_str() {
            "cpu" => format!(" by {}", CpuBackend::from(args.cpu_backend).name()),
            _ => String::new(),
        };
        return format!(
            "{file}: no kernel of the model has several forms as code for {}{by}\n",
            tuning.target
        );
    }
    let mut out = format!("{file}: {} on {}\n", tuning.target, tuning.device);
    for kernel in &tuning.kernels {
        let _ = writeln!(out, "\n{}, µs in tiles of\n{}", kernel.name, times(kernel));
    }
    out
}

fn times(kernel: &Table) -> String {
    let mut header = vec!["rows".to_owned()];
    header.extend(kernel.forms.iter().map(|form| format!("{}×{}", form.rows, form.cols)));
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let mut table = new_table(&header);
    for (at, count) in kernel.counts.iter().enumerate() {
        let mut row = vec![count.to_string()];
        row.extend(kernel.forms.iter().map(|form| format!("{:.2}", form.ns[at] / 1e3)));
        table.add_row(row);
    }
    table.to_string()
}
