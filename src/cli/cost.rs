//! `skipc inspect --cost`: what a model costs against density, as the cost model says.

use std::fmt::Write;
use std::path::Path;

use serde_json::json;
use skipc_artifact::target::{DType, Target};

use super::inspect::new_table;
use super::{InspectArgs, open_index, to_json};
use crate::cost::{Layer, Report};
use crate::diagnostic::Diagnostic;
use crate::driver::original::model_of;
use crate::error::{Error, ErrorKind};
use crate::frontend::source::Source;
use crate::frontend::spec::model::Model;
use crate::report::cost;

/// Densities of the report if the user names none.
const DENSITIES: [f64; 6] = [0.05, 0.125, 0.25, 0.5, 0.75, 1.0];

/// Tokens of the step if the user names no number.
const STEP_TOKENS: u32 = 512;

/// Densities of a range such as `0.05..1`.
const IN_RANGE: u32 = 8;

/// Characters of the longest bar.
const BAR: f64 = 40.0;

pub(super) fn run(args: &InspectArgs, json: bool) -> Result<String, Error> {
    let model = model(&args.artifact)?;
    let densities = densities(args.density.as_deref())?;
    let target: Target = args.target.parse().map_err(|error| {
        let message = format!("--target: {error}");
        Error::new(ErrorKind::Request, Diagnostic::new("usage::inspect", message).help("see `skipc targets`"))
    })?;
    let dtype = if target == Target::Cpu { DType::F32 } else { DType::Bf16 };
    let report = cost::report(&model, (&target, dtype), args.step_tokens.unwrap_or(STEP_TOKENS), &densities)?;
    match json {
        true => to_json(&json!({"model": model.name, "target": target.to_string(), "cost": report})),
        false => Ok(text(&model, &target, &report)),
    }
}

/// The model of a spec, or of an artefact.
fn model(path: &Path) -> Result<Model, Error> {
    if path.is_dir() || path.extension().is_some_and(|extension| extension == "toml") {
        return Ok(Source::open(path, None)?.model);
    }
    model_of(&open_index(path)?, path)
}

/// `0.1,0.5` or `0.05..1`.
fn densities(text: Option<&str>) -> Result<Vec<f64>, Error> {
    let Some(text) = text else { return Ok(DENSITIES.to_vec()) };
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|it| (0.0..=1.0).contains(it));
    let found: Option<Vec<f64>> = match text.split_once("..") {
        Some((first, last)) => {
            number(first).zip(number(last)).filter(|(first, last)| first < last).map(|(first, last)| {
                let step = (last - first) / f64::from(IN_RANGE - 1);
                (0..IN_RANGE).map(|idx| ((first + step * f64::from(idx)) * 1e4).round() / 1e4).collect()
            })
        }
        None => text.split(',').map(number).collect(),
    };
    found.filter(|found| !found.is_empty()).ok_or_else(|| {
        let message = format!("--density: `{text}`");
        let help = "write shares of the tokens such as `0.125,0.5`, or a range such as `0.05..1`";
        Error::new(ErrorKind::Request, Diagnostic::new("usage::inspect", message).help(help))
    })
}

fn text(model: &Model, target: &Target, report: &Report) -> String {
    let machine = match target {
        Target::Cpu => "the CPU in f32, one thread".to_owned(),
        Target::Cuda(_) => format!("{target} in bf16 by published rates of the device, not measured"),
    };
    let mut out = format!(
        "{}: predicted for {machine}, {} tokens a step, every router at one density\n\n",
        model.name, report.tokens
    );
    let mut header = vec!["".to_owned(), "kernels".to_owned()];
    header.extend(report.total.at.iter().map(|at| format!("ms at {}", at.density)));
    header.extend(["masked ms".to_owned(), "break-even".to_owned()]);
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let mut table = new_table(&header);
    for layer in report.layers.iter().chain([&report.total]) {
        let mut row = vec![layer.name.clone(), layer.kernels.to_string()];
        row.extend(layer.at.iter().map(|at| format!("{:.3}", at.time_ns / 1e6)));
        row.push(layer.at.last().map_or_else(String::new, |at| format!("{:.3}", at.masked_ns / 1e6)));
        row.push(break_even(layer));
        table.add_row(row);
    }
    let _ = writeln!(out, "{table}\n");
    let slowest = report.total.at.iter().map(|at| at.time_ns.max(at.masked_ns)).fold(1.0, f64::max);
    for at in &report.total.at {
        let bar = "█".repeat((at.time_ns / slowest * BAR).round() as usize);
        let rest = "·".repeat((at.masked_ns / slowest * BAR).round() as usize - bar.chars().count().min(40));
        let (ms, masked) = (at.time_ns / 1e6, at.masked_ns / 1e6);
        let _ = writeln!(
            out,
            "{:>7}  {bar}{rest}  {ms:.2} of {masked:.2} ms masked, {:.3} G multiply-adds, {:.1} MB moved",
            at.density,
            at.macs / 1e9,
            at.bytes / 1e6,
        );
    }
    let _ = writeln!(out, "\nas polynomials in the tokens n and the executed counts c:");
    for layer in &report.layers {
        let _ = writeln!(out, "{}", layer.name);
        let work = layer.work.as_ref().map(|work| ("ns", work));
        let polynomials = [("multiply-adds", &layer.macs), ("bytes", &layer.bytes)].into_iter().chain(work);
        for (what, poly) in polynomials {
            let _ = writeln!(out, "  {what:>13} = {poly}");
        }
    }
    out
}

fn break_even(layer: &Layer) -> String {
    match layer.break_even {
        Some(density) if density > 0.0 => format!("{density:.2}"),
        Some(_) => "all alike".to_owned(),
        None => "none up to 1".to_owned(),
    }
}
