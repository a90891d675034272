//! `skipc bench --group-size … --capacity-factor …`: what capacities cost and lose.

use std::fmt::Write;

use serde::Serialize;

use super::bench::{write, written};
use super::inspect::new_table;
use super::progress::Line;
use super::{BenchArgs, source, trace};
use crate::bench::capacity::{self, CapacityRow, Settings, capacities};
use crate::bench::processor;
use crate::diagnostic::Diagnostic;
use crate::error::{Error, ErrorKind};
use crate::frontend::weights::Weights;
use crate::frontend::weights::drawn::RANDOM_SEED;

/// Tokens of a step where nobody asks for others.
const TOKENS: u32 = 512;

/// Factors where nobody asks for others.
const FACTORS: [f64; 3] = [1.0, 1.25, 2.0];

/// Tokens that may lose their slot in what is called enough.
const MAY_LOSE: f64 = 0.01;

/// What was measured.
#[derive(Serialize)]
struct Report {
    model: String,
    weights: String,
    processor: String,
    tokens: u32,
    threads: usize,
    rounds: usize,
    rows: Vec<CapacityRow>,
}

pub(super) fn run(args: &BenchArgs, json: bool, threads: usize) -> Result<String, Error> {
    let group_sizes = sizes(args.group_size.as_deref().unwrap_or("16..1024"))?;
    let factors =
        if args.capacity_factor.is_empty() { FACTORS.to_vec() } else { args.capacity_factor.clone() };
    if let Some(factor) = factors.iter().find(|factor| !(factor.is_finite() && **factor > 0.0)) {
        return Err(usage(format!("--capacity-factor: {factor}"), "a factor is above 0, such as 1.25"));
    }
    if trace::is_artifact(&args.model)? {
        let message =
            format!("--group-size: {} is an artefact, whose groups are compiled", args.model.display());
        return Err(usage(message, "give the spec; each combination is compiled from it"));
    }
    let source = source::open_with_weights(&args.model, &args.checkpoint)?;
    let (weights, from) = match source::weights(&source, args.weights.as_deref(), &args.checkpoint)? {
        Some(weights) => (weights, args.weights.as_ref().unwrap_or(&args.model).display().to_string()),
        None => (Weights::drawn(&source.model, RANDOM_SEED)?, format!("random ones of seed {RANDOM_SEED}")),
    };
    let tokens = args.tokens.unwrap_or(TOKENS);
    let rounds = args.rounds as usize;
    let line = Line::counting("part", (group_sizes.len() * factors.len() + 1 + rounds) as u64);
    let settings = Settings { group_sizes, factors, tokens, rounds, threads };
    let rows = capacities((&source.model, &weights), &settings, &mut || line.turn())?;
    drop(line);
    let report = Report {
        model: source.model.name.clone(),
        weights: from,
        processor: processor(),
        tokens,
        threads,
        rounds,
        rows,
    };
    if let Some(path) = &args.svg {
        let title = format!("{}: {tokens} tokens, {threads} threads", report.model);
        write(path, &capacity::svg(title, &report.rows)?)?;
    }
    written(args, json, &report, || text(&report))
}

fn usage(message: String, help: &str) -> Error {
    Error::new(ErrorKind::Request, Diagnostic::new("usage::bench", message).help(help))
}

/// `16,48`, or `16..1024`: powers of two times the first.
fn sizes(text: &str) -> Result<Vec<usize>, Error> {
    let number = |text: &str| text.trim().parse::<usize>().ok().filter(|it| (1..=1 << 20).contains(it));
    let found: Option<Vec<usize>> = match text.split_once("..") {
        Some((first, last)) => number(first).zip(number(last)).map(|(first, last)| {
            std::iter::successors(Some(first), |size| size.checked_mul(2))
                .take_while(|size| *size <= last)
                .collect()
        }),
        None => text.split(',').map(number).collect(),
    };
    found.filter(|found| !found.is_empty()).ok_or_else(|| {
        usage(format!("--group-size: `{text}`"), "write sizes such as `16,64`, or a range such as `16..1024`")
    })
}

fn text(report: &Report) -> String {
    let Report { model, weights, processor, tokens, threads, rounds, rows } = report;
    let mut out = format!(
        "{model}, weights: {weights}; {tokens} tokens, {threads} threads of {processor}, {rounds} rounds; routers decide freely\n\n"
    );
    let mut table =
        new_table(&["group size", "factor", "ms", "against none", "executed", "lost", "kernel runs"]);
    for row in rows {
        let (size, factor) = match row.capacity {
            Some((size, factor)) => (size.to_string(), factor.to_string()),
            None => ("none".to_owned(), String::new()),
        };
        table.add_row([
            size,
            factor,
            format!("{:.3}", row.times.median_s * 1e3),
            format!("{:.3}", row.ratio),
            format!("{:.1} %", 100.0 * row.executed),
            format!("{:.1} %", 100.0 * row.lost),
            row.kernels.to_string(),
        ]);
    }
    let _ = writeln!(out, "{table}\n");
    let limited = rows.iter().filter(|row| row.capacity.is_some() && row.lost <= MAY_LOSE);
    let _ = match limited
        .min_by(|a, b| a.ratio.total_cmp(&b.ratio))
        .and_then(|row| Some((row, row.capacity?)))
    {
        Some((row, (size, factor))) => writeln!(
            out,
            "of those that lose at most {:.0} % of the tokens that want to execute, groups of {size} with factor {factor} take least: {:.3} of the time without capacities",
            100.0 * MAY_LOSE,
            row.ratio
        ),
        None => writeln!(
            out,
            "each combination loses more than {:.0} % of the tokens that want to execute",
            100.0 * MAY_LOSE
        ),
    };
    out
}

#[cfg(test)]
mod tests {
    use super::sizes;

    #[test]
    fn sizes_are_a_list_or_powers_of_two() {
        assert_eq!(sizes("16..128").ok(), Some(vec![16, 32, 64, 128]));
        assert_eq!(sizes("24,7").ok(), Some(vec![24, 7]));
        for text in ["", "0", "8..4", "x..y", "1,,2"] {
            assert!(sizes(text).is_err(), "{text}");
        }
    }
}
