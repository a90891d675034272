//! `skipc inspect`: what is in an artefact.

use std::fmt::Write;
use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::json;
use skipc_artifact::container::External;
use skipc_artifact::program::{BOUND_UNIT, Bounds, Buffer, Entry, Function, Launch, RowTile, SCORE, Storage};
use skipc_artifact::reader::{Index, Sections};
use skipc_artifact::section::SectionKind;
use skipc_artifact::target::Target;
use skipc_runtime::words::counted;

use super::{InspectArgs, assertion, cost, diff, open_index, sass, shares, to_json};
use crate::diagnostic::Diagnostic;
use crate::driver::contents::{Contents, OfProgram, kernels};
use crate::driver::pipeline::Request;
use crate::driver::rewrites::{self, OfFunction};
use crate::error::{Error, ErrorKind};
use crate::report::{Subject, dot, site};

pub(super) fn run(args: &InspectArgs, json: bool, out: &mut dyn std::io::Write) -> Result<String, Error> {
    let text = shown(args, json)?;
    if args.assert.is_empty() {
        return Ok(text);
    }
    let found = if json { text.clone() } else { shown(args, true)? };
    let found = serde_json::from_str(&found).map_err(|error| Error::internal("json::write", &error))?;
    if let Err(failed) = assertion::check(&args.assert, &found) {
        if failed.kind == ErrorKind::Regression {
            out.write_all(text.as_bytes())
                .map_err(|error| Error::io(Path::new("standard output"), &error))?;
        }
        return Err(failed);
    }
    Ok(text)
}

fn shown(args: &InspectArgs, json: bool) -> Result<String, Error> {
    if let Some(phase) = &args.dot {
        return dot(&args.artifact, phase, json);
    }
    if let Some(dir) = &args.html {
        let mut subject = diff::subject(&args.artifact, &|| Ok(Request::host()))?;
        if let Some(tuning) = &args.tuning {
            subject = subject.with_tuning(tuning)?;
        }
        return report(&subject, dir, json);
    }
    if args.cost {
        return cost::run(args, json);
    }
    if args.sass {
        return sass::run(args, json);
    }
    let artifact = open_index(&args.artifact)?;
    match args.section.as_deref() {
        Some("") if json => return to_json(&artifact.header().sections),
        Some("") => return Ok(section_table(&artifact)),
        Some(name) => {
            let text = section(&artifact, &args.artifact, name)?;
            return if json { to_json(&json!({"section": name, "text": text})) } else { Ok(text) };
        }
        None => {}
    }
    if args.rewrites {
        return rewritten(&artifact, &args.artifact, json);
    }
    let contents = Contents::of(&artifact).map_err(|error| Error::in_artifact(&args.artifact, &error))?;
    let shares_of = |tokens| shares::of_run(&args.artifact, tokens, args.trust.as_deref());
    let shares = args.tokens.as_deref().map(shares_of).transpose()?;
    if json {
        let mut all = contents.json(artifact.header());
        all["routing"] = json!(shares);
        return to_json(&all);
    }
    let manifest = &artifact.header().manifest;
    let mut out = String::new();
    let _ = writeln!(out, "{} (skipc {})", manifest.model, manifest.compiler);
    for (tool, version) in [("LLVM", &manifest.llvm), ("ptxas", &manifest.ptxas)] {
        if let Some(version) = version {
            let _ = writeln!(out, "{tool} {version}");
        }
    }
    let _ = writeln!(out, "spec    {}\nweights {}", manifest.spec_hash, manifest.weights_hash);
    if let Some(External { file, length }) = &artifact.header().external {
        let _ = writeln!(out, "constants in {file} ({} KiB)", length / 1024);
    }
    for code in &contents.host_code {
        let _ = writeln!(out, "{code}");
    }
    for of in contents.functions() {
        let _ = write!(out, "\n{}", function_text(of));
        if args.buffers {
            let _ = write!(out, "\n{}", buffer_table(of.2));
        }
    }
    let _ = write!(out, "\n{}", section_table(&artifact));
    if let Some(shares) = shares {
        let _ = write!(out, "\n{}", shares.text());
    }
    Ok(out)
}

/// Writes the pages of a subject, and says where they begin.
pub(super) fn report(subject: &Subject, dir: &Path, json: bool) -> Result<String, Error> {
    if subject.model.is_none() {
        let message = format!("--html: {} is a graph, and a report is of a model", subject.name);
        let help = "give an artefact or a spec; `--dot` draws a graph";
        return Err(Error::new(ErrorKind::Request, Diagnostic::new("usage::inspect", message).help(help)));
    }
    let files = site::write(subject, dir)?;
    let begin = dir.join("index.html").display().to_string();
    match json {
        true => to_json(&json!({"report": begin, "files": files.len()})),
        false => Ok(format!("{begin} ({} files): open it in a browser\n", files.len())),
    }
}

