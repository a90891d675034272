//! Which line of a spec a place in the model comes from.

use std::collections::BTreeMap;

use crate::frontend::language::ast::{Ast, Entry, Table, ValueKind};
use crate::frontend::spec::model::Model;
use crate::frontend::spec::node::Unit;

/// The lines of a spec by the places that they ask for, counted from 1.
pub(super) struct Lines {
    places: BTreeMap<String, usize>,
}

impl Lines {
    /// Reads the lines of a model in the spec that it was resolved from, or in its own text.
    pub(super) fn of(model: &Model, ast: &Ast) -> Lines {
        let mut lines = Lines { places: BTreeMap::new() };
        let number = |offset: usize| ast.source.line_column(offset).0;
        if let Some(entry) = ast.root.get("model") {
            let header = number(entry.value.span.start);
            lines.places.insert("inputs".to_owned(), header);
            // What stands before and behind the blocks is named after the keys that ask for it.
            let keys = as_table(entry).map(|table| &table.entries).into_iter().flatten();
            let asked = [("embed", ["vocab_size", "input"]), ("head", ["tie_embeddings", "head"])];
            for (place, words) in asked {
                let key = keys.clone().find(|entry| words.contains(&entry.key.as_str()));
                lines.places.insert(place.to_owned(), key.map_or(header, |key| number(key.key_span.start)));
            }
        }
        let defined = ast.root.get("block").and_then(as_table);
        for (idx, block) in model.blocks.iter().enumerate() {
            if let Some(entry) = defined.and_then(|blocks| blocks.get(&block.name)) {
                lines.add_block(idx, entry, &number);
            }
        }
        if let Some(ValueKind::List(stacks)) = ast.root.get("stack").map(|entry| &entry.value.kind) {
            for (idx, value) in stacks.iter().enumerate() {
                lines.places.insert(format!("stacks.{idx}"), number(value.span.start));
            }
        }
        lines
    }

    fn add_block(&mut self, idx: usize, entry: &Entry, number: &dyn Fn(usize) -> usize) {
        self.places.insert(Unit::Block.name(idx), number(entry.value.span.start));
        let Some(block) = as_table(entry) else { return };
        self.add_skip(Unit::Block.router(idx), &format!("blocks.{idx}.otherwise"), block, number);
        let Some(ValueKind::List(layers)) = block.get("layers").map(|entry| &entry.value.kind) else {
            return;
        };
        for (layer, value) in layers.iter().enumerate() {
            let unit = Unit::Layer(layer);
            self.places.insert(unit.name(idx), number(value.span.start));
            if let ValueKind::Table(table) = &value.kind {
                let otherwise = format!("blocks.{idx}.layer_otherwise.{layer}");
                self.add_skip(unit.router(idx), &otherwise, table, number);
            }
        }
    }

    /// The line of a choice, and those of the layers that its other branch has.
    fn add_skip(&mut self, router: String, otherwise: &str, unit: &Table, number: &dyn Fn(usize) -> usize) {
        let Some(entry) = unit.get("skip") else { return };
        self.places.insert(router, number(entry.key_span.start));
        let layers = as_table(entry).and_then(|skip| skip.get("otherwise"));
        if let Some(ValueKind::List(layers)) = layers.map(|entry| &entry.value.kind) {
            for (layer, value) in layers.iter().enumerate() {
                self.places.insert(format!("{otherwise}.{layer}"), number(value.span.start));
            }
        }
    }

    /// The line that a place, such as `blocks.3.layers.0`, comes from: its own, or that of what it is in.
    pub(super) fn line(&self, place: &str) -> Option<usize> {
        let mut place = place;
        loop {
            if let Some(line) = self.places.get(place) {
                return Some(*line);
            }
            place = place.rsplit_once('.')?.0;
        }
    }
}

fn as_table(entry: &Entry) -> Option<&Table> {
    match &entry.value.kind {
        ValueKind::Table(table) => Some(table),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::language::ast;
    use crate::frontend::source::Source;

    const TEXT: &str = "# A comment.\n[model]\nname = \"t\"\nvocab_size = 8\nd_model = 16\nmax_positions = 32\nnorm = \"rmsnorm\"\npositions = \"none\"\ntie_embeddings = true\n\n[[stack]]\nblocks = [\"a\", \"a\"]\n\n[block.a]\nlayers = [\n  { kind = \"ffn\", d_ff = 32, activation = \"relu\" },\n  { kind = \"ffn\", d_ff = 64, activation = \"relu\",\n    skip = { router = \"gumbel\", density = 0.5 } },\n]\n";

    #[test]
    fn places_have_their_lines_in_both_texts() {
        let source = Source::of_text("t.toml", TEXT).unwrap_or_else(|error| panic!("{error:?}"));
        let resolved = source.model.to_string();
        let resolved_ast = ast::parse("t", &resolved).unwrap_or_else(|error| panic!("{error:?}"));
        for (text, ast, router) in
            [(TEXT, &source.ast, "skip = "), (resolved.as_str(), &resolved_ast, "d_ff = 64")]
        {
            let lines = Lines::of(&source.model, ast);
            let line =
                |place: &str| lines.line(place).map(|line| text.lines().nth(line - 1).unwrap_or_default());
            let holds = |place: &str, words: &str| {
                assert!(line(place).is_some_and(|line| line.contains(words)), "{place}: {:?}", line(place));
            };
            holds("blocks.1.layers.1", "d_ff = 64");
            holds("blocks.0.layers.0.norm", "d_ff = 32");
            holds("blocks.0.layer_routers.1", router);
            holds("blocks.0.other", "[block.a]");
            holds("embed", "vocab_size = 8");
            holds("head", "tie_embeddings = true");
            holds("inputs", "[model]");
            assert_eq!(line("elsewhere"), None);
        }
    }
}
