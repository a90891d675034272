//! A difference as a page.

use std::fmt::Write;

use super::Diff;
use super::figures::Figure;
use super::graph::Fate;
use super::text::{counts, places, sign, title, value};
use super::tree::Change;
use crate::report::html::{escaped, page, table};

/// The whole of it.
pub fn html(diff: &Diff) -> String {
    let mut body = format!(
        "<p class=\"lead\"><span class=\"gone\">− {}</span><br><span class=\"added\">+ {}</span></p>\n",
        escaped(&diff.before),
        escaped(&diff.after)
    );
    if diff.same {
        body.push_str("<p>They are the same.</p>\n");
    }
    summary(diff, &mut body);
    for (id, changes) in
        [("options", &diff.options), ("provenance", &diff.provenance), ("model", &diff.model)]
    {
        if !changes.is_empty() {
            let _ = write!(body, "<h2 id=\"{id}\">{id}</h2>\n{}", leaves(changes));
        }
    }
    for group in ["cost", "memory", "code"] {
        let figures: Vec<&Figure> = diff.figures.iter().filter(|figure| figure.group == group).collect();
        if !figures.is_empty() {
            let _ = write!(body, "<h2 id=\"{group}\">{}</h2>\n{}", title(group), self::figures(&figures));
        }
    }
    kernels(diff, &mut body);
    graphs(diff, &mut body);
    page("What is different", &body)
}

/// One line a part, with a link to it.
fn summary(diff: &Diff, body: &mut String) {
    let mut parts: Vec<(&str, String)> = Vec::new();
    for (id, changes) in
        [("options", &diff.options), ("provenance", &diff.provenance), ("model", &diff.model)]
    {
        parts.push((id, format!("{} changes of {id}", changes.len())));
    }
    for group in ["cost", "memory", "code"] {
        let count = diff.figures.iter().filter(|figure| figure.group == group).count();
        parts.push((group, format!("{count} figures of {}", title(group))));
    }
    let kernels: usize = diff.kernels.iter().map(|of| of.changes.len()).sum();
    parts.push(("kernels", format!("{kernels} kernels")));
    let nodes: usize = diff.graphs.iter().flat_map(|of| &of.changes).map(|change| change.places.len()).sum();
    parts.push(("graphs", format!("{nodes} nodes in {} graphs", diff.graphs.len())));
    let links: Vec<String> = parts
        .into_iter()
        .filter(|(_, text)| !text.starts_with("0 "))
        .map(|(id, text)| format!("<li><a href=\"#{id}\">{text}</a></li>"))
        .collect();
    let _ = writeln!(body, "<ul>{}</ul>", links.join(""));
}

fn leaves(changes: &[Change]) -> String {
    let cell = |side: &Option<serde_json::Value>| {
        side.as_ref()
            .map_or_else(|| "<i>none</i>".to_owned(), |it| format!("<code>{}</code>", escaped(&value(it))))
    };
    let row = |change: &Change| {
        vec![format!("<code>{}</code>", escaped(&change.what)), cell(&change.before), cell(&change.after)]
    };
    table(&["what", "before", "after"], changes.iter().map(row))
}

fn figures(figures: &[&Figure]) -> String {
    let number = |value: Option<f64>| value.map_or_else(|| "none".to_owned(), |value| value.to_string());
    let row = |figure: &&Figure| {
        let growth = figure.growth().map_or_else(String::new, |growth| {
            let class = if growth > 0.0 { "added" } else { "gone" };
            format!("<span class=\"{class}\">{:+.1} %</span>", growth * 100.0)
        });
        vec![
            escaped(&figure.what),
            number(figure.before),
            number(figure.after),
            figure.unit.to_owned(),
            growth,
        ]
    };
    table(&["what", "before", "after", "unit", "change"], figures.iter().map(row))
}

fn class(fate: Fate) -> &'static str {
    match fate {
        Fate::Gone => "gone",
        Fate::Added => "added",
        Fate::Changed => "changed",
    }
}

fn kernels(diff: &Diff, body: &mut String) {
    for (idx, of) in diff.kernels.iter().enumerate() {
        let id = if idx == 0 { " id=\"kernels\"" } else { "" };
        let _ = writeln!(body, "<h2{id}>kernels for {}: {}</h2>", escaped(&of.plan), counts(of.kernels));
        for change in &of.changes {
            let names: Vec<String> = [&change.before, &change.after].into_iter().flatten().cloned().collect();
            let mut names: Vec<String> = names.iter().map(|name| escaped(name)).collect();
            names.dedup();
            let _ = writeln!(
                body,
                "<details><summary><b class=\"{}\">{}</b> <code>{}</code>: {} runs, {} fields differ</summary>{}</details>",
                class(change.fate),
                sign(change.fate),
                names.join(" → "),
                counts(change.runs.map(Some)),
                change.fields.len(),
                if change.fields.is_empty() { String::new() } else { leaves(&change.fields) }
            );
        }
    }
}

fn graphs(diff: &Diff, body: &mut String) {
    for (idx, of) in diff.graphs.iter().enumerate() {
        let id = if idx == 0 { " id=\"graphs\"" } else { "" };
        let _ = writeln!(
            body,
            "<h2{id}>graph of {} after {}: {} nodes</h2>",
            escaped(&of.function),
            escaped(&of.phase),
            counts(of.nodes)
        );
        for change in &of.changes {
            let what =
                if change.what.is_empty() { String::new() } else { format!(" ({})", change.what.join(", ")) };
            let _ = write!(
                body,
                "<p class=\"change\"><b class=\"{}\">{}</b> {}{what}</p><pre>",
                class(change.fate),
                sign(change.fate),
                escaped(&places(change))
            );
            for (sign, class, line) in [('-', "gone", &change.before), ('+', "added", &change.after)] {
                if let Some(line) = line {
                    let _ = writeln!(body, "<span class=\"{class}\">{sign} {}</span>", escaped(line));
                }
            }
            body.push_str("</pre>\n");
        }
    }
}