/// A phase of a function for Graphviz: `legal`, or `step/legal`.
fn dot(path: &Path, phase: &str, json: bool) -> Result<String, Error> {
    let subject = diff::subject(path, &|| Ok(Request::host()))?;
    let (function, name) = phase.split_once('/').unwrap_or((SCORE, phase));
    let title = format!("{}: {function} after {name}", subject.name);
    let plan = subject.plans.iter().find_map(|of| {
        let is_asked = name == "plan" || name == format!("plan-{}", of.name());
        of.linked.plan(function).filter(|_| is_asked)
    });
    // A graph is a function of its own with one phase.
    let graph = match subject.functions.as_slice() {
        [one] if subject.model.is_none() => one.phases.first().map(|phase| &phase.graph),
        _ => subject.graph(function, name),
    };
    let text = match (graph, plan) {
        (Some(graph), _) => dot::graph(graph, &title),
        (None, Some(plan)) => dot::plan(&plan, &title),
        (None, None) => return Err(no_phase(&subject, phase)),
    };
    if json { to_json(&json!({"phase": phase, "dot": text})) } else { Ok(text) }
}

fn no_phase(subject: &Subject, phase: &str) -> Error {
    let of = |function: &crate::report::subject::Function| {
        let prefix = if function.name == SCORE { String::new() } else { format!("{}/", function.name) };
        let mut names: Vec<String> =
            function.phases.iter().map(|phase| format!("{prefix}{}", phase.name)).collect();
        names.extend(subject.plans.iter().map(|of| format!("{prefix}plan-{}", of.name())));
        names
    };
    let names: Vec<String> = subject.functions.iter().flat_map(of).collect();
    let message = format!("--dot: {} has no phase `{phase}`", subject.name);
    let help = format!("it has {}", names.join(", "));
    Error::new(ErrorKind::Request, Diagnostic::new("usage::inspect", message).help(help))
}

/// One section as it is; binary ones only as their size.
fn section(artifact: &Index, path: &Path, name: &str) -> Result<String, Error> {
    let Some(entry) = artifact.header().sections.iter().find(|section| section.name == name) else {
        let names: Vec<&str> =
            artifact.header().sections.iter().map(|section| section.name.as_str()).collect();
        let message = format!("{} has no section `{name}`", path.display());
        let help = format!("it has {}", names.join(", "));
        return Err(Error::new(ErrorKind::Input, Diagnostic::new("artifact::missing", message).help(help)));
    };
    let size = || format!("{} bytes of {:?}, not text\n", entry.length, entry.kind);
    if entry.kind == SectionKind::Constants {
        // They may be gigabytes, and lie in another file.
        return Ok(size());
    }
    let bytes = artifact.bytes(entry).map_err(|error| Error::in_artifact(path, &error))?;
    Ok(String::from_utf8(bytes.into_owned()).unwrap_or_else(|_| size()))
}

/// What rules rewrote.
fn rewritten(artifact: &Index, path: &Path, json: bool) -> Result<String, Error> {
    let text = section(artifact, path, rewrites::SECTION)?;
    let all: Vec<OfFunction> = serde_json::from_str(&text).map_err(|error| {
        let message = format!("{}: `{}`: {error}", path.display(), rewrites::SECTION);
        let help = "it was written by another version of skipc: compile the model again";
        Error::new(ErrorKind::Input, Diagnostic::new("artifact::rewrites", message).help(help))
    })?;
    if json {
        return to_json(&all);
    }
    let mut out = String::new();
    for OfFunction { function, regions } in &all {
        if all.len() > 1 {
            let _ = writeln!(out, "to {function}:\n");
        }
        if regions.is_empty() {
            let _ = writeln!(out, "no rule made anything; the rules are those of the pass `saturate`");
            continue;
        }
        out.push_str(rewrites::LEGEND);
        for region in regions {
            let _ = write!(out, "\n{}", region.text());
        }
    }
    Ok(out)
}

