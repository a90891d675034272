//! The resolved model as a spec again, every default written out. It reads back to an equal model.

use std::collections::BTreeSet;
use std::fmt;

use super::model::Model;
use super::node::{Block, Unit};
use super::skip_table;
use crate::frontend::language::words::{Word, text};
use crate::frontend::stream::Positions;

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[model]")?;
        writeln!(f, "name = {}", text(&self.name))?;
        writeln!(f, "vocab_size = {}", self.stream.vocab_size)?;
        writeln!(f, "d_model = {}", self.stream.d_model)?;
        writeln!(f, "max_positions = {}", self.stream.max_positions)?;
        writeln!(f, "norm = {}", text(self.stream.norm.kind.word()))?;
        writeln!(f, "norm_eps = {:?}", self.stream.norm.eps)?;
        match self.stream.positions {
            Positions::Rope { theta } => writeln!(f, "positions = \"rope\"\nrope_theta = {theta:?}")?,
            Positions::Learned => writeln!(f, "positions = \"learned\"")?,
            Positions::None => writeln!(f, "positions = \"none\"")?,
        }
        writeln!(f, "tie_embeddings = {}", self.stream.tie_embeddings)?;
        let mut printed = BTreeSet::new();
        for block in &self.blocks {
            if printed.insert(&block.name) {
                print_block(f, block)?;
            }
        }
        print_stack(f, &self.blocks)
    }
}

fn print_block(f: &mut fmt::Formatter<'_>, block: &Block) -> fmt::Result {
    writeln!(f, "\n[block.{}]", toml_edit::Key::new(&block.name).display_repr())?;
    let skip = |unit| block.skip_of(unit).map(|skip| skip_table::print(skip, unit));
    if let Some(skip) = skip(Unit::Block) {
        writeln!(f, "skip = {skip}")?;
    }
    writeln!(f, "layers = [")?;
    for (idx, layer) in block.layers().enumerate() {
        match skip(Unit::Layer(idx)) {
            None => writeln!(f, "  {{ {} }},", layer.print())?,
            Some(skip) => writeln!(f, "  {{ {}, skip = {skip} }},", layer.print())?,
        }
    }
    writeln!(f, "]")
}

fn print_stack(f: &mut fmt::Formatter<'_>, blocks: &[Block]) -> fmt::Result {
    let names: Vec<&str> = blocks.iter().map(|block| block.name.as_str()).collect();
    let period = period(&names);
    let shown: Vec<String> = names.iter().take(period).map(|name| text(name)).collect();
    writeln!(f, "\n[[stack]]\nblocks = [{}]", shown.join(", "))?;
    writeln!(f, "repeat = {}", names.len().checked_div(period).unwrap_or(0))
}

/// Length of the shortest prefix of which `names` is a whole number of repetitions.
fn period(names: &[&str]) -> usize {
    let len = names.len();
    let repeats = |period: &usize| len.is_multiple_of(*period) && names[*period..] == names[..len - *period];
    (1..=len).find(repeats).unwrap_or(0)
}
