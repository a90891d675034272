//! How two graphs differ, matched by what nodes compute and not by their numbers.
//!
//! Nodes are paired in three rounds, each over what the one before left: equal down to the leaves; equal op, attributes and
//! place in the model; equal op and place. A pair is a change if attributes or types differ, or if operands are no
//! pairs themselves, so that what only stands behind a change is none.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Serialize;
use skipc_ir::ops::Attrs;
use skipc_ir::text::Numbering;
use skipc_ir::{Graph, Value};

/// What became of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Only the first graph has it.
    Gone,
    /// Only the second has it.
    Added,
    /// Both have it, not alike.
    Changed,
}

/// A node that is not the same in both graphs, with those of other blocks that differ alike.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeChange {
    /// What became of it.
    pub fate: Fate,
    /// Where in the model, such as `blocks.3.layers.0`; of equal changes all places.
    pub places: Vec<String>,
    /// What differs: `attributes`, `type`, `operands`.
    pub what: Vec<&'static str>,
    /// The node before, at the first place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The node after, at the first place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A graph with what nodes are compared by.
pub(in crate::report) struct Signed<'g> {
    graph: &'g Graph,
    numbering: Numbering,
    /// By number: a hash of all that a value depends on.
    pub(in crate::report) hashes: Vec<u64>,
    operands: Vec<Vec<usize>>,
}

impl<'g> Signed<'g> {
    pub(in crate::report) fn of(graph: &'g Graph) -> Signed<'g> {
        let numbering = Numbering::new(graph);
        let mut signed = Signed { graph, numbering, hashes: Vec::new(), operands: Vec::new() };
        for idx in 0..signed.numbering.values().len() {
            let value = signed.value(idx);
            let operands: Vec<usize> =
                graph.operands(value).into_iter().map(|operand| signed.numbering.number(operand)).collect();
            let mut hasher = DefaultHasher::new();
            signed.signature(idx).hash(&mut hasher);
            graph.origin(value).hash(&mut hasher);
            // A value on a cycle comes before its operand and counts without it.
            let of_operand = |operand: &usize| signed.hashes.get(*operand).copied().unwrap_or(0);
            operands.iter().map(of_operand).collect::<Vec<u64>>().hash(&mut hasher);
            signed.hashes.push(hasher.finish());
            signed.operands.push(operands);
        }
        signed
    }

    fn value(&self, idx: usize) -> Value {
        self.numbering.values()[idx]
    }

    /// Op and attributes, whatever the sets are called.
    fn signature(&self, idx: usize) -> String {
        let op = self.graph.op(self.value(idx)).without_set();
        without_numbers(&format!("{}{}", op.name(), Attrs(&op)))
    }

    fn ty(&self, idx: usize) -> String {
        without_numbers(&self.graph.ty(self.value(idx)).to_string())
    }

    fn origin(&self, idx: usize) -> String {
        self.graph.origin(self.value(idx)).to_string()
    }

    fn node(&self, idx: usize) -> String {
        self.numbering.node(self.graph, self.value(idx))
    }
}

/// Symbols of sets without their numbers: `real[c3, 128]` and `real[c5, 128]` are alike.
fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('c') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let is_word = out.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
        let digits = from[1..].chars().take_while(char::is_ascii_digit).count();
        let ends = !from[1 + digits..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
        out.push('c');
        rest = if !is_word && ends { &from[1 + digits..] } else { &from[1..] };
    }
    out + rest
}

/// Pairs of nodes by their numbers: `[a] → b`.
struct Pairs {
    of_before: Vec<Option<usize>>,
    of_after: Vec<Option<usize>>,
}

