//! Graphs and plans in the language of Graphviz. A token set is a colour and a label, never a colour alone.

use std::collections::BTreeMap;
use std::fmt::Write;

use skipc_artifact::program::Arg;
use skipc_ir::Graph;
use skipc_ir::text::Numbering;
use skipc_plan::Plan;

use crate::cost::part;

/// Fill colours of token sets, in turn: light forms of those by Okabe and Ito ("Color universal design", 2008).
const FILLS: [&str; 6] = ["#cfe8f7", "#fbe3b5", "#c9ecdf", "#f4d6e6", "#f6d3bd", "#e4e4e4"];

/// A graph: a node for each value, boxes around the parts of the model.
pub fn graph(graph: &Graph, title: &str) -> String {
    let numbering = Numbering::new(graph);
    let mut parts: BTreeMap<usize, (String, Vec<String>)> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let mut edges = String::new();
    for &value in numbering.values() {
        let name = part(graph.origin(value));
        let at = order.iter().position(|known| *known == name).unwrap_or_else(|| {
            order.push(name.clone());
            order.len() - 1
        });
        let number = numbering.number(value);
        let line = numbering.node(graph, value);
        let (_, op) = line.split_once(" = ").unwrap_or(("", &line));
        let label = format!(
            "%{number} {}\\n{}",
            escaped(graph.op(value).name()),
            escaped(&graph.ty(value).to_string())
        );
        let fill = set_of(&graph.ty(value).to_string()).map_or_else(String::new, |set| {
            format!(", style=\"filled\", fillcolor=\"{}\"", FILLS[set % FILLS.len()])
        });
        let node = format!("n{number} [label=\"{label}\", tooltip=\"{}\"{fill}];", escaped(op));
        parts.entry(at).or_insert_with(|| (name, Vec::new())).1.push(node);
        for operand in graph.operands(value) {
            let _ = writeln!(edges, "  n{} -> n{number};", numbering.number(operand));
        }
    }
    let mut out = head(title);
    for (at, (name, nodes)) in parts {
        let _ =
            writeln!(out, "  subgraph cluster_{at} {{\n    label=\"{}\"; color=\"#999999\";", escaped(&name));
        nodes.iter().for_each(|node| {
            let _ = writeln!(out, "    {node}");
        });
        out.push_str("  }\n");
    }
    for (idx, (role, value)) in graph.results().enumerate() {
        let _ = writeln!(out, "  r{idx} [label=\"{}\", shape=plaintext];", escaped(&role.to_string()));
        let _ = writeln!(edges, "  n{} -> r{idx} [style=dashed];", numbering.number(value));
    }
    out + &edges + "}\n"
}

/// A plan: a node for each step, and an edge from the step that wrote a buffer last to each that reads it.
pub fn plan(plan: &Plan, title: &str) -> String {
    let mut out = head(title);
    let mut wrote: BTreeMap<u32, usize> = BTreeMap::new();
    for (number, step) in plan.function.steps.iter().enumerate() {
        let Some((symbol, kernel)) = plan.kernels.get(step.kernel as usize) else { continue };
        let (label, origin) = (escaped(symbol), escaped(&step.origin));
        let _ = writeln!(out, "  s{number} [label=\"{number} {label}\\n{origin}\"];");
        let writes = kernel.writes();
        let buffers = (0u32..).zip(&step.args).filter_map(|(param, arg)| match arg {
            Arg::Buffer(buffer) => Some((param, *buffer)),
            Arg::Constant(_) => None,
        });
        let (written, read): (Vec<_>, Vec<_>) = buffers.partition(|(param, _)| writes.contains(param));
        for (_, buffer) in read {
            if let Some(from) = wrote.get(&buffer) {
                let name = plan.function.buffers.get(buffer as usize).map_or("", |buffer| &buffer.name);
                let _ = writeln!(out, "  s{from} -> s{number} [label=\"{}\"];", escaped(name));
            }
        }
        wrote.extend(written.into_iter().map(|(_, buffer)| (buffer, number)));
    }
    out + "}\n"
}

fn head(title: &str) -> String {
    format!(
        "digraph \"{}\" {{\n  node [shape=box, fontname=\"sans-serif\", fontsize=10];\n  edge [fontname=\"sans-serif\", fontsize=8];\n",
        escaped(title)
    )
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " ")
}

/// The number of the token set whose rows a type has, such as 3 of `real[c3, 128]`.
pub(super) fn set_of(ty: &str) -> Option<usize> {
    let (_, dims) = ty.split_once('[')?;
    let rows = dims.split([',', ']']).next()?;
    rows.strip_prefix('c')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_from_types() {
        assert_eq!(set_of("real[c12, 128]"), Some(12));
        assert_eq!(set_of("real[n, 128]"), None);
        assert_eq!(set_of("set"), None);
    }

    #[test]
    fn names_end_no_string() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c d");
    }
}
