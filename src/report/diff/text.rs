//! A difference as text, a section for each part of the compile that differs.

use std::fmt::Write;

use serde_json::Value;

use super::Diff;
use super::figures::Figure;
use super::graph::{Fate, NodeChange};
use super::kernels::KernelChange;
use super::tree::Change;

/// Nodes of a graph, or fields of a kernel, that are printed; `--json` has all.
const SHOWN: usize = 12;

/// The whole of it.
pub fn text(diff: &Diff) -> String {
    let Diff { before, after, options, provenance, model, graphs, kernels, figures, same } = diff;
    if *same {
        return format!("{before} and {after} are the same\n");
    }
    let mut out = format!("- {before}\n+ {after}\n");
    for (title, changes) in [("options", options), ("provenance", provenance), ("model", model)] {
        if !changes.is_empty() {
            let _ = write!(out, "\n{title}\n{}", leaves(changes, changes.len()));
        }
    }
    for of in graphs {
        let _ = writeln!(out, "\ngraph of {} after {}: {} nodes", of.function, of.phase, counts(of.nodes));
        of.changes.iter().take(SHOWN).for_each(|change| out.push_str(&node(change)));
        out.push_str(&more(of.changes.len()));
    }
    for of in kernels {
        let _ = writeln!(out, "\nkernels for {}: {}", of.plan, counts(of.kernels));
        kernels_alike(&of.changes).iter().for_each(|alike| out.push_str(&kernel(alike)));
    }
    for group in ["memory", "cost", "code"] {
        let of_group: Vec<&Figure> = figures.iter().filter(|figure| figure.group == group).collect();
        if !of_group.is_empty() {
            let _ = writeln!(out, "\n{}", title(group));
            of_group.into_iter().for_each(|figure| {
                let _ = writeln!(out, "  {}", self::figure(figure));
            });
        }
    }
    out
}

/// What a group of figures is, human-readable.
pub fn title(group: &str) -> &'static str {
    match group {
        "memory" => "memory",
        "cost" => "predicted cost",
        _ => "size of the code",
    }
}

/// `12 → 14`, or `12` if both are.
pub fn counts<T: PartialEq + std::fmt::Display>([before, after]: [Option<T>; 2]) -> String {
    let text = |count: &Option<T>| count.as_ref().map_or("none".to_owned(), ToString::to_string);
    if before == after { text(&before) } else { format!("{} → {}", text(&before), text(&after)) }
}

fn more(found: usize) -> String {
    match found.saturating_sub(SHOWN) {
        0 => String::new(),
        left => format!("  and {left} more (--json has all)\n"),
    }
}

fn leaves(changes: &[Change], shown: usize) -> String {
    let mut out = String::new();
    for Change { what, before, after } in changes.iter().take(shown) {
        let _ = match (before, after) {
            (Some(before), Some(after)) => writeln!(out, "  ~ {what}: {} → {}", value(before), value(after)),
            (Some(before), None) => writeln!(out, "  - {what}: {}", value(before)),
            (None, after) => writeln!(out, "  + {what}: {}", after.as_ref().map_or_else(String::new, value)),
        };
    }
    out
}

/// A leaf as people write it.
pub fn value(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `-`, `+` or `~`.
pub fn sign(fate: Fate) -> char {
    match fate {
        Fate::Gone => '-',
        Fate::Added => '+',
        Fate::Changed => '~',
    }
}

/// Where a change is: the place, or how many there are.
pub fn places(change: &NodeChange) -> String {
    let first = change.places.first().map_or("", String::as_str);
    let first = if first.is_empty() { "the graph" } else { first };
    match change.places.len() {
        1 => first.to_owned(),
        n => format!("{first} and {} more", n - 1),
    }
}

fn node(change: &NodeChange) -> String {
    let mut out = String::new();
    let what = if change.what.is_empty() { String::new() } else { format!(" ({})", change.what.join(", ")) };
    let _ = writeln!(out, "  {} {}{what}", sign(change.fate), places(change));
    for (sign, line) in [('-', &change.before), ('+', &change.after)] {
        if let Some(line) = line {
            let _ = writeln!(out, "      {sign} {line}");
        }
    }
    out
}

/// Kernels whose fields differ alike, together.
fn kernels_alike(changes: &[KernelChange]) -> Vec<Vec<&KernelChange>> {
    let mut found: Vec<Vec<&KernelChange>> = Vec::new();
    for change in changes {
        let is_alike = |group: &&mut Vec<&KernelChange>| {
            group.iter().any(|known| {
                known.fate == change.fate && !change.fields.is_empty() && known.fields == change.fields
            })
        };
        match found.iter_mut().find(is_alike) {
            Some(group) => group.push(change),
            None => found.push(vec![change]),
        }
    }
    found
}

fn kernel(alike: &[&KernelChange]) -> String {
    let name = |change: &&KernelChange| {
        let names = match (&change.before, &change.after) {
            (Some(before), Some(after)) if before != after => format!("{before} → {after}"),
            (before, after) => before.as_ref().or(after.as_ref()).cloned().unwrap_or_default(),
        };
        format!("{names} ({} runs)", counts(change.runs.map(Some)))
    };
    let Some(first) = alike.first() else { return String::new() };
    let names: Vec<String> = alike.iter().map(name).collect();
    let mut out = format!("  {} {}\n", sign(first.fate), names.join(", "));
    for line in leaves(&first.fields, SHOWN).lines() {
        let _ = writeln!(out, "    {line}");
    }
    if first.fields.len() > SHOWN {
        let _ = writeln!(out, "      and {} fields more (--json has all)", first.fields.len() - SHOWN);
    }
    out
}

/// A figure in a line.
pub fn figure(figure: &Figure) -> String {
    let growth = figure.growth().map_or_else(String::new, |growth| format!(" ({:+.1} %)", growth * 100.0));
    format!("{}: {} {}{growth}", figure.what, counts([figure.before, figure.after]), figure.unit)
}