impl Pairs {
    fn of(before: &Signed<'_>, after: &Signed<'_>) -> Pairs {
        let mut pairs =
            Pairs { of_before: vec![None; before.hashes.len()], of_after: vec![None; after.hashes.len()] };
        pairs.round(|side: &Signed<'_>, idx| side.hashes[idx].to_string(), before, after);
        pairs.round(|side, idx| format!("{} @{}", side.signature(idx), side.origin(idx)), before, after);
        let op = |side: &Signed<'_>, idx| side.graph.op(side.value(idx)).name();
        pairs.round(|side, idx| format!("{} @{}", op(side, idx), side.origin(idx)), before, after);
        pairs
    }

    /// Pairs what has no partner yet and the same key, in order.
    fn round(&mut self, key: impl Fn(&Signed<'_>, usize) -> String, before: &Signed<'_>, after: &Signed<'_>) {
        let mut free: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for idx in (0..self.of_after.len()).rev().filter(|idx| self.of_after[*idx].is_none()) {
            free.entry(key(after, idx)).or_default().push(idx);
        }
        for idx in 0..self.of_before.len() {
            if self.of_before[idx].is_none()
                && let Some(partner) = free.get_mut(&key(before, idx)).and_then(Vec::pop)
            {
                self.of_before[idx] = Some(partner);
                self.of_after[partner] = Some(idx);
            }
        }
    }
}

/// What changes of equal blocks have in common: kind and folded place, and both sides without numbers.
type Alike = (String, Option<String>, Option<String>);

/// What differs, equal changes of equal blocks put together, in the order of the graphs.
pub fn changes(before: &Graph, after: &Graph) -> Vec<NodeChange> {
    let (before, after) = (Signed::of(before), Signed::of(after));
    let pairs = Pairs::of(&before, &after);
    let mut found: Vec<(Alike, NodeChange)> = Vec::new();
    let mut add = |place: String, sides: [Option<(String, String)>; 2], fate, what| {
        let [(key_before, node_before), (key_after, node_after)] = sides.map(Option::unzip);
        let key = (format!("{fate:?} {what:?} {}", folded(&place)), key_before, key_after);
        match found.iter_mut().find(|(known, _)| *known == key) {
            Some((_, change)) => change.places.push(place),
            None => {
                let (before, after) = (node_before, node_after);
                found.push((key, NodeChange { fate, places: vec![place], what, before, after }));
            }
        }
    };
    let side = |side: &Signed<'_>, idx: usize| {
        Some((format!("{} : {}", side.signature(idx), side.ty(idx)), side.node(idx)))
    };
    for (idx, partner) in pairs.of_before.iter().enumerate() {
        let Some(partner) = *partner else {
            add(before.origin(idx), [side(&before, idx), None], Fate::Gone, Vec::new());
            continue;
        };
        let mapped: Vec<Option<usize>> =
            before.operands[idx].iter().map(|operand| pairs.of_before[*operand]).collect();
        let operands: Vec<Option<usize>> = after.operands[partner].iter().map(|it| Some(*it)).collect();
        let differs = [
            ("attributes", before.signature(idx) != after.signature(partner)),
            ("type", before.ty(idx) != after.ty(partner)),
            ("operands", mapped != operands),
        ];
        let what: Vec<&str> = differs.into_iter().filter(|(_, is)| *is).map(|(name, _)| name).collect();
        if !what.is_empty() {
            add(before.origin(idx), [side(&before, idx), side(&after, partner)], Fate::Changed, what);
        }
    }
    for idx in (0..pairs.of_after.len()).filter(|idx| pairs.of_after[*idx].is_none()) {
        add(after.origin(idx), [None, side(&after, idx)], Fate::Added, Vec::new());
    }
    found.into_iter().map(|(_, change)| change).collect()
}

/// A place in the model with the block's number left out: equal blocks have equal ones.
pub(super) fn folded(place: &str) -> String {
    place
        .split('.')
        .map(|word| if word.parse::<u32>().is_ok() { "*" } else { word })
        .collect::<Vec<_>>()
        .join(".")
}

#[cfg(test)]
mod tests {
    use skipc_ir::text::parse;

    use super::*;

    fn graph(lines: &str) -> Graph {
        let text = format!("graph \"g\" {{\n{lines}\n}}\n");
        parse(&text).unwrap_or_else(|errors| panic!("{text}: {errors:?}"))
    }

    const PLAIN: &str = "  %0 = weight {name=\"a\", shape=[4, 8]} : real[4, 8] @\"blocks.0\"
  %1 = weight {name=\"g\", shape=[8]} : real[8] @\"blocks.0\"
  %2 = fold_gain %0, %1 : real[4, 8] @\"blocks.0\"
  return result \"x\" = %2";

    #[test]
    fn symbols_of_sets_have_no_numbers() {
        assert_eq!(without_numbers("real[c3, 128] cap=c cc4 c5"), "real[c, 128] cap=c cc4 c");
        assert_eq!(folded("blocks.11.layers.0"), "blocks.*.layers.*");
    }

    #[test]
    fn numbers_do_not_matter() {
        let other = "  %0 = weight {name=\"g\", shape=[8]} : real[8] @\"blocks.0\"
  %1 = weight {name=\"a\", shape=[4, 8]} : real[4, 8] @\"blocks.0\"
  %2 = fold_gain %1, %0 : real[4, 8] @\"blocks.0\"
  return result \"x\" = %2";
        assert_eq!(changes(&graph(PLAIN), &graph(other)), []);
    }

    #[test]
    fn what_is_behind_a_change_is_none() {
        let other = PLAIN.replace("name=\"g\"", "name=\"h\"");
        let found = changes(&graph(PLAIN), &graph(&other));
        let facts: Vec<_> = found.iter().map(|change| (change.fate, change.what.clone())).collect();
        assert_eq!(facts, [(Fate::Changed, vec!["attributes"])]);
    }
}