fn function_text((program, name, function): OfProgram<'_>) -> String {
    let mut out = format!(
        "{} {}{}: {} in {}, up to {} a step, no host wait inside a step\n",
        program.target,
        program.dtype,
        if name == SCORE { String::new() } else { format!(", to {name}") },
        counted(function.kernels().len() as u64, "kernel"),
        counted(function.steps.len() as u64, "step"),
        counted(function.max_tokens.into(), "token"),
    );
    let bytes = |bound: u32| function.buffers.iter().map(|buffer| bytes_under(buffer, bound)).sum::<u64>();
    let unshared = (bytes(BOUND_UNIT) - bytes(0)) / u64::from(BOUND_UNIT);
    let _ = writeln!(
        out,
        "memory: {} bytes a token ({unshared} without reuse), {} KiB fixed, {} KiB constants",
        function.row_bytes,
        function.fixed_bytes / 1024,
        program.constant_bytes / 1024,
    );
    let mut table = new_table(&["kernel", "runs", "tile rows", "across", "threads", "registers", "shared"]);
    if program.target == Target::Cpu {
        table = new_table(&["kernel", "runs", "tile rows", "scratch"]);
    }
    for (entry, runs) in kernels(program, function) {
        table.add_row(kernel_row(entry, runs));
    }
    let _ = writeln!(out, "{table}");
    out
}

/// Bytes of a buffer under a bound on tokens; none of a cache, whose rows are no matter of a step.
fn bytes_under(buffer: &Buffer, bound: u32) -> u64 {
    buffer.bytes(Bounds { tokens: bound, cached: 0 })
}

fn buffer_table(function: &Function) -> String {
    let mut table = new_table(&["buffer", "type", "columns", "bytes a token", "bytes", "offset", "steps"]);
    for buffer in &function.buffers {
        let fixed = bytes_under(buffer, 0);
        let per_token = (bytes_under(buffer, BOUND_UNIT) - fixed) / u64::from(BOUND_UNIT);
        let offset = match buffer.storage {
            Storage::Step(place) => format!("{} + {} n", place.fixed_offset, place.row_offset),
            Storage::State(state) => format!("state {state}"),
        };
        let steps = buffer.live.map_or("host".to_owned(), |(first, last)| format!("{first} to {last}"));
        let (dtype, cols) = (buffer.dtype.to_string(), buffer.cols.to_string());
        table.add_row([
            buffer.name.clone(),
            dtype,
            cols,
            per_token.to_string(),
            fixed.to_string(),
            offset,
            steps,
        ]);
    }
    format!("{table}\n")
}

fn kernel_row(entry: &Entry, runs: usize) -> Vec<String> {
    let tile = |rows: u32| if rows == 0 { "all rows".to_owned() } else { format!("{rows} rows") };
    let tiles = entry.launch.tiles();
    let mut row = vec![entry.symbol.clone(), runs.to_string()];
    match &entry.launch {
        Launch::Host { tile_rows, scratch_bytes, few_rows, .. } => {
            let forms = match few_rows {
                Some(few) => format!("{tile_rows}; up to {} rows, {} side by side", few.at_most, few.tiles),
                None if tiles.is_empty() => tile(*tile_rows),
                None => by_count(tiles, |tile| tile.rows),
            };
            row.extend([forms, format!("{scratch_bytes} B")])
        }
        Launch::Cuda { threads, shared_bytes, registers, static_shared_bytes, persistent, .. } => {
            row.extend([
                if tiles.is_empty() { tile(0) } else { by_count(tiles, |tile| tile.rows) },
                match tiles.is_empty() {
                    true => "1".to_owned(),
                    false => {
                        let across = by_count(tiles, |tile| tile.across);
                        format!("{across}{}", if *persistent { ", persistent" } else { "" })
                    }
                },
                threads.to_string(),
                registers.to_string(),
                format!("{} B", shared_bytes + static_shared_bytes),
            ])
        }
    }
    row
}

/// A figure of the tiles by the number of rows from which on they are taken, such as `16, 64 from 48`.
fn by_count(tiles: &[RowTile], figure: impl Fn(&RowTile) -> u32) -> String {
    let of = |tile: &RowTile| match tile.from {
        0 => figure(tile).to_string(),
        from => format!("{} from {from}", figure(tile)),
    };
    let is_one = tiles.windows(2).all(|pair| figure(&pair[0]) == figure(&pair[1]));
    tiles.iter().take(if is_one { 1 } else { tiles.len() }).map(of).collect::<Vec<_>>().join(", ")
}

fn section_table(artifact: &Index) -> String {
    let mut table = new_table(&["section", "bytes", "blake3"]);
    for section in &artifact.header().sections {
        let hash = section.blake3.to_string();
        table.add_row([section.name.clone(), section.length.to_string(), hash[..16].to_owned()]);
    }
    format!("{table}\n")
}

/// A table without lines, numbers to the right.
pub(super) fn new_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    for idx in 1..header.len() {
        if let Some(column) = table.column_mut(idx) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
