//! What a run found, human-readable and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};
use skipc_ptx::machine::{Counters, Fault};

use crate::Cli;
use crate::argument::{OutputSpec, PrintSpec};
use crate::data;
use crate::failure::Failure;
use crate::prepare::Prepared;
use crate::schedules::{Difference, Runs};

/// Faults that are told in full; others are counted.
const MAX_FAULTS: usize = 4;

/// Writes what `--out` asks for.
pub(crate) fn write_files(outputs: &[OutputSpec], prepared: &Prepared, runs: &Runs) -> Result<(), Failure> {
    for OutputSpec { name, path } in outputs {
        let buffer = prepared.buffer(name)?;
        let bytes = &runs.memory.buffers()[buffer].bytes;
        let kind = prepared.buffers[buffer].kind.as_ref();
        data::write(path, bytes, kind).map_err(|error| Failure::file(path, &error))?;
    }
    Ok(())
}

pub(crate) fn text(cli: &Cli, prepared: &Prepared, runs: &Runs) -> Result<String, Failure> {
    let mut out = String::new();
    let n = runs.runs.len();
    let schedules = if n == 1 { format!("schedule {}", runs.runs[0].seed) } else { format!("{n} schedules") };
    let faults = faults(runs);
    let n_faulty = runs.runs.iter().filter(|run| run.result.is_err()).count();
    let found = match (n_faulty, n) {
        (0, 1) => format!("no fault in {schedules}"),
        (0, _) if runs.are_sound() => format!("no fault in {schedules}, and all give the same bytes"),
        (0, _) => format!("no fault in {schedules}, but their results differ"),
        (_, 1) => format!("a fault in {schedules}"),
        _ => format!("a fault in {n_faulty} of {schedules}"),
    };
    let _ = writeln!(out, "{}: {found}", prepared.kernel);
    for (fault, seeds) in faults.iter().take(MAX_FAULTS) {
        let _ = writeln!(out, "\n{fault}");
        if !seeds.is_empty() {
            let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
            let _ = writeln!(out, "  also in schedule {}", seeds.join(", "));
        }
    }
    if faults.len() > MAX_FAULTS {
        let _ = writeln!(out, "\nand {} other faults", faults.len() - MAX_FAULTS);
    }
    if let Some(Difference { seeds: [left, right], buffer, offset }) = &runs.difference {
        let name = &prepared.buffers[*buffer].name;
        let _ = writeln!(
            out,
            "\nschedules {left} and {right} give different results: first in byte {offset} of `{name}`"
        );
    }
    if cli.counters
        && let Some(counters) = runs.counters()
    {
        let _ = writeln!(out, "\n{counters}");
    }
    if let Some(rate) = runs.rate() {
        let n = runs.counters().map_or(0, |counters| counters.thread_instructions);
        let _ = writeln!(out, "{n} instructions of threads, {:.1} million a second", rate / 1e6);
    }
    for PrintSpec { name, count } in &cli.print {
        let idx = prepared.buffer(name)?;
        let _ = writeln!(out, "{}", elements(prepared, runs, idx, *count));
    }
    Ok(out)
}

/// Faults of all schedules, each with the other seeds that show it.
fn faults(runs: &Runs) -> Vec<(&Fault, Vec<u64>)> {
    let mut known: Vec<(&Fault, Vec<u64>)> = Vec::new();
    for fault in runs.runs.iter().filter_map(|run| run.result.as_ref().err()) {
        let same = |other: &Fault| (other.kind, other.line) == (fault.kind, fault.line);
        match known.iter_mut().find(|(other, _)| same(other)) {
            Some((_, seeds)) => seeds.push(fault.seed),
            None => known.push((fault, Vec::new())),
        }
    }
    known
}

