//! `skipc opt --explain`: how values of the result follow from those of the graph.

use serde_json::{Value, json};
use skipc_ir::port::RoleText;
use skipc_ir::text::{Numbering, nearest};
use skipc_ir::{Graph, Role};
use skipc_passes::Report;
use skipc_passes::rewrite::explain::Rewritten;

use crate::diagnostic::Diagnostic;
use crate::driver::rewrites::{self, LEGEND, regions, value};
use crate::error::{Error, ErrorKind};
use crate::frontend::language::words::quoted;

/// Values that are offered for one that does not exist.
const OFFERED: usize = 3;

/// What is said about one value, or about all.
pub(super) enum Explanation {
    /// All regions.
    All(Vec<rewrites::Region>),
    /// The proofs of one value, by its number: more than one if several became one.
    Made(usize, Vec<rewrites::Value>),
    /// The line of a value that no rule made.
    NotMade(String),
}

/// Explains a value of the graph that the passes returned: `%12`, `12`, the name of a result, or `all`.
///
/// # Errors
/// If the graph has no such value.
pub(super) fn explain(graph: &Graph, report: &Report, name: &str) -> Result<Explanation, Error> {
    if name == "all" {
        return Ok(Explanation::All(regions(&report.rewrites)));
    }
    let numbering = Numbering::new(graph);
    let number = match name.strip_prefix('%').unwrap_or(name).parse::<usize>() {
        Ok(number) if number < graph.len() => number,
        Ok(number) => return Err(unknown(name, graph, Some(number))),
        Err(_) => match graph.results().find(|(role, _)| name_of(role) == name) {
            Some((_, result)) => numbering.number(result),
            None => return Err(unknown(name, graph, None)),
        },
    };
    let made: Vec<rewrites::Value> =
        report.rewrites.iter().flat_map(|rewritten| made(rewritten, number)).collect();
    Ok(match made.is_empty() {
        false => Explanation::Made(number, made),
        true => Explanation::NotMade(numbering.node(graph, numbering.values()[number])),
    })
}

/// The proofs of the value of this number that a region has, with the names of its place.
fn made(rewritten: &Rewritten, number: usize) -> impl Iterator<Item = rewrites::Value> {
    let places = rewritten.places.iter().enumerate();
    let chains = places.flat_map(|(place, location)| {
        location.results.iter().enumerate().map(move |(chain, result)| (place, chain, *result))
    });
    let chains = chains.filter(move |(.., result)| *result == Some(number));
    chains.filter_map(|(place, chain, _)| value(rewritten, chain, place))
}

/// What a result is called by: its name, or its role if it has none.
fn name_of(role: &Role) -> String {
    match role {
        Role::Result { name } => name.clone(),
        role => RoleText(role).to_string(),
    }
}

fn unknown(name: &str, graph: &Graph, number: Option<usize>) -> Error {
    let n = graph.len();
    let names: Vec<String> = graph.results().map(|(role, _)| name_of(role)).collect();
    let near: Vec<String> = match number {
        Some(_) => (n.saturating_sub(OFFERED)..n).map(|number| format!("`%{number}`")).collect(),
        None => nearest(name, names.iter().map(String::as_str))
            .map(|near| format!("`{near}`"))
            .into_iter()
            .collect(),
    };
    let near = match near.is_empty() {
        true => String::new(),
        false => format!("; the nearest are {}", near.join(", ")),
    };
    let help = format!(
        "values are numbered as in the graph that the passes return, from `%0` to `%{}`, and results have names{near}",
        n.saturating_sub(1),
    );
    let message = format!("--explain: the graph has no value {}", quoted(name));
    Error::new(ErrorKind::Request, Diagnostic::new("usage::value", message).help(help))
}

impl Explanation {
    pub(super) fn text(&self) -> String {
        match self {
            Explanation::All(regions) if regions.is_empty() => "no rule made anything\n".to_owned(),
            Explanation::All(regions) => {
                let regions: Vec<String> = regions.iter().map(rewrites::Region::text).collect();
                format!("{LEGEND}\n{}", regions.join("\n"))
            }
            Explanation::Made(number, values) => {
                let text = |value| rewrites::text(&[(format!("%{number}"), value)]);
                let texts: Vec<String> = values.iter().map(text).collect();
                format!("{LEGEND}\n{}", texts.join("\n"))
            }
            Explanation::NotMade(line) => {
                format!("{line}\n  no rule made it: the graph had it, but for the numbers of its operands\n")
            }
        }
    }

    pub(super) fn json(&self) -> Value {
        match self {
            Explanation::All(regions) => json!({"regions": regions}),
            Explanation::Made(number, values) => json!({"result": number, "made": values}),
            Explanation::NotMade(line) => json!({"line": line, "made": []}),
        }
    }
}
