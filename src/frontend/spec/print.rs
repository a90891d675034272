//! The resolved model as a spec again, every default written out but those of options that most models leave alone. It reads
//! back to an equal model.

use std::collections::BTreeSet;
use std::fmt;

use super::model::Model;
use super::node::{Block, Layers, Layout, Norms, SubLayer, Unit};
use super::skip_table;
use crate::frontend::language::words::{Word, text};
use crate::frontend::rope;
use crate::frontend::stream::{Head, Patches, Pooled, Positions, Rope, Stream, StreamInput};

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[model]")?;
        writeln!(f, "name = {}", text(&self.name))?;
        match self.stream.input {
            StreamInput::Tokens => writeln!(f, "vocab_size = {}", self.stream.vocab_size)?,
            StreamInput::Rows | StreamInput::Patches => {
                writeln!(f, "input = {}", text(self.stream.input.word()))?;
            }
        }
        if let Some(Patches { dim, class_token }) = self.stream.patches {
            writeln!(f, "patch_dim = {dim}\ncls_token = {class_token}")?;
        }
        writeln!(f, "d_model = {}", self.stream.d_model)?;
        writeln!(f, "max_positions = {}", self.stream.max_positions)?;
        writeln!(f, "norm = {}", text(self.stream.norm.kind.word()))?;
        writeln!(f, "norm_eps = {:?}", self.stream.norm.eps)?;
        if self.stream.norm.offset != 0.0 {
            writeln!(f, "norm_offset = {:?}", self.stream.norm.offset)?;
        }
        match self.stream.positions {
            Positions::Rope(Rope { theta, scaling }) => {
                writeln!(f, "positions = \"rope\"\nrope_theta = {theta:?}")?;
                if let Some(scaling) = scaling {
                    writeln!(f, "rope_scaling = {}", rope::print(scaling))?;
                }
            }
            Positions::Learned => writeln!(f, "positions = \"learned\"")?,
            Positions::None => writeln!(f, "positions = \"none\"")?,
        }
        if !self.stream.final_norm {
            writeln!(f, "final_norm = false")?;
        }
        match self.stream.head {
            Head::Tokens => writeln!(f, "tie_embeddings = {}", self.stream.tie_embeddings)?,
            Head::Rows | Head::Pooled => writeln!(f, "head = {}", text(self.stream.head.word()))?,
        }
        if let Some(Pooled { pool, classes }) = self.stream.pooled {
            writeln!(f, "pool = {}\nclasses = {classes}", text(pool.word()))?;
        }
        if self.stream.embed_scale != 1.0 {
            writeln!(f, "embed_scale = {:?}", self.stream.embed_scale)?;
        }
        if self.stream.head_bias {
            writeln!(f, "head_bias = true")?;
        }
        if let Some(cap) = self.stream.logit_softcap {
            writeln!(f, "logit_softcap = {cap:?}")?;
        }
        let mut printed = BTreeSet::new();
        for block in &self.blocks {
            if printed.insert(&block.name) {
                print_block(f, block, &self.stream)?;
            }
        }
        print_stack(f, &self.blocks)
    }
}

fn print_block(f: &mut fmt::Formatter<'_>, block: &Block, stream: &Stream) -> fmt::Result {
    writeln!(f, "\n[block.{}]", toml_edit::Key::new(&block.name).display_repr())?;
    if block.layout() != Layout::Sequence {
        writeln!(f, "layout = {}", text(block.layout().word()))?;
    }
    let skip = |unit| {
        let layers: Vec<String> = block
            .layers_in(Layers::Otherwise(unit))
            .map(|of| format!("{{ {} }}", layer(of, stream)))
            .collect();
        let otherwise = (!layers.is_empty()).then(|| layers.join(", "));
        block.skip_of(unit).map(|skip| skip_table::print(skip, unit, otherwise))
    };
    if let Some(skip) = skip(Unit::Block) {
        writeln!(f, "skip = {skip}")?;
    }
    writeln!(f, "layers = [")?;
    for (idx, of) in block.layers().enumerate() {
        write!(f, "  {{ {}", layer(of, stream))?;
        match skip(Unit::Layer(idx)) {
            None => writeln!(f, " }},")?,
            Some(skip) => writeln!(f, ", skip = {skip} }},")?,
        }
    }
    writeln!(f, "]")
}

/// A layer's table, without the braces and `skip`.
fn layer(of: &SubLayer, stream: &Stream) -> String {
    match of.norms() {
        Norms::Pre => of.layer.print(stream),
        norms => format!("{}, norms = {}", of.layer.print(stream), text(norms.word())),
    }
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