/// The first elements of a buffer on a line.
fn elements(prepared: &Prepared, runs: &Runs, idx: usize, count: usize) -> String {
    let bytes = &runs.memory.buffers()[idx].bytes;
    let name = &prepared.buffers[idx].name;
    match &prepared.buffers[idx].kind {
        Some((element, shape)) => {
            let sizes: Vec<String> = shape.0.iter().map(u64::to_string).collect();
            let items = bytes.chunks_exact(element.bytes()).take(count);
            let items: Vec<String> = items.map(|item| element.number(item).to_string()).collect();
            let more = if bytes.len() / element.bytes() > count { " …" } else { "" };
            format!("{name}: {} {} = {}{more}", element.name(), sizes.join("x"), items.join(" "))
        }
        None => {
            let items: Vec<String> = bytes.iter().take(count).map(|byte| format!("{byte:02x}")).collect();
            let more = if bytes.len() > count { " …" } else { "" };
            format!("{name}: {} bytes = {}{more}", bytes.len(), items.join(" "))
        }
    }
}

pub(crate) fn json(cli: &Cli, prepared: &Prepared, runs: &Runs) -> Result<String, Failure> {
    let schedules: Vec<Value> = runs
        .runs
        .iter()
        .map(|run| {
            let fault = run.result.as_ref().err().map(|fault| fault_json(fault));
            json!({"seed": run.seed, "seconds": run.time.as_secs_f64(), "fault": fault})
        })
        .collect();
    let difference = runs.difference.as_ref().map(|difference| {
        let name = &prepared.buffers[difference.buffer].name;
        json!({"seeds": difference.seeds, "buffer": name, "byte": difference.offset})
    });
    let mut printed = BTreeMap::new();
    for PrintSpec { name, count } in &cli.print {
        let idx = prepared.buffer(name)?;
        printed.insert(name, printed_json(prepared, runs, idx, *count));
    }
    let report = json!({
        "kernel": prepared.kernel,
        "sound": runs.are_sound(),
        "schedules": schedules,
        "difference": difference,
        "counters": runs.counters().map(counters_json),
        "thread_instructions_per_second": runs.rate(),
        "buffers": printed,
    });
    Ok(format!("{report:#}\n"))
}

fn fault_json(fault: &Fault) -> Value {
    json!({
        "kind": fault.kind.name(),
        "line": fault.line,
        "text": fault.text,
        "block": fault.block,
        "thread": fault.thread,
        "what": fault.what,
    })
}

/// Numbers, or bytes if there is no type. JSON has no NaN and no infinities: they are strings.
fn printed_json(prepared: &Prepared, runs: &Runs, idx: usize, count: usize) -> Value {
    let bytes = &runs.memory.buffers()[idx].bytes;
    match &prepared.buffers[idx].kind {
        Some((element, _)) => {
            let items = bytes.chunks_exact(element.bytes()).take(count).map(|item| element.number(item));
            items.map(|item| if item.is_finite() { json!(item) } else { json!(item.to_string()) }).collect()
        }
        None => bytes.iter().take(count).map(|byte| json!(byte)).collect(),
    }
}

fn counters_json(counters: &Counters) -> Value {
    let kinds: BTreeMap<&str, u64> = counters.kinds().map(|(kind, n)| (kind.name(), n)).collect();
    json!({
        "blocks": counters.blocks,
        "warp_instructions": kinds,
        "thread_instructions": counters.thread_instructions,
        "global_loaded": counters.global_loaded,
        "global_stored": counters.global_stored,
        "global_requests": counters.global_requests,
        "global_sectors": counters.global_sectors,
        "shared_loaded": counters.shared_loaded,
        "shared_stored": counters.shared_stored,
        "shared_requests": counters.shared_requests,
        "bank_conflicts": counters.bank_conflicts,
        "copied_in": counters.copied_in,
        "copied_out": counters.copied_out,
        "mma": counters.mma,
        "wgmma": counters.wgmma,
        "matrix_macs": counters.matrix_macs,
        "barriers": counters.barriers,
        "mbarrier_phases": counters.mbarrier_phases,
    })
}
