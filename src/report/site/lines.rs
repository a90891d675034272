//! Which line of a resolved spec a place in the model comes from.

use std::collections::BTreeMap;

use crate::frontend::spec::model::Model;
use crate::frontend::spec::node::Unit;

/// The lines of a spec by the places that they ask for, counted from 1.
pub(super) struct Lines {
    places: BTreeMap<String, usize>,
    model: usize,
}

/// The lines of one block in the text.
#[derive(Default)]
struct BlockLines {
    header: usize,
    skip: Option<usize>,
    layers: Vec<usize>,
}

impl Lines {
    /// Reads the text of a model as it prints itself: a line for each header, key and layer.
    pub(super) fn of(model: &Model, text: &str) -> Lines {
        let mut blocks: BTreeMap<String, BlockLines> = BTreeMap::new();
        let mut places = BTreeMap::new();
        let (mut section, mut first) = (String::new(), 0);
        for (number, line) in (1..).zip(text.lines()) {
            if line.starts_with('[') {
                section = line.to_owned();
                first = if line == "[model]" { number } else { first };
                blocks.entry(section.clone()).or_default().header = number;
            } else if line.starts_with("skip = ") {
                blocks.entry(section.clone()).or_default().skip = Some(number);
            } else if line.starts_with("  {") {
                blocks.entry(section.clone()).or_default().layers.push(number);
            } else if section == "[model]" {
                // What stands before and behind the blocks is named after the keys that ask for it.
                let key = line.split(' ').next().unwrap_or_default();
                for (place, asked) in [("embed", "vocab_size"), ("head", "tie_embeddings")] {
                    if key == asked {
                        places.insert(place.to_owned(), number);
                    }
                }
            }
        }
        for (idx, block) in model.blocks.iter().enumerate() {
            let header = format!("[block.{}]", toml_edit::Key::new(&block.name).display_repr());
            let Some(lines) = blocks.get(&header) else { continue };
            places.insert(Unit::Block.name(idx), lines.header);
            places.insert(Unit::Block.router(idx), lines.skip.unwrap_or(lines.header));
            for (layer, line) in lines.layers.iter().enumerate() {
                places.insert(Unit::Layer(layer).name(idx), *line);
                places.insert(Unit::Layer(layer).router(idx), *line);
            }
        }
        Lines { places, model: first }
    }

    /// The line that a place, such as `blocks.3.layers.0`, comes from: its own, or that of what it is in.
    pub(super) fn line(&self, place: &str) -> Option<usize> {
        let mut place = place;
        loop {
            if let Some(line) = self.places.get(place) {
                return Some(*line);
            }
            match place.rsplit_once('.') {
                Some((outer, _)) => place = outer,
                None => return (place == "inputs").then_some(self.model),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::spec;

    #[test]
    fn places_have_their_lines() {
        let text = "[model]\nname = \"t\"\nvocab_size = 8\nd_model = 16\nmax_positions = 32\nnorm = \"rmsnorm\"\npositions = \"none\"\ntie_embeddings = true\n\n[block.a]\nlayers = [{ kind = \"ffn\", d_ff = 32, activation = \"relu\" }, { kind = \"ffn\", d_ff = 64, activation = \"relu\", skip = { router = \"gumbel\", density = 0.5 } }]\n\n[[stack]]\nblocks = [\"a\", \"a\"]\n";
        let model = spec::model("t.toml", text).unwrap_or_else(|error| panic!("{error}"));
        let text = model.to_string();
        let lines = Lines::of(&model, &text);
        let line = |place: &str| lines.line(place).map(|line| text.lines().nth(line - 1).unwrap_or_default());
        assert!(line("blocks.1.layers.1").is_some_and(|line| line.contains("d_ff = 64")));
        assert!(line("blocks.0.layers.0.norm").is_some_and(|line| line.contains("d_ff = 32")));
        assert!(line("blocks.0.layer_routers.1").is_some_and(|line| line.contains("d_ff = 64")));
        assert_eq!(line("blocks.0.other"), Some("[block.a]"));
        assert_eq!(line("embed"), Some("vocab_size = 8"));
        assert_eq!(line("inputs"), Some("[model]"));
        assert_eq!(line("elsewhere"), None);
    }
}
