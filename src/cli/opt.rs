//! `skipc opt`: passes on the text form of a graph.

use std::fmt::Write;

use serde_json::{Value, json};
use skipc_artifact::regular;
use skipc_ir::text::{MAX_TEXT, parse};
use skipc_passes::{Options, Report, default_pipeline, run_reported};

use super::explanation::explain;
use super::inspect::new_table;
use super::{OptArgs, to_json};
use crate::diagnostic::{Diagnostic, Diagnostics, SourceText};
use crate::error::{Error, ErrorKind};

pub(super) fn run(args: &OptArgs, json: bool) -> Result<String, Error> {
    let text = read(args)?;
    let graph = parse(&text).map_err(|errors| {
        let source = SourceText::new(&args.graph.display().to_string(), &text);
        let mut diagnostics = Diagnostics::default();
        for error in errors {
            let end = text[error.offset.min(text.len())..].chars().next().map_or(0, char::len_utf8);
            let span = error.offset..error.offset + end;
            diagnostics
                .push(Diagnostic::new(error.code(), error.problem.to_string()).at(&source, span, "here"));
        }
        Error { kind: ErrorKind::Input, diagnostics }
    })?;
    let names = args.passes.clone().unwrap_or_else(default_pipeline);
    let options = Options { verify_each: args.verify_each, fuel: args.fuel, ..Options::default() };
    let mut after_each = String::new();
    let (graph, report) = run_reported(graph, &names, &options, &mut |pass, graph| {
        if args.print_each {
            let _ = writeln!(after_each, "// after {pass}\n{graph}");
        }
    })
    .map_err(|error| pass_failure(&error))?;
    let text = if args.print_each { after_each } else { graph.to_string() };
    if let Some(path) = &args.output {
        skipc_artifact::replace::bytes(path, text.as_bytes())
            .map_err(|error| Error::in_artifact(path, &error))?;
    }
    let explanation = args.explain.as_deref().map(|value| explain(&graph, &report, value)).transpose()?;
    if json {
        let explanation = explanation.map(|explanation| explanation.json());
        return to_json(&json!({"graph": text, "passes": passes(&report), "explanation": explanation}));
    }
    let shown = match explanation {
        Some(explanation) => explanation.text(),
        None if args.output.is_some() => String::new(),
        None => text,
    };
    Ok(if args.report { shown + &table(&report) } else { shown })
}

fn read(args: &OptArgs) -> Result<String, Error> {
    let path = &args.graph;
    // One byte more than is parsed, so that a text that is too long is refused by the parser's own words.
    let bytes = regular::read(path, MAX_TEXT as u64 + 1).map_err(|error| Error::io(path, &error))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let message = format!("{} is not text: byte {at} is not UTF-8", path.display());
        let help =
            format!("give a graph in its text form, at most {MAX_TEXT} bytes; `skipc inspect` prints it");
        Error::new(ErrorKind::Input, Diagnostic::new("sir::syntax", message).help(help))
    })
}

/// A graph of the user's that is wrong is the user's; one that a pass broke is ours.
fn pass_failure(error: &skipc_passes::Error) -> Error {
    use skipc_passes::Error as Fault;
    let (kind, help) = match error {
        Fault::UnknownPass { .. } => (ErrorKind::Request, "see `skipc passes`"),
        Fault::Input { .. } => (ErrorKind::Input, "the passes start from a graph that is well-formed"),
        Fault::Refused { .. } => (ErrorKind::Unsupported, "leave out `legalize` to see the graph"),
        _ => (
            ErrorKind::Internal,
            "this is a fault of skipc: please report it with the graph; `--fuel` finds the edit",
        ),
    };
    Error::new(kind, Diagnostic::new(error.code(), error.to_string()).help(help))
}

fn passes(report: &Report) -> Vec<Value> {
    let passes = report.passes.iter();
    passes
        .map(|pass| {
            json!({
                "name": pass.name,
                "edits": pass.edits,
                "nodes_before": pass.nodes_before,
                "nodes_after": pass.nodes_after,
            })
        })
        .collect()
}

fn table(report: &Report) -> String {
    let mut table = new_table(&["pass", "nodes", "edits"]);
    for pass in &report.passes {
        let edits: Vec<String> = pass.edits.iter().map(|(name, count)| format!("{count} × {name}")).collect();
        table.add_row([
            pass.name.to_owned(),
            format!("{} → {}", pass.nodes_before, pass.nodes_after),
            edits.join(", "),
        ]);
    }
    format!("{table}\n")
}
